//go:build !race

package engine

import (
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// idle_linux_test.go measures what an idle connection holds.

// rawClient makes a WebSocket connection that costs this process a descriptor only.
func rawClient(t *testing.T, to *net.TCPAddr) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	addr := syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	require.NoError(t, syscall.Connect(fd, &addr))
	_, err = syscall.Write(fd, []byte("GET / HTTP/1.1\r\nHost: "+to.String()+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	require.NoError(t, err)
	answer := make([]byte, 4096)
	n, err := syscall.Read(fd, answer)
	require.NoError(t, err)
	require.Contains(t, string(answer[:n]), "HTTP/1.1 101 ")
	return fd
}

func inUse() int {
	var m runtime.MemStats
	for range 3 { // the first cycles free what pools hold
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// A connection that is idle holds 512 bytes at most, also after it has been busy.
func TestIdleMemory(t *testing.T) {
	const n, most = 5000, 512
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
