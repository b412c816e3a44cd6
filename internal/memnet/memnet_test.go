package memnet

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// What every net.Conn is held to, with room in the buffers and without, and with
// a network between.
func TestConn(t *testing.T) {
	for name, pipe := range map[string]func() (a, b *Conn){
		"roomy":  func() (a, b *Conn) { return Pipe(1 << 20) },
		"narrow": func() (a, b *Conn) { return Pipe(64) },
		"none":   func() (a, b *Conn) { return Pipe(0) },
		"slow":   func() (a, b *Conn) { return SlowPipe(1<<16, time.Microsecond) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "none" {
				synctest.Test(t, func(t *testing.T) { // nothing ever passes
					a, b := pipe()
					a.SetWriteDeadline(time.Now().Add(time.Second))
					n, err := a.Write([]byte("x"))
					require.Zero(t, n)
					require.Equal(t, os.ErrDeadlineExceeded, err)
					require.NoError(t, b.Close())
				})
				return
			}
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				a, b := pipe()
				return a, b, func() { a.Close(); b.Close() }, nil
			})
		})
	}
}

// The ends of a connection, as TCP has them.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name        string
		end         func(a *Conn)
		read, write error // what b gets
		own         error // and a
		data        bool  // what was under way arrives
	}{
		{"Close", func(a *Conn) { a.Close() }, io.EOF, syscall.EPIPE, net.ErrClosed, true},
		{"CloseWrite", func(a *Conn) { a.CloseWrite() }, io.EOF, nil, nil, true},
		{"Reset", (*Conn).Reset, syscall.ECONNRESET, syscall.ECONNRESET, net.ErrClosed, false},
		{"Close, Reset", func(a *Conn) { a.Close(); a.Reset() }, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, false},
	} {
		for _, latency := range []time.Duration{0, time.Second} {
			t.Run(c.name+" "+latency.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := SlowPipe(100, latency)
					_, err := a.Write([]byte("last words"))
					require.NoError(t, err)
					waiting := make(chan error, 1)
					go func() { // a reader at the other end is woken
						got := make([]byte, 100)
						for n := 0; ; {
							k, err := b.Read(got[n:])
							if n += k; err != nil {
								if c.data && string(got[:n]) != "last words" {
									err = errors.New("lost: " + string(got[:n]))
								}
								waiting <- err
								return
							}
						}
					}()
					start := time.Now()
					c.end(a)
					require.Equal(t, c.read, <-waiting)
					if c.data {
						require.Equal(t, latency, time.Since(start))
					} else {
						require.Zero(t, time.Since(start))
					}
					_, err = b.Write([]byte("x"))
					require.Equal(t, c.write, err)
					if c.own == nil {
						_, err = a.Write([]byte("x"))
						require.Equal(t, syscall.EPIPE, err, "after a half-close")
						n, err := a.Read(make([]byte, 1))
						require.NoError(t, err)
						require.Equal(t, 1, n)
						return
					}
					_, err = a.Read(make([]byte, 1))
					require.Equal(t, c.own, err)
					_, err = a.Write([]byte("x"))
					require.Equal(t, c.own, err)
				})
			})
		}
	}
}

// Bytes take as long as the network does, and a writer does not wait for them.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := SlowPipe(100, time.Second)
		start := time.Now()
		a.Write([]byte("1"))
		<-time.After(time.Second / 2)
		a.Write([]byte("2"))
		require.Equal(t, time.Second/2, time.Since(start))
		p := make([]byte, 9)
		n, err := b.Read(p)
		require.NoError(t, err)
		require.Equal(t, "1", string(p[:n]))
		require.Equal(t, time.Second, time.Since(start))
		b.SetReadDeadline(time.Now().Add(time.Second / 4))
		_, err = b.Read(p)
		require.Equal(t, os.ErrDeadlineExceeded, err)
		b.SetReadDeadline(time.Time{})
		n, err = b.Read(p)
		require.NoError(t, err)
		require.Equal(t, "2", string(p[:n]))
		require.Equal(t, time.Second*3/2, time.Since(start))
	})
}
