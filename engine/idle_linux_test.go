//go:build !race

package engine

import (
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// idle_linux_test.go measures what an idle connection holds.

// rawDial makes a connection that costs this process a descriptor only.
func rawDial(t *testing.T, to *net.TCPAddr) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	addr := syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	require.NoError(t, syscall.Connect(fd, &addr))
	return fd
}

// rawClient makes a WebSocket connection of one.
func rawClient(t *testing.T, to *net.TCPAddr) int {
	t.Helper()
	fd := rawDial(t, to)
	_, err := syscall.Write(fd, []byte("GET / HTTP/1.1\r\nHost: "+to.String()+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	require.NoError(t, err)
	answer := make([]byte, 4096)
	n, err := syscall.Read(fd, answer)
	require.NoError(t, err)
	require.Contains(t, string(answer[:n]), "HTTP/1.1 101 ")
	return fd
}

// inUse is what this process uses: heap and stacks, when it is quiet.
func inUse() int {
	least := math.MaxInt
	for range 7 { // the first cycles free what pools hold
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, int(m.HeapAlloc+m.StackInuse))
	}
	return least
}

// A connection that is idle holds 512 bytes at most, also after it has been busy.
func TestIdleMemory(t *testing.T) {
	const n, most = 9000, 512
	var files syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if files.Cur < 2*n+500 {
		t.Skip("too few descriptors")
	}
	e := &Engine{Handler: websocket.Handler{Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) }}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := &http.Server{Handler: e}
	go hs.Serve(l)
	var fds []int
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
		require.NoError(t, e.Shutdown(bg))
		hs.Close()
	}()
	open := func(n int) {
		for range n {
			fds = append(fds, rawClient(t, l.Addr().(*net.TCPAddr)))
		}
	}
	open(100)
	before := inUse()
	open(n)
	each := (inUse() - before) / n
	t.Log("idle:", each, "bytes")
	require.LessOrEqual(t, each, most)

	question, answer := masked(websocket.OpText, "hello"), make([]byte, 100)
	for _, fd := range fds {
		_, err := syscall.Write(fd, question)
		require.NoError(t, err)
		n, err := syscall.Read(fd, answer)
		require.NoError(t, err)
		require.Equal(t, plain(websocket.OpText, "hello"), string(answer[:n]))
	}
	each = (inUse() - before) / n
	t.Log("idle again:", each, "bytes")
	require.LessOrEqual(t, each, most)
}

// A98: who begins a handshake of TLS and does not go on is dropped by
// http.Server.ReadHeaderTimeout, has little memory until then, and keeps nobody out.
func TestPartialHandshakes(t *testing.T) {
	const n, most = 500, 32 << 10
	d := newDiary()
	e := &Engine{Handler: d.echo()}
	s := httptest.NewUnstartedServer(e)
	s.Listener = e.Listener(s.Listener)
	s.Config.ReadHeaderTimeout = 2 * time.Second
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer func() {
		require.NoError(t, e.Shutdown(bg))
		s.Close()
	}()
	cfg := s.Client().Transport.(*http.Transport).TLSClientConfig
	require.NoError(t, dialTLS(t, s.URL, cfg).Close()) // makes what is made once
	require.ErrorIs(t, <-d.ends, io.ErrUnexpectedEOF)
	before := inUse()
	var fds []int
	for i := range n {
		fd := rawDial(t, s.Listener.Addr().(*net.TCPAddr))
		defer syscall.Close(fd)
		_, err := syscall.Write(fd, []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")[:i%12])
		require.NoError(t, err)
		fds = append(fds, fd)
	}
	each := (inUse() - before) / n
	t.Log("begun:", each, "bytes")
	require.LessOrEqual(t, each, most)
	p := dialTLS(t, s.URL, cfg)
	p.SendText("x")
	p.ExpectText("x")
	require.NoError(t, p.Close())
	b := make([]byte, 100)
	for _, fd := range fds {
		for got := 1; got > 0; {
			got, _ = syscall.Read(fd, b)
		}
	}
	require.ErrorIs(t, <-d.ends, io.ErrUnexpectedEOF)
}
