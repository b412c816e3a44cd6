package websocket

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// handshake.go owns both halves of the opening handshake (RFC 6455 section 4)
// and the grammar of its headers. Headers come in and go out; nothing here does
// I/O.

// The headers of the handshake, as net/http spells them in its maps.
const (
	hAccept     = "Sec-Websocket-Accept"
	hExtensions = "Sec-Websocket-Extensions"
	hKey        = "Sec-Websocket-Key"
	hProtocol   = "Sec-Websocket-Protocol"
	hVersion    = "Sec-Websocket-Version"
)

const (
	version        = "13"
	keySize        = 24 // a Sec-WebSocket-Key: 16 bytes in base64
	maxSubprotocol = 64 // names of a peer's list that are looked at
	maxHost        = 255 + len(":65535")
	maxExcerpt     = 48 // bytes of what a peer sent, escaped, in an error text
)

// AcceptKey returns the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key
// (RFC 6455 section 4.2.2).
func AcceptKey(key string) string { return string(appendAcceptKey(nil, key)) }

func appendAcceptKey(b []byte, key string) []byte {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	in := make([]byte, 0, keySize+len(guid))
	in = append(append(in, key...), guid...)
	var sum [sha1.Size]byte
	withoutFIPS(func() { sum = sha1.Sum(in) }) // no cryptography: the hash proves that the peer read the RFC
	return base64.StdEncoding.AppendEncode(b, sum[:])
}

// newHandshakeKey returns a fresh Sec-WebSocket-Key.
func newHandshakeKey() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// checkRequest tells why r cannot be upgraded: nil if it can (RFC 6455 section
// 4.2.1). The reasons are fixed texts, for they are sent to the client.
func checkRequest(r *http.Request) *HandshakeError {
	switch {
	case r.Method != http.MethodGet:
		return &HandshakeError{Status: http.StatusMethodNotAllowed, Reason: "method is not GET"}
	case r.ProtoMajor > 1:
		return &HandshakeError{Status: http.StatusBadRequest, Reason: "not an HTTP/1.1 request"}
	case !r.ProtoAtLeast(1, 1):
		return &HandshakeError{Status: http.StatusHTTPVersionNotSupported, Reason: "not an HTTP/1.1 request"}
	case !validHost(r.Host):
		return &HandshakeError{Status: http.StatusBadRequest, Reason: "no valid Host"}
	case !hasToken(r.Header["Connection"], "upgrade"):
		return &HandshakeError{Status: http.StatusUpgradeRequired, Reason: "no upgrade in Connection"}
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return &HandshakeError{Status: http.StatusUpgradeRequired, Reason: "no websocket in Upgrade"}
	case only(r.Header[hVersion]) != version: // RFC 6455 section 4.4
		return &HandshakeError{Status: http.StatusUpgradeRequired, Reason: "Sec-WebSocket-Version is not 13"}
	case !validKey(only(r.Header[hKey])):
		return &HandshakeError{Status: http.StatusBadRequest, Reason: "Sec-WebSocket-Key is not one key of 16 bytes"}
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return &HandshakeError{Status: http.StatusBadRequest, Reason: "request has a body"}
	}
	return nil
}

// checkResponse tells why r does not complete the handshake that was begun with
// key: nil if it does (RFC 6455 section 4.1).
func checkResponse(r *http.Response, key string, subprotocols []string, z *Compression) *HandshakeError {
	h := r.Header
	e := &HandshakeError{Status: r.StatusCode}
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols:
		e.Reason = "the server did not switch protocols"
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		e.Reason = "the response is not HTTP/1.1"
	case !equalFold(only(h["Upgrade"]), "websocket"):
		e.Reason = "Upgrade is not websocket" + received(h["Upgrade"])
	case !hasToken(h["Connection"], "upgrade"):
		e.Reason = "no upgrade in Connection" + received(h["Connection"])
	case only(h[hAccept]) != AcceptKey(key):
		e.Reason = "wrong Sec-WebSocket-Accept" + received(h[hAccept])
	case !z.accepts(h):
		e.Reason = "an extension was agreed that was not offered" + received(h[hExtensions])
	case len(h[hProtocol]) > 0 && !slices.Contains(subprotocols, only(h[hProtocol])):
		e.Reason = "a subprotocol was agreed that was not offered" + received(h[hProtocol])
	default:
		return nil
	}
	return e
}

// requestHeader sets what a client asks with (RFC 6455 section 4.1), as the RFC
// spells it: there are servers that care.
func requestHeader(h http.Header, key string, subprotocols []string, z *Compression) {
	if z != nil {
		h["Sec-WebSocket-Extensions"] = []string{z.withDefaults().offer()}
	}
	h["Upgrade"] = []string{"websocket"}
	h["Connection"] = []string{"Upgrade"}
	h["Sec-WebSocket-Key"] = []string{key}
	h["Sec-WebSocket-Version"] = []string{version}
	if len(subprotocols) > 0 {
		h["Sec-WebSocket-Protocol"] = []string{strings.Join(subprotocols, ", ")}
	}
}

// appendResponse appends the response that completes a handshake (RFC 6455
// section 4.2.2). The headers have passed checkHeader.
func appendResponse(b []byte, key, subprotocol string, headers ...http.Header) []byte {
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = append(appendAcceptKey(b, key), "\r\n"...)
	if subprotocol != "" {
		b = appendField(b, "Sec-WebSocket-Protocol", subprotocol)
	}
	for _, h := range headers {
		if len(h) == 0 {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(h)) {
			for _, v := range h[name] {
				b = appendField(b, name, v)
			}
		}
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	return append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
}

// selectSubprotocol returns the first of ours that the peer offers, or "".
func selectSubprotocol(ours, offered []string) string {
	if len(ours) == 0 || len(offered) == 0 {
		return ""
	}
	theirs := make([]string, 0, maxSubprotocol)
	for _, line := range offered {
		for name := range strings.SplitSeq(line, ",") {
			if len(theirs) == maxSubprotocol {
				break
			}
			theirs = append(theirs, trim(name))
		}
	}
	for _, s := range ours {
		if slices.Contains(theirs, s) {
			return s
		}
	}
	return ""
}

// checkSubprotocols refuses names that are no tokens, or stand twice (RFC 6455
// section 4.1).
func checkSubprotocols(names []string) bool {
	for i, s := range names {
		if !isToken(s) || slices.Contains(names[:i], s) {
			return false
		}
	}
	return true
}

// checkHeader refuses fields that belong to the handshake itself, and those that
// checkFields refuses. It returns the field's name.
func checkHeader(h http.Header) (field string, ok bool) {
	for name := range h {
		if ownField(name) {
			return name, false
		}
	}
	return checkFields(h)
}

// checkFields refuses what would break the message that it is written into.
func checkFields(h http.Header) (field string, ok bool) {
	for name, values := range h {
		if !isToken(name) {
			return name, false
		}
		for _, v := range values {
			if !isFieldValue(v) {
				return name, false
			}
		}
	}
	return "", true
}

// ownField tells the fields that only the handshake itself may set.
func ownField(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch name {
	case "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return strings.HasPrefix(name, "Sec-Websocket-")
}

// only returns the value of a field that must stand exactly once, else "".
func only(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// validKey tells whether key is the base64 of 16 bytes.
func validKey(key string) bool {
	if len(key) != keySize {
		return false
	}
	var b [keySize / 4 * 3]byte
	n, err := base64.StdEncoding.Decode(b[:], []byte(key))
	return err == nil && n == 16
}

// validHost tells whether s is a host and perhaps a port as a Host field may
// have them (RFC 9110 section 7.2). An internationalized name is in Punycode
// there.
func validHost(s string) bool {
	host, port, _ := splitPort(s)
	if len(s) > maxHost || !isPort(port) {
		return false
	}
	if strings.HasPrefix(host, "[") {
		a, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
		return err == nil && a.Is6() && a.Zone() == "" && strings.HasSuffix(host, "]")
	}
	for i := 0; i < len(host); i++ {
		if c := host[i]; !isAlnum(c) && strings.IndexByte("-._~!$&'()*+,;=", c) < 0 { // RFC 3986 section 3.2.2
			return false
		}
	}
	return host != ""
}

// splitPort cuts the port off a host, if it has one, be it empty.
func splitPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// isPort tells whether s is a port, or empty.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// hasToken tells whether one of the comma-separated tokens in values is token,
// which is lower case (RFC 9110 section 5.6.1).
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for v != "" {
			var t string
			t, v, _ = strings.Cut(v, ",")
			if equalFold(trim(t), token) {
				return true
			}
		}
	}
	return false
}

// equalFold tells whether s is lower, but for the case of its letters: those of
// ASCII, where strings.EqualFold takes a Kelvin sign for a k.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// trim removes optional white space (RFC 9110 section 5.6.3).
func trim(s string) string { return strings.Trim(s, " \t") }

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// isToken follows RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isFieldValue follows RFC 9110 section 5.5: no control characters, and above
// all no line ends.
func isFieldValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// received is how an error text ends with what a peer sent: its beginning,
// escaped.
func received(values []string) string {
	if len(values) == 0 {
		return ""
	}
	s := values[0]
	for i := 1; i < len(values) && len(s) <= maxExcerpt; i++ {
		s += ", " + values[i]
	}
	return ": " + excerpt(s, maxExcerpt)
}

// excerpt quotes s in ASCII. What would be longer than most bytes is cut between
// two characters.
func excerpt(s string, most int) string {
	for n, size := 0, 0; n < len(s); {
		_, w := utf8.DecodeRuneInString(s[n:])
		if size += len(strconv.QuoteToASCII(s[n:n+w])) - len(`""`); size > most {
			return strconv.QuoteToASCII(s[:n]) + "..."
		}
		n += w
	}
	return strconv.QuoteToASCII(s)
}

// printable makes an error text that may quote a peer fit to be logged: one
// short line of ASCII.
func printable(s string) string {
	const most = 200
	b := make([]byte, 0, min(len(s), most)+len(`\U0010ffff...`))
	for _, r := range s {
		if len(b) >= most {
			return string(append(b, "..."...))
		}
		if r >= ' ' && r <= '~' {
			b = append(b, byte(r))
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b = append(b, q[1:len(q)-1]...)
	}
	return string(b)
}
