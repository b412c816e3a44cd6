//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// server.go owns the process that is measured.

// A contender serves a listener, with one room that all are in. A member is told
// something when it is in the room.
type contender struct {
	name  string
	hello string // what a member says first
	// serve returns at once; send sends to all, and does not wait.
	serve func(l net.Listener, j job) (send func(p []byte), err error)
	// answer says something else about itself; nil if there is nothing.
	answer func(what string) string
}

func find(name string) *contender {
	for i := range contenders {
		if contenders[i].name == name {
			return &contenders[i]
		}
	}
	return nil
}

// profiles is the environment variable with a directory for CPU profiles.
const profiles = "WEBSOCKET_BENCH_HUB_PROFILES"

func serve(j job) error {
	log.SetOutput(io.Discard)
	c := find(j.Server)
	if c == nil {
		return fmt.Errorf("no server %q", j.Server)
	}
	var cfg net.ListenConfig
	if j.Tight {
		cfg.Control = func(_, _ string, rc syscall.RawConn) error {
			return rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, tight) })
		}
	}
	l, err := cfg.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	send, err := c.serve(l, j)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	payload := append(append([]byte(`{"text":"`), bytes.Repeat([]byte("x"), j.Size-11)...), `"}`...)
	var cpu float64
	profiled := os.Getenv(profiles)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch what := in.Text(); what {
		case "send":
			send(payload)
		case "begin":
			if profiled != "" {
				f, err := os.Create(fmt.Sprintf("%s/%s-%d.prof", profiled, j.Server, j.Sleepers))
				if err != nil {
					return err
				}
				pprof.StartCPUProfile(f)
				profiled = ""
				defer pprof.StopCPUProfile()
			}
			cpu = cpuTime()
			fmt.Println()
		case "end":
			fmt.Println(cpuTime()-cpu, resident())
		default:
			fmt.Println(c.answer(what))
		}
	}
	return nil
}

func cpuTime() float64 {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// resident is how many bytes of memory the process has.
func resident() float64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseFloat(f[1], 64)
			return n * 1024
		}
	}
	return 0
}
