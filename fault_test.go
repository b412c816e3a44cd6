package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// fault_test.go holds what the table of attack_test.go cannot: slow consumers,
// ends without a word, handlers that fail, memory that is reused.

// Slow consumers are given up within WriteTimeout, however this side writes, and
// nobody else waits for them (A69).
func TestSlowConsumer(t *testing.T) {
	ways := map[string]func(c *Conn) error{
		"Write":       func(c *Conn) error { return c.Write(bg, Binary(seq(1000))) },
		"Post":        func(c *Conn) error { return c.Post(Binary(seq(1000))) },
		"Queue,Flush": func(c *Conn) error { return errors.Join(c.Queue(Binary(seq(1000))), c.Flush(bg)) },
		"Writer": func(c *Conn) error {
			w, err := c.Writer(bg, MessageBinary)
			if err == nil {
				_, err = w.Write(seq(5000))
				err = errors.Join(err, w.Close())
			}
			return err
		},
	}
	paces := map[string]time.Duration{"reads nothing": 0, "reads 1 B/s": time.Second}
	for way, send := range ways {
		for pace, pause := range paces {
			for _, client := range []bool{false, true} {
				t.Run(fmt.Sprint(way, " ", pace, " ", client), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := memnet.Pipe(100)
						cfg := quiet
						cfg.QueueLimit = 10_000
						c := NewConn(a, Params{Client: client, Config: cfg})
						other, peer := pipe(quiet, quiet)
						defer func() {
							b.Close()
							c.CloseNow()
							other.CloseNow()
							peer.CloseNow()
							pass(time.Second)
						}()
						go other.Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
						go c.Serve(bg, nil)
						if pause > 0 {
							go trickle(b, pause)
						}
						go func() { // as fast as it can
							for err := error(nil); err == nil || err == ErrQueueFull; pass(time.Millisecond) {
								err = send(c)
							}
						}()
						for range 9 {
							pass(time.Second)
							now := since()
							require.NoError(t, peer.Write(bg, Text("x")))
							require.Equal(t, "text x", read(t, peer))
							require.Equal(t, now, since(), "others do not wait")
							require.NoError(t, context.Cause(c.Context()))
							c.out.mu.Lock()
							waiting := 0
							for _, b := range []*buffer{c.out.buf, c.out.fly, c.out.held} {
								if b != nil {
									waiting += len(b.b)
								}
							}
							c.out.mu.Unlock()
							require.LessOrEqual(t, waiting, 10_000)
						}
						<-c.Context().Done()
						require.Equal(t, 10*time.Second, since())
						require.ErrorIs(t, context.Cause(c.Context()), os.ErrDeadlineExceeded)
					})
				})
			}
		}
	}
}

// trickle reads a byte at a time.
func trickle(nc net.Conn, pause time.Duration) {
	for p := make([]byte, 1); ; pass(pause) {
		if _, err := nc.Read(p); err != nil {
			return
		}
	}
}

// Whoever echoes for a peer that floods and does not read ends it in time too,
// whatever turns the crank (A69, A60).
func TestSlowConsumerFloods(t *testing.T) {
	for _, m := range modes {
		if m.cut != "whole" || m.zip != "off" || m.tls {
			continue
		}
		for name, h := range map[string]Header{"messages": bin, "pings": ping} {
			t.Run(fmt.Sprintf("%s %+v", name, m), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := memnet.Pipe(1000)
					c := NewConn(a, Params{Client: m.client, Config: quiet})
					if !m.client {
						h = masked(h, 1)
					}
					go func() {
						for {
							if _, err := b.Write(frames(h, string(seq(100)))); err != nil {
								return
							}
						}
					}()
					err := m.read(c, func(m Message) { c.Write(bg, m) })
					require.ErrorIs(t, err, os.ErrDeadlineExceeded)
					require.InDelta(t, 10*time.Second, since(), float64(2*linger))
					b.Close()
				})
			})
		}
	}
}

// When a write has failed, those who waited behind it write nothing more: the
// peer must not take their frames for the rest of a half one (A82, found by A80).
func TestWriteFailsForAll(t *testing.T) {
	for _, waiting := range []int{0, 1, 5} { // nothing else waits, or something does
		synctest.Test(t, func(t *testing.T) {
			a, _ := memnet.Pipe(1)
			f := &failing{Conn: a, gate: make(chan struct{})}
			c := NewConn(f, Params{Config: quiet})
			var wg sync.WaitGroup
			wg.Go(func() { require.Equal(t, errReset, c.out.write(bg, Text("half"))) }) // nobody has closed it yet
			synctest.Wait()
			for range waiting {
				wg.Go(func() { require.Equal(t, errReset, c.out.write(bg, Text("whole"))) })
			}
			for range 5 {
				wg.Go(func() { c.out.flush(bg) })
			}
			synctest.Wait()
			close(f.gate)
			wg.Wait()
			require.Equal(t, 1, f.writes)
			require.Equal(t, errReset, c.Write(bg, Text("late")))
		})
	}
}

// A failing transport takes half of the first write, and all of the others.
type failing struct {
	net.Conn
	gate   chan struct{}
	writes int
}

func (f *failing) Write(p []byte) (int, error) {
	if f.writes++; f.writes > 1 {
		return len(p), nil
	}
	<-f.gate
	return len(p) / 2, errReset
}

// A transport that does not block, and takes a byte a second, is given up as one
// that blocks is (A69).
func TestSlowConsumerFed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		nb := &nonblocking{Conn: a}
		c := NewConn(nb, Params{Config: quiet})
		h := &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }}
		require.NoError(t, c.Feed(frames(masked(bin, 1), string(seq(1000))), h))
		for i := 1; context.Cause(c.Context()) == nil; i++ {
			require.Less(t, i, 12)
			pass(time.Second - time.Millisecond)
			nb.give(1)
			c.Flush(bg)
			pass(time.Millisecond)
			synctest.Wait()
		}
		require.Equal(t, 10*time.Second, since())
		require.ErrorIs(t, context.Cause(c.Context()), os.ErrDeadlineExceeded)
	})
}

// The peer goes in each state, in every way to read (A74).
func TestPeerGoneAnywhere(t *testing.T) {
	for _, m := range modes {
		if m.cut != "whole" || m.zip != "off" || m.tls {
			continue
		}
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) {
			all := m.script(in(text, "one", bin0, "tw", pong, "p", cont, "o", bin, string(seq(200))))[0].b
			last := m.script(in(text, "one"))[0].b
			synctest.Test(t, func(t *testing.T) {
				for cut := range all {
					for name, end := range map[string]func(*memnet.Conn){
						"FIN": func(b *memnet.Conn) { b.Close() }, "half-close": func(b *memnet.Conn) { b.CloseWrite() },
						"RST": func(b *memnet.Conn) { synctest.Wait(); b.Reset() },
					} {
						a, b := memnet.Pipe(1 << 20)
						c := NewConn(a, Params{Client: m.client, Config: quiet})
						b.Write(all[:cut])
						go end(b)
						n := 0
						err := m.read(c, func(Message) { n++ })
						if name == "RST" && m.drive != "Feed" { // which is told of an end, not why
							require.Equal(t, errReset, err)
						} else {
							require.Equal(t, io.ErrUnexpectedEOF, err)
						}
						require.Equal(t, CloseAbnormalClosure, CodeOf(err))
						require.Equal(t, err, context.Cause(c.Context()))
						require.LessOrEqual(t, n, 2)
						require.Equal(t, cut >= len(last), n > 0, "%s at %d", name, cut)
						b.Close()
					}
				}
				require.Zero(t, since())
			})
		})
	}
}

// The same over TCP, where a reset is a real one, and the descriptor is freed
// (A74).
func TestPeerResetsTCP(t *testing.T) {
	before := descriptors()
	for _, d := range drives {
		a, b := tcpPipe(t)
		c := NewConn(a, Params{Config: quiet})
		_, err := b.Write(frames(masked(bin0, 1), "part"))
		require.NoError(t, err)
		require.NoError(t, b.(*net.TCPConn).SetLinger(0))
		require.NoError(t, b.Close())
		err = mode{drive: d}.read(c, func(Message) { t.Error("half a message was delivered") })
		if d == "Feed" {
			require.Equal(t, io.ErrUnexpectedEOF, err)
		} else {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}
		require.Equal(t, CloseAbnormalClosure, CodeOf(err))
	}
	require.LessOrEqual(t, descriptors(), before+1)
}

// descriptors is how many the process has open, or 0 where nobody knows.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

// A hook that panics ends its connection alone, in every way to read (A77).
func TestHookPanics(t *testing.T) {
	for _, m := range modes {
		if m.cut != "whole" || m.zip != "off" || m.tls {
			continue
		}
		for _, hook := range []string{"OnPing", "OnPong"} {
			t.Run(fmt.Sprintf("%s %+v", hook, m), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg, h := quiet, ping
					cfg.OnPing = func(*Conn, []byte) { panic("boom") }
					if hook == "OnPong" {
						cfg.OnPing, cfg.OnPong, h = nil, cfg.OnPing, pong
					}
					o := m.run(t, nil, m.script(in(text, "a", h, "", text, "b")), Params{Config: cfg})
					require.ErrorContains(t, o.err, "websocket: handler panicked: boom")
					require.ErrorContains(t, o.err, "fault_test.go", "the stack says where")
					require.Equal(t, []string{"text a"}, o.got)
					require.Equal(t, []string{"8 " + closeFrame(CloseInternalError, "")}, o.sent)
					require.LessOrEqual(t, o.took, linger)
				})
			})
		}
	}
}

// A handler that blocks for ever holds up its own connection only, which can be
// closed from elsewhere (A78).
func TestHandlerBlocks(t *testing.T) {
	for _, drive := range []string{"Serve", "Feed"} {
		t.Run(drive, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := rawPeer(t, Params{})
				blocked := make(chan struct{})
				done := make(chan error)
				h := &Handler{Message: func(*Conn, Message) { <-blocked }}
				go func() {
					if drive == "Serve" {
						done <- c.Serve(bg, h)
					} else {
						done <- feed(c, h)
					}
				}()
				r.send(masked(text, 1), "x")
				pass(time.Hour)
				require.NoError(t, context.Cause(c.Context()), "a handler may take its time")
				began := since()
				c.Close(CloseGoingAway, "")
				<-c.Context().Done()
				require.LessOrEqual(t, since()-began, 5*time.Second)
				close(blocked)
				require.ErrorIs(t, <-done, net.ErrClosed)
			})
		})
	}
}

// Handler.Close may call anything without waiting for itself (A78).
func TestCallsFromClose(t *testing.T) {
	for _, drive := range []string{"Serve", "Feed"} {
		for name, end := range map[string][]any{"goodbye": bye, "violation": in(wrong{text}, "x")} {
			t.Run(drive+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, r := rawPeer(t, Params{Config: quiet})
					r.Write(mode{}.script(end)[0].b)
					r.CloseWrite()
					calls := 0
					h := &Handler{Close: func(c *Conn, err error) {
						calls++
						c.Close(4000, "late")
						require.Equal(t, err, c.Write(bg, Text("x")))
						require.Equal(t, err, c.Queue(Text("x")))
						require.Equal(t, err, c.Post(Text("x")))
						require.Equal(t, err, c.Ping(bg))
						require.NoError(t, c.CloseNow())
						require.Equal(t, err, context.Cause(c.Context()))
					}}
					if drive == "Serve" {
						require.Error(t, c.Serve(bg, h))
					} else {
						require.Error(t, feed(c, h))
					}
					require.Equal(t, 1, calls)
					require.LessOrEqual(t, since(), linger)
				})
			})
		}
	}
}

// Limits are fixed when a connection is made: what becomes of the caller's
// Config does not matter, during a message neither (A70).
func TestConfigIsCopied(t *testing.T) {
	z := &Compression{Takeover: true, Threshold: 1}
	o := &AcceptOptions{Config: Config{ReadLimit: 10, KeepAlive: -1, Compression: z}}
	c, r := rawPeer(t, Params{Config: o.Config, Extensions: "permessage-deflate"})
	got := make(chan string, 1)
	go func() {
		m, err := c.Read(bg)
		got <- fmt.Sprint(string(m.Data), err)
	}()
	r.send(masked(bin0, 1), "12345")
	for i := range 100 {
		o.Config.ReadLimit, z.Threshold, z.WindowBits = int64(i), i, i
	}
	r.send(masked(cont, 1), "12345")
	require.Equal(t, "1234512345<nil>", <-got)
	go c.Read(bg)
	r.send(masked(bin, 1), "12345678901")
	r.expect(closed, closeFrame(CloseMessageTooBig, errTooBig.Reason))
	r.Close()
	<-c.Context().Done()
}

// Whatever a Config holds, the connection does what its fields' comments say
// (A71).
func TestConfigExtremes(t *testing.T) {
	big := string(seq(1<<20 + 1))
	for _, c := range []struct {
		name string
		cfg  Config
		in   []any
		want []string
		err  error
	}{
		{"ReadLimit 0 is 1 MiB", Config{}, then(in(bin, big[:1<<20]), bye...), []string{"binary " + big[:1<<20]}, normal},
		{"ReadLimit 0 is no more", Config{}, in(bin, big[:1<<20+1]), nil, errTooBig},
		{"ReadLimit 1", Config{ReadLimit: 1}, then(in(text, "a", text, ""), bye...), []string{"text a", "text "}, normal},
		{"ReadLimit 1 is no more", Config{ReadLimit: 1}, in(text, "ab"), nil, errTooBig},
		{"ReadLimit 1 is no more in sum", Config{ReadLimit: 1}, in(text0, "a", cont, "b"), nil, errTooBig},
		{"ReadLimit -1 is none", Config{ReadLimit: -1}, then(in(bin, big), bye...), []string{"binary " + big}, normal},
		{"ReadLimit most negative", Config{ReadLimit: math.MinInt64}, then(in(bin, big), bye...), []string{"binary " + big}, normal},
		{"ReadLimit largest", Config{ReadLimit: math.MaxInt64}, then(in(bin, big), bye...), []string{"binary " + big}, normal},
		{"ReadLimit largest, and sums", Config{ReadLimit: math.MaxInt64}, in(bin0, "x", longHead(0x80, math.MaxInt64)), nil, errTooBig},
		{"everything none", Config{ReadLimit: -1, QueueLimit: -1, WriteTimeout: -1, ProgressTimeout: -1, CloseTimeout: -1, KeepAlive: -1, KeepAliveTimeout: -1},
			then(in(text, "a", ping, "p", text0, "b", time.Hour, cont, "c"), bye...), []string{"text a", "text bc"}, normal},
		{"everything least", Config{ReadLimit: 1, QueueLimit: 1, WriteTimeout: 1, ProgressTimeout: 1, CloseTimeout: 1, KeepAlive: time.Hour, KeepAliveTimeout: 1},
			then(in(text, "a"), bye...), []string{"text a"}, normal},
		{"everything largest", Config{ReadLimit: math.MaxInt64, QueueLimit: math.MaxInt, WriteTimeout: math.MaxInt64, ProgressTimeout: math.MaxInt64,
			CloseTimeout: math.MaxInt64, KeepAlive: math.MaxInt64, KeepAliveTimeout: math.MaxInt64},
			then(in(text, "a", ping, "p", text0, "b", time.Hour, cont, "c"), bye...), []string{"text a", "text bc"}, normal},
		{"compression out of range", Config{Compression: &Compression{WindowBits: 99, Threshold: -1}}, then(in(text, "a"), bye...), []string{"text a"}, normal},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, m := range modes {
					if raceDetector && m.drive != "Next" && m.drive != "Feed" {
						continue
					}
					if m.cut == "whole" && (m.zip == "off" || m.zip == "takeover" && !raceDetector) && !m.tls {
						o := m.run(t, nil, m.script(c.in), Params{Config: c.cfg})
						require.Equal(t, c.err, o.err, "%+v", m)
						require.Equal(t, brief(c.want), brief(o.got), "%+v", m)
					}
				}
			})
		})
	}
}

// QueueLimit: an empty queue takes any message, however small the limit; -1 is
// none (A71).
func TestQueueLimitExtremes(t *testing.T) {
	for limit, want := range map[int]int{1: 1, 0: 1 << 20 / 102, -1: 20_000, math.MinInt: 20_000, math.MaxInt: 20_000} {
		c, _ := rawPeer(t, Params{Config: Config{QueueLimit: limit, KeepAlive: -1}})
		n := 0
		for n < 20_000 && c.Queue(Binary(seq(100))) == nil {
			n++
		}
		require.InDelta(t, want, n, 1, limit)
	}
}

// What a call was given is the caller's again when it returns: changing it
// changes nothing that is sent (A92). What callbacks and Next lend is poisoned
// under the race detector: TestOwnership, TestFeedPoison.
func TestCallerReusesMemory(t *testing.T) {
	for _, client := range []bool{false, true} {
		for _, terms := range []string{"", "permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"} {
			for name, send := range map[string]func(*Conn, []byte) error{
				"Write": func(c *Conn, p []byte) error { return c.Write(bg, Binary(p)) },
				"Queue": func(c *Conn, p []byte) error { return c.Queue(Binary(p)) },
				"Post":  func(c *Conn, p []byte) error { return c.Post(Binary(p)) },
				"Writer": func(c *Conn, p []byte) error {
					w, err := c.Writer(bg, MessageBinary)
					for at := 0; at < len(p) && err == nil; at += 777 {
						part := bytes.Clone(p[at:min(at+777, len(p))])
						_, err = w.Write(part)
						clear(part)
					}
					return errors.Join(err, w.Close())
				},
				"Prepare": func(c *Conn, p []byte) error {
					m := Prepare(Binary(p))
					clear(p)
					return c.Write(bg, m)
				},
			} {
				t.Run(fmt.Sprint(name, client, terms), func(t *testing.T) {
					a, b := memnet.Pipe(64 << 10)
					c := NewConn(a, Params{Client: client, Extensions: terms, Config: quiet})
					peer := NewConn(b, Params{Client: !client, Extensions: terms, Config: quiet})
					defer c.CloseNow()
					defer peer.CloseNow()
					sizes := []int{1, 100, 5000, 40_000, 100_000}
					go func() {
						p := make([]byte, 100_000)
						for _, n := range sizes {
							copy(p, seq(n))
							if err := send(c, p[:n]); err != nil {
								t.Error(err)
							}
							for i := range p {
								p[i] = 0xEE
							}
						}
						c.Flush(bg)
					}()
					for _, n := range sizes {
						m, err := peer.Read(bg)
						require.NoError(t, err)
						require.True(t, bytes.Equal(seq(n), m.Data), "%d bytes", n)
					}
				})
			}
		}
	}
}

// A prepared message over many connections, each with an agreement and a side of
// its own, at the same time: everybody gets the same bytes (A93).
func TestPrepareShared(t *testing.T) {
	terms := append([]string{""}, agreements...)
	conns := 10_000
	if raceDetector || testing.Short() {
		conns = 500
	}
	for _, m := range []Message{Text(strings.Repeat("prepared once, ", 100)), Binary(seq(20_000)), Text("short"), {Type: MessageText, Data: seq(1000), Plain: true}} {
		p := Prepare(m)
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := w; i < conns/4; i += 8 {
					a, b := memnet.Pipe(64 << 10)
					ext := terms[i%len(terms)]
					s := NewConn(a, Params{Client: i%2 == 0, Extensions: ext, Config: quiet})
					c := NewConn(b, Params{Client: i%2 != 0, Extensions: ext, Config: quiet})
					for _, send := range []error{s.Post(p), s.Queue(p), s.Write(bg, p)} {
						got, err := c.Next(bg)
						if err = errors.Join(send, err); err != nil || got.Type != m.Type || !bytes.Equal(m.Data, got.Data) {
							t.Errorf("connection %d, %q: %v", i, ext, err)
						}
					}
					s.CloseNow()
					c.CloseNow()
				}
			})
		}
		wg.Wait()
		require.True(t, bytes.Equal(m.Data, p.Data))
	}
}

// A message that Read returns is whole, whoever closes the connection at that
// moment and reads on (found by A80, with -race).
func TestReadBesideClose(t *testing.T) {
	for i := range 300 {
		c, r := rawPeer(t, Params{Config: quiet})
		r.send(masked(bin0, 1), "Hel", masked(cont, 1), "lo", masked(bin, 1), string(seq(3000)), masked(closed, 1), "\x03\xe8")
		r.CloseWrite()
		go func() {
			for range i % 30 {
				runtime.Gosched()
			}
			c.Close(CloseNormalClosure, "")
		}()
		for {
			m, err := c.Read(bg)
			if err != nil {
				break
			}
			require.Contains(t, []string{"Hello", string(seq(3000))}, string(m.Data))
			c.Buffered()
		}
		r.Close()
		<-c.Context().Done()
	}
}

// What one connection was told is out of reach of another, though both borrow
// the same codec; and of itself, without takeover (A53, A54).
func TestInflateApart(t *testing.T) {
	secret := strings.Repeat("the secret of another connection. ", 1000)
	packed := string(flate.Compress(nil, []byte(secret), nil, 15))
	const back = "\xf2\x00\x11\x00\x00" // a match that reaches back
	for range 20 {
		for _, terms := range []string{"permessage-deflate", "permessage-deflate; client_no_context_takeover"} {
			a, ra := rawPeer(t, Params{Extensions: terms, Config: quiet})
			ra.send(withRSV(masked(text, 1), rsv1), packed)
			require.Equal(t, "text "+secret, read(t, a))

			b, rb := rawPeer(t, Params{Extensions: terms, Config: quiet})
			rb.send(withRSV(masked(text, 1), rsv1), back)
			rb.CloseWrite()
			rb.Close()
			m, err := b.Read(bg)
			require.Equal(t, error(errInflate), err, "%q", m.Data)
			a.CloseNow()
		}
	}
}

// A message that holds a secret and what an attacker chose gives the secret away
// by its size; Plain does not (A59, and the manual).
func TestCompressionOracle(t *testing.T) {
	size := func(guess string, plain bool) int {
		s, c, wire := zipped(t, agreements[1], 1)
		go c.Serve(bg, nil)
		m := Text("session=4f1d0c7b9a2e8365; guess=session=" + guess)
		m.Plain = plain
		require.NoError(t, s.Write(bg, m))
		return len(wire.taken())
	}
	const right, wrong = "4f1d0c7b9a2e8365", "hJ9!xQ#2~Zk@7&Lw"
	require.Less(t, size(right, false), size(wrong, false), "this is the leak")
	require.Equal(t, size(right, true), size(wrong, true))
}

// Random bytes, of which many are frames, in two ways to read, and cut (A42):
// everything ends, with the same messages and the same error.
func TestRandomInput(t *testing.T) {
	n := scale(t, 5000)
	r := rand.New(rand.NewPCG(42, 42))
	for range n / 50 {
		synctest.Test(t, func(t *testing.T) {
			for range 50 {
				input := nastyInput(r)
				client, zip := r.IntN(2) == 0, zips[r.IntN(2)]
				var first outcome
				for k, d := range []string{drives[r.IntN(3)], drives[3+r.IntN(2)]} {
					m := mode{drive: d, client: client, zip: zip, cut: cuts[r.IntN(3)]}
					o := m.run(t, nil, m.script(append(append([]any{}, input...), time.Second, junk("\xff"), time.Second, junk(strings.Repeat("\xff", 2000)))),
						Params{Config: Config{ReadLimit: 2000, KeepAlive: -1}})
					if k == 0 {
						first = o
						continue
					}
					require.Equal(t, first.err, o.err, "%+v %q", m, input)
					require.Equal(t, first.got, o.got, "%+v %q", m, input)
					require.Equal(t, first.sent, o.sent, "%+v %q", m, input)
				}
			}
		})
	}
}

// nastyInput is mostly well-formed.
func nastyInput(r *rand.Rand) (all []any) {
	ops := []Header{text, text0, bin, bin0, cont, cont0, cont, cont0, ping, pong}
	for range 1 + r.IntN(20) {
		payload := make([]byte, r.IntN(1+r.IntN(130)))
		for i := range payload {
			if payload[i] = 'a' + byte(r.IntN(26)); r.IntN(1000) == 0 {
				payload[i] = byte(r.IntN(256))
			}
		}
		switch r.IntN(60) {
		case 0:
			all = append(all, junk(payload))
		case 1:
			all = append(all, withRSV(ops[r.IntN(len(ops))], byte(r.IntN(8))), string(payload))
		case 2:
			all = append(all, head{byte(r.IntN(256)), byte(r.IntN(126))})
		case 3:
			all = append(all, closed, string(payload[:min(len(payload), 125)]))
		default:
			h := ops[r.IntN(len(ops))]
			if h.Opcode.control() {
				payload = payload[:min(len(payload), 125)]
			}
			all = append(all, h, string(payload))
		}
	}
	return all
}

// scale is how often something random is done: as often as ATTACKS says, or n
// times, or less where it is slow.
func scale(t testing.TB, n int) int {
	if s := os.Getenv("ATTACKS"); s != "" {
		_, err := fmt.Sscan(s, &n)
		require.NoError(t, err)
		return n
	}
	if raceDetector || testing.Short() {
		n /= 50
	}
	return n
}

// Connections that come and go, with a fault somewhere: goroutines, descriptors
// and memory are what they were (A80). ATTACKS=1000000 makes it that many.
func TestChurn(t *testing.T) {
	n := scale(t, 10_000)
	r := rand.New(rand.NewPCG(80, 80))
	var before, after runtime.MemStats
	measure := func(m *runtime.MemStats) {
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(m)
	}
	goroutines, fds := runtime.NumGoroutine(), descriptors()
	for i := range 10 {
		if i == 1 { // pools are filled
			measure(&before)
		}
		for range n / 100 {
			synctest.Test(t, func(t *testing.T) { // it fails if a goroutine outlives it
				var wg sync.WaitGroup
				for range 10 {
					seed := r.Uint64()
					wg.Go(func() { comeAndGo(rand.New(rand.NewPCG(seed, 1))) })
				}
				wg.Wait()
			})
		}
	}
	measure(&after)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	require.LessOrEqual(t, descriptors(), fds)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(1<<20))
	require.Less(t, int64(after.StackInuse)-int64(before.StackInuse), int64(1<<20))
}

// comeAndGo is the life of a connection, cut off somewhere.
func comeAndGo(r *rand.Rand) {
	a, b := memnet.Pipe(1 + r.IntN(5000))
	ext := append([]string{""}, agreements...)[r.IntN(1+len(agreements))]
	s, c := NewConn(a, Params{Extensions: ext}), NewConn(b, Params{Client: true, Extensions: ext})
	ctx, cancel := context.WithTimeout(bg, time.Duration(r.IntN(100))*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	m := mode{drive: drives[r.IntN(len(drives))]}
	wg.Go(func() {
		m.read(s, func(msg Message) { s.Queue(msg); s.Flush(ctx) })
		s.CloseNow()
	})
	wg.Go(func() { c.Serve(ctx, nil) })
	for range r.IntN(20) {
		switch m := Binary(seq(r.IntN(10_000))); r.IntN(5) {
		case 0:
			c.Write(ctx, m)
		case 1:
			c.Post(m)
		case 2:
			c.Queue(m)
		case 3:
			c.Ping(ctx)
		case 4:
			if w, err := c.Writer(ctx, MessageBinary); err == nil {
				w.Write(m.Data)
				if r.IntN(2) == 0 {
					w.Close()
				}
			}
		}
	}
	switch r.IntN(7) {
	case 0:
		a.Reset()
	case 1:
		b.Close()
	case 2:
		b.CloseWrite()
	case 3:
		s.CloseNow()
	case 4:
		c.Close(CloseNormalClosure, "")
	case 5:
		s.Close(CloseGoingAway, "")
	case 6:
		cancel()
	}
	c.Close(CloseNormalClosure, "")
	wg.Wait()
}

// Descriptors over TCP (A80).
func TestChurnTCP(t *testing.T) {
	before := descriptors()
	for i := range 100 {
		a, b := tcpPipe(t)
		s, c := NewConn(a, Params{}), NewConn(b, Params{Client: true})
		done := make(chan error, 1)
		go func() { done <- s.Serve(bg, nil) }()
		require.NoError(t, c.Write(bg, Text("x")))
		switch i % 4 {
		case 0:
			c.Close(CloseNormalClosure, "")
		case 1:
			c.CloseNow()
		case 2:
			b.(*net.TCPConn).SetLinger(0)
			c.CloseNow()
		case 3:
			s.CloseNow()
			c.Read(bg)
		}
		require.Error(t, <-done)
	}
	require.LessOrEqual(t, descriptors(), before+2)
}
