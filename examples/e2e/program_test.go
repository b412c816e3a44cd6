package e2e

import (
	"bufio"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// build returns an example's program.
func build(t *testing.T, name string) string {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM to end the program with")
	}
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join("..", name)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// launch builds and starts an example, as anybody would, and returns the first
// address that it prints.
func launch(t *testing.T, name string, args ...string) string {
	cmd := exec.Command(build(t, name), args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		require.NoError(t, cmd.Wait())
	})
	r := bufio.NewReader(stdout)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	go io.Copy(io.Discard, r)
	url := regexp.MustCompile(`http://[^/\s]+`).FindString(line)
	require.NotEmpty(t, url, line)
	return url
}

// A wire is a way to a program that can be cut.
type wire struct {
	url string

	mu   sync.Mutex
	open map[net.Conn]bool
	down bool
}

func newWire(t *testing.T, url string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{url: "http://" + l.Addr().String(), open: make(map[net.Conn]bool)}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		w.cut()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil || !w.add(a, b) {
				a.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				io.Copy(to, from)
				to.Close()
				from.Close()
			}
			wg.Go(func() { pass(a, b) })
			wg.Go(func() { pass(b, a) })
		}
	})
	return w
}

func (w *wire) add(a, b net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		b.Close()
		return false
	}
	w.open[a], w.open[b] = true, true
	return true
}

// cut ends all connections, and there are no others until mend.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for c := range maps.Keys(w.open) {
		c.Close()
	}
	clear(w.open)
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// text is true when an element has exactly this text.
func text(id, text string) string {
	return "document.getElementById(" + quote(id) + ").textContent === " + quote(text)
}

// pictures sees that nothing sticks out of the page, in both widths, and takes
// screenshots of it in both schemes.
func (p *tab) pictures(name string) {
	p.t.Helper()
	for _, scheme := range []string{"dark", "light"} {
		p.picture(name+"-desktop-"+scheme, desktop, scheme, fitsWide)
		p.picture(name+"-phone-"+scheme, phone, scheme, fitsWide)
	}
	p.do(desktop)
}
