package websocket

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// gauge_test.go measures what a hostile peer makes a connection hold or do, in
// bytes and counts. The bounds are generous; what they are for is an order of
// magnitude.

const (
	crowd     = 10_000
	mostHeld  = 24 << 10 // bytes per connection that waits, its goroutine's stack included
	mostSpent = 64 << 10 // bytes ever allocated for a peer that only floods
)

// gauge skips where memory says nothing: the race detector has its own.
func gauge(t testing.TB) {
	if raceDetector {
		t.Skip("memory under the race detector is another")
	}
}

// spent is how much memory f allocates, in all.
func spent(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// A feeder is a transport whose peer sends n times again, after first, and then
// nothing until it is closed. What is written is taken, or not if deaf.
type feeder struct {
	net.Conn
	first, again []byte
	n            int
	read         int // bytes
	deaf         bool
	silent       func() // called when there is nothing more to read
	once, end    sync.Once
	closed       chan struct{}
}

func newFeeder(first, again []byte, n int) *feeder {
	return &feeder{first: first, again: again, n: n, closed: make(chan struct{})}
}

func (s *feeder) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(s.first) == 0 {
			if s.n == 0 {
				break
			}
			s.n--
			s.first = s.again
		}
		k := copy(p[n:], s.first)
		s.first = s.first[k:]
		n += k
	}
	if s.read += n; n > 0 {
		return n, nil
	}
	if s.silent != nil {
		s.once.Do(s.silent)
	}
	<-s.closed
	return 0, io.EOF
}

func (s *feeder) Write(p []byte) (int, error) {
	if s.deaf {
		<-s.closed
		return 0, net.ErrClosed
	}
	return len(p), nil
}

func (s *feeder) Close() error                   { s.end.Do(func() { close(s.closed) }); return nil }
func (*feeder) SetReadDeadline(time.Time) error  { return nil }
func (*feeder) SetWriteDeadline(time.Time) error { return nil }

// What 10,000 connections hold that wait for the rest of something, or for
// nothing; and all of it is given back (A58, A65, A66).
func TestGaugeHeld(t *testing.T) {
	gauge(t)
	some := strings.Repeat(`{"a":"small message"},`, 20)
	zip := string(flate.Compress(nil, []byte(some), nil, 15))
	const keeps, resets = "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9", "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
	mask := func(h head) string {
		b := append(head{}, h...)
		b[1] |= 0x80
		return string(b) + "\x00\x00\x00\x00"
	}
	limit := longHead(0x82, 1<<20)
	less := longHead(0x80, 1<<20-1)
	for _, c := range []struct {
		name, terms, in string
		messages        int
	}{
		{"nothing", "", "", 0},
		{"half a header", "", "\x82", 0},
		{"half a payload", "", mask(head{0x82, 126, 1, 0}) + "half", 0},
		{"half a ping", "", mask(head{0x89, 100}) + "half", 0},
		{"half a message", "", string(frames(masked(text0, 1), "half")), 0},
		{"the limit declared, nothing sent (A65)", "", mask(limit), 0},
		{"the limit declared in a second frame (A65)", "", string(frames(masked(bin0, 1), "x")) + mask(less), 0},
		{"the limit declared, compressed (A65)", resets, "\xc2" + mask(limit)[1:], 0},
		{"the limit declared, takeover (A65)", keeps, "\xc2" + mask(limit)[1:], 0},
		{"a compressed message each (A58)", resets, string(frames(withRSV(masked(text, 1), rsv1), zip)), 1},
		{"a compressed message each, takeover (A58)", keeps, string(frames(withRSV(masked(text, 1), rsv1), zip)), 1},
	} {
		for _, drive := range []string{"Next", "Feed"} {
			t.Run(c.name+" "+drive, func(t *testing.T) {
				base := held()
				conns := make([]*Conn, crowd)
				var waiting, gone sync.WaitGroup
				for i := range conns {
					s := newFeeder([]byte(c.in), nil, 0)
					conns[i] = NewConn(s, Params{Extensions: c.terms, Config: Config{KeepAlive: -1}})
					if drive == "Feed" {
						n := 0
						h := &Handler{Message: func(c *Conn, m Message) { n++; c.Queue(m) }}
						err := conns[i].Feed(nil, h)
						if err == nil && c.in != "" {
							err = conns[i].Feed([]byte(c.in), h)
						}
						if err != nil || n != c.messages {
							t.Fatal(n, err)
						}
						continue
					}
					waiting.Add(1)
					s.silent = waiting.Done
					gone.Go(func() {
						for {
							m, err := conns[i].Next(bg)
							if err != nil {
								return
							}
							conns[i].Write(bg, m)
						}
					})
				}
				waiting.Wait()
				each := (held() - base) / crowd
				t.Logf("%d bytes per connection", each)
				require.Less(t, each, int64(mostHeld))
				for _, c := range conns {
					c.CloseNow()
				}
				gone.Wait()
				conns = nil
				left := held() - base
				require.Less(t, left, int64(16<<20), "stacks that are free are kept for a while")
			})
		}
	}
}

// 10,000 handshakes that stop half way (A14, A16): what net/http and this
// library hold for them, and that they are dropped when the time that the
// http.Server gives is over.
func TestGaugeHandshakes(t *testing.T) {
	gauge(t)
	for _, in := range []string{"", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: webso"} {
		synctest.Test(t, func(t *testing.T) {
			l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
			hs := &http.Server{Handler: &Server{Handler: echo}, ReadHeaderTimeout: 10 * time.Second}
			go hs.Serve(l)
			clients := make([]*memnet.Conn, crowd)
			servers := make([]*memnet.Conn, crowd)
			for i := range clients {
				servers[i], clients[i] = memnet.Pipe(1 << 10)
				clients[i].Write([]byte(in))
			}
			base := held()
			for _, s := range servers {
				l.conns <- s
			}
			synctest.Wait()
			each := (held() - base) / crowd
			t.Logf("%d bytes per connection", each)
			require.Less(t, each, int64(mostHeld))
			for _, c := range clients {
				io.Copy(io.Discard, c)
				c.Close()
			}
			require.Equal(t, 10*time.Second, since())
			hs.Close()
		})
	}
}

// A listener in memory.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }
func (*listener) Addr() net.Addr { return &net.TCPAddr{} }

// A million of what costs nothing to send: what it makes this side allocate, and
// how much of it is read before it is stopped (A33, A50, A60, A61, A62, A64).
func TestGaugeFloods(t *testing.T) {
	gauge(t)
	const million = 1_000_000
	m := func(h Header) Header { return masked(h, 0x01020304) }
	empty := strings.Repeat("\x00\x00\x00\xff\xff", 1000)
	for _, c := range []struct {
		name         string
		first, again []byte
		n            int
		err          error
		most         int // bytes read before the end; 0: all
	}{
		{"A33 a length of 2^62", []byte("\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), nil, 0, errTooBig, 14},
		{"A60 pings", nil, frames(m(ping), "0123456789"), million, nil, 0},
		{"A61 pongs", nil, frames(m(pong), "0123456789"), million, nil, 0},
		{"A62 empty fragments", frames(m(bin0), ""), frames(m(cont0), ""), million, errFragments, 1026*6 + maxRead},
		{"A62 fragments of a byte", frames(m(bin0), "x"), frames(m(cont0), "x"), million, errFragments, 1060*7 + maxRead},
		{"A64 empty messages", nil, frames(m(bin), ""), million, nil, 0},
		{"A64 messages of a byte", nil, frames(m(text), "x"), million, nil, 0},
		{"A50 blocks that yield nothing", frames(withRSV(m(bin0), rsv1), ""), frames(m(cont0), empty), million, errBomb, 64<<10 + 2*maxRead},
	} {
		for _, drive := range []string{"Next", "Serve", "Feed"} {
			t.Run(c.name+" "+drive, func(t *testing.T) {
				s := newFeeder(c.first, c.again, c.n)
				s.silent = func() { s.Close() }
				n := spent(func() {
					conn := NewConn(s, Params{Extensions: "permessage-deflate; client_no_context_takeover", Config: quiet})
					err := mode{drive: drive}.read(conn, func(Message) {})
					if want := c.err; want == nil {
						require.Equal(t, io.ErrUnexpectedEOF, err)
					} else {
						require.Equal(t, want, err)
					}
				})
				t.Logf("%d bytes allocated, %d read", n, s.read)
				most := int64(mostSpent + 3*maxRead) // with the buffers that are borrowed
				if strings.HasPrefix(c.name, "A60") {
					most += int64(s.read) // it answers: batches are borrowed, and come and go
				}
				require.Less(t, n, most)
				if c.most > 0 {
					require.LessOrEqual(t, s.read, c.most)
				}
			})
		}
	}
}

// As many fragments as are allowed are put together without memory of their own:
// 65,536 of 64 bytes (A62).
func TestGaugeFragments(t *testing.T) {
	gauge(t)
	const size = 65_536 * 64
	s := newFeeder(frames(masked(bin0, 1), string(seq(64))), frames(masked(cont0, 1), string(seq(64))), 65_534)
	s.again = append([]byte{}, s.again...)
	last := frames(masked(cont, 1), string(seq(64)))
	cfg := quiet
	cfg.ReadLimit = size
	n := spent(func() {
		c := NewConn(&chained{s, last}, Params{Config: cfg})
		m, err := c.Next(bg)
		require.NoError(t, err)
		require.Len(t, m.Data, size)
		c.CloseNow()
	})
	t.Logf("%d bytes allocated", n)
	require.Less(t, n, int64(4*size))
}

// A chained transport goes on with more when the feeder has come to its end.
type chained struct {
	*feeder
	more []byte
}

func (c *chained) Read(p []byte) (int, error) {
	if len(c.first) == 0 && c.n == 0 {
		n := copy(p, c.more)
		c.more = c.more[n:]
		return n, nil
	}
	return c.feeder.Read(p)
}

// While a peer pings and does not read, one pong waits, and the connection ends
// with WriteTimeout (A60).
func TestGaugePings(t *testing.T) {
	gauge(t)
	const n = 100
	for _, drive := range drives {
		synctest.Test(t, func(t *testing.T) {
			var wg sync.WaitGroup
			conns := make([]*Conn, n)
			peers := make([]*memnet.Conn, n)
			in := frames(masked(ping, 1), string(seq(125)))
			start := make(chan struct{})
			for i := range n {
				var a *memnet.Conn
				a, peers[i] = memnet.Pipe(1 << 10)
				conns[i] = NewConn(a, Params{Config: quiet})
				wg.Go(func() {
					<-start
					for {
						if _, err := peers[i].Write(in); err != nil {
							return
						}
					}
				})
			}
			synctest.Wait()
			base := held()
			for _, c := range conns {
				wg.Go(func() { mode{drive: drive}.read(c, nil) })
			}
			close(start)
			pass(9 * time.Second)
			each := (held() - base) / n
			t.Logf("%s: %d bytes per connection", drive, each)
			require.Less(t, each, int64(64<<10))
			for _, c := range conns {
				<-c.Context().Done()
			}
			require.InDelta(t, 10*time.Second, since(), float64(linger))
			for _, p := range peers {
				p.Close()
			}
			wg.Wait()
		})
	}
	// A transport that does not block: a million pings, one pong.
	a, _ := memnet.Pipe(1)
	nb := &nonblocking{Conn: a}
	c := NewConn(nb, Params{Config: quiet})
	defer c.CloseNow()
	in := frames(masked(ping, 1), string(seq(125)))
	buf := make([]byte, len(in))
	for range 100_000 {
		copy(buf, in)
		require.NoError(t, c.Feed(buf, nil))
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	require.LessOrEqual(t, len(c.out.buf.b), 127)
}

// A bomb of a GiB behind the default limit, whole and in fragments (A49): what is
// allocated, garbage included, is the limit and little more.
func TestGaugeBomb(t *testing.T) {
	gauge(t)
	const limit = 1 << 20
	block := append(flate.Compress(nil, make([]byte, 1<<20), nil, 15), 0, 0, 0xff, 0xff)
	for name, h := range map[string]Header{"1 MiB and a byte": bin, "1 GiB": bin, "1 GiB in fragments": bin0} {
		for _, drive := range drives {
			t.Run(name+" "+drive, func(t *testing.T) {
				whole := strings.Repeat(string(block), 1<<10)
				if name == "1 MiB and a byte" {
					whole = string(flate.Compress(nil, make([]byte, limit+1), nil, 15))
				}
				in := frames(withRSV(masked(h, 1), rsv1), whole)
				if !h.Fin {
					in = frames(withRSV(masked(h, 1), rsv1), string(block))
					for range 1 << 10 {
						in = append(in, frames(masked(cont0, 2), string(block))...)
					}
				}
				s := newFeeder(in, nil, 0)
				runtime.GC()
				runtime.GC() // the pools are empty now
				n := spent(func() {
					c := NewConn(s, Params{Extensions: "permessage-deflate", Config: quiet})
					if drive != "Reader" {
						require.Equal(t, error(errTooBig), mode{drive: drive}.read(c, nil))
						return
					}
					_, r, err := c.Reader(bg)
					require.NoError(t, err)
					_, err = io.Copy(io.Discard, r)
					require.Equal(t, error(errTooBig), err)
				})
				require.LessOrEqual(t, s.read, 4*len(block)+2*maxRead, "the rest is not looked at")
				require.Less(t, n, int64(limit+64<<10))
			})
		}
	}
}

// All lengths near powers of two, and all limits (A33). Run it with GOARCH=386
// too.
func TestLengthsA33(t *testing.T) {
	var lengths []uint64
	for k := range 64 {
		for d := range uint64(5) {
			lengths = append(lengths, 1<<k+d-2)
		}
	}
	lengths = append(lengths, math.MaxUint64)
	for _, limit := range []int64{1, 125, 126, 1 << 16, 1 << 20, math.MaxInt32, 1 << 32, math.MaxInt64} {
		for _, n := range lengths {
			for _, first := range []byte{0x82, 0xc2} { // and compressed
				m := machine{client: true, limit: limit, deflate: true}
				_, _, err := m.next(longHead(first, n))
				most := uint64(limit)
				if first == 0xc2 && limit < math.MaxInt64/16 {
					most = 64<<10 + 8*uint64(limit)
				}
				switch {
				case n > math.MaxInt64 || n < 1<<16:
					require.Equal(t, error(errLength), err, n)
				case n > most:
					require.Equal(t, error(errTooBig), err, "%d, limit %d", n, limit)
				default:
					require.NoError(t, err, "%d, limit %d", n, limit)
					require.Equal(t, n, uint64(m.left))
				}
			}
		}
	}
}

// All sums of two lengths near powers of two (A34).
func TestSumsA34(t *testing.T) {
	var lengths []int64
	for k := range 63 {
		lengths = append(lengths, 1<<k-1, 1<<k, 1<<k+1)
	}
	lengths = append(lengths, math.MaxInt64-1, math.MaxInt64)
	for _, limit := range []int64{1, 1 << 20, math.MaxInt32, math.MaxUint32, 1 << 40, math.MaxInt64} {
		for _, a := range lengths {
			for _, b := range lengths {
				m := machine{client: true, limit: limit, msg: OpBinary, begun: true, size: a}
				err := m.begin(Header{Fin: true, Len: b})
				sum, carry := bits.Add64(uint64(a), uint64(b), 0)
				if carry != 0 || a <= limit && sum > uint64(limit) || a > limit && b > 0 {
					require.Equal(t, error(errTooBig), err, "%d and %d of %d", a, b, limit)
				} else if a <= limit {
					require.NoError(t, err, "%d and %d of %d", a, b, limit)
				}
			}
		}
	}
}

// All close codes over the wire (A39): good ones are echoed, the others are a
// protocol error.
func TestCloseCodesA39(t *testing.T) {
	step := 1
	if raceDetector {
		step = 7
	}
	for code := 0; code < 1<<16; code += step {
		good := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
		a, b := memnet.Pipe(1 << 10)
		client := code%2 == 0
		h := closed
		if !client {
			h = masked(closed, uint32(code))
		}
		b.Write(frames(h, string(binary.BigEndian.AppendUint16(nil, uint16(code)))))
		b.CloseWrite()
		c := NewConn(a, Params{Client: client, Config: quiet})
		_, err := c.Next(bg)
		all, _ := io.ReadAll(b)
		sent := readFrames(all)
		want, answer := error(errCloseCode), closeFrame(CloseProtocolError, errCloseCode.Reason)
		if good {
			want, answer = &CloseError{Code: CloseCode(code)}, closeFrame(CloseCode(code), "")
		}
		if fmt.Sprint(err) != fmt.Sprint(want) || CodeOf(err) != CodeOf(want) || len(sent) != 1 || sent[0] != "8 "+answer {
			t.Fatal(code, err, sent)
		}
	}
}

// Over TLS a record that does not come to its end is a pause like any other: in a
// message ProgressTimeout ends it, else KeepAlive; and records of a byte are as
// good as any (A76, and the table's cut "bytes").
func TestTLSRecords(t *testing.T) {
	config, _ := certificate(t)
	for name, c := range map[string]struct {
		in   []byte
		want error
		at   time.Duration
	}{
		"inside a message":  {frames(masked(text0, 1), "a"), errStalled, 30 * time.Second},
		"between messages":  {frames(masked(text, 1), "a"), ErrPeerTimeout, 45 * time.Second},
		"before everything": {nil, ErrPeerTimeout, 45 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(1 << 20)
				half := &halving{Conn: b}
				s, peer := tlsOver(t, config, a, half, false)
				conn := NewConn(s, Params{})
				peer.Write(c.in)
				half.on = true
				peer.Write([]byte("not all of this arrives"))
				go io.Copy(io.Discard, b)
				began := since()
				err := conn.Serve(bg, nil)
				require.Equal(t, c.want, err)
				require.GreaterOrEqual(t, since()-began, c.at)
				require.Less(t, since()-began, c.at+2*linger)
				b.Close()
			})
		})
	}
}

// A halving transport loses the second half of what is written, once it is on.
type halving struct {
	net.Conn
	on bool
}

func (h *halving) Write(p []byte) (int, error) {
	if h.on {
		h.Conn.Write(p[:len(p)/2])
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// Shutdown with a crowd, a tenth of it dead: 1001 to all, and it is over when the
// dead have had CloseTimeout, behind the waves of a second; or when ctx is (A79).
func TestShutdownCrowd(t *testing.T) {
	n := crowd
	if raceDetector { // which has a limit on goroutines
		n = 1000
	}
	for name, patience := range map[string]time.Duration{"patient": time.Minute, "hasty": 3 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Handler: echo}
				var wg sync.WaitGroup
				for i := range n {
					a, b := memnet.Pipe(1 << 10)
					s.ServeHTTP(hijacked{header: http.Header{}, nc: a}, upgradeRequest())
					wg.Go(func() {
						defer b.Close()
						skipResponse(b)
						if i%10 == 0 { // it is deaf
							io.Copy(io.Discard, b)
							return
						}
						c := NewConn(b, Params{Client: true, Config: quiet})
						_, err := c.Read(bg)
						if i%10 > 0 && CodeOf(err) != CloseGoingAway {
							t.Error(err)
						}
					})
				}
				ctx, cancel := context.WithTimeout(bg, patience)
				defer cancel()
				err := s.Shutdown(ctx)
				if name == "patient" {
					require.NoError(t, err)
					require.LessOrEqual(t, since(), 8*time.Second)
				} else {
					require.Equal(t, context.DeadlineExceeded, err)
					require.Equal(t, patience, since())
				}
				wg.Wait()
				synctest.Wait()
				for range s.Conns() {
					t.Fatal("a connection is left")
				}
			})
		})
	}
}

// A hijacked is the ResponseWriter of a connection that can be taken over.
type hijacked struct {
	http.ResponseWriter
	header http.Header
	nc     net.Conn
}

func (h hijacked) Header() http.Header { return h.header }

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.nc, nil, nil }

func upgradeRequest() *http.Request {
	r, err := http.NewRequest("GET", "http://example.com/", nil)
	if err != nil {
		panic(err)
	}
	r.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, hKey: {sampleKey}, "Sec-Websocket-Version": {"13"}}
	return r
}

// skipResponse reads a response's header.
func skipResponse(r io.Reader) {
	var all []byte
	for p := make([]byte, 1); !strings.HasSuffix(string(all), "\r\n\r\n"); all = append(all, p...) {
		if _, err := r.Read(p); err != nil {
			return
		}
	}
}
