package engine

import (
	"crypto/tls"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// stress_test.go opens, floods, half closes and resets connections at random, over
// the real network. ENGINE_STRESS is how many connections there are; the default is
// 300. Goroutines and descriptors that are left make the package fail (A80, A95).

// summed makes a message with its sum in front.
func summed(r *rand.Rand, n int) []byte {
	b := make([]byte, 4+n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	binary.BigEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return b
}

func right(b []byte) bool {
	return len(b) >= 4 && crc32.ChecksumIEEE(b[4:]) == binary.BigEndian.Uint32(b)
}

func TestStress(t *testing.T) {
	conns := 300
	if n, err := strconv.Atoi(os.Getenv("ENGINE_STRESS")); err == nil {
		conns = n
	}
	var opened, ended, wrong atomic.Int64
	e := &Engine{Handler: websocket.Handler{
		Open: func(*websocket.Conn) { opened.Add(1) },
		Message: func(c *websocket.Conn, m websocket.Message) {
			switch {
			case !right(m.Data):
				wrong.Add(1)
			case m.Data[4]%64 == 0: // one that blocks
				time.Sleep(3 * time.Millisecond)
				c.Write(bg, m)
			case m.Data[4]%4 == 0: // one that is answered by another goroutine
				m := m.Clone()
				go c.Write(bg, m)
			case m.Data[4]%251 == 1:
				go c.CloseNow()
			case m.Data[4]%251 == 2:
				c.Close(4001, "")
			default:
				c.Queue(m)
			}
		},
		Close: func(*websocket.Conn, error) { ended.Add(1) },
	}}
	e.Options.Config.KeepAlive = 100 * time.Millisecond
	plain := serve(t, e)
	secure, cfg := serveTLS(t, e)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	var next atomic.Int64
	var all sync.WaitGroup
	for worker := range 12 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 7))
			for next.Add(1) <= int64(conns) {
				url := plain
				if r.IntN(4) == 0 {
					url = secure
				}
				c, err := websocket.Dial(bg, url, &websocket.DialOptions{Client: client})
				if err != nil {
					t.Error(err)
					return
				}
				stress(r, c, &wrong)
			}
		})
	}
	all.Wait()
	for e.Len() > 0 {
		time.Sleep(time.Millisecond)
	}
	require.EqualValues(t, conns, opened.Load())
	require.Equal(t, opened.Load(), ended.Load())
	require.Zero(t, wrong.Load())
}

// stress is the life of a client.
func stress(r *rand.Rand, c *websocket.Conn, wrong *atomic.Int64) {
	read := make(chan bool)
	late := r.IntN(3) == 0
	go func() {
		defer close(read)
		if late {
			time.Sleep(10 * time.Millisecond)
		}
		for {
			m, err := c.Read(bg)
			if err != nil {
				return
			}
			if !right(m.Data) {
				wrong.Add(1)
			}
		}
	}()
	for range r.IntN(40) {
		n := 1 + r.IntN(2000)
		if r.IntN(20) == 0 {
			n = r.IntN(200_000)
		}
		if c.Queue(websocket.Binary(summed(r, n+1))) != nil {
			break
		}
		if r.IntN(2) == 0 && c.Flush(bg) != nil {
			break
		}
	}
	tcp := c.NetConn()
	for {
		if t, ok := tcp.(*tls.Conn); ok {
			tcp = t.NetConn()
			continue
		}
		break
	}
	switch t, _ := tcp.(*net.TCPConn); r.IntN(4) {
	case 0:
		c.Close(1000, "")
	case 1:
		c.CloseNow()
	case 2:
		if t != nil {
			t.SetLinger(0)
		}
		c.CloseNow()
	case 3:
		c.Flush(bg)
		if t != nil {
			t.CloseWrite()
		}
	}
	<-read
	c.CloseNow()
}

// Connections that are idle cost no time (A95).
func TestIdle(t *testing.T) {
	e := &Engine{}
	url := serve(t, e)
	var conns []net.Conn
	for range 1000 {
		nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		require.NoError(t, err)
		defer nc.Close()
		_, err = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		require.NoError(t, err)
		conns = append(conns, nc)
	}
	for _, nc := range conns {
		b := make([]byte, 200)
		_, err := nc.Read(b)
		require.NoError(t, err)
	}
	for e.Len() < len(conns) {
		time.Sleep(time.Millisecond)
	}
	// The best of some looks: what this process does besides is its own business.
	const look = 100 * time.Millisecond
	least := time.Hour
	for round := 0; round < 50 && least > look/50; round++ {
		before := cpu()
		time.Sleep(look)
		least = min(least, cpu()-before)
	}
	require.LessOrEqual(t, least, look/50)
	for _, nc := range conns {
		nc.Close()
	}
}
