package websocket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

// A22: the answer to a handshake breaks after each of its bytes. The handler is
// not called, the connection is closed, and the client is told.
func TestAnswerBreaks(t *testing.T) {
	const size = 129 // of the answer
	for n := 0; n <= size; n++ {
		for _, do := range []wstest.Action{wstest.Fail, wstest.Reset, wstest.HalfClose, wstest.Stall} {
			synctest.Test(t, func(t *testing.T) {
				name := fmt.Sprint("after ", n, " bytes: ", do)
				faults := &wstest.Faults{At: []wstest.Fault{{Call: wstest.Write, Bytes: n, Do: do}}}
				network := &wstest.Network{Wrap: func(client, server net.Conn) (net.Conn, net.Conn) {
					return client, faults.Wrap(server)
				}}
				var handled atomic.Bool
				ws := &websocket.Server{Handler: func(context.Context, *websocket.Conn) { handled.Store(true) }}
				defer network.Serve("example.com:80", ws)()
				c, err := websocket.Dial(bg, "ws://example.com", &websocket.DialOptions{Client: network.Client()})
				if n == size { // it has all it needs to know, unless a reset overtakes it
					if do != wstest.Reset {
						require.NoError(t, err, name)
					}
					if err == nil {
						_, err = c.Read(bg)
					}
				}
				require.Error(t, err, name)
				synctest.Wait()
				require.False(t, handled.Load(), name)
				require.Equal(t, 1, faults.Calls(wstest.Close), name)
				require.NoError(t, ws.Shutdown(bg), "nothing is left")
			})
		}
	}
}

// A22: the client resets before it is answered.
func TestResetBeforeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(wstest.Network)
		ready, accepted := make(chan struct{}), make(chan error, 1)
		defer network.Serve("example.com:80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-ready
			_, err := websocket.Accept(w, r, nil)
			accepted <- err
		}))()
		nc, err := network.DialContext(bg, "tcp", "example.com:80")
		require.NoError(t, err)
		p := wstest.NewPeer(t, nc, wstest.Client)
		p.Send([]byte("GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"))
		synctest.Wait()
		p.Reset()
		close(ready)
		require.Error(t, <-accepted)
	})
}

// A57: a compressed message is interrupted, and more comes all the same. Nothing
// happens late, and what other connections inflate meanwhile stays theirs.
func TestCompressedInterrupted(t *testing.T) {
	z := &websocket.Compression{Threshold: 1}
	link := wstest.Link{Client: websocket.Config{Compression: z}, Server: websocket.Config{Compression: z, ReadLimit: 100_000}}
	half := "\xf2\x48\xcd\xc9" // of "Hello" and more, deflated
	for name, interrupt := range map[string]func(p *wstest.Peer) error{
		"close": func(p *wstest.Peer) error {
			p.SendFrames(wstest.CloseFrame(4000, ""))
			return &websocket.CloseError{Code: 4000}
		},
		"reset": func(p *wstest.Peer) error { p.Reset(); return syscall.ECONNRESET },
		"end":   func(p *wstest.Peer) error { p.CloseWrite(); return io.ErrUnexpectedEOF },
		"limit": func(p *wstest.Peer) error {
			// A stored block of 60,000 zeros, twice.
			block := "\x00\x60\xea\x9f\x15" + strings.Repeat("\x00", 60_000)
			p.SendFrames(wstest.Frame{Payload: block, More: true}, wstest.Frame{Payload: block})
			return &websocket.ProtocolError{Code: websocket.CloseMessageTooBig, Reason: "message too big"}
		},
		"garbage": func(p *wstest.Peer) error {
			p.SendFrames(wstest.Frame{Payload: strings.Repeat("\xff", 1000)})
			return &websocket.ProtocolError{Code: websocket.CloseInvalidFramePayloadData}
		},
		"another message": func(p *wstest.Peer) error {
			p.SendFrames(wstest.Frame{Op: websocket.OpText, RSV: 4, Payload: half})
			return &websocket.ProtocolError{Code: websocket.CloseProtocolError}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, way := range []string{"Next", "Serve", "Feed"} {
				synctest.Test(t, func(t *testing.T) {
					a, b := link.NetPipe()
					_, ps := link.Params()
					v := &victim{nc: b, c: websocket.NewConn(b, ps)}
					p := wstest.NewPeer(t, a, wstest.Client)
					prefix := half
					if name == "limit" {
						prefix = ""
					}
					p.SendFrames(wstest.Frame{Op: websocket.OpText, RSV: 4, Payload: prefix, More: true})
					done := make(chan error)
					go func() { done <- ways[way](v) }()
					synctest.Wait()
					want := interrupt(p)
					go func() { // more, in frames that would be right
						for range 16 {
							if _, err := p.Write(p.Bytes(wstest.Frame{Op: websocket.OpBinary, RSV: 4, Payload: strings.Repeat("\x00", 64<<10)})); err != nil {
								return
							}
						}
					}()
					err := <-done
					require.Equal(t, websocket.CodeOf(want), websocket.CodeOf(err), err)
					if way != "Feed" && websocket.CodeOf(want) == websocket.CloseAbnormalClosure {
						require.ErrorIs(t, err, want)
					}
					<-v.c.Context().Done()
					p.Close()
					require.Empty(t, v.got)

					var others sync.WaitGroup // take codecs and buffers: twice the same is no good
					for i := range 4 {
						others.Go(func() {
							client, server := link.Pipe()
							defer server.CloseNow()
							for j := range 2 {
								text := strings.Repeat(fmt.Sprint("connection ", i, " message ", j, " "), 100)
								go client.Write(bg, websocket.Text(text))
								m, err := server.Read(bg)
								if err != nil || string(m.Data) != text {
									panic(fmt.Sprint("another connection's message: ", err))
								}
							}
							client.CloseNow()
						})
					}
					others.Wait()
				})
			}
		})
	}
}

// secure returns both ends of a TLS connection over a and b.
func secure(t *testing.T, a, b net.Conn) (server, client *tls.Conn) {
	hs := certified()
	trust := hs.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trust.ServerName = "example.com"
	server, client = tls.Server(a, &tls.Config{Certificates: hs.TLS.Certificates}), tls.Client(b, trust)
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	require.NoError(t, client.Handshake())
	require.NoError(t, <-done)
	return server, client
}

// certified has a certificate.
var certified = sync.OnceValue(func() *httptest.Server {
	hs := httptest.NewTLSServer(nil)
	hs.Close()
	return hs
})

// A connection that has answered a close frame says goodbye by TLS too, however
// long the network takes (RFC 6455 section 7.1.1).
func TestTLSGoodbye(t *testing.T) {
	certified()
	for _, client := range []bool{false, true} {
		for n, fired := 1, 1; fired > 0; n++ {
			synctest.Test(t, func(t *testing.T) {
				faults := &wstest.Faults{At: []wstest.Fault{{Call: wstest.Write, N: n, Do: wstest.Delay, Delay: time.Second / 10}}}
				var r wstest.Recorder
				a, b := wstest.NetPipe()
				a = faults.Wrap(r.Wrap(a))
				var own, peer *tls.Conn
				if client {
					peer, own = secure(t, b, a)
				} else {
					own, peer = secure(t, a, b)
				}
				c := websocket.NewConn(own, websocket.Params{Client: client})
				go c.Serve(bg, nil)
				p := wstest.NewPeer(t, peer, wstest.Role(!client))
				p.SendFrames(wstest.CloseFrame(4000, ""))
				p.ExpectClose(4000)
				if client {
					p.CloseWrite()
				}
				p.ExpectEOF()
				p.Close()
				<-c.Context().Done()
				require.Contains(t, r.Log(), "send 1703030013", "close_notify: an encrypted record of two bytes")
				fired = faults.Fired()
			})
		}
	}
}

// A75: TLS that ends without close_notify has been cut off, whoever it was:
// nothing of a message is delivered, and no end is a good one without a close
// frame, close_notify or not.
func TestTLSTruncated(t *testing.T) {
	certified()
	const half = "half a record"
	// run sends a message and then as much of another as where says.
	run := func(t *testing.T, where string, notify, client bool, faults *wstest.Faults) {
		a, b := wstest.NetPipe()
		var own, peer *tls.Conn
		if client {
			peer, own = secure(t, faults.Wrap(b), a)
		} else {
			own, peer = secure(t, a, faults.Wrap(b))
		}
		c := websocket.NewConn(own, websocket.Params{Client: client})
		p := wstest.NewPeer(t, peer, wstest.Role(!client))
		p.SendText("whole")
		frame := p.Bytes(wstest.Frame{Op: websocket.OpText, Payload: half})
		switch where {
		case "in a message":
			p.SendFrames(wstest.Frame{Op: websocket.OpText, Payload: half, More: true})
		case "in a frame":
			p.Send(frame[:len(frame)-1])
		case "in a record":
			_, err := p.Write(frame)
			require.Equal(t, len(faults.At) > 0, err != nil)
		}
		if notify {
			p.CloseWrite()
		} else {
			b.Close()
		}
		m, err := c.Read(bg)
		require.NoError(t, err)
		require.Equal(t, "whole", string(m.Data))
		if where == "in a record" && len(faults.At) == 0 {
			m, err := c.Read(bg)
			require.NoError(t, err)
			require.Equal(t, half, string(m.Data))
		}
		_, err = c.Read(bg)
		require.Equal(t, io.ErrUnexpectedEOF, err)
		require.Equal(t, websocket.CloseAbnormalClosure, websocket.CodeOf(err))
		b.Close()
	}
	for _, where := range []string{"between messages", "in a message", "in a frame", "in a record"} {
		for _, notify := range []bool{false, true} {
			for _, client := range []bool{false, true} {
				t.Run(fmt.Sprint(where, " close_notify=", notify, " client=", client), func(t *testing.T) {
					faults := new(wstest.Faults)
					synctest.Test(t, func(t *testing.T) { run(t, where, notify, client, faults) })
					if where != "in a record" || notify {
						return
					}
					last := faults.Calls(wstest.Write) // the record that holds half
					for n := range 30 {
						cut := &wstest.Faults{At: []wstest.Fault{{Call: wstest.Write, N: last, Bytes: n}}}
						synctest.Test(t, func(t *testing.T) { run(t, where, notify, client, cut) })
						require.Equal(t, 1, cut.Fired())
					}
				})
			}
		}
	}
}

// A81: every kind of call is cancelled while its n-th read or write from the
// network waits. It returns then and not later, with the cause. After a read the
// connection is whole; after a write that had begun it has ended, and says so.
func TestCancelled(t *testing.T) {
	why := errors.New("cancelled")
	text := strings.Repeat("message ", 1000)
	for _, op := range []struct {
		name  string
		call  wstest.Call // that waits
		do    func(ctx context.Context, c *websocket.Conn) error
		lives bool
	}{
		{"Read", wstest.Read, func(ctx context.Context, c *websocket.Conn) error { _, err := c.Read(ctx); return err }, true},
		{"Next", wstest.Read, func(ctx context.Context, c *websocket.Conn) error { _, err := c.Next(ctx); return err }, true},
		{"Messages", wstest.Read, func(ctx context.Context, c *websocket.Conn) (err error) {
			for _, err = range c.Messages(ctx) {
				break
			}
			return err
		}, true},
		{"Write", wstest.Write, func(ctx context.Context, c *websocket.Conn) error { return c.Write(ctx, websocket.Text(text)) }, false},
		{"Flush", wstest.Write, func(ctx context.Context, c *websocket.Conn) error {
			c.Queue(websocket.Text(text))
			return c.Flush(ctx)
		}, false},
		{"Writer", wstest.Write, func(ctx context.Context, c *websocket.Conn) error {
			w, err := c.Writer(ctx, websocket.MessageText)
			if err == nil {
				_, err = io.WriteString(w, text)
			}
			if err == nil {
				err = w.Close()
			}
			return err
		}, false},
		{"Ping", wstest.Write, func(ctx context.Context, c *websocket.Conn) error { go c.Serve(bg, nil); return c.Ping(ctx) }, false},
		{"Ping", wstest.Read, func(ctx context.Context, c *websocket.Conn) error { go c.Serve(bg, nil); return c.Ping(ctx) }, true},
	} {
		t.Run(fmt.Sprint(op.name, " in ", op.call), func(t *testing.T) {
			for n, fired := 1, 1; fired > 0; n++ {
				synctest.Test(t, func(t *testing.T) {
					faults := &wstest.Faults{ReadSize: 1000, At: []wstest.Fault{{Call: op.call, N: n, Do: wstest.Stall}}}
					client, server := wstest.Link{ServerFaults: faults}.Pipe()
					defer client.CloseNow()
					defer server.CloseNow()
					go client.Serve(bg, nil)
					if op.call == wstest.Read && op.name != "Ping" {
						require.NoError(t, client.Post(websocket.Text(text)))
					}
					start := time.Now()
					ctx, cancel := context.WithTimeoutCause(bg, time.Second, why)
					defer cancel()
					err := op.do(ctx, server)
					if fired = faults.Fired(); fired == 0 || op.name == "Ping" && err == nil { // its pong came before
						fired = 0
						require.NoError(t, err, n)
						require.Greater(t, n, 1)
						return
					}
					require.ErrorIs(t, err, why, n)
					require.Equal(t, time.Second, time.Since(start), n)
					if !op.lives {
						require.ErrorIs(t, context.Cause(server.Context()), why, n)
						require.Equal(t, err, server.Write(bg, websocket.Text("x")), n)
						return
					}
					require.NoError(t, context.Cause(server.Context()), n)
					require.NoError(t, server.Write(bg, websocket.Text("x")), n)
					if op.name != "Ping" {
						m, err := server.Read(bg)
						require.NoError(t, err, n)
						require.Equal(t, text, string(m.Data), n)
					}
				})
			}
		})
	}
}

// A81: Dial, at every step.
func TestDialCancelled(t *testing.T) {
	why := errors.New("cancelled")
	for _, call := range []wstest.Call{"dial", wstest.Read, wstest.Write} {
		for _, size := range []int{0, 50} {
			for n, fired := 1, 1; fired > 0; n++ {
				synctest.Test(t, func(t *testing.T) {
					faults := &wstest.Faults{ReadSize: size, WriteSize: size, At: []wstest.Fault{{Call: call, N: n, Do: wstest.Stall}}}
					network := &wstest.Network{Wrap: func(client, server net.Conn) (net.Conn, net.Conn) {
						return faults.Wrap(client), server
					}}
					if call == "dial" && n == 1 {
						network.Dial = func(ctx context.Context, addr string) error {
							<-ctx.Done()
							return ctx.Err()
						}
					}
					defer network.Serve("example.com:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
						c.Serve(ctx, nil)
					}})()
					start := time.Now()
					ctx, cancel := context.WithTimeoutCause(bg, time.Second, why)
					defer cancel()
					c, err := websocket.Dial(ctx, "ws://example.com", &websocket.DialOptions{Client: network.Client()})
					if fired = faults.Fired(); network.Dial != nil {
						fired = 1
					}
					if fired == 0 || err == nil { // nothing stalled before the end of the handshake
						fired = 0
						require.NoError(t, err, n)
						require.Greater(t, n, 1)
						c.CloseNow()
						return
					}
					require.ErrorIs(t, err, why, "%d of %s", n, call)
					require.Equal(t, time.Second, time.Since(start))
					if network.Dial == nil {
						require.Positive(t, faults.Calls(wstest.Close))
					}
				})
			}
		}
	}
}

// A82: the network stops taking bytes in mid-frame. The connection is over for
// everybody, and what the peer has got is whole frames and the beginning of one.
func TestDeadlineInFrame(t *testing.T) {
	big := strings.Repeat("big ", 500)
	for _, client := range []bool{false, true} {
		for room := 1; room < 2100; room += 100 {
			synctest.Test(t, func(t *testing.T) {
				name := fmt.Sprint("client ", client, " room ", room)
				l := wstest.Link{Buffer: room}
				a, b := l.NetPipe()
				pa, pb := l.Params()
				c, role := websocket.NewConn(b, pb), wstest.Client
				nc := a
				if client {
					c, role, nc = websocket.NewConn(a, pa), wstest.Server, b
				}
				start := time.Now()
				errs := make(chan error)
				calls := []func() error{
					func() error { return c.Write(bg, websocket.Text(big)) },
					func() error { return c.Write(bg, websocket.Binary([]byte(big))) },
					func() error { return c.Ping(bg) },
					func() error { _, err := c.Read(bg); return err },
				}
				for _, f := range calls {
					go func() { errs <- f() }()
				}
				require.NoError(t, c.Post(websocket.Text("posted")))
				first := <-errs
				require.ErrorIs(t, first, os.ErrDeadlineExceeded, name)
				require.Equal(t, 10*time.Second, time.Since(start), name)
				for range calls[1:] {
					require.Equal(t, first, <-errs, name)
				}
				require.Equal(t, first, c.Write(bg, websocket.Text("later")), name)
				require.Equal(t, first, c.Post(websocket.Text("later")), name)

				p := wstest.NewPeer(t, nc, role)
				all, err := io.ReadAll(p.Conn)
				require.NoError(t, err, name)
				require.Len(t, all, room, name)
				for len(all) > 0 {
					h, n := websocket.ParseHeader(all)
					if n == 0 {
						break
					}
					require.Positive(t, n, name)
					data := all[n:][:min(int(h.Len), len(all)-n)]
					all = all[n+len(data):]
					websocket.Mask(data, h.Key)
					switch h.Opcode {
					case websocket.OpText, websocket.OpBinary:
						require.True(t, strings.HasPrefix(big, string(data)) || string(data) == "posted"[:len(data)], "%s: %q", name, data)
					default:
						require.Equal(t, websocket.OpPing, h.Opcode, name)
					}
				}
			})
		}
	}
}

// A82: many writers wait for one batch, which breaks off in a frame. All of them
// get its error, and nothing is sent behind the torn frame, though the transport
// would take it.
func TestBatchBreaks(t *testing.T) {
	for round := range 100 {
		synctest.Test(t, func(t *testing.T) {
			faults := &wstest.Faults{At: []wstest.Fault{
				{Call: wstest.Write, N: 1, Do: wstest.Delay, Delay: time.Second}, // meanwhile the others queue up
				{Call: wstest.Write, N: 2, Bytes: 7 + round%20},
			}}
			l := wstest.Link{ServerFaults: faults}
			a, b := l.NetPipe()
			c := websocket.NewConn(b, websocket.Params{})
			errs := make(chan error)
			const writers = 16
			for i := range writers {
				go func() { errs <- c.Write(bg, websocket.Text(fmt.Sprint("message ", i))) }()
			}
			good := 0
			for range writers {
				if err := <-errs; err == nil {
					good++
				} else {
					require.Equal(t, wstest.ErrFault, err)
				}
			}
			<-c.Context().Done()
			require.Equal(t, 2, faults.Calls(wstest.Write), "nothing is sent behind a torn frame")
			all, err := io.ReadAll(a)
			require.NoError(t, err)
			n := 0
			for h, k := websocket.ParseHeader(all); k > 0 && int(h.Len) <= len(all)-k; h, k = websocket.ParseHeader(all) {
				require.Regexp(t, `^message \d+$`, string(all[k:k+int(h.Len)]))
				all = all[k+int(h.Len):]
				n++
			}
			require.LessOrEqual(t, good, n)
		})
	}
}
