package interop

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

func TestWS(t *testing.T)       { matrix(t, newWS(t), newHost(t, false)) }
func TestNode(t *testing.T)     { matrix(t, newBuiltin(t), newHost(t, false)) }
func TestPython(t *testing.T)   { matrix(t, newPython(t), newHost(t, false)) }
func TestChromium(t *testing.T) { h := newHost(t, false); matrix(t, newChromium(t, h), h) }

// modes are the ways to compress under which everything is tried.
var modes = []struct {
	name   string
	ours   *websocket.Compression
	theirs *deflate
	agreed string
}{
	{"plain", nil, nil, ""},
	{"deflate", &websocket.Compression{}, &deflate{},
		"permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
	{"deflate with takeover", &websocket.Compression{Takeover: true}, &deflate{ServerTakeover: true, ClientTakeover: true},
		"permessage-deflate"},
}

// matrix tries every cell in every role and mode.
func matrix(t *testing.T, p *peer, h *host) {
	for _, r := range p.roles() {
		t.Run(string(r), func(t *testing.T) {
			for _, m := range modes {
				t.Run(m.name, func(t *testing.T) {
					for _, c := range cells() {
						if c.raw && !p.raw || c.silent && !p.silent {
							continue
						}
						t.Run(c.name, func(t *testing.T) {
							s := c.setup
							s.config.Compression, s.peer = m.ours, m.theirs
							l := h.connect(t, p, r, s)
							require.Equal(t, m.agreed, l.extensions)
							c.run(l)
						})
					}
				})
			}
			if r == client {
				clientHandshakes(t, p, h)
			} else {
				serverHandshakes(t, p)
			}
			if p.server { // others always offer to compress
				onlyOne(t, p, h, r)
			}
		})
	}
	if p.leave != nil {
		t.Run("leaving the page", func(t *testing.T) { leave(t, p, h) })
	}
}

// A cell is something that has to work between us and every peer that can do it.
type cell struct {
	name   string
	raw    bool // needs a peer that is raw
	silent bool // needs a peer that can close without a code
	setup  setup
	run    func(l *link)
}

func cells() []cell {
	all := []cell{
		{name: "text", run: func(l *link) {
			l.echo(websocket.Text("Grüße, 世界 👋🏽, שלום, \x00\u007f\u0080\uffff\U0010ffff"), websocket.Text("plain"))
		}},
		{name: "binary", run: func(l *link) {
			every := make([]byte, 256)
			for i := range every {
				every[i] = byte(i)
			}
			l.echo(websocket.Binary(every), websocket.Binary([]byte{0xff}))
		}},
		{name: "empty", run: func(l *link) { l.echo(websocket.Text(""), websocket.Binary(nil), websocket.Text("after")) }},
		{name: "streamed by us", run: stream},
		{name: "fragmented by them", raw: true, run: fragments},
		{name: "100 at once", run: func(l *link) { l.echoAll(small(100)) }},
		{name: "ping from us", run: pingFromUs},
		{name: "ping from them", raw: true, run: pingFromThem},
		{name: "too big for us", setup: setup{config: websocket.Config{ReadLimit: 1000}}, run: tooBigForUs},
		{name: "too big for them", raw: true, setup: setup{limit: 1000}, run: tooBigForThem},
		{name: "close without code from us", run: func(l *link) { closeFromUs(l, websocket.CloseNoStatusReceived, "") }},
		{name: "close without code from them", silent: true, run: func(l *link) { closeFromThem(l, websocket.CloseNoStatusReceived, "") }},
		{name: "cut by us", run: func(l *link) {
			require.NoError(l.t, l.c.CloseNow())
			require.Equal(l.t, int(websocket.CloseAbnormalClosure), l.expect("closed").Code)
		}},
		{name: "cut by them", raw: true, run: func(l *link) {
			l.order(order{Do: "abort"})
			err := l.end()
			require.NoError(l.t, l.ctx.Err())
			require.Equal(l.t, websocket.CloseAbnormalClosure, websocket.CodeOf(err), "%v", err)
			l.expect("closed")
		}},
		{name: "subprotocol agreed", setup: setup{ours: []string{"b", "c"}, theirs: []string{"a", "b"}}, run: func(l *link) {
			require.Equal(l.t, "b", l.c.Subprotocol())
			require.Equal(l.t, "b", l.protocol)
		}},
		{name: "subprotocol not wanted", run: func(l *link) {
			require.Empty(l.t, l.c.Subprotocol())
			require.Empty(l.t, l.protocol)
		}},
	}
	for _, n := range []int{125, 126, 65535, 65536, 1 << 20} {
		all = append(all, cell{name: strconv.Itoa(n) + " bytes", run: func(l *link) {
			l.echo(websocket.Binary(noise(n)), websocket.Text(strings.Repeat("0123456789abcde\n", n/16+1)[:n]))
		}})
	}
	for _, code := range []websocket.CloseCode{1000, 1001, 1008, 3000, 4999} {
		name := strconv.Itoa(int(code))
		reason := "Grüße, 世界: " + strings.Repeat("x", 106) // 123 bytes
		all = append(all,
			cell{name: "close " + name + " from us", run: func(l *link) { closeFromUs(l, code, reason) }},
			cell{name: "close " + name + " from them", raw: code != 1000 && code < 3000, run: func(l *link) { closeFromThem(l, code, reason) }},
		)
	}
	return all
}

// noise returns n bytes that are always the same and cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

// small returns n small messages that resemble each other.
func small(n int) []websocket.Message {
	all := make([]websocket.Message, n)
	for i := range all {
		all[i] = websocket.Text(`{"type":"position","vehicle":` + strconv.Itoa(i*i) + `,"line":"北京-上海","doors":"closed","delay":` + strconv.Itoa(i%7) + `}`)
	}
	return all
}

// echoAll sends messages in a row, and then reads them.
func (l *link) echoAll(messages []websocket.Message) {
	l.t.Helper()
	for _, m := range messages {
		require.NoError(l.t, l.c.Queue(m))
	}
	require.NoError(l.t, l.c.Flush(l.ctx))
	for _, m := range messages {
		l.same(m, l.read())
	}
}

// stream sends messages in several frames, which also cut characters in two.
func stream(l *link) {
	for _, m := range []websocket.Message{
		websocket.Text(strings.Repeat("€uro", 5000)),
		websocket.Binary(noise(50_000)),
		websocket.Binary(bytes.Repeat([]byte("again and "), 5000)),
	} {
		w, err := l.c.Writer(l.ctx, m.Type)
		require.NoError(l.t, err)
		for rest := m.Data; len(rest) > 0; rest = rest[min(5000, len(rest)):] {
			_, err := w.Write(rest[:min(5000, len(rest))])
			require.NoError(l.t, err)
		}
		require.NoError(l.t, w.Close())
		l.same(m, l.read())
	}
	l.echo(websocket.Text("after"))
}

// fragments has the peer send messages in several frames with pings between.
func fragments(l *link) {
	text := [][]byte{[]byte("Grüße, "), {}, []byte("世界"), bytes.Repeat([]byte(" 👋🏽"), 1000)}
	binary := [][]byte{noise(1), noise(70_000), noise(300)}
	for _, parts := range [][][]byte{text, binary} {
		want := websocket.Message{Type: websocket.MessageText, Data: bytes.Join(parts, nil)}
		if len(parts) == len(binary) {
			want.Type = websocket.MessageBinary
		}
		l.order(order{Do: "send", Binary: want.Type == websocket.MessageBinary, Parts: parts, Ping: "between"})
		l.same(want, l.read())
		for range parts[1:] {
			require.Contains(l.t, l.ping(), "between")
			l.expect("ponged")
		}
	}
	l.echo(websocket.Text("after"))
}

func pingFromUs(l *link) {
	l.background(func() {
		for range 3 {
			require.NoError(l.t, l.c.Ping(l.ctx))
			if l.p.name == "ws" {
				l.expect("pinged")
			}
		}
	})
}

func pingFromThem(l *link) {
	l.background(func() {
		for _, data := range []string{"hello", strings.Repeat("x", 125)} {
			l.order(order{Do: "ping", Ping: data})
			require.Equal(l.t, data, l.expect("ponged").Data)
			require.Equal(l.t, data, l.ping())
		}
	})
}

// tooBigForUs has the peer send back what is larger than we take.
func tooBigForUs(l *link) {
	l.echo(websocket.Binary(noise(1000)))
	require.NoError(l.t, l.c.Write(l.ctx, websocket.Binary(make([]byte, 1001))))
	var broken *websocket.ProtocolError
	require.ErrorAs(l.t, l.end(), &broken)
	require.Equal(l.t, websocket.CloseMessageTooBig, broken.Code)
	require.Equal(l.t, int(websocket.CloseMessageTooBig), l.expect("closed").Code)
}

// tooBigForThem sends what is larger than the peer takes.
func tooBigForThem(l *link) {
	l.echo(websocket.Binary(noise(1000)))
	require.NoError(l.t, l.c.Write(l.ctx, websocket.Binary(noise(1001))))
	var bye *websocket.CloseError
	require.ErrorAs(l.t, l.end(), &bye)
	require.Equal(l.t, websocket.CloseMessageTooBig, bye.Code)
	l.expect("closed")
}

// closeFromUs closes, and sees what the peer was told.
func closeFromUs(l *link, code websocket.CloseCode, reason string) {
	require.NoError(l.t, l.c.Close(code, reason))
	closed := l.expect("closed")
	require.Equal(l.t, int(code), closed.Code)
	require.Equal(l.t, reason, closed.Reason)
	_, err := l.c.Read(l.ctx)
	require.Error(l.t, err)
	require.Equal(l.t, code, websocket.CodeOf(err), "%v", err)
}

// closeFromThem has the peer close, and sees what we are told.
func closeFromThem(l *link, code websocket.CloseCode, reason string) {
	o := order{Do: "close", Code: int(code), Reason: reason}
	if code == websocket.CloseNoStatusReceived {
		o.Code = 0
	}
	l.order(o)
	var bye *websocket.CloseError
	require.ErrorAs(l.t, l.end(), &bye)
	require.Equal(l.t, websocket.CloseError{Code: code, Reason: reason}, *bye)
	require.Equal(l.t, int(code), l.expect("closed").Code)
}

// clientHandshakes are those after which the two may not talk to each other.
func clientHandshakes(t *testing.T, p *peer, h *host) {
	t.Run("subprotocol not agreed", func(t *testing.T) {
		l := newLink(t, p)
		url, conns := h.serve(t, websocket.AcceptOptions{Subprotocols: []string{"a", "b"}})
		l.order(order{Do: "connect", URL: url, Protocols: []string{"c", "d"}})
		if !p.picky {
			require.Empty(t, l.expect("open").Protocol)
			l.take(conns)
			require.NoError(t, l.c.Close(websocket.CloseNormalClosure, ""))
			return
		}
		l.expect("failed")
		l.take(conns)
		require.Empty(t, l.c.Subprotocol())
		require.Equal(t, websocket.CloseAbnormalClosure, websocket.CodeOf(l.end()))
	})
	t.Run("refused", func(t *testing.T) {
		l := newLink(t, p)
		l.order(order{Do: "connect", URL: h.url("ws", "/nowhere")})
		l.expect("failed")
	})
}

// serverHandshakes are those with a peer that does not want, or too much.
func serverHandshakes(t *testing.T, p *peer) {
	t.Run("subprotocol not agreed", func(t *testing.T) {
		l := newLink(t, p)
		require.NoError(t, l.dial(setup{ours: []string{"a", "b"}}))
		require.Empty(t, l.c.Subprotocol())
		require.Empty(t, l.protocol)
		l.echo(websocket.Text("all the same"))
		require.NoError(t, l.c.Close(websocket.CloseNormalClosure, ""))
	})
	if p.name == "ws" { // the only one that can be brought to this
		t.Run("subprotocol not offered", func(t *testing.T) {
			l := newLink(t, p)
			err := l.dial(setup{ours: []string{"a", "b"}, theirs: []string{"!c"}})
			var refused *websocket.HandshakeError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, 101, refused.Status)
		})
	}
}

// onlyOne is compression that the other side does not want.
func onlyOne(t *testing.T, p *peer, h *host, r role) {
	for name, s := range map[string]setup{
		"only we compress":   {config: websocket.Config{Compression: &websocket.Compression{}}},
		"only they compress": {peer: &deflate{}},
	} {
		t.Run(name, func(t *testing.T) {
			l := h.connect(t, p, r, s)
			require.Empty(t, l.extensions)
			l.echo(websocket.Text(strings.Repeat("as it is ", 1000)))
			require.NoError(t, l.c.Close(websocket.CloseNormalClosure, ""))
		})
	}
}

// leave is what only pages do: they belong to an origin, and are left.
func leave(t *testing.T, p *peer, h *host) {
	stranger := newLink(t, p)
	url, _ := newHost(t, false).serve(t, websocket.AcceptOptions{})
	stranger.order(order{Do: "connect", URL: url})
	stranger.expect("failed")

	named := newLink(t, p)
	url, conns := newHost(t, false).serve(t, websocket.AcceptOptions{Origins: []string{h.addr}})
	named.order(order{Do: "connect", URL: url})
	named.expect("open")
	named.take(conns)

	l := h.connect(t, p, client, setup{})
	require.NoError(t, p.leave())
	for _, l := range []*link{named, l} {
		var bye *websocket.CloseError
		require.ErrorAs(t, l.end(), &bye)
		require.Equal(t, websocket.CloseGoingAway, bye.Code)
	}
}
