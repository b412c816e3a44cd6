package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server is the program of an example, as anybody would start it.
type server struct {
	t       *testing.T
	program string
	args    []string
	addr    string
	url     string
	process *exec.Cmd
}

func newServer(t *testing.T, example string) *server {
	addr := freeAddr(t)
	return newProgram(t, example, addr, "-addr", addr)
}

// newProgram builds the example with this name, which args make listen on addr.
func newProgram(t *testing.T, name, addr string, args ...string) *server {
	s := &server{t: t, program: build(t, name), args: args, addr: addr}
	t.Cleanup(s.kill)
	return s
}

// freeAddr finds a port on which the server can be started again and again. It
// is not one of those that the system gives to clients: a page that tries to
// reach a dead server must not find itself.
func freeAddr(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("localhost:%d", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	require.FailNow(t, "no port is free")
	return ""
}

// start returns when the server listens.
func (s *server) start() {
	s.t.Helper()
	s.process = exec.Command(s.program, s.args...)
	s.process.Stderr = os.Stderr
	out, err := s.process.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, s.process.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(s.t, err)
	s.url = regexp.MustCompile(`http://\S+`).FindString(line)
	require.Equal(s.t, "http://"+s.addr, s.url, line)
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	if s.process != nil {
		s.process.Process.Kill()
		s.process.Wait()
		s.process = nil
	}
}

// terminate asks the server to end, which it does without an error.
func (s *server) terminate() {
	s.t.Helper()
	require.NoError(s.t, s.process.Process.Signal(syscall.SIGTERM))
	require.NoError(s.t, s.process.Wait())
	s.process = nil
}
