package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// RFC 7692 section 7.1, attack row A26, conformance cases 20.7: what a server
// answers to an offer. "-" is no extension.
func TestAgree(t *testing.T) {
	full := Compression{Takeover: true}
	small := Compression{Takeover: true, WindowBits: 10}
	const pd = "permessage-deflate"
	const none = "; server_no_context_takeover; client_no_context_takeover"
	for _, c := range []struct {
		offer  string
		z      Compression
		answer string
	}{
		{"", full, "-"},
		{pd, full, pd},
		{pd, Compression{}, pd + none},
		{pd, small, pd + "; client_no_context_takeover; server_max_window_bits=10"},
		{"  permessage-deflate ; client_max_window_bits", full, pd},
		{pd + "; client_max_window_bits", small, pd + "; server_max_window_bits=10; client_max_window_bits=10"},
		{pd + "; client_max_window_bits=8", small, pd + "; server_max_window_bits=10; client_max_window_bits=8"},
		{pd + "; client_max_window_bits=12", full, pd + "; client_max_window_bits=12"},
		{pd + "; server_max_window_bits=8", full, pd + "; server_max_window_bits=8"},
		{pd + "; server_max_window_bits=15", full, pd + "; server_max_window_bits=15"},
		{pd + "; server_max_window_bits=12", Compression{WindowBits: 9}, pd + none + "; server_max_window_bits=9"},
		{pd + `; server_max_window_bits="10"`, full, pd + "; server_max_window_bits=10"},
		{pd + "; server_no_context_takeover", full, pd + "; server_no_context_takeover"},
		{pd + "; client_no_context_takeover", full, pd + "; client_no_context_takeover"},
		{"x-unknown, " + pd, full, pd},
		{"x-unknown\n" + pd, full, pd},
		{pd + "; x=1, " + pd, full, pd},
		{pd + "; server_max_window_bits=7," + pd + "; server_no_context_takeover," + pd, full, pd + "; server_no_context_takeover"},
		{"x-unknown", full, "-"},
		{"PERMESSAGE-DEFLATE", full, "-"},
		{pd + "; x=1", full, "-"},
		{pd + "; server_max_window_bits", full, "-"},
		{pd + "; server_max_window_bits=7", full, "-"},
		{pd + "; server_max_window_bits=16", full, "-"},
		{pd + "; server_max_window_bits=08", full, "-"},
		{pd + "; server_max_window_bits=abc", full, "-"},
		{pd + "; server_max_window_bits=-9", full, "-"},
		{pd + "; server_max_window_bits=", full, "-"},
		{pd + `; server_max_window_bits="10`, full, "-"},
		{pd + "; client_max_window_bits=16", full, "-"},
		{pd + "; client_max_window_bits=0", full, "-"},
		{pd + "; server_no_context_takeover=1", full, "-"},
		{pd + "; client_no_context_takeover=true", full, "-"},
		{pd + "; client_max_window_bits; client_max_window_bits", full, "-"},
		{pd + ";;", full, "-"},
		{pd + "; =5", full, "-"},
		{pd + " junk", full, "-"},
		{"\x00" + pd, full, "-"},
		{",, ," + pd + ",", full, pd},
		{strings.Repeat("x,", 16) + pd, full, "-"}, // A17
		{pd + strings.Repeat("; x", 5000), full, "-"},
	} {
		h := http.Header{}
		for line := range strings.SplitSeq(c.offer, "\n") {
			h.Add(hExtensions, line)
		}
		got := "-"
		if t, ok := c.z.withDefaults().agree(h); ok {
			got = t.String()
		}
		require.Equal(t, c.answer, got, "%.100q", c.offer)
	}
}

// RFC 7692 section 7.1, conformance cases 20.8: which answers a client lives
// with, and on what terms.
func TestAcceptTerms(t *testing.T) {
	full := Compression{Takeover: true}.withDefaults()
	small := Compression{WindowBits: 9}.withDefaults()
	require.Equal(t, "permessage-deflate; client_max_window_bits", full.offer())
	require.Equal(t, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "+
		"server_max_window_bits=9; client_max_window_bits=9", small.offer())
	const pd = "permessage-deflate"
	for _, c := range []struct {
		answer string
		z      Compression
		want   string
	}{
		{pd, full, "server keeps 15, client keeps 15"},
		{pd, small, "server keeps 15, client resets 9"},
		{pd + "; server_no_context_takeover; server_max_window_bits=10", full, "server resets 10, client keeps 15"},
		{pd + "; client_no_context_takeover; client_max_window_bits=8", full, "server keeps 15, client resets 8"},
		{pd + "; server_max_window_bits=8; server_no_context_takeover", small, "server resets 8, client resets 9"},
		{pd + "; server_max_window_bits=12", small, "-"},
		{pd + "; client_max_window_bits=10", small, "-"},
		{pd + "; client_max_window_bits", full, "-"},
		{pd + "; server_max_window_bits", full, "-"},
		{pd + "; server_max_window_bits=7", full, "-"},
		{pd + "; server_no_context_takeover=1", full, "-"},
		{pd + "; server_no_context_takeover; server_no_context_takeover", full, "-"},
		{pd + "; x=1", full, "-"},
		{pd + ", " + pd, full, "-"},
		{"x-unknown", full, "-"},
	} {
		got := "-"
		if terms, ok := c.z.accept(http.Header{hExtensions: {c.answer}}); ok {
			got = "server " + describe(terms.server) + ", client " + describe(terms.client)
		}
		require.Equal(t, c.want, got, c.answer)
	}
}

// zipped returns a server and a client that agreed on t, and what went over the
// wire.
func zipped(t testing.TB, terms string, threshold int) (s, c *Conn, wire *tap) {
	cfg := quiet
	cfg.Compression = &Compression{Threshold: threshold}
	cfg.ReadLimit = 4 << 20
	a, b := memnet.Pipe(1 << 20)
	wire = &tap{Conn: a}
	s = NewConn(wire, Params{Extensions: terms, Config: cfg})
	c = NewConn(b, Params{Client: true, Extensions: terms, Config: cfg})
	t.Cleanup(func() { s.CloseNow(); c.CloseNow() })
	return s, c, wire
}

// A tap counts what is written.
type tap struct {
	net.Conn
	mu  sync.Mutex
	out []byte
}

func (w *tap) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.out = append(w.out, p...)
	w.mu.Unlock()
	return w.Conn.Write(p)
}

// taken returns what was written since the last call.
func (w *tap) taken() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.out
	w.out = nil
	return out
}

var agreements = []string{
	"permessage-deflate",
	"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
	"permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
	"permessage-deflate; server_no_context_takeover; server_max_window_bits=8; client_max_window_bits=8",
}

// Messages of all kinds, compressed and not, arrive as they were sent, in every
// way to send and to read, on all terms.
func TestCompressedMessages(t *testing.T) {
	json := strings.Repeat(`{"id":12345,"name":"a name","tags":["x","y","z"]},`, 200)
	noise := make([]byte, 3000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	var all []Message
	for _, n := range []int{0, 1, 10, 255, 256, 1000, len(json)} {
		all = append(all, Text(json[:n]), Binary(noise[:min(n, len(noise))]))
	}
	all = append(all, Message{Type: MessageText, Data: []byte(json), Plain: true}, Text(strings.Repeat("Grüße, 世界! ", 30_000)))
	for _, terms := range agreements {
		for _, prepared := range []bool{false, true} {
			t.Run(fmt.Sprint(terms, prepared), func(t *testing.T) {
				s, c, _ := zipped(t, terms, 1)
				for _, pair := range [][2]*Conn{{s, c}, {c, s}} {
					var wg sync.WaitGroup
					wg.Go(func() {
						for i, m := range all {
							if prepared {
								m = Prepare(m)
							}
							var err error
							switch i % 3 {
							case 0:
								err = pair[0].Write(bg, m)
							case 1:
								err = pair[0].Post(m)
							default:
								if err = pair[0].Queue(m); err == nil {
									err = pair[0].Flush(bg)
								}
							}
							require.NoError(t, err)
						}
					})
					for i, want := range all {
						var m Message
						var err error
						switch i % 4 {
						case 0:
							m, err = pair[1].Read(bg)
						case 1:
							m, err = pair[1].Next(bg)
						case 2:
							var r io.Reader
							if m.Type, r, err = pair[1].Reader(bg); err == nil {
								m.Data, err = io.ReadAll(r)
							}
						default: // left in the middle
							var r io.Reader
							if m.Type, r, err = pair[1].Reader(bg); err == nil {
								var one [1]byte
								r.Read(one[:])
								m.Data = want.Data
							}
						}
						require.NoError(t, err)
						require.Equal(t, want.Type, m.Type)
						require.True(t, bytes.Equal(want.Data, m.Data), "message %d", i)
					}
					wg.Wait()
				}
			})
		}
	}
}

// What both ends ask for, and what they get, by Server and Dial.
func TestCompressionHandshake(t *testing.T) {
	on, small := &Compression{Takeover: true}, &Compression{WindowBits: 9}
	for _, c := range []struct {
		server, client *Compression
		want           string
	}{
		{nil, nil, ""},
		{on, nil, ""},
		{nil, on, ""},
		{on, on, "permessage-deflate"},
		{on, new(Compression), "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{small, on, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9"},
		{on, small, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9"},
	} {
		s := &Server{Options: AcceptOptions{Config: Config{Compression: c.server}}, Handler: echo}
		got := ""
		conn := serveHTTP(t, s)(&DialOptions{
			Config:     Config{Compression: c.client},
			OnResponse: func(r *http.Response) { got = r.Header.Get(hExtensions) },
		})
		require.Equal(t, c.want, got)
		for range 3 {
			m := Text(strings.Repeat("compressible ", 1000))
			require.NoError(t, conn.Write(bg, m))
			require.Equal(t, "text "+string(m.Data), read(t, conn))
		}
		require.NoError(t, conn.Close(1000, ""))
	}
}

// A client that is known to be broken is spared.
func TestCompressionByRequest(t *testing.T) {
	s := &Server{Handler: echo}
	s.Options.Compression = func(r *http.Request) *Compression {
		if r.UserAgent() == "broken" {
			return nil
		}
		return &Compression{WindowBits: 10}
	}
	dial := serveHTTP(t, s)
	for agent, want := range map[string]bool{"broken": false, "fine": true} {
		conn := dial(&DialOptions{
			Header:     http.Header{"User-Agent": {agent}},
			Config:     Config{Compression: new(Compression)},
			OnResponse: func(r *http.Response) { require.Equal(t, want, r.Header.Get(hExtensions) != "") },
		})
		require.NoError(t, conn.Write(bg, Text("hello")))
		require.Equal(t, "text hello", read(t, conn))
	}
}

// A streamed message is compressed in fragments, and what is sent beside and
// after it is understood.
func TestCompressedWriter(t *testing.T) {
	for _, terms := range agreements {
		s, c, wire := zipped(t, terms, 100)
		for _, n := range []int{0, 99, 5000, 100_000} {
			data := strings.Repeat("compressible ", n/13+1)[:n]
			var wg sync.WaitGroup
			wg.Go(func() {
				w, err := s.Writer(bg, MessageText)
				require.NoError(t, err)
				for rest := data; rest != ""; {
					k := min(len(rest), 1700)
					_, err := io.WriteString(w, rest[:k])
					require.NoError(t, err)
					rest = rest[k:]
				}
				require.NoError(t, s.Post(Text(data)), "it waits for the writer")
				require.NoError(t, w.Close())
				require.NoError(t, s.Write(bg, Text(data)))
			})
			for range 3 {
				require.Equal(t, "text "+data, read(t, c))
			}
			wg.Wait()
			out := wire.taken()
			h, _ := ParseHeader(out)
			require.Equal(t, n >= 100, h.RSV == rsv1, n)
		}
	}
}

// What is compressed: from the threshold on, unless it grows or is Plain; with
// takeover the second time for next to nothing, prepared or not.
func TestWhatIsCompressed(t *testing.T) {
	text := strings.Repeat("compressible text, ", 50)
	noise := make([]byte, 1000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	s, c, wire := zipped(t, "permessage-deflate", 100)
	go c.Serve(bg, nil)
	send := func(m Message) (h Header, size int) {
		require.NoError(t, s.Write(bg, m))
		out := wire.taken()
		h, _ = ParseHeader(out)
		return h, len(out)
	}
	h, first := send(Text(text))
	require.Equal(t, rsv1, h.RSV)
	require.Less(t, first, 100)
	h, again := send(Text(text))
	require.Equal(t, rsv1, h.RSV)
	require.Less(t, again, first)
	h, size := send(Prepare(Text(text)))
	require.Equal(t, rsv1, h.RSV)
	require.InDelta(t, first, size, 10)
	for _, m := range []Message{Text(text[:99]), Binary(noise), {Type: MessageText, Data: []byte(text), Plain: true}} {
		h, _ = send(m)
		require.Zero(t, h.RSV)
	}
	_, last := send(Text(text))
	require.LessOrEqual(t, last, again, "what went uncompressed left the windows alone")
}

// What a hostile peer can do with compression (A29, A30, A49 to A56).
func TestCompressedInput(t *testing.T) {
	const hello = "\xf2H\xcd\xc9\xc9\x07\x00" // RFC 7692 section 7.2.3.1
	const keeps, resets = "permessage-deflate", "permessage-deflate; client_no_context_takeover"
	z := func(h Header) Header { return withRSV(masked(h, 1), rsv1) }
	zeros := flate.Compress(nil, make([]byte, 64<<20), nil, 15)
	empty := strings.Repeat("\x00\x00\x00\xff\xff", 30_000)
	for _, c := range []struct {
		name, terms string
		in          []byte
		want        string
	}{
		{"one frame", keeps, frames(z(text), hello), "text Hello"},
		{"two frames", keeps, frames(z(text0), hello[:3], masked(ping, 1), "", masked(cont, 1), hello[3:]), "text Hello"},
		{"empty first frame (A56)", keeps, frames(z(text0), "", masked(cont, 1), hello), "text Hello"},
		{"empty message (A55)", keeps, frames(z(text), "\x00"), "text "},
		{"a final block and another message", keeps, frames(z(text), "\xf3H\xcd\xc9\xc9\x07\x00\x00", z(text), hello), "text Hello,text Hello"},
		{"refers to the message before", keeps, frames(z(bin), hello, z(text), "\xf2\x00\x11\x00\x00"), "binary Hello,text Hello"},
		{"refers to what was to be forgotten (A53)", resets, frames(z(bin), hello, z(text), "\xf2\x00\x11\x00\x00"), "binary Hello,1007 malformed compressed data"},
		{"refers to before the beginning (A52)", keeps, frames(z(text), "\xf2\x00\x11\x00\x00"), "1007 malformed compressed data"},
		{"garbage (A51)", keeps, frames(z(text), "\xff\xff\xff"), "1007 malformed compressed data"},
		{"truncated (A51)", keeps, frames(z(text), hello[:3]), "1007 malformed compressed data"},
		{"not UTF-8", keeps, frames(z(text), ":\xb7\xeb\xe1\xde\x9d\xe7\x9b\xcf\xed9\xb7\xf5\xed\x82\x06\x00\x00"), "1007 invalid UTF-8"},
		{"not UTF-8, and not finished", keeps, frames(z(text0), ":\xb7\xeb\xe1\xde\x9d\xe7\x9b\xcf\xed9\xb7\xf5\xed\x82\x06\x00\x00"), "1007 invalid UTF-8"},
		{"not UTF-8, and then garbage", keeps, frames(z(text), "\x00\x01\x00\xfe\xff\xff"+"\xff\xff\xff"), "1007 invalid UTF-8"},
		{"not UTF-8, and then too big", keeps, frames(z(text), string(flate.Compress([]byte("\x00\x01\x00\xfe\xff\xff"), make([]byte, 2<<20), nil, 15))), "1007 invalid UTF-8"},
		{"a bomb (A49)", keeps, frames(z(bin), string(zeros)), "1009 message too big"},
		{"empty blocks (A50)", keeps, frames(z(bin), empty), "1008 compressed data that yields too little"},
		{"RSV1 on a ping (A30)", keeps, frames(z(ping), "x"), "1002 reserved bit set"},
		{"RSV1 on a continuation (A30)", keeps, frames(z(text0), hello[:3], z(cont), hello[3:]), "1002 reserved bit set"},
		{"RSV2 (A29)", keeps, frames(withRSV(masked(text, 1), rsv1|rsv2), hello), "1002 reserved bit set"},
		{"RSV1 without agreement (A29)", "", frames(z(text), hello), "1002 reserved bit set"},
		{"uncompressed", keeps, frames(masked(text, 1), "Hello"), "text Hello"},
	} {
		for _, cut := range []int{1 << 20, 4096, 7} {
			t.Run(fmt.Sprint(c.name, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := memnet.Pipe(cut)
					conn := NewConn(a, Params{Extensions: c.terms, Config: quiet})
					defer conn.CloseNow()
					go io.Copy(io.Discard, b)
					go func() {
						b.Write(c.in)
						b.CloseWrite()
					}()
					var got []string
					for {
						m, err := conn.Next(bg)
						var rule *ProtocolError
						if errors.As(err, &rule) {
							got = append(got, fmt.Sprint(int(rule.Code), " ", rule.Reason))
						}
						if err != nil {
							break
						}
						got = append(got, m.Type.String()+" "+string(m.Data))
					}
					require.Equal(t, c.want, strings.Join(got, ","))
				})
			})
		}
	}
}

// A message that needs more than one buffer to inflate, read in every way, and
// by two of them in turn: what follows may refer to all of it.
func TestCompressedLarge(t *testing.T) {
	large := Text(strings.Repeat(string(corpus.Chinese(90_000)), 5))
	small := Text(string(corpus.Chinese(3_000)))
	readers := map[string]func(*Conn) (string, error){
		"Next": func(c *Conn) (string, error) {
			m, err := c.Next(bg)
			return string(m.Data), err
		},
		"Reader": func(c *Conn) (string, error) {
			_, r, err := c.Reader(bg)
			if err != nil {
				return "", err
			}
			b, err := io.ReadAll(r)
			return string(b), err
		},
		"Reader's first bytes": func(c *Conn) (string, error) {
			_, r, err := c.Reader(bg)
			if err != nil {
				return "", err
			}
			b := make([]byte, 1000)
			_, err = io.ReadFull(r, b)
			return string(b), err
		},
		"Next cut short, then Reader": func(c *Conn) (string, error) {
			ctx, cancel := context.WithTimeout(bg, time.Millisecond)
			defer cancel()
			if m, err := c.Next(ctx); err == nil {
				return string(m.Data), nil
			}
			_, r, err := c.Reader(bg)
			if err != nil {
				return "", err
			}
			b, err := io.ReadAll(r)
			return string(b), err
		},
	}
	for _, terms := range []string{"permessage-deflate", "permessage-deflate; client_no_context_takeover"} {
		for name, read := range readers {
			for _, step := range []int{1 << 20, 10_000, 500} {
				t.Run(fmt.Sprint(name, step, terms), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := memnet.Pipe(step)
						c := NewConn(a, Params{Extensions: terms, Config: quiet})
						peer := NewConn(slow{b, step}, Params{Client: true, Extensions: terms, Config: quiet})
						defer c.CloseNow()
						defer peer.CloseNow()
						go func() {
							for range 3 {
								assert.NoError(t, peer.Write(bg, large))
								assert.NoError(t, peer.Write(bg, small))
							}
						}()
						for range 3 {
							got, err := read(c)
							require.NoError(t, err)
							want := string(large.Data)
							if name == "Reader's first bytes" {
								want = want[:1000]
							}
							require.Len(t, got, len(want))
							require.True(t, got == want)
							m, err := c.Next(bg)
							require.NoError(t, err)
							require.True(t, string(m.Data) == string(small.Data))
						}
					})
				})
			}
		}
	}
}

// slow takes a millisecond for step bytes.
type slow struct {
	net.Conn
	step int
}

func (s slow) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		pass(time.Millisecond)
		var m int
		m, err = s.Conn.Write(p[n:min(n+s.step, len(p))])
		n += m
	}
	return n, err
}

func describe(d direction) string {
	s := "keeps "
	if d.reset {
		s = "resets "
	}
	return s + map[int]string{8: "8", 9: "9", 10: "10", 12: "12", 15: "15"}[d.window()]
}

// headerSize is what the parts of a header may weigh besides its text: those that
// are looked at are counted.
const headerSize = 64 << 10

// FuzzExtensions: whatever the header, a server's answer is one that its own
// client code understands, and holds nothing that is not token characters.
func FuzzExtensions(f *testing.F) {
	f.Add("permessage-deflate; client_max_window_bits=9, x; y=\"1\"", true, byte(10))
	f.Fuzz(func(t *testing.T, offer string, takeover bool, bits byte) {
		z := Compression{Takeover: takeover, WindowBits: int(bits)}.withDefaults()
		var all []extension
		budget.Check(t, len(offer), headerSize, func() { all = parseExtensions([]string{offer}) })
		require.LessOrEqual(t, len(all), maxOffers)
		for _, e := range all {
			require.LessOrEqual(t, len(e.params), maxParams)
		}
		terms, ok := z.agree(http.Header{hExtensions: {offer}})
		if !ok {
			return
		}
		answer := terms.String()
		require.LessOrEqual(t, len(answer), 160)
		client, ok := Compression{Takeover: true}.withDefaults().accept(http.Header{hExtensions: {answer}})
		require.True(t, ok, answer)
		require.Equal(t, terms.server.window(), client.server.window())
		require.Equal(t, terms.client.window(), client.client.window())
		require.LessOrEqual(t, terms.server.window(), z.WindowBits)
		if !z.Takeover {
			require.True(t, terms.server.reset && terms.client.reset)
		}
	})
}
