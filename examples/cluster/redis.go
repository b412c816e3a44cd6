package main

import (
	"net"
	"os"
	"os/exec"
	"sync"

	"github.com/alicebob/miniredis/v2"
)

// redis.go owns the Redis: one that is there already, a redis-server, or where
// that is not installed a stand-in within this program.

// newRedis chooses one. addr is of the one that is there, if any.
func newRedis(addr string) (*unit, error) {
	if addr != "" {
		return &unit{Name: "redis", Kind: "Redis", Addr: addr, Fixed: true, runner: elsewhere{}}, nil
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		path = ""
	}
	return ownRedis(path)
}

// ownRedis is a redis-server that writes nothing to disk, or without a path a
// miniredis.
func ownRedis(path string) (*unit, error) {
	addr, err := freeAddr("127.0.0.1")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return &unit{Name: "redis", Kind: "miniredis", Addr: addr, runner: &mini{addr: addr}}, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return &unit{Name: "redis", Kind: "redis-server", Addr: addr, runner: &process{
		ready: "Ready to accept connections",
		args:  []string{path, "--port", port, "--bind", host, "--save", "", "--appendonly", "no", "--dir", os.TempDir()},
	}}, nil
}

// A mini is a Redis within this program. Killing it cuts its connections and
// forgets its data.
type mini struct {
	addr string

	mu  sync.Mutex
	now *miniredis.Miniredis // nil if it does not run
}

func (m *mini) start(func()) error {
	r := miniredis.NewMiniRedis()
	if err := r.StartAddr(m.addr); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = r
	return nil
}

func (m *mini) kill() {
	m.mu.Lock()
	r := m.now
	m.now = nil
	m.mu.Unlock()
	if r != nil {
		r.Close()
	}
}

func (m *mini) stop() { m.kill() }

func (m *mini) state() (up bool, pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now != nil, 0
}

// An elsewhere is a Redis that is not ours.
type elsewhere struct{}

func (elsewhere) start(func()) error        { return nil }
func (elsewhere) kill()                     {}
func (elsewhere) stop()                     {}
func (elsewhere) state() (up bool, pid int) { return true, 0 }
