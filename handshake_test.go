package websocket

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// The example of RFC 6455 section 1.3.
const (
	sampleKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	sampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// goodRequest is a handshake in the RFC's words. Tests replace parts of it.
const goodRequest = "GET /chat HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Key: " + sampleKey + "\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"\r\n"

// goodResponse answers it.
const goodResponse = "HTTP/1.1 101 Switching Protocols\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: " + sampleAccept + "\r\n" +
	"\r\n"

// edit replaces parts of s, each of which is there.
func edit(t testing.TB, s string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		require.Contains(t, s, oldnew[i])
		s = strings.Replace(s, oldnew[i], oldnew[i+1], 1)
	}
	return s
}

func TestAcceptKey_1_3(t *testing.T) {
	require.Equal(t, sampleAccept, AcceptKey(sampleKey))
	require.Equal(t, "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=", AcceptKey(""))
}

func TestHandshakeKey_4_1(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		key := newHandshakeKey()
		require.True(t, validKey(key), key)
		require.False(t, seen[key], "A106: keys are fresh")
		seen[key] = true
	}
}

// requestCases are rows of the catalogue that reach the library: net/http lets
// them through. Each is an edit of goodRequest.
var requestCases = []struct {
	name   string
	edit   []string
	status int // 101 if it is a good one
	reason string
}{
	{"good", nil, 101, ""},
	{"A1 POST", []string{"GET", "POST"}, 405, "method is not GET"},
	{"A1 PUT", []string{"GET", "PUT"}, 405, "method is not GET"},
	{"A1 HEAD", []string{"GET", "HEAD"}, 405, "method is not GET"},
	{"A1 OPTIONS", []string{"GET", "OPTIONS"}, 405, "method is not GET"},
	{"A1 CONNECT", []string{"GET /chat", "CONNECT server.example.com:80"}, 405, "method is not GET"},
	{"A1 get", []string{"GET", "get"}, 405, "method is not GET"},
	{"A2 HTTP/1.0", []string{"HTTP/1.1", "HTTP/1.0"}, 505, "not an HTTP/1.1 request"},
	{"A3 no Upgrade", []string{"Upgrade: websocket\r\n", ""}, 426, "no websocket in Upgrade"},
	{"A3 empty Upgrade", []string{"Upgrade: websocket", "Upgrade:"}, 426, "no websocket in Upgrade"},
	{"A3 Upgrade foo", []string{"Upgrade: websocket", "Upgrade: foo"}, 426, "no websocket in Upgrade"},
	{"A3 Upgrade websocket2", []string{"Upgrade: websocket", "Upgrade: websocket2"}, 426, "no websocket in Upgrade"},
	{"A3 Upgrade websocket/13", []string{"Upgrade: websocket", "Upgrade: websocket/13"}, 426, "no websocket in Upgrade"},
	{"A3 Upgrade with a Kelvin sign", []string{"Upgrade: websocket", "Upgrade: websoc\u212aet"}, 426, "no websocket in Upgrade"},
	{"A3 Upgrade with a long s", []string{"Upgrade: websocket", "Upgrade: web\u017focket"}, 426, "no websocket in Upgrade"},
	{"A3 no Connection", []string{"Connection: Upgrade\r\n", ""}, 426, "no upgrade in Connection"},
	{"A3 Connection keep-alive", []string{"Connection: Upgrade", "Connection: keep-alive"}, 426, "no upgrade in Connection"},
	{"A3 Connection with a space", []string{"Connection: Upgrade", "Connection: keep-alive Upgrade"}, 426, "no upgrade in Connection"},
	{"A3 Connection quoted", []string{"Connection: Upgrade", `Connection: "Upgrade"`}, 426, "no upgrade in Connection"},
	{"A3 Connection list", []string{"Connection: Upgrade", "Connection: keep-alive, UPGRADE"}, 101, ""},
	{"A3 lower case", []string{"Connection: Upgrade", "connection: ,,\tupgrade\t,"}, 101, ""},
	{"A3 Connection on two lines", []string{"Connection: Upgrade", "Connection: keep-alive\r\nConnection: foo, upgrade"}, 101, ""},
	{"A3 Upgrade list", []string{"Upgrade: websocket", "Upgrade: h2c, WebSocket"}, 101, ""},
	{"A3 Upgrade on two lines", []string{"Upgrade: websocket", "Upgrade: h2c\r\nUPGRADE: websocket"}, 101, ""},
	{"A4 no key", []string{"Sec-WebSocket-Key: " + sampleKey + "\r\n", ""}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 empty key", []string{sampleKey, ""}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 15 bytes", []string{sampleKey, "AAAAAAAAAAAAAAAAAAAA"}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 17 bytes", []string{sampleKey, "AAAAAAAAAAAAAAAAAAAAAAA="}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 18 bytes", []string{sampleKey, "AAAAAAAAAAAAAAAAAAAAAAAA"}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 no padding", []string{sampleKey, "dGhlIHNhbXBsZSBub25jZQ"}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 no base64", []string{sampleKey, "dGhlIHNhbXBsZSBub25jZ_=="}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 two on a line", []string{sampleKey, sampleKey + ", " + sampleKey}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 two keys", []string{"Sec-WebSocket-Key:", "Sec-WebSocket-Key: " + sampleKey + "\r\nSec-WebSocket-Key:"}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A4 10 kB", []string{sampleKey, strings.Repeat("A", 10_000)}, 400, "Sec-WebSocket-Key is not one key of 16 bytes"},
	{"A5 no version", []string{"Sec-WebSocket-Version: 13\r\n", ""}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 7", []string{": 13", ": 7"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 8", []string{": 13", ": 8"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 12", []string{": 13", ": 12"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 14", []string{": 13", ": 14"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 99", []string{": 13", ": 99"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 list", []string{": 13", ": 13, 8"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 013", []string{": 13", ": 013"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A5 two lines", []string{": 13", ": 13\r\nSec-WebSocket-Version: 13"}, 426, "Sec-WebSocket-Version is not 13"},
	{"A6 empty Host", []string{"Host: server.example.com", "Host:"}, 400, "no valid Host"},
	{"A6 Host [::1", []string{"server.example.com", "[::1"}, 400, "no valid Host"},
	{"A6 Host with a user", []string{"server.example.com", "a@b"}, 400, "no valid Host"},
	{"A6 100 kB", []string{"server.example.com", strings.Repeat("a", 100_000)}, 400, "no valid Host"},
	{"A9 body", []string{"\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n\x81\x01a"}, 400, "request has a body"},
	{"A9 empty body", []string{"\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"}, 101, ""},
	{"A10 chunked", []string{"\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}, 400, "request has a body"},
	{"A17 extensions of all sorts", []string{"\r\n\r\n", "\r\nSec-WebSocket-Extensions: \"\\c\\c, ;;;, constructor; \x80\xff=\"\r\n\r\n"}, 101, ""},
	{"A18 subprotocols of all sorts", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: \",, a b,\x80\xff\r\n\r\n"}, 101, ""},
}

func TestCheckRequest_4_2_1(t *testing.T) {
	for _, c := range requestCases {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(edit(t, goodRequest, c.edit...))))
			require.NoError(t, err)
			e := checkRequest(r)
			if c.status == 101 {
				require.Nil(t, e)
				return
			}
			require.NotNil(t, e)
			require.Equal(t, HandshakeError{Status: c.status, Reason: c.reason}, *e)
		})
	}
	t.Run("A2 HTTP/2", func(t *testing.T) {
		e := checkRequest(&http.Request{Method: "GET", ProtoMajor: 2, Host: "a"})
		require.Equal(t, HandshakeError{Status: 400, Reason: "not an HTTP/1.1 request"}, *e)
	})
	t.Run("A10 another server's chunks", func(t *testing.T) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(goodRequest)))
		require.NoError(t, err)
		r.TransferEncoding = []string{"chunked"}
		require.Equal(t, HandshakeError{Status: 400, Reason: "request has a body"}, *checkRequest(r))
	})
	t.Run("R7 nothing there", func(t *testing.T) {
		require.NotNil(t, checkRequest(new(http.Request)))
		require.NotNil(t, checkRequest(&http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 1, Host: "a"}))
	})
}

// responseCases answer sampleKey, when "a" and "b" were offered.
var responseCases = []struct {
	name   string
	edit   []string
	reason string // "" if it is a good one
}{
	{"good", nil, ""},
	{"20.10.13 lists and cases", []string{"Connection: Upgrade", "connection: foo, upgrade", "Upgrade: websocket", "UPGRADE: WebSocket"}, ""},
	{"two lines of Connection", []string{"Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"}, ""},
	{"subprotocol", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n"}, ""},
	{"A102 200", []string{"101 Switching Protocols", "200 OK"}, "the server did not switch protocols"},
	{"A102 302", []string{"101 Switching Protocols", "302 Found"}, "the server did not switch protocols"},
	{"A102 401", []string{"101 Switching Protocols", "401 Unauthorized"}, "the server did not switch protocols"},
	{"20.10.10 HTTP/1.0", []string{"HTTP/1.1", "HTTP/1.0"}, "the response is not HTTP/1.1"},
	{"HTTP/2.0", []string{"HTTP/1.1", "HTTP/2.0"}, "the response is not HTTP/1.1"},
	{"A101 no Upgrade", []string{"Upgrade: websocket\r\n", ""}, "Upgrade is not websocket"},
	{"A101 Upgrade foo", []string{"websocket", "foo\xff\u202e"}, `Upgrade is not websocket: "foo\xff\u202e"`},
	{"A101 Upgrade list", []string{"websocket", "websocket, h2c"}, `Upgrade is not websocket: "websocket, h2c"`},
	{"A101 two Upgrades", []string{"Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket"}, `Upgrade is not websocket: "websocket, websocket"`},
	{"A101 no Connection", []string{"Connection: Upgrade\r\n", ""}, "no upgrade in Connection"},
	{"A101 Connection keep-alive", []string{"Connection: Upgrade", "Connection: keep-alive"}, `no upgrade in Connection: "keep-alive"`},
	{"A101 no Accept", []string{"Sec-WebSocket-Accept: " + sampleAccept + "\r\n", ""}, "wrong Sec-WebSocket-Accept"},
	{"A101 wrong Accept", []string{sampleAccept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="}, `wrong Sec-WebSocket-Accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="`},
	{"A101 Accept in another case", []string{sampleAccept, strings.ToUpper(sampleAccept)}, `wrong Sec-WebSocket-Accept: "S3PPLMBITXAQ9KYGZZHZRBK+XOO="`},
	{"A101 two Accepts", []string{"Sec-WebSocket-Accept:", "Sec-WebSocket-Accept: " + sampleAccept + "\r\nSec-WebSocket-Accept:"},
		`wrong Sec-WebSocket-Accept: "` + sampleAccept + `, s3pPLMBiTxaQ9kYGzz"...`},
	{"A101 extension", []string{"\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"}, `an extension was agreed that was not offered: "permessage-deflate"`},
	{"A101 subprotocol", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: c\r\n\r\n"}, `a subprotocol was agreed that was not offered: "c"`},
	{"A101 subprotocol in another case", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: A\r\n\r\n"}, `a subprotocol was agreed that was not offered: "A"`},
	{"A101 empty subprotocol", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol:\r\n\r\n"}, `a subprotocol was agreed that was not offered: ""`},
	{"A101 two subprotocols", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n\r\n"}, `a subprotocol was agreed that was not offered: "a, b"`},
	{"A101 a list of subprotocols", []string{"\r\n\r\n", "\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"}, `a subprotocol was agreed that was not offered: "a, b"`},
}

func TestCheckResponse_4_1(t *testing.T) {
	for _, c := range responseCases {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(edit(t, goodResponse, c.edit...))), nil)
			require.NoError(t, err)
			e := checkResponse(r, sampleKey, []string{"a", "b"}, nil)
			if c.reason == "" {
				require.Nil(t, e)
				return
			}
			require.NotNil(t, e)
			require.Equal(t, HandshakeError{Status: r.StatusCode, Reason: c.reason}, *e)
		})
	}
	require.NotNil(t, checkResponse(new(http.Response), "", nil, nil), "R7: nothing there")
}

func TestSelectSubprotocol_4_2_2(t *testing.T) {
	many := strings.Repeat("x,", maxSubprotocol-1)
	for _, c := range []struct {
		name    string
		ours    string
		offered []string
		want    string
	}{
		{"none", "", nil, ""},
		{"not ours", "", []string{"a"}, ""},
		{"not theirs", "a", nil, ""},
		{"ours decides", "b a", []string{"a, b"}, "b"},
		{"20.9.17 one of them", "b", []string{"a, b"}, "b"},
		{"several lines", "c", []string{"a", "b,\tc "}, "c"},
		{"another case", "a", []string{"A"}, ""},
		{"quoted", "a", []string{`"a"`}, ""},
		{"a part", "a", []string{"ab, ba, a b"}, ""},
		{"duplicates", "a", []string{"a, a", "a"}, "a"},
		{"empty elements", "a", []string{",, ,a,"}, "a"},
		{"the last that is looked at", "a", []string{many + "a"}, "a"},
		{"beyond", "a", []string{many + "x,a", "a"}, ""},
		{"10,000", "a", []string{strings.Repeat("x,", 10_000) + "a"}, ""},
		{"nonsense", "a", []string{"\x00\xff;=\"", "\\"}, ""},
	} {
		t.Run("A18 "+c.name, func(t *testing.T) {
			require.Equal(t, c.want, selectSubprotocol(strings.Fields(c.ours), c.offered))
		})
	}
}

func TestCheckSubprotocols_4_1(t *testing.T) {
	require.True(t, checkSubprotocols(nil))
	require.True(t, checkSubprotocols([]string{"chat", "chat.v2", "CHAT", "!#$%&'*+-.^_`|~"}))
	for _, s := range []string{"", "a b", "a,b", `"a"`, "a\r\nb: c", "a\x00", "é", "a/b", "\t", "a=b"} {
		require.False(t, checkSubprotocols([]string{"chat", s}), "A18, A19: %q", s)
	}
	require.False(t, checkSubprotocols([]string{"a", "b", "a"}), "A18: duplicates")
}

// A19: nothing is cleaned, it is refused.
func TestCheckHeader(t *testing.T) {
	for _, c := range []struct {
		name, value string
		ok          bool
	}{
		{"X-A", "b", true}, {"X-A", "", true}, {"X-A", "a\tb \xe9 é \"\\", true}, {"x_a", "b", true},
		{"X-A", "a\r\nSet-Cookie: b", false}, {"X-A", "a\n", false}, {"X-A", "\r", false}, {"X-A", "a\x00", false},
		{"X-A", "\x1b[31m", false}, {"X-A", "\x7f", false},
		{"", "b", false}, {"X A", "b", false}, {"X-A:", "b", false}, {"X\r\nY", "b", false}, {"X\x00", "b", false}, {"Ä", "b", false},
	} {
		field, ok := checkFields(http.Header{c.name: {"fine", c.value}})
		require.Equal(t, c.ok, ok, "%q: %q", c.name, c.value)
		if !ok {
			require.Equal(t, c.name, field)
		}
	}
	for _, own := range []string{"Connection", "upgrade", "Sec-WebSocket-Accept", "sec-websocket-anything", "Content-Length", "Transfer-Encoding", "Trailer"} {
		field, ok := checkHeader(http.Header{own: {"a"}})
		require.False(t, ok, own)
		require.Equal(t, own, field)
	}
	_, ok := checkHeader(http.Header{"Set-Cookie": {"a=b", "c=d"}, "Origin": {"http://a"}})
	require.True(t, ok)
	_, ok = checkHeader(nil)
	require.True(t, ok)
}

func TestValidHost(t *testing.T) {
	for _, s := range []string{"a", "example.com", "EXAMPLE.com.", "a:80", "a:65535", "a:", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80",
		"[2001:db8::1]", "xn--bcher-kva.example", "a_b", "-", "a!$&'()*+,;=~", strings.Repeat("a", 255) + ":65535"} {
		require.True(t, validHost(s), s)
	}
	for _, s := range []string{"", ":80", "a b", " a", "a\t", "[::1", "[", "]", "[]", "[::1]x", "[::1]x:80", "::1", "a:b", "a:80:80", "a:0", "a:65536",
		"a:-1", "a:+1", "a: 1", "a@b", "a/b", "a?b", "a#b", "a\\b", `a"b`, "a<b", "a%41", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[127.0.0.1]",
		"bücher.example", "a\x00", "a\r\n", strings.Repeat("a", 262), "[" + strings.Repeat(":", 100_000)} {
		require.False(t, validHost(s), "A6: %q", s[:min(len(s), 100)])
	}
}

// A121: what a peer sent is escaped and cut.
func TestExcerpts(t *testing.T) {
	long := strings.Repeat("\x1b", 1<<20)
	require.Empty(t, received(nil))
	require.Equal(t, `: ""`, received([]string{""}))
	require.Equal(t, `: "a\r\n\x00\x1b[31mb\xff\u202e"`, received([]string{"a\r\n\x00\x1b[31mb\xff\u202e"}))
	require.Equal(t, `: "a, b"`, received([]string{"a", "b"}))
	require.Equal(t, `: "`+strings.Repeat("a", 48)+`"...`, received([]string{strings.Repeat("a", 49)}))
	require.Less(t, len(received([]string{long, long})), 256)
	require.Less(t, len(received(make([]string, 100_000))), 256)

	require.Equal(t, `bad "header" \ line`, printable(`bad "header" \ line`))
	require.Equal(t, `a\r\n\x1b[31m\u202e\ufffd\u00e9`, printable("a\r\n\x1b[31m\u202e\xffé"))
	require.Equal(t, strings.Repeat("a", 200)+"...", printable(strings.Repeat("a", 201)))
	require.Less(t, len(printable(long)), 256)
	require.Less(t, len(printable(strings.Repeat("\U000e0001", 1000))), 256)
}

func TestAppendResponse_4_2_2(t *testing.T) {
	require.Equal(t, goodResponse, string(appendResponse(nil, sampleKey, "")))
	require.Equal(t, "x"+edit(t, goodResponse, "\r\n\r\n", "\r\n"+
		"Sec-WebSocket-Protocol: chat\r\n"+
		"A: 1\r\nB: 2\r\nB: 3\r\nX-C: \r\n"+
		"A: 4\r\n\r\n"),
		string(appendResponse([]byte("x"), sampleKey, "chat",
			http.Header{"X-C": {""}, "B": {"2", "3"}, "A": {"1"}, "None": nil}, nil, http.Header{"A": {"4"}})))
}

func TestRequestHeader_4_1(t *testing.T) {
	h := http.Header{"Origin": {"http://a"}}
	requestHeader(h, sampleKey, []string{"a", "b"}, nil)
	var b bytes.Buffer
	require.NoError(t, h.Write(&b))
	require.Equal(t, "Connection: Upgrade\r\nOrigin: http://a\r\nSec-WebSocket-Key: "+sampleKey+"\r\n"+
		"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n", b.String())
}

// A hijackable is a ResponseWriter as of a server, in memory.
type hijackable struct {
	h      http.Header
	status int
	body   bytes.Buffer
	nc     net.Conn
	err    error
	early  string
}

func (w *hijackable) Header() http.Header         { return w.h }
func (w *hijackable) WriteHeader(status int)      { w.status = status }
func (w *hijackable) Write(p []byte) (int, error) { return w.body.Write(p) }
func (w *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	br := bufio.NewReader(strings.NewReader(w.early))
	br.Peek(len(w.early))
	return w.nc, bufio.NewReadWriter(br, bufio.NewWriter(w.nc)), w.err
}

// The same rules again, in other words.
var (
	hasUpgrade   = regexp.MustCompile(`(?i)(^|,)[ \t]*upgrade[ \t]*(,|$)`)
	hasWebSocket = regexp.MustCompile(`^(.*,)?[ \t]*[wW][eE][bB][sS][oO][cC][kK][eE][tT][ \t]*(,.*)?$`)
	hostGrammar  = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()*+,;=-]+|\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\])(?::(0*[1-9]\d{0,4})?)?$`)
	isWebSocket  = regexp.MustCompile(`^[wW][eE][bB][sS][oO][cC][kK][eE][tT]$`)
	plainLine    = regexp.MustCompile(`^[!#$%&'*+.^_|~0-9A-Za-z` + "`" + `-]+: [^\x00-\x08\x0a-\x1f\x7f]*$`)
)

func isHost(s string) bool {
	m := hostGrammar.FindStringSubmatch(s)
	if m == nil || len(s) > 261 {
		return false
	}
	port, _ := strconv.Atoi("0" + m[3])
	return port < 65536 && (m[2] == "" || net.ParseIP(m[2]) != nil)
}

func mayUpgrade(r *http.Request) bool {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	return r.Method == "GET" && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && isHost(r.Host) &&
		slices.ContainsFunc(r.Header.Values("Connection"), hasUpgrade.MatchString) &&
		slices.ContainsFunc(r.Header.Values("Upgrade"), hasWebSocket.MatchString) &&
		slices.Equal(r.Header.Values("Sec-WebSocket-Version"), []string{"13"}) &&
		len(r.Header.Values("Sec-WebSocket-Key")) == 1 && err == nil && len(key) == 16 &&
		r.ContentLength == 0 && r.TransferEncoding == nil
}

// A4, A6, A17, A18, A20: any request is answered, only good ones with 101, and
// nothing of it comes back but the hash of the key.
func FuzzServerHandshake(f *testing.F) {
	for _, c := range requestCases {
		if in := edit(f, goodRequest, c.edit...); len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	f.Add([]byte(edit(f, goodRequest, "\r\n\r\n", "\r\nOrigin: http://server.example.com\r\nSec-WebSocket-Protocol: x, chat\r\n\r\n\x81")))
	f.Add([]byte(edit(f, goodRequest, "\r\n\r\n", "\r\nOrigin: null\r\nCookie: a=b\r\n\r\n")))
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReader(bytes.NewReader(in))
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		a, b := memnet.Pipe(1 << 16)
		w := &hijackable{h: http.Header{"Set-Cookie": {"a=b"}}, nc: a}
		var p Params
		budget.Check(t, len(in), headerSize, func() {
			_, p, err = Upgrade(w, r, &AcceptOptions{Subprotocols: []string{"chat", "chat2"}})
		})
		if err != nil {
			e := err.(*HandshakeError)
			require.Equal(t, w.status, e.Status)
			require.Contains(t, []int{400, 403, 405, 426, 505}, e.Status)
			require.Equal(t, r.ProtoMajor < 2, w.h.Get("Connection") == "close")
			require.Less(t, len(e.Error()), 300)
			require.Regexp(t, "^[ -~]*$", e.Error())
			require.True(t, e.Status == 403 || !mayUpgrade(r), "%v", e)
			return
		}
		require.True(t, mayUpgrade(r))
		a.Close()
		out, err := io.ReadAll(b)
		require.NoError(t, err)
		lines := strings.Split(strings.TrimSuffix(string(out), "\r\n\r\n"), "\r\n")
		want := []string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
			"Sec-WebSocket-Accept: " + AcceptKey(r.Header.Get("Sec-WebSocket-Key"))}
		if p.Subprotocol != "" {
			require.Contains(t, []string{"chat", "chat2"}, p.Subprotocol)
			require.Contains(t, strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), p.Subprotocol)
			want = append(want, "Sec-WebSocket-Protocol: "+p.Subprotocol)
		}
		require.Equal(t, append(want, "Set-Cookie: a=b"), lines)
	})
}

// A101, A121: any response is judged, and only a good one is taken.
func FuzzClientHandshake(f *testing.F) {
	for _, c := range responseCases {
		f.Add([]byte(edit(f, goodResponse, c.edit...)))
	}
	offered := []string{"a", "b"}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), nil)
		if err != nil {
			return
		}
		protocols := r.Header.Values("Sec-WebSocket-Protocol")
		good := r.StatusCode == 101 && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && // RFC 9110 section 2.5
			len(r.Header.Values("Upgrade")) == 1 && isWebSocket.MatchString(r.Header.Get("Upgrade")) &&
			slices.ContainsFunc(r.Header.Values("Connection"), hasUpgrade.MatchString) &&
			slices.Equal(r.Header.Values("Sec-WebSocket-Accept"), []string{sampleAccept}) &&
			len(r.Header.Values("Sec-WebSocket-Extensions")) == 0 &&
			(len(protocols) == 0 || len(protocols) == 1 && slices.Contains(offered, protocols[0]))
		var e *HandshakeError
		budget.Check(t, len(in), headerSize, func() { e = checkResponse(r, sampleKey, offered, nil) })
		require.Equal(t, good, e == nil)
		if e != nil {
			require.Equal(t, r.StatusCode, e.Status)
			require.Less(t, len(e.Error()), 300)
			require.Regexp(t, "^[ -~]*$", e.Error())
		}
	})
}

// A17, A18: whatever a client lists, what is selected is ours and among its first
// 64 names, and the first of ours that is.
func FuzzSubprotocols(f *testing.F) {
	f.Add("chat, superchat", "")
	f.Add("x,, CHAT", " superchat\t")
	f.Add(strings.Repeat("x,", 63)+"chat", "superchat")
	f.Add("chat\x00,\"chat\",chat;q=1", "chat")
	ours := []string{"chat", "superchat", "x"}
	f.Fuzz(func(t *testing.T, first, second string) {
		var got string
		budget.Check(t, len(first)+len(second), headerSize, func() {
			got = selectSubprotocol(ours, []string{first, second})
		})
		names := strings.Split(first+","+second, ",")
		want := ""
		for _, name := range slices.Backward(ours) {
			if slices.ContainsFunc(names[:min(len(names), maxSubprotocol)], func(s string) bool { return strings.Trim(s, " \t") == name }) {
				want = name
			}
		}
		require.Equal(t, want, got)
	})
}

// R18: what the library writes are lines of a token and printable text, whatever
// the caller gives it.
func FuzzResponseHeader(f *testing.F) {
	f.Add("X-A", "b", "chat")
	f.Add("X-A", "b\r\nX: y", "chat")
	f.Add("X\n", "b", "a\r\n")
	f.Fuzz(func(t *testing.T, name, value, subprotocol string) {
		h := http.Header{name: {value}}
		if _, ok := checkHeader(h); !ok || !checkSubprotocols([]string{subprotocol}) {
			return
		}
		var response []byte
		budget.Check(t, 2*(len(name)+len(value)+len(subprotocol)), headerSize, func() { // append doubles
			response = appendResponse(nil, sampleKey, subprotocol, h)
		})
		require.LessOrEqual(t, len(response), len(name)+len(value)+len(subprotocol)+200)
		out, ok := strings.CutSuffix(string(response), "\r\n\r\n")
		require.True(t, ok)
		lines := strings.Split(out, "\r\n")
		require.Len(t, lines, 6)
		for _, line := range lines[1:] {
			require.Regexp(t, plainLine, line)
		}
	})
}
