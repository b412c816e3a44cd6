package autobahn

// The opening handshake, written and read by hand (RFC 6455 4): net/http would mend what cases break on purpose.

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const (
	keyGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 1.3
	maxHead = 256 << 10
)

var errHeadSize = errors.New("HTTP header beyond 256 KiB")

// A field is one header line, as it was written.
type field struct{ name, value string }

// A head is an HTTP request or response without its body. Fields keep their order and their spelling.
type head struct {
	first  string // the request or status line
	fields []field
	eol    string // "": CRLF
	raw    string // as it came
}

func (h *head) add(name, value string) { h.fields = append(h.fields, field{name, value}) }

// set replaces every field of that name; with no values it removes them.
func (h *head) set(name string, values ...string) {
	kept := h.fields[:0:0]
	for _, f := range h.fields {
		switch {
		case !strings.EqualFold(f.name, name):
			kept = append(kept, f)
		default:
			for _, v := range values {
				kept = append(kept, field{f.name, v})
			}
			values = nil
		}
	}
	h.fields = kept
	for _, v := range values {
		h.add(name, v)
	}
}

func (h *head) values(name string) []string {
	var vs []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			vs = append(vs, f.value)
		}
	}
	return vs
}

func (h *head) get(name string) string {
	if vs := h.values(name); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// has looks for one of the comma-separated words of a header.
func (h *head) has(name, word string) bool {
	for _, v := range h.values(name) {
		for w := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(w), word) {
				return true
			}
		}
	}
	return false
}

func (h *head) bytes() []byte {
	eol := h.eol
	if eol == "" {
		eol = "\r\n"
	}
	b := []byte(h.first + eol)
	for _, f := range h.fields {
		b = append(b, f.name+": "+f.value+eol...)
	}
	return append(b, eol...)
}

// status is the number in a status line, 0 if there is none.
func (h *head) status() int {
	parts := strings.SplitN(h.first, " ", 3)
	if len(parts) < 2 {
		return 0
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return n
}

// readHead reads up to the blank line. rest is what came behind it.
func readHead(c net.Conn) (h *head, rest []byte, err error) {
	buf := make([]byte, 0, 4096)
	for {
		if i := bytes.Index(buf, []byte("\r\n\r\n")); i >= 0 {
			h, err = parseHead(string(buf[:i+4]))
			return h, buf[i+4:], err
		}
		if len(buf) > maxHead {
			return nil, nil, errHeadSize
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, buf, err
		}
	}
}

func parseHead(raw string) (*head, error) {
	lines := strings.Split(strings.TrimSuffix(raw, "\r\n\r\n"), "\r\n")
	h := &head{first: lines[0], raw: raw}
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return h, fmt.Errorf("malformed header line %q", l)
		}
		h.add(name, strings.TrimSpace(value))
	}
	return h, nil
}

func newKey() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + keyGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// newRequest is the fuzzing client's request; the headers stand in upstream's order.
func newRequest(u *url.URL, cfg *Config, extensions string) *head {
	h := &head{first: "GET " + u.RequestURI() + " HTTP/1.1"}
	h.add("User-Agent", userAgent)
	h.add("Host", hostPort(u))
	h.add("Upgrade", "WebSocket")
	h.add("Connection", "Upgrade")
	h.add("Pragma", "no-cache")
	h.add("Cache-Control", "no-cache")
	h.add("Sec-WebSocket-Key", newKey())
	if cfg.Origin != "" {
		h.add("Origin", cfg.Origin)
	}
	if len(cfg.Protocols) > 0 {
		h.add("Sec-WebSocket-Protocol", strings.Join(cfg.Protocols, ","))
	}
	if extensions != "" {
		h.add("Sec-WebSocket-Extensions", extensions)
	}
	h.add("Sec-WebSocket-Version", "13")
	return h
}

// hostPort always names the port.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "wss":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// checkResponse is the client's side of RFC 6455 4.1, but for extensions.
func checkResponse(req, res *head) error {
	accept := res.values("Sec-WebSocket-Accept")
	switch {
	case !strings.HasPrefix(res.first, "HTTP/1.1 "):
		return fmt.Errorf("status line %q", res.first)
	case res.status() != 101:
		return fmt.Errorf("status %d instead of 101", res.status())
	case !strings.EqualFold(res.get("Upgrade"), "websocket"):
		return errors.New("header Upgrade is not websocket")
	case !res.has("Connection", "upgrade"):
		return errors.New("header Connection does not name upgrade")
	case len(accept) != 1:
		return fmt.Errorf("%d Sec-WebSocket-Accept headers", len(accept))
	case accept[0] != acceptKey(req.get("Sec-WebSocket-Key")):
		return errors.New("wrong Sec-WebSocket-Accept")
	case len(res.values("Sec-WebSocket-Extensions")) > 1:
		return errors.New("more than one Sec-WebSocket-Extensions header")
	}
	if p := res.values("Sec-WebSocket-Protocol"); len(p) > 1 || len(p) == 1 && !req.has("Sec-WebSocket-Protocol", p[0]) {
		return fmt.Errorf("subprotocol %q was not asked for", strings.Join(p, ", "))
	}
	return nil
}

// An httpError is a request that the fuzzing server does not take.
type httpError struct {
	status int
	reason string
}

func (e *httpError) Error() string { return fmt.Sprintf("%d: %s", e.status, e.reason) }

// checkRequest is the server's side of RFC 6455 4.2.1.
func checkRequest(h *head) error {
	method, rest, _ := strings.Cut(h.first, " ")
	_, version, _ := strings.Cut(rest, " ")
	switch {
	case method != "GET":
		return &httpError{405, "the method must be GET"}
	case version != "HTTP/1.1":
		return &httpError{505, "the version must be HTTP/1.1"}
	}
	for _, name := range []string{"Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Host", "Origin"} {
		if len(h.values(name)) > 1 {
			return &httpError{400, "repeated header " + name}
		}
	}
	key, err := base64.StdEncoding.DecodeString(h.get("Sec-WebSocket-Key"))
	switch v := h.get("Sec-WebSocket-Version"); {
	case h.get("Host") == "":
		return &httpError{400, "no Host"}
	case !h.has("Upgrade", "websocket"):
		return &httpError{400, "Upgrade does not name websocket"}
	case !h.has("Connection", "upgrade"):
		return &httpError{400, "Connection does not name upgrade"}
	case v != "13" && v != "8":
		return &httpError{400, "Sec-WebSocket-Version must be 13"}
	case err != nil || len(key) != 16:
		return &httpError{400, "Sec-WebSocket-Key must be 16 octets"}
	}
	return nil
}

// newResponse is the fuzzing server's answer.
func newResponse(req *head, extensions string) *head {
	h := &head{first: "HTTP/1.1 101 Switching Protocols"}
	h.add("Server", userAgent)
	h.add("Upgrade", "WebSocket")
	h.add("Connection", "Upgrade")
	h.add("Sec-WebSocket-Accept", acceptKey(req.get("Sec-WebSocket-Key")))
	if extensions != "" {
		h.add("Sec-WebSocket-Extensions", extensions)
	}
	return h
}
