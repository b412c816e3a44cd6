//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// process.go owns the processes: they answer lines with lines.

// roleEnv says what a process is: driver or server, a space, and a job in JSON.
const roleEnv = "WEBSOCKET_BENCH_HUB"

// role is main for drivers and servers.
func role() bool {
	what, spec, ok := strings.Cut(os.Getenv(roleEnv), " ")
	if !ok {
		return false
	}
	signal.Ignore(os.Interrupt) // the end of its input ends it
	var j job
	err := json.Unmarshal([]byte(spec), &j)
	if err == nil && what == "driver" {
		err = drive(j)
	} else if err == nil {
		err = serve(j)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	return true
}

type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts a process on a core.
func start(what string, j job, core int) (*process, error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+what+" "+string(spec))
	if what == "server" {
		p.cmd.Env = append(p.cmd.Env, "GOMAXPROCS=1")
	}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)

	// A child inherits the core of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, set unix.CPUSet
	unix.SchedGetaffinity(0, &before)
	set.Set(core)
	unix.SchedSetaffinity(0, &set) // fails if there is one core only
	err = p.cmd.Start()
	unix.SchedSetaffinity(0, &before)
	return p, err
}

func (p *process) line() (string, error) {
	s, err := p.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (p *process) say(what string) error {
	_, err := io.WriteString(p.in, what+"\n")
	return err
}

func (p *process) ask(what string) (string, error) {
	if err := p.say(what); err != nil {
		return "", err
	}
	return p.line()
}

func (p *process) stop() {
	if p != nil {
		p.in.Close()
		p.cmd.Wait()
	}
}
