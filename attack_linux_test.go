package websocket

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Rows 87 and 89 of the catalogue of attacks on a real kernel: servers in
// processes of their own, which run out of descriptors and are killed.

const (
	serverEnv = "WEBSOCKET_TEST_SERVER" // the address to listen on
	filesEnv  = "WEBSOCKET_TEST_FILES"  // how many descriptors there are
)

// TestAttackServer is the server's process.
func TestAttackServer(t *testing.T) {
	addr := os.Getenv(serverEnv)
	if addr == "" {
		t.Skip("for other tests")
	}
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	if n, err := strconv.ParseUint(os.Getenv(filesEnv), 10, 64); err == nil {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}))
	}
	fmt.Printf("listening on %s\n", l.Addr())
	hs := &http.Server{Handler: &Server{Handler: echo}, ReadHeaderTimeout: handshakeTimeout}
	go func() {
		io.Copy(io.Discard, os.Stdin) // until the parent is gone
		hs.Close()
	}()
	hs.Serve(l)
}

// startServer starts a process and returns its address, what it logs, and how to
// kill it.
func startServer(t *testing.T, addr, files string) (string, *logged, func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestAttackServer$")
	cmd.Env = append(os.Environ(), serverEnv+"="+addr, filesEnv+"="+files)
	lines := new(logged)
	cmd.Stderr = writerFunc(lines.Write) // without the ReadFrom of the buffer in it
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill := sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	})
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(strings.TrimPrefix(line, "listening on ")), lines, kill
}

// A87: a server that is out of descriptors accepts again when it has some.
func TestAttackDescriptors(t *testing.T) {
	noLeaks(t)
	const files, n, left = 50, 70, 30
	addr, lines, _ := startServer(t, "127.0.0.1:0", strconv.Itoa(files))
	answers := make(chan net.Conn, n)
	var wg sync.WaitGroup
	for range n {
		nc, err := net.Dial("tcp", addr) // the kernel's queue takes those that are not accepted
		require.NoError(t, err)
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		_, err = io.WriteString(nc, goodRequest)
		require.NoError(t, err)
		wg.Go(func() {
			b := make([]byte, len(goodResponse))
			if _, err := io.ReadFull(nc, b); err != nil || string(b) != goodResponse {
				t.Errorf("%q, %v", b, err)
			}
			answers <- nc
		})
	}
	require.Eventually(t, func() bool {
		lines.mu.Lock()
		defer lines.mu.Unlock()
		return strings.Contains(lines.String(), "too many open files; retrying in")
	}, time.Minute, time.Millisecond)
	for range n - left { // the end of one makes room for another
		nc := <-answers
		nc.Close()
	}
	wg.Wait()
	for range left {
		nc := <-answers
		_, err := nc.Write(frames(masked(text, 1), "hello"))
		require.NoError(t, err)
		want := frames(text, "hello")
		got := make([]byte, len(want))
		_, err = io.ReadFull(nc, got)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// A89, as far as this package goes: when a server is killed, each client is told
// by an error that is no goodbye; all that come back at once are served.
func TestAttackKilledServer(t *testing.T) {
	noLeaks(t)
	n := conns(200)
	addr, _, kill := startServer(t, "127.0.0.1:0", "")
	dialAll := func() []*Conn {
		all := make([]*Conn, n)
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() {
				c, err := Dial(within(t), "ws://"+addr, nil)
				if err == nil {
					err = c.Write(bg, Text("hello"))
				}
				if err == nil {
					_, err = c.Read(bg)
				}
				if err != nil {
					t.Error(err)
				}
				all[i] = c
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return all
	}
	all := dialAll()
	kill()
	for i, c := range all {
		var err error
		if i%2 == 0 {
			_, err = c.Read(bg)
		} else {
			err = c.Serve(bg, nil)
		}
		require.True(t, errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
		require.Equal(t, CloseAbnormalClosure, CodeOf(err))
		require.Equal(t, err, c.Write(bg, Text("more")))
		<-c.Context().Done()
	}
	_, err := Dial(within(t), "ws://"+addr, nil)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	startServer(t, addr, "")
	for _, c := range dialAll() {
		require.NoError(t, c.Close(CloseNormalClosure, ""))
	}
}
