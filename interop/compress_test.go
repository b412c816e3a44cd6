package interop

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

func TestCompressWS(t *testing.T)       { compression(t, newWS(t), newHost(t, true)) }
func TestCompressNode(t *testing.T)     { compression(t, newBuiltin(t), newHost(t, true)) }
func TestCompressPython(t *testing.T)   { compression(t, newPython(t), newHost(t, true)) }
func TestCompressChromium(t *testing.T) { h := newHost(t, true); compression(t, newChromium(t, h), h) }

// Terms are what one side asks for, and what both then agree on.
type terms struct {
	name   string
	ours   *websocket.Compression
	theirs *deflate
	agreed string
	in     bool // what they send keeps its window
	out    bool // what we send does
}

// compression tries all that can be agreed on.
func compression(t *testing.T, p *peer, h *host) {
	for _, r := range p.roles() {
		t.Run(string(r), func(t *testing.T) {
			for _, c := range append(ourTerms(p), theirTerms(p, r)...) {
				t.Run(c.name, func(t *testing.T) {
					l := h.connect(t, p, r, setup{config: websocket.Config{Compression: c.ours}, peer: c.theirs})
					require.Equal(t, c.agreed, l.extensions)
					newTalk(l).all(c)
				})
			}
		})
	}
}

// ourTerms are those that we ask for: every window, with takeover and without.
func ourTerms(p *peer) (all []terms) {
	for bits := 8; bits <= 15; bits++ {
		if bits == 8 && !p.eight {
			continue
		}
		cw, sw := fmt.Sprintf("; client_max_window_bits=%d", bits), fmt.Sprintf("; server_max_window_bits=%d", bits)
		if bits == 15 {
			cw, sw = "", "" // need not be said
		}
		all = append(all, terms{
			name:   fmt.Sprintf("our window %d", bits),
			ours:   &websocket.Compression{WindowBits: bits, Threshold: 1},
			theirs: &deflate{ServerTakeover: true, ClientTakeover: true},
			agreed: "permessage-deflate" + cw + "; client_no_context_takeover" + sw + "; server_no_context_takeover",
		}, terms{
			name:   fmt.Sprintf("our window %d with takeover", bits),
			ours:   &websocket.Compression{WindowBits: bits, Threshold: 1, Takeover: true},
			theirs: &deflate{ServerTakeover: true, ClientTakeover: true},
			agreed: "permessage-deflate" + cw + sw,
			in:     true,
			out:    true,
		})
	}
	return all
}

// theirTerms are those that the peer asks for: a window for each direction, and
// takeover in both, one or none. A web client cannot ask for anything.
func theirTerms(p *peer, r role) (all []terms) {
	if !p.server {
		return nil
	}
	for bits := 8; bits <= 15; bits++ {
		d := deflate{ServerBits: bits, ClientBits: 23 - bits}
		if !p.eight { // of what it sends itself
			if r == server {
				d.ServerBits = max(d.ServerBits, 9)
			} else {
				d.ClientBits = max(d.ClientBits, 9)
			}
		}
		for i := range 4 {
			d.ServerTakeover, d.ClientTakeover = i&1 != 0, i&2 != 0
			all = append(all, d.terms(r))
		}
	}
	return all
}

// terms are those that a peer in this role asks for with d.
func (d deflate) terms(r role) terms {
	c := terms{
		name:   fmt.Sprintf("their windows server %d client %d", d.ServerBits, d.ClientBits),
		ours:   &websocket.Compression{Takeover: true, Threshold: 1},
		theirs: &d,
		agreed: fmt.Sprintf("permessage-deflate; client_max_window_bits=%d", d.ClientBits),
		in:     d.ServerTakeover,
		out:    d.ClientTakeover,
	}
	if r == client {
		c.in, c.out = c.out, c.in
	}
	if d.ClientTakeover {
		c.name += " client takeover"
	} else {
		c.agreed += "; client_no_context_takeover"
	}
	c.agreed += fmt.Sprintf("; server_max_window_bits=%d", d.ServerBits)
	if d.ServerTakeover {
		c.name += " server takeover"
	} else {
		c.agreed += "; server_no_context_takeover"
	}
	return c
}

// A talk is a conversation in which somebody else reads, by callbacks.
type talk struct {
	*link
	got chan websocket.Message
	end chan error
}

func newTalk(l *link) *talk {
	k := &talk{l, make(chan websocket.Message, 256), make(chan error, 1)}
	go func() {
		k.end <- l.c.Serve(context.Background(), &websocket.Handler{
			Message: func(_ *websocket.Conn, m websocket.Message) { k.got <- m.Clone() },
		})
	}()
	return k
}

// back sees a message come back.
func (k *talk) back(m websocket.Message) {
	k.t.Helper()
	select {
	case got := <-k.got:
		k.same(m, got)
	case err := <-k.end:
		require.FailNow(k.t, "the connection has ended", "%v", err)
	case <-k.ctx.Done():
		require.FailNow(k.t, "no message comes back")
	}
}

// cost sends messages, sees them come back, and returns how many bytes that
// took, of which so many were the messages'.
func (k *talk) cost(messages ...websocket.Message) (out, in, size int64) {
	k.t.Helper()
	out, in = k.wire.out.Load(), k.wire.in.Load()
	for _, m := range messages {
		require.NoError(k.t, k.c.Write(k.ctx, m))
		size += int64(len(m.Data))
	}
	for _, m := range messages {
		k.back(m)
	}
	return k.wire.out.Load() - out, k.wire.in.Load() - in, size
}

// all says everything that there is to say.
func (k *talk) all(c terms) {
	json := small(400)
	var list bytes.Buffer
	for _, m := range json {
		list.Write(append(m.Data, '\n'))
	}
	out, in, size := k.cost(websocket.Binary(list.Bytes()))
	require.Less(k.t, out, size/2, "we do not compress")
	if k.p.packs {
		require.Less(k.t, in, size/2, "they do not compress")
	}

	out, in, size = k.cost(json[:100]...)
	if c.out {
		require.Less(k.t, out, size/2, "we do not keep the window")
	} else {
		require.Greater(k.t, out, size/2, "we keep the window")
	}
	if k.p.packs && c.in {
		require.Less(k.t, in, size/2, "they do not keep the window")
	} else {
		require.Greater(k.t, in, size/2, "they keep the window")
	}

	random := noise(10_000)
	out, _, size = k.cost(websocket.Binary(random))
	require.LessOrEqual(k.t, out, size+8, "what cannot be compressed has grown")

	k.cost(websocket.Text(chinese), far(), websocket.Text(""), websocket.Text("x"), far())
	k.kinds(json)
	require.NoError(k.t, k.c.Close(websocket.CloseNormalClosure, ""))
	require.Equal(k.t, 1000, k.expect("closed").Code)
	<-k.end
}

// kinds sends in all the ways that there are.
func (k *talk) kinds(json []websocket.Message) {
	prepared := websocket.Prepare(json[7])
	plain := json[8]
	plain.Plain = true
	all := []websocket.Message{json[5], prepared, json[6], plain, prepared, far(), prepared}
	for _, m := range all {
		require.NoError(k.t, k.c.Queue(m))
	}
	require.NoError(k.t, k.c.Flush(k.ctx))
	for _, m := range all {
		k.back(m)
	}

	m := websocket.Text(strings.Repeat(chinese, 3))
	w, err := k.c.Writer(k.ctx, m.Type)
	require.NoError(k.t, err)
	for rest := m.Data; len(rest) > 0; rest = rest[min(1000, len(rest)):] {
		_, err := w.Write(rest[:min(1000, len(rest))])
		require.NoError(k.t, err)
	}
	require.NoError(k.t, w.Close())
	k.back(m)
	k.cost(json[9])
}

// chinese is the Thousand Character Classic's beginning, again and again with
// something new between.
var chinese = func() string {
	const text = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。寒來暑往，秋收冬藏。閏餘成歲，律呂調陽。"
	var b strings.Builder
	for i := range 120 {
		fmt.Fprintf(&b, "%s%c%d\n", text, rune(0x4e00+i*7), i)
	}
	return b.String()
}()

// far is made of blocks of noise that come again at all distances, around the
// size of every window and beyond the largest.
func far() websocket.Message {
	pool := noise(1 << 16)
	var b []byte
	for _, gap := range []int{100, 226, 240, 256, 270, 480, 512, 530, 1000, 1024, 2020, 2048, 4090, 4096, 8190, 8192, 16300, 16384, 32700, 32768, 33000} {
		block := pool[gap : gap+30]
		b = append(b, block...)
		if n := gap - len(block); n > 0 {
			b = append(b, pool[gap/2:][:n]...)
		}
		b = append(b, block...)
	}
	return websocket.Binary(b)
}
