package autobahn

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// RFC 6455 5.7 has these examples.
func TestFrameExamples(t *testing.T) {
	key := uint32(0x37fa213d)
	for _, tt := range []struct {
		frame  frame
		masked bool
		want   string
	}{
		{text("Hello"), false, "810548656c6c6f"},
		{text("Hello"), true, "818537fa213d7f9f4d5158"},
		{text("Hel").open(), false, "010348656c"},
		{cont("lo"), false, "80026c6f"},
		{ping("Hello"), false, "890548656c6c6f"},
		{pong("Hello"), true, "8a8537fa213d7f9f4d5158"},
		{octets("817e0005", "Hello"), true, "81fe000537fa213d7f9f4d5158"},
		{closeWith(1000, "").bits(7), false, "f80203e8"},
	} {
		require.Equal(t, tt.want, hexOf(tt.frame.append(nil, tt.masked, key)))
	}
	require.Equal(t, "827e0100", hexOf(binaryf(make([]byte, 256)).append(nil, false, 0)[:4]))
	require.Equal(t, "827f0000000000010000", hexOf(binaryf(make([]byte, 65536)).append(nil, false, 0)[:10]))
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestHeaderInParts(t *testing.T) {
	for _, n := range []int{0, 125, 126, 65535, 65536} {
		for _, masked := range []bool{false, true} {
			f := binaryf(make([]byte, n))
			b := f.append(nil, masked, 0x01020304)
			size := f.headLen(masked)
			for i := range size {
				_, got := parseHeader(b[:i])
				require.Zero(t, got)
			}
			h, got := parseHeader(b[:size])
			require.Equal(t, size, got)
			require.Equal(t, uint64(n), h.length)
			require.True(t, h.minimal())
			require.Equal(t, masked, h.masked)
		}
	}
	h, _ := parseHeader(unhex("827e007d"))
	require.False(t, h.minimal())
}

// The fuzzer's fragments: an exact multiple ends in an empty one, a short payload is not cut (catalogue, section 6).
func TestFragments(t *testing.T) {
	for _, tt := range []struct {
		n, size int
		want    string
	}{{3, 4, "3"}, {4, 4, "4"}, {5, 4, "4 1"}, {8, 4, "4 4 0"}, {0, 1, "0"}, {2, 1, "1 1 0"}, {9, 0, "9"}} {
		var got []string
		var all []byte
		fs := fragments(opText, []byte(stars(tt.n)), tt.size)
		for i, f := range fs {
			got = append(got, string(rune('0'+len(f.payload))))
			all = append(all, f.payload...)
			require.Equal(t, i == 0, f.op == opText)
			require.Equal(t, i < len(fs)-1, f.more)
		}
		require.Equal(t, tt.want, strings.Join(got, " "))
		require.Equal(t, stars(tt.n), string(all))
	}
}

// What a talk sends in one go is cut as fragments says.
func TestTalkFragments(t *testing.T) {
	for _, size := range []int{0, 7, 64, 1 << 20} {
		r := newRun(&Case{}, &Config{}, false)
		r.wire = newWire(nil)
		r.talk = &talk{op: opText, fragment: size, want: func(k int) []byte { return corpusJSON().slice(k, 4096) }}
		r.talk.tape = newTape(corpusJSON(), 4096, 10, codecTerms{15, true})
		r.talk.send(r)
		j, ok := r.wire.next()
		require.True(t, ok)
		var want []byte
		for i, f := range fragments(opText, r.talk.tape.payload(0), size) {
			if i == 0 {
				f.rsv = rsv1
			}
			want = f.append(want, false, 0)
		}
		require.True(t, bytes.Equal(want, j.data), "size %d", size)
	}
}

func TestExtensions(t *testing.T) {
	for _, tt := range []struct {
		offer  string
		answer answer
		want   string
		bad    bool
	}{
		{"", answer{}, "", false},
		{plainOffer, answer{}, "permessage-deflate", false},
		{"x, " + plainOffer, answer{noTakeover: true}, "permessage-deflate; client_no_context_takeover", false},
		{"permessage-deflate", answer{bits: 9}, "", false},
		{"permessage-deflate, " + plainOffer, answer{bits: 9}, "permessage-deflate; client_max_window_bits=9", false},
		{"permessage-deflate", answer{bits: 9, noTakeover: true, optional: true}, "permessage-deflate; client_no_context_takeover", false},
		{"permessage-deflate; client_max_window_bits=10", answer{bits: 15}, "permessage-deflate; client_max_window_bits=10", false},
		{plainOffer + "; server_no_context_takeover; server_max_window_bits=9", answer{},
			"permessage-deflate; server_no_context_takeover; server_max_window_bits=9", false},
		{"permessage-deflate; server_max_window_bits", answer{}, "", true},
		{"permessage-deflate; server_max_window_bits=16", answer{}, "", true},
		{"permessage-deflate; x", answer{}, "", true},
		{"permessage-deflate; client_max_window_bits; client_max_window_bits", answer{}, "", true},
		{"permessage-deflate;;", answer{}, "", true},
	} {
		got, terms, err := tt.answer.respond(tt.offer)
		require.Equal(t, tt.bad, err != nil, tt.offer)
		require.Equal(t, tt.want, got, tt.offer)
		require.Equal(t, tt.want != "", terms != nil, tt.offer)
	}
}
