package autobahn

// Sections 20.3 to 20.6: permessage-deflate, octet by octet.

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// compressedHello is "Hello" in a fixed block: D in the catalogue.
const compressedHello = "f248cdc9c90700"

func z(hex string) frame { return text(str(hex)).bits(rsv1) }

// withDeflate makes a case depend on compression, offered or answered without parameters.
func withDeflate(c *Case) *Case {
	c.deflate = true
	c.offer = []string{deflateName}
	c.respond = func(r *run, req *head) (string, error) { return agreeTo(r, req, func(*terms) string { return "" }) }
	return c
}

// firstOffer is the client's first good offer of permessage-deflate, nil if there is none.
func firstOffer(req *head) *terms {
	es, err := parseExtensions(strings.Join(req.values("Sec-WebSocket-Extensions"), ", "))
	if err != nil {
		return nil
	}
	for _, e := range es {
		if t, err := parseTerms(e, true); err == nil {
			return &t
		}
	}
	return nil
}

// agreeTo answers the first offer; change adds to the terms, or says what is missing.
func agreeTo(r *run, req *head, change func(t *terms) string) (string, error) {
	offer := firstOffer(req)
	if offer == nil {
		return "", nil
	}
	t := &terms{serverBits: offer.serverBits, serverNoTakeover: offer.serverNoTakeover, clientBitsAllowed: offer.clientBitsAllowed}
	if r.lacking = change(t); r.lacking != "" {
		return "", nil
	}
	r.terms = t
	return t.String(), nil
}

func (b *book) deflateBits() {
	pieces := func(hex1 string, rsvA byte, hex2 string, rsvB byte) []frame {
		return []frame{text(str(hex1)).bits(rsvA).open(), cont(str(hex2)).bits(rsvB)}
	}
	for i, fs := range [][]frame{
		{ping("x").bits(rsv1)}, {pong("x").bits(rsv1)}, {closeWith(1000, "").bits(rsv1).uncounted()},
		{text(str(compressedHello)).bits(6)}, {text(str(compressedHello)).bits(5)}, {text(hello).bits(2)}, {text(hello).bits(1)},
		pieces("f248cd", rsv1, "c9c90700", rsv1), pieces("4865", 0, compressedHello, rsv1),
		{op(3, "").bits(rsv1)}, {cont(str(compressedHello)).bits(rsv1)},
	} {
		withDeflate(b.add(fmt.Sprintf("20.3.%d", i+1), "Compression agreed; "+words(fs)+".", failed, sends(one, kill(1), fs...), exactly(closeProtocol)))
	}
	for i, fs := range [][]frame{
		{ping("x").bits(rsv1)}, {text(part(1)).open(), cont(part(2)).bits(rsv1)}, {closeWith(1000, "").bits(rsv1).uncounted()},
	} {
		b.add(fmt.Sprintf("20.3.%d", i+12), "No extension agreed; "+words(fs)+".", failed, sends(one, kill(1), fs...), exactly(closeProtocol))
	}
}

// words describes frames.
func words(fs []frame) string {
	names := map[byte]string{opCont: "continuation", opText: "text", opBinary: "binary", opClose: "Close", opPing: "ping", opPong: "pong"}
	var s []string
	for _, f := range fs {
		name := names[f.op]
		if name == "" {
			name = fmt.Sprintf("opcode %d", f.op)
		}
		s = append(s, fmt.Sprintf("%s frame with reserved bits %d", name, f.rsv))
	}
	return strings.Join(s, ", ")
}

func (b *book) deflateLegal() {
	legal := func(id, what string, echo []event, frames ...frame) *Case {
		return withDeflate(b.add(id, what, echoed, sends(one, kill(1), frames...), exactly(closeNormal, echo...)))
	}
	once := []event{gotText("Hello")}
	twice := []event{gotText("Hello"), gotText("Hello")}
	legal("20.4.1", "A fixed block.", once, z(compressedHello))
	legal("20.4.2", "A fixed block in two fragments.", once, z("f248cd").open(), cont(str("c9c90700")))
	legal("20.4.3", "A message that refers to the one before.", twice, z(compressedHello), z("f200110000")).needs = keepsContext
	legal("20.4.4", "A stored block.", once, z("000500faff48656c6c6f00"))
	legal("20.4.5", "A message whose last block says that it is final, and another message.", twice, z("f348cdc9c9070000"), z(compressedHello))
	legal("20.4.6", "Two blocks with an empty stored one between them.", once, z("f24805000000ffffcac9c90700"))
	legal("20.4.7", "An empty message.", []event{gotText("")}, z("00"))
	legal("20.4.8", "An empty first fragment, the compressed octets in the second.", once, z("").open(), cont(str(compressedHello)))
	var fs []frame
	var es []event
	for i, c := range unhex(compressedHello) {
		f := frame{op: opCont, payload: []byte{c}, more: i < 6}
		if i == 0 {
			f.op, f.rsv = opText, rsv1
		} else {
			fs, es = append(fs, ping(fmt.Sprint(i))), append(es, gotPong(fmt.Sprint(i)))
		}
		fs = append(fs, f)
	}
	legal("20.4.9", "Seven fragments of one octet with pings between them.", append(es, once...), fs...)
	c := legal("20.4.10", "A message that ends in 0000ffff, which should have been left out.", once, z("f248cdc9c907000000ffff"))
	c.outcomes = append(c.outcomes, leniently(closeDeflate), leniently(closeOddly))
	legal("20.4.11", "A message that is not compressed.", []event{gotText(hello)}, text(hello))
	b.deflateInTurn()
	b.deflateFar()
	withDeflate(b.add("20.4.14", "A compressed message without any octets.", "Either way is allowed: this only reports it.",
		sends(one, kill(1), z("")), exactly(closeNormal, gotText("")))).info = true
}

// keepsContext is for cases that need context takeover in the fuzzer's direction.
func keepsContext(r *run) string {
	if !r.codec.takeover {
		return "context takeover was declined in this direction"
	}
	return ""
}

func (b *book) deflateInTurn() {
	message := func(i int) string { return fmt.Sprintf("message %d, much like the others", i) }
	var es []event
	for i := range 100 {
		es = append(es, gotText(message(i)))
	}
	withDeflate(b.add("20.4.12", "100 messages, compressed and not in turn.", "All come back; then a clean close.", func(r *run) {
		d := newDeflater(r.codec.bits, r.codec.takeover)
		var fs []frame
		for i := range 100 {
			f := text(message(i))
			if i%2 == 0 {
				f.payload, f.rsv = d.compress(nil, f.payload), rsv1
			}
			fs = append(fs, f)
		}
		r.send(one, fs...)
		r.kill(10)
	}, exactly(closeNormal, es...)))
}

// deflateFar reaches back as far and copies as much as a token can.
func (b *book) deflateFar() {
	rng := seeded(6)
	start := make([]byte, maxWindow)
	for i := range start {
		start[i] = byte(rng.Uint32())
	}
	plain := bytes.Repeat(start, mi/maxWindow)
	c := withDeflate(b.add("20.4.13", "1 Mi octets in dynamic blocks, with distances of 32768 and lengths of 258.", echoed, func(r *run) {
		var w blockWriter
		var tokens []uint32
		for _, c := range start {
			tokens = append(tokens, uint32(c))
		}
		w.writeDynamic(tokens)
		tokens = tokens[:0]
		for left := mi - maxWindow; left > 0; left -= min(left, maxMatch) {
			tokens = append(tokens, match(min(left, maxMatch), maxWindow))
		}
		w.writeDynamic(tokens)
		w.sync()
		r.send(one, binaryf(w.out).bits(rsv1))
		r.kill(10)
	}, exactly(closeNormal, gotBinary(string(plain)))))
	c.needs = func(r *run) string {
		if r.codec.bits < 15 {
			return "a smaller window was agreed"
		}
		return ""
	}
}

const broken = "The connection is failed with 1007 or 1002, or dropped."

func (b *book) deflateIllegal() {
	bad := func(id, what, hex string) *Case {
		return withDeflate(b.add(id, what, broken, sends(one, kill(1), z(hex)), exactly(closeDeflate), leniently(closeOddly)))
	}
	bad("20.5.1", "A block of the reserved type.", "ffffff")
	bad("20.5.2", "A first message that refers to one before it.", "f200110000")
	bad("20.5.3", "A stored block whose length and complement differ.", "000500000048656c6c6f00")
	c := bad("20.5.4", "A message that ends inside a block.", "f248cd")
	c.check = func(r *run) {
		if r.verdict != OK && r.verdict != NonStrict {
			r.set(Informational, "the rest was taken to be missing, or the message was delivered as far as it went")
		}
	}
	for i, hex := range []string{"3ab7ebe1de9de79bcfed39b7f5ed82060000", "3ab7ebe1de9de79bcfed390700"} {
		withDeflate(b.add(fmt.Sprintf("20.5.%d", 5+i), "A compressed text message that is not UTF-8.", refused,
			sends(one, kill(1), z(hex)), exactly(closeUTF8)))
	}
	withDeflate(b.add("20.5.7", "A compressed text message that is not UTF-8, and a second later its empty last fragment.",
		"The connection is failed in the pause; later is not strict.", func(r *run) {
			r.send(one, z("3ab7ebe1de9de79bcfed39b7f5ed82060000").open())
			r.pause(time.Second, "A", func() { r.send(one, cont("")); r.kill(1) })
		}, exactly(closeUTF8), leniently(closeUTF8, gotTimeout("A"))))
	withDeflate(b.add("20.5.8", "A binary message inside a compressed text message.", failed,
		sends(one, kill(1), z("f248cd").open(), binaryf([]byte("x"))), exactly(closeProtocol)))
	b.bombs()
	b.forgotten()
}

// bombs are 20.5.9 and 20.5.10: 16 Mi zeros in some 16 Ki octets.
func (b *book) bombs() {
	const size = 16 * mi
	whole := gotBinary("16 Mi zeros")
	bomb := func(r *run) {
		r.send(one, binaryf(newDeflater(r.codec.bits, false).compress(nil, make([]byte, size))).bits(rsv1))
		r.kill(60)
	}
	shorten := func(r *run, m message) { // the event is a word, not 16 Mi octets
		if m.op == opBinary && len(m.data) == size && bytes.Count(m.data, []byte{0}) == size {
			r.record(whole)
			return
		}
		r.record(gotBinary(fmt.Sprintf("%d other octets", len(m.data))))
	}
	withDeflate(b.add("20.5.9", "16 Mi zeros in some 16 Ki compressed octets.", "They come back, or the connection is failed with 1009 or dropped.",
		bomb, exactly(closeNormal, whole), exactly(closeLimit))).message = shorten
	c := withDeflate(b.add("20.5.10", "16 Mi zeros in some 16 Ki compressed octets, beyond the testee's limit.",
		"The connection is failed with 1009 or dropped.", bomb, exactly(closeLimit)))
	c.message = shorten
	c.enough = func(*run) bool { return true }
	c.needs = func(r *run) string {
		if r.cfg.Limit <= 0 || r.cfg.Limit >= size {
			return noLimit
		}
		return ""
	}
}

const noLimit = "the testee's message limit is not known or too large (Config.Limit)"

// forgotten is 20.5.11: the fuzzer promised to forget, and refers to the past.
func (b *book) forgotten() {
	c := withDeflate(b.add("20.5.11", "No context takeover agreed for the fuzzer's direction; a message refers to the one before.",
		broken+" An echo is only reported.", sends(one, kill(1), z(compressedHello), z("f200110000")),
		exactly(closeDeflate, gotText("Hello")), exactly(closeDeflate), leniently(closeOddly, gotText("Hello")), leniently(closeOddly),
		perhaps(closeNormal, gotText("Hello"), gotText("Hello"))))
	c.enough = func(r *run) bool { return len(r.events) == 2 }
	c.offer = []string{deflateName + "; client_no_context_takeover"}
	c.respond = func(r *run, req *head) (string, error) {
		return agreeTo(r, req, func(t *terms) string { t.serverNoTakeover = true; return "" })
	}
	c.needs = func(r *run) string {
		if r.codec.takeover {
			return "the server did not agree to client_no_context_takeover"
		}
		return ""
	}
}

// lacks is the usual needs of cases whose answer depends on the offer.
func lacks(r *run) string { return r.lacking }
