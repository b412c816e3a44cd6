package autobahn

// Sections 20.7 and 20.8: how offers of extensions, and answers to them, are read (RFC 6455 9.1, RFC 7692 5, 7.1).

import (
	"fmt"
	"strings"
)

// A reply is what a server made of an offer: nil terms mean no extension.
type reply func(t *terms) Verdict

func agreedOrNone(*terms) Verdict { return OK }

func onlyNone(t *terms) Verdict {
	if t != nil {
		return Failed
	}
	return OK
}

// rather wants the extension with terms that good approves, and gives none the other verdict.
func rather(none Verdict, good func(t *terms) bool) reply {
	return func(t *terms) Verdict {
		switch {
		case t == nil:
			return none
		case good(t):
			return OK
		}
		return Failed
	}
}

func (b *book) offers() {
	pd := deflateName
	add := func(id, wanted string, r reply, status400 Verdict, offers ...string) {
		b.offer(id, wanted, r, status400, offers)
	}
	none := "The extension is declined."
	noneOr400 := none + " Status 400 is not strict."
	add("20.7.1", "The response has no extension header.", onlyNone, Failed)
	add("20.7.2", none, onlyNone, Failed, "x-unknown")
	add("20.7.3", "permessage-deflate, or nothing.", agreedOrNone, Failed, "x-unknown, "+pd)
	add("20.7.4", noneOr400, onlyNone, NonStrict, pd+"; x=1")
	add("20.7.5", "permessage-deflate by the second offer, or nothing.", agreedOrNone, Failed, pd+"; x=1, "+pd)
	for i, v := range []string{"", "=7", "=16", "=08", "=abc", "=-9"} {
		add(fmt.Sprintf("20.7.%d", 6+i), noneOr400, onlyNone, NonStrict, pd+"; server_max_window_bits"+v)
	}
	for i, p := range []string{
		"client_max_window_bits=16", "client_max_window_bits=0", "server_no_context_takeover=1",
		"client_no_context_takeover=true", "client_max_window_bits; client_max_window_bits",
	} {
		add(fmt.Sprintf("20.7.%d", 12+i), noneOr400, onlyNone, NonStrict, pd+"; "+p)
	}
	tenOrLess := func(t *terms) bool { return t.serverBits >= 8 && t.serverBits <= 10 }
	add("20.7.17", "permessage-deflate with a window of at most 10 bits. None is not strict.", rather(NonStrict, tenOrLess), Failed, pd+`; server_max_window_bits="10"`)
	add("20.7.18", "permessage-deflate, or nothing. Status 400 is not strict.", agreedOrNone, NonStrict, "x-unknown", pd)
	add("20.7.19", "permessage-deflate with that parameter, or nothing.",
		rather(OK, func(t *terms) bool { return t.serverNoTakeover }), Failed, pd+"; server_no_context_takeover")
	add("20.7.20", "permessage-deflate with 8 to 10 bits, or nothing.", rather(OK, tenOrLess), Failed, pd+"; server_max_window_bits=10")
	add("20.7.21", "The response does not hold client_max_window_bits, which was not offered.",
		rather(OK, func(t *terms) bool { return t.clientBits == 0 }), Failed, pd)
	add("20.7.22", "If the response holds client_max_window_bits, its value is 8 to 10.",
		rather(OK, func(t *terms) bool { return t.clientBits <= 10 }), Failed, pd+"; client_max_window_bits=10")
	add("20.7.23.1", none+" Status 400 is as good.", onlyNone, OK, pd+";;")
	add("20.7.23.2", none+" Status 400 is as good.", onlyNone, OK, pd+"; =5")
}

// offer enters a case of 20.7: the response is judged, then a text message must come back.
func (b *book) offer(id, wanted string, judge reply, status400 Verdict, offers []string) {
	what := "No offer of an extension."
	if len(offers) > 0 {
		what = "Offer: " + strings.Join(offers, " and in a second header ") + "."
	}
	c := b.add(id, what, wanted+" A text message comes back.", sends(one, kill(1), text(hello)), exactly(closeNormal, gotText(hello)))
	c.Clients = false
	c.offer = offers
	answer := func(r *run, req, res *head, err error) bool {
		switch {
		case err != nil:
			r.settle(Failed, "no response: "+err.Error())
			return false
		case res.status() == 400:
			r.settle(status400, "the server answered with status 400")
			return false
		}
		if err := checkResponse(req, res); err != nil {
			r.settle(Failed, err.Error())
			return false
		}
		header := strings.Join(res.values("Sec-WebSocket-Extensions"), ", ")
		t, err := agreedTerms(header)
		if err != nil {
			r.settle(Failed, err.Error())
			return false
		}
		if r.offered = judge(t); r.offered == Failed {
			r.settle(Failed, fmt.Sprintf("the server answered %q", header))
			return false
		}
		r.use(t)
		return true
	}
	c.handshake = &handshakeCase{answer: answer}
	c.check = func(r *run) {
		if r.verdict == OK && r.offered == NonStrict {
			r.set(NonStrict, "the offer was declined")
		}
	}
}

func (b *book) answers() {
	pd := deflateName
	bad := func(id, answer string) *Case {
		return b.answer(id, answer, func(*terms) string { return "" }, closeDropped)
	}
	c := bad("20.8.1", pd)
	c.Description = "An answer of " + pd + " that the client did not offer."
	c.respond = func(r *run, req *head) (string, error) {
		if len(req.values("Sec-WebSocket-Extensions")) > 0 {
			r.lacking = "the client offers extensions"
			return "", nil
		}
		return pd, nil
	}
	for i, a := range []string{
		"x-unknown", pd + ", " + pd, pd + "; x=1", pd + "; server_max_window_bits=7", pd + "; server_max_window_bits=16",
		pd + "; server_max_window_bits", pd + "; client_max_window_bits",
	} {
		bad(fmt.Sprintf("20.8.%d", 2+i), a)
	}
	b.answer("20.8.9", pd+"; client_max_window_bits=10", func(t *terms) string {
		if t.clientBitsAllowed {
			return "the client offers client_max_window_bits"
		}
		return ""
	}, closeDropped)
	bad("20.8.10", pd+"; server_no_context_takeover=1")
	bad("20.8.11", pd+"; server_no_context_takeover; server_no_context_takeover")
	b.answer("20.8.12", pd+"; server_max_window_bits=12", func(t *terms) string {
		if t.serverBits == 0 || t.serverBits >= 12 {
			return "the client does not ask for a small server_max_window_bits"
		}
		return ""
	}, closeDropped)
	b.answer("20.8.13", pd, func(t *terms) string {
		if !t.serverNoTakeover {
			return "the client does not ask for server_no_context_takeover"
		}
		return ""
	}, closeDropped).info = true
	b.goodAnswer("20.8.14", terms{serverNoTakeover: true, serverBits: 10})
	b.goodAnswer("20.8.15", terms{clientNoTakeover: true})
}

// answer enters a case whose answer the client must refuse. lacks says what its offer must have for that.
func (b *book) answer(id, header string, lacking func(offer *terms) string, refused closing) *Case {
	c := b.add(id, "Answer to the offer: "+header+".", "The client refuses the connection.", sends(one, kill(2), text(hello)),
		exactly(refused), leniently(closedWith(byTestee, false, 1002, 1010)))
	c.Servers = false
	c.needs = lacks
	c.respond = func(r *run, req *head) (string, error) {
		offer := firstOffer(req)
		if offer == nil {
			r.lacking = "the client does not offer compression"
			return "", nil
		}
		if r.lacking = lacking(offer); r.lacking != "" {
			return "", nil
		}
		if strings.HasPrefix(header, deflateName) {
			r.terms = &terms{} // to understand a client that takes it
		}
		return header, nil
	}
	return c
}

// goodAnswer enters a case whose answer the client must take, though it holds what was not asked for.
func (b *book) goodAnswer(id string, t terms) {
	same := randomASCII(10, ki)
	c := withDeflate(b.add(id, "Answer to the offer: "+t.String()+", of which nothing was asked for.", "The connection is open; equal messages come back.",
		sends(one, kill(2), text(same), text(same)), exactly(closeNormal, gotText(same), gotText(same))))
	c.Servers = false
	c.respond = func(r *run, req *head) (string, error) {
		return agreeTo(r, req, func(agreed *terms) string {
			if agreed.serverBits > 0 && agreed.serverBits < t.serverBits {
				return "the client asks for a smaller window of the server"
			}
			*agreed = t
			return ""
		})
	}
	c.deflate, c.needs = false, func(r *run) string {
		if r.terms == nil && r.lacking == "" {
			return "the client does not offer compression"
		}
		return r.lacking
	}
}
