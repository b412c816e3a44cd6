package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Bad networks: two processes in network namespaces of their own, that vanish
// with them, and between them a link that loses, delays, reorders and swallows
// what is sent. The link is a pair of veth with tc's netem, or, where the kernel
// has no netem, a pair of tun devices and a relay in the near process.
//
// It takes root, or user namespaces and a /dev/net/tun for everybody.

const networksEnv = "WEBSOCKET_NETWORKS" // "near" or "far": which process this is

func TestNetworks(t *testing.T) {
	switch os.Getenv(networksEnv) {
	case "near":
		testNetworks(t)
		return
	case "far":
		farEnd()
		os.Exit(0)
	}
	if testing.Short() {
		t.Skip("takes ten seconds of real time")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip (iproute2): ", err)
	}
	cmd := namespaced("near")
	cmd.Args = append(cmd.Args, "-test.v")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch skip := bytes.Index(out, []byte("SKIP-ALL: ")); {
	case err != nil && !errors.As(err, &exit):
		t.Skip("no network namespaces: ", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case skip >= 0:
		t.Skipf("%s", bytes.SplitN(out[skip:], []byte("\n"), 2)[0])
	}
	t.Logf("%s", out)
}

// namespaced is this program again, in a network of its own.
func namespaced(role string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestNetworks$", "-test.timeout=90s")
	cmd.Env = append(os.Environ(), networksEnv+"="+role)
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if role == "near" && os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	return cmd
}

const (
	nearAddr = "10.99.0.1"
	farAddr  = "10.99.0.2"
	farURL   = "ws://" + farAddr + ":8080/"
)

// hasty gives a silent peer up after a second.
var hasty = Config{KeepAlive: 500 * time.Millisecond, KeepAliveTimeout: 500 * time.Millisecond}

// farEnd is the server. It runs commands that come by standard input, and tells
// how connections end. /hasty has hasty's limits.
func farEnd() {
	var mu sync.Mutex
	say := func(format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", a...)
	}
	handler := func(ctx context.Context, c *Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				break
			}
			if string(m.Data) == "reset" {
				tcp := c.NetConn().(*net.TCPConn)
				tcp.SetLinger(0)
				tcp.Close()
			}
			c.Write(ctx, m)
		}
		<-ctx.Done()
		say("ended: %v", context.Cause(ctx))
	}
	mux := http.NewServeMux()
	mux.Handle("/", &Server{Handler: handler})
	mux.Handle("/hasty", &Server{Handler: handler, Options: AcceptOptions{Config: hasty}})
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch line := in.Text(); line {
		case "listen":
			l, err := net.Listen("tcp", farAddr+":8080")
			if err == nil {
				go http.Serve(l, mux)
			}
			say("done: %v", err)
		default:
			say("done: %v", shell(line))
		}
	}
}

func shell(line string) error {
	f := strings.Fields(line)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %v: %s", line, err, bytes.TrimSpace(out))
	}
	return nil
}

// A far is the other process, seen from here.
type far struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	done  chan string
	ended chan string
}

func startFar(t *testing.T) *far {
	f := &far{t: t, cmd: namespaced("far"), done: make(chan string, 1), ended: make(chan string, 100)}
	f.cmd.Stderr = os.Stderr
	var err error
	f.in, err = f.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := f.cmd.StdoutPipe()
	require.NoError(t, err)
	runtime.LockOSThread() // Pdeathsig is about the thread
	if err := f.cmd.Start(); err != nil {
		skipAll(t, "no second network namespace: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if s, ok := strings.CutPrefix(lines.Text(), "done: "); ok {
				f.done <- s
			} else if s, ok := strings.CutPrefix(lines.Text(), "ended: "); ok {
				f.ended <- s
			}
		}
	})
	t.Cleanup(func() {
		f.cmd.Process.Kill()
		wg.Wait()
		f.cmd.Wait()
		runtime.UnlockOSThread()
	})
	return f
}

// do runs a command there.
func (f *far) do(line string) {
	f.t.Helper()
	fmt.Fprintln(f.in, line)
	require.Equal(f.t, "<nil>", <-f.done)
}

// A link is a bad network. A percentage of what is sent is lost; the rest comes
// after delay, give or take jitter, and so not in order.
type link interface {
	set(loss float64, delay, jitter time.Duration)
	block(out, in bool)
}

func skipAll(t *testing.T, format string, a ...any) {
	fmt.Printf("SKIP-ALL: "+format+"\n", a...)
	t.Skip()
}

// newLink connects the two processes.
func newLink(t *testing.T, f *far) link {
	pid := f.cmd.Process.Pid
	var l link
	if shell("ip link add ws0 type veth peer name ws1") == nil {
		if shell("tc qdisc add dev ws0 root netem delay 1ms") == nil {
			l = &netem{f}
		} else {
			shell("ip link del ws0")
		}
	}
	if l == nil {
		r := new(relay)
		for i := range r.tuns {
			tun, err := openTun(fmt.Sprint("ws", i))
			if err != nil {
				skipAll(t, "no netem and no tun device: %v", err)
			}
			r.tuns[i] = tun
		}
		var wg sync.WaitGroup
		wg.Go(func() { r.pump(0) })
		wg.Go(func() { r.pump(1) })
		t.Cleanup(func() { r.tuns[0].Close(); r.tuns[1].Close(); wg.Wait() })
		l = r
	}
	fmt.Printf("network: %T\n", l)
	require.NoError(t, shell(fmt.Sprint("ip link set ws1 netns ", pid)))
	require.NoError(t, shell("ip addr add "+nearAddr+" peer "+farAddr+" dev ws0"))
	require.NoError(t, shell("ip link set ws0 up"))
	f.do("ip addr add " + farAddr + " peer " + nearAddr + " dev ws1")
	f.do("ip link set ws1 up")
	f.do("ip link set lo up")
	f.do("listen")
	l.set(0, 0, 0)
	return l
}

// netem is the kernel's.
type netem struct{ f *far }

func (n *netem) set(loss float64, delay, jitter time.Duration) {
	n.qdisc(func(dev string) string {
		return fmt.Sprintf("tc qdisc replace dev %s root netem limit 10000 loss %g%% delay %dus %dus", dev, loss, delay.Microseconds(), jitter.Microseconds())
	})
}

func (n *netem) block(out, in bool) {
	n.qdisc(func(dev string) string {
		loss := 0
		if dev == "ws0" && out || dev == "ws1" && in {
			loss = 100
		}
		return fmt.Sprintf("tc qdisc replace dev %s root netem limit 10000 loss %d%%", dev, loss)
	})
}

func (n *netem) qdisc(line func(dev string) string) {
	require.NoError(n.f.t, shell(line("ws0")))
	n.f.do(line("ws1"))
}

// A relay carries packets between two tun devices.
type relay struct {
	tuns [2]*os.File

	mu            sync.Mutex
	loss          float64
	delay, jitter time.Duration
	blocked       [2]bool // what is read from that device
}

func (r *relay) set(loss float64, delay, jitter time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loss, r.delay, r.jitter = loss, delay, jitter
}

func (r *relay) block(out, in bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = [2]bool{out, in}
}

func (r *relay) pump(from int) {
	for p := make([]byte, 4096); ; {
		n, err := r.tuns[from].Read(p)
		if err != nil {
			return
		}
		r.mu.Lock()
		lost := r.blocked[from] || 100*rand.Float64() < r.loss
		d := r.delay
		if r.jitter > 0 {
			d += rand.N(2*r.jitter) - r.jitter
		}
		r.mu.Unlock()
		switch {
		case lost:
		case d <= 0:
			r.tuns[1-from].Write(p[:n])
		default:
			packet := bytes.Clone(p[:n])
			time.AfterFunc(d, func() { r.tuns[1-from].Write(packet) })
		}
	}
}

// openTun makes a tun device.
func openTun(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], name)
	req.flags = syscall.IFF_TUN | syscall.IFF_NO_PI
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&req))); e != 0 {
		syscall.Close(fd)
		return nil, e
	}
	syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name), nil
}

// margin is for a machine that is busy.
const margin = 3 * time.Second

// testNetworks is the near process: the client.
func testNetworks(t *testing.T) {
	f := startFar(t)
	l := newLink(t, f)
	dial := func(t *testing.T, path string, cfg Config) *Conn {
		l.block(false, false)
		l.set(0, 0, 0)
		for len(f.ended) > 0 {
			<-f.ended
		}
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		c, err := Dial(ctx, farURL+path, &DialOptions{Client: &http.Client{Transport: tr}, Config: cfg})
		require.NoError(t, err)
		t.Cleanup(func() { c.CloseNow() })
		require.NoError(t, c.Write(ctx, Text("hello")))
		m, err := c.Read(ctx)
		require.NoError(t, err)
		require.Equal(t, "hello", string(m.Data))
		return c
	}
	// ends returns how and when both sides found out, from now on.
	ends := func(t *testing.T, c *Conn) (took time.Duration, near, far error) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		near = c.Serve(ctx, nil)
		select {
		case s := <-f.ended:
			far = errors.New(s)
		case <-time.After(10 * time.Second):
			t.Fatal("the far side does not notice")
		}
		return time.Since(start), near, far
	}

	// A83: both sides find a dead peer within KeepAlive + KeepAliveTimeout. One
	// that still hears the other does so by the other's end.
	for _, way := range []struct {
		name    string
		out, in bool
	}{{"both ways", true, true}, {"out", true, false}, {"in", false, true}} {
		t.Run("blackhole "+way.name, func(t *testing.T) {
			c := dial(t, "hasty", hasty)
			l.block(way.out, way.in)
			took, near, far := ends(t, c)
			t.Logf("after %v: %v; far: %v", took, near, far)
			require.Less(t, took, hasty.KeepAlive+hasty.KeepAliveTimeout+margin)
			require.Contains(t, near.Error()+far.Error(), ErrPeerTimeout.Error())
			if way.out && way.in {
				require.Equal(t, ErrPeerTimeout, near)
				require.EqualError(t, far, ErrPeerTimeout.Error())
			}
			require.Equal(t, CloseAbnormalClosure, CodeOf(near))
		})
	}

	// A84: 200 ms there and back, 5 % loss, packets out of order, and a network
	// that is away for a while: messages come whole, in order, all of them.
	t.Run("loss and delay", func(t *testing.T) {
		d := 3 * time.Second
		if s := os.Getenv("WEBSOCKET_NETWORKS_FOR"); s != "" {
			var err error
			d, err = time.ParseDuration(s)
			require.NoError(t, err)
		}
		c := dial(t, "", Config{})
		l.set(5, 100*time.Millisecond, 30*time.Millisecond)
		start := time.Now()
		var acked, sent atomic.Int64
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			defer close(stop)
			h := &hand{id: 1, acked: &acked}
			for time.Since(start) < d {
				if sent.Load()-acked.Load() < 20 { // what is under way
					require.NoError(t, c.Write(bg, h.message()))
					sent.Add(1)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		wg.Go(func() {
			pass(d / 3)
			l.block(true, true)
			pass(min(d/6, 5*time.Second))
			l.block(false, false)
			l.set(5, 100*time.Millisecond, 30*time.Millisecond)
		})
		ctx, cancel := context.WithTimeout(bg, d+45*time.Second)
		defer cancel()
		theirs := newLedger()
		for more := true; more; {
			m, err := c.Read(ctx)
			require.NoError(t, err)
			theirs.check(m.Data)
			acked.Add(1)
			select {
			case <-stop:
				more = int64(theirs.came) < sent.Load()
			default:
			}
		}
		wg.Wait()
		require.Empty(t, theirs.wrong)
		require.Equal(t, theirs.last[1], theirs.came, "none is missing")
		require.Greater(t, theirs.came, 5)
		t.Logf("%d messages in %v", theirs.came, time.Since(start))
		l.set(0, 0, 0)
		require.NoError(t, c.Close(CloseNormalClosure, ""))
	})

	// A74: a reset is the transport's own error.
	t.Run("reset", func(t *testing.T) {
		c := dial(t, "", Config{})
		require.NoError(t, c.Write(bg, Text("reset")))
		_, err := c.Read(bg)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, CloseAbnormalClosure, CodeOf(err))
		require.Equal(t, err, c.Write(bg, Text("x")))
	})

	// A88: a process that is stopped is silent. Who is patient goes on with it
	// afterwards, though the hasty far side slept through its own timers.
	t.Run("stopped", func(t *testing.T) {
		patient := dial(t, "hasty", Config{})
		c := dial(t, "", hasty)
		require.NoError(t, f.cmd.Process.Signal(syscall.SIGSTOP))
		start := time.Now()
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		defer cancel()
		_, err := c.Read(ctx)
		require.Equal(t, ErrPeerTimeout, err)
		require.Less(t, time.Since(start), hasty.KeepAlive+hasty.KeepAliveTimeout+margin)
		require.NoError(t, patient.Write(bg, Text("sent to a stopped process")))
		pass(time.Second)
		require.NoError(t, f.cmd.Process.Signal(syscall.SIGCONT))
		m, err := patient.Read(bg)
		require.NoError(t, err)
		require.Equal(t, "sent to a stopped process", string(m.Data))
		require.NoError(t, patient.Close(CloseNormalClosure, ""))
	})

	// A process that is killed has its connections closed by the kernel.
	t.Run("killed", func(t *testing.T) {
		c := dial(t, "", Config{})
		require.NoError(t, f.cmd.Process.Kill())
		start := time.Now()
		_, err := c.Read(bg)
		require.Error(t, err)
		require.Equal(t, CloseAbnormalClosure, CodeOf(err))
		require.Less(t, time.Since(start), margin)
	})
}
