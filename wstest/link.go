package wstest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// link.go owns pairs: of net.Conns, and of the connections on top of them.

// defaultBuffer is how much a direction holds, about what a kernel gives a
// socket.
const defaultBuffer = 64 << 10

// Pipe returns the two ends of a connection in memory, with the default limits.
// Whoever does not close them leaves a keepalive timer behind for each, and no
// goroutine.
func Pipe() (client, server *websocket.Conn) { return Link{}.Pipe() }

// A Link says how the two ends of a connection are made. The zero Link makes
// what Pipe returns.
type Link struct {
	// Client and Server are what the ends are configured with. If both have a
	// Compression, its terms are agreed on as a handshake would.
	Client, Server websocket.Config
	// Subprotocol is what both ends agree on; "": none.
	Subprotocol string
	// Buffer is how many bytes may be under way in one direction, before a
	// writer waits. 0: 64 KiB.
	Buffer int
	// Latency is how long bytes are under way.
	Latency time.Duration
	// ClientFaults and ServerFaults are what goes wrong with the transport of
	// one end; nil: nothing.
	ClientFaults, ServerFaults *Faults
}

// Pipe returns the two ends. There is no handshake on the transport: faults and
// buffers are the connections' own from the first byte.
func (l Link) Pipe() (client, server *websocket.Conn) {
	a, b := l.NetPipe()
	pc, ps := l.Params()
	return websocket.NewConn(a, pc), websocket.NewConn(b, ps)
}

// NetPipe returns the two ends of the transport alone.
func (l Link) NetPipe() (client, server net.Conn) {
	a, b := memnet.SlowPipe(cmp.Or(l.Buffer, defaultBuffer), l.Latency)
	return l.ClientFaults.Wrap(a), l.ServerFaults.Wrap(b)
}

// NetPipe returns the two ends of a transport in memory. It behaves as TCP does:
// each direction buffers 64 KiB, deadlines work, and both ends have the methods
// CloseWrite() error, for a half-close, and Reset(), which breaks the connection
// as a TCP reset does.
func NetPipe() (a, b net.Conn) { return Link{}.NetPipe() }

// Params returns what the ends are made with, for a test that has a transport
// of its own: what a handshake between them agrees on.
func (l Link) Params() (client, server websocket.Params) {
	var names []string
	if l.Subprotocol != "" {
		names = []string{l.Subprotocol}
	}
	h := &handshake{options: &websocket.AcceptOptions{Subprotocols: names, Config: l.Server}}
	_, err := websocket.Dial(context.Background(), "ws://wstest", &websocket.DialOptions{
		Client:       &http.Client{Transport: h},
		Subprotocols: names,
		Config:       l.Client,
	})
	if !h.agreed {
		panic("wstest: Link: " + err.Error()) // Subprotocol is no token
	}
	server = h.params
	client = server
	client.Client, client.Config = true, l.Client
	return client, server
}

// A handshake is an http.RoundTripper that hands the request of a Dial to
// Upgrade, keeps what they agree on, and goes no further.
type handshake struct {
	options *websocket.AcceptOptions
	params  websocket.Params
	agreed  bool
}

var errAgreed = errors.New("wstest: no further")

func (h *handshake) RoundTrip(r *http.Request) (*http.Response, error) {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, err
	}
	r, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		return nil, err
	}
	nc, _ := memnet.Pipe(defaultBuffer)
	defer nc.Close()
	if _, h.params, err = websocket.Upgrade(hijacked{nc}, r, h.options); err != nil {
		return nil, err
	}
	h.agreed = true
	return nil, errAgreed
}

// hijacked is an http.ResponseWriter that gives its connection away.
type hijacked struct{ nc net.Conn }

func (hijacked) Header() http.Header         { return http.Header{} }
func (hijacked) Write(p []byte) (int, error) { return len(p), nil }
func (hijacked) WriteHeader(int)             {}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.nc, nil, nil }
