package websocket

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A loop is a transport that yields the same input for ever, and takes any
// output. It costs nothing itself.
type loop struct {
	net.Conn
	in    []byte
	at    int
	reads int
}

func (l *loop) Read(p []byte) (int, error) {
	l.reads++
	n := copy(p, l.in[l.at:])
	l.at = (l.at + n) % len(l.in)
	return n, nil
}

func (l *loop) Write(p []byte) (int, error)      { return len(p), nil }
func (*loop) SetReadDeadline(time.Time) error    { return nil }
func (*loop) SetWriteDeadline(t time.Time) error { return nil }
func (*loop) Close() error                       { return nil }

// A connection that gets messages of up to 256 KiB reads each of them at once.
func TestReadAtOnce(t *testing.T) {
	for _, size := range []int{100, 16 << 10, 256 << 10} {
		l := &loop{in: frames(masked(bin, 1), string(seq(size)))}
		c := NewConn(l, Params{Config: quiet})
		next := func(n int) {
			for range n {
				m, err := c.Next(bg)
				require.NoError(t, err)
				require.Len(t, m.Data, size)
			}
		}
		next(10) // it finds out how large they are
		before := l.reads
		next(10)
		require.Equal(t, before+10, l.reads, size)
		c.CloseNow()
	}
}

// DESIGN rule 5: what is here costs nothing.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	for _, client := range []bool{false, true} {
		h := masked(text, 7)
		if client {
			h = text
		}
		one := frames(h, string(seq(100)))
		fragmented := frames(with(h, OpText), "a")
		fragmented[0] &^= 0x80
		fragmented = append(fragmented, frames(with(h, OpContinuation), "b")...)
		newConn := func(in []byte) *Conn {
			c := NewConn(&loop{in: in}, Params{Client: client, Config: quiet})
			t.Cleanup(func() { c.CloseNow() })
			return c
		}
		reads, collects, feeds, writes := newConn(one), newConn(fragmented), newConn(one), newConn(one)
		m, prepared := Text("small"), Prepare(Text("prepared"))
		handler := &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }}
		input := make([]byte, len(one))
		for name, f := range map[string]func(){
			"Next": func() {
				if m, err := reads.Next(bg); err != nil || len(m.Data) != 100 {
					t.Fatal(err)
				}
			},
			"Next of fragments": func() {
				if m, err := collects.Next(bg); err != nil || len(m.Data) != 2 {
					t.Fatal(err)
				}
			},
			"Write":          func() { writes.Write(bg, m) },
			"Write prepared": func() { writes.Write(bg, prepared) },
			"Queue, Flush":   func() { writes.Queue(m); writes.Queue(m); writes.Flush(bg) },
			"Feed": func() {
				copy(input, one)
				if err := feeds.Feed(input, handler); err != nil {
					t.Fatal(err)
				}
			},
		} {
			require.Zero(t, testing.AllocsPerRun(1000, f), "%s, client: %v", name, client)
		}
	}
}
