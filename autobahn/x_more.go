package autobahn

// Sections 20.11 to 20.14: closing, fragments, text and floods.

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (b *book) moreCloses() {
	for i, code := range []int{1012, 1013, 1014} {
		b.add(fmt.Sprintf("20.11.%d", i+1), fmt.Sprintf("A Close with code %d, which IANA registered after RFC 6455.", code),
			"The Close is answered with 1000, the same code, or none; 1002 is not strict.", sends(one, kill(1), closeWith(code, "")),
			exactly(closedWith(byFuzzer, true, 1000, code)), leniently(closedWith(byFuzzer, false, 1002)))
	}
	b.add("20.11.4", "A Close with code 1015, which must not be sent.", "Code 1002, or a drop.",
		sends(one, kill(1), closeWith(1015, "")), exactly(closedWith(byFuzzer, false, 1002)))
	b.add("20.11.5", "A Close with the longest reason, in three-octet code points.", cleanly,
		sends(one, kill(1), closeWith(1000, strings.Repeat("€", 41))), exactly(closeNormal))
	b.add("20.11.6", "A Close whose reason ends inside a code point.", "Code 1002 or 1007, or a drop.",
		sends(one, kill(1), closeWith(1000, "\xe2\x82")), exactly(closedWith(byFuzzer, false, 1002, 1007)))
	b.add("20.11.7", "A Close frame without FIN.", failed, sends(one, kill(1), closeWith(1000, "").open().uncounted()), exactly(closeProtocol))
	b.add("20.11.8", "A Close whose header comes half a second before its payload.", cleanly, func(r *run) {
		f := closeWith(1000, "")
		wire := r.encode(nil, f)
		r.raw(wire[:f.headLen(r.client)], 0, 0)
		r.pause(500*time.Millisecond, "", func() {
			r.raw(wire[f.headLen(r.client):], 0, 0)
			r.ownClose(f.payload)
			r.kill(1)
		})
	}, exactly(closeNormal))
	b.add("20.11.9", "A Close octet by octet.", cleanly, sends(oct, kill(1), closeWith(1000, "")), exactly(closeNormal))
	b.add("20.11.10", "A Close with code 3000 and a reason.", "This only reports the code of the answer and the time until TCP ends.",
		sends(one, kill(1), closeWith(3000, "x")), exactly(closeAnyhow)).check = func(r *run) {
		code := "none"
		if r.remoteCode != nil {
			code = strconv.Itoa(*r.remoteCode)
		}
		r.set(Informational, fmt.Sprintf("code %s, TCP ended after %v", code, time.Since(r.begun).Round(time.Millisecond)))
	}
	b.add("20.11.11", "TCP closed in one direction, without a Close frame.", "TCP ends within five seconds; else it is reported.", func(r *run) {
		r.wire.queue(job{end: true})
		r.kill(5)
	}, exactly(closeOddly), perhaps(closeAnyhow))
	b.add("20.11.12", "TCP reset inside a frame.", "The next connection works.", func(r *run) {
		f := text(hello)
		r.raw(r.encode(nil, f)[:f.headLen(r.client)+4], 0, 0)
		r.vanish()
	}, exactly(closeAnyhow)).again = true
	b.add("20.11.13", "A Close, then a text message of 1 Mi.", "The Close is answered, the message is not.",
		func(r *run) { r.send(one, closeWith(1000, ""), text(stars(mi))); r.kill(2) }, exactly(closeNormal))
	b.add("20.11.14", "Two fragments of an unfinished message, then a Close.", cleanly+" 1002 is not strict.",
		sends(one, kill(1), text(part(1)).open(), cont(part(2)).open(), closeWith(1000, "")),
		exactly(closeNormal), leniently(closedWith(byFuzzer, false, 1002)))
	b.pingsAndClose()
}

// vanish resets TCP once everything queued is out.
func (r *run) vanish() {
	r.droppedByMe = true
	r.state = dropped
	r.wire.queue(job{cut: true})
}

func numbered(n int) []frame {
	var fs []frame
	for i := range n {
		fs = append(fs, ping(strconv.Itoa(i)))
	}
	return fs
}

// inOrder tells whether the events are pongs to some of the numbered pings, in their order.
func inOrder(events []event, n int) bool {
	last := -1
	for _, e := range events {
		i, err := strconv.Atoi(e.data)
		if e.kind != "pong" || err != nil || i <= last || i >= n {
			return false
		}
		last = i
	}
	return true
}

func (b *book) pingsAndClose() {
	c := b.add("20.11.15", "100 pings and a Close in one write.", "Pongs to none, some or all in order, then the answer to the Close.",
		sends(one, kill(1), append(numbered(100), closeWith(1000, ""))...), exactly(closeNormal))
	c.suppressed = true
	c.weigh = func(r *run) (Verdict, string) {
		if !inOrder(r.events, 100) {
			return Failed, r.mismatch()
		}
		return OK, fmt.Sprintf("%d pongs in order", len(r.events))
	}
}

func (b *book) moreFragments() {
	x := func(id, what string, deadline float64, echo []event, frames ...frame) *Case {
		return b.add(id, what, echoed, sends(one, kill(deadline), frames...), exactly(closeNormal, echo...))
	}
	bad := func(id, what string, frames ...frame) {
		b.add(id, what, failed, sends(one, kill(1), frames...), exactly(closeProtocol))
	}
	x("20.12.1", "A binary message in two fragments that is not UTF-8.", 1, []event{gotBinary("\x00\xff\xfe")},
		binaryf([]byte("\x00\xff")).open(), cont("\xfe"))
	bad("20.12.2", "An unfinished text message, then a binary one.", text(part(1)).open(), binaryf([]byte(part(2))))
	bad("20.12.3", "Two unfinished text messages.", text(part(1)).open(), text(part(2)).open())
	many := []frame{text("").open()}
	many = append(many, slices.Repeat([]frame{cont("").open()}, 4096)...)
	b.add("20.12.4", "4097 empty fragments before one with an octet.", echoed+" Refusing with 1008 or 1009 is not strict.", func(r *run) {
		r.send(one, append(many, cont("x"))...)
		r.kill(5)
	}, exactly(closeNormal, gotText("x")), leniently(closedWith(byTestee, false, 1008, 1009)))
	b.fragmentsAndPings()
	x("20.12.6", "A pong between two fragments.", 1, []event{gotText(part(1) + part(2))}, text(part(1)).open(), pong("x"), cont(part(2)))
	x("20.12.7", "A ping of 125 octets between two fragments.", 1, []event{gotPong(fes(125)), gotText(part(1) + part(2))},
		text(part(1)).open(), ping(fes(125)), cont(part(2)))
	bad("20.12.8", "A ping without FIN and nothing more.", ping("").open())
	bad("20.12.9", "A frame of a reserved opcode inside a message.", text(part(1)).open(), op(3, ""))
	bad("20.12.10", "A frame of a reserved control opcode with 126 octets.", op(11, stars(126)))
	b.floods()
}

func (b *book) fragmentsAndPings() {
	fs, es, all := []frame{text(part(1)).open()}, []event{}, part(1)
	for i := range 50 {
		s := strconv.Itoa(i)
		fs, es, all = append(fs, ping(s), cont(s).open()), append(es, gotPong(s)), all+s
	}
	b.add("20.12.5", "52 fragments with 50 pings between them.", "50 pongs in order, then the message; then a clean close.",
		sends(one, kill(5), append(fs, cont(""))...), exactly(closeNormal, append(es, gotText(all))...))
}

func (b *book) floods() {
	c := b.add("20.12.11", "1000 pings in one write.", "1000 pongs in order. Only some, with the last among them, is not strict (RFC 6455 5.5.3).",
		sends(one, kill(10), numbered(1000)...), exactly(closeNormal))
	c.enough = func(r *run) bool { return r.events[len(r.events)-1].data == "999" }
	c.weigh = func(r *run) (Verdict, string) {
		n := len(r.events)
		switch {
		case n == 0 || !inOrder(r.events, 1000) || r.events[n-1].data != "999":
			return Failed, r.mismatch()
		case n < 1000:
			return NonStrict, fmt.Sprintf("%d pongs for 1000 pings", n)
		}
		return OK, "all pings were answered"
	}
	b.add("20.12.12", "64 Ki octets in fragments of one.", echoed+" Refusing with 1008 or 1009 is not strict.", func(r *run) {
		r.send(one, fragments(opText, []byte(stars(64*ki)), 1)...)
		r.kill(30)
	}, exactly(closeNormal, gotText(stars(64*ki))), leniently(closedWith(byTestee, false, 1008, 1009)))
	var fs []frame
	var es []event
	for n := range 1000 {
		if n%2 == 0 {
			fs, es = append(fs, text(stars(n))), append(es, gotText(stars(n)))
			continue
		}
		fs, es = append(fs, binaryf([]byte(fes(n)))), append(es, gotBinary(fes(n)))
	}
	b.add("20.12.13", "1000 text and binary messages of 0 to 999 octets in one write.", "All come back in order; then a clean close.",
		sends(one, kill(10), fs...), exactly(closeNormal, es...))
}

func (b *book) moreUTF8() {
	good := func(id, what, want string, frames ...frame) {
		b.add(id, what, echoed, sends(one, kill(1), frames...), exactly(closeNormal, gotText(want)))
	}
	f := func(s string) frame { return cont(s).open() }
	b.add("20.13.1", "A code point of four octets in four fragments with a ping between each.", "Three pongs and the message; then a clean close.",
		sends(one, kill(1), text("\xf0").open(), ping("1"), f("\x90"), ping("2"), f("\x8d"), ping("3"), cont("\x88")),
		exactly(closeNormal, gotPong("1"), gotPong("2"), gotPong("3"), gotText("\xf0\x90\x8d\x88")))
	good("20.13.2", "A text that begins with a byte order mark.", "\ufeffa", text("\ufeffa"))
	b.textPositions()
	long := strings.Repeat("a", 4096) + "\xc3"
	good("20.13.5", "A code point cut after 4096 octets.", long+"\xa9", text(long).open(), cont("\xa9"))
	b.add("20.13.6", "A code point cut after 4096 octets that does not go on.", refused,
		sends(one, kill(1), text(long).open(), cont("a")), exactly(closeUTF8))
	good("20.13.7", "A code point with an empty fragment inside.", "\xce\xba", text("\xce").open(), f(""), cont("\xba"))
	b.add("20.13.8", "The first 11 of 65536 octets of text, of which the last cannot be; the rest a second later.",
		"The connection is failed in the pause; later is not strict.", func(r *run) {
			payload := stars(10) + "\xff" + stars(65536-11)
			fr := text(payload)
			wire := r.encode(nil, fr)
			n := fr.headLen(r.client) + 11
			r.raw(wire[:n], 0, 0)
			r.pause(time.Second, "A", func() { r.raw(wire[n:], 0, 0); r.kill(1) })
		}, exactly(closeUTF8), leniently(closeUTF8, gotTimeout("A")))
	b.add("20.13.9", "A binary message that is not UTF-8.", echoed, sends(one, kill(1), binaryf([]byte("\xff\xfe"))), exactly(closeNormal, gotBinary("\xff\xfe")))
	last := "\x00\U0010ffff\ufffd"
	good("20.13.10", "NUL, the last code point and the replacement character.", last, text(last))
	b.add("20.13.11", "An unfinished text that ends inside a code point, then a Close.", cleanly+" 1002 and 1007 are not strict.",
		sends(one, kill(1), text("\xce").open(), closeWith(1000, "")), exactly(closeNormal), leniently(closedWith(byFuzzer, false, 1002, 1007)))
}

// textPositions is 20.13.3 and 20.13.4: one octet of 4096 is bad, or one code point of two octets.
func (b *book) textPositions() {
	at := []int{0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 4095}
	for n, i := range at {
		s := []byte(strings.Repeat("a", 4096))
		s[i] = 0xff
		b.add(fmt.Sprintf("20.13.3.%d", n+1), fmt.Sprintf("4096 octets of text of which number %d cannot be.", i), refused,
			sends(one, kill(1), text(string(s))), exactly(closeUTF8))
	}
	for n, i := range at[:len(at)-1] {
		s := []byte(strings.Repeat("a", 4096))
		s[i], s[i+1] = 0xc3, 0xa9
		b.add(fmt.Sprintf("20.13.4.%d", n+1), fmt.Sprintf("4096 octets of text with a code point of two octets at %d.", i), echoed,
			sends(one, kill(1), text(string(s))), exactly(closeNormal, gotText(string(s))))
	}
}

func (b *book) robustness() {
	b.add("20.14.1", "A header for 1 Gi, 1 Ki of payload, and a drop of TCP.", "The next connection works.", func(r *run) {
		r.raw(r.encode(nil, octets("827f0000000040000000", fes(ki))), 0, 0)
		r.vanish()
	}, exactly(closeAnyhow)).again = true
	b.atTheLimit()
	c := b.add("20.14.5", "64 Mi octets in messages of 64 Ki, while the fuzzer does not read for five seconds.",
		"This only reports what comes back.", func(r *run) {
			for range 1024 {
				r.send(one, binaryf([]byte(fes(64*ki))))
			}
			r.kill(30)
		}, exactly(closeAnyhow))
	c.info, c.quiet, c.hold = true, true, 5*time.Second
	c.message = func(r *run, m message) {
		if r.echoes++; r.echoes == 1024 {
			r.close(1000, "")
		}
	}
	c.check = func(r *run) { r.why = fmt.Sprintf("%d of 1024 messages came back", r.echoes) }
	b.add("20.14.6", "A text message, an octet every 50 ms.", echoed, func(r *run) {
		r.raw(r.encode(nil, text(hello)), 1, 50*time.Millisecond)
		r.kill(5)
	}, exactly(closeNormal, gotText(hello)))
	b.everyCut()
	c = b.add("20.14.8", "1000 connections that are dropped at once.", "The next one works."+echoAfter, sends(one, kill(5), text(hello)), exactly(closeNormal, gotText(hello)))
	c.Clients = false
	c.prepare = func(_ *run, dial dialer) error {
		for range 1000 {
			conn, err := dial(context.Background(), 5*time.Second)
			if err != nil {
				return err
			}
			newWire(conn).drop(false)
		}
		return nil
	}
	rng := seeded(11)
	noise := []byte{0xf3} // reserved bits, so that no reading of the rest can be right
	for len(noise) < ki {
		noise = append(noise, byte(rng.Uint32()))
	}
	b.add("20.14.9", "1 Ki random octets.", "The connection is failed or dropped, and the next one works.", func(r *run) {
		r.raw(noise, 0, 0)
		r.kill(1)
	}, exactly(closedWith(byTestee, false, 1002, 1007))).again = true
}

// atTheLimit is 20.14.2 to 20.14.4, for testees whose limit is known.
func (b *book) atTheLimit() {
	const most = maxInflated
	add := func(id, what, wanted string, play func(r *run, limit int), o ...outcome) *Case {
		c := b.add(id, what, wanted, func(r *run) { play(r, int(r.cfg.Limit)); r.kill(10) }, o...)
		c.needs = func(r *run) string {
			if r.cfg.Limit <= 0 || r.cfg.Limit >= most {
				return noLimit
			}
			return ""
		}
		return c
	}
	c := add("20.14.2", "A binary message as large as the testee's limit.", echoed,
		func(r *run, n int) { r.send(one, binaryf(make([]byte, n))) }, exactly(closeNormal, gotBinary("as large as the limit")))
	c.message = func(r *run, m message) {
		if int64(len(m.data)) == r.cfg.Limit && m.op == opBinary {
			r.record(gotBinary("as large as the limit"))
			return
		}
		r.record(gotBinary(fmt.Sprintf("%d octets", len(m.data))))
	}
	tooBig := "The connection is failed with 1009 or dropped."
	add("20.14.3", "A binary message one octet above the limit.", tooBig,
		func(r *run, n int) { r.send(one, binaryf(make([]byte, n+1))) }, exactly(closeLimit))
	add("20.14.4", "A fragmented binary message one octet above the limit.", tooBig,
		func(r *run, n int) { r.send(one, fragments(opBinary, make([]byte, n+1), n/4+1)...) }, exactly(closeLimit))
}

// everyCut is 20.14.7: two frames in two writes, cut at every place.
func (b *book) everyCut() {
	total := 2*(2+4) + len(hello) + 1 // masked; what a server sends is 8 octets shorter
	for at := 1; at < total; at++ {
		c := b.add(fmt.Sprintf("20.14.7.%d", at), fmt.Sprintf("A text message and a ping in two writes, cut after %d octets.", at),
			"The message and the pong come back; then a clean close.", func(r *run) {
				wire := r.encode(r.encode(nil, text(hello)), ping("x"))
				r.raw(wire[:at], 0, 0)
				r.pause(5*time.Millisecond, "", func() { r.raw(wire[at:], 0, 0); r.kill(2) })
			}, exactly(closeNormal, gotText(hello), gotPong("x")), exactly(closeNormal, gotPong("x"), gotText(hello)))
		c.Clients = at < total-8
	}
}
