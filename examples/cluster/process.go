package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// process.go owns a program that is started, killed and started again.

const (
	startTime = 10 * time.Second // for a program to be ready
	stopTime  = 5 * time.Second  // for it to end in good order
)

// A process is a runner that is a program of its own.
type process struct {
	args  []string
	ready string // is in the line that it prints when it can be reached
	ours  bool   // it ends in good order when its input does

	mu    sync.Mutex
	cmd   *exec.Cmd // nil if it does not run
	stdin io.Closer
	done  chan struct{} // closed when it has ended
}

func (p *process) start(ended func()) error {
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	late := time.AfterFunc(startTime, func() { cmd.Process.Kill() })
	lines, last := bufio.NewScanner(stdout), ""
	for lines.Scan() && !strings.Contains(lines.Text(), p.ready) {
		last = lines.Text()
	}
	if !late.Stop() || !strings.Contains(lines.Text(), p.ready) {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("it did not start: %q", last)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.stdin, p.done = cmd, stdin, done
	p.mu.Unlock()
	go func() {
		io.Copy(io.Discard, stdout)
		cmd.Wait()
		p.mu.Lock()
		p.cmd = nil
		p.mu.Unlock()
		close(done)
		ended()
	}()
	return nil
}

// get returns what runs, if anything does.
func (p *process) get() (*exec.Cmd, io.Closer, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.stdin, p.done
}

// kill is kill -9, or what the system has for it.
func (p *process) kill() {
	if cmd, _, done := p.get(); cmd != nil {
		cmd.Process.Kill()
		<-done
	}
}

// stop lets the program end in good order if it can, and kills it if it does not.
func (p *process) stop() {
	if cmd, stdin, done := p.get(); cmd != nil && p.ours {
		stdin.Close()
		select {
		case <-done:
		case <-time.After(stopTime):
		}
	}
	p.kill()
}

func (p *process) state() (up bool, pid int) {
	if cmd, _, _ := p.get(); cmd != nil {
		return true, cmd.Process.Pid
	}
	return false, 0
}

// freeAddr finds an address for something that is to be started again and again.
// Its port is none of those that systems give to clients: one that tries to reach
// a dead server could find itself.
func freeAddr(host string) (string, error) {
	for range 100 {
		addr := fmt.Sprintf("%s:%d", host, 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no port is free")
}
