package websocket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// RFC 6455 section 7.4.1 and the IANA registry: each code's name, and who may
// send it.
var closeCodes = []struct {
	code           CloseCode
	name           string
	server, client bool // may send it with Close
}{
	{1000, "1000 normal closure", true, true},
	{1001, "1001 going away", true, true},
	{1002, "1002 protocol error", true, true},
	{1003, "1003 unsupported data", true, true},
	{1004, "1004 reserved", false, false},
	{1005, "1005 no status received", true, true}, // as an empty close frame
	{1006, "1006 abnormal closure", false, false},
	{1007, "1007 invalid frame payload data", true, true},
	{1008, "1008 policy violation", true, true},
	{1009, "1009 message too big", true, true},
	{1010, "1010 mandatory extension", false, true},
	{1011, "1011 internal error", true, true},
	{1012, "1012 service restart", true, true},
	{1013, "1013 try again later", true, true},
	{1014, "1014 bad gateway", true, true},
	{1015, "1015 TLS handshake", false, false},
	{0, "0", false, false},
	{999, "999", false, false},
	{1016, "1016", false, false},
	{2999, "2999", false, false},
	{3000, "3000", true, true},
	{4999, "4999", true, true},
	{5000, "5000", false, false},
	{65535, "65535", false, false},
}

func TestCloseCodes(t *testing.T) {
	for _, c := range closeCodes {
		for client, may := range map[bool]bool{false: c.server, true: c.client} {
			t.Run(fmt.Sprint(c.code, client), func(t *testing.T) {
				require.Equal(t, c.name, c.code.String())
				synctest.Test(t, func(t *testing.T) {
					conn, r := rawPeer(t, Params{Client: client, Config: quiet})
					go func() {
						want := c.code
						if !may {
							want = CloseInternalError
						}
						key := masked(closed, 1)
						if client {
							key = closed
						}
						r.expect(closed, closeFrame(want, ""))
						r.send(key, closeFrame(want, ""))
						r.Close()
					}()
					err := conn.Close(c.code, "")
					if may {
						require.NoError(t, err)
					} else {
						require.EqualError(t, err, "websocket: close code "+c.name+" must not be sent")
					}
					_, err = conn.Read(bg)
					require.ErrorIs(t, err, net.ErrClosed)
					if may {
						require.Equal(t, c.code, CodeOf(err))
					}
				})
			})
		}
	}
}

// All 65,536 codes that a close frame may carry (RFC 6455 section 7.4, A39):
// good ones are echoed and reported, bad ones are a protocol error.
func TestClosePayloadCodes(t *testing.T) {
	for code := range 1 << 16 {
		e, err := parseClose(binary.BigEndian.AppendUint16(nil, uint16(code)))
		good := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
		if good != (err == nil) {
			t.Fatal(code, err)
		}
		if good && *e != (CloseError{Code: CloseCode(code)}) || !good && err != error(errCloseCode) {
			t.Fatal(code, e, err)
		}
	}
}

// RFC 6455 sections 5.5.1 and 7.1.5: what comes in a close frame, what is
// answered, and what the application is told.
func TestPeerCloses(t *testing.T) {
	for _, c := range []struct {
		name, payload, answer string
		want                  error
	}{
		{"empty", "", "", &CloseError{Code: CloseNoStatusReceived}},
		{"code", "\x03\xe8", "\x03\xe8", &CloseError{Code: 1000}},
		{"code and reason", "\x0f\xa0Grüße", "\x0f\xa0", &CloseError{4000, "Grüße"}},
		{"longest reason", "\x03\xe9" + strings.Repeat("r", 123), "\x03\xe9", &CloseError{1001, strings.Repeat("r", 123)}},
		{"half a code", "\x03", closeFrame(1002, errClosePart.Reason), errClosePart},
		{"reserved code", "\x03\xee", closeFrame(1002, errCloseCode.Reason), errCloseCode},
		{"unknown code", "\x07\xd0", closeFrame(1002, errCloseCode.Reason), errCloseCode},
		{"bad UTF-8", "\x03\xe8\xff", closeFrame(1007, errCloseReason.Reason), errCloseReason},
		{"cut UTF-8", "\x03\xe8\xe2\x82", closeFrame(1007, errCloseReason.Reason), errCloseReason},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, r := rawPeer(t, Params{Config: quiet})
				// What follows is ignored (A40).
				r.send(masked(text, 9), "before", masked(closed, 1), c.payload, masked(ping, 2), "after", masked(closed, 1), "\x03\xe9", text, "bad")
				require.Equal(t, "text before", read(t, conn))
				_, err := conn.Read(bg)
				require.Equal(t, c.want, err)
				_, again := conn.Next(bg)
				require.Equal(t, err, again)
				require.Equal(t, c.want, conn.Write(bg, Text("x")))
				r.expect(closed, c.answer)
				r.expectEOF()
				require.Less(t, since(), 5*time.Second)
			})
		})
	}
}

func TestCloseErrorTexts(t *testing.T) {
	for want, err := range map[string]error{
		`websocket: closed by the peer: 1001 going away`:                  &CloseError{Code: 1001},
		`websocket: closed by the peer: 4000 "a\n\x1b[1m\u202e"`:          &CloseError{4000, "a\n\x1b[1m\u202e"}, // A121
		`websocket: closed by this side: 1000 normal closure "done"`:      &closedError{1000, "done"},
		`websocket: peer failed: 1009 message too big: message too big`:   errTooBig,
		`websocket: handshake failed: no (403)`:                           &HandshakeError{Status: 403, Reason: "no"},
		`websocket: handshake failed: never`:                              &HandshakeError{Reason: "never"},
		`websocket: the peer did not answer the close frame: i/o timeout`: errCloseSlow,
	} {
		require.EqualError(t, err, want)
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		code CloseCode
	}{
		{nil, 0},
		{io.EOF, CloseAbnormalClosure},
		{net.ErrClosed, CloseAbnormalClosure},
		{&CloseError{Code: 4000}, 4000},
		{errTooBig, CloseMessageTooBig},
		{fmt.Errorf("read: %w", &closedError{code: 1001}), CloseGoingAway},
	} {
		require.Equal(t, c.code, CodeOf(c.err))
	}
}

// A reason is cut between characters to fit in 123 bytes, and is UTF-8 (A48).
func FuzzCloseReason(f *testing.F) {
	f.Add(strings.Repeat("€", 50))
	f.Add("a" + strings.Repeat("€", 41))
	f.Add("\xff\xc3")
	f.Add(strings.Repeat("\x80", 200))
	f.Fuzz(func(t *testing.T, reason string) {
		var p []byte
		budget.Check(t, 2*len(reason), maxControl, func() { p = appendClose(nil, 1000, reason) }) // U+FFFD is longer than what it replaces
		require.LessOrEqual(t, len(p), maxControl)
		require.True(t, utf8.Valid(p[2:]))
		if utf8.ValidString(reason) {
			require.True(t, strings.HasPrefix(reason, string(p[2:])))
			if len(reason) > 123 {
				require.Greater(t, len(p), maxControl-utf8.UTFMax)
			} else {
				require.Equal(t, reason, string(p[2:]))
			}
		}
	})
}

// FuzzClosePayload: whatever a peer sends in a close frame, the verdict is one
// of the three, and what is accepted is echoed unchanged.
func FuzzClosePayload(f *testing.F) {
	for _, s := range []string{"", "\x03", "\x03\xe8", "\x03\xe8why", "\x03\xe8\xff", "\x13\x88"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var e *CloseError
		var err error
		budget.Check(t, len(p), 0, func() { e, err = parseClose(p) })
		switch {
		case err != nil:
			require.Contains(t, []error{errClosePart, errCloseCode, errCloseReason}, err)
		case len(p) <= maxControl:
			require.Equal(t, string(p), closeFrame(e.Code, e.Reason))
		}
	})
}

// Close in a row with everything else: each end gets its own story.
func TestCloseHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(quiet, quiet)
		require.NoError(t, s.Queue(Text("queued before")))
		done := make(chan error)
		go func() { done <- s.Close(4001, "over") }()
		require.Equal(t, "text queued before", read(t, c))
		_, err := c.Read(bg)
		require.Equal(t, &CloseError{4001, "over"}, err)
		require.NoError(t, <-done)
		require.Zero(t, since(), "nobody waits for a timeout")

		require.NoError(t, s.Close(1000, ""), "again")
		require.NoError(t, c.Close(1000, ""), "the other way round")
		require.NoError(t, s.CloseNow())
		for _, err := range []error{s.Write(bg, Text("x")), s.Post(Text("x")), s.Ping(bg), context.Cause(s.Context())} {
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, CloseCode(4001), CodeOf(err))
		}
	})
}

// Both at the same time (A72).
func TestCloseSimultaneously(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := pipe(quiet, quiet)
		errs := make(chan error)
		go func() { errs <- s.Close(4001, "") }()
		go func() { errs <- c.Close(4002, "") }()
		require.NoError(t, errors.Join(<-errs, <-errs))
		require.Equal(t, CloseCode(4001), CodeOf(context.Cause(s.Context())))
		require.Equal(t, CloseCode(4002), CodeOf(context.Cause(c.Context())))
	})
}

// While Close waits, a goroutine that reads gets what the peer had sent before
// it knew.
func TestCloseWithReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		got := make(chan string)
		go func() {
			got <- read(t, c)
			_, err := c.Read(bg)
			got <- err.Error()
		}()
		synctest.Wait()
		done := make(chan error)
		go func() { done <- c.Close(1000, "") }()
		r.expect(closed, "\x03\xe8")
		r.send(masked(text, 1), "late")
		require.Equal(t, "text late", <-got)
		r.send(masked(closed, 1), "\x03\xe8")
		r.expectEOF()
		r.Close()
		require.Equal(t, "websocket: closed by this side: 1000 normal closure", <-got)
		require.NoError(t, <-done)
	})
}

// A reader that its context stops while Close waits for the peer, or just
// before, leaves the reading to Close.
func TestCloseAfterReader(t *testing.T) {
	ways := map[string]func(context.Context, *Conn) error{
		"Read":  func(ctx context.Context, c *Conn) error { _, err := c.Read(ctx); return err },
		"Serve": func(ctx context.Context, c *Conn) error { return c.Serve(ctx, nil) },
		"Reader": func(ctx context.Context, c *Conn) error {
			_, r, err := c.Reader(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		},
	}
	for name, way := range ways {
		for _, begun := range []bool{false, true} { // a message is under way
			for _, cancelFirst := range []bool{false, true} {
				t.Run(fmt.Sprint(name, begun, cancelFirst), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c, r := rawPeer(t, Params{Config: quiet})
						if begun {
							r.send(masked(text0, 1), "half ")
						}
						ctx, cancel := context.WithCancel(bg)
						read := make(chan error, 1)
						go func() { read <- way(ctx, c) }()
						synctest.Wait()
						done := make(chan error, 1)
						if cancelFirst {
							cancel()
						}
						go func() { done <- c.Close(1000, "") }()
						synctest.Wait()
						cancel()
						synctest.Wait()
						if begun {
							r.send(masked(cont, 1), "a message")
						}
						r.send(masked(closed, 1), "\x03\xe8")
						r.Close()
						require.NoError(t, <-done)
						require.ErrorIs(t, <-read, context.Canceled)
						require.Zero(t, since())
					})
				})
			}
		}
	}
}

// Close may come between two reading calls, or as one returns.
func TestCloseBesideReader(t *testing.T) {
	for i := range 300 {
		synctest.Test(t, func(t *testing.T) {
			s, c := pipe(quiet, quiet)
			for range 5 {
				require.NoError(t, c.Queue(Text("message")))
			}
			require.NoError(t, c.Flush(bg))
			var wg sync.WaitGroup
			wg.Go(func() { c.Serve(bg, nil) })
			wg.Go(func() {
				for range i % 5 {
					m, err := s.Read(bg)
					if err != nil {
						require.ErrorIs(t, err, net.ErrClosed)
						return
					}
					require.Equal(t, "message", string(m.Data))
				}
				s.Buffered()
			})
			wg.Go(func() { s.Close(1000, "") })
			wg.Wait()
			c.CloseNow()
		})
	}
}

// Close never waits longer than CloseTimeout (A73), whether or not somebody
// reads, and whatever the peer does.
func TestCloseTimeout(t *testing.T) {
	for name, peer := range map[string]func(raw){
		"silent": func(raw) {},
		"chatty": func(r raw) {
			for {
				if _, err := r.Write(frames(masked(text, 1), "chat")); err != nil {
					return
				}
				pass(time.Second / 3)
			}
		},
		"stuck": func(r raw) { r.Write([]byte{0x82}) },
	} {
		for _, reads := range []bool{false, true} {
			t.Run(fmt.Sprint(name, reads), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, r := rawPeer(t, Params{Config: quiet})
					var wg sync.WaitGroup
					defer wg.Wait()
					wg.Go(func() { peer(r) })
					if reads {
						go c.Serve(bg, nil)
						synctest.Wait()
					}
					err := c.Close(1000, "")
					require.Equal(t, errCloseSlow, err)
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					require.Equal(t, 5*time.Second, since())
					r.Close()
				})
			})
		}
	}
}

// Close when the peer does not even take the close frame.
func TestCloseBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(10)
		c := NewConn(a, Params{Config: quiet})
		require.NoError(t, c.Post(Binary(seq(100))))
		require.Error(t, c.Close(1000, ""))
		require.Equal(t, 5*time.Second, since())
	})
}

// The peer goes instead of answering.
func TestCloseUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		go func() {
			r.expect(closed, "\x03\xe8")
			r.Close()
		}()
		require.Equal(t, io.ErrUnexpectedEOF, c.Close(1000, ""))
		_, err := c.Read(bg)
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// CloseNow interrupts everything.
func TestCloseNow(t *testing.T) {
	for name, call := range map[string]func(*Conn) error{
		"Read":  func(c *Conn) error { _, err := c.Read(bg); return err },
		"Write": func(c *Conn) error { return c.Write(bg, Binary(seq(1000))) },
		"Ping":  func(c *Conn) error { return c.Ping(bg) },
		"Serve": func(c *Conn) error { return c.Serve(bg, nil) },
		"Close": func(c *Conn) error { c.Close(1000, ""); return net.ErrClosed },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := memnet.Pipe(10)
				c := NewConn(a, Params{Config: quiet})
				done := make(chan error)
				go func() { done <- call(c) }()
				synctest.Wait()
				require.NoError(t, c.CloseNow())
				require.ErrorIs(t, <-done, net.ErrClosed)
				require.Zero(t, since())
			})
		})
	}
}

// What Next lent is not touched by a Close on the same goroutine.
func TestCloseKeepsTheLoan(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	r.send(masked(text, 1), "lent", masked(text, 2), "more", masked(closed, 3), "\x03\xe8")
	m, err := c.Next(bg)
	require.NoError(t, err)
	go func() { r.expect(closed, "\x03\xe8"); r.Close() }()
	require.NoError(t, c.Close(1000, ""))
	require.Equal(t, "lent", string(m.Data))
}

// A close frame is not overtaken by a reset, though unread input lies in the
// kernel (RFC 6455 section 7.1.1).
func TestCloseFrameArrives(t *testing.T) {
	for range 20 {
		a, b := tcpPipe(t)
		c := NewConn(a, Params{Config: quiet})
		_, err := b.Write(append(frames(text, "unmasked"), seq(200_000)...))
		require.NoError(t, err)
		go c.Read(bg)
		raw{t, b}.expect(closed, closeFrame(1002, errUnmasked.Reason))
		b.Close()
		<-c.Context().Done()
	}
}
