package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/memnet"
	"github.com/seed-07372d5a/websocket/internal/streams"
)

// differ_test.go compares the model with the machine and with every way to drive
// a connection (A41, A42, A100).

// rulesOf makes rules of one byte.
func rulesOf(b byte, client bool) rules {
	r := rules{client: client, limit: 1000, bits: 8 + int(b&7), takeover: b&8 != 0, deflate: b&16 != 0}
	if b&32 != 0 {
		r.limit = 70_000
	}
	return r
}

// params are what makes a Conn that follows r.
func (r rules) params() Params {
	p := Params{Client: r.client, Config: quiet}
	p.Config.ReadLimit = int64(r.limit)
	p.Config.ProgressTimeout = -1
	if r.deflate {
		d := direction{reset: !r.takeover, bits: r.bits}
		p.Extensions = terms{server: d, client: d}.String()
	}
	return p
}

// sender are the terms of a stream that r is for.
func (r rules) sender() streams.Terms {
	return streams.Terms{Client: !r.client, Deflate: r.deflate, Takeover: r.takeover, Bits: r.bits}
}

// cutBy cuts in into parts whose sizes come from cuts, over and over: 1 to 65,026
// bytes, most of them short. No cuts leave it whole.
func cutBy(in, cuts []byte) (parts [][]byte) {
	in = bytes.Clone(in)
	for i := 0; len(in) > 0; i++ {
		n := len(in)
		if len(cuts) > 0 {
			c := int(cuts[i%len(cuts)])
			n = min(n, 1+c*c)
		}
		parts = append(parts, in[:n:n])
		in = in[n:]
	}
	return parts
}

// A script is a transport that yields its parts, one at a time, and then the
// end, and takes everything. It counts the calls.
type script struct {
	mu            sync.Mutex
	parts         [][]byte
	out           []byte
	reads, writes int
	closed        bool
}

func (s *script) Read(p []byte) (int, error) {
	synctest.Wait() // what was posted is out
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case len(s.parts) == 0:
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
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

func (s *script) LocalAddr() net.Addr              { return new(memnet.Conn).LocalAddr() }
func (s *script) RemoteAddr() net.Addr             { return new(memnet.Conn).RemoteAddr() }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// A way drives a connection to its end, whose error it returns, and notes the
// messages that come.
type way struct {
	name  string
	drive func(c *Conn, s *script, note func(MessageType, []byte)) error
}

var ways = []way{
	{"Next", func(c *Conn, _ *script, note func(MessageType, []byte)) error {
		for {
			m, err := c.Next(bg)
			if err != nil {
				return err
			}
			note(m.Type, m.Data)
		}
	}},
	{"Read", func(c *Conn, _ *script, note func(MessageType, []byte)) error {
		for {
			m, err := c.Read(bg)
			if err != nil {
				return err
			}
			note(m.Type, m.Data)
		}
	}},
	{"Reader", func(c *Conn, _ *script, note func(MessageType, []byte)) error {
		for {
			typ, r, err := c.Reader(bg)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			note(typ, b)
		}
	}},
	{"Serve", func(c *Conn, _ *script, note func(MessageType, []byte)) error {
		return c.Serve(bg, &Handler{Message: func(_ *Conn, m Message) { note(m.Type, m.Data) }})
	}},
	{"Feed", func(c *Conn, s *script, note func(MessageType, []byte)) error {
		h := &Handler{Message: func(_ *Conn, m Message) { note(m.Type, m.Data) }}
		if err := c.Feed(nil, h); err != nil {
			return err
		}
		for _, p := range s.parts {
			if err := c.Feed(p, h); err != nil {
				return err
			}
		}
		return c.Feed(nil, h)
	}},
}

// driven is the trace of a connection, driven in that way. What it may cost is
// counted: a call of the transport for each part, for each 512 bytes and for each
// reply, and no more output than there are bytes of input and a close frame.
func driven(t *testing.T, in, cuts []byte, r rules, w way) (got trace) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{parts: cutBy(in, cuts)}
		parts := len(s.parts)
		p := r.params()
		p.Config.OnPing = func(_ *Conn, p []byte) { got.events = append(got.events, "ping "+string(p)) }
		p.Config.OnPong = func(_ *Conn, p []byte) { got.events = append(got.events, "pong "+string(p)) }
		c := NewConn(s, p)
		err := w.drive(c, s, func(typ MessageType, data []byte) {
			got.events = append(got.events, typ.String()+" "+string(data))
		})
		synctest.Wait()
		s.mu.Lock()
		out := bytes.Clone(s.out)
		s.mu.Unlock()
		got.replies = replies(t, out, r.client)
		got.end = ending(err)
		c.CloseNow()
		_, again := c.Read(bg)
		require.Equal(t, err, again, "the end stays the end")
		require.LessOrEqual(t, s.reads, parts+len(in)/512+16, "reads")
		require.LessOrEqual(t, s.writes, len(got.replies), "writes")
		require.LessOrEqual(t, len(out), 3*len(in)+MaxHeaderSize+maxControl, "bytes of output")
	})
	return got
}

// ending says in the model's words how a connection ended.
func ending(err error) string {
	var peer *CloseError
	var rule *ProtocolError
	switch {
	case errors.As(err, &peer):
		return fmt.Sprint("closed ", int(peer.Code), " ", peer.Reason)
	case errors.As(err, &rule):
		return fmt.Sprint("failed ", int(rule.Code))
	case err == io.ErrUnexpectedEOF:
		return "eof"
	}
	return "not in the manual: " + fmt.Sprint(err)
}

// replies takes apart what a receiver sent: whole control frames, masked if it is
// the client.
func replies(t *testing.T, out []byte, client bool) (all []string) {
	t.Helper()
	for len(out) > 0 {
		h, n := ParseHeader(out)
		require.Positive(t, n)
		require.Equal(t, client, h.Masked)
		require.True(t, h.Fin && h.RSV == 0 && h.Len <= maxControl && int(h.Len) <= len(out)-n, "%v", h)
		p := out[n : n+int(h.Len)]
		Mask(p, h.Key)
		out = out[n+int(h.Len):]
		switch {
		case h.Opcode == OpPong:
			all = append(all, "pong "+string(p))
		case len(p) == 0:
			all = append(all, "close ")
		default:
			all = append(all, fmt.Sprint("close ", int(p[0])<<8|int(p[1])))
		}
	}
	return all
}

// machined is the trace of the bare machine. Each step must eat something.
func machined(t *testing.T, in, cuts []byte, r rules) (got trace) {
	t.Helper()
	m := machine{client: r.client, deflate: r.deflate, limit: int64(r.limit)}
	zip := newInflater(direction{reset: !r.takeover, bits: r.bits})
	var msg *buffer
	fail := func(err error) trace {
		rule := err.(*ProtocolError)
		got.end = fmt.Sprint("failed ", int(rule.Code))
		got.replies = append(got.replies, fmt.Sprint("close ", int(rule.Code)))
		return got
	}
	for _, b := range cutBy(in, cuts) {
		for len(b) > 0 {
			p, n, err := m.next(b)
			if err != nil {
				return fail(err)
			}
			require.Positive(t, n, "a step that eats nothing")
			b = b[n:]
			switch p.op {
			case OpPing:
				got.events = append(got.events, "ping "+string(p.data))
				got.replies = append(got.replies, "pong "+string(p.data))
			case OpPong:
				got.events = append(got.events, "pong "+string(p.data))
			case OpClose:
				e, err := parseClose(p.data)
				if err != nil {
					return fail(err)
				}
				got.end = ending(e)
				got.replies = append(got.replies, strings.TrimSuffix(fmt.Sprint("close ", int(e.Code)), "1005"))
				return got
			case OpText, OpBinary:
				if p.first {
					msg = nil
				}
				if !p.packed {
					msg = msg.grow(len(p.data))
					msg.b = append(msg.b, p.data...)
				} else if msg, err = zip.collect(msg, p, int64(r.limit)); err != nil {
					return fail(err)
				}
				if p.last {
					got.events = append(got.events, MessageType(p.op).String()+" "+string(msg.b))
				}
			}
		}
	}
	got.end = "eof"
	return got
}

// same compares traces; of long ones it tells where they part.
func same(t *testing.T, want, got trace, what string) {
	t.Helper()
	for i, w := range want.events {
		require.Less(t, i, len(got.events), "%s: no %.100q", what, w)
		require.True(t, w == got.events[i], "%s: event %d: %.100q, got %.100q", what, i, w, got.events[i])
	}
	require.Len(t, got.events, len(want.events), what)
	require.Equal(t, want.replies, got.replies, what)
	require.Equal(t, want.end, got.end, what)
}

// differ compares the model with everything else.
func differ(t *testing.T, in, cuts []byte, r rules) {
	t.Helper()
	want := modelled(in, r)
	for _, c := range [][]byte{nil, cuts, {0}} {
		if len(c) == 1 && c[0] == 0 && len(in) > 2000 {
			continue // a byte at a time
		}
		same(t, want, machined(t, in, c, r), "machine")
	}
	for i, w := range ways {
		c := cuts
		if len(cuts) > 0 { // each its own
			c = append(cuts[i%len(cuts):len(cuts):len(cuts)], byte(i))
		}
		same(t, want, driven(t, in, c, r, w), w.name)
	}
}

// The cases of the machine, and of the attacks on it, end as the model says, and
// as they say themselves.
func TestModel(t *testing.T) {
	for _, c := range machineCases {
		t.Run(c.name, func(t *testing.T) {
			r := rules{client: !c.server, limit: machineLimit}
			got := modelled(c.in, r)
			i := strings.Index(c.want, "peer failed: ")
			require.Equal(t, i >= 0, strings.HasPrefix(got.end, "failed "), got.end)
			if i >= 0 {
				require.Equal(t, c.want[i+len("peer failed: "):][:4], strings.TrimPrefix(got.end, "failed "))
			}
			differ(t, c.in, []byte{1, 0, 3}, r)
		})
	}
}

// modelEdges are what random streams seldom hit: one step on either side of a
// limit of 1000, and two things wrong at a time.
var modelEdges = []struct {
	name string
	in   []byte
	end  string
}{
	{"1024 frames (A62)", frames(append([]any{bin0, ""}, times(1023, cont0, "")...)...), "eof"},
	{"1025 frames (A62)", frames(append([]any{bin0, ""}, times(1024, cont0, "")...)...), "failed 1008"},
	{"1025 frames of 33 bytes (A62)", frames(append([]any{bin0, "12345678901234567890123456789012"}, times(1024, cont0, "")...)...), "eof"},
	{"1026 frames of 33 bytes (A62)", frames(append([]any{bin0, "12345678901234567890123456789012"}, times(1025, cont0, "")...)...), "failed 1008"},
	{"stored block that fits (A49)", frames(zipped0, "\x00\xe8\x03\x17\xfc"), "eof"},
	{"stored block that does not fit (A49)", frames(zipped0, "\x00\xe9\x03\x16\xfc"), "failed 1009"},
	{"bad UTF-8 before a block that does not fit", frames(zipped0, "\x00\x01\x00\xfe\xff\xff"+"\x00\xff\xff\x00\x00"), "failed 1007"},
	{"a block that does not fit before bad UTF-8", frames(zipped0, "\x00\xe9\x03\x16\xfc\xff"), "failed 1009"},
	{"compressed frames as long as may be (A49)", append(frames(zipped0, "\x00"), 0, 127, 0, 0, 0, 0, 0, 1, 0x1f, 0x3f), "eof"},
	{"compressed frames that are longer (A49)", append(frames(zipped0, "\x00"), 0, 127, 0, 0, 0, 0, 0, 1, 0x1f, 0x40), "failed 1009"},
}

// zipped0 is the first of several frames of a compressed message.
var zipped0 = withRSV(text0, rsv1)

// times repeats a frame.
func times(n int, h Header, payload string) (all []any) {
	for range n {
		all = append(all, h, payload)
	}
	return all
}

func TestModelEdges(t *testing.T) {
	for _, c := range modelEdges {
		t.Run(c.name, func(t *testing.T) {
			r := rules{client: true, limit: machineLimit, deflate: true, bits: 15}
			require.Equal(t, c.end, modelled(c.in, r).end)
			differ(t, c.in, []byte{1, 0, 3}, r)
		})
	}
}

// tape is a random tape.
func tape(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

// Streams of every kind, on all terms: most say something, and every way in which
// a connection can end is there.
func TestStreams(t *testing.T) {
	n := 1000
	if testing.Short() || raceDetector {
		n = 200
	}
	ends := map[string]int{}
	events := 0
	for i := range n {
		b := tape(uint64(i), 12+i%200)
		r := rulesOf(b[0], b[1]&1 != 0)
		in := streams.Make(b[2:], r.sender())
		got := modelled(in, r)
		events += len(got.events)
		ends[strings.TrimRight(got.end[:min(len(got.end), len("failed 1002"))], " ")]++
		differ(t, in, b[:1+i%5], r)
		if t.Failed() {
			t.Fatal("tape ", i)
		}
	}
	for _, end := range []string{"eof", "failed 1002", "failed 1007", "failed 1009"} {
		require.Greater(t, ends[end], n/100, "%v", ends)
	}
	require.Greater(t, events, n)
	t.Log(n, "streams,", events, "events, ends:", ends)
}

// FuzzMachineServer and FuzzMachineClient compare the model with the machine,
// whole and cut.
func FuzzMachineServer(f *testing.F) { fuzzMachine(f, false) }
func FuzzMachineClient(f *testing.F) { fuzzMachine(f, true) }

// maxRaw is the longest input for the model, which is quadratic.
const maxRaw = 16 << 10

func fuzzMachine(f *testing.F, client bool) {
	for _, c := range machineCases {
		if c.server != client && len(c.in) < 500 {
			f.Add(c.in, []byte{1}, byte(0))
		}
	}
	for i := range 30 {
		b := tape(uint64(i), 40)
		r := rulesOf(b[0], client)
		if in := streams.Make(b[1:], r.sender()); len(in) < 500 {
			f.Add(in, []byte{3, 0}, b[0])
		}
	}
	f.Fuzz(func(t *testing.T, in, cuts []byte, terms byte) {
		if len(in) > maxRaw {
			return
		}
		r := rulesOf(terms, client)
		want := modelled(in, r)
		same(t, want, machined(t, in, nil, r), "whole")
		same(t, want, machined(t, in, cuts, r), "cut")
		b := bytes.Clone(in)
		budget.Check(t, len(in), maxControl, func() {
			m := machine{client: client, deflate: r.deflate, limit: int64(r.limit)}
			for rest := b; len(rest) > 0; {
				_, n, err := m.next(rest)
				if rest = rest[n:]; err != nil {
					return
				}
			}
		})
	})
}

// FuzzFeed compares the model with Feed, which is given any bytes in any parts,
// and holds it to its memory: that of the input, of what it keeps between calls
// for the limit, and of codecs.
func FuzzFeed(f *testing.F) {
	for _, c := range machineCases {
		if len(c.in) < 500 {
			f.Add(c.in, []byte{0, 2}, byte(0), !c.server)
		}
	}
	for _, c := range modelEdges {
		f.Add(c.in, []byte{9}, byte(31), true)
	}
	for i := range 30 {
		b := tape(uint64(i), 40)
		r := rulesOf(b[0], i&1 != 0)
		if in := streams.Make(b[1:], r.sender()); len(in) < 500 {
			f.Add(in, []byte{3, 0}, b[0], r.client)
		}
	}
	feed := ways[len(ways)-1]
	f.Fuzz(func(t *testing.T, in, cuts []byte, terms byte, client bool) {
		if len(in) > maxRaw {
			return
		}
		r := rulesOf(terms, client)
		same(t, modelled(in, r), driven(t, in, cuts, r, feed), "Feed")
		parts := cutBy(in, cuts)
		budget.Check(t, len(in), 4*r.limit+connSize+256*len(parts), func() {
			s := &script{out: make([]byte, 0, 6*len(in))}
			c := NewConn(s, r.params())
			c.Feed(nil, nil)
			for _, p := range parts {
				if c.Feed(p, nil) != nil {
					break
				}
			}
			c.CloseNow()
		})
	})
}

// connSize is what a connection weighs with what it borrows, in bytes: codec,
// windows, buffers, timers.
const connSize = 256 << 10

// FuzzStreams compares the model with every way to read, by a tape that makes a
// stream of frames, most of which are right.
func FuzzStreams(f *testing.F) {
	for i := range 40 {
		f.Add(tape(uint64(i), 10+i*3), tape(uint64(i), i%5), byte(i*7), i&1 != 0)
	}
	f.Fuzz(func(t *testing.T, tape, cuts []byte, terms byte, client bool) {
		if len(tape) > 1000 {
			return
		}
		r := rulesOf(terms, client)
		differ(t, streams.Make(tape, r.sender()), cuts, r)
	})
}
