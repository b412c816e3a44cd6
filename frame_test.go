package websocket

import (
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
)

// unhex reads hex with blanks in it.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits []byte
	for i := range len(s) {
		if s[i] != ' ' && s[i] != '\n' && s[i] != '\t' {
			digits = append(digits, s[i])
		}
	}
	b, err := hex.DecodeString(string(digits))
	require.NoError(t, err)
	return b
}

// RFC 6455 section 5.2 and the examples of section 5.7.
var headers = []struct {
	name string
	hex  string
	h    Header
}{
	{"unmasked text", "8105", Header{Fin: true, Opcode: OpText, Len: 5}},
	{"masked text", "8185 37fa213d", Header{Fin: true, Opcode: OpText, Masked: true, Key: 0x3d21fa37, Len: 5}},
	{"first fragment", "0103", Header{Opcode: OpText, Len: 3}},
	{"last fragment", "8002", Header{Fin: true, Opcode: OpContinuation, Len: 2}},
	{"ping", "8905", Header{Fin: true, Opcode: OpPing, Len: 5}},
	{"masked pong", "8a85 37fa213d", Header{Fin: true, Opcode: OpPong, Masked: true, Key: 0x3d21fa37, Len: 5}},
	{"256 bytes", "827e 0100", Header{Fin: true, Opcode: OpBinary, Len: 256}},
	{"64 KiB", "827f 0000000000010000", Header{Fin: true, Opcode: OpBinary, Len: 65536}},
	{"empty close", "8800", Header{Fin: true, Opcode: OpClose}},
	{"RSV1", "c100", Header{Fin: true, RSV: rsv1, Opcode: OpText}},
	{"RSV2", "a100", Header{Fin: true, RSV: rsv2, Opcode: OpText}},
	{"RSV3", "9100", Header{Fin: true, RSV: rsv3, Opcode: OpText}},
	{"all bits", "ffff 7fffffffffffffff ffffffff", Header{true, 7, 15, true, math.MaxUint32, math.MaxInt64}},
	{"longest 7-bit length", "827d", Header{Fin: true, Opcode: OpBinary, Len: 125}},
	{"shortest 16-bit length", "827e 007e", Header{Fin: true, Opcode: OpBinary, Len: 126}},
	{"longest 16-bit length", "827e ffff", Header{Fin: true, Opcode: OpBinary, Len: 65535}},
}

func TestHeader(t *testing.T) {
	for _, c := range headers {
		t.Run(c.name, func(t *testing.T) {
			b := unhex(t, c.hex)
			h, n := ParseHeader(append(b[:len(b):len(b)], 0xEE))
			require.Equal(t, len(b), n)
			require.Equal(t, c.h, h)
			require.Equal(t, append([]byte("before"), b...), AppendHeader([]byte("before"), c.h))
			for cut := range b {
				h, n := ParseHeader(b[:cut])
				require.Zero(t, n, "%d bytes are not a header yet", cut)
				require.Zero(t, h)
			}
		})
	}
}

// RFC 6455 section 5.2: the minimal number of bytes must be used, and the top
// bit of a 64-bit length must be 0. Attack rows A32, A33.
func TestParseHeaderRefusesLengths(t *testing.T) {
	for _, s := range []string{
		"827e 0000", "827e 007d", "fe7e 0001",
		"827f 0000000000000000", "827f 000000000000007d", "827f 000000000000ffff",
		"827f 80", "827f 8000000000000000", "827f ffffffffffffffff", "82ff 80", "82fe 0000",
	} {
		_, n := ParseHeader(unhex(t, s))
		require.Negative(t, n, s)
	}
}

// What does not fit is dropped, and the result is a header all the same.
func TestAppendHeaderOfNonsense(t *testing.T) {
	b := AppendHeader(nil, Header{RSV: 0xff, Opcode: 0xff, Len: -1})
	h, n := ParseHeader(b)
	require.Equal(t, 2, n)
	require.Equal(t, Header{RSV: 7, Opcode: 15}, h)
}

// Every length has one form, and it is the shortest.
func FuzzHeader(f *testing.F) {
	for _, c := range headers {
		f.Add(unhex(f, c.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		var n int
		budget.Check(t, len(b), 0, func() { h, n = ParseHeader(b) })
		switch {
		case n > MaxHeaderSize || n > len(b):
			t.Fatalf("%d bytes used of %d", n, len(b))
		case n > 0:
			require.GreaterOrEqual(t, h.Len, int64(0))
			require.Equal(t, b[:n], AppendHeader(nil, h))
		case n < 0:
			for more := range 256 { // no byte mends it
				_, n := ParseHeader(append(b[:len(b):len(b)], byte(more)))
				require.Negative(t, n)
			}
		default:
			require.Less(t, len(b), MaxHeaderSize)
		}
	})
}

func TestOpcode(t *testing.T) {
	for o := range Opcode(16) {
		known := map[Opcode]bool{0: true, 1: true, 2: true, 8: true, 9: true, 10: true}[o]
		require.Equal(t, known, o.known(), o)
		require.Equal(t, o >= 8, o.control(), o)
	}
}
