package websocket

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// attack_test.go says how a connection treats a hostile peer: a table of what
// the peer sends and what becomes of it, the same in every mode. The rows'
// numbers are those of the catalogue of attacks.

// An attack is a row. Inputs are written for both sides alike: frames are masked
// where they must be.
type attack struct {
	name  string
	in    []any         // Header and payload in turn, head, junk, and pauses
	more  [][]any       // other inputs with the same result
	want  []string      // the messages that are delivered
	pongs []string      // and the answers to pings
	err   error         // the end. It also says which close frame is sent, if any
	at    time.Duration // when it comes, on the fake clock; 0: less than 5 s after the input
	limit int64         // Config.ReadLimit; 0: attackLimit
	ping  bool          // with the default keepalive, else there is none
	side  string        // "server" or "client", if the row is for one of them
	zip   string        // "off" or "on", if the row is for connections without or with compression
}

const attackLimit = 1000

type (
	head  []byte           // a header as a server sends it, without payload
	junk  string           // bytes as they are
	wrong struct{ Header } // masked where it must not be, and the other way round
	mixed = [][]any        // inputs
	event struct {         // a step of the peer
		b     []byte
		pause time.Duration // before it
	}
)

// longHead is a header with a 64-bit length.
func longHead(b0 byte, n uint64) head { return binary.BigEndian.AppendUint64([]byte{b0, 127}, n) }

// A mode is one way to run a row.
type mode struct {
	drive  string // how the connection is read: see drives
	client bool   // it is the client
	tls    bool
	zip    string // compression: see zips
	cut    string // how the input is cut: see cuts
}

var (
	drives = []string{"Next", "Read", "Reader", "Serve", "Feed"}
	zips   = []string{"off", "unused", "takeover", "reset"} // unused: agreed on, but messages go as they are
	cuts   = []string{"whole", "bytes", "anyhow"}
)

// modes are all combinations, except that TLS has two of its own for each way to
// read and each side.
var modes = func() (all []mode) {
	for _, client := range []bool{false, true} {
		for _, d := range drives {
			for _, z := range zips {
				for _, c := range cuts {
					all = append(all, mode{d, client, false, z, c})
				}
			}
			all = append(all, mode{d, client, true, "off", "whole"}, mode{d, client, true, "takeover", "bytes"})
		}
	}
	return all
}()

// script makes the peer's steps of a row's input.
func (m mode) script(in []any) (all []event) {
	if m.zip == "takeover" || m.zip == "reset" {
		in = packed(in, m.zip == "takeover")
	}
	var e event
	for i := 0; i < len(in); i++ {
		switch x := in[i].(type) {
		case Header, wrong:
			w, flip := x.(wrong)
			h, _ := x.(Header)
			if flip {
				h = w.Header
			}
			if m.client == flip {
				h = masked(h, 0x1f2e3d4c+uint32(i))
			}
			i++
			e.b = append(e.b, frames(h, in[i].(string))...)
		case head:
			b := append([]byte{}, x...)
			if !m.client {
				b[1] |= 0x80
				b = append(b, 0, 0, 0, 0)
			}
			e.b = append(e.b, b...)
		case junk:
			e.b = append(e.b, x...)
		case time.Duration:
			all = append(all, e)
			e = event{pause: x}
		}
	}
	return append(all, e)
}

// packed compresses the messages of an input, in as many frames as they had.
func packed(in []any, takeover bool) []any {
	out := append([]any{}, in...)
	w := flate.NewWindow(15)
	for i := 0; i < len(out); i++ {
		h, ok := out[i].(Header)
		if !ok || h.RSV != 0 || h.Opcode != OpText && h.Opcode != OpBinary {
			continue
		}
		var parts []int // where its payload stands
		payload, fin := "", false
	message:
		for j := i; j < len(out) && !fin; j++ {
			f, ok := out[j].(Header)
			switch {
			case ok && f.Opcode.control():
				j++
			case ok && f.RSV == 0 && (j == i || f.Opcode == OpContinuation):
				parts, fin = append(parts, j+1), f.Fin
				payload += out[j+1].(string)
				j++
			default:
				if _, pause := out[j].(time.Duration); !pause {
					break message
				}
			}
		}
		if !takeover {
			w = flate.NewWindow(15)
		}
		z := string(flate.Compress(nil, []byte(payload), w, 15))
		w.Add([]byte(payload))
		if !fin {
			z += "\x00\x00\xff\xff"
		}
		for k, at := range parts {
			out[at] = z[len(z)*k/len(parts) : len(z)*(k+1)/len(parts)]
		}
		h.RSV = rsv1
		out[i] = h
		i++
	}
	return out
}

// A chopped transport yields its input in pieces.
type chopped struct {
	net.Conn
	size func() int
}

func (c *chopped) Read(p []byte) (int, error) {
	if c.size != nil {
		p = p[:min(len(p), c.size())]
	}
	return c.Conn.Read(p)
}

func (c *chopped) CloseWrite() error { return c.Conn.(*memnet.Conn).CloseWrite() }

// sizes says how the pieces of n bytes of input go on.
func (m mode) sizes(n int) func() int {
	r, at := rand.New(rand.NewPCG(uint64(n), 41)), 0
	switch m.cut {
	case "bytes": // or few more, where there are many
		return func() int {
			if at++; at <= 100 {
				return 1
			}
			return 1 + n/4096
		}
	case "anyhow":
		return func() int { return 1 + r.IntN(1<<r.IntN(13)) }
	}
	return nil
}

// What came of a row.
type outcome struct {
	got   []string      // messages that were delivered
	sent  []string      // frames that the peer got
	err   error         // the end
	took  time.Duration // from the first byte to the end
	quiet time.Duration // from the last byte to the end
}

// tlsOver makes the two ends of a connection those of a TLS connection.
func tlsOver(t testing.TB, config *tls.Config, a, b net.Conn, client bool) (*tls.Conn, *tls.Conn) {
	t.Helper()
	if client {
		b, a = tlsOver(t, config, b, a, false)
		return a.(*tls.Conn), b.(*tls.Conn)
	}
	s, c := tls.Server(a, config), tls.Client(b, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	require.NoError(t, errors.Join(s.Handshake(), <-done))
	return s, c
}

// run is called in a synctest bubble. The peer goes through its script and then
// waits for the end, which is the connection's to bring about.
func (m mode) run(t *testing.T, config *tls.Config, script []event, p Params) (o outcome) {
	var total int
	for _, e := range script {
		total += len(e.b)
	}
	a, b := memnet.Pipe(4 << 20)
	var nc, peer net.Conn = &chopped{a, m.sizes(total)}, b
	if m.tls {
		nc, peer = tlsOver(t, config, a, b, m.client)
	}
	p.Client = m.client
	switch m.zip {
	case "unused", "takeover":
		p.Extensions = "permessage-deflate"
	case "reset":
		p.Extensions = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	}
	c := NewConn(nc, p)
	begin := time.Now()
	last := begin
	var wg sync.WaitGroup
	wg.Go(func() {
		size := func() int { return total + 1 }
		if m.tls && m.cut == "bytes" {
			size = m.sizes(total) // in records of their own
		}
		for _, e := range script {
			pass(e.pause)
			for rest := e.b; len(rest) > 0; {
				n, err := peer.Write(rest[:min(size(), len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
			last = time.Now()
		}
	})
	giveUp := time.AfterFunc(24*time.Hour, func() { b.Close() }) // so that a test fails, and does not hang
	wg.Go(func() {
		all, _ := io.ReadAll(peer)
		o.sent = readFrames(all)
		b.Close()
		giveUp.Stop()
	})
	o.err = m.read(c, func(m Message) { o.got = append(o.got, m.Type.String()+" "+string(m.Data)) })
	<-c.Context().Done()
	end := time.Now()
	wg.Wait()
	o.took, o.quiet = end.Sub(begin), end.Sub(last)
	require.Equal(t, o.err, context.Cause(c.Context()))
	require.Equal(t, o.err, c.Write(bg, Text("x")))
	_, again := c.Next(bg)
	require.Equal(t, o.err, again)
	return o
}

// readFrames tells what frames are in b.
func readFrames(b []byte) (all []string) {
	for len(b) > 0 {
		h, n := ParseHeader(b)
		if n <= 0 || int64(len(b)-n) < h.Len {
			return append(all, fmt.Sprintf("half a frame: %q", b))
		}
		p := b[n : n+int(h.Len)]
		if h.Masked {
			Mask(p, h.Key)
		}
		all = append(all, fmt.Sprintf("%x %s", byte(h.Opcode), p))
		b = b[n+int(h.Len):]
	}
	return all
}

// read reads until the end, and returns it.
func (m mode) read(c *Conn, got func(Message)) error {
	closes := 0
	h := &Handler{
		Message: func(_ *Conn, m Message) { got(m) },
		Close:   func(*Conn, error) { closes++ },
	}
	switch m.drive {
	case "Serve", "Feed":
		err := c.Serve
		if m.drive == "Feed" {
			err = func(_ context.Context, h *Handler) error { return feed(c, h) }
		}
		e := err(bg, h)
		if closes != 1 {
			return fmt.Errorf("Handler.Close was called %d times", closes)
		}
		return e
	}
	for {
		var msg Message
		var err error
		switch m.drive {
		case "Next":
			msg, err = c.Next(bg)
		case "Read":
			msg, err = c.Read(bg)
		case "Reader":
			var r io.Reader
			if msg.Type, r, err = c.Reader(bg); err == nil {
				msg.Data, err = io.ReadAll(r)
			}
		}
		if err != nil {
			return err
		}
		got(msg)
	}
}

// feed reads for a connection that is fed.
func feed(c *Conn, h *Handler) error {
	err := c.Feed(nil, h)
	for p := make([]byte, 4<<10); err == nil; {
		n, _ := c.NetConn().Read(p)
		err = c.Feed(p[:n], h)
	}
	return err
}

// applies tells whether the row is for the mode.
func (a *attack) applies(m mode) bool {
	return (a.side == "" || (a.side == "client") == m.client) && (a.zip == "" || (a.zip == "on") == (m.zip != "off"))
}

// answers is what the peer of the row must get.
func (a *attack) answers() (all []string) {
	for _, p := range a.pongs {
		all = append(all, "a "+p)
	}
	switch err := a.err.(type) {
	case *ProtocolError:
		all = append(all, "8 "+closeFrame(err.Code, err.Reason))
	case *CloseError:
		all = append(all, "8 "+closeFrame(err.Code, ""))
	}
	return all
}

// check runs the row's inputs in its modes: a single small one in all of them,
// and of many each in some, so that together they are in all.
func (a *attack) check(t *testing.T, config *tls.Config) {
	inputs := a.more
	if a.in != nil {
		inputs = append(mixed{a.in}, inputs...)
	}
	limit := a.limit
	if limit == 0 {
		limit = attackLimit
	}
	p := Params{Config: Config{ReadLimit: limit, KeepAlive: -1}}
	if a.ping {
		p.Config.KeepAlive = 0
	}
	stride := min(len(inputs), 23)
	if limit > attackLimit { // they are large
		stride = max(stride, 3)
	}
	if raceDetector { // it is slow
		stride = max(stride, 5)
	}
	synctest.Test(t, func(t *testing.T) {
		for i, in := range inputs {
			for k, m := range modes {
				if !a.applies(m) || (k+i)%stride != 0 {
					continue
				}
				o := m.run(t, config, m.script(in), p)
				about := fmt.Sprintf("input %d, %+v", i, m)
				require.Equal(t, a.err, o.err, about)
				require.Equal(t, brief(a.want), brief(o.got), about)
				switch {
				case a.ping:
				default:
					require.Equal(t, brief(a.answers()), brief(o.sent), about)
				}
				if a.at > 0 {
					require.GreaterOrEqual(t, o.took, a.at, about)
					require.LessOrEqual(t, o.took, a.at+2*linger, about)
				} else {
					require.Less(t, o.quiet, 5*time.Second, about)
				}
			}
		}
	})
}

// brief cuts long strings, so that a failure can be read.
func brief(all []string) []string {
	out := []string{}
	for _, s := range all {
		if len(s) > 200 {
			s = s[:100] + "..." + s[len(s)-100:] + " (" + strconv.Itoa(len(s)) + ")"
		}
		out = append(out, s)
	}
	return out
}

// bye ends the inputs of honest peers.
var (
	bye    = []any{closed, "\x03\xe8"}
	normal = &CloseError{Code: CloseNormalClosure}
)

func in(parts ...any) []any { return parts }

func then(a []any, b ...any) []any { return append(append([]any{}, a...), b...) }

var attacks = []attack{
	// Framing: RFC 6455 section 5.
	{name: "A27 unmasked frame from a client", side: "server", err: errUnmasked,
		more: mixed{in(wrong{text}, "a"), in(wrong{bin0}, ""), in(wrong{ping}, ""), in(wrong{closed}, "\x03\xe8")}},
	{name: "A27 unmasked after masked", side: "server", in: in(text, "ok", wrong{text}, "a"), want: []string{"text ok"}, err: errUnmasked},
	{name: "A28 masked frame from a server", side: "client", err: errMasked,
		more: mixed{in(wrong{text}, "a"), in(wrong{bin0}, ""), in(wrong{ping}, ""), in(wrong{closed}, "\x03\xe8")}},
	{name: "A29 RSV1 without compression", zip: "off", err: errReserved,
		more: mixed{in(withRSV(text, rsv1), "a"), in(withRSV(bin0, rsv1), ""), in(head{0xc2, 0})}},
	{name: "A29 RSV2, RSV3", err: errReserved, more: mixed{
		in(withRSV(text, rsv2), "a"), in(withRSV(text, rsv3), "a"), in(withRSV(bin, rsv1|rsv2), "a"), in(withRSV(bin, 7), "a"),
		in(withRSV(ping, rsv2), ""), in(withRSV(closed, rsv3), "\x03\xe8"), in(text0, "a", withRSV(cont, rsv3), "b")}},
	{name: "A30 RSV1 on control frames", err: errReserved, more: mixed{
		in(withRSV(ping, rsv1), "x"), in(withRSV(pong, rsv1), ""), in(withRSV(closed, rsv1), "\x03\xe8"), in(text0, "a", withRSV(ping, rsv1), "")}},
	{name: "A30 RSV1 on a continuation", err: errReserved, more: mixed{
		in(text0, "a", withRSV(cont, rsv1), "b"), in(text0, "a", cont0, "", withRSV(cont0, rsv1), "b"), in(withRSV(cont, rsv1), "b")}},
	{name: "A31 reserved opcodes", err: errOpcode, more: reservedOpcodes()},
	{name: "A32 lengths that are not minimal", err: errLength, more: mixed{
		in(head{0x82, 126, 0, 0}), in(head{0x82, 126, 0, 125}), in(head{0x81, 126, 0, 1}), in(head{0x89, 126, 0, 5}),
		in(longHead(0x82, 0)), in(longHead(0x82, 125)), in(longHead(0x82, 126)), in(longHead(0x82, 65535))}},
	{name: "A33 lengths with the top bit", err: errLength, more: mixed{
		in(longHead(0x82, 1<<63)), in(longHead(0x82, math.MaxUint64)), in(longHead(0x81, 1<<63|5)), in(longHead(0x88, 1<<63)), in(head{0x82, 127, 0x80})}},
	{name: "A33 lengths beyond the limit", err: errTooBig, more: mixed{
		in(longHead(0x82, math.MaxInt64)), in(longHead(0x82, 1<<62)), in(longHead(0x82, 1<<32-1)), in(longHead(0x82, 1<<32)), in(longHead(0x02, 1<<32+1)),
		in(longHead(0x81, 1<<31)), in(longHead(0x81, 1<<31-1)), in(head{0x82, 126, (attackLimit + 1) >> 8, (attackLimit + 1) & 0xff})}},
	{name: "A34 sums that overflow", err: errTooBig, more: mixed{
		in(bin0, "x", longHead(0x80, math.MaxInt64)), in(bin0, "x", longHead(0x00, 1<<32-1)), in(bin0, "x", longHead(0x80, 1<<31-1)),
		in(bin0, "x", cont0, "x", longHead(0x80, math.MaxInt64-1))}},
	{name: "A35 long control frames", err: errControl, more: mixed{
		in(ping, string(seq(126))), in(pong, string(seq(126))), in(closed, "\x03\xe8"+string(seq(124))), in(head{0x89, 126, 0xff, 0xff}),
		in(longHead(0x89, 65536)), in(longHead(0x88, 1<<40)), in(longHead(0x8a, math.MaxInt64))}},
	{name: "A36 fragmented control frames", err: errControl, more: mixed{
		in(with(text0, OpPing), ""), in(with(text0, OpPong), "x"), in(with(text0, OpClose), "\x03\xe8"), in(text0, "a", with(text0, OpPing), "")}},
	{name: "A37 continuation of nothing", err: errNoMessage, more: mixed{in(cont, "a"), in(cont0, ""), in(ping, "", cont, "")}, pongs: nil, ping: true},
	{name: "A37 continuation after the end", in: in(text, "a", cont, "b"), want: []string{"text a"}, err: errNoMessage},
	{name: "A37 message inside a message", err: errUnfinished, more: mixed{in(text0, "a", text, "b"), in(bin0, "", cont0, "", bin0, "")}},
	{name: "A38 control frames between fragments", in: then(in(bin0, "a", ping, "1", cont0, "", pong, "2", ping, "", cont, "b"), bye...),
		want: []string{"binary ab"}, pongs: []string{"1", ""}, err: normal},
	{name: "A38 1,000 pings inside a message", in: manyPings(), want: []string{"text Hello"}, pongs: pingNumbers(), err: normal},
	{name: "A39 half a close code", in: in(closed, "\x03"), err: errClosePart},
	{name: "A39 close codes that must not be sent", err: errCloseCode, more: mixed{
		in(closed, "\x00\x00"), in(closed, "\x03\xe7"), in(closed, "\x03\xec"), in(closed, "\x03\xed"), in(closed, "\x03\xee"), in(closed, "\x03\xf7"),
		in(closed, "\x07\xd0x"), in(closed, "\x0b\xb7"), in(closed, "\x13\x88"), in(closed, "\xff\xff")}},
	{name: "A39 close reason of 124 bytes", in: in(closed, "\x03\xe8"+string(seq(124))), err: errControl},
	{name: "A39 close reason of 123 bytes", in: in(closed, "\x03\xe8"+string(seq(123))), err: &CloseError{1000, string(seq(123))}},
	{name: "A39 close reason that is not UTF-8", err: errCloseReason, more: mixed{
		in(closed, "\x03\xe8\xff"), in(closed, "\x03\xe8\xe2\x82"), in(closed, "\x03\xe8ok\xed\xa0\x80")}},
	{name: "A40 after the close frame nothing counts", err: normal, more: mixed{
		then(bye, text, "late"), then(bye, closed, "\x03\xe9"), then(bye, ping, "late"), then(bye, junk("\xff\xff\xff")), then(bye, wrong{text}, "late"),
		then(bye, longHead(0x82, 1<<62)), then(bye, 10*time.Millisecond, text, "late", 10*time.Millisecond, closed, "")}},
	{name: "A40 close inside a message", in: then(in(bin0, "a"), bye...), err: normal},
	{name: "A40 close inside a message, which goes on", in: then(then(in(bin0, "a"), bye...), cont, "b"), err: normal},
	{name: "A41 large messages", limit: 1 << 17, err: normal, want: []string{
		"binary " + string(seq(65535)), "text " + string(seq(65536)), "binary " + string(seq(65537)), "text " + string(seq(65537))},
		in: then(in(bin, string(seq(65535)), text, string(seq(65536)), bin, string(seq(65537)), text0, string(seq(65537)[:65536]), cont, string(seq(65537)[65536:])), bye...)},
	{name: "A43 nothing, in all forms", err: normal, want: []string{"text ", "binary ", "text ", "binary ", "text a", "binary a"},
		in: then(in(text, "", bin, "", text0, "", cont, "", bin0, "", cont0, "", cont, "", text0, "a", cont, "", bin0, "", cont, "a"), bye...)},

	// Text: section 8.1.
	{name: "A44 bad text at any offset", err: errUTF8, more: badTexts()},
	{name: "A44 bad text is good as binary", in: then(in(bin, "\xff\xc0\x80\xed\xa0\x80"), bye...), want: []string{"binary \xff\xc0\x80\xed\xa0\x80"}, err: normal},
	{name: "A45 characters in parts", more: splitTexts(), want: []string{"text " + splitText}, err: normal},
	{name: "A46 bad text in a message that does not end", err: errUTF8, more: mixed{
		in(text0, "a\xff"), in(text0, "ok", cont0, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90"), in(text0, "\xed\xa0", head{0x00, 5})}},
	{name: "A46 bad text in a frame that does not end", in: in(head{0x01, 100}, junk("ok\xc0")), side: "client", err: errUTF8},
	{name: "A46 bad text in a frame that does not end", in: in(head{0x01, 100}, junk("ok\xc0")), side: "server", err: errUTF8},
	{name: "A47 text that ends within a character", err: errUTF8, more: mixed{
		in(text, "a\xce"), in(text, "\xf0\x9f\x98"), in(text0, "\xe2\x82", cont, ""), in(text0, "\xe2", cont0, "\x82", cont, "")}},

	// Limits.
	{name: "A62 empty fragments", err: errFragments, more: mixed{fragments(0, 1026), fragments(0, 5000)}},
	{name: "A62 fragments of a byte", err: errFragments, in: fragments(1, 1060), zip: "off", limit: 1 << 20},
	{name: "A62 as many small fragments as allowed", in: append(then(fragments(0, 1023), cont, ""), bye...), want: []string{"binary "}, err: normal},
	{name: "A63 the limit exactly", err: normal, want: []string{"binary " + string(seq(attackLimit))}, more: mixed{
		then(in(bin, string(seq(attackLimit))), bye...), then(in(bin0, string(seq(attackLimit)[:999]), cont, string(seq(attackLimit)[999:])), bye...)}},
	{name: "A63 a byte more", err: errTooBig, more: mixed{
		in(bin, string(seq(attackLimit+1))), in(bin0, string(seq(attackLimit)), cont, "x"), in(bin0, string(seq(999)), cont0, "xx"),
		in(text0, "a", cont0, string(seq(attackLimit)))}},
	{name: "A61 pongs that nobody asked for", in: then(manyPongs(), bye...), want: []string{"text still here"}, err: normal},

	// Time.
	{name: "A66 half a header, then silence", err: errStalled, at: time.Minute + 30*time.Second, more: mixed{
		in(time.Minute, junk("\x82")), in(time.Minute, junk("\x88"))}},
	{name: "A66 half a payload, then silence", err: errStalled, at: 30 * time.Second, more: mixed{
		in(head{0x82, 5}, junk("Hell")), in(head{0x89, 2}, junk("p")), in(head{0x88, 2}, junk("\x03")), in(head{0x82, 126, 1, 0})}},
	{name: "A66 half a message, then silence", in: in(text0, "Hell"), err: errStalled, at: 30 * time.Second},
	{name: "A66 half a message, then pings", err: errStalled, at: 30*time.Second + 30*time.Second, ping: true,
		in: in(text0, "Hell", 20*time.Second, cont0, "o", 10*time.Second, cont0, "")},
	{name: "A67 a byte every 29 s", limit: 1 << 20, err: errStalled, at: 30 * time.Second, more: mixed{
		in(head{0x82, 126, 1, 0}, 29*time.Second, junk("x"), 29*time.Second, junk("x")),
		in(longHead(0x81, 1<<20), 29*time.Second, junk("x"), 29*time.Second, junk("x"))}},
	{name: "A67 a byte every second", err: errStalled, at: 30 * time.Second, in: append(in(head{0x82, 126, 1, 0}), slowly(1, time.Second, 40)...)},
	{name: "A67 fragments of a byte every 29 s", err: errFragments, limit: 1 << 20, in: slowFragments(), zip: "off", at: 1057 * 29 * time.Second},
	{name: "A67 slow, but fast enough", in: then(append(in(longHead(0x82, 70<<10)), slowly(1<<10, time.Second, 70)...), bye...), limit: 1 << 20, err: normal,
		want: []string{"binary " + strings.Repeat("x", 70<<10)}},
	{name: "A67 a pause between frames", want: []string{"binary abc"}, err: normal,
		in: then(in(bin0, "a", 29*time.Second, cont0, "b", 29*time.Second, cont, "c", 29*time.Second), bye...)},
	{name: "A66 a pause between messages is none", in: then(in(text, "a", time.Hour, text0, "b", 29*time.Second, cont, "c", time.Hour), bye...),
		want: []string{"text a", "text bc"}, err: normal},
	{name: "A68 silence", in: in(time.Minute/6, text, "a"), want: []string{"text a"}, err: ErrPeerTimeout, ping: true, at: 10*time.Second + 45*time.Second},

	// Compression: RFC 7692. The frames are compressed already.
	{name: "A49 a bomb", zip: "on", err: errTooBig, more: mixed{
		in(withRSV(bin, rsv1), bomb(attackLimit+1)), in(withRSV(bin, rsv1), bomb(8<<20)), in(withRSV(text, rsv1), bomb(8<<20)),
		in(withRSV(bin0, rsv1), bomb(1 << 20)[:500], cont0, bomb(1 << 20)[500:])}},
	{name: "A49 as much as the limit", zip: "on", in: then(in(withRSV(bin, rsv1), bomb(attackLimit)), bye...), want: []string{"binary " + string(make([]byte, attackLimit))}, err: normal},
	{name: "A50 blocks that yield nothing", zip: "on", err: errBomb, limit: 1 << 20, more: mixed{
		in(withRSV(bin, rsv1), strings.Repeat("\x00\x00\x00\xff\xff", 14_000)), in(withRSV(bin, rsv1), strings.Repeat("\x02\x08\x20\x80\x00", 14_000))}},
	{name: "A51 garbage", zip: "on", err: errInflate, more: mixed{
		in(withRSV(text, rsv1), "\xff\xff\xff"), in(withRSV(bin, rsv1), "\x07"), in(withRSV(bin, rsv1), hello[:3]),
		in(withRSV(bin0, rsv1), hello[:3], cont, ""), in(withRSV(bin, rsv1), "\x01\x05\x00\xfa\xffHell")}},
	{name: "A51 odd but legal", zip: "on", err: normal, want: []string{"text Hello"}, more: mixed{
		then(in(withRSV(text, rsv1), hello), bye...),
		then(in(withRSV(text, rsv1), hello+"\x00\x00\xff\xff"), bye...),                                                   // the tail was not cut
		then(in(withRSV(text, rsv1), "\xf3H\xcd\xc9\xc9\x07\x00\x00"), bye...),                                            // a final block
		then(in(withRSV(text, rsv1), "\xf3H\xcd\xc9\xc9\x07\x00\x03\x00\x00"), bye...),                                    // two
		then(in(withRSV(text0, rsv1), hello[:1], ping, "", cont0, hello[1:2], cont0, "", cont, hello[2:]), bye...)}, ping: true},
	{name: "A51 junk behind a final block", zip: "on", err: errInflate, in: in(withRSV(text, rsv1), "\xf3H\xcd\xc9\xc9\x07\x00\xff\xff\xff")},
	{name: "A52 before the beginning", zip: "on", err: errInflate, in: in(withRSV(text, rsv1), "\xf2\x00\x11\x00\x00")},
	{name: "A55 nothing, compressed", zip: "on", err: normal, want: []string{"text ", "binary ", "binary "},
		in: then(in(withRSV(text, rsv1), "\x00", withRSV(bin0, rsv1), "", cont, "\x00", withRSV(bin, rsv1), ""), bye...)},
	{name: "A56 an empty first frame", zip: "on", err: normal, want: []string{"text Hello"},
		in: then(in(withRSV(text0, rsv1), "", cont, hello), bye...)},
	{name: "A44 bad text, compressed", zip: "on", err: errUTF8, more: mixed{
		in(withRSV(text, rsv1), string(flate.Compress(nil, []byte("ok\xff"), nil, 15))),
		in(withRSV(text0, rsv1), string(flate.Compress(nil, []byte("ok\xff"), nil, 15))+"\x00\x00\xff\xff")}},
}

const hello = "\xf2H\xcd\xc9\xc9\x07\x00" // RFC 7692 section 7.2.3.1

// bomb is n zeros, compressed.
func bomb(n int) string { return string(flate.Compress(nil, make([]byte, n), nil, 15)) }

func reservedOpcodes() (all mixed) {
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		all = append(all, in(head{0x80 | op, 0}), in(head{op, 125}), in(longHead(0x80|op, 1<<16)), in(longHead(op, 1<<40)))
	}
	return all
}

func manyPings() []any {
	all := in(text0, "He")
	for i := range 1000 {
		all = append(all, ping, strconv.Itoa(i))
	}
	return then(append(all, cont, "llo"), bye...)
}

func pingNumbers() (all []string) {
	for i := range 1000 {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

func manyPongs() (all []any) {
	for i := range 200 {
		all = append(all, pong, "", pong, "\x00\x00\x00\x00\x00\x00\x00\x01", pong, string(seq(i%126)))
	}
	return append(all, text, "still here")
}

// slowly sends n parts of x's, with pauses.
func slowly(size int, pause time.Duration, n int) (all []any) {
	for range n {
		all = append(all, pause, junk(strings.Repeat("x", size)))
	}
	return all
}

func slowFragments() []any {
	all := in(bin0, "x")
	for range 2000 {
		all = append(all, 29*time.Second, cont0, "x")
	}
	return all
}

func fragments(size, n int) []any {
	all := in(bin0, strings.Repeat("x", size))
	for range n - 1 {
		all = append(all, cont0, strings.Repeat("x", size))
	}
	return all
}

// badTexts are the hard cases that are not text, at all offsets modulo 8, with
// and without something behind them, whole and in two frames.
func badTexts() (all mixed) {
	for _, c := range hardUTF8 {
		for i := range 8 {
			s := "12345678abcdefgh"[:i] + c.text + "12345678abcdefghijklmnop"[:24*(i%2)]
			if !utf8.ValidString(s) {
				all = append(all, in(text, s), in(text0, s[:i], cont, s[i:]))
			}
		}
	}
	return all
}

const splitText = "aκόσμε€😀\u0000\U0010ffffz"

// splitTexts are splitText in three frames, cut everywhere.
func splitTexts() (all mixed) {
	for i := range len(splitText) + 1 {
		for _, j := range []int{i, i + 1, i + 2, i + 3} {
			if j <= len(splitText) {
				all = append(all, then(in(text0, splitText[:i], cont0, splitText[i:j], cont, splitText[j:]), bye...))
			}
		}
	}
	return all
}

// The table, in all modes.
func TestAttacks(t *testing.T) {
	config, _ := certificate(t)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { a.check(t, config) })
	}
}
