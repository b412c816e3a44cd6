package websocket

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// Bytes in, messages out; messages in, bytes out (RFC 6455 section 5).
func TestWire(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		r.send(masked(text0, 1), "Hel", masked(ping, 2), "p", masked(cont, 3), "lo", masked(bin, 4), "\x00\xff")
		require.Equal(t, "text Hello", read(t, c))
		require.Equal(t, "binary \x00\xff", read(t, c))
		require.NoError(t, c.Write(bg, Text("Grüße")))
		require.NoError(t, c.Write(bg, Binary(nil)))
		require.NoError(t, c.Write(bg, Binary(seq(65536))))
		r.expect(pong, "p", text, "Grüße", bin, "", bin, string(seq(65536)))
	})
	t.Run("client", func(t *testing.T) {
		c, r := rawPeer(t, Params{Client: true, Config: quiet})
		r.send(text, "Hello", ping, "p", text, "")
		require.Equal(t, "text Hello", read(t, c))
		require.Equal(t, "text ", read(t, c))
		require.NoError(t, c.Write(bg, Binary(seq(70000))))
		r.expect(pong, "p", bin, string(seq(70000)))
	})
}

// RFC 6455 sections 5.3 and 10.3: a client's frames are masked, each with a key
// of its own; a server's are not.
func TestMaskingKeys(t *testing.T) {
	c, r := rawPeer(t, Params{Client: true, Config: quiet})
	seen := map[uint32]bool{}
	const n = 1000
	for range n {
		require.NoError(t, c.Write(bg, Text("x")))
		h, k := ParseHeader(r.bytes(7))
		require.Equal(t, 6, k)
		require.True(t, h.Masked)
		seen[h.Key] = true
	}
	require.Greater(t, len(seen), n-5)
}

// Every way to read gives the same messages, whatever the pieces they come in.
func TestWaysToRead(t *testing.T) {
	var want []string
	var in []byte
	for i, n := range []int{0, 1, 125, 126, 4000, 4096, 5000, 65535, 65536, 200_000, 700_000} {
		data := string(seq(n))
		want = append(want, "text "+data, "binary "+data)
		third := n / 3
		in = append(in, frames(masked(text, uint32(i)), data)...)
		in = append(in, frames(masked(bin0, 5), data[:third], masked(ping, 9), "p", masked(cont0, 6), "", masked(cont, 7), data[third:])...)
	}
	ways := map[string]func(c *Conn, got func(Message)) error{
		"Read": func(c *Conn, got func(Message)) error {
			for {
				m, err := c.Read(bg)
				if err != nil {
					return err
				}
				got(m)
			}
		},
		"Next": func(c *Conn, got func(Message)) error {
			for {
				m, err := c.Next(bg)
				if err != nil {
					return err
				}
				got(m)
			}
		},
		"Messages": func(c *Conn, got func(Message)) (end error) {
			for m, err := range c.Messages(bg) {
				if err != nil {
					end = err
				} else {
					got(m)
				}
			}
			return end
		},
		"Reader": func(c *Conn, got func(Message)) error {
			for {
				typ, r, err := c.Reader(bg)
				if err != nil {
					return err
				}
				b, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				got(Message{Type: typ, Data: b})
			}
		},
		"Serve": func(c *Conn, got func(Message)) error {
			return c.Serve(bg, &Handler{Message: func(_ *Conn, m Message) { got(m) }})
		},
	}
	for name, way := range ways {
		for _, cut := range []int{1 << 20, 4096, 1000, 61} {
			t.Run(fmt.Sprint(name, cut), func(t *testing.T) {
				a, b := memnet.Pipe(cut)
				c := NewConn(a, Params{Config: quiet})
				go func() {
					b.Write(in)
					b.CloseWrite()
				}()
				go io.Copy(io.Discard, b)
				var all []string
				err := way(c, func(m Message) { all = append(all, m.Type.String()+" "+string(m.Data)) })
				require.Equal(t, io.ErrUnexpectedEOF, err)
				require.Equal(t, len(want), len(all))
				for i := range want {
					require.True(t, want[i] == all[i], "message %d of %d bytes", i, len(want[i]))
				}
			})
		}
	}
}

// Over TCP the same, since it waits in another way.
func TestWaysToReadTCP(t *testing.T) {
	a, b := tcpPipe(t)
	c := NewConn(a, Params{Config: quiet})
	require.NotNil(t, c.out.on.raw)
	go func() {
		for i := range 100 {
			b.Write(frames(masked(bin, uint32(i)), string(seq(i*1000))))
		}
		b.Close()
	}()
	for i := range 100 {
		m, err := c.Next(bg)
		require.NoError(t, err)
		require.True(t, bytes.Equal(seq(i*1000), m.Data), i)
	}
	_, err := c.Next(bg)
	require.Equal(t, io.ErrUnexpectedEOF, err)
}

// tcpPipe returns the two ends of a TCP connection.
func tcpPipe(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b, err = net.Dial("tcp", l.Addr().String())
	}()
	a, aerr := l.Accept()
	<-done
	require.NoError(t, errors.Join(err, aerr))
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// What Read returned stays; what Next returned is gone with the next call, and
// with -race visibly so.
func TestOwnership(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	r.send(masked(text, 1), "one", masked(text0, 2), "tw", masked(cont, 3), "o", masked(text, 4), "three", masked(text, 5), "four")
	one, err := c.Read(bg)
	require.NoError(t, err)
	two, err := c.Read(bg)
	require.NoError(t, err)
	three, err := c.Next(bg)
	require.NoError(t, err)
	keep := three.Clone()
	require.Equal(t, "four", strings.TrimPrefix(read(t, c), "text "))
	require.Equal(t, "one two three", string(one.Data)+" "+string(two.Data)+" "+string(keep.Data))
	if raceDetector {
		require.Equal(t, strings.Repeat("\xdb", 5), string(three.Data))
	}
}

// A Read cut short by its context can be repeated and goes on where it stopped
// (A81), wherever it was cut.
func TestReadGoesOn(t *testing.T) {
	in := frames(masked(text0, 1), "Hel", masked(ping, 2), "p", masked(cont, 3), "lo")
	for cut := range in {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			defer c.CloseNow()
			r.Write(in[:cut])
			ctx, cancel := context.WithTimeoutCause(bg, time.Second, errors.New("enough"))
			defer cancel()
			_, err := c.Read(ctx)
			require.EqualError(t, err, "enough")
			_, err = c.Read(ctx)
			require.EqualError(t, err, "enough")
			require.Equal(t, time.Second, since())
			go r.Write(in[cut:])
			require.Equal(t, "text Hello", read(t, c))
			r.expect(pong, "p")
		})
	}
}

// bubble is when the fake clock of a synctest bubble starts.
var bubble = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func since() time.Duration { return time.Since(bubble) }

// The same on the networks that there are: before each byte a Read is cut short.
func TestReadGoesOnOverNetworks(t *testing.T) {
	dials := map[string]func() (server, client net.Conn){
		"TCP": func() (server, client net.Conn) { return tcpPipe(t) },
		"TLS": func() (server, client net.Conn) {
			hs := httptest.NewTLSServer(nil) // for its certificate
			defer hs.Close()
			a, b := tcpPipe(t)
			config := hs.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.ServerName = "example.com"
			ts, tc := tls.Server(a, &tls.Config{Certificates: hs.TLS.Certificates}), tls.Client(b, config)
			done := make(chan error)
			go func() { done <- tc.Handshake() }()
			require.NoError(t, errors.Join(ts.Handshake(), <-done))
			return ts, tc
		},
	}
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			a, b := dial()
			c := NewConn(a, Params{Config: quiet})
			defer c.CloseNow()
			in := frames(masked(text0, 1), "Hel", masked(ping, 2), "p", masked(cont, 3), "lo")
			for i := range in {
				for range 2 {
					ctx, cancel := context.WithTimeout(bg, time.Millisecond)
					_, err := c.Read(ctx)
					require.Equal(t, context.DeadlineExceeded, err)
					cancel()
				}
				_, err := b.Write(in[i : i+1])
				require.NoError(t, err)
			}
			require.Equal(t, "text Hello", read(t, c))
			raw{t, b}.expect(pong, "p")
		})
	}
}

// A message that Next was cut off from is finished by Reader, and the other way
// round what Reader left is discarded.
func TestMixedReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		defer c.CloseNow()
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		r.send(masked(text0, 1), "Hel")
		_, err := c.Next(ctx)
		require.Equal(t, context.DeadlineExceeded, err)
		r.send(masked(cont, 1), "lo", masked(bin0, 1), "left", masked(cont0, 1), "over")
		typ, m, err := c.Reader(bg)
		require.NoError(t, err)
		require.Equal(t, MessageText, typ)
		b, err := io.ReadAll(m)
		require.NoError(t, err)
		require.Equal(t, "Hello", string(b))
		n, err := m.Read(b)
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)

		typ, m, err = c.Reader(bg)
		require.NoError(t, err)
		require.Equal(t, MessageBinary, typ)
		_, err = io.ReadFull(m, b[:2])
		require.NoError(t, err)
		require.Equal(t, "le", string(b[:2]))
		r.send(masked(cont, 1), "!", masked(text, 1), "next")
		require.Equal(t, "text next", read(t, c))
		_, err = m.Read(b)
		require.Equal(t, errStale, err)
	})
}

// One goroutine reads; a second one is told, not raced with.
func TestTwoReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := rawPeer(t, Params{Config: quiet})
		go c.Read(bg)
		synctest.Wait()
		_, err := c.Read(bg)
		require.Equal(t, errReaders, err)
		_, _, err = c.Reader(bg)
		require.Equal(t, errReaders, err)
		require.Equal(t, errReaders, c.Feed(nil, nil))
		c.CloseNow()
	})
}

// DESIGN section 8: what a hostile peer gets for breaking a rule, and what the
// application sees, the same from then on.
func TestViolations(t *testing.T) {
	for _, m := range machineCases {
		i := strings.Index(m.want, "error websocket: peer failed: ")
		if i < 0 {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := quiet
				cfg.ReadLimit = machineLimit
				c, r := rawPeer(t, Params{Client: !m.server, Config: cfg})
				r.Write(m.in)
				r.CloseWrite()
				var err error
				for err == nil {
					_, err = c.Read(bg)
				}
				var rule *ProtocolError
				require.ErrorAs(t, err, &rule)
				require.Equal(t, m.want[i:], "error "+err.Error()+"\n")
				require.Equal(t, rule.Code, CodeOf(err))
				_, again := c.Read(bg)
				require.Same(t, err, again)
				require.Same(t, err, c.Write(bg, Text("x")))
				require.Same(t, err, c.Post(Text("x")))
				require.Same(t, err, c.Ping(bg))
				require.Same(t, err, context.Cause(c.Context()))
				require.Same(t, err, c.Close(CloseNormalClosure, ""))
				var out []byte
				for out = r.frame(); out[0] != 0x88; out = r.frame() {
				}
				require.Equal(t, string(frames(closed, closeFrame(rule.Code, rule.Reason))), string(out))
				r.expectEOF()
			})
		})
	}
}

func (r raw) CloseWrite() { r.Conn.(*memnet.Conn).CloseWrite() }

// DESIGN section 8: ProgressTimeout (A66). A pause between messages is none.
func TestProgressTimeout(t *testing.T) {
	for _, part := range []string{"\x81", "\x81\x85\x00\x00\x00\x00Hel", "\x01\x81\x00\x00\x00\x00H", "\x89\x82\x00\x00\x00\x00p"} {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			go func() {
				pass(time.Hour)
				r.Write([]byte(part))
			}()
			_, err := c.Read(bg)
			require.Equal(t, error(errStalled), err)
			require.GreaterOrEqual(t, since(), time.Hour+30*time.Second)
			require.Less(t, since(), time.Hour+30*time.Second+2*linger)
			r.expect(closed, closeFrame(ClosePolicyViolation, "pause inside a message"))
		})
	}
}

// A peer that goes without a close frame (A74): io.ErrUnexpectedEOF or the
// transport's own error, and 1006.
func TestPeerGone(t *testing.T) {
	for name, c := range map[string]struct {
		go_  func(raw)
		want error
	}{
		"EOF":           {func(r raw) { r.Close() }, io.ErrUnexpectedEOF},
		"half-close":    {func(r raw) { r.CloseWrite() }, io.ErrUnexpectedEOF},
		"reset":         {func(r raw) { r.Conn.(*memnet.Conn).Reset() }, errReset},
		"EOF in header": {func(r raw) { r.Write([]byte{0x81}); r.Close() }, io.ErrUnexpectedEOF},
		"EOF in message": {func(r raw) {
			r.send(masked(text0, 1), "part")
			r.Close()
		}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, r := rawPeer(t, Params{Config: quiet})
				c.go_(r)
				_, err := conn.Read(bg)
				require.ErrorIs(t, err, c.want)
				require.Equal(t, CloseAbnormalClosure, CodeOf(err))
				<-conn.Context().Done()
				require.Equal(t, err, context.Cause(conn.Context()))
				require.Equal(t, err, conn.Write(bg, Text("x")))
			})
		})
	}
}

// Any number of goroutines may write. What comes together leaves together
// (group commit), and frames are never mixed.
func TestConcurrentWrites(t *testing.T) {
	a, b := memnet.Pipe(1 << 10)
	counted := &countingConn{Conn: a}
	c := NewConn(counted, Params{Config: quiet})
	peer := NewConn(b, Params{Client: true, Config: quiet})
	const writers, each = 64, 50
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				m := Text(fmt.Sprintf("%d %d %s", i, j, strings.Repeat("x", i*j)))
				var err error
				switch j % 3 {
				case 0:
					err = c.Write(bg, m)
				case 1:
					err = c.Post(m)
				case 2:
					if err = c.Queue(m); err == nil {
						err = c.Flush(bg)
					}
				}
				require.NoError(t, err)
			}
		})
	}
	next := make([]int, writers)
	for range writers * each {
		m, err := peer.Next(bg)
		require.NoError(t, err)
		var i, j int
		var x string
		fmt.Sscan(string(m.Data), &i, &j, &x)
		require.Equal(t, next[i], j, "messages of one goroutine keep their order")
		require.Len(t, x, i*j)
		next[i]++
	}
	wg.Wait()
	require.Less(t, counted.count(), writers*each/2)
}

// A countingConn counts system calls, as it were.
type countingConn struct {
	net.Conn
	mu            sync.Mutex
	reads, writes int
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.mu.Lock()
		c.reads++
		c.mu.Unlock()
	}
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *countingConn) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// DESIGN section 8: waiting output is bounded (A69).
func TestQueueLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(1)
		cfg := quiet
		cfg.QueueLimit, cfg.WriteTimeout = 1000, time.Hour
		c := NewConn(a, Params{Config: cfg})
		defer c.CloseNow()
		require.NoError(t, c.Post(Binary(seq(5000))), "an empty queue takes any message")
		synctest.Wait()
		require.Equal(t, ErrQueueFull, c.Post(Text("x")))
		require.Equal(t, ErrQueueFull, c.Queue(Text("x")))

		wrote := false
		go func() { // Write waits instead
			require.NoError(t, c.Write(bg, Text("waited")))
			wrote = true
		}()
		synctest.Wait()
		require.False(t, wrote)
		raw{t, b}.expect(bin, string(seq(5000)), text, "waited")
		synctest.Wait()
		require.True(t, wrote)
		for range 9 {
			require.NoError(t, c.Queue(Binary(seq(90))))
		}
		require.Equal(t, ErrQueueFull, c.Queue(Binary(seq(300))))
	})
}

// A write that waits for its turn gives up with its context and hurts nobody.
func TestWriteContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(1)
		cfg := quiet
		cfg.WriteTimeout = time.Hour
		c := NewConn(a, Params{Config: cfg})
		defer c.CloseNow()
		go c.Write(bg, Text("first"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, c.Write(ctx, Text("second")))
		require.Equal(t, context.DeadlineExceeded, c.Write(ctx, Text("never queued")))
		require.Equal(t, time.Second, since())
		raw{t, b}.expect(text, "first", text, "second")
		require.NoError(t, c.Post(Text("third")))
		raw{t, b}.expect(text, "third")
	})
}

// A write that its context cuts short inside the network ends the connection,
// and says so; half a frame is never followed by another (A82).
func TestWriteCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(4)
		c := NewConn(a, Params{Config: quiet})
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		err := c.Write(ctx, Text("first"))
		require.EqualError(t, err, "websocket: a write was cut short: context deadline exceeded")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, err, c.Write(bg, Text("second")))
		_, rerr := c.Read(bg)
		require.Equal(t, err, rerr)
		all, _ := io.ReadAll(b)
		require.Equal(t, "\x81\x05fi", string(all))
	})
}

// tornConn takes a byte and fails, and calls back meanwhile.
type tornConn struct {
	net.Conn
	meanwhile func()
}

func (c *tornConn) Write(p []byte) (int, error) {
	c.meanwhile()
	n, _ := c.Conn.Write(p[:1])
	return n, errReset
}

// The same for those who wait for the batch that breaks off, and for what was
// queued behind it, before the connection is closed for it (A82).
func TestNothingBehindTornFrame(t *testing.T) {
	for _, behind := range []bool{false, true} {
		a, b := memnet.Pipe(100)
		nc := &tornConn{Conn: a}
		c := NewConn(nc, Params{Config: quiet})
		o := &c.out
		nc.meanwhile = func() {
			if behind {
				require.NoError(t, c.Queue(Text("behind")))
			}
		}
		require.NoError(t, c.Queue(Text("torn")))
		require.Equal(t, errReset, o.flush(bg))
		o.mu.Lock()
		require.Equal(t, errReset, o.until(bg, o.last), "who waited for it")
		o.mu.Unlock()
		require.Equal(t, errReset, o.flush(bg))
		require.Equal(t, errReset, c.Write(bg, Text("later")))
		c.CloseNow()
		all, _ := io.ReadAll(b)
		require.Equal(t, "\x81", string(all))
	}
}

// DESIGN section 8: WriteTimeout. A peer that does not read is given up.
func TestWriteTimeout(t *testing.T) {
	for name, write := range map[string]func(*Conn) error{
		"Write": func(c *Conn) error { return c.Write(bg, Binary(seq(5000))) },
		"Post":  func(c *Conn) error { return c.Post(Binary(seq(5000))) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := memnet.Pipe(100)
				c := NewConn(a, Params{Config: quiet})
				werr := write(c)
				_, err := c.Read(bg)
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				if name == "Write" {
					require.Equal(t, err, werr)
				}
				require.Equal(t, 10*time.Second, since())
			})
		})
	}
}

// Nothing is sent that no peer would accept.
func TestUnsendable(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	for _, m := range []Message{{}, {Type: 8, Data: []byte("x")}, Text("\xff"), Prepare(Text("\xff")), Prepare(Message{})} {
		want := errType
		if m.Type == MessageText {
			want = errText
		}
		require.Equal(t, want, c.Write(bg, m))
		require.Equal(t, want, c.Queue(m))
		require.Equal(t, want, c.Post(m))
	}
	_, err := c.Writer(bg, 0)
	require.Equal(t, errType, err)
	require.NoError(t, c.Write(bg, Text("still fine")))
	r.expect(text, "still fine")
}

// A prepared message is the same on every connection (A93), and a client's is
// masked all the same.
func TestPrepare(t *testing.T) {
	for _, m := range []Message{Text("Grüße"), Binary(seq(70_000)), Binary(nil)} {
		p := Prepare(m)
		require.Equal(t, m.Type, p.Type)
		require.Equal(t, string(m.Data), string(p.Data))
		for _, client := range []bool{false, true} {
			c, r := rawPeer(t, Params{Client: client, Config: quiet})
			require.NoError(t, c.Write(bg, p))
			require.NoError(t, c.Post(p))
			h := Header{Fin: true, Opcode: Opcode(m.Type)}
			r.expect(h, string(m.Data), h, string(m.Data))
		}
	}
}

// A Writer's message goes in frames; control frames go between them, and other
// messages wait (RFC 6455 section 5.4).
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		defer c.CloseNow()
		w, err := c.Writer(bg, MessageText)
		require.NoError(t, err)
		w.Write(seq(3000))
		w.Write(seq(3000))
		whole := string(seq(3000)) + string(seq(3000))
		r.expect(text0, whole[:4096])

		require.NoError(t, c.Post(Text("posted")))
		require.NoError(t, c.Queue(Text("queued")))
		go c.Write(bg, Text("written"))
		go c.Ping(bg)
		synctest.Wait()
		r.expect(ping, "\x00\x00\x00\x00\x00\x00\x00\x01")

		big := string(seq(100_000))
		n, err := io.WriteString(w, big)
		require.NoError(t, err)
		require.Equal(t, len(big), n)
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
		_, err = w.Write([]byte("late"))
		require.Equal(t, errWriterClosed, err)

		peer := NewConn(r.Conn, Params{Client: true, Config: quiet})
		peer.machine.msg, peer.machine.begun = OpText, true // its first frame was read above
		rest, err := peer.Next(bg)
		require.NoError(t, err)
		require.Equal(t, whole[4096:]+big, string(rest.Data))
		require.Equal(t, "text posted", read(t, peer))
		require.Equal(t, "text queued", read(t, peer))
		require.Equal(t, "text written", read(t, peer))
	})
}

func TestWriterSmall(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	for _, s := range []string{"", "small"} {
		w, err := c.Writer(bg, MessageBinary)
		require.NoError(t, err)
		io.WriteString(w, s)
		require.NoError(t, w.Close())
		r.expect(bin, s)
	}
}

// What a Writer cannot finish is not sent, or ends the connection if a part of
// it is out.
func TestWriterFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		before string
		bad    string
		want   error
		out    bool
	}{
		{"bad text", "", "\xff", errText, false},
		{"bad text behind a frame", string(seq(5000)), "\xff", errText, true},
		{"half a character", "", "\xc3", errText, false},
		{"context", "", "", context.Canceled, false},
		{"context behind a frame", string(seq(5000)), "", context.Canceled, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, r := rawPeer(t, Params{Config: quiet})
				ctx, cancel := context.WithCancel(bg)
				w, err := conn.Writer(ctx, MessageText)
				require.NoError(t, err)
				io.WriteString(w, c.before)
				if c.bad == "" {
					cancel()
				}
				w.Write([]byte(c.bad))
				require.Equal(t, c.want, w.Close())
				if c.out {
					r.expect(text0, c.before, closed, closeFrame(CloseInternalError, ""))
				} else {
					require.NoError(t, conn.Write(bg, Text("next")))
					r.expect(text, "next")
				}
				cancel()
				conn.CloseNow()
			})
		})
	}
}

// While the network takes nothing, one pong waits (A60); a peer that reads gets
// them all, in order.
func TestPongs(t *testing.T) {
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			defer c.CloseNow()
			go c.Read(bg)
			for i := range 1000 {
				r.send(masked(ping, 1), fmt.Sprint(i))
			}
			for i := range 1000 {
				r.expect(pong, fmt.Sprint(i))
			}
		})
	})
	t.Run("not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := memnet.Pipe(1)
			cfg := quiet
			cfg.WriteTimeout = time.Hour
			c := NewConn(a, Params{Config: cfg})
			defer c.CloseNow()
			go c.Read(bg)
			go func() { // one by one
				for i := range 1000 {
					b.Write(frames(masked(ping, 1), fmt.Sprintf("ping %03d %s", i, seq(i%100))))
				}
			}()
			pass(time.Hour / 2)
			raw{t, b}.expect(pong, "ping 000 ", pong, fmt.Sprintf("ping %03d %s", 999, seq(99)))
		})
	})
}

// What was queued and never flushed makes room for a Write, and what waits for a
// Writer does not stand in its way.
func TestQueueLimitDeadlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet
		cfg.QueueLimit = 1000
		c, r := rawPeer(t, Params{Config: cfg})
		defer c.CloseNow()
		fill := func() (n int) {
			for c.Queue(Binary(seq(90))) == nil {
				n++
			}
			return n
		}
		queued := fill()
		require.NoError(t, c.Write(bg, Binary(seq(500))))
		for range queued {
			r.expect(bin, string(seq(90)))
		}
		r.expect(bin, string(seq(500)))

		w, err := c.Writer(bg, MessageBinary)
		require.NoError(t, err)
		queued = fill()
		_, err = w.Write(seq(5000))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		r.expect(bin0, string(seq(5000)), cont, "")
		for range queued {
			r.expect(bin, string(seq(90)))
		}
	})
}

// A Flush sends what was queued; nothing leaves before.
func TestQueueFlush(t *testing.T) {
	a, b := memnet.Pipe(1 << 20)
	counted := &countingConn{Conn: a}
	c := NewConn(counted, Params{Config: quiet})
	for i := range 32 {
		require.NoError(t, c.Queue(Text(fmt.Sprint(i))))
	}
	require.Zero(t, counted.count())
	require.NoError(t, c.Flush(bg))
	require.NoError(t, c.Flush(bg))
	require.Equal(t, 1, counted.count())
	for i := range 32 {
		raw{t, b}.expect(text, fmt.Sprint(i))
	}
}

// The Context ends with the connection, whenever it was asked for.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		before := c.Context()
		require.NoError(t, before.Err())
		r.send(masked(closed, 1), closeFrame(4000, "why"))
		_, err := c.Read(bg)
		require.Equal(t, &CloseError{4000, "why"}, err)
		require.Equal(t, err, context.Cause(before))
		require.Equal(t, before, c.Context())

		c, _ = rawPeer(t, Params{Config: quiet})
		c.CloseNow()
		require.ErrorIs(t, context.Cause(c.Context()), net.ErrClosed)
	})
}

// A deadline that comes from elsewhere is survived, without a busy loop.
func TestForeignDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		defer c.CloseNow()
		c.NetConn().SetReadDeadline(time.Now().Add(time.Second))
		go func() {
			pass(time.Hour)
			r.send(masked(text, 1), "late")
		}()
		require.Equal(t, "text late", read(t, c))
	})
}

func TestBuffered(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	r.send(masked(text, 1), "one", masked(text, 1), "two")
	require.False(t, c.Buffered())
	read(t, c)
	require.True(t, c.Buffered())
	read(t, c)
	require.False(t, c.Buffered())
}

// All who wait for a batch that fails get the error, those too who look before
// the connection has been ended for it.
func TestBatchFails(t *testing.T) {
	a, b := memnet.Pipe(10)
	c := NewConn(a, Params{Config: quiet})
	defer c.CloseNow()
	b.Reset()
	require.ErrorIs(t, c.out.write(bg, Text("x")), errReset)
	require.ErrorIs(t, c.out.flush(bg), errReset)
	c.out.drain()

	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			a, b := memnet.Pipe(10)
			c := NewConn(a, Params{Config: quiet})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { require.ErrorIs(t, c.Write(bg, Binary(seq(50))), errReset) })
				wg.Go(func() { c.Post(Binary(seq(50))) })
			}
			synctest.Wait()
			b.Reset()
			wg.Wait()
			require.ErrorIs(t, c.Flush(bg), errReset)
		})
	}
}
