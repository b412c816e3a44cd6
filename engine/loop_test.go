package engine

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// loop_test.go drives the loops with invented events.

const (
	text    = websocket.OpText
	ping    = websocket.OpPing
	pong    = websocket.OpPong
	goodbye = websocket.OpClose
)

// All replies to input that came together leave in one write, after EINTR too.
func TestOneWrite(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		s.eintr = 3
		var in []byte
		want := ""
		for i := range 32 {
			in = append(in, masked(text, fmt.Sprint(i))...)
			want += plain(text, fmt.Sprint(i))
		}
		s.comes(in)
		require.Equal(t, want, s.output())
		require.Equal(t, 1, s.sent)
		s.ends(io.EOF)
		synctest.Wait()
		require.False(t, s.isOpen())
		require.Equal(t, io.ErrUnexpectedEOF, <-d.ends)
	})
}

// An event for a descriptor that was closed meanwhile is not its next owner's
// (A94).
func TestReuse(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		old := os.open()
		adopt(e, old, websocket.Params{})
		synctest.Wait()
		p := old.poller
		old.ends(io.EOF)
		synctest.Wait()
		require.False(t, old.isOpen())
		<-d.ends

		next := os.open()
		adopt(e, next, websocket.Params{})
		synctest.Wait()
		require.Equal(t, old.fd, next.fd)
		require.Equal(t, old.token.slot, next.token.slot, "as hard as can be")
		reads := next.reads
		p.says(event{old.token, readable | halfClosed | dead}, event{old.token, writable})
		synctest.Wait()
		require.Equal(t, reads, next.reads)
		require.True(t, next.isOpen())
		next.comes(masked(text, "mine"))
		require.Equal(t, plain(text, "mine"), next.output())
		next.ends(io.EOF)
	})
}

// Input, its end and a reset that are told as one event: the input is delivered
// (A95).
func TestEndsTogether(t *testing.T) {
	for name, end := range map[string]error{"FIN": io.EOF, "RST": syscall.ECONNRESET} {
		t.Run(name, func(t *testing.T) {
			faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
				s := os.open()
				adopt(e, s, websocket.Params{})
				synctest.Wait()
				s.os.mu.Lock()
				s.in = [][]byte{masked(text, "one"), masked(text, "two")}
				s.os.mu.Unlock()
				s.ends(end)
				synctest.Wait()
				want := end
				if end == io.EOF {
					want = io.ErrUnexpectedEOF
				}
				require.Equal(t, []string{"open", "text one", "text two", fmt.Sprintf("close %v", want)}, d.all())
				require.False(t, s.isOpen())
			})
		})
	}
}

// A descriptor that is said to be dead, without an end that could be read, is.
func TestDead(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		s.happens(dead)
		require.Equal(t, syscall.EPIPE, <-d.ends)
	})
}

// Events without a reason cost a read each, and nothing turns when there are none
// (A95).
func TestSpurious(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, _ *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		reads := s.reads
		for range 100 {
			s.happens(readable | writable)
			synctest.Wait()
		}
		require.Equal(t, reads+100, s.reads)
		polls := os.polls
		time.Sleep(time.Hour)
		require.Equal(t, polls, os.polls)
		require.Equal(t, reads+100, s.reads)
		s.ends(io.EOF)
	})
}

// A connection that sends without end has turns of 256 KiB, as the others have
// theirs (A97, A64).
func TestFlood(t *testing.T) {
	const size = 4 << 20
	faked(t, func(t *testing.T, e *Engine, os *fake, _ *diary) {
		flooded, between := 0, 0
		e.Handler.Message = func(c *websocket.Conn, m websocket.Message) {
			if len(m.Data) > 10 {
				flooded += len(m.Data)
				return
			}
			between = flooded
		}
		a, b := os.open(), os.open()
		adopt(e, a, websocket.Params{})
		adopt(e, b, websocket.Params{})
		synctest.Wait()
		first := true
		a.onto = func() {
			if first {
				first = false
				b.comes(masked(text, "me too"))
			}
		}
		a.comes(bytes.Repeat(masked(text, strings.Repeat("x", 1000)), size/1000))
		synctest.Wait()
		require.Equal(t, size/1000*1000, flooded)
		require.Positive(t, between)
		require.LessOrEqual(t, between, turnBytes)
		a.ends(io.EOF)
		b.ends(io.EOF)
	})
}

// While a handler blocks, the others of its loop wait for 2 ms at most, and what
// it has read stays as it was (A96).
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		os := newFake()
		var when []time.Duration
		e := &Engine{Loops: 1, system: os, Handler: websocket.Handler{
			Message: func(c *websocket.Conn, m websocket.Message) {
				if string(m.Data) == "block" {
					time.Sleep(50 * time.Millisecond)
				} else {
					when = append(when, time.Since(start))
				}
				c.Queue(m)
			},
		}}
		e.Options.Config.KeepAlive = -1
		var sockets []*fakeSocket
		for range 10 {
			s := os.open()
			adopt(e, s, websocket.Params{})
			sockets = append(sockets, s)
		}
		synctest.Wait()
		start = time.Now()
		slow, quick := sockets[:5], sockets[5:]
		for _, s := range slow {
			s.comes(masked(text, "block"))
		}
		for _, s := range quick {
			s.comes(masked(text, "quick"))
		}
		time.Sleep(49 * time.Millisecond)
		synctest.Wait()
		require.Len(t, when, len(quick))
		for _, d := range when {
			require.LessOrEqual(t, d, time.Duration(len(slow))*2*patience)
		}
		for _, s := range slow {
			require.Empty(t, s.output())
			s.comes(masked(text, "more")) // it has its turn on the same goroutine
		}
		time.Sleep(100 * time.Millisecond)
		for _, s := range slow {
			require.Equal(t, plain(text, "block")+plain(text, "more"), s.output())
			s.ends(io.EOF)
		}
		for _, s := range quick {
			require.Equal(t, plain(text, "quick"), s.output())
			s.ends(io.EOF)
		}
		require.NoError(t, e.Shutdown(bg))
		require.NoError(t, os.fault())
	})
}

// A loop whose poller fails goes on with another; if there is none, its
// connections end with the error (A99).
func TestPollerFails(t *testing.T) {
	t.Run("another", func(t *testing.T) {
		faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
			s := os.open()
			adopt(e, s, websocket.Params{})
			synctest.Wait()
			os.pollers[0].fails(syscall.EBADF)
			synctest.Wait()
			require.Len(t, os.pollers, 2)
			s.comes(masked(text, "x"))
			require.Equal(t, plain(text, "x"), s.output())
			s.ends(io.EOF)
		})
	})
	t.Run("none", func(t *testing.T) {
		faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
			os.few = 1
			s := os.open()
			adopt(e, s, websocket.Params{})
			synctest.Wait()
			os.pollers[0].fails(syscall.EBADF)
			require.Equal(t, syscall.EBADF, <-d.ends)
			synctest.Wait()
			require.False(t, s.isOpen())
		})
	})
}

// Without a poller at all, connections are served by goroutines.
func TestNoPoller(t *testing.T) {
	os := newFake()
	os.few, os.pollers = 1, []*fakePoller{nil}
	d := newDiary()
	e := &Engine{Handler: d.echo(), system: os}
	fallback(t, e, d, dial(t, serve(t, e)))
}

// What the network does not take waits, with the input that would add to it; the
// sending half is closed behind it.
func TestBackpressure(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		s.takes(3)
		s.comes(masked(text, "one"), masked(text, "two"))
		require.Equal(t, plain(text, "one")[:3], s.output())
		s.comes(masked(goodbye, "\x03\xe8"))
		synctest.Wait()
		require.Equal(t, []string{"open", "text one"}, d.all(), "the rest is not read")
		s.takes(4)
		require.Equal(t, plain(text, "one")[3:]+plain(text, "two")[:2], s.output())
		require.False(t, s.shut)
		s.takes(3)
		s.output()
		s.takes(1)
		require.Equal(t, plain(goodbye, "\x03\xe8")[:1], s.output())
		require.False(t, s.shut)
		s.takes(-1)
		require.Equal(t, plain(goodbye, "\x03\xe8")[1:], s.output())
		require.True(t, s.shut)
		s.ends(io.EOF)
		synctest.Wait()
		require.False(t, s.isOpen())
	})
}

// Answers to a peer that has half closed leave before the connection ends.
func TestHalfClosedBacklog(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		s.takes(0)
		s.comes(masked(text, "one"))
		s.ends(io.EOF)
		synctest.Wait()
		require.True(t, s.isOpen())
		s.takes(-1)
		require.Equal(t, plain(text, "one"), s.output())
		require.False(t, s.isOpen())
		require.Equal(t, io.ErrUnexpectedEOF, <-d.ends)
	})
}

// A network that takes nothing for WriteTimeout is given up (A69).
func TestWriteTimeout(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		start := time.Now()
		s := os.open()
		adopt(e, s, websocket.Params{})
		s.takes(0)
		s.comes(masked(text, "one"))
		err := <-d.ends
		require.ErrorContains(t, err, "i/o timeout")
		require.Equal(t, 10*time.Second, time.Since(start))
	})
}

// A peer that is silent is pinged, between half of KeepAlive and KeepAlive later,
// and given up KeepAliveTimeout after that, unless it answers (A68).
func TestKeepAlive(t *testing.T) {
	const tick = time.Second // between two looks
	for _, client := range []bool{false, true} {
		t.Run(fmt.Sprint(client), func(t *testing.T) {
			faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
				e.Options.Config.KeepAlive = 0
				start := time.Now()
				s := os.open()
				adopt(e, s, websocket.Params{Client: client})
				asked := func() time.Duration {
					for s.output() == "" {
						time.Sleep(100 * time.Millisecond)
					}
					return time.Since(start)
				}
				for range 3 { // it answers
					d := asked()
					require.Greater(t, d, 12*time.Second)
					require.LessOrEqual(t, d, 25*time.Second+2*tick)
					time.Sleep(15 * time.Second)
					if client {
						s.comes([]byte(plain(pong, "")))
					} else {
						s.comes(masked(pong, ""))
					}
					start = time.Now()
				}
				at := asked()
				require.Equal(t, websocket.ErrPeerTimeout, <-d.ends)
				require.InDelta(t, at+20*time.Second, time.Since(start), float64(2*tick))
				require.Equal(t, "", s.output(), "a ping, and no more")
				require.False(t, s.isOpen())
			})
		})
	}
}

// A ping does not come inside a message that waits, nor behind a close frame, and
// half of one is made whole.
func TestPingPlace(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		e.Options.Config.KeepAlive = time.Minute
		e.Options.Config.WriteTimeout = -1
		e.Options.Config.CloseTimeout = -1
		s := os.open()
		ws := adopt(e, s, websocket.Params{})
		long := strings.Repeat("x", 300)
		s.takes(50)
		require.NoError(t, ws.Post(websocket.Text(long)))
		require.Equal(t, plain(text, long)[:50], s.output())
		time.Sleep(2 * time.Minute)
		require.Empty(t, s.output())
		s.takes(-1)
		require.Equal(t, plain(text, long)[50:], s.output())
		time.Sleep(time.Minute)
		require.Equal(t, plain(ping, ""), s.output())
		s.comes(masked(pong, ""))
		s.os.mu.Lock()
		s.room = 1
		s.os.mu.Unlock()
		time.Sleep(70 * time.Second)
		require.Equal(t, plain(ping, "")[:1], s.output())
		require.NoError(t, ws.Post(websocket.Text("behind")))
		require.Empty(t, s.output())
		s.comes(masked(pong, ""))
		s.takes(-1)
		require.Equal(t, plain(ping, "")[1:]+plain(text, "behind"), s.output())
		ws.Close(1000, "")
		require.Equal(t, plain(goodbye, "\x03\xe8"), s.output())
		time.Sleep(70 * time.Second)
		require.Empty(t, s.output())
		s.ends(io.EOF)
	})
}

// Whoever is silent because a handler has not returned is not given up.
func TestSilentInHandler(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		e.Handler.Message = func(c *websocket.Conn, m websocket.Message) {
			time.Sleep(time.Hour)
			c.Queue(m)
		}
		e.Options.Config.KeepAlive = 0
		s := os.open()
		adopt(e, s, websocket.Params{})
		s.comes(masked(text, "x"))
		time.Sleep(time.Hour + time.Second)
		require.Contains(t, s.output(), plain(text, "x"))
		require.Empty(t, d.ends)
		s.ends(io.EOF)
	})
}

// Close from many goroutines, at any moment, closes once.
func TestCloseRaces(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		for range 50 {
			s := os.open()
			ws := adopt(e, s, websocket.Params{})
			for range 3 {
				go ws.CloseNow()
				go ws.Post(websocket.Text("x"))
			}
			go s.comes(masked(text, "y"))
			require.ErrorIs(t, <-d.ends, net.ErrClosed)
			synctest.Wait()
			require.False(t, s.isOpen())
		}
		require.Empty(t, d.ends)
	})
}

// A look that comes late, as in a process that was stopped, gives every peer its
// time to answer (A88).
func TestLateLook(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, d *diary) {
		s := os.open()
		adopt(e, s, websocket.Params{})
		synctest.Wait()
		table := &e.loops[0].table
		k := &clock{silence: 25000, wait: 20000}
		table.sweep(100_000, k)
		require.Equal(t, plain(ping, ""), s.output())
		table.sweep(100_500, k)
		table.sweep(119_900, k)
		synctest.Wait()
		require.True(t, s.isOpen())
		table.sweep(121_000, k)
		require.Equal(t, websocket.ErrPeerTimeout, <-d.ends)
		require.Equal(t, "", s.output())
	})
}

// A message that is written in parts has no ping between them.
func TestPingBetweenParts(t *testing.T) {
	faked(t, func(t *testing.T, e *Engine, os *fake, _ *diary) {
		s := os.open()
		nc := adopt(e, s, websocket.Params{}).NetConn().(*conn)
		frames := plain(text, strings.Repeat("x", 70_000)) + plain(ping, "") + plain(text, strings.Repeat("y", 300))
		ends := map[int]bool{0: true, len(frames): true, 70_010: true, 70_012: true}
		for _, cut := range []int{0, 1, 5, 10, 11, 70_009, 70_010, 70_011, 70_012, 70_013, 70_015, 70_016, 70_017, len(frames)} {
			nc.Write([]byte(frames[:cut]))
			s.output()
			require.Equal(t, ends[cut], nc.ping(), cut)
			s.output()
			for i := range frames[cut:] { // by the byte
				nc.Write([]byte(frames[cut+i:][:1]))
			}
			require.Equal(t, frames[cut:], s.output())
			require.True(t, nc.ping())
			s.output()
		}
		s.ends(io.EOF)
	})
}
