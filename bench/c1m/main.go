//go:build linux

// c1m opens as many idle connections as the machine's limits allow, to one library
// after the other, and prints what each costs: memory of the server's process,
// memory of the kernel, and goroutines; live, and then as a table. From the
// directory bench:
//
//	go run ./c1m
//	go run ./c1m -pairs 6      # with 20,000 descriptors a process: 100,000 connections
//
// A process has no more descriptors than ulimit -n says, so connections are spread
// over pairs of processes, a server and its client, each pair with 127.0.x.y
// addresses of its own. -pairs says how many, -n how many connections a pair has at
// most, -lib which libraries. It says which limit there was, and how to raise it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A server accepts connections from l and echoes on them.
type server struct {
	name  string
	serve func(l net.Listener) error
}

var servers []server

func main() {
	log.SetFlags(0)
	if role() {
		return
	}
	o := options{settle: time.Second}
	flag.IntVar(&o.pairs, "pairs", 1, "pairs of processes")
	flag.IntVar(&o.most, "n", 0, "connections of a pair; 0: as many as its descriptors allow")
	libs := flag.String("lib", "engine,Server,gorilla,gws,nbio", "libraries")
	flag.Parse()
	o.libs = strings.Split(*libs, ",")
	if err := o.run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// role is main for servers and clients.
func role() bool {
	role := os.Getenv("C1M_ROLE")
	switch role {
	case "":
		return false
	case "client":
		raiseLimit()
		client()
	default:
		raiseLimit()
		serve(role)
	}
	return true
}

type options struct {
	pairs, most int
	libs        []string
	settle      time.Duration // before it is looked at what a server holds
}

// memory is what is set aside for a connection, its client and their sockets.
const memory = 32 << 10

// limit returns how many connections a pair may have, and why not more.
func (o *options) limit() (n int, why string) {
	descriptors := raiseLimit()
	n = int(min(descriptors, 1<<20)) - 200
	why = fmt.Sprintf("descriptors of a process: %d; more processes with -pairs, or raise ulimit -n, and fs.nr_open above it", descriptors)
	if o.most > 0 && o.most < n {
		n, why = o.most, "-n"
	}
	if room := available() / memory / o.pairs; room < n {
		n, why = room, fmt.Sprintf("memory: %d KiB are set aside for a connection with its client", memory>>10)
	}
	return n, why
}

func (o *options) run(w io.Writer) error {
	n, why := o.limit()
	fmt.Fprintf(w, "%s, %d CPUs, %d MiB available; %d pairs of %d connections\nlimited by %s\n",
		runtime.Version(), runtime.NumCPU(), available()>>20, o.pairs, n, why)
	var rows []row
	for _, s := range servers {
		if !slices.Contains(o.libs, s.name) {
			continue
		}
		r, err := o.measure(w, s.name, n)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		rows = append(rows, r)
	}
	fmt.Fprintln(w, "\n| server | idle connections | heap and stacks, bytes each | resident, bytes each | goroutines each | kernel, bytes a socket |")
	fmt.Fprintln(w, "|---|---:|---:|---:|---:|---:|")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %d | %.0f | %.0f | %.3f | %.0f |\n", r.name, r.n, r.heap, r.resident, r.goroutines, r.kernel)
	}
	return nil
}

// A row is of the table; all but n is per connection.
type row struct {
	name                               string
	n                                  int
	heap, resident, goroutines, kernel float64
}

// State is what a server's process holds.
type state struct{ Heap, Resident, Goroutines int }

// A process is one of ours, which answers lines with lines.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(role string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(os.Args[0], args...)}
	p.cmd.Env = append(os.Environ(), "C1M_ROLE="+role)
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// ask asks what a server's process holds: live, or exact, after a while.
func (p *process) ask(what string, after time.Duration) (s state, err error) {
	if _, err = fmt.Fprintln(p.in, what, after); err != nil {
		return s, err
	}
	line, err := p.line()
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(line), &s)
}

func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
}

// measure opens n connections of each pair.
func (o *options) measure(w io.Writer, name string, n int) (r row, err error) {
	r.name = name
	slab := meminfo("Slab")
	var before, after state
	var all []*process
	defer func() {
		for _, p := range slices.Backward(all) {
			p.stop()
		}
	}()
	for i := range o.pairs {
		srv, err := start(name)
		if err != nil {
			return r, err
		}
		all = append(all, srv)
		addr, err := srv.line()
		if err != nil {
			return r, err
		}
		warm, err := start("client", addr, "100", strconv.Itoa(i))
		if err != nil {
			return r, err
		}
		warm.line()
		warm.stop()
		base, err := srv.ask("exact", o.settle)
		if err != nil {
			return r, err
		}
		cl, err := start("client", addr, strconv.Itoa(n), strconv.Itoa(i))
		if err != nil {
			return r, err
		}
		all = append(all, cl)
		k, why, err := live(w, name, r.n, after, srv, cl)
		if err != nil {
			return r, err
		}
		if why != "" {
			fmt.Fprintf(w, "  %s: stopped at %d: %s\n", name, k, why)
		}
		full, err := srv.ask("exact", o.settle)
		if err != nil {
			return r, err
		}
		r.n += k
		before.add(base)
		after.add(full)
	}
	each := func(a, b int) float64 { return float64(a-b) / float64(max(r.n, 1)) }
	r.heap, r.resident = each(after.Heap, before.Heap), each(after.Resident, before.Resident)
	r.goroutines = each(after.Goroutines, before.Goroutines)
	r.kernel = each(meminfo("Slab"), slab) / 2
	return r, nil
}

// live prints what a pair is doing until its connections are open, beside those
// of the pairs before.
func live(w io.Writer, name string, open int, held state, srv, cl *process) (k int, why string, err error) {
	for {
		line, err := cl.line()
		if err != nil {
			return 0, "", err
		}
		count, rest, _ := strings.Cut(line, " ")
		if k, err = strconv.Atoi(count); err != nil {
			return 0, "", errors.New(line)
		}
		now, err := srv.ask("live", 0)
		if err != nil {
			return 0, "", err
		}
		now.add(held)
		fmt.Fprintf(w, "  %s: %d connections, %d MiB, %d goroutines\n", name, open+k, now.Resident>>20, now.Goroutines)
		if rest != "..." {
			return k, rest, nil
		}
	}
}

func (s *state) add(t state) {
	s.Heap += t.Heap
	s.Resident += t.Resident
	s.Goroutines += t.Goroutines
}

// serve is a server's process.
func serve(name string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	i := slices.IndexFunc(servers, func(s server) bool { return s.name == name })
	go func() { log.Fatal(servers[i].serve(l)) }()
	fmt.Println(l.Addr())
	in := bufio.NewReader(os.Stdin)
	for {
		what, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if after, ok := strings.CutPrefix(strings.TrimSpace(what), "exact "); ok {
			settle, _ := time.ParseDuration(after)
			time.Sleep(settle) // what ends by itself has ended
			for range 3 {
				debug.FreeOSMemory()
			}
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b, _ := json.Marshal(state{int(m.HeapAlloc + m.StackInuse), resident(), runtime.NumGoroutine()})
		fmt.Println(string(b))
	}
}

// client is a client's process: it opens connections, says how many, now and then
// and when it is done, and holds them until its input ends.
func client() {
	addr, pair := os.Args[1], 0
	n, _ := strconv.Atoi(os.Args[2])
	fmt.Sscan(os.Args[3], &pair)
	var next atomic.Int64
	var failure atomic.Value
	conns := make([]net.Conn, n)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failure.Load() == nil; i = int(next.Add(1)) - 1 {
				nc, err := open(addr, net.IPv4(127, byte(1+pair), byte(i/20_000), 1))
				if err != nil {
					failure.CompareAndSwap(nil, err.Error())
					return
				}
				conns[i] = nc
			}
		})
	}
	done := make(chan bool)
	go func() {
		all.Wait()
		close(done)
	}()
	for tick := time.Tick(time.Second); ; {
		select {
		case <-tick:
			fmt.Println(max(int(next.Load())-16, 0), "...")
			continue
		case <-done:
		}
		break
	}
	opened := 0
	for _, nc := range conns {
		if nc != nil {
			opened++
		}
	}
	why, _ := failure.Load().(string)
	fmt.Println(strings.TrimSpace(fmt.Sprint(opened, " ", why)))
	io.Copy(io.Discard, os.Stdin)
}

// open makes a connection from an address.
func open(addr string, from net.IP) (net.Conn, error) {
	const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT: ports are scarce for a pair of addresses only
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 20 * time.Second, KeepAlive: -1}
	d.Control = func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_IP, bindAddressNoPort, 1)
		})
	}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	nc.(*net.TCPConn).SetLinger(0) // else ports would wait for a minute when the process has ended
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", addr)
	b := make([]byte, 1024)
	got := 0
	for !strings.HasSuffix(string(b[:got]), "\r\n\r\n") {
		n, err := nc.Read(b[got:])
		if err != nil {
			return nil, err
		}
		got += n
	}
	if !strings.HasPrefix(string(b), "HTTP/1.1 101 ") {
		return nil, fmt.Errorf("answered %q", b[:got])
	}
	nc.SetDeadline(time.Time{})
	return nc, nil
}

// raiseLimit allows the process as many descriptors as it may have.
func raiseLimit() uint64 {
	var l syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	l.Cur = l.Max
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return uint64(l.Cur)
}

// field returns a number of KiB in a file of /proc, as bytes.
func field(file, name string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	return 0
}

func meminfo(name string) int { return field("/proc/meminfo", name) }
func available() int          { return meminfo("MemAvailable") }
func resident() int           { return field("/proc/self/status", "RssAnon") }
