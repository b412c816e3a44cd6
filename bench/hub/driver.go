//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// driver.go owns the members: raw sockets, read by one thread with epoll.

// A link is a member's connection.
type link struct {
	fd   int
	rest []byte // the beginning of a frame
}

// tight is how many bytes a queue takes that is small.
const tight = 2 << 10

type driver struct {
	job
	server  *process
	ep      int
	links   []link
	readers int
	events  []unix.EpollEvent
	buf     []byte
	took    []time.Duration // of the deliveries of a turn
}

// drive is a driver's process: it starts the server, connects the members, says
// that it is ready, and answers.
func drive(j job) error {
	d := &driver{job: j, events: make([]unix.EpollEvent, 512), buf: make([]byte, 256<<10)}
	var err error
	if d.server, err = start("server", j, 0); err != nil {
		return err
	}
	defer d.server.stop()
	if err = d.connect(); err != nil {
		return fmt.Errorf("%d members: %w", len(d.links), err)
	}
	if err = d.fill(); err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		what, rest, _ := strings.Cut(in.Text(), " ")
		if what != "turn" {
			line, err := d.server.ask(in.Text())
			if err != nil {
				return err
			}
			fmt.Println(line)
			continue
		}
		ns, _ := strconv.Atoi(rest)
		t, err := d.turn(time.Duration(ns))
		if err != nil {
			return err
		}
		b, _ := json.Marshal(t)
		fmt.Println(string(b))
	}
	return nil
}

// fill sends until what those that sleep do not read has filled everything.
func (d *driver) fill() error {
	if d.Sleepers == 0 {
		return nil
	}
	for range 10 {
		for range tight/d.Size + 20 {
			if err := d.send(); err != nil {
				return err
			}
		}
		dropped, err := d.server.ask("dropped")
		if err != nil {
			return err
		}
		if n, _ := strconv.Atoi(dropped); n > 5*d.Sleepers {
			return nil
		}
	}
	return errors.New("who sleeps is not full")
}

// connect opens the connections; each is a member when it has been told something.
func (d *driver) connect() (err error) {
	addr, err := d.server.line()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New(addr)
	}
	n, _ := strconv.Atoi(port)
	if d.ep, err = unix.EpollCreate1(0); err != nil {
		return err
	}
	d.links = make([]link, 0, d.Members)
	for i := range d.Members {
		fd, err := d.join(&unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}, i < d.Sleepers)
		if err != nil {
			return err
		}
		d.links = append(d.links, link{fd: fd})
		if i < d.Sleepers {
			continue
		}
		d.readers++
		unix.SetNonblock(fd, true)
		if err := unix.EpollCtl(d.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

// join opens a connection and waits for what its server says first.
func (d *driver) join(to unix.Sockaddr, sleeper bool) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	if sleeper {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // the least there is
	}
	if err = unix.Connect(fd, to); err != nil {
		return 0, err
	}
	request := "GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err = unix.Write(fd, []byte(request)); err != nil {
		return 0, err
	}
	got := ""
	read := func(enough func() bool) error {
		for !enough() {
			n, err := unix.Read(fd, d.buf)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return fmt.Errorf("after %q: %v", got, err)
			}
			got += string(d.buf[:n])
		}
		return nil
	}
	end := func() int { return strings.Index(got, "\r\n\r\n") }
	if err = read(func() bool { return end() > 0 }); err != nil {
		return 0, err
	}
	if !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		return 0, fmt.Errorf("refused: %q", got)
	}
	got = got[end()+4:]
	if hello := find(d.Server).hello; hello != "" { // a text frame, masked with zeros
		if _, err = unix.Write(fd, append([]byte{0x81, 0x80 | byte(len(hello)), 0, 0, 0, 0}, hello...)); err != nil {
			return 0, err
		}
	}
	return fd, read(func() bool {
		size, n := header([]byte(got))
		return n > 0 && len(got) == n+size
	})
}

// header parses the header of a frame that is not masked; n is 0 if it is not
// whole.
func header(b []byte) (size, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	size, n = int(b[1]), 2
	switch size {
	case 126:
		if n = 4; len(b) >= n {
			size = int(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if n = 10; len(b) >= n {
			size = int(binary.BigEndian.Uint64(b[2:]))
		}
	}
	if len(b) < n {
		return 0, 0
	}
	return size, n
}

// take counts the messages that b completes.
func (d *driver) take(l *link, b []byte) (messages int, err error) {
	if len(l.rest) > 0 {
		b = append(l.rest, b...)
		l.rest = nil
	}
	for {
		size, n := header(b)
		if n == 0 || len(b) < n+size {
			l.rest = append(l.rest, b...)
			return messages, nil
		}
		switch op := b[0] & 0x0f; {
		case op == 1 && size >= d.Size:
			messages++
		case op == 8:
			return 0, fmt.Errorf("closed: %q", b[n:n+size])
		}
		b = b[n+size:]
	}
}

// send has the server send one message, and waits until all have it that read.
func (d *driver) send() error {
	begun := time.Now()
	if err := d.server.say("send"); err != nil {
		return err
	}
	for left := d.readers; left > 0; {
		n, _, _ := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(d.ep), uintptr(unsafe.Pointer(&d.events[0])), uintptr(len(d.events)), 0, 0, 0)
		if int(n) <= 0 {
			if time.Since(begun) > 20*time.Second {
				return fmt.Errorf("%d of %d have had no message in 20 s", left, d.readers)
			}
			continue
		}
		for _, e := range d.events[:n] {
			l := &d.links[e.Fd]
			k, err := unix.Read(l.fd, d.buf)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if k <= 0 {
				return fmt.Errorf("a member's connection has ended: %v", err)
			}
			messages, err := d.take(l, d.buf[:k])
			if err != nil {
				return err
			}
			took := time.Since(begun)
			for range messages {
				d.took = append(d.took, took)
			}
			left -= messages
		}
	}
	return nil
}

// turn sends one message after the other.
func (d *driver) turn(length time.Duration) (t turn, err error) {
	if err := d.send(); err != nil { // warms up
		return t, err
	}
	d.took = d.took[:0]
	var most []float64
	if _, err := d.server.ask("begin"); err != nil {
		return t, err
	}
	begun := time.Now()
	for time.Since(begun) < length {
		before := len(d.took)
		if err := d.send(); err != nil {
			return t, err
		}
		most = append(most, d.took[before+(len(d.took)-before)*99/100].Seconds()*1e3) // they come in order
	}
	t.Most = median(most)
	t.Took = time.Since(begun).Seconds()
	line, err := d.server.ask("end")
	if err != nil {
		return t, err
	}
	fmt.Sscan(line, &t.CPU, &t.RSS)
	slices.Sort(d.took)
	n := len(d.took)
	t.Deliveries = float64(n)
	t.P50, t.P99 = d.took[n/2].Seconds()*1e3, d.took[n*99/100].Seconds()*1e3
	return t, nil
}
