package websocket

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run feeds parts to a machine and tells what came out, one event a line:
// messages whole, control frames, and the error.
func run(m machine, parts ...[]byte) string {
	var out strings.Builder
	var msg []byte
	for _, b := range parts {
		for b = bytes.Clone(b); len(b) > 0; {
			p, n, err := m.next(b)
			if err != nil {
				fmt.Fprintf(&out, "error %v\n", err)
				return out.String()
			}
			b = b[n:]
			switch {
			case p.op == 0:
				continue
			case p.op.control():
				fmt.Fprintf(&out, "%x %x\n", byte(p.op), p.data)
				continue
			case p.first:
				msg = msg[:0]
			}
			if msg = append(msg, p.data...); p.last {
				fmt.Fprintf(&out, "%x %x\n", byte(p.op), msg)
			}
		}
	}
	if m.midway() {
		out.WriteString("midway\n")
	}
	return out.String()
}

// frames builds input for a client, unmasked: "fin opcode payload" each.
func frames(hs ...any) []byte {
	var b []byte
	for i := 0; i < len(hs); i += 2 {
		h := hs[i].(Header)
		p := []byte(hs[i+1].(string))
		h.Len = int64(len(p))
		n := len(AppendHeader(b, h))
		b = append(AppendHeader(b, h), p...)
		if h.Masked {
			Mask(b[n:], h.Key)
		}
	}
	return b
}

var (
	text   = Header{Fin: true, Opcode: OpText}
	text0  = Header{Opcode: OpText}
	bin    = Header{Fin: true, Opcode: OpBinary}
	bin0   = Header{Opcode: OpBinary}
	cont   = Header{Fin: true}
	cont0  = Header{}
	ping   = Header{Fin: true, Opcode: OpPing}
	pong   = Header{Fin: true, Opcode: OpPong}
	closed = Header{Fin: true, Opcode: OpClose}
)

func masked(h Header, key uint32) Header {
	h.Masked, h.Key = true, key
	return h
}

func withRSV(h Header, rsv byte) Header {
	h.RSV = rsv
	return h
}

func with(h Header, op Opcode) Header {
	h.Opcode = op
	return h
}

var machineCases = []struct {
	name   string
	server bool
	in     []byte
	want   string
}{
	// RFC 6455 section 5.7
	{"text", false, frames(text, "Hello"), "1 48656c6c6f\n"},
	{"masked text", true, frames(masked(text, 0x3d21fa37), "Hello"), "1 48656c6c6f\n"},
	{"fragments", false, frames(text0, "Hel", cont, "lo"), "1 48656c6c6f\n"},
	{"ping and pong", false, frames(ping, "Hello", pong, ""), "9 48656c6c6f\na \n"},
	{"close", false, frames(closed, "\x03\xe8bye"), "8 03e8627965\n"},
	// Section 5.4
	{"control frames between fragments", false,
		frames(bin0, "a", ping, "1", cont0, "", pong, "2", cont, "b"), "9 31\na 32\n2 6162\n"},
	{"each fragment has its own key", true,
		frames(masked(bin0, 0), "abc", masked(ping, 5), "x", masked(cont, 0xdeadbeef), "de"), "9 78\n2 6162636465\n"},
	{"empty messages (A43)", false, frames(text, "", bin0, "", cont0, "", cont, ""), "1 \n2 \n"},
	{"continuation of nothing (A37)", false, frames(cont, "a"), "error websocket: peer failed: 1002 protocol error: continuation of no message\n"},
	{"continuation after the end (A37)", false, frames(text, "a", cont0, "b"), "1 61\nerror websocket: peer failed: 1002 protocol error: continuation of no message\n"},
	{"message inside a message (A37)", false, frames(text0, "a", text, "b"), "error websocket: peer failed: 1002 protocol error: message inside a message\n"},
	// Section 5.2
	{"RSV1 (A29)", false, frames(withRSV(text, rsv1), "a"), "error websocket: peer failed: 1002 protocol error: reserved bit set\n"},
	{"RSV2 (A29)", false, frames(text, "good", withRSV(ping, rsv2), "a"), "1 676f6f64\nerror websocket: peer failed: 1002 protocol error: reserved bit set\n"},
	{"RSV3 (A29)", false, frames(text0, "a", withRSV(cont, rsv3), "a"), "error websocket: peer failed: 1002 protocol error: reserved bit set\n"},
	{"opcode 3 (A31)", false, frames(with(text, 3), ""), "error websocket: peer failed: 1002 protocol error: unknown opcode\n"},
	{"opcode 15 (A31)", false, frames(with(text0, 15), strings.Repeat("a", 200)), "error websocket: peer failed: 1002 protocol error: unknown opcode\n"},
	{"length not minimal (A32)", false, []byte{0x81, 126, 0, 5, 'H', 'e', 'l', 'l', 'o'}, "error websocket: peer failed: 1002 protocol error: malformed frame length\n"},
	{"length with its top bit set (A33)", false, []byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, "error websocket: peer failed: 1002 protocol error: malformed frame length\n"},
	// Section 5.1
	{"unmasked to a server (A27)", true, frames(text, "a"), "error websocket: peer failed: 1002 protocol error: unmasked frame from a client\n"},
	{"masked to a client (A28)", false, frames(masked(text, 1), "a"), "error websocket: peer failed: 1002 protocol error: masked frame from a server\n"},
	// Section 5.5
	{"longest ping", false, frames(ping, strings.Repeat("p", 125)), "9 " + strings.Repeat("70", 125) + "\n"},
	{"ping too long (A35)", false, frames(ping, strings.Repeat("p", 126)), "error websocket: peer failed: 1002 protocol error: fragmented or oversized control frame\n"},
	{"fragmented close (A36)", false, frames(Header{Opcode: OpClose}, "\x03\xe8"), "error websocket: peer failed: 1002 protocol error: fragmented or oversized control frame\n"},
	// Section 8.1
	{"UTF-8 over fragments (A45)", false, frames(text0, "\xf0\x90", ping, "", cont0, "\x8d", cont, "\x88"), "9 \n1 f0908d88\n"},
	{"bad UTF-8 (A44)", false, frames(text, "a\xff"), "error websocket: peer failed: 1007 invalid frame payload data: invalid UTF-8\n"},
	{"bad UTF-8 in an endless message (A46)", false, frames(text0, "\xed\xa0", cont0, "a"), "error websocket: peer failed: 1007 invalid frame payload data: invalid UTF-8\n"},
	{"ends within a character (A47)", false, frames(text0, "\xce", cont, ""), "error websocket: peer failed: 1007 invalid frame payload data: invalid UTF-8\n"},
	{"binary is not text", false, frames(bin, "\xff\xfe"), "2 fffe\n"},
	// Limits: machineLimit is 1000.
	{"as large as allowed (A63)", false, frames(bin0, strings.Repeat("x", 999), cont, "x"), "2 " + strings.Repeat("78", 1000) + "\n"},
	{"too large at once (A33)", false, frames(bin, strings.Repeat("x", 1001)), "error websocket: peer failed: 1009 message too big: message too big\n"},
	{"too large in sum (A63)", false, frames(bin0, strings.Repeat("x", 999), cont0, "xx"), "error websocket: peer failed: 1009 message too big: message too big\n"},
	{"sum that overflows (A34)", false, append(frames(bin0, "x"), 0x80, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), "error websocket: peer failed: 1009 message too big: message too big\n"},
	{"unfinished header", false, []byte{0x81}, "midway\n"},
	{"unfinished payload", false, []byte{0x81, 2, 'a'}, "midway\n"},
	{"unfinished ping", false, []byte{0x89, 2, 'a'}, "midway\n"},
	{"unfinished message", false, frames(text0, "abc"), "midway\n"},
}

const machineLimit = 1000

func newMachine(server bool) machine { return machine{client: !server, limit: machineLimit} }

// One invariant says it all: every way to cut the same input gives the same
// messages, replies and error (A41).
func TestMachine(t *testing.T) {
	for _, c := range machineCases {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, run(newMachine(c.server), c.in))
			require.Equal(t, c.want, run(newMachine(c.server), bytes.SplitAfter(c.in, []byte{})...), "a byte at a time")
			for i := range c.in {
				require.Equal(t, c.want, run(newMachine(c.server), c.in[:i], c.in[i:]), "cut at %d", i)
			}
		})
	}
}

// All cuts into three of a nasty sequence.
func TestMachineAllCuts(t *testing.T) {
	in := frames(
		masked(text0, 0x01020304), "h\xc3", masked(ping, 0xffff0000), "p", masked(cont0, 7), "",
		masked(cont, 0xa0b0c0d0), "\xa9", masked(bin, 9), strings.Repeat("b", 130), masked(closed, 11), "\x03\xe9x")
	want := run(newMachine(true), in)
	require.Equal(t, 4, strings.Count(want, "\n"))
	for i := range in {
		for j := i; j < len(in); j++ {
			if got := run(newMachine(true), in[:i], in[i:j], in[j:]); got != want {
				t.Fatalf("cut at %d and %d: %s", i, j, got)
			}
		}
	}
}

// DESIGN section 8, attack row A62: small fragments are counted.
func TestMachineFragments(t *testing.T) {
	for _, c := range []struct {
		size, count int
		want        string
	}{
		{0, 1025, "1008"},
		{1, 1060, "1008"},
		{0, 1023, ""},
		{64, 65536, ""}, // Autobahn 9.3.1
	} {
		m := machine{client: true, limit: 64 << 20}
		in := frames(bin0, strings.Repeat("x", c.size))
		for range c.count - 1 {
			in = append(in, frames(cont0, strings.Repeat("x", c.size))...)
		}
		got := run(m, in)
		if c.want == "" {
			require.Equal(t, "midway\n", got, c)
		} else {
			require.Contains(t, got, c.want, c)
		}
	}
}

// A header is refused before its payload has come, and before anything is
// allocated for it (A31, A33).
func TestMachineAllocatesNothing(t *testing.T) {
	for _, in := range [][]byte{
		frames(bin, "hello"),
		{0x83, 0},
		{0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		b := bytes.Clone(in)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			m := newMachine(false)
			m.next(b)
		}))
	}
}
