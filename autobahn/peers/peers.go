// Package peers holds echo servers and clients made with other libraries, each as its manual does it, to see that
// the conformance suite is fair to them.
package peers

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

const limit = 32 << 20

// A Peer is a library: Serve echoes on one connection of a server, Dial opens one as a client and echoes on it.
type Peer struct {
	Name  string
	Serve http.HandlerFunc
	Dial  func(url string)
}

// All peers.
var All = []Peer{
	{"gorilla/websocket", serveGorilla, dialGorilla},
	{"coder/websocket", serveCoder, dialCoder},
	{"gobwas/ws", serveGobwas, dialGobwas},
	{"lxzan/gws", serveGws, dialGws},
}

var gorillaUpgrader = gorilla.Upgrader{EnableCompression: true}

func serveGorilla(w http.ResponseWriter, r *http.Request) {
	c, err := gorillaUpgrader.Upgrade(w, r, nil)
	if err == nil {
		echoGorilla(c)
	}
}

func dialGorilla(url string) {
	d := gorilla.Dialer{EnableCompression: true, HandshakeTimeout: 5 * time.Second}
	c, _, err := d.Dial(url, nil)
	if err == nil {
		echoGorilla(c)
	}
}

func echoGorilla(c *gorilla.Conn) {
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		if c.WriteMessage(kind, p) != nil {
			return
		}
	}
}

func serveCoder(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionContextTakeover})
	if err == nil {
		echoCoder(c)
	}
}

func dialCoder(url string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, _, err := coder.Dial(ctx, url, &coder.DialOptions{CompressionMode: coder.CompressionContextTakeover})
	if err == nil {
		echoCoder(c)
	}
}

func echoCoder(c *coder.Conn) {
	defer c.CloseNow()
	c.SetReadLimit(limit)
	for {
		kind, p, err := c.Read(context.Background())
		if err != nil {
			return
		}
		if c.Write(context.Background(), kind, p) != nil {
			return
		}
	}
}

func serveGobwas(w http.ResponseWriter, r *http.Request) {
	c, early, _, err := ws.UpgradeHTTP(r, w)
	if err == nil {
		echoGobwas(c, struct {
			io.Reader
			io.Writer
		}{early, c}, ws.StateServerSide)
	}
}

func dialGobwas(url string) {
	c, early, _, err := ws.Dialer{Timeout: 5 * time.Second}.Dial(context.Background(), url)
	if err != nil {
		return
	}
	var rw io.ReadWriter = c
	if early != nil {
		rw = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(early, c), c}
	}
	echoGobwas(c, rw, ws.StateClientSide)
}

func echoGobwas(c net.Conn, rw io.ReadWriter, s ws.State) {
	defer c.Close()
	for {
		p, kind, err := wsutil.ReadData(rw, s)
		if err != nil {
			return
		}
		if wsutil.WriteMessage(rw, s, kind, p) != nil {
			return
		}
	}
}

// echoGws has the callbacks of gws; what is embedded does nothing.
type echoGws struct{ gws.BuiltinEventHandler }

func (echoGws) OnPing(c *gws.Conn, p []byte) { c.WritePong(p) }

func (echoGws) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	c.WriteMessage(m.Opcode, m.Bytes())
}

var gwsDeflate = gws.PermessageDeflate{Enabled: true, ServerContextTakeover: true, ClientContextTakeover: true}

var gwsUpgrader = gws.NewUpgrader(echoGws{}, &gws.ServerOption{
	PermessageDeflate: gwsDeflate, CheckUtf8Enabled: true, ReadMaxPayloadSize: limit, WriteMaxPayloadSize: limit,
})

func serveGws(w http.ResponseWriter, r *http.Request) {
	c, err := gwsUpgrader.Upgrade(w, r)
	if err == nil {
		c.ReadLoop()
	}
}

func dialGws(url string) {
	c, _, err := gws.NewClient(echoGws{}, &gws.ClientOption{
		Addr: url, HandshakeTimeout: 5 * time.Second,
		PermessageDeflate: gwsDeflate, CheckUtf8Enabled: true, ReadMaxPayloadSize: limit, WriteMaxPayloadSize: limit,
	})
	if err == nil {
		defer recoverGws(c)
		c.ReadLoop()
	}
}

// recoverGws is there because ReadLoop panics for a length with its top bit (20.1.6, 20.1.7); net/http recovers the
// server's.
func recoverGws(c *gws.Conn) {
	if recover() != nil {
		c.NetConn().Close()
	}
}

// word is a peer's name for files and agents.
func word(name string) string { return strings.ReplaceAll(name, "/", "-") }
