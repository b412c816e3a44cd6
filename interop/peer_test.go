// Package interop lets the library talk to WebSocket programs that others wrote.
// See README.md.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long anything may take that has to happen. It is for machines
// that have much else to do.
const patience = 60 * time.Second

// A peer is a foreign program. It makes and takes connections as it is ordered,
// sends back every message, and reports what else happens.
type peer struct {
	name   string
	server bool // it can be a server too
	raw    bool // it can ping, fragment, abort, and close with any code
	silent bool // it can close without a code
	picky  bool // its client leaves if none of its subprotocols was taken up
	packs  bool // it compresses what it sends
	eight  bool // also with a window of 8 bits

	send  func(order) error
	leave func() error // goes to another page; nil: it has no pages

	mu    sync.Mutex
	last  int
	gone  bool // and will report nothing more
	links map[int]chan report
}

// An order is what a peer shall do. The ID is that of the connection.
type order struct {
	ID        int      `json:"id"`
	Do        string   `json:"do"` // connect, listen, send, ping, close, abort
	URL       string   `json:"url,omitempty"`
	Protocols []string `json:"protocols"` // a server that is ordered "!x" answers x whatever was offered
	Deflate   *deflate `json:"deflate,omitempty"`
	Limit     int      `json:"limit,omitempty"` // of the size of a message
	Binary    bool     `json:"binary,omitempty"`
	Parts     [][]byte `json:"parts,omitempty"` // a frame each, with pings between them
	Ping      string   `json:"ping,omitempty"`
	Code      int      `json:"code,omitempty"` // 0: none
	Reason    string   `json:"reason,omitempty"`
}

// A deflate is how a peer shall compress. nil: not at all.
type deflate struct {
	ServerTakeover bool `json:"serverTakeover"`
	ClientTakeover bool `json:"clientTakeover"`
	ServerBits     int  `json:"serverBits,omitempty"` // 0: not mentioned
	ClientBits     int  `json:"clientBits,omitempty"`
}

// A report is what has happened to a peer's connection.
type report struct {
	ID         int    `json:"id"`
	Event      string `json:"event"` // listening, open, failed, pinged, ponged, closed
	Port       int    `json:"port"`
	Protocol   string `json:"protocol"`
	Extensions string `json:"extensions"`
	Data       string `json:"data"`
	Code       int    `json:"code"`
	Reason     string `json:"reason"`
	Error      string `json:"error"`
}

// open returns the number of a new connection, and where its reports will be.
func (p *peer) open() (int, <-chan report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	ch := make(chan report, 64) // no test asks for so many
	if p.gone {
		close(ch)
	} else {
		p.links[p.last] = ch
	}
	return p.last, ch
}

func (p *peer) report(r report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.links[r.ID] <- r:
	default: // nobody asked for it
	}
}

// end tells all who wait that there will be no more reports.
func (p *peer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for _, ch := range p.links {
		close(ch)
	}
	p.links = nil
}

// run starts the program of a peer, and ends it with the test.
func (p *peer) run(t *testing.T, program string, args ...string) {
	c := exec.Command(program, args...)
	c.Dir = "peers"
	var stderr bytes.Buffer
	c.Stderr = &stderr
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())

	var mu sync.Mutex
	enc := json.NewEncoder(in)
	p.links = map[int]chan report{}
	p.send = func(o order) error {
		mu.Lock()
		defer mu.Unlock()
		return enc.Encode(o)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.listen(out) }()
	t.Cleanup(func() {
		in.Close() // it ends with its input
		stop := time.AfterFunc(patience, func() { c.Process.Kill() })
		defer stop.Stop()
		err := <-ended
		require.NoError(t, c.Wait(), "%s", &stderr)
		require.NoError(t, err, "%s", &stderr)
		if t.Failed() {
			t.Logf("%s wrote: %s", p.name, &stderr)
		}
	})
}

// listen passes on what a program reports.
func (p *peer) listen(out io.Reader) error {
	defer p.end()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return err
		}
		p.report(r)
	}
	return lines.Err()
}

// missing ends a test whose program is not here.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// node finds Node, and returns its major version.
func node(t *testing.T) (path string, major int) {
	path, err := exec.LookPath("node")
	if err != nil {
		missing(t, "there is no node on the PATH; on Debian: apt-get install nodejs npm")
	}
	version := output(t, path, "--version")
	major, err = strconv.Atoi(strings.Split(strings.TrimPrefix(version, "v"), ".")[0])
	require.NoError(t, err, version)
	t.Log("Node", version)
	return path, major
}

func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).Output()
	require.NoError(t, err, program)
	return strings.TrimSpace(string(out))
}

// newWS starts npm's ws.
func newWS(t *testing.T) *peer {
	path, _ := node(t)
	installWS(t)
	p := &peer{name: "ws", server: true, raw: true, silent: true, picky: true, packs: true, eight: true}
	p.run(t, path, "ws.js")
	return p
}

// installWS has npm install what the lock file names, unless it is there.
func installWS(t *testing.T) {
	want := version(t, filepath.Join("peers", "package-lock.json"))
	installed := filepath.Join("peers", "node_modules", ".package-lock.json")
	if _, err := os.Stat(installed); err != nil || version(t, installed) != want {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = "peers"
		if out, err := npm.CombinedOutput(); err != nil {
			missing(t, "npm ci did not install ws and typescript: "+err.Error()+"\n"+string(out))
		}
	}
	t.Log(want)
}

// version reads which ws and typescript a lock file names.
func version(t *testing.T, lock string) string {
	b, err := os.ReadFile(lock)
	require.NoError(t, err)
	var v struct {
		Packages map[string]struct{ Version string }
	}
	require.NoError(t, json.Unmarshal(b, &v))
	return "ws " + v.Packages["node_modules/ws"].Version + ", typescript " + v.Packages["node_modules/typescript"].Version
}

// newBuiltin starts Node with its own client.
func newBuiltin(t *testing.T) *peer {
	path, major := node(t)
	args := []string{"builtin.js"}
	switch {
	case major < 20:
		missing(t, "this node has no WebSocket client of its own: it needs 20 or later")
	case major < 22:
		args = []string{"--experimental-websocket", "builtin.js"}
	}
	p := &peer{name: "node", silent: true, picky: true}
	p.run(t, path, args...)
	return p
}

// newPython starts Python's websockets, with whichever Python has it.
func newPython(t *testing.T) *peer {
	for _, path := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(path, "-c", "import sys, websockets.version as v; print(sys.version.split()[0], v.version)").Output()
		if err == nil {
			t.Log("Python, websockets", strings.TrimSpace(string(out)))
			p := &peer{name: "websockets", server: true, raw: true, packs: true}
			p.run(t, path, "peer.py")
			return p
		}
	}
	missing(t, "no python3 can import websockets; on Debian: apt-get install python3-websockets")
	return nil
}
