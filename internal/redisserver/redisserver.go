// Package redisserver runs a real redis-server for the tests of modules that use one.
package redisserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A Server is a redis-server on a port of its own.
type Server struct {
	T    *testing.T // whose end is the server's
	Addr string
	Dir  string // where it keeps its data from the next Start on; "": it keeps none

	cmd *exec.Cmd
}

// New starts a server that is killed when the test ends. Without a redis-server
// the test is skipped, or fails if CI is set.
func New(t *testing.T) *Server {
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") != "" {
			require.FailNow(t, "no redis-server: apt-get install redis-server")
		}
		t.Skip("no redis-server: apt-get install redis-server")
	}
	s := &Server{T: t}
	for s.Addr == "" { // none of the ports that clients are given: they would find themselves when the server is gone
		addr := fmt.Sprint("localhost:", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			s.Addr = addr
		}
	}
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Start returns when the server answers.
func (s *Server) Start() {
	_, port, err := net.SplitHostPort(s.Addr)
	require.NoError(s.T, err)
	args := []string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", s.T.TempDir()}
	if s.Dir != "" {
		args = append(args, "--dir", s.Dir, "--appendonly", "yes", "--appendfsync", "always")
	}
	s.cmd = exec.Command("redis-server", args...)
	require.NoError(s.T, s.cmd.Start())
	require.Eventually(s.T, s.answers, 20*time.Second, 10*time.Millisecond)
}

func (s *Server) answers() bool {
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(c, "PING\r\n")
	var line string
	fmt.Fscanln(c, &line)
	return line == "+PONG"
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}
