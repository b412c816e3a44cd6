package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	mrand "math/rand/v2"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/leak"
)

// Benchmarks that measure a server need its clients in another process: for the
// descriptors, and so that its system calls and memory are its own.

const peerEnv = "WEBSOCKET_BENCH_PEER" // "idle|echo address count"

func TestMain(m *testing.M) {
	if spec := os.Getenv(peerEnv); spec != "" {
		var mode, addr string
		var n int
		fmt.Sscan(spec, &mode, &addr, &n)
		if err := benchPeer(mode, addr, n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(leak.Run(m))
}

// benchPeer is the client process. It lives until its standard input is closed.
func benchPeer(mode, addr string, n int) error {
	var idle []net.Conn
	defer runtime.KeepAlive(&idle) // lest the garbage collector close them
	switch mode {
	case "idle":
		for range n {
			nc, err := dialRaw(addr, "")
			if err != nil {
				return err
			}
			idle = append(idle, nc)
		}
	case "compressed": // each has exchanged a message that fills all windows
		filler := make([]byte, 40<<10)
		for i := range filler {
			filler[i] = 'a' + byte(mrand.IntN(16))
		}
		b := flate.Compress(nil, filler, nil, minBits)
		for range n {
			nc, err := dialRaw(addr, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
			if err != nil {
				return err
			}
			idle = append(idle, nc)
			nc.Write(frames(withRSV(masked(bin, 0), rsv1), string(b)))
			r := bufio.NewReader(nc)
			head, err := r.Peek(4) // the answer has a 16-bit length
			if err != nil {
				return err
			}
			h, _ := ParseHeader(head)
			if _, err := r.Discard(4 + int(h.Len)); err != nil {
				return err
			}
		}
	case "echo": // n messages at a time
		nc, err := dialRaw(addr, "")
		if err != nil {
			return err
		}
		go func() {
			out := bytes.Repeat(frames(masked(bin, 0x01020304), string(seq(128))), n)
			in := make([]byte, n*(4+128))
			for {
				nc.Write(out)
				if _, err := io.ReadFull(nc, in); err != nil {
					return
				}
			}
		}()
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// dialRaw makes a connection with as little as it takes.
func dialRaw(addr, header string) (net.Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+addr+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+header+"\r\n")
	resp := make([]byte, 0, 512)
	for !bytes.HasSuffix(resp, []byte("\r\n\r\n")) {
		k, err := nc.Read(resp[len(resp) : len(resp)+1])
		if err != nil {
			return nil, err
		}
		resp = resp[:len(resp)+k]
	}
	if !bytes.HasPrefix(resp, []byte("HTTP/1.1 101 ")) {
		return nil, errors.New(string(resp))
	}
	return nc, nil
}

// startPeer starts the client process against h, and returns when it is ready.
func startPeer(b *testing.B, h http.Handler, mode string, n int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	hs := &http.Server{Handler: h}
	go hs.Serve(l)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", peerEnv, mode, l.Addr(), n))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
		hs.Close()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	require.Equal(b, "ready\n", line)
}

// systemCalls is how many read and write calls this process has made, those in
// vain included; zero where the kernel does not tell.
func systemCalls() (reads, writes float64) {
	stat, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(stat)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "syscr":
			reads = n
		case "syscw":
			writes = n
		}
	}
	return reads, writes
}

// BenchmarkEcho prints the server's system calls per batch of echoed messages of
// 128 bytes: one read and one write, plus, with Next, when the peer waits for the
// answer, the read that finds nothing before the goroutine parks. Linux does not
// count recvmsg, by which Serve reads.
func BenchmarkEcho(b *testing.B) {
	for _, mode := range []string{"Serve", "Next"} {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("mode=%s/inflight=%d", mode, n), func(b *testing.B) {
				start, done := make(chan struct{}), make(chan struct{})
				var once sync.Once
				left := b.N
				count := func(c *Conn) {
					if left--; left < 0 {
						once.Do(func() { close(done) })
						c.CloseNow()
					}
				}
				startPeer(b, &Server{Handler: func(ctx context.Context, c *Conn) {
					<-start
					if mode == "Serve" {
						c.Serve(ctx, &Handler{Message: func(c *Conn, m Message) {
							c.Queue(m)
							count(c)
						}})
						return
					}
					for m, err := range c.Messages(ctx) {
						if err != nil {
							return
						}
						if c.Buffered() {
							c.Queue(m)
						} else {
							c.Write(ctx, m)
						}
						count(c)
					}
				}}, "echo", n)
				b.ReportAllocs()
				r0, w0 := systemCalls()
				b.ResetTimer()
				close(start)
				<-done
				b.StopTimer()
				r1, w1 := systemCalls()
				batches := float64(b.N) / float64(n)
				b.ReportMetric((r1-r0)/batches, "reads/batch")
				b.ReportMetric((w1-w0)/batches, "writes/batch")
			})
		}
	}
}

// BenchmarkIdleMemory prints what an idle connection holds over net/http: heap
// and stack in use, and resident memory, with 10,000 of them.
func BenchmarkIdleMemory(b *testing.B) {
	for _, c := range []struct {
		name, mode string
		z          *Compression
	}{
		{"deflate=off", "idle", nil},
		{"deflate=alone", "compressed", &Compression{}},
		{"deflate=takeover/bits=10", "compressed", &Compression{Takeover: true, WindowBits: 10}},
		{"deflate=takeover/bits=15", "compressed", &Compression{Takeover: true}},
	} {
		b.Run(c.name, func(b *testing.B) { benchIdle(b, c.mode, c.z) })
	}
}

func benchIdle(b *testing.B, mode string, z *Compression) {
	const n = 10_000
	for range b.N {
		handlers := make(chan struct{}, n)
		s := &Server{Options: AcceptOptions{Config: Config{Compression: z}}, Handler: func(ctx context.Context, c *Conn) {
			handlers <- struct{}{}
			for m, err := range c.Messages(ctx) {
				if err != nil {
					return
				}
				c.Write(ctx, m)
			}
		}}
		before, rss0 := memory()
		startPeer(b, s, mode, n)
		for range n {
			<-handlers
		}
		after, rss1 := memory()
		b.ReportMetric((after-before)/n, "B/conn")
		b.ReportMetric((rss1-rss0)/n, "rss-B/conn")
		b.ReportMetric(0, "ns/op")
		for c := range s.Conns() {
			c.CloseNow()
		}
		s.Shutdown(bg)
	}
}

// memory is what this process uses: heap and stacks, and what is resident.
func memory() (inUse, resident float64) {
	var m runtime.MemStats
	for range 3 { // the first cycles free what pools hold
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	statm, _ := os.ReadFile("/proc/self/statm")
	var size, rss float64
	fmt.Sscan(string(statm), &size, &rss)
	return float64(m.HeapAlloc + m.StackInuse), rss * float64(os.Getpagesize())
}

// BenchmarkFrames shows what frames cost without a network, in payload per
// second: reading (Next) and writing (Write) as either side, and an event loop's
// turn (Feed and Queue).
func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{16, 128, 1024, 16 << 10, 256 << 10} {
		payload := string(seq(size))
		run := func(op, role string, in []byte, f func(c *Conn) error) {
			b.Run(fmt.Sprintf("op=%s/role=%s/size=%d", op, role, size), func(b *testing.B) {
				c := NewConn(&loop{in: in}, Params{Client: role == "client", Config: quiet})
				defer c.CloseNow()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(c); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		m := Binary([]byte(payload))
		next := func(c *Conn) error { _, err := c.Next(bg); return err }
		write := func(c *Conn) error { return c.Write(bg, m) }
		toServer, toClient := frames(masked(bin, 0x01020304), payload), frames(bin, payload)
		run("Next", "server", toServer, next)
		run("Next", "client", toClient, next)
		run("Write", "server", toServer, write)
		run("Write", "client", toClient, write)
		p := make([]byte, len(toServer))
		h := &Handler{Message: func(c *Conn, m Message) { c.Queue(m) }}
		run("Feed", "server", toServer, func(c *Conn) error { copy(p, toServer); return c.Feed(p, h) })
	}
}

// BenchmarkText is reading text that is validated.
func BenchmarkText(b *testing.B) {
	for _, sample := range []struct{ name, text string }{{"ASCII", "The quick brown fox. "}, {"Chinese", "床前明月光疑是地上霜"}} {
		for _, size := range []int{128, 1024, 64 << 10} {
			payload := strings.Repeat(sample.text, size/len(sample.text)+1)[:size]
			payload = payload[:unfinished([]byte(payload))]
			b.Run(fmt.Sprintf("op=Next/text=%s/size=%d", sample.name, size), func(b *testing.B) {
				c := NewConn(&loop{in: frames(masked(text, 0x01020304), payload)}, Params{Config: quiet})
				defer c.CloseNow()
				b.SetBytes(int64(len(payload)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Next(bg); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
