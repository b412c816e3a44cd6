// Package differ sends the same streams of frames to this library and to others, as servers, and explains where they
// part. The streams are those of internal/streams, from fixed tapes: every run sees the same bytes.
package differ

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/streams"
)

const limit = 70_000 // bytes of a message

// A script is a transport that yields a stream and then the end, and takes everything.
type script struct {
	mu     sync.Mutex
	in     []byte
	out    []byte
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	synctest.Wait() // until whatever answers on another goroutine has done so
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case len(s.in) == 0:
		return 0, io.EOF
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *script) LocalAddr() net.Addr              { return new(net.TCPAddr) }
func (s *script) RemoteAddr() net.Addr             { return new(net.TCPAddr) }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// A hijackable is a ResponseWriter that gives its connection away.
type hijackable struct {
	*httptest.ResponseRecorder
	nc *script
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReader(h.nc), bufio.NewWriter(h.nc)), nil
}

func request(extensions string) *http.Request {
	r := httptest.NewRequest("GET", "http://example.com/", nil)
	r.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if extensions != "" {
		r.Header.Set("Sec-Websocket-Extensions", extensions)
	}
	return r
}

// A trace is what came of a stream.
type trace struct {
	messages []string
	pongs    []string
	end      string // the code of the close frame that was sent, or "no close frame"
	why      string // this library's error
	err      string // any library's
}

// A server reads messages until it fails.
type server func(t *testing.T, nc *script, deflate bool, note func(text bool, p []byte)) (why error)

// The offer is what all servers agree to alike.
const offer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

func extensions(deflate bool) string {
	if deflate {
		return offer
	}
	return ""
}

func ours(t *testing.T, nc *script, deflate bool, note func(bool, []byte)) error {
	c := websocket.NewConn(nc, websocket.Params{Extensions: extensions(deflate),
		Config: websocket.Config{ReadLimit: limit, KeepAlive: -1}})
	defer c.CloseNow()
	for {
		m, err := c.Next(context.Background())
		if err != nil {
			return err
		}
		note(m.Type == websocket.MessageText, m.Data)
	}
}

func gorillas(t *testing.T, nc *script, deflate bool, note func(bool, []byte)) error {
	u := gorilla.Upgrader{EnableCompression: deflate}
	c, err := u.Upgrade(hijackable{httptest.NewRecorder(), nc}, request(extensions(deflate)), nil)
	require.NoError(t, err)
	defer c.Close()
	c.SetReadLimit(limit)
	for {
		typ, p, err := c.ReadMessage()
		if err != nil {
			return err
		}
		note(typ == gorilla.TextMessage, p)
	}
}

func coders(t *testing.T, nc *script, deflate bool, note func(bool, []byte)) error {
	o := coder.AcceptOptions{CompressionMode: coder.CompressionDisabled}
	if deflate {
		o.CompressionMode = coder.CompressionNoContextTakeover
	}
	c, err := coder.Accept(hijackable{httptest.NewRecorder(), nc}, request(extensions(deflate)), &o)
	require.NoError(t, err)
	defer c.CloseNow()
	c.SetReadLimit(limit)
	for {
		typ, p, err := c.Read(context.Background())
		if err != nil {
			return err
		}
		note(typ == coder.MessageText, p)
	}
}

// gobwas leaves compression and close frames for errors to its caller: the first is left out, the second are those of its
// own example, wsutil.ControlFrameHandler.
func gobwas(t *testing.T, nc *script, _ bool, note func(bool, []byte)) error {
	control := wsutil.ControlFrameHandler(nc, ws.StateServerSide)
	r := wsutil.Reader{Source: nc, State: ws.StateServerSide, CheckUTF8: true, OnIntermediate: control, MaxFrameSize: limit}
	for {
		h, err := r.NextFrame()
		if err != nil {
			return err
		}
		if h.OpCode.IsControl() {
			if err := control(h, &r); err != nil {
				return err
			}
			continue
		}
		p, err := io.ReadAll(&r)
		if err != nil {
			return err
		}
		note(h.OpCode == ws.OpText, p)
	}
}

// run is the trace of a stream.
func run(t *testing.T, s server, in []byte, deflate bool) (tr trace) {
	synctest.Test(t, func(t *testing.T) {
		nc := &script{in: bytes.Clone(in)}
		err := s(t, nc, deflate, func(text bool, p []byte) {
			tr.messages = append(tr.messages, fmt.Sprint(text, " ", string(p)))
		})
		synctest.Wait()
		nc.mu.Lock()
		defer nc.mu.Unlock()
		out := nc.out
		if bytes.HasPrefix(out, []byte("HTTP/1.1 101 ")) {
			_, out, _ = bytes.Cut(out, []byte("\r\n\r\n"))
		}
		tr.end = "no close frame"
		for len(out) > 0 && tr.end == "no close frame" {
			h, n := websocket.ParseHeader(out)
			require.Positive(t, n)
			p := out[n : n+int(h.Len)]
			out = out[n+int(h.Len):]
			switch {
			case h.Opcode == websocket.OpPong:
				tr.pongs = append(tr.pongs, string(p))
			case h.Opcode != websocket.OpClose:
				require.Fail(t, "neither pong nor close", "%v", h)
			case len(p) < 2:
				tr.end = "empty"
			default:
				tr.end = fmt.Sprint(binary.BigEndian.Uint16(p))
			}
		}
		tr.err = fmt.Sprint(err)
		var rule *websocket.ProtocolError
		var peer *websocket.CloseError
		switch {
		case errors.As(err, &rule):
			tr.why = rule.Reason
		case errors.As(err, &peer):
			tr.why = "closed"
		case errors.Is(err, io.ErrUnexpectedEOF):
			tr.why = "the stream ends"
		}
	})
	return tr
}

// A divergence is explained by how each ends, and what the other one delivered. An empty field matches everything.
type divergence struct {
	peer    string
	ours    string // why this library failed
	close   string // the close frame of the other
	got     string // its messages and pongs: fewer than ours, as many, more
	says    string // a part of its error
	right   string // who follows the RFC
	because string
}

func (d divergence) explains(peer string, us, them trace, got string) bool {
	match := func(want, is string) bool { return want == "" || want == is }
	return d.peer == peer && match(d.ours, us.why) && match(d.close, them.end) && match(d.got, got) && strings.Contains(them.err, d.says)
}

const none = "no close frame"

// The table of divergences. The first that fits counts.
var table = []divergence{
	{"gorilla", "invalid UTF-8", "", "", "", "we", "RFC 6455 8.1: it leaves UTF-8 to its caller"},
	{"gorilla", "malformed frame length", "", "", "", "we", "5.2: it takes lengths that are not in their shortest form"},
	{"gorilla", "malformed compressed data", none, "as many", "flate:", "we", "7.1.7: it fails without a close frame"},
	{"gorilla", "too many fragments", "", "more", "", "both", "10.4: a limit that it does not have"},
	{"gorilla", "close reason that is not UTF-8", "1002", "as many", "", "we", "7.4.1: 1007 is for this"},
	{"gorilla", "close frame with half a code", "empty", "as many", "", "we", "5.5.1: it takes one byte for none"},
	{"gorilla", "reserved bit set", "", "more", "", "we", "RFC 7692 6.1: it takes RSV1 on any frame"},
	{"gorilla", "the stream ends", "1002", "as many", "", "both", "5.2: it judges two bytes of a header, we the whole"},
	{"gorilla", "the stream ends", none, "fewer", "flate: corrupt input before offset 5", "it", "RFC 7692 7.2.3.6: we take a compressed message of no bytes, as zlib does, for an empty one"},
	{"gorilla", "closed", "1002", "as many", "bad close code 1014", "we", "7.4.2: a code that IANA has registered since"},

	{"coder", "", none, "fewer", "flate: corrupt input before offset 5", "it", "RFC 7692 7.2.3.6: we take a compressed message of no bytes, as zlib does, for an empty one"},
	{"coder", "", none, "", "previous message not read to completion", "we", "RFC 7692 7.2.3.4: it ends a message at a final block, and stumbles over what is behind"},
	{"coder", "invalid UTF-8", "", "", "", "we", "RFC 6455 8.1: it leaves UTF-8 to its caller"},
	{"coder", "malformed frame length", "", "", "", "we", "5.2: it takes lengths that are not in their shortest form"},
	{"coder", "message too big", none, "as many", "failed to read frame payload", "both", "10.4: it counts what comes, we what is announced"},
	{"coder", "unmasked frame from a client", none, "as many", "unmasked", "both", "5.1: it fails without a close frame, which may be"},
	{"coder", "unknown opcode", none, "as many", "unmasked", "both", "5.1: and sees that first"},
	{"coder", "malformed compressed data", none, "as many", "flate:", "we", "7.1.7: it fails without a close frame"},
	{"coder", "malformed compressed data", "", "more", "", "we", "RFC 7692 7.2.2: it does not look at what is behind a final block"},
	{"coder", "message too big", none, "more", "", "we", "RFC 7692 7.2.2: it does not look at what is behind a final block"},
	{"coder", "too many fragments", "", "more", "", "both", "10.4: a limit that it does not have"},
	{"coder", "close reason that is not UTF-8", "", "as many", "", "we", "5.5.1: it leaves UTF-8 to its caller"},

	{"gobwas", "too many fragments", "", "more", "", "both", "10.4: a limit that it does not have"},
	{"gobwas", "close reason that is not UTF-8", "1002", "as many", "", "we", "7.4.1: 1007 is for this"},
	{"gobwas", "close code that must not be sent", "", "as many", "", "we", "7.4.2: it takes codes from 5000, and answers with them"},
	{"gobwas", "closed", "1002", "as many", "status code is not defined", "we", "7.4.2: a code that IANA has registered since"},
	{"gobwas", "", none, "as many", "", "both", "7.1.7: it leaves close frames for errors to its caller"},
}

var peers = []struct {
	name    string
	deflate bool
	run     server
}{
	{"gorilla", true, gorillas},
	{"coder", true, coders},
	{"gobwas", false, gobwas},
}

func TestPeers(t *testing.T) {
	seen := make([]int, len(table))
	same := map[string]int{}
	const n = 2000
	for i := range n {
		tape := make([]byte, 12+i%200)
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(tape)
		deflate := i%2 == 1
		in := streams.Make(tape, streams.Terms{Client: true, Deflate: deflate, Bits: 15})
		us := run(t, ours, in, deflate)
		for _, p := range peers {
			if deflate && !p.deflate {
				continue
			}
			them := run(t, p.run, in, deflate)
			if agree(us, them) {
				same[p.name]++
				continue
			}
			prefix(t, us.messages, them.messages, i, p.name)
			prefix(t, us.pongs, them.pongs, i, p.name)
			got := [...]string{"fewer", "as many", "more"}[1+cmp.Compare(len(them.messages)+len(them.pongs), len(us.messages)+len(us.pongs))]
			row := slices.IndexFunc(table, func(d divergence) bool { return d.explains(p.name, us, them, got) })
			if row < 0 {
				t.Errorf("stream %d is not explained: %s delivers %s, %s, %.200q; we: %q", i, p.name, got, them.end, them.err, us.why)
				continue
			}
			seen[row]++
		}
	}
	t.Log(n, "streams, the same:", same)
	for i, d := range table {
		require.NotZero(t, seen[i], "%v does not happen any more", d)
		t.Logf("%4d  %-8s  %-33s  right: %-4s  %s", seen[i], d.peer, d.ours, d.right, d.because)
	}
}

func agree(a, b trace) bool {
	return strings.Join(a.messages, "\n") == strings.Join(b.messages, "\n") && strings.Join(a.pongs, "\n") == strings.Join(b.pongs, "\n") &&
		a.end == b.end
}

// prefix checks that what both have is the same: they part only in where they end.
func prefix(t *testing.T, a, b []string, stream int, peer string) {
	t.Helper()
	n := min(len(a), len(b))
	for i := range n {
		require.True(t, a[i] == b[i], "stream %d, %s: %d: %.200q, %.200q", stream, peer, i, a[i], b[i])
	}
}
