package autobahn

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/autobahn/internal/double"
)

// start runs a fuzzing server and returns its address.
func start(t *testing.T, cfg Config) (*Server, string) {
	t.Helper()
	s, err := NewServer(cfg)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go s.Serve(l)
	t.Cleanup(func() {
		s.Close()
		<-s.Done()
	})
	return s, l.Addr().String()
}

// What a client does wrong before there is a connection is answered with a status (catalogue 1.2).
func TestServerStatus(t *testing.T) {
	_, address := start(t, Config{Run: []string{"1.1.*"}})
	_, port, _ := net.SplitHostPort(address)
	good := "Host: localhost:" + port + "\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	for _, tt := range []struct {
		name, line, headers string
		want                int
	}{
		{"good", "GET /getCaseCount HTTP/1.1", good, 101},
		{"version 8", "GET /getCaseCount HTTP/1.1", strings.Replace(good, ": 13", ": 8", 1), 101},
		{"version 7", "GET /getCaseCount HTTP/1.1", strings.Replace(good, ": 13", ": 7", 1), 400},
		{"method", "POST /getCaseCount HTTP/1.1", good, 405},
		{"HTTP/1.0", "GET /getCaseCount HTTP/1.0", good, 505},
		{"two keys", "GET /getCaseCount HTTP/1.1", good + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400},
		{"short key", "GET /getCaseCount HTTP/1.1", strings.Replace(good, "dGhlIHNhbXBsZSBub25jZQ==", "YQ==", 1), 400},
		{"other port", "GET /getCaseCount HTTP/1.1", strings.Replace(good, port, "1", 1), 400},
		{"no case", "GET /runCase?agent=a HTTP/1.1", good, 500},
		{"case 9 of 8", "GET /runCase?case=9&agent=a HTTP/1.1", good, 500},
		{"no agent", "GET /runCase?case=1 HTTP/1.1", good, 500},
		{"no agent for reports", "GET /updateReports HTTP/1.1", good, 500},
		{"no case for status", "GET /getCaseStatus?agent=a HTTP/1.1", good, 500},
		{"unknown id", "GET /runCase?casetuple=1.1.9&agent=a HTTP/1.1", good, 500},
		{"malformed", "GET /getCaseCount", good, 400},
		{"a browser", "GET / HTTP/1.1", "Host: localhost\r\n", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", address)
			require.NoError(t, err)
			defer c.Close()
			io.WriteString(c, tt.line+"\r\n"+tt.headers+"\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			require.Equal(t, tt.want, res.StatusCode)
		})
	}
}

func TestServerPaths(t *testing.T) {
	dir := t.TempDir()
	s, address := start(t, Config{Run: []string{"1.1.1", "2.1*", "20.11.12"}, Dir: dir, ExcludeFor: map[string][]string{"picky*": {"2.1*"}}})
	base := "ws://" + address
	d := &double.Double{}
	ask := func(path string) string {
		t.Helper()
		answer, err := d.Ask(base + path)
		require.NoError(t, err)
		return answer
	}
	require.Equal(t, "5", ask("/getCaseCount"))
	var info struct{ ID, Description string }
	require.NoError(t, json.Unmarshal([]byte(ask("/getCaseInfo?case=4")), &info))
	require.Equal(t, "2.11", info.ID)
	require.NotEmpty(t, info.Description)

	// The status waits for the case, which runs meanwhile.
	status := make(chan string)
	go func() {
		answer, _ := d.Ask(base + "/getCaseStatus?case=1&agent=me")
		status <- answer
	}()
	require.NoError(t, d.Dial(base+"/runCase?casetuple=1.1.1&agent=me"))
	require.JSONEq(t, `{"behavior": "OK"}`, <-status)

	// 20.11.12 is settled by the next connection of the same agent.
	d.Dial(base + "/runCase?case=5&agent=me")
	require.JSONEq(t, `{"behavior": "OK"}`, ask("/getCaseStatus?case=5&agent=me"))

	// What is excluded for an agent is closed at once, and leaves no result.
	require.NoError(t, d.Dial(base+"/runCase?case=2&agent=picky+one"))
	require.NoError(t, d.Dial(base+"/updateReports?agent=me"))
	require.Equal(t, "me", <-s.Updated())
	require.Equal(t, []string{"me"}, s.Report().Agents())
	for _, name := range []string{"index.json", "index.html", "me_case_1_1_1.json", "me_case_20_11_12.html"} {
		_, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
	}
	require.NoError(t, d.Dial(base+"/stopServer"))
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the server goes on")
	}
}

// A client on any other path says itself what it wants to be sent.
func TestServerCommands(t *testing.T) {
	_, address := start(t, Config{})
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	_, port, _ := net.SplitHostPort(address)
	io.WriteString(c, "GET /anything HTTP/1.1\r\nHost: localhost:"+port+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	_, _, err = readHead(c)
	require.NoError(t, err)
	for _, tt := range []struct{ command, want string }{
		{`["echo", {"payload": "ab", "payload_len": 5}]`, "81056162616261"},
		{`["sendframe", {"opcode": 2, "payload": "x", "fin": false, "rsv": 3}]`, "320178"},
		{`["sendframe", {"opcode": 9, "payload": "hi", "mask": "00000000"}]`, "8982000000006869"},
		{`["sendframes", [{"opcode": 1, "payload": "1"}, {"opcode": 0, "payload": "2", "sync": true}]]`, "810131800132"},
		{`["close", {"code": 4000, "reason": "ok"}]`, "88040fa06f6b"},
	} {
		c.Write(text(tt.command).append(nil, true, 0x01020304))
		got := make([]byte, len(tt.want)/2)
		_, err := io.ReadFull(c, got)
		require.NoError(t, err)
		require.Equal(t, unhex(tt.want), got, tt.command)
	}
}
