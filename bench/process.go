//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// process.go owns the generator's end of a server process.

// A process is a library at work in a cell, on a core of its own.
type process struct {
	lib  *library
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

// profiles is the directory for CPU profiles of the servers; "": none.
var profiles string

// launch starts l on a core. A client gets an address to dial.
func launch(l *library, c Cell, addr string, core int) (*process, error) {
	j := job{Cell: c, Addr: addr}
	if profiles != "" {
		j.Profile = filepath.Join(profiles, strings.ReplaceAll(l.name+", "+c.Name+".prof", "/", "-"))
	}
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{lib: l, cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), serverEnv+"="+l.name+" "+string(spec), "GOMAXPROCS=1")
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
	unix.SchedSetaffinity(0, &set)
	err = p.cmd.Start()
	unix.SchedSetaffinity(0, &before)
	if err != nil {
		return nil, err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s did not start: %w", l.name, err)
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// ask asks what the process has used: between begin and end, or its memory.
func (p *process) ask(what string) (u Usage, err error) {
	if _, err = io.WriteString(p.in, what+"\n"); err != nil {
		return u, err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal(line, &u)
}

func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
}
