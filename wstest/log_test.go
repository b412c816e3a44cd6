package wstest

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// unmasked takes the masks off all whole frames in b.
func unmasked(b []byte) (out []byte) {
	if isHead(b) {
		head, rest, ok := bytes.Cut(b, []byte("\r\n\r\n"))
		if !ok {
			return b
		}
		out, b = append(out, head...), rest
	}
	for len(b) > 0 {
		h, n := websocket.ParseHeader(b)
		if n <= 0 || int64(len(b)-n) < h.Len {
			return append(out, b...)
		}
		data := bytes.Clone(b[n : n+int(h.Len)])
		websocket.Mask(data, h.Key)
		b = b[n+int(h.Len):]
		h.Key = 0
		out = append(websocket.AppendHeader(out, h), data...)
	}
	return out
}

// Whatever passes, in whatever pieces: what a log says is what has passed, but
// for masks.
func FuzzLog(f *testing.F) {
	p := NewPeer(nil, nil, Client)
	frames := p.Bytes(
		Frame{Op: websocket.OpText, Payload: "Hello ]\"[ \\ # \x00\x01\xff"}, Frame{Op: websocket.OpText, RSV: 4, More: true, Payload: "\xf2"},
		Frame{}, Frame{Op: 3, RSV: 3}, CloseFrame(4000, "1000"), CloseFrame(1005, ""), CloseFrame(65535, "\xff"), Frame{Op: websocket.OpClose, Payload: "a"},
		Frame{Op: websocket.OpPing, Payload: "beef"}, Frame{Op: websocket.OpPong, Payload: "\xbe\xef"})
	p.Role = Server
	frames = append(frames, p.Bytes(Frame{Op: websocket.OpBinary, Payload: string(make([]byte, 300))}, Frame{Op: websocket.OpText, Payload: "rsv=1"})...)
	for _, size := range []byte{1, 2, 7, 100, 255} {
		f.Add(frames, size)
		f.Add(append([]byte("GET / HTTP/1.1\r\nA: b\r\n\r\n"), frames...), size)
		f.Add([]byte("\x81\xfe\x00\x01 no frame at all"), size)
	}
	f.Fuzz(func(t *testing.T, in []byte, size byte) {
		var tr tracker
		var log, got []byte
		for rest := in; len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			log = append(log, "0s recv "+tr.format(rest[:n])+"\n"...)
			rest = rest[n:]
		}
		events, err := parseLog(string(log))
		require.NoError(t, err, string(log))
		for _, e := range events {
			got = append(got, e.data...)
		}
		require.Equal(t, unmasked(in), unmasked(got), string(log))
	})
}

// Any text is a log or is refused.
func FuzzParseLog(f *testing.F) {
	f.Add("1s recv [masked text more rsv=100 \"a\" 00] # why\n\n# comment\nclose\n2s send EOF\nrecv 8\nrecv [close 1000")
	f.Add("recv [close 99999999]\nrecv [rsv=9 text]\nrecv [opcode=16]\nrecv []\nrecv [text x]")
	f.Fuzz(func(t *testing.T, log string) { parseLog(log) })
}

func TestParseFrameText(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{`text "Hello"`, "\x81\x05Hello", ""},
		{`masked text "Hello"`, "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", ""}, // RFC 6455 section 5.7
		{`text more "Hel"`, "\x01\x03Hel", ""},
		{`continuation "lo"`, "\x80\x02lo", ""},
		{`ping`, "\x89\x00", ""},
		{`pong beef "text"`, "\x8a\x06\xbe\xeftext", ""},
		{`close "\x03"`, "\x88\x01\x03", ""},
		{`close 3`, "\x88\x02\x00\x03", ""},
		{`binary rsv=101 00`, "\xd2\x01\x00", ""},
		{`opcode=3`, "\x83\x00", ""},
		{`close`, "\x88\x00", ""},
		{`close 4000`, "\x88\x02\x0f\xa0", ""},
		{`close 1000 "bye"`, "\x88\x05\x03\xe8bye", ""},
		{``, "", "frame without a name"},
		{`masked`, "", "frame without a name"},
		{`txt`, "", `"txt" is no part of a frame`},
		{`text now`, "", `"now" is no part of a frame`},
		{`close 99999`, "", `strconv.ParseUint: parsing "99999": value out of range`},
		{`close 9x99`, "", `strconv.ParseUint: parsing "9x99": invalid syntax`},
		{`text rsv=8`, "", `strconv.ParseUint: parsing "8": invalid syntax`},
		{`opcode=16`, "", `strconv.ParseUint: parsing "16": value out of range`},
	} {
		got, err := parseFrameText(c.text)
		if c.err != "" {
			require.EqualError(t, err, c.err, c.text)
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, string(got), c.text)
		f, masked := parseFrame(got)
		require.Equal(t, c.text, formatFrame(f, masked))
	}
}
