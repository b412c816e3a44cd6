package autobahn

// The grammar of Sec-WebSocket-Extensions (RFC 6455 9.1) and what permessage-deflate says in it (RFC 7692 7.1).

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const deflateName = "permessage-deflate"

// An extension is one offer, or one thing agreed on.
type extension struct {
	name   string
	params []param
}

type param struct {
	name, value string
	valued      bool
}

// parseExtensions splits a header by commas and semicolons; nobody puts those into a quoted value.
func parseExtensions(s string) ([]extension, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var es []extension
	for one := range strings.SplitSeq(s, ",") {
		var e extension
		for i, p := range strings.Split(one, ";") {
			name, value, valued := strings.Cut(strings.TrimSpace(p), "=")
			if !isToken(name) {
				return nil, fmt.Errorf("malformed extension %q", one)
			}
			if i == 0 {
				if valued {
					return nil, fmt.Errorf("malformed extension %q", one)
				}
				e.name = name
				continue
			}
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			e.params = append(e.params, param{name, value, valued})
		}
		es = append(es, e)
	}
	return es, nil
}

func isToken(s string) bool {
	for _, r := range s {
		if r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) {
			return false
		}
	}
	return s != ""
}

// Terms are the parameters of one permessage-deflate offer or answer. Window bits of 0 were not mentioned.
type terms struct {
	serverBits, clientBits             int
	serverNoTakeover, clientNoTakeover bool
	clientBitsAllowed                  bool // client_max_window_bits is there, with or without a value
}

// parseTerms reads e. Only an offer may leave out the value of client_max_window_bits (RFC 7692 7.1.2.2).
func parseTerms(e extension, offer bool) (t terms, err error) {
	if e.name != deflateName {
		return t, fmt.Errorf("extension %q was not asked for", e.name)
	}
	seen := map[string]bool{}
	for _, p := range e.params {
		if seen[p.name] {
			return t, fmt.Errorf("%s twice", p.name)
		}
		seen[p.name] = true
		ok := true
		switch p.name {
		case "server_no_context_takeover":
			t.serverNoTakeover, ok = true, !p.valued
		case "client_no_context_takeover":
			t.clientNoTakeover, ok = true, !p.valued
		case "server_max_window_bits":
			t.serverBits, ok = windowBits(p.value)
		case "client_max_window_bits":
			t.clientBitsAllowed = true
			if p.valued || !offer {
				t.clientBits, ok = windowBits(p.value)
			}
		default:
			return t, fmt.Errorf("unknown parameter %q", p.name)
		}
		if !ok {
			return t, fmt.Errorf("%s with a bad value", p.name)
		}
	}
	return t, nil
}

func windowBits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 8 && n <= 15 && s[0] != '0' && s[0] != '+'
}

var errNotOneExtension = errors.New("not exactly one extension in the answer")

// agreedTerms reads a server's answer; nil means that it wants no extension.
func agreedTerms(header string) (*terms, error) {
	es, err := parseExtensions(header)
	if err != nil || len(es) == 0 {
		return nil, err
	}
	if len(es) != 1 {
		return nil, errNotOneExtension
	}
	t, err := parseTerms(es[0], false)
	return &t, err
}

// An answer is what the fuzzing server adds of its own to an offer that it takes.
type answer struct {
	noTakeover bool // client_no_context_takeover
	bits       int  // client_max_window_bits, for offers that allow it
	optional   bool // if no offer allows bits, take the first without
}

// respond picks an offer and words the response. nil terms: none of the offers will do. What upstream answers with
// 400 is an error here.
func (a answer) respond(header string) (string, *terms, error) {
	es, err := parseExtensions(header)
	if err != nil {
		return "", nil, err
	}
	var first, taken *terms
	for _, e := range es {
		if e.name != deflateName {
			continue
		}
		t, err := parseTerms(e, true)
		if err != nil {
			return "", nil, err
		}
		if first == nil {
			first = &t
		}
		if taken == nil && (a.bits == 0 || t.clientBitsAllowed) {
			taken = &t
		}
	}
	bits := a.bits
	if taken == nil && a.optional {
		taken, bits = first, 0
	}
	if taken == nil {
		return "", nil, nil
	}
	if taken.clientBits != 0 { // never more than was offered (RFC 7692 7.1.2.2)
		bits = min(bits, taken.clientBits)
	}
	agreed := terms{
		serverBits: taken.serverBits, serverNoTakeover: taken.serverNoTakeover,
		clientBits: bits, clientNoTakeover: a.noTakeover,
	}
	return agreed.String(), &agreed, nil
}

func (t terms) String() string {
	s := deflateName
	if t.serverNoTakeover {
		s += "; server_no_context_takeover"
	}
	if t.serverBits != 0 {
		s += "; server_max_window_bits=" + strconv.Itoa(t.serverBits)
	}
	if t.clientNoTakeover {
		s += "; client_no_context_takeover"
	}
	if t.clientBits != 0 {
		s += "; client_max_window_bits=" + strconv.Itoa(t.clientBits)
	}
	return s
}

// codec makes the two ends that the terms describe, as the fuzzer needs them.
func (t terms) codec(client bool) (out codecTerms, in *inflater) {
	server := codecTerms{bits: orFifteen(t.serverBits), takeover: !t.serverNoTakeover}
	peer := codecTerms{bits: orFifteen(t.clientBits), takeover: !t.clientNoTakeover}
	if client {
		server, peer = peer, server
	}
	return server, newInflater(peer.bits, peer.takeover)
}

// codecTerms settle what one direction's compressor produces.
type codecTerms struct {
	bits     int
	takeover bool
}

func orFifteen(bits int) int {
	if bits == 0 {
		return 15
	}
	return bits
}
