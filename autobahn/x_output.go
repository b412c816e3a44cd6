package autobahn

// Section 20.6: what the testee's compressor makes.

import (
	"bytes"
	"fmt"
	"strings"
)

func randomASCII(seed byte, n int) string {
	rng := seeded(seed)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + rng.IntN(95))
	}
	return string(b)
}

func (b *book) deflateOutput() {
	b.noTakeover()
	b.smallWindows()
	b.rsvPlaces()
	c := withDeflate(b.add("20.6.7", "A text message.", "The compressed echo does not end in 0000ffff; if it does, that is only reported.",
		sends(one, kill(1), text(hello)), exactly(closeNormal, gotText(hello))))
	c.check = func(r *run) {
		for _, f := range r.frames {
			if r.verdict == OK && f.rsv&rsv1 != 0 && tailed([]byte(f.payload)) {
				r.set(Informational, "the compressed payload ends in 0000ffff")
			}
		}
	}
	noise := randomASCII(7, ki)
	c = withDeflate(b.add("20.6.8", "A binary message of 1 Ki that hardly compresses.", "This only reports whether the echo is compressed.",
		sends(one, kill(1), binaryf([]byte(noise))), exactly(closeNormal, gotBinary(noise))))
	c.info = true
	c.check = func(r *run) {
		for _, f := range r.frames {
			if f.op == opBinary {
				r.why = fmt.Sprintf("the echo came with RSV1 %v and %d octets", f.rsv&rsv1 != 0, f.length)
			}
		}
	}
}

// noTakeover is 20.6.1 for servers and 20.6.2 for clients: ten equal messages, each of which must inflate alone.
func (b *book) noTakeover() {
	equal := randomASCII(8, 4*ki)
	var fs []frame
	var es []event
	for range 10 {
		fs, es = append(fs, text(equal)), append(es, gotText(equal))
	}
	for i, role := range []string{"server", "client"} {
		c := withDeflate(b.add(fmt.Sprintf("20.6.%d", i+1), "Ten equal messages, with "+role+"_no_context_takeover agreed.",
			"Each echo inflates without the ones before.", sends(one, kill(5), fs...), exactly(closeNormal, es...)))
		c.Servers, c.Clients = i == 0, i == 1
		c.offer = []string{deflateName + "; server_no_context_takeover"}
		c.respond = func(r *run, req *head) (string, error) {
			return agreeTo(r, req, func(t *terms) string { t.clientNoTakeover = true; return "" })
		}
		c.needs = func(r *run) string {
			if r.inflater.takeover {
				return "the server did not agree to server_no_context_takeover"
			}
			return ""
		}
	}
}

// smallWindows is 20.6.3 to 20.6.5: text that repeats itself at a distance of 4 Ki.
func (b *book) smallWindows() {
	twice := strings.Repeat(randomASCII(9, 4*ki), 2)
	windowed := func(id, what string, bits int) *Case {
		c := withDeflate(b.add(id, "A text of random letters that begins anew after 4 Ki, "+what, fmt.Sprintf("No distance is above %d.", 1<<bits),
			sends(one, kill(5), text(twice)), exactly(closeNormal, gotText(twice))))
		c.strict = true
		c.check = func(r *run) {
			if r.verdict == OK && r.inflater != nil {
				r.why += fmt.Sprintf("; the largest distance is %d", r.inflater.farthest)
			}
		}
		return c
	}
	for i, bits := range []int{9, 8} {
		c := windowed(fmt.Sprintf("20.6.%d", 3+i), fmt.Sprintf("with server_max_window_bits=%d offered.", bits), bits)
		c.Clients = false
		c.offer = []string{fmt.Sprintf("%s; server_max_window_bits=%d", deflateName, bits)}
		c.needs = func(r *run) string {
			if r.terms != nil && (r.terms.serverBits == 0 || r.terms.serverBits > bits) {
				r.fail(1002, "the answer does not hold the window that was offered")
			}
			return ""
		}
		c.deflate = bits == 9 // a window of 8 may be declined
		if bits == 8 {
			c.Expectation += " Declining the offer is as good."
		}
	}
	c := windowed("20.6.5", "with client_max_window_bits=9 agreed.", 9)
	c.Servers = false
	c.respond = func(r *run, req *head) (string, error) {
		return agreeTo(r, req, func(t *terms) string {
			if !t.clientBitsAllowed {
				return "the client did not offer client_max_window_bits"
			}
			t.clientBits = 9
			return ""
		})
	}
	c.deflate, c.needs = true, lacks
}

// rsvPlaces is 20.6.6: the reader refuses RSV1 anywhere but on first frames.
func (b *book) rsvPlaces() {
	big := string(bytes.Repeat([]byte("compressible "), 64*ki/13+1)[:64*ki])
	c := withDeflate(b.add("20.6.6", "A text message of 64 Ki that compresses well, between two pings.",
		"Echo and pongs come back, with RSV1 on first frames of messages only.",
		sends(one, kill(5), ping("1"), text(big), ping("2")), exactly(closeNormal)))
	c.enough = func(r *run) bool { return len(r.events) == 3 }
	c.weigh = func(r *run) (Verdict, string) {
		var texts, pongs []string
		for _, e := range r.events {
			if e.kind == "pong" {
				pongs = append(pongs, e.data)
			} else {
				texts = append(texts, e.data)
			}
		}
		if len(texts) != 1 || texts[0] != big || strings.Join(pongs, "") != "12" {
			return Failed, r.mismatch()
		}
		return OK, "the message and both pongs came"
	}
}
