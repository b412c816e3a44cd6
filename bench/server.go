//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// server.go owns the process that is measured: it runs one library in one cell,
// and tells what it has used.

// A library is a way to serve, or to be a client. Each has a file.
type library struct {
	name     string
	module   string // its path
	note     string // how it is used
	kind     string // "" for a peer, ours, floor
	only     string // the one kind of cell that it takes part in; "": all
	deflate  bool   // it can compress without context takeover
	takeover bool   // and with

	server func(l net.Listener, c Cell) error // echoes, or broadcasts what one connection sends
	client func(addr string, c Cell) error    // makes c.Conns connections, and echoes
}

var libraries []*library

func register(l *library) { libraries = append(libraries, l) }

func lib(name string) *library {
	for _, l := range libraries {
		if l.name == name {
			return l
		}
	}
	return nil
}

// serverEnv tells a process that it is a server: the library's name, a space,
// and a job in JSON.
const serverEnv = "WEBSOCKET_BENCH_SERVER"

type job struct {
	Cell Cell
	Addr string // to dial; "": serve
	// Profile is the file for a CPU profile; "": none.
	Profile string
}

// Usage is what a process has used.
type Usage struct {
	CPU           float64 // seconds, in user and kernel mode
	Mallocs       float64
	Reads, Writes float64 // calls of the read and write families
	RSS           float64 // bytes
}

// serverMain is main for a server process.
func serverMain(spec string) error {
	name, rest, _ := strings.Cut(spec, " ")
	var j job
	if err := json.Unmarshal([]byte(rest), &j); err != nil {
		return err
	}
	log.SetOutput(io.Discard)
	if j.Profile != "" {
		f, err := os.Create(j.Profile)
		if err != nil {
			return err
		}
		defer f.Close()
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	l := lib(name)
	if j.Addr != "" {
		fmt.Println("dialing")
		go func() {
			if err := l.client(j.Addr, j.Cell); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
				os.Exit(1)
			}
		}()
	} else {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(ln.Addr())
		go func() {
			err := l.server(ln, j.Cell)
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}()
	}
	var begun Usage
	var answer []byte
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "begin": // what asking costs stays outside of the two
			begun = used(false)
			answer = append(answer[:0], "{}\n"...)
		case "end":
			answer, _ = json.Marshal(used(true).since(begun))
			answer = append(answer, '\n')
		case "memory":
			for range 3 { // the first cycles free what pools hold
				runtime.GC()
			}
			debug.FreeOSMemory()
			answer, _ = json.Marshal(used(true))
			answer = append(answer, '\n')
		}
		os.Stdout.Write(answer)
	}
	return nil
}

// used takes the figures that reading the others would change first or last.
func used(first bool) (u Usage) {
	var m runtime.MemStats
	if first {
		u.CPU = cpuTime()
		runtime.ReadMemStats(&m)
	}
	u.Reads, u.Writes = field("/proc/self/io", "syscr:"), field("/proc/self/io", "syscw:")
	u.RSS = field("/proc/self/status", "VmRSS:") * 1024
	if !first {
		runtime.ReadMemStats(&m)
		u.CPU = cpuTime()
	}
	u.Mallocs = float64(m.Mallocs)
	return u
}

// since returns what was used since u was taken; RSS as it is.
func (u Usage) since(before Usage) Usage {
	u.CPU -= before.CPU
	u.Mallocs -= before.Mallocs
	u.Reads -= before.Reads
	u.Writes -= before.Writes
	return u
}

func cpuTime() float64 {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// field returns the number behind a name in a file of /proc.
func field(file, name string) float64 {
	b, _ := os.ReadFile(file)
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 1 && f[0] == name {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n
		}
	}
	return 0
}

// serveHTTP runs net/http with a handler for everything.
func serveHTTP(l net.Listener, f http.HandlerFunc) error {
	s := &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	return s.Serve(l)
}

// each accepts connections, and serves each on a goroutine.
func each(l net.Listener, f func(nc net.Conn)) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go f(nc)
	}
}
