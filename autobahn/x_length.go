package autobahn

// Sections 20.1 and 20.2: payload lengths and masking.

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// extension enters all cases of our own: what upstream does not test.
func (b *book) extension() {
	b.lengths()
	b.slowLengths()
	b.masking()
	b.maskedClient()
	b.deflateBits()
	b.deflateLegal()
	b.deflateIllegal()
	b.deflateOutput()
	b.offers()
	b.answers()
	b.requests()
	b.responses()
	b.moreCloses()
	b.moreFragments()
	b.moreUTF8()
	b.robustness()
}

const (
	notMinimal = "The connection is failed with 1002 or dropped (RFC 6455 5.2)."
	orEchoed   = " Echoing it is not strict."
)

func (b *book) lengths() {
	one2 := func(id, what, head, payload string, echo event) {
		b.add(id, what, notMinimal+orEchoed, sends(one, kill(1), octets(head, payload)), exactly(closeProtocol), leniently(closeNormal, echo))
	}
	one2("20.1.1", "A text message of 5 octets in the 16-bit length form.", "817e0005", "Hello", gotText("Hello"))
	one2("20.1.2", "A text message of 125 octets in the 16-bit length form.", "817e007d", stars(125), gotText(stars(125)))
	one2("20.1.3", "An empty binary message in the 16-bit length form.", "827e0000", "", gotBinary(""))
	one2("20.1.4", "A binary message of 65535 octets in the 64-bit length form.", "827f000000000000ffff", fes(65535), gotBinary(fes(65535)))
	one2("20.1.5", "A binary message of 5 octets in the 64-bit length form.", "827f0000000000000005", fes(5), gotBinary(fes(5)))
	for i, head := range []string{"827f8000000000000001", "827fffffffffffffffff"} {
		b.add(fmt.Sprintf("20.1.%d", 6+i), "A binary frame whose length has the top bit.", "The connection is failed with 1002 or dropped; 1009 is not strict.",
			sends(one, kill(1), octets(head, fes(1+15*i))), exactly(closeProtocol), leniently(closeLimit))
	}
	b.add("20.1.8", "A binary frame that announces 2^63-1 octets; 16 follow, then silence.", "1009, 1002 or a drop; waiting is only reported.",
		sends(one, kill(2), octets("827f7fffffffffffffff", fes(16))),
		exactly(closedWith(byTestee, false, 1009, 1002)), perhaps(closeAnyhow))
	b.add("20.1.9", "A ping of 5 octets in the 16-bit length form.", failed, sends(one, kill(1), octets("897e0005", "Hello")), exactly(closeProtocol))
	b.add("20.1.10", "The header of a ping of 126 octets, its payload a second later.", "The connection is failed before the payload is there; later is not strict.",
		func(r *run) {
			f := octets("897e007e", stars(126))
			wire := r.encode(nil, f)
			r.raw(wire[:f.headLen(r.client)], 0, 0)
			r.pause(time.Second, "A", func() {
				r.raw(wire[f.headLen(r.client):], 0, 0)
				r.kill(1)
			})
		}, exactly(closeProtocol), leniently(closeProtocol, gotTimeout("A")))
	b.add("20.1.11", "A Close in the 64-bit length form.", failed,
		sends(one, kill(1), octets("887f0000000000000002", "\x03\xe8").uncounted()), exactly(closeProtocol))
	b.add("20.1.12", "A text message whose second fragment is in the 16-bit length form.", notMinimal+orEchoed,
		sends(one, kill(1), text("a").open(), octets("807e0001", "b")), exactly(closeProtocol), leniently(closeNormal, gotText("ab")))
}

func (b *book) slowLengths() {
	sizes := []int{0, 1, 125, 126, 127, 65535, 65536}
	var fs []frame
	all := ""
	for i, n := range sizes {
		f := frame{op: opCont, payload: []byte(fes(n)), more: i < len(sizes)-1}
		if i == 0 {
			f.op = opBinary
		}
		fs = append(fs, f)
		all += fes(n)
	}
	b.add("20.1.13", "A binary message of fragments of 0, 1, 125, 126, 127, 65535 and 65536 octets.", echoed,
		sends(one, kill(10), fs...), exactly(closeNormal, gotBinary(all)))
	b.add("20.1.14", "Text messages of 126 and 65536 octets whose headers come octet by octet, 5 ms apart.", echoed,
		func(r *run) {
			for _, n := range []int{126, 65536} {
				f := text(stars(n))
				wire := r.encode(nil, f)
				r.raw(wire[:f.headLen(r.client)], 1, 5*time.Millisecond)
				r.raw(wire[f.headLen(r.client):], 0, 0)
			}
			r.kill(5)
		}, exactly(closeNormal, gotText(stars(126)), gotText(stars(65536))))
}

func (b *book) masking() {
	first := len(b.cases)
	unmasked := func(id, what string, frames ...frame) *Case {
		return b.add(id, what, failed, sends(one, kill(1), frames...), exactly(closeProtocol))
	}
	unmasked("20.2.1", "An unmasked text message.", text(hello).wrongMask())
	unmasked("20.2.2", "An unmasked ping.", ping("x").wrongMask())
	c := unmasked("20.2.3", "An unmasked Close.", closeWith(1000, "").uncounted().wrongMask())
	c.Expectation += " Answering the Close is not strict."
	c.outcomes = append(c.outcomes, leniently(closedWith(byTestee, false, 1000)))
	c.check = func(r *run) {
		if r.verdict == OK && r.gotClose && r.remoteCode == nil {
			r.set(NonStrict, "the Close was answered")
		}
	}
	unmasked("20.2.4", "A text message whose second fragment is not masked.", text(part(1)).open(), cont(part(2)).wrongMask())
	unmasked("20.2.5", "An unmasked empty text message.", text("").wrongMask())
	b.add("20.2.6", "A text message masked with zeros.", echoed, sends(one, kill(1), text(hello).keyed(0)), exactly(closeNormal, gotText(hello)))
	var fs []frame
	var es []event
	for n := range 64 {
		s := strings.Repeat("abcdefgh", 8)[:n]
		fs, es = append(fs, text(s).keyed(0x01020304)), append(es, gotText(s))
	}
	b.add("20.2.7", "Text messages of 0 to 63 octets, all with the same key.", "All come back; then a clean close.", sends(each, kill(2), fs...), exactly(closeNormal, es...))
	b.countingOctets()
	b.add("20.2.9", "A text message of three fragments with three keys.", echoed,
		sends(one, kill(1), text(part(1)).open().keyed(0xdeadbeef), cont(part(2)).open().keyed(0x00ff00ff), cont(part(3)).keyed(0x12345678)),
		exactly(closeNormal, gotText(part(1)+part(2)+part(3))))
	for _, c := range b.cases[first:] {
		c.Clients = false
	}
}

func (b *book) countingOctets() {
	var all []byte
	for i := 0; len(all) < mi; i++ {
		all = binary.BigEndian.AppendUint32(all, uint32(i)*2654435761)
	}
	b.add("20.2.8", "A binary message of 1 Mi octets that all differ from their neighbours, in pieces of 1021.", "The same octets come back; then a clean close.",
		func(r *run) { r.send(1021, binaryf(all)); r.kill(10) }, exactly(closeNormal, gotBinary(string(all))))
}

func (b *book) maskedClient() {
	first := len(b.cases)
	b.add("20.2.10", "A masked text message from the server.", failed, sends(one, kill(1), text(hello).wrongMask()), exactly(closeProtocol))
	b.add("20.2.11", "A masked ping from the server.", failed, sends(one, kill(1), ping("x").wrongMask()), exactly(closeProtocol))
	var fs []frame
	var es []event
	for i := range 64 {
		s := fmt.Sprintf("message %d", i)
		fs, es = append(fs, text(s)), append(es, gotText(s))
	}
	c := b.add("20.2.12", "64 text messages.", "The echoes are masked with at least 60 different keys; fewer is not strict, one is a failure.",
		sends(one, kill(2), fs...), exactly(closeNormal, es...))
	c.check = func(r *run) {
		keys := map[uint32]bool{}
		for _, f := range r.frames {
			if f.op == opText {
				keys[f.key] = true
			}
		}
		switch n := len(keys); {
		case r.verdict != OK:
		case n == 1:
			r.set(Failed, "all frames were masked with one key")
		case n < 60:
			r.set(NonStrict, fmt.Sprintf("%d keys for 64 messages", n))
		}
	}
	for _, c := range b.cases[first:] {
		c.Servers = false
	}
}
