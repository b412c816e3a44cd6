package autobahn

// Sections 20.9 and 20.10: opening handshakes that are not as they should be (RFC 6455 4.1, 4.2).

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

const echoAfter = " A text message comes back."

func (b *book) requests() {
	add := func(id, what, wanted string, edit func(*head), judge func(res *head) Verdict) *Case {
		return b.request(id, what, wanted, edit, judge)
	}
	first := strings.NewReplacer
	line := func(old, new string) func(*head) { return func(h *head) { h.first = first(old, new).Replace(h.first) } }
	set := func(name string, values ...string) func(*head) { return func(h *head) { h.set(name, values...) } }
	add("20.9.1", "Sec-WebSocket-Version 99.", "Status 426 or 400, with Sec-WebSocket-Version 13; without that header not strict.",
		set("Sec-WebSocket-Version", "99"), func(res *head) Verdict {
			switch {
			case res.status() != 426 && res.status() != 400:
				return Failed
			case !res.has("Sec-WebSocket-Version", "13"):
				return NonStrict
			}
			return OK
		})
	add("20.9.2", "No Sec-WebSocket-Version.", "Status 400 or 426.", set("Sec-WebSocket-Version"), status(400, 426))
	add("20.9.3", "No Sec-WebSocket-Key.", "Status 400.", set("Sec-WebSocket-Key"), status(400))
	or101 := "Status 400; taking it is not strict."
	add("20.9.4", "A Sec-WebSocket-Key of 15 octets.", or101,
		set("Sec-WebSocket-Key", base64.StdEncoding.EncodeToString(make([]byte, 15))), lenient(400))
	add("20.9.5", "Two Sec-WebSocket-Key headers.", or101, set("Sec-WebSocket-Key", newKey(), newKey()), lenient(400))
	add("20.9.6", "The method POST.", "Status 405, 400, 404 or 501.", line("GET ", "POST "), status(405, 400, 404, 501))
	add("20.9.7", "HTTP/1.0.", "No upgrade.", line("HTTP/1.1", "HTTP/1.0"), refusal)
	add("20.9.8", "No Upgrade header.", "No upgrade.", set("Upgrade"), refusal)
	add("20.9.9", "Upgrade: foo.", "No upgrade.", set("Upgrade", "foo"), refusal)
	add("20.9.10", "No Connection header.", "No upgrade.", set("Connection"), refusal)
	add("20.9.11", "No Host.", or101, set("Host"), lenient(400))
	add("20.9.12", "Two Host headers.", or101, set("Host", "one.example", "two.example"), lenient(400))
	b.goodRequests()
}

// status judges a response by its number.
func status(good ...int) func(*head) Verdict {
	return func(res *head) Verdict {
		if slices.Contains(good, res.status()) {
			return OK
		}
		return Failed
	}
}

// lenient is status, but an upgrade is not strict instead of wrong.
func lenient(good ...int) func(*head) Verdict {
	return func(res *head) Verdict {
		if res.status() == 101 {
			return NonStrict
		}
		return status(good...)(res)
	}
}

func refusal(res *head) Verdict {
	if res.status() == 101 || res.status() == 0 {
		return Failed
	}
	return OK
}

// request enters a case that ends with the response.
func (b *book) request(id, what, wanted string, edit func(*head), judge func(*head) Verdict) *Case {
	c := b.add(id, what, wanted, sends(one, kill(1)))
	c.Clients = false
	c.handshake = &handshakeCase{request: edit, answer: func(r *run, _, res *head, err error) bool {
		if err != nil {
			r.settle(judgeDrop(judge), "no response: "+err.Error())
			return false
		}
		r.settle(judge(res), fmt.Sprintf("status %d", res.status()))
		return false
	}}
	return c
}

// judgeDrop is for servers that end TCP without a word: no upgrade, but no status either.
func judgeDrop(judge func(*head) Verdict) Verdict {
	if judge(&head{first: "HTTP/1.1 418 no response"}) == OK {
		return NonStrict
	}
	return Failed
}

// goodRequests must be taken, or nearly.
func (b *book) goodRequests() {
	echo := exactly(closeNormal, gotText(hello))
	add := func(id, what, wanted string, hs *handshakeCase) *Case {
		c := b.add(id, what, wanted+echoAfter, sends(one, kill(1), text(hello)), echo)
		c.Clients = false
		c.handshake = hs
		return c
	}
	add("20.9.13", "Header names in lower case, connection: keep-alive, UPGRADE.", "The connection is open.", &handshakeCase{request: func(h *head) {
		h.set("Connection", "keep-alive, UPGRADE")
		for i := range h.fields {
			h.fields[i].name = strings.ToLower(h.fields[i].name)
		}
	}})
	add("20.9.14", "The request octet by octet.", "The connection is open.", &handshakeCase{mode: oct})
	early := add("20.9.15", "The request and a text message in one write.",
		"The connection is open; refusing it, or the message, is not strict (RFC 6455 4.1 has clients wait).", &handshakeCase{early: []frame{text(hello)}, answer: orRefused})
	early.play = kill(1)
	early.outcomes = append(early.outcomes, leniently(closeOddly), leniently(closeAnyhow))
	add("20.9.16", "A Cookie of 16 Ki.", "The connection is open, or status 431; anything else is reported.", &handshakeCase{
		request: func(h *head) { h.add("Cookie", "c="+strings.Repeat("x", 16*ki)) },
		answer: func(r *run, req, res *head, err error) bool {
			switch {
			case err == nil && res.status() == 101 && checkResponse(req, res) == nil:
				return true
			case err == nil && res.status() == 431:
				r.settle(OK, "status 431")
			default:
				r.settle(Informational, "the server does not take such a header")
			}
			return false
		},
	})
	add("20.9.17", "Subprotocols a and b.", "None, or exactly one of them.", &handshakeCase{request: func(h *head) { h.set("Sec-WebSocket-Protocol", "a, b") }})
	add("20.9.18", "The key of RFC 6455 1.3.", "Its Sec-WebSocket-Accept.", &handshakeCase{
		request: func(h *head) { h.set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") },
		answer: func(r *run, req, res *head, err error) bool {
			if err != nil || res.get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				r.settle(Failed, "the Sec-WebSocket-Accept is not that of the RFC")
				return false
			}
			return true
		},
	})
	odd := b.request("20.9.19", "Lines that end in a bare LF.", "This only reports what comes of it.", func(h *head) { h.eol = "\n" },
		func(*head) Verdict { return Informational })
	odd.info, odd.handshake.answer = true, bareLF
}

// orRefused lets a server refuse what RFC 6455 4.1 forbids clients to do.
func orRefused(r *run, req, res *head, err error) bool {
	if err == nil {
		err = checkResponse(req, res)
	}
	if err != nil {
		r.settle(NonStrict, "refused: "+err.Error())
		return false
	}
	return true
}

func bareLF(r *run, _, res *head, err error) bool {
	if err != nil {
		r.settle(Informational, "no response: "+err.Error())
		return false
	}
	r.settle(Informational, fmt.Sprintf("status %d", res.status()))
	return false
}

func (b *book) responses() {
	edit := func(f func(h *head)) *handshakeCase {
		return &handshakeCase{response: func(_ *run, _, res *head) { f(res) }}
	}
	refuse := func(id, what string, hs *handshakeCase) *Case {
		c := b.add(id, what, "The client refuses the connection.", sends(one, kill(2), text(hello)),
			exactly(closeDropped), leniently(closedWith(byTestee, false, 1002)))
		c.Servers = false
		c.handshake = hs
		return c
	}
	set := func(name string, values ...string) *handshakeCase {
		return edit(func(h *head) { h.set(name, values...) })
	}
	refuse("20.10.1", "A Sec-WebSocket-Accept for another key.", set("Sec-WebSocket-Accept", acceptKey(newKey())))
	refuse("20.10.2", "No Sec-WebSocket-Accept.", set("Sec-WebSocket-Accept"))
	refuse("20.10.3", "The right Sec-WebSocket-Accept with upper and lower case swapped.", edit(func(h *head) {
		h.set("Sec-WebSocket-Accept", swapCase(h.get("Sec-WebSocket-Accept")))
	}))
	refuse("20.10.4", "Status 200.", edit(func(h *head) { h.first = "HTTP/1.1 200 OK" }))
	c := refuse("20.10.5", "Status 302.", edit(func(h *head) {
		h.first = "HTTP/1.1 302 Found"
		h.add("Location", "/getCaseCount")
		h.add("Content-Length", "0")
	}))
	c.info, c.play = true, kill(2)
	refuse("20.10.6", "No Upgrade header.", set("Upgrade"))
	refuse("20.10.7", "Upgrade: foo.", set("Upgrade", "foo"))
	refuse("20.10.8", "No Connection header.", set("Connection"))
	refuse("20.10.9", "A subprotocol that was not asked for.", edit(func(h *head) { h.add("Sec-WebSocket-Protocol", "x-unasked") }))
	c = refuse("20.10.10", "An upgrade by HTTP/1.0.", edit(func(h *head) { h.first = strings.Replace(h.first, "1.1", "1.0", 1) }))
	c.Expectation += " Taking it is not strict."
	c.outcomes = append(c.outcomes, leniently(closeNormal, gotText(hello)))
	b.goodResponses()
	b.oddResponses()
}

func swapCase(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return c
	}, s)
}

func (b *book) goodResponses() {
	add := func(id, what string, hs *handshakeCase) *Case {
		c := b.add(id, what, "The connection is open."+echoAfter, sends(one, kill(1), text(hello)), exactly(closeNormal, gotText(hello)))
		c.Servers = false
		c.handshake = hs
		return c
	}
	add("20.10.11", "The response octet by octet.", &handshakeCase{mode: oct})
	add("20.10.12", "The response and a text message in one write.", &handshakeCase{early: []frame{text(hello)}}).play = kill(1)
	add("20.10.13", "connection: foo, upgrade and UPGRADE: WebSocket.", &handshakeCase{response: func(_ *run, _, res *head) {
		for i, f := range res.fields {
			switch f.name {
			case "Upgrade":
				res.fields[i] = field{"UPGRADE", "WebSocket"}
			case "Connection":
				res.fields[i] = field{"connection", "foo, upgrade"}
			}
		}
	}})
}

func (b *book) oddResponses() {
	add := func(id, what, wanted string, hs *handshakeCase) *Case {
		c := b.add(id, what, wanted, kill(1))
		c.Servers = false
		c.handshake = hs
		return c
	}
	add("20.10.14", "A response whose header lines do not end.", "The client gives up before 16 Mi octets.", &handshakeCase{special: floodHeaders})
	add("20.10.15", "TCP ends inside the response.", "The client notices, and connects again for what is next.", &handshakeCase{special: cutResponse}).again = true
	add("20.10.16", "No response.", "This only reports whether the client gives up within ten seconds.", &handshakeCase{special: noResponse})
	c := add("20.10.17", "A normal response; the request is looked at.",
		"GET, HTTP/1.1, one Host, version 13 once, a key of 16 octets that was not used before."+echoAfter, &handshakeCase{answer: lookAtRequest})
	c.play = sends(one, kill(1), text(hello))
	c.outcomes = []outcome{exactly(closeNormal, gotText(hello))}
}

// lookAtRequest is 20.10.17. The fuzzing server has made sure of method, version and the key's length already.
func lookAtRequest(r *run, req, _ *head, _ error) bool {
	key := req.get("Sec-WebSocket-Key")
	switch {
	case len(req.values("Sec-WebSocket-Version")) != 1 || req.get("Sec-WebSocket-Version") != "13":
		r.settle(Failed, "Sec-WebSocket-Version is not 13")
	case slices.Contains(r.earlier, key):
		r.settle(Failed, "the Sec-WebSocket-Key was used before")
	default:
		return true
	}
	return false
}
