package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// Public vulnerabilities of other implementations, each as a test that this one
// does not have its class. What has no CVE is named after the project.
//
//	lengths        2015-1779 QEMU, 2017-18922 LibVNCServer, 2017-2921 Mongoose, 2018-21035 Qt, 2016-10542 ws,
//	               2020-13935 Tomcat, 2020-27813 gorilla, 2025-32049 and 2026-0716 libsoup, 2026-1528 undici,
//	               2026-27889 nats-server
//	fragments      2014-0193 Netty, 2020-36049 socket.io, 2026-42786 Bandit, 2026-47073 hackney, 2026-48779 ws
//	endless loops  2021-26423 .NET, 2024-52532 libsoup, 2025-5399 curl
//	compression    2016-10544 uws, 2018-1000518 websockets (Python), 2021-21419 eventlet, 2026-1526 and
//	               2026-2229 undici, 2026-27571 nats-server, 2026-39804 Bandit
//	crashes        2020-7693 SockJS, 2022-21676 and 2022-41940 engine.io, 2024-36387 httpd, 2024-37890 ws,
//	               2025-11234 QEMU; coder/websocket and ws
//	header parsing 2018-12121 and 2018-12122 Node, 2020-7662 and 2020-7663 websocket-extensions, 2021-32640 ws,
//	               2023-26103 Deno, 2023-43669 tungstenite
//	smuggling      2018-1002105 Kubernetes, 2018-12541 Vert.x, 2019-17567 httpd, 2019-18277 HAProxy,
//	               2020-10108 and 2020-10109 Twisted, 2021-22959 Node, 2021-32715 hyper
//	injection      2012-2374 Tornado, 2019-9740 urllib, 2020-5247 Puma, 2020-7694 and 2020-7695 uvicorn,
//	               2020-35678 Autobahn, 2022-3215 SwiftNIO, 2023-29406 Go
//	origins        2018-14732 and 2025-30360 webpack-dev-server, 2018-6651 uncurl, 2019-13611 engineio (Python),
//	               2020-28481 socket.io, 2022-42975 Phoenix, 2023-26114 code-server, 2024-23898 Jenkins
//	clients        2010-4508 Firefox, 2018-8034 Tomcat, 2020-11050 Java-WebSocket, 2020-15134 Faye, 2020-8559 Kubernetes,
//	               2024-45336, 2025-4673, 2025-22870 and 2025-47912 Go, 2025-10148 curl
//	lifetime       2016-10518 and 2026-45736 ws, 2017-15268 QEMU, 2020-35896 ws (Rust), 2021-3690 Undertow,
//	               2021-42340, 2022-25762 and 2024-23672 Tomcat

// hit sends in to a server or a client in every way of driving it (Next, Serve,
// Feed), whole, a byte at a time and split, and wants the same story each time:
// the messages, and why it ended. Without terms it does so with compression off
// and on. The close frame says the same, and no memory is taken for what was only
// announced.
func hit(t *testing.T, client bool, terms string, in []byte, want ...string) {
	t.Helper()
	all := []string{terms}
	if terms == "" {
		all = append(all, "permessage-deflate")
	}
	for _, terms := range all {
		for _, way := range []string{"Next", "Serve", "Feed"} {
			for _, c := range handshakeCuts(string(in)) {
				if c.step == 1 && len(in) > 32<<10 {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					a, b := memnet.Pipe(max(len(in), 1<<10))
					b.Write(bytes.Clone(in))
					b.CloseWrite()
					cfg := quiet
					cfg.Compression = new(Compression)
					conn := NewConn(&cutConn{Conn: a, cut: c}, Params{Client: client, Extensions: terms, Config: cfg})
					got := drive(conn, way)
					require.Equal(t, want, got, "%s %s %q", way, c.name, terms)
					<-conn.Context().Done()
					runtime.ReadMemStats(&after)
					if len(in) < 4<<10 {
						require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(400<<10), "memory for %d bytes", len(in))
					}
					out, err := io.ReadAll(b)
					require.NoError(t, err)
					requireGoodbye(t, out, got[len(got)-1])
				})
			}
		}
	}
}

// requireGoodbye checks that out ends with a close frame that tells the verdict,
// if it has a code.
func requireGoodbye(t *testing.T, out []byte, verdict string) {
	t.Helper()
	var code int
	if n, _ := fmt.Sscanf(verdict, "%d", &code); n == 0 {
		return
	}
	last := -1
	for len(out) > 0 {
		h, n := ParseHeader(out)
		p := bytes.Clone(out[n : n+int(h.Len)])
		Mask(p, h.Key)
		if h.Opcode == OpClose {
			last = int(binary.BigEndian.Uint16(p))
		}
		out = out[n+int(h.Len):]
	}
	require.Equal(t, code, last)
}

// mk masks a frame's header, as a client does.
func mk(h Header) Header { return masked(h, 0x04030201) }

// announced is a header with a length and nothing behind it: the first bytes of
// the payload only.
func announced(h Header, length uint64, payload string) []byte {
	b := AppendHeader(nil, Header{Fin: h.Fin, Opcode: h.Opcode, Masked: h.Masked, Key: h.Key, Len: 1 << 16})
	binary.BigEndian.PutUint64(b[2:], length)
	return append(b, payload...)
}

// asked sends a request to servers by Accept and by Server, however it is cut,
// and wants the status and no other answer. Afterwards the server still serves.
// It returns the last answer, and how many bytes the server read.
func asked(t *testing.T, o AcceptOptions, in string, status int) (answer string, n int64) {
	t.Helper()
	for name, accept := range acceptors {
		for _, c := range handshakeCuts(in) {
			if c.step == 1 && len(in) > 128<<10 {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, lines := serveMem(t, &http.Server{Handler: accept(o, &calls)}, nil)
				nc, server := l.dial(c)
				go io.WriteString(nc, in+string(frames(mk(closed), "")))
				out, err := io.ReadAll(nc)
				require.NoError(t, err)
				answer, n = string(out), server.n.Load()
				require.Regexp(t, fmt.Sprintf(`^HTTP/1\.[01] %d `, status), answer, "%s %s", name, c.name)
				require.Equal(t, 1, strings.Count(answer, "HTTP/1."), "one answer")
				require.EqualValues(t, status == 101, calls.Load() == 1)
				require.Empty(t, lines.String())
				conn, err := Dial(bg, "ws://a.example", &DialOptions{Client: l.client(nil)})
				require.NoError(t, err)
				echoes(t, conn)
				nc.Close()
			})
		}
	}
	return answer, n
}

// answers dials a server that answers so, however the answer is cut, and wants
// the error. Nothing is sent to that server, and no more of the answer read than
// a limited part.
func answers(t *testing.T, o DialOptions, response, want string) {
	t.Helper()
	for _, c := range handshakeCuts(response) {
		synctest.Test(t, func(t *testing.T) {
			sent := make(chan int, 1)
			a := &answerer{cut: c, script: func(nc net.Conn, r *http.Request) {
				io.WriteString(nc, answering(r, response))
				n, _ := nc.Read(make([]byte, 1))
				sent <- n
			}}
			o := o
			o.Client = a.client(nil)
			_, err := Dial(within(t), "ws://a.example", &o)
			require.ErrorContains(t, err, want, c.name)
			require.Zero(t, <-sent)
			require.Less(t, a.conns[0].n.Load(), int64(100<<10))
		})
	}
}

// with header lines, the good request.
func asking(lines string) string {
	return strings.TrimSuffix(goodRequest, "\r\n") + lines + "\r\n\r\n"
}

// Lengths.

// gorilla/websocket added the length of a frame to that of the message before
// it compared with the limit. Here the comparison cannot overflow: 1009.
func TestCVE_2020_27813_LengthOverflow(t *testing.T) {
	for _, length := range []uint64{math.MaxInt64, math.MaxInt64 - 1, 1 << 62, math.MaxUint32, math.MaxUint32 + 1} {
		hit(t, false, "", append(frames(mk(bin0), "x"), announced(mk(cont), length, "yyy")...), "1009 message too big")
		hit(t, true, "", append(frames(bin0, "x"), announced(cont, length, "yyy")...), "1009 message too big")
	}
}

// Tomcat did not look at the top bit of a 64-bit length, and looped for ever.
// RFC 6455 section 5.2 has it 0: 1002.
func TestCVE_2020_13935_LengthTopBit(t *testing.T) {
	for _, length := range []uint64{1 << 63, math.MaxUint64, 1<<63 | 5} {
		hit(t, false, "", announced(mk(text), length, "hello"), "1002 malformed frame length")
		hit(t, true, "", announced(text, length, "hello"), "1002 malformed frame length")
	}
}

// nats-server took a 64-bit length for a signed one: negative, it passed the
// limit, and slicing with it brought the process down. Here: 1002.
func TestCVE_2026_27889_NegativeLength(t *testing.T) {
	hit(t, false, "", []byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01\x01\x02\x03\x04x"), "1002 malformed frame length")
	hit(t, false, "", []byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04x"), "1002 malformed frame length")
}

// undici's client could not hold a server's 64-bit length in a number, and threw
// where nobody catches. Here it is a message that is too big.
func TestCVE_2026_1528_LengthBeyondNumbers(t *testing.T) {
	for _, length := range []uint64{1<<53 + 1, 1 << 53, 1<<32 + 5, 1 << 40} {
		hit(t, true, "", announced(bin, length, "hello"), "1009 message too big")
	}
}

// Mongoose added the header's length to the payload's, and the sum wrapped to a
// small allocation. Here no sum is made: 1002 or 1009.
func TestCVE_2017_2921_HeaderPlusLength(t *testing.T) {
	for add := range uint64(15) {
		hit(t, false, "", announced(mk(bin), math.MaxUint64-add, strings.Repeat("A", 64)), "1002 malformed frame length")
	}
	hit(t, false, "", announced(mk(bin), math.MaxUint32-8, strings.Repeat("A", 64)), "1009 message too big")
}

// Qt took frames and messages of 2 GB, and had no setting for less. Here the
// limit is 1 MiB unless set, for frames and for their sum.
func TestCVE_2018_21035_LimitByDefault(t *testing.T) {
	hit(t, false, "permessage-deflate", announced(mk(bin), 9<<20, "x"), "1009 message too big") // plain frames are not let off
	hit(t, false, "", append(frames(mk(bin0), "x"), announced(mk(cont), 1<<20, "")...), "1009 message too big")
	require.EqualValues(t, 1<<20, new(Params).profile().readLimit)
}

// ws took messages of any size into memory by default. Here nothing is taken for
// a length beyond the limit: 1009 at its header.
func TestCVE_2016_10542_HugePayload(t *testing.T) {
	hit(t, false, "", announced(mk(text), 256<<20, "a"), "1009 message too big")
	hit(t, false, "", announced(mk(text), 1<<20+1, "a"), "1009 message too big")
}

// QEMU's VNC server kept what it was sent until a frame, or the headers, were
// complete, whatever their size. Here an announced length costs nothing until
// its bytes come, and net/http limits headers.
func TestCVE_2015_1779_AnnouncedLength(t *testing.T) {
	for _, n := range []int{0, 11, 512, 600, 1024, 3000} {
		hit(t, false, "", announced(mk(bin), 1<<20, string(seq(n))), "unexpected EOF")
	}
	hit(t, false, "", append(frames(mk(bin0), "x"), announced(mk(cont), 1<<20-1, "a few bytes")...), "unexpected EOF")
	_, n := asked(t, AcceptOptions{}, asking("A: "+strings.Repeat("a", 4<<20)), 431)
	require.Less(t, n, int64(1<<20+64<<10))
}

// libsoup's servers had no limit for a message that comes in frames. Here the
// sum is limited.
func TestCVE_2025_32049_LargeMessage(t *testing.T) {
	part := string(seq(200_000))
	hit(t, false, "", frames(mk(bin0), part, mk(cont0), part, mk(cont0), part, mk(cont0), part, mk(cont0), part, mk(cont0), part, mk(cont), ""), "1009 message too big")
}

// libsoup without a limit read beyond its buffer when a length was large. Here
// ReadLimit -1 means no limit, and no trust in lengths either.
func TestCVE_2026_0716_WithoutLimit(t *testing.T) {
	for _, length := range []uint64{1 << 31, 1 << 32, 1 << 62, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: Config{ReadLimit: -1, KeepAlive: -1}})
			r.send(mk(text), "first")
			r.Write(announced(mk(bin), length, "payload"))
			r.CloseWrite()
			require.Equal(t, "text first", read(t, c))
			_, err := c.Read(bg)
			require.Equal(t, io.ErrUnexpectedEOF, err)
		})
	}
}

// LibVNCServer decoded headers with lengths that were not what they seemed, and
// wrote beyond its buffer. Here a length has one form: the shortest.
func TestCVE_2017_18922_LengthForms(t *testing.T) {
	for _, in := range []string{
		"\x82\xfe\x00\x00\x01\x02\x03\x04", "\x82\xfe\x00\x7d\x01\x02\x03\x04", "\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05\x01\x02\x03\x04hello",
		"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04hello",
	} {
		hit(t, false, "", []byte(in), "1002 malformed frame length")
	}
	hit(t, false, "", []byte("\x89\xfe\x00\x7e\x01\x02\x03\x04"+strings.Repeat("x", 126)), "1002 fragmented or oversized control frame")
}

// Fragments.

// Netty collected continuations for ever. Here size and number are limited:
// 1009, and 1008 for those that bring next to nothing.
func TestCVE_2014_0193_ContinuationFlood(t *testing.T) {
	in := frames(mk(text0), "begin")
	for range 300 {
		in = append(in, frames(mk(cont0), strings.Repeat("a", 4000))...)
	}
	hit(t, false, "", in, "1009 message too big")
	in = frames(mk(text0), "begin")
	for range 1200 {
		in = append(in, frames(mk(cont0), "")...)
	}
	hit(t, false, "", in, "1008 too many fragments")
}

// Bandit limited each frame but not the message. Here the limit is on what is
// delivered, however many frames it takes.
func TestCVE_2026_42786_SumOfFragments(t *testing.T) {
	in := frames(mk(bin0), string(seq(1000)))
	for range 16 {
		in = append(in, frames(mk(cont0), string(seq(65536)))...)
	}
	hit(t, false, "", in, "1009 message too big")
}

// hackney's client limited neither the answer to its handshake, nor frames, nor
// their sum. Here all three are.
func TestCVE_2026_47073_ClientWithoutLimits(t *testing.T) {
	answers(t, DialOptions{}, "HTTP/1.1 101 Switching Protocols\r\n"+strings.Repeat("A: b\r\n", 20_000), "server response headers exceeded 65536 bytes")
	hit(t, true, "", announced(bin, 1<<33, "a"), "1009 message too big")
	in := frames(bin0, "")
	for range 20 {
		in = append(in, frames(cont0, string(seq(60_000)))...)
	}
	hit(t, true, "", in, "1009 message too big")
}

// ws kept an object for each fragment, so that fragments of a byte held a hundred
// times their size. Here they are put together, and counted: 1008.
func TestCVE_2026_48779_TinyFragments(t *testing.T) {
	in := frames(mk(text0), "a")
	for range 1500 {
		in = append(in, frames(mk(cont0), "a")...)
	}
	hit(t, false, "", in, "1008 too many fragments")
	in = frames(text0, "a")
	for range 1500 {
		in = append(in, frames(cont0, "a")...)
	}
	hit(t, true, "", in, "1008 too many fragments")
}

// socket.io's parser added parts of a packet to a growing string, in time and
// memory that grow with the square. Here what is taken is in proportion.
func TestCVE_2020_36049_QuadraticReassembly(t *testing.T) {
	cost := func(n int) uint64 {
		in := frames(mk(bin0), "")
		for range n {
			in = append(in, frames(mk(cont0), string(seq(512)))...)
		}
		in = append(in, frames(mk(cont), "")...)
		c, r := rawPeer(t, Params{Config: quiet})
		go r.Write(in)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := c.Read(bg)
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		require.Len(t, m.Data, n*512)
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, n := range []int{500, 1000, 2000} {
		require.Less(t, cost(n), uint64(n*512*8+512<<10))
	}
}

// Endless loops.

// .NET's server went round for ever while it read a single frame that did not
// come whole. Here every beginning of a frame and then the end is an end.
func TestCVE_2021_26423_HalfAFrame(t *testing.T) {
	for _, f := range [][]byte{frames(mk(bin), string(seq(300))), frames(mk(text), ""), announced(mk(bin), 70_000, "abc")} {
		for n := 1; n < min(len(f), 20); n++ {
			hit(t, false, "", f[:n], "unexpected EOF")
		}
	}
}

// libsoup looped, and took memory, over certain patterns of bytes. Here any bytes
// end, the same in every way of driving the connection.
func TestCVE_2024_52532_AnyBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(2024, 52532))
	for range 500 {
		in := make([]byte, 1+r.IntN(200))
		for i := range in {
			in[i] = byte(r.Uint32())
			if i%2 == 0 && r.IntN(2) == 0 {
				in[i] = []byte{0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1, 0xfe, 0xff}[r.IntN(12)]
			}
		}
		var first []string
		for _, way := range []string{"Next", "Serve", "Feed"} {
			for _, c := range handshakeCuts(string(in)) {
				synctest.Test(t, func(t *testing.T) {
					a, b := memnet.Pipe(1 << 16)
					b.Write(bytes.Clone(in))
					b.CloseWrite()
					got := drive(NewConn(&cutConn{Conn: a, cut: c}, Params{Config: quiet, Extensions: "permessage-deflate"}), way)
					if first == nil {
						first = got
					}
					require.Equal(t, first, got, "%x %s %s", in, way, c.name)
					pass(time.Minute)
				})
			}
		}
	}
}

// curl's client went round for ever when it was to answer a server that did not
// read. Here a pong that cannot leave waits, is replaced by the next, and reading
// goes on.
func TestCVE_2025_5399_AnswersThatCannotLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(1 << 20)
		c := NewConn(neverTakes{a}, Params{Client: true, Config: quiet})
		b.Write(frames(ping, "first", text, "first"))
		require.Equal(t, "text first", read(t, c))
		synctest.Wait() // now a write is under way
		var in []byte
		for range 50 {
			in = append(in, frames(ping, strings.Repeat("p", 125))...)
		}
		b.Write(append(in, frames(text, "last")...))
		require.Equal(t, "text last", read(t, c))
		c.out.mu.Lock()
		waiting := len(c.out.buf.b)
		c.out.mu.Unlock()
		require.Less(t, waiting, 2*(MaxHeaderSize+125), "one pong waits")
		_, err := c.Read(bg)
		require.Error(t, err)
		require.Less(t, since(), 20*time.Second, "Config.WriteTimeout")
	})
}

// neverTakes waits in Write until its deadline or its end.
type neverTakes struct{ *memnet.Conn }

func (c neverTakes) Write(p []byte) (int, error) {
	_, err := c.Conn.Write(make([]byte, 2<<20)) // more than fits
	return 0, err
}

// Compression.

var zeroBomb = sync.OnceValue(func() string { return string(flate.Compress(nil, make([]byte, 32<<20), nil, 15)) })

func compressed(h Header) Header { return withRSV(h, rsv1) }

const (
	keepsWindow  = "permessage-deflate"
	resetsWindow = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
)

// uws compared the size of what came with its limit, not of what that inflates
// to: 256 MB passed. Here the limit is on what is delivered: 1009.
func TestCVE_2016_10544_InflatesBeyondLimit(t *testing.T) {
	require.Less(t, len(zeroBomb()), 64<<10)
	for _, terms := range []string{keepsWindow, resetsWindow} {
		hit(t, false, terms, frames(compressed(mk(bin)), zeroBomb()), "1009 message too big")
	}
}

// websockets for Python inflated without a limit. Here memory for a bomb is in
// proportion to the limit, not to the bomb.
func TestCVE_2018_1000518_DecompressionBomb(t *testing.T) {
	in := frames(compressed(mk(bin)), zeroBomb())
	c, r := rawPeer(t, Params{Extensions: keepsWindow, Config: quiet})
	go r.Write(in)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.Read(bg)
	runtime.ReadMemStats(&after)
	require.Equal(t, error(errTooBig), err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20))
}

// undici's client inflated what a server sent without a limit. Here a client has
// the same limits as a server.
func TestCVE_2026_1526_ClientBomb(t *testing.T) {
	for _, terms := range []string{keepsWindow, resetsWindow} {
		hit(t, true, terms, frames(compressed(bin), zeroBomb()), "1009 message too big")
	}
}

// Bandit limited compressed frames only: a bomb in small frames passed. Here each
// inflated chunk counts.
func TestCVE_2026_39804_BombInFragments(t *testing.T) {
	z := zeroBomb()
	in := frames(compressed(mk(bin0)), z[:100])
	for i := 100; i < len(z); i += 100 {
		in = append(in, frames(mk(cont0), z[i:min(i+100, len(z))])...)
	}
	hit(t, false, keepsWindow, in, "1009 message too big")
}

// nats-server inflated before anybody was authenticated, to find the size wrong
// afterwards. Here it stops at the limit, be it small.
func TestCVE_2026_27571_BombBeforeAuthentication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Extensions: keepsWindow, Config: Config{ReadLimit: 4 << 10, KeepAlive: -1}})
		var before, after runtime.MemStats
		r.send(compressed(mk(bin)), zeroBomb()[:30<<10])
		runtime.ReadMemStats(&before)
		_, err := c.Read(bg)
		runtime.ReadMemStats(&after)
		require.Equal(t, error(errTooBig), err)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	})
}

// eventlet had no limit for large frames, nor for highly compressed ones. Here
// both are 1009, and input that inflates to nothing is 1008.
func TestCVE_2021_21419_LargeOrCompressed(t *testing.T) {
	hit(t, false, keepsWindow, announced(compressed(mk(bin)), 1<<30, "x"), "1009 message too big")
	hit(t, false, keepsWindow, frames(compressed(mk(bin)), zeroBomb()), "1009 message too big")
	hit(t, false, keepsWindow, frames(compressed(mk(bin)), strings.Repeat("\x00\x00\x00\xff\xff", 20_000)), "1008 compressed data that yields too little")
}

// undici's client gave zlib a window that the server chose, of any size, and
// died of the exception. Here such an answer is no handshake.
func TestCVE_2026_2229_WindowBits(t *testing.T) {
	for _, bits := range []string{"=0", "=7", "=16", "=99999999999", "=-8", "=08", "=", "=x", `="`, ""} {
		for _, side := range []string{"server", "client"} {
			answers(t, DialOptions{Config: Config{Compression: new(Compression)}},
				edit(t, goodResponse, "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate; "+side+"_max_window_bits"+bits+"\r\n\r\n"),
				"an extension was agreed that was not offered")
		}
	}
}

// Crashes.

// engine.io died of the exception that its receiver threw for RSV2 and RSV3.
// Here it is 1002 for that connection.
func TestCVE_2022_21676_ReservedBits(t *testing.T) {
	for _, rsv := range []byte{rsv2, rsv3, rsv2 | rsv3, 7} {
		for _, h := range []Header{text, bin0, ping, closed} {
			hit(t, false, "", frames(withRSV(mk(h), rsv), "x"), "1002 reserved bit set")
		}
	}
}

// engine.io died of ECONNRESET where nobody listened for it. Here a reset at any
// time ends that connection alone.
func TestCVE_2022_41940_Reset(t *testing.T) {
	in := goodRequest + string(frames(mk(text), "hello", mk(text0), "half"))
	for n := 0; n <= len(in); n += 7 {
		for _, accept := range acceptors {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, lines := serveMem(t, &http.Server{Handler: accept(AcceptOptions{}, &calls)}, nil)
				nc, _ := l.dial(cut{})
				io.WriteString(nc, in[:n])
				synctest.Wait()
				nc.Reset()
				c, err := Dial(bg, "ws://a.example", &DialOptions{Client: l.client(nil)})
				require.NoError(t, err)
				echoes(t, c)
				require.Empty(t, lines.String())
			})
		}
	}
}

// ws died of a request whose Upgrade was among the headers beyond the limit that
// Node dropped. Here what is not there is refused.
func TestCVE_2024_37890_MissingUpgrade(t *testing.T) {
	many := strings.Repeat("x: y\r\n", 3000)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Upgrade: websocket\r\n", many), 426)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Upgrade: websocket\r\n", many+"Upgrade: websocket\r\n"), 101)
	for _, name := range []string{"Upgrade", "Connection", hKey, hVersion, "Host"} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(goodRequest)))
		require.NoError(t, err)
		r.Header[name] = nil
		delete(r.Header, name)
		if name == "Host" {
			r.Host = ""
		}
		require.NotNil(t, checkRequest(r), name)
	}
}

// SockJS's container died of an Upgrade on a path that has none. Here a request
// that is an upgrade in name only gets a status.
func TestCVE_2020_7693_UpgradeInNameOnly(t *testing.T) {
	asked(t, AcceptOptions{}, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 426)
	asked(t, AcceptOptions{}, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 426)
	asked(t, AcceptOptions{}, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n", 400)
	asked(t, AcceptOptions{}, "POST /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", 405)
}

// httpd dereferenced nothing when an upgrade came over HTTP/2. Here it is a 400,
// without a hijack.
func TestCVE_2024_36387_UpgradeOverHTTP2(t *testing.T) {
	for name, accept := range acceptors {
		var calls atomic.Int32
		s := httptest.NewUnstartedServer(accept(AcceptOptions{}, &calls))
		s.EnableHTTP2 = true
		s.StartTLS()
		r, err := http.NewRequest("GET", s.URL, nil)
		require.NoError(t, err)
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", sampleKey)
		resp, err := s.Client().Do(r)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, "HTTP/2.0 400 Bad Request", resp.Proto+" "+resp.Status, name)
		require.Zero(t, calls.Load())
		s.Client().CloseIdleConnections()
		s.Close()
	}
}

// QEMU used a channel after it was freed when the client left in the middle of
// the handshake. Here nothing is left of such a client.
func TestCVE_2025_11234_LeavesInHandshake(t *testing.T) {
	secure, _ := clientTLS(t)
	for _, config := range []*tls.Config{nil, secure} {
		for n := 0; n <= len(goodRequest); n += 5 {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](AcceptOptions{}, &calls)}, config)
				nc, _ := l.dial(cut{})
				io.WriteString(nc, goodRequest[:n])
				nc.Close()
				synctest.Wait() // the bubble's end finds what is left
			})
		}
	}
}

// coder/websocket (nhooyr) closed a channel twice when a peer sent two pongs for
// a ping, and panicked. Here the second is no answer to anything.
func TestClass_CoderTwoPongs(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			go c.Serve(bg, nil)
			done := make(chan error, 1)
			go func() { done <- c.Ping(bg) }()
			f := r.frame()
			h, n := ParseHeader(f)
			require.Equal(t, OpPing, h.Opcode)
			p := string(f[n:])
			r.send(mk(pong), p, mk(pong), p, mk(pong), p, mk(pong), "\xff\xff\xff\xff\xff\xff\xff\xff", mk(pong), strings.Repeat("\x00", 8))
			require.NoError(t, <-done)
			r.send(mk(pong), p, mk(ping), "alive")
			r.expect(pong, "alive")
		})
	}
}

// ws looked extensions up in an object, where "constructor" is always found, and
// called it. Here names are only compared.
func TestClass_WsPrototypeNames(t *testing.T) {
	for _, name := range []string{"constructor", "__proto__", "toString", "hasOwnProperty", ",;constructor", "permessage-deflate; constructor", "permessage-deflate; __proto__=1"} {
		out, _ := asked(t, AcceptOptions{Config: Config{Compression: new(Compression)}, Subprotocols: []string{"chat"}},
			asking("Sec-WebSocket-Extensions: "+name+"\r\nSec-WebSocket-Protocol: "+strings.Trim(name, ",;")), 101)
		require.NotContains(t, out, "Sec-WebSocket-Extensions")
		require.NotContains(t, out, "Sec-WebSocket-Protocol")
	}
}

// Parsing headers.

// websocket-extensions for Node went back and forth over an unclosed string of
// escapes, in time that grows with the square or worse.
func TestCVE_2020_7662_UnclosedString(t *testing.T) {
	out, _ := asked(t, AcceptOptions{Config: Config{Compression: new(Compression)}}, asking(`Sec-WebSocket-Extensions: a;b="`+strings.Repeat(`\c`, 20_000)), 101)
	require.NotContains(t, out, "Sec-WebSocket-Extensions")
	linear(t, "extensions", func(s string) { parseExtensions([]string{s}) }, func(n int) string { return `a;b="` + strings.Repeat(`\c`, n/2) })
}

// The same project's parser for Ruby did too, with the string in any parameter.
// Here the first error ends the parsing.
func TestCVE_2020_7663_UnclosedStringLater(t *testing.T) {
	offer := "permessage-deflate, a; b=c; d=\"" + strings.Repeat(`\"`, 20_000)
	out, _ := asked(t, AcceptOptions{Config: Config{Compression: new(Compression)}}, asking("Sec-WebSocket-Extensions: "+offer), 101)
	require.Contains(t, out, "Sec-WebSocket-Extensions: permessage-deflate; ", "the offer before it is right")
	linear(t, "extensions", func(s string) { parseExtensions([]string{s}) }, func(n int) string { return `x, a; b=c; d="` + strings.Repeat(`\"`, n/2) })
}

// ws split Sec-WebSocket-Protocol by an expression that takes the square of the
// blanks in it.
func TestCVE_2021_32640_SubprotocolRegexp(t *testing.T) {
	asked(t, AcceptOptions{Subprotocols: []string{"chat"}}, asking("Sec-WebSocket-Protocol: b"+strings.Repeat(" ", 50_000)+"x"), 101)
	linear(t, "subprotocols", func(s string) { selectSubprotocol([]string{"chat"}, []string{s}) }, func(n int) string { return "b" + strings.Repeat(" ", n) + "x" })
}

// Deno split Upgrade and Connection by such an expression.
func TestCVE_2023_26103_UpgradeRegexp(t *testing.T) {
	blanks := strings.Repeat(" ", 50_000)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Upgrade: websocket", "Upgrade: a"+blanks+"x, websocket"), 101)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Connection: Upgrade", "Connection: a"+blanks+"x"+strings.Repeat(",", 1000)+"y"), 426)
	linear(t, "tokens", func(s string) { hasToken([]string{s}, "websocket") }, func(n int) string { return "a" + strings.Repeat(" ", n) + "x" })
}

// tungstenite parsed the header again with every piece that came, with no limit
// on its size. Here a client stops at 64 KiB, and reads each byte once.
func TestCVE_2023_43669_HeaderCPU(t *testing.T) {
	answers(t, DialOptions{}, "HTTP/1.1 101 Switching Protocols\r\nA: "+strings.Repeat("a", 200_000), "server response headers exceeded 65536 bytes")
}

// Node had 431 for no header, so that 80 KB of them were read and kept for each
// connection. http.Server.MaxHeaderBytes limits them: TestAttackHeaders.
func TestCVE_2018_12121_LargeHeaders(t *testing.T) {
	_, n := asked(t, AcceptOptions{}, asking(strings.Repeat("Aaaaaaaa: a\r\n", 150_000)+"B: c"), 431)
	require.Less(t, n, int64(1<<20+64<<10))
}

// Node let a client send headers as slowly as it liked. ReadHeaderTimeout, which
// the manual asks for, ends it: TestAttackSlowloris has hundreds.
func TestCVE_2018_12122_SlowHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		l, _ := serveMem(t, &http.Server{Handler: acceptors["Accept"](AcceptOptions{}, &calls), ReadHeaderTimeout: handshakeTimeout}, nil)
		nc, _ := l.dial(cut{})
		go func() {
			for i := range goodRequest {
				if _, err := nc.Write([]byte(goodRequest[i : i+1])); err != nil {
					return
				}
				pass(time.Second)
			}
		}()
		start := time.Now()
		_, err := io.ReadAll(nc)
		require.NoError(t, err)
		require.Equal(t, handshakeTimeout, time.Since(start))
		require.Zero(t, calls.Load())
		pass(time.Minute)
	})
}

// Smuggling.

// Kubernetes kept a connection as a tunnel after the upgrade had failed: what
// followed was not looked at. Here it is closed after the answer.
func TestCVE_2018_1002105_TunnelAfterRefusal(t *testing.T) {
	for _, c := range [][]string{{"Upgrade: websocket", "Upgrade: x"}, {": 13", ": 12"}, {sampleKey, "x"}, {"GET", "POST"}} {
		in := edit(t, goodRequest, c...)
		for name := range acceptors {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				l, _ := serveMem(t, &http.Server{Handler: acceptors[name](AcceptOptions{}, &calls)}, nil)
				head, rest := l.exchange(t, cut{}, nil, in+goodRequest+string(frames(mk(text), "smuggled")))
				require.Contains(t, head, "\r\nConnection: close\r\n")
				require.NotContains(t, rest, "HTTP/1.1")
				require.Zero(t, calls.Load())
			})
		}
	}
}

// httpd's proxy tunnelled although the server had not upgraded. Here a client
// sends nothing after any answer but a right 101, and gives its body to the caller
// only as what it is.
func TestCVE_2019_17567_TunnelWithoutUpgrade(t *testing.T) {
	for _, status := range []string{"200 OK", "400 Bad Request", "426 Upgrade Required"} {
		answers(t, DialOptions{}, edit(t, goodResponse, "101 Switching Protocols", status, "\r\n\r\n", "\r\nContent-Length: 7\r\n\r\n\x81\x05hello"),
			"the server did not switch protocols ("+status[:3]+")")
	}
}

// Vert.x read a handshake's whole body into memory before it answered. Here a
// request with a body is refused unread, and no frame is found in it.
func TestCVE_2018_12541_RequestBody(t *testing.T) {
	body := string(frames(mk(text), "smuggled"))
	_, n := asked(t, AcceptOptions{}, asking(fmt.Sprint("Content-Length: ", 1<<30))+body+strings.Repeat("a", 1<<20), 400)
	require.Less(t, n, int64(400<<10))
	asked(t, AcceptOptions{}, asking(fmt.Sprint("Content-Length: ", len(body)))+body, 400)
	asked(t, AcceptOptions{}, asking("Transfer-Encoding: chunked")+"3\r\nabc\r\n0\r\n\r\n", 400)
}

// HAProxy took no notice of a Transfer-Encoding with a vertical tab in it, which
// others did. Here it is refused.
func TestCVE_2019_18277_ObfuscatedTransferEncoding(t *testing.T) {
	for v, status := range map[string]int{"\x0bchunked": 400, "\x0cchunked": 400, "chunked\x0b": 400, "xchunked": 501, "chunked, identity": 501, "identity": 501} {
		asked(t, AcceptOptions{}, asking("Transfer-Encoding: "+v)+"0\r\n\r\n", status)
	}
}

// Twisted took the last of two Content-Lengths, where others take the first.
func TestCVE_2020_10108_TwoContentLengths(t *testing.T) {
	asked(t, AcceptOptions{}, asking("Content-Length: 0\r\nContent-Length: 5")+"hello", 400)
	asked(t, AcceptOptions{}, asking("Content-Length: 5\r\nContent-Length: 0")+"hello", 400)
	asked(t, AcceptOptions{}, asking("Content-Length: 0, 5")+"hello", 400)
}

// Twisted took Content-Length where there was a Transfer-Encoding too, and the
// rest of the body for another request.
func TestCVE_2020_10109_LengthAndChunks(t *testing.T) {
	asked(t, AcceptOptions{}, asking("Content-Length: 0\r\nTransfer-Encoding: chunked")+"5\r\nhello\r\n0\r\n\r\n", 400)
	asked(t, AcceptOptions{}, asking("Transfer-Encoding: chunked\r\nContent-Length: 0")+goodRequest, 400)
}

// Node's parser took a blank between a header's name and its colon, which others
// take for a part of the name.
func TestCVE_2021_22959_BlankBeforeColon(t *testing.T) {
	asked(t, AcceptOptions{}, asking("Content-Length : 5")+"hello", 400)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Upgrade:", "Upgrade :"), 400)
	asked(t, AcceptOptions{}, edit(t, goodRequest, "Host:", "Host :"), 400)
}

// hyper took a Content-Length with a plus sign, which others refuse or take for
// none.
func TestCVE_2021_32715_SignedContentLength(t *testing.T) {
	for _, v := range []string{"+5", "-5", "0x5", "5 5", "5,5x", "٥"} {
		asked(t, AcceptOptions{}, asking("Content-Length: "+v)+"hello", 400)
	}
}

// Injection.

// injected has a middleware set a header to value, and wants a 500 without a
// trace of it.
func injected(t *testing.T, name, value string) {
	t.Helper()
	for way, accept := range acceptors {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			inner := accept(AcceptOptions{}, &calls)
			l, _ := serveMem(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header()[name] = []string{value}
				inner.ServeHTTP(w, r)
			})}, nil)
			head, rest := l.exchange(t, cut{}, nil, goodRequest)
			require.Regexp(t, "^HTTP/1.1 500 ", head, way)
			require.NotRegexp(t, `[\r\n]Injected`, head)
			require.Equal(t, "Internal Server Error\n", rest)
			require.Zero(t, calls.Load())
		})
	}
}

// Tornado's set_header let line ends through.
func TestCVE_2012_2374_HeaderValue(t *testing.T) {
	injected(t, "X-A", "b\r\nInjected: c")
}

// Puma let a line feed, or a carriage return alone, through in what it was given.
func TestCVE_2020_5247_LoneLineEnds(t *testing.T) {
	injected(t, "X-A", "b\nInjected: c")
	injected(t, "X-A", "b\rInjected: c")
}

// uvicorn wrote names and values as they were, and with them another response.
func TestCVE_2020_7695_ResponseSplitting(t *testing.T) {
	injected(t, "X-A\r\nInjected", "c")
	injected(t, "X-A", "b\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nInjected: c\r\n\r\n")
}

// SwiftNIO checked no header of a response for line ends: not those of a program
// that knows it answers a handshake either. Here those are refused just so.
func TestCVE_2022_3215_HandshakeHeader(t *testing.T) {
	for _, h := range []http.Header{{"X-A": {"b\r\nInjected: c"}}, {"X-A\nInjected": {"c"}}, {"X-A": {"fine", "b\x00"}}, {"Set-Cookie": {"a=b\r\n\r\n"}}} {
		out, _ := askedOnce(t, AcceptOptions{Header: h})
		require.Regexp(t, "^HTTP/1.1 500 ", out)
		require.NotContains(t, out, "Injected")
	}
}

// askedOnce is the answer to the good request.
func askedOnce(t *testing.T, o AcceptOptions) (out string, calls int32) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		l, _ := serveMem(t, &http.Server{Handler: acceptors["Server"](o, &n)}, nil)
		head, rest := l.exchange(t, cut{}, nil, goodRequest)
		out, calls = head+"\r\n"+rest, n.Load()
	})
	return out, calls
}

// Autobahn's redirect put a part of the request's URL into a header unchecked.
// Here nothing of a request stands in an answer but the hash of its key, and a
// subprotocol that is the server's own.
func TestCVE_2020_35678_RequestInAnswer(t *testing.T) {
	const mark = "MARK"
	in := "GET /" + mark + "%0d%0aInjected:x?redirect=" + mark + "%0d%0aInjected:x HTTP/1.1\r\nHost: " + mark + "\r\nUpgrade: websocket, " + mark +
		"\r\nConnection: Upgrade, " + mark + "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\nSec-WebSocket-Protocol: " + mark +
		"\r\nSec-WebSocket-Extensions: " + mark + "\r\nUser-Agent: " + mark + "\r\nX: " + mark + "\r\n\r\n"
	for request, status := range map[string]int{in: 101, strings.Replace(in, sampleKey, mark, 1): 400, strings.Replace(in, ": 13", ": "+mark, 1): 426, strings.Replace(in, "GET", mark, 1): 405} {
		out, _ := asked(t, AcceptOptions{Config: Config{Compression: new(Compression)}}, request, status)
		require.NotContains(t, out, mark)
		require.NotContains(t, out, "Injected")
	}
}

// uvicorn logged what a client had sent as it was, with the escape sequences that
// a terminal obeys. Here an error text is one line of printable ASCII.
func TestCVE_2020_7694_LogInjection(t *testing.T) {
	evil := "\x1b]0;title\x07\x1b[2J\r\nforged"
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{Config: quiet})
		r.send(mk(closed), closeFrame(4000, evil))
		_, err := c.Read(bg)
		require.Equal(t, `websocket: closed by the peer: 4000 "\x1b]0;title\a\x1b[2J\r\nforged"`, err.Error())
	})
	r := &http.Request{Method: "GET", Host: "a", Header: http.Header{"Origin": {evil}}}
	_, err := Accept(&hijackable{h: make(http.Header)}, r, nil)
	require.Equal(t, `websocket: handshake failed: origin not allowed: "\x1b]0;title\a\x1b[2J\r\nforged" (403)`, err.Error())
}

// Python's urllib took a URL with line ends in its query, and sent them. Here such
// a URL is refused before anything is dialed.
func TestCVE_2019_9740_URLWithLineEnds(t *testing.T) {
	nowhere := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("dialed") })}
	for _, u := range []string{"ws://a/?q=\r\nX: y", "ws://a/\nX: y", "ws://a\r\n/", "ws://a/?q=a HTTP/1.1", "ws://u\r\n@a/", "ws://a/\x00", "ws://a/?\x7f", "\r\nws://a/"} {
		_, err := Dial(bg, u, &DialOptions{Client: nowhere})
		require.Error(t, err, "%q", u)
	}
}

// Go's http.Client sent a Host as it was given, with another header in it if it
// had one. Here it has to be a host.
func TestCVE_2023_29406_HostHeader(t *testing.T) {
	nowhere := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("dialed") })}
	for _, host := range []string{"a\r\nX: y", "a\nX: y", "a b", "a/b", "a\x00", "a@b", ""} {
		_, err := Dial(bg, "ws://a.example", &DialOptions{Client: nowhere, Header: http.Header{"Host": {host}}})
		require.ErrorContains(t, err, "cannot be sent", "%q", host)
	}
}

// Origins.

// origins wants a handshake at host from pages of these origins refused.
func crossSite(t *testing.T, o AcceptOptions, host string, origins ...string) {
	t.Helper()
	for _, origin := range origins {
		out, _ := asked(t, o, edit(t, asking("Origin: "+origin+"\r\nCookie: session=secret"), "server.example.com", host), 403)
		require.Contains(t, out, "\r\n\r\norigin not allowed\n")
	}
}

// python-engineio did not look at Origin. Here a page of another site is refused
// without being asked for.
func TestCVE_2019_13611_NoOriginCheck(t *testing.T) {
	crossSite(t, AcceptOptions{}, "engine.example", "https://evil.example", "http://evil.example", "null")
}

// socket.io let every site in unless told otherwise. Here the zero options let in
// the request's own.
func TestCVE_2020_28481_AllOriginsByDefault(t *testing.T) {
	crossSite(t, AcceptOptions{}, "app.example", "https://evil.example", "https://sub.app.example", "https://app.example:444")
	asked(t, AcceptOptions{}, edit(t, asking("Origin: https://app.example"), "server.example.com", "app.example"), 101)
}

// uncurl looked for the allowed host anywhere in the Origin. Here hosts are
// compared whole.
func TestCVE_2018_6651_OriginSubstring(t *testing.T) {
	o := AcceptOptions{Origins: []string{"parsec.example"}}
	crossSite(t, o, "localhost:5309", "https://parsec.example.evil.example", "https://evilparsec.example", "https://evil.example?parsec.example",
		"https://parsec.example@evil.example", "https://evil.example#parsec.example", "https://parsec.example:1234")
	asked(t, o, asking("Origin: https://parsec.example"), 101)
}

// Phoenix let the hosts of "*.example.com" in that merely end alike. Here the dot
// is a part of it.
func TestCVE_2022_42975_OriginWildcard(t *testing.T) {
	o := AcceptOptions{Origins: []string{"*.example.com"}}
	crossSite(t, o, "api.test", "https://evilexample.com", "https://example.com", "https://example.com.evil.test", "https://.example.com", "https://a.example.comevil.test")
	asked(t, o, asking("Origin: https://a.b.example.com"), 101)
}

// webpack-dev-server let any page talk to the developer's localhost. Here the
// host and the port have to be the request's own.
func TestCVE_2018_14732_DevelopersLocalhost(t *testing.T) {
	crossSite(t, AcceptOptions{}, "localhost:8080", "https://evil.example", "http://localhost:3000", "http://localhost", "http://127.0.0.1:8080")
}

// webpack-dev-server then let every page in whose host is an IP address. Here an
// address is a host like any other.
func TestCVE_2025_30360_OriginIsAnAddress(t *testing.T) {
	crossSite(t, AcceptOptions{}, "localhost:8080", "http://203.0.113.7", "http://203.0.113.7:8080", "http://[2001:db8::1]:8080", "http://[::1]:8080")
}

// code-server did not compare the Origin with the host that was asked. Here an
// Origin that is no origin is refused as well.
func TestCVE_2023_26114_OriginIsNotTheHost(t *testing.T) {
	crossSite(t, AcceptOptions{}, "code.example:8443", "https://evil.example:8443", "https://code.example", "code.example:8443", "https://code.example:8443/", "https://", "//code.example:8443")
}

// Jenkins took the cookie of whoever visits another site for a login on its
// command line. Here that request never reaches the application.
func TestCVE_2024_23898_CookieOfAnotherSite(t *testing.T) {
	crossSite(t, AcceptOptions{}, "ci.example", "https://evil.example", "http://ci.example.evil.example", "null")
	asked(t, AcceptOptions{}, asking("Cookie: session=secret"), 101) // no Origin: no browser
}

// Clients.

// Firefox's WebSockets let a page choose the bytes that a proxy sees, and poison
// its cache with them. Here a client masks everything, with keys nobody knows.
func TestCVE_2010_4508_ProxyPoisoning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const poison = "GET /jquery.js HTTP/1.1\r\nHost: victim.example\r\n\r\n"
		a, b := memnet.Pipe(1 << 20)
		c := NewConn(a, Params{Client: true, Config: quiet})
		for range 500 {
			require.NoError(t, c.Write(bg, Text(poison)))
			require.NoError(t, c.Write(bg, Prepare(Text(poison))))
		}
		w, err := c.Writer(bg, MessageText)
		require.NoError(t, err)
		io.WriteString(w, strings.Repeat(poison, 300))
		require.NoError(t, w.Close())
		c.CloseNow()
		out, err := io.ReadAll(b)
		require.NoError(t, err)
		require.NotContains(t, string(out), "GET /jquery.js")
		require.NotContains(t, string(out), "victim.example")
	})
	hit(t, false, "", frames(text, "unmasked"), "1002 unmasked frame from a client")
}

// curl masked all frames of a connection with one key, so that a server could
// choose what a proxy sees. Here each frame has a key of its own.
func TestCVE_2025_10148_ConstantMask(t *testing.T) {
	seen := map[uint32]int{}
	for range 20 {
		sink := new(keyCatcher)
		c := NewConn(sink, Params{Client: true, Config: quiet})
		for range 50 {
			require.NoError(t, c.Write(bg, Binary(nil)))
		}
		c.CloseNow()
		require.Len(t, sink.keys, 50)
		for _, k := range sink.keys {
			seen[k]++
		}
	}
	require.Greater(t, len(seen), 990)
}

// Faye's client did not verify certificates. Here one that nobody trusts ends the
// handshake before anything is sent.
func TestCVE_2020_15134_NoVerification(t *testing.T) {
	var requests atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	s.Config.ErrorLog = nothing()
	s.StartTLS()
	defer s.Close()
	for _, o := range []*DialOptions{nil, {}, {Client: new(http.Client)}, {Client: &http.Client{Transport: new(http.Transport)}}} {
		_, err := Dial(within(t), s.URL, o)
		require.ErrorContains(t, err, "certificate signed by unknown authority")
	}
	require.Zero(t, requests.Load())
}

// Java-WebSocket did not compare the certificate's name with the host's.
func TestCVE_2020_11050_HostnameVerification(t *testing.T) {
	_, roots := certificate(t)
	s := httptest.NewUnstartedServer(&Server{Handler: echo})
	s.Config.ErrorLog = nothing()
	s.StartTLS()
	defer s.Close()
	client := trusting(roots)
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}
	_, err := Dial(within(t), "wss://bank.example", &DialOptions{Client: client})
	require.ErrorContains(t, err, "certificate is valid for example.com, *.example.com, not bank.example")
	c, err := Dial(within(t), "wss://example.com", &DialOptions{Client: client})
	require.NoError(t, err)
	echoes(t, c)
}

// Tomcat's client did neither, through a proxy too.
func TestCVE_2018_8034_HostnameThroughProxy(t *testing.T) {
	_, roots := certificate(t)
	s := httptest.NewUnstartedServer(&Server{Handler: echo})
	s.Config.ErrorLog = nothing()
	s.StartTLS()
	defer s.Close()
	_, u := startProxy(t, "http", s.Listener.Addr().String(), "")
	client := trusting(roots)
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(u)
	_, err := Dial(within(t), "wss://bank.example", &DialOptions{Client: client})
	require.ErrorContains(t, err, "not bank.example")
}

// redirected follows hops from a.example, and returns the credentials that each
// host was sent.
func redirected(t *testing.T, hops map[string]string) (got []string) {
	synctest.Test(t, func(t *testing.T) {
		a := &answerer{script: func(nc net.Conn, r *http.Request) {
			var names []string
			for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization", "X-Own"} {
				if r.Header.Get(name) != "" {
					names = append(names, name)
				}
			}
			got = append(got, r.Host+r.URL.Path+" "+strings.Join(names, " "))
			if to, ok := hops[r.Host+r.URL.Path]; ok {
				io.WriteString(nc, "HTTP/1.1 302 Found\r\nLocation: "+to+"\r\nContent-Length: 0\r\n\r\n")
				return
			}
			io.WriteString(nc, answering(r, goodResponse))
			io.Copy(io.Discard, nc)
		}}
		c, err := Dial(within(t), "ws://a.example/", &DialOptions{Client: a.client(nil), Header: http.Header{
			"Authorization": {"Bearer secret"}, "Cookie": {"session=secret"}, "Proxy-Authorization": {"Basic secret"}, "X-Own": {"1"}}})
		require.NoError(t, err)
		c.CloseNow()
	})
	return got
}

// Kubernetes followed the redirect of an upgrade to another host, credentials and
// all. Here they stay with the first.
func TestCVE_2020_8559_RedirectedUpgrade(t *testing.T) {
	require.Equal(t, []string{"a.example/ Authorization Cookie Proxy-Authorization X-Own", "b.example/x X-Own"},
		redirected(t, map[string]string{"a.example/": "http://b.example/x"}))
}

// Go's http.Client gave credentials that it had dropped at another host back at
// the next hop there. Here they are gone for good, and back at home too.
func TestCVE_2024_45336_CredentialsComeBack(t *testing.T) {
	require.Equal(t, []string{"a.example/ Authorization Cookie Proxy-Authorization X-Own", "b.example/1 X-Own", "b.example/2 X-Own", "a.example/3 X-Own"},
		redirected(t, map[string]string{"a.example/": "http://b.example/1", "b.example/1": "/2", "b.example/2": "http://a.example/3"}))
	require.Equal(t, []string{"a.example/ Authorization Cookie Proxy-Authorization X-Own", "sub.a.example/1 X-Own", "a.example/2 X-Own"},
		redirected(t, map[string]string{"a.example/": "http://sub.a.example/1", "sub.a.example/1": "http://a.example/2"}))
}

// Go's http.Client kept Proxy-Authorization when it was redirected to another
// site; subdomains and other ports are other servers here, too.
func TestCVE_2025_4673_ProxyAuthorization(t *testing.T) {
	for _, to := range []string{"http://b.example/x", "http://sub.a.example/x", "http://a.example:8080/x"} {
		got := redirected(t, map[string]string{"a.example/": to})
		require.Equal(t, strings.TrimPrefix(to, "http://")+" X-Own", got[1])
	}
}

// Go matched the zone of an IPv6 address against the hosts that go past the
// proxy. Here a host with a zone is refused.
func TestCVE_2025_22870_ZoneOfAnAddress(t *testing.T) {
	for _, u := range []string{"ws://[::1%25.example.com]/", "ws://[::1%25.example.com]:80/", "wss://[fe80::1%25eth0]/"} {
		_, err := Dial(bg, u, &DialOptions{Client: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("dialed") })}})
		require.ErrorContains(t, err, "websocket: URL host", u)
	}
	asked(t, AcceptOptions{}, edit(t, goodRequest, "server.example.com", "[::1%25.example.com]"), 400)
}

// Go's URLs had other things than IPv6 addresses in brackets. Here they are
// neither dialed nor accepted.
func TestCVE_2025_47912_BracketedHost(t *testing.T) {
	for _, host := range []string{"[a.example]", "[127.0.0.1]", "[localhost]:80", "[]", "[::1]x"} {
		_, err := Dial(bg, "ws://"+host+"/", &DialOptions{Client: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { panic("dialed") })}})
		require.Error(t, err, host)
		asked(t, AcceptOptions{}, edit(t, goodRequest, "server.example.com", host), 400)
	}
}

// Lifetime and memory.

// ws sent memory that was never written to when it was given a number for a
// ping's payload. Here a ping's payload is a counter, and a keepalive has none.
func TestCVE_2016_10518_PingPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := rawPeer(t, Params{})
		go c.Serve(bg, nil)
		go c.Ping(bg)
		r.expect(ping, "\x00\x00\x00\x00\x00\x00\x00\x01")
		r.send(mk(pong), "\x00\x00\x00\x00\x00\x00\x00\x01")
		r.expect(ping, "")
	})
}

// ws sent such memory as the reason of a close frame. Here the frame has the code
// and the reason, and nothing behind them; pools are full of other things.
func TestCVE_2026_45736_CloseReason(t *testing.T) {
	for _, reason := range []string{"", "bye", strings.Repeat("r", 123), strings.Repeat("€", 50), "\xff\xfe"} {
		synctest.Test(t, func(t *testing.T) {
			for range 4 {
				b := borrow(1)
				b.b = append(b.b, strings.Repeat("secret", 50)...)
				b.release()
			}
			c, r := rawPeer(t, Params{Config: quiet})
			go c.Close(1000, reason)
			r.expect(closed, closeFrame(1000, reason))
			c.CloseNow()
			r.expectEOF()
		})
	}
}

// QEMU kept what a client that reads slowly had made it produce. Here answers to
// such a client are one pong, and WriteTimeout ends it.
func TestCVE_2017_15268_SlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(100)
		c := NewConn(a, Params{Config: quiet})
		go func() {
			for {
				if _, err := b.Write(frames(mk(ping), strings.Repeat("p", 125))); err != nil {
					return
				}
			}
		}()
		require.Error(t, c.Serve(bg, nil))
		require.Less(t, since(), 30*time.Second)
		b.Close()
	})
}

// ws for Rust let what waits to be sent grow without a limit. Here QueueLimit is
// one, for messages and for what Write brings.
func TestCVE_2020_35896_OutgoingBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memnet.Pipe(1)
		c := NewConn(a, Params{Config: Config{QueueLimit: 10_000, KeepAlive: -1}})
		defer c.CloseNow()
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			err = c.Post(Binary(seq(100)))
		}
		require.ErrorIs(t, err, ErrQueueFull)
		require.LessOrEqual(t, n*100, 10_000+200)
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		require.ErrorIs(t, c.Write(ctx, Binary(seq(100))), context.DeadlineExceeded)
	})
}

// Undertow lost a buffer with every pong. Here any number of them leaves nothing
// behind.
func TestCVE_2021_3690_PongLeak(t *testing.T) {
	c, r := rawPeer(t, Params{Config: quiet})
	flood := frames(mk(pong), strings.Repeat("p", 125), mk(pong), "", mk(pong), "12345678")
	flood = bytes.Repeat(flood, 1000)
	round := func() {
		go r.Write(append(bytes.Clone(flood), frames(mk(text), "done")...))
		require.Equal(t, "text done", read(t, c))
	}
	round()
	before := held()
	for range 20 {
		round()
	}
	require.Less(t, held()-before, int64(2<<20))
}

// Tomcat kept an object for each upgraded connection for ever. Here nothing
// refers to a connection that has ended.
func TestCVE_2021_42340_LeakAfterClose(t *testing.T) {
	const n = 20
	var freed atomic.Int32
	s := &Server{Handler: func(ctx context.Context, c *Conn) {
		runtime.AddCleanup(c, func(*atomic.Int32) { freed.Add(1) }, nil)
		echo(ctx, c)
	}}
	hs := httptest.NewServer(s)
	defer hs.Close()
	for i := range n {
		c, err := Dial(within(t), hs.URL, nil)
		require.NoError(t, err)
		if i%2 == 0 {
			echoes(t, c)
		} else {
			c.CloseNow()
		}
	}
	require.NoError(t, s.Shutdown(within(t)))
	require.Eventually(t, func() bool {
		runtime.GC()
		return freed.Load() >= n/2 // some may still lie on a stack
	}, 10*time.Second, time.Millisecond)
}

// Tomcat put a buffer into its pool twice when a message was sent while the
// connection closed, and two connections then shared it. Here, whatever the order,
// nobody reads what is another's.
func TestCVE_2022_25762_WriteDuringClose(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			own := byte('a' + i)
			for round := range 40 {
				a, b := memnet.Pipe(100) // a write takes a while
				server, client := NewConn(a, Params{Config: quiet}), NewConn(b, Params{Client: true, Config: quiet})
				var writers sync.WaitGroup
				for range 3 {
					writers.Go(func() {
						for server.Write(bg, Binary(bytes.Repeat([]byte{own}, 400))) == nil {
						}
					})
				}
				for n := 0; ; n++ {
					m, err := client.Read(bg)
					if err != nil {
						break
					}
					if !bytes.Equal(bytes.Repeat([]byte{own}, 400), m.Data) {
						t.Errorf("%q: %q", own, m.Data)
					}
					if n == 3 {
						if round%2 == 0 {
							go server.Close(1000, "")
						} else {
							go server.CloseNow() // in the middle of a write
						}
					}
				}
				client.CloseNow()
				server.CloseNow()
				writers.Wait()
			}
		})
	}
	wg.Wait()
}

// Tomcat's clients could keep a connection half closed, and with it all that it
// holds. Here Close waits for CloseTimeout, whatever the peer goes on sending.
func TestCVE_2024_23672_NeverCloses(t *testing.T) {
	for _, chatty := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, r := rawPeer(t, Params{Config: quiet})
			go io.Copy(io.Discard, r.Conn)
			go func() {
				for chatty {
					if _, err := r.Write(frames(mk(text), "still here")); err != nil {
						return
					}
					pass(100 * time.Millisecond)
				}
			}()
			err := c.Close(1000, "")
			require.ErrorIs(t, err, errCloseSlow)
			require.LessOrEqual(t, since(), 6*time.Second)
			<-c.Context().Done()
			r.Close()
			pass(time.Second)
		})
	}
}
