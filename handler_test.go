package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// A diary records what a Handler is called with.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, a...))
}

// handler notes everything and echoes with Queue.
func (d *diary) handler() *Handler {
	return &Handler{
		Open: func(*Conn) { d.note("open") },
		Message: func(c *Conn, m Message) {
			d.note("%s %s", m.Type, m.Data)
			c.Queue(m)
		},
		Close: func(_ *Conn, err error) { d.note("close %v", err) },
	}
}

// The same bytes to Serve and to Feed, whole and in parts, make the same calls
// and the same answers (A100).
func TestServeAndFeed(t *testing.T) {
	for _, m := range machineCases {
		t.Run(m.name, func(t *testing.T) {
			cfg := quiet
			cfg.ReadLimit = machineLimit
			p := Params{Client: !m.server, Config: cfg}
			run := func(drive func(c *Conn, in *memnet.Conn, h *Handler) error) (calls, answers string) {
				synctest.Test(t, func(t *testing.T) {
					var d diary
					a, b := memnet.Pipe(1 << 20)
					b.Write(m.in)
					b.CloseWrite()
					c := NewConn(a, p)
					err := drive(c, a, d.handler())
					require.Error(t, err)
					require.Equal(t, fmt.Sprintf("close %v", err), d.lines[len(d.lines)-1])
					<-c.Context().Done()
					all, _ := io.ReadAll(b)
					for len(all) > 0 { // keys differ
						h, n := ParseHeader(all)
						data := all[n : n+int(h.Len)]
						Mask(data, h.Key)
						answers += fmt.Sprintf("%x %x\n", h.Opcode, data)
						all = all[n+int(h.Len):]
					}
					calls = strings.Join(d.lines, "\n")
				})
				return calls, answers
			}
			feed := func(size int) func(c *Conn, in *memnet.Conn, h *Handler) error {
				return func(c *Conn, in *memnet.Conn, h *Handler) error {
					if err := c.Feed(nil, h); err != nil {
						return err
					}
					for {
						p := make([]byte, size)
						n, err := in.Read(p)
						if err := c.Feed(p[:n], h); err != nil {
							require.Equal(t, err, c.Feed([]byte("ignored"), h), "Close is called once")
							return err
						}
						require.NoError(t, err)
					}
				}
			}
			calls, answers := run(func(c *Conn, _ *memnet.Conn, h *Handler) error { return c.Serve(bg, h) })
			require.True(t, strings.HasPrefix(calls, "open\n"))
			for _, size := range []int{1 << 16, 7, 1} {
				c, a := run(feed(size))
				require.Equal(t, calls, c, size)
				require.Equal(t, answers, a, size)
			}
		})
	}
}

// 32 messages that come together cost one read and one write.
func TestServeBatches(t *testing.T) {
	a, b := memnet.Pipe(1 << 20)
	counted := &countingConn{Conn: a}
	c := NewConn(counted, Params{Config: quiet})
	for i := range 32 {
		b.Write(frames(masked(text, uint32(i)), fmt.Sprint("message ", i)))
	}
	done := make(chan error)
	go func() {
		done <- c.Serve(bg, &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }})
	}()
	for i := range 32 {
		raw{t, b}.expect(text, fmt.Sprint("message ", i))
	}
	b.Close()
	require.Error(t, <-done)
	require.Equal(t, []int{1, 1}, []int{counted.reads, counted.writes})
}

// A panic in a handler ends its connection alone, with 1011 (A77).
func TestHandlerPanics(t *testing.T) {
	boom := func(t *testing.T, which string) (*Handler, *[]string) {
		var calls []string
		at := func(name string) {
			calls = append(calls, name)
			if name == which {
				panic("boom " + name)
			}
		}
		return &Handler{
			Open:    func(*Conn) { at("open") },
			Message: func(*Conn, Message) { at("message") },
			Close: func(_ *Conn, err error) {
				require.Error(t, err)
				at("close")
			},
		}, &calls
	}
	want := map[string][]string{
		"open":    {"open", "close"},
		"message": {"open", "message", "close"},
		"close":   {"open", "message", "close"},
	}
	drivers := map[string]func(c *Conn, h *Handler) error{
		"Serve": func(c *Conn, h *Handler) error { return c.Serve(bg, h) },
		"Feed": func(c *Conn, h *Handler) (err error) {
			p := make([]byte, 100)
			for err == nil {
				n, _ := c.NetConn().Read(p)
				err = c.Feed(p[:n], h)
			}
			return err
		},
	}
	for driver, drive := range drivers {
		for which, calls := range want {
			t.Run(driver+which, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, r := rawPeer(t, Params{Config: quiet})
					r.send(masked(text, 1), "x")
					if which == "close" {
						r.send(masked(closed, 1), "")
					}
					h, got := boom(t, which)
					err := drive(c, h)
					require.Equal(t, calls, *got)
					<-c.Context().Done()
					if which == "close" {
						r.expect(closed, "")
						return
					}
					require.ErrorContains(t, err, "websocket: handler panicked: boom "+which)
					require.ErrorContains(t, err, "handler_test.go", "the stack says where")
					require.Equal(t, err, c.Write(bg, Text("x")))
					r.expect(closed, closeFrame(CloseInternalError, ""))
				})
			})
		}
	}
}

// When its context ends, Serve closes with 1001.
func TestServeContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		ctx, cancel := context.WithCancelCause(bg)
		go func() {
			pass(time.Second)
			cancel(errors.New("server stops"))
			r.expect(closed, closeFrame(CloseGoingAway, ""))
			r.send(masked(closed, 1), "\x03\xe9")
			r.Close()
		}()
		var d diary
		require.EqualError(t, c.Serve(ctx, d.handler()), "server stops")
		require.Equal(t, []string{"open", "close server stops"}, d.lines)
		require.Equal(t, CloseGoingAway, CodeOf(context.Cause(c.Context())))
	})
}

// Close inside a handler does not wait for itself, and the handshake is still
// completed.
func TestCloseInHandler(t *testing.T) {
	for name, drive := range map[string]func(c *Conn, h *Handler) error{
		"Serve": func(c *Conn, h *Handler) error { return c.Serve(bg, h) },
		"Feed": func(c *Conn, h *Handler) (err error) {
			p := make([]byte, 100)
			for c.Feed(nil, h); err == nil; {
				n, _ := c.NetConn().Read(p)
				err = c.Feed(p[:n], h)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := rawPeer(t, Params{Config: quiet})
				var d diary
				h := d.handler()
				h.Message = func(c *Conn, m Message) {
					require.NoError(t, c.Close(4000, "enough"))
					require.ErrorIs(t, c.Write(bg, Text("x")), net.ErrClosed)
				}
				r.send(masked(text, 1), "x")
				go func() {
					r.expect(closed, closeFrame(4000, "enough"))
					r.send(masked(closed, 1), "\x0f\xa0")
				}()
				err := drive(c, h)
				require.Equal(t, CloseCode(4000), CodeOf(err))
				require.ErrorIs(t, err, net.ErrClosed)
				require.Equal(t, []string{"open", `close websocket: closed by this side: 4000 "enough"`}, d.lines)
				<-c.Context().Done()
			})
		})
	}
}

// Close on another goroutine, whatever Serve does at that moment, completes the
// closing handshake.
func TestCloseBesideServe(t *testing.T) {
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			var d diary
			done := make(chan error)
			go func() { done <- c.Serve(bg, d.handler()) }()
			for range i {
				r.send(masked(text, 1), "chat")
			}
			go func() { done <- c.Close(4000, "") }()
			for b := r.frame(); b[0] != 0x88; b = r.frame() {
			}
			r.send(masked(text, 1), "late", masked(closed, 1), "\x0f\xa0")
			r.expectEOF()
			r.Close()
			for range 2 {
				if err := <-done; err != nil {
					require.Equal(t, CloseCode(4000), CodeOf(err))
				}
			}
		})
	}
}

// A transport that does not block, as an event loop has: it takes up to room
// bytes and then says EAGAIN.
type nonblocking struct {
	net.Conn
	mu   sync.Mutex
	room int
	out  bytes.Buffer
}

func (n *nonblocking) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := min(n.room, len(p))
	n.room -= k
	n.out.Write(p[:k])
	if k < len(p) {
		return k, syscall.EAGAIN
	}
	return k, nil
}

func (n *nonblocking) give(room int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.room = room
}

// What a transport does not take stays in the one backlog, in order, and leaves
// by Flush.
func TestFeedBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		nb := &nonblocking{Conn: a, room: 3}
		cfg := quiet
		cfg.QueueLimit = 100
		c := NewConn(nb, Params{Config: cfg})
		defer c.CloseNow()
		var full error
		h := &Handler{Message: func(c *Conn, m Message) { full = c.Queue(m) }}
		require.NoError(t, c.Feed(frames(masked(text, 1), "one", masked(ping, 1), "a"), h))
		require.NoError(t, c.Feed(frames(masked(ping, 1), "b", masked(text, 1), "two", masked(ping, 1), "ccc"), h))
		require.Equal(t, syscall.EAGAIN, c.Flush(bg))
		wrote := make(chan error, 1)
		go func() { wrote <- c.Write(bg, Text("written")) }()
		synctest.Wait()
		nb.give(2)
		require.Equal(t, syscall.EAGAIN, c.Flush(bg))
		synctest.Wait()
		require.Empty(t, wrote)
		require.NoError(t, c.Feed(frames(masked(bin, 1), string(seq(100))), h))
		require.Equal(t, ErrQueueFull, full)
		nb.give(1000)
		require.NoError(t, c.Flush(bg))
		require.NoError(t, <-wrote)
		want := frames(text, "one", pong, "a", text, "two", pong, "ccc", text, "written")
		require.Equal(t, string(want), nb.out.String())
	})
}

type neverBlocks struct{ nonblocking }

func (*neverBlocks) NeverBlocks() {}

// Post over a transport that never blocks has written when it returns, as far as
// the transport takes it; the rest leaves by Flush, behind nothing and before
// what comes later.
func TestPostNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		nb := &neverBlocks{nonblocking{Conn: a, room: 8}}
		c := NewConn(nb, Params{Config: quiet})
		defer c.CloseNow()
		require.NoError(t, c.Post(Text("one")))
		require.Equal(t, string(frames(text, "one")), nb.out.String())
		require.NoError(t, c.Post(Text("two")))
		require.Equal(t, string(frames(text, "one", text, "two"))[:8], nb.out.String())
		require.NoError(t, c.Post(Text("three")))
		synctest.Wait()
		nb.give(1000)
		require.NoError(t, c.Flush(bg))
		require.Equal(t, string(frames(text, "one", text, "two", text, "three")), nb.out.String())
	})
}

// Flush on writability tries again even if another goroutine is about to be told
// that the transport would block: nobody would call it again.
func TestFlushMeetsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		w := &waitingWrites{nonblocking: nonblocking{Conn: a}, begun: make(chan bool), end: make(chan bool)}
		c := NewConn(w, Params{Config: quiet})
		defer c.CloseNow()
		require.NoError(t, c.Feed(nil, nil))
		wrote := make(chan error, 1)
		go func() { wrote <- c.Write(bg, Text("x")) }()
		<-w.begun // and it has found no room
		w.give(1000)
		flushed := make(chan error, 1)
		go func() { flushed <- c.Flush(bg) }()
		synctest.Wait()
		close(w.end)
		synctest.Wait()
		require.NoError(t, <-flushed)
		require.NoError(t, <-wrote)
		require.Zero(t, since())
		require.Equal(t, string(frames(text, "x")), w.out.String())
	})
}

// In waitingWrites the first Write takes its time to say EAGAIN.
type waitingWrites struct {
	nonblocking
	once       sync.Once
	begun, end chan bool
}

func (w *waitingWrites) Write(p []byte) (n int, err error) {
	n, err = w.nonblocking.Write(p)
	w.once.Do(func() {
		w.begun <- true
		<-w.end
	})
	return n, err
}

// A transport that takes nothing for WriteTimeout is given up, without anybody
// who waits for it.
func TestFeedStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		nb := &nonblocking{Conn: a}
		c := NewConn(nb, Params{Config: quiet})
		h := &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }}
		require.NoError(t, c.Feed(frames(masked(text, 1), "one"), h))
		<-c.Context().Done()
		require.Equal(t, 10*time.Second, since())
		require.ErrorIs(t, context.Cause(c.Context()), os.ErrDeadlineExceeded)
		require.ErrorIs(t, c.Feed(nil, h), os.ErrDeadlineExceeded)
	})
}

// Input that came with the handshake is fed first.
func TestFeedEarly(t *testing.T) {
	a, _ := memnet.Pipe(1 << 10)
	c := NewConn(&earlyConn{a, frames(masked(text, 1), "early", masked(text0, 1), "in ")}, Params{Config: quiet})
	defer c.CloseNow()
	var d diary
	require.NoError(t, c.Feed(nil, d.handler()))
	require.NoError(t, c.Feed(frames(masked(cont, 1), "parts"), d.handler()))
	require.Equal(t, []string{"open", "text early", "text in parts"}, d.lines)
}

// Under the race detector what Feed lent is overwritten when the loan ends.
func TestFeedPoison(t *testing.T) {
	if !raceDetector {
		t.Skip("poison is for -race")
	}
	c, _ := rawPeer(t, Params{Config: quiet})
	var kept []byte
	in := frames(masked(text, 1), "keep")
	require.NoError(t, c.Feed(in, &Handler{Message: func(_ *Conn, m Message) { kept = m.Data }}))
	require.Equal(t, strings.Repeat("\xdb", 4), string(kept))
}

// Whoever reads does not wait for what others write, or two ends that send more
// than the network holds would wait for each other.
func TestServeBothWays(t *testing.T) {
	ways := map[string]func(*Conn, *Handler){
		"Serve": func(c *Conn, h *Handler) { c.Serve(bg, h) },
		"Feed": func(c *Conn, h *Handler) {
			c.Feed(nil, h)
			p := make([]byte, 100)
			for {
				n, err := c.NetConn().Read(p)
				if err != nil || c.Feed(p[:n], h) != nil {
					return
				}
			}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(1000)
				ends := []*Conn{NewConn(a, Params{Config: quiet}), NewConn(b, Params{Client: true, Config: quiet})}
				const each, writers = 20, 3
				var wg sync.WaitGroup
				for i, c := range ends {
					wg.Add(each * writers)
					go way(c, &Handler{Message: func(_ *Conn, m Message) {
						if i == 0 && m.Type == MessageBinary {
							c.Queue(Text("got it"))
						}
						if m.Type == MessageBinary {
							wg.Done()
						}
					}})
					for range writers {
						wg.Go(func() {
							for range each {
								require.NoError(t, c.Write(bg, Binary(seq(5000))))
							}
						})
					}
				}
				wg.Wait()
				require.Zero(t, since(), "nobody waits for a timeout")
				for _, c := range ends {
					c.CloseNow()
				}
			})
		})
	}
}

// Over a socket Serve works within the socket's own call, in which nothing may
// wait for that call to end, and no end of the connection may be missed.
func TestServeSocket(t *testing.T) {
	type peer struct {
		*testing.T
		raw
		c    *Conn
		in   chan string   // what the handler is called with
		hold chan struct{} // and then waits for
	}
	for _, tt := range []struct {
		name string
		on   func(c *Conn, m Message) // what the handler does after that
		act  func(p peer, cancel context.CancelFunc)
		err  string
	}{
		{"the end comes with the last message", nil, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "one")
			require.Equal(p, "one", <-p.in)
			p.send(masked(text, 1), "two")
			p.Conn.(*net.TCPConn).CloseWrite()
			p.hold <- struct{}{}
			require.Equal(p, "two", <-p.in)
			p.hold <- struct{}{}
		}, "unexpected EOF"},
		{"CloseNow in the handler", func(c *Conn, _ Message) { c.CloseNow() }, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "one")
			<-p.in
			p.hold <- struct{}{}
			p.expectEOF()
		}, "use of closed network connection"},
		{"CloseNow beside a handler that waits", nil, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "one", masked(text, 1), "never")
			<-p.in
			p.c.CloseNow()
			p.expectEOF()
			p.hold <- struct{}{}
		}, "use of closed network connection"},
		{"Close in the handler", func(c *Conn, _ Message) { c.Close(4000, "") }, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "one")
			<-p.in
			p.hold <- struct{}{}
			p.expect(closed, closeFrame(4000, ""))
			p.send(masked(closed, 1), closeFrame(4000, ""))
			p.expectEOF()
		}, "websocket: closed by this side: 4000"},
		{"the context ends while the handler runs", nil, func(p peer, cancel context.CancelFunc) {
			p.send(masked(text, 1), "one")
			<-p.in
			cancel()
			p.hold <- struct{}{}
			p.expect(closed, closeFrame(CloseGoingAway, ""))
			p.send(masked(closed, 1), closeFrame(CloseGoingAway, ""))
			p.expectEOF()
		}, "context canceled"},
		{"text that is none", nil, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "\xff")
			p.expect(closed, closeFrame(CloseInvalidFramePayloadData, "invalid UTF-8"))
		}, "websocket: peer failed: 1007 invalid frame payload data: invalid UTF-8"},
		{"a panic", func(*Conn, Message) { panic("boom") }, func(p peer, _ context.CancelFunc) {
			p.send(masked(text, 1), "one")
			<-p.in
			p.hold <- struct{}{}
			p.expect(closed, closeFrame(CloseInternalError, ""))
		}, "websocket: handler panicked: boom"},
		{"everything else between", func(c *Conn, m Message) { c.Queue(m) }, func(p peer, _ context.CancelFunc) {
			go func() {
				for range 4 {
					<-p.in
					p.hold <- struct{}{}
				}
			}()
			p.send(masked(text, 1), "alone")
			p.expect(text, "alone")
			p.send(masked(text, 1), "one", masked(ping, 1), "?", masked(text0, 1), "two, ")
			p.expect(text, "one", pong, "?")
			p.send(masked(cont, 1), "begun", masked(text, 1), "three")
			p.expect(text, "two, begun", text, "three")
			p.send(masked(closed, 1), "")
			p.expect(closed, "")
		}, "websocket: closed by the peer: 1005 no status received"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := tcpPipe(t)
			c := NewConn(a, Params{Config: quiet})
			p := peer{t, raw{t, b}, c, make(chan string), make(chan struct{})}
			ctx, cancel := context.WithTimeout(bg, 10*time.Second) // an end that was missed would be this one
			defer cancel()
			done := make(chan error)
			go func() {
				done <- c.Serve(ctx, &Handler{Message: func(c *Conn, m Message) {
					p.in <- string(m.Data)
					<-p.hold
					if tt.on != nil {
						tt.on(c, m)
					}
				}})
			}()
			tt.act(p, cancel)
			p.Close()
			require.ErrorContains(t, <-done, tt.err)
			<-c.Context().Done()
			_, err := a.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed, "the socket was closed")
		})
	}
}
