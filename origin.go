package websocket

import (
	"net/http"
	"slices"
	"strings"
)

// origin.go owns which web pages may connect (RFC 6455 section 10.2, RFC 6454).

// An origin is where a web page comes from (RFC 6454 section 4). The port is ""
// if it is the scheme's default.
type origin struct{ scheme, host, port string }

// originAllowed tells whether the page that r comes from may connect (RFC 6455
// sections 4.2.2 and 10.2).
func (o *AcceptOptions) originAllowed(r *http.Request) bool {
	values := r.Header["Origin"]
	if len(values) == 0 || slices.Contains(o.Origins, "*") {
		return true
	}
	from, ok := parseOrigin(only(values))
	if !ok {
		return false
	}
	if from.isHTTP() && (r.TLS == nil || from.scheme == "https") && validHost(r.Host) {
		// A proxy may have taken the TLS off: without it both schemes will do.
		if host, port := hostPort(strings.ToLower(r.Host), from.scheme); host == from.host && port == from.port {
			return true
		}
	}
	for _, pattern := range o.Origins {
		if from.matches(strings.ToLower(pattern)) {
			return true
		}
	}
	return false
}

// parseOrigin reads an origin as browsers serialize it (RFC 6454 section 6.2):
// in lower case and Punycode, and nothing but scheme, host and port. It refuses
// "null".
func parseOrigin(s string) (from origin, ok bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !isToken(scheme) || !validHost(rest) || strings.HasSuffix(rest, ":") || s != strings.ToLower(s) {
		return origin{}, false
	}
	host, port := hostPort(rest, scheme)
	return origin{scheme, host, port}, true
}

// hostPort splits a host, and leaves away the scheme's default port.
func hostPort(s, scheme string) (host, port string) {
	host, port, _ = splitPort(s)
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	return host, port
}

func (from origin) isHTTP() bool { return from.scheme == "http" || from.scheme == "https" }

// matches compares scheme, host and port with an entry of AcceptOptions.Origins.
func (from origin) matches(pattern string) bool {
	scheme, rest, ok := strings.Cut(pattern, "://")
	if !ok {
		scheme, rest = from.scheme, pattern
	}
	if scheme != from.scheme || !ok && !from.isHTTP() {
		return false
	}
	host, port := hostPort(rest, scheme)
	if port != from.port {
		return false
	}
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		return len(suffix) > 1 && suffix[0] == '.' && len(from.host) > len(suffix) && strings.HasSuffix(from.host, suffix)
	}
	return host == from.host
}
