package autobahn

// Sections 1 to 5 and 10: frames, pings, reserved bits and opcodes, fragments.

import (
	"fmt"
	"strings"
	"time"
)

const hello = "Hello, world!" // HW in the catalogue

func part(n int) string { return fmt.Sprintf("fragment%d", n) } // F1, F2, … in the catalogue

func stars(n int) string { return strings.Repeat("*", n) }
func fes(n int) string   { return strings.Repeat("\xfe", n) }

const bin8 = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"

func (b *book) framing() {
	sizes := []struct {
		n        int
		m        mode
		deadline float64
	}{{0, one, 1}, {125, one, 1}, {126, one, 1}, {127, one, 1}, {128, one, 1}, {65535, one, 10}, {65536, one, 10}, {65536, 997, 10}}
	for i, s := range sizes {
		b.add(fmt.Sprintf("1.1.%d", i+1), fmt.Sprintf("A text message of %d octets in one frame%s.", s.n, inPieces(s.m)),
			"The message comes back; then a clean close.",
			func(r *run) { r.send(s.m, text(stars(s.n))); r.kill(s.deadline) },
			exactly(closeNormal, gotText(stars(s.n))))
	}
	for i, s := range sizes {
		b.add(fmt.Sprintf("1.2.%d", i+1), fmt.Sprintf("A binary message of %d octets in one frame%s.", s.n, inPieces(s.m)),
			"The message comes back; then a clean close.",
			func(r *run) { r.send(s.m, binaryf([]byte(fes(s.n)))); r.kill(s.deadline) },
			exactly(closeNormal, gotBinary(fes(s.n))))
	}
}

// inPieces words a write mode.
func inPieces(m mode) string {
	switch m {
	case one:
		return ""
	case each:
		return ", every frame written by itself"
	case oct:
		return ", written octet by octet"
	}
	return fmt.Sprintf(", written in pieces of %d octets", m)
}

func (b *book) pings() {
	echo := "A pong with the same payload; then a clean close."
	add := func(id, description, expectation string, m mode, deadline float64, frames []frame, c closing, events ...event) {
		b.add(id, description, expectation, sends(m, end(deadline), frames...), exactly(c, events...))
	}
	add("2.1", "A ping without a payload.", echo, one, 1, []frame{ping("")}, closeNormal, gotPong(""))
	add("2.2", "A ping with text.", echo, one, 1, []frame{ping(hello)}, closeNormal, gotPong(hello))
	add("2.3", "A ping with octets that are not UTF-8.", echo, one, 1, []frame{ping(bin8)}, closeNormal, gotPong(bin8))
	add("2.4", "A ping with 125 octets, the most allowed.", echo, one, 1, []frame{ping(fes(125))}, closeNormal, gotPong(fes(125)))
	b.add("2.5", "A ping with 126 octets, one too many.", "The connection is failed (RFC 6455 5.5).",
		sends(one, kill(1), ping(fes(126))), exactly(closeProtocol))
	add("2.6", "A ping with 125 octets, written octet by octet.", echo, oct, 2, []frame{ping(fes(125))}, closeNormal, gotPong(fes(125)))
	add("2.7", "A pong that nobody asked for, empty, and at once a Close.", "The pong is ignored; a clean close.",
		one, 1, []frame{pong(""), closeWith(1000, "")}, closeNormal)
	add("2.8", "A pong that nobody asked for, with a payload, and at once a Close.", "The pong is ignored; a clean close.",
		one, 1, []frame{pong("unsolicited pong payload"), closeWith(1000, "")}, closeNormal)
	add("2.9", "A pong that nobody asked for, then a ping.", "A pong for the ping only; then a clean close.",
		one, 1, []frame{pong("unsolicited pong payload"), ping("ping payload")}, closeNormal, gotPong("ping payload"))
	var pings []frame
	var pongs []event
	for i := range 10 {
		pings = append(pings, ping(fmt.Sprintf("payload-%d", i)))
		pongs = append(pongs, gotPong(fmt.Sprintf("payload-%d", i)))
	}
	add("2.10", "Ten pings in one write.", "Ten pongs in the same order; then a clean close.", one, 3, pings, closeNormal, pongs...)
	add("2.11", "Ten pings, written octet by octet.", "Ten pongs in the same order; then a clean close.", oct, 3, pings, closeNormal, pongs...)
}

const failed = "The connection is failed with 1002 or dropped."

func (b *book) reservedBits() {
	b.add("3.1", "A text message with RSV3, no extension agreed.", failed,
		sends(one, kill(1), text(hello).bits(1)), exactly(closeProtocol))
	for i, m := range []mode{one, each, oct} {
		b.add(fmt.Sprintf("3.%d", i+2),
			fmt.Sprintf("A good text message, one with reserved bits %d, a ping%s.", i+2, inPieces(m)),
			"The good message comes back, then the connection is failed. Failing before the echo is not strict.",
			sends(m, kill(1), text(hello), text(hello).bits(byte(i+2)), ping("")),
			exactly(closeProtocol, gotText(hello)), leniently(closeProtocol))
	}
	b.add("3.5", "A binary message with RSV1 and RSV3.", failed,
		sends(one, kill(1), binaryf([]byte(bin8)).bits(5)), exactly(closeProtocol))
	b.add("3.6", "A binary message with RSV1 and RSV2.", failed,
		sends(one, kill(1), binaryf([]byte(hello)).bits(6)), exactly(closeProtocol))
	b.add("3.7", "A Close frame with all reserved bits.", failed,
		sends(one, kill(1), closeEmpty().bits(7).uncounted()), exactly(closeProtocol))
}

func (b *book) opcodes() {
	for group, first := range []byte{3, 11} {
		id := func(n int) string { return fmt.Sprintf("4.%d.%d", group+1, n) }
		b.add(id(1), fmt.Sprintf("A frame of reserved opcode %d, empty.", first), failed,
			sends(one, kill(1), op(first, "")), exactly(closeProtocol))
		b.add(id(2), fmt.Sprintf("A frame of reserved opcode %d with a payload.", first+1), failed,
			sends(one, kill(1), op(first+1, "reserved opcode payload")), exactly(closeProtocol))
		for i := range byte(3) {
			code, m, payload := first+2+i, one, hello
			if i == 0 {
				payload = ""
			}
			if i == 2 {
				m = oct
			}
			b.add(id(3+int(i)), fmt.Sprintf("A good text message, a frame of reserved opcode %d, a ping%s.", code, inPieces(m)),
				"The good message comes back, then the connection is failed. Failing before the echo is not strict.",
				sends(m, kill(1), text(hello), op(code, payload), ping("")),
				exactly(closeProtocol, gotText(hello)), leniently(closeProtocol))
		}
	}
}

func (b *book) fragmentation() {
	b.add("5.1", "A ping in two fragments.", failed,
		sends(one, kill(1), ping(part(1)).open(), cont(part(2))), exactly(closeProtocol))
	b.add("5.2", "A pong in two fragments.", failed,
		sends(one, kill(1), pong(part(1)).open(), cont(part(2))), exactly(closeProtocol))
	modes := []mode{one, each, oct}
	for i, m := range modes {
		b.add(fmt.Sprintf("5.%d", 3+i), "A text message in two fragments"+inPieces(m)+".",
			"The whole message comes back; then a clean close.",
			sends(m, end(1), text(part(1)).open(), cont(part(2))), exactly(closeNormal, gotText(part(1)+part(2))))
	}
	for i, m := range modes {
		b.add(fmt.Sprintf("5.%d", 6+i), "A text message in two fragments with a ping between them"+inPieces(m)+".",
			"The pong comes first, then the message; then a clean close.",
			sends(m, end(1), text(part(1)).open(), ping("ping payload"), cont(part(2))),
			exactly(closeNormal, gotPong("ping payload"), gotText(part(1)+part(2))))
	}
	stray := "non-continuation payload"
	for i, m := range modes {
		b.add(fmt.Sprintf("5.%d", 9+i), "A final continuation with no message to continue, then a text message"+inPieces(m)+".", failed,
			sends(m, kill(1), cont(stray), text(hello)), exactly(closeProtocol))
	}
	for i, m := range modes {
		b.add(fmt.Sprintf("5.%d", 12+i), "A continuation without FIN and with no message to continue, then a text message"+inPieces(m)+".", failed,
			sends(m, kill(1), cont(stray).open(), text(hello)), exactly(closeProtocol))
	}
	b.brokenFragments()
	b.slowFragments()
}

func (b *book) brokenFragments() {
	b.add("5.15", "A text message in two fragments, then a continuation of nothing and a text message.",
		"The good message comes back, then the connection is failed. Failing before the echo is not strict.",
		sends(one, kill(1), text(part(1)).open(), cont(part(2)), cont(part(3)).open(), text(part(4))),
		exactly(closeProtocol, gotText(part(1)+part(2))), leniently(closeProtocol))
	for i, stray := range []frame{cont(part(1)).open(), cont(part(1))} {
		round := []frame{stray, text(part(2)).open(), cont(part(3))}
		b.add(fmt.Sprintf("5.%d", 16+i), "Twice a continuation of nothing before a good message.", failed,
			sends(one, kill(1), append(round, round...)...), exactly(closeProtocol))
	}
	b.add("5.18", "Two text frames, of which the first was to be continued.", failed,
		sends(one, kill(1), text(part(1)).open(), text(part(2))), exactly(closeProtocol))
}

func (b *book) slowFragments() {
	for i, m := range []mode{one, each} {
		b.add(fmt.Sprintf("5.%d", 19+i), "A text message in five fragments with a ping after the second and the fourth, and a second's pause"+inPieces(m)+".",
			"Both pongs, then the message; then a clean close.",
			func(r *run) {
				r.send(m, text(part(1)).open(), cont(part(2)).open(), ping("pongme 1!"))
				r.pause(time.Second, "", func() {
					r.send(m, cont(part(3)).open(), cont(part(4)).open(), ping("pongme 2!"), cont(part(5)))
					r.end(1)
				})
			},
			exactly(closeNormal, gotPong("pongme 1!"), gotPong("pongme 2!"), gotText(part(1)+part(2)+part(3)+part(4)+part(5))))
	}
}

// fragments cuts a message as the fuzzer does by itself: if the payload is a multiple of size, FIN comes with an
// extra empty frame; a payload not longer than size is not cut.
func fragments(op byte, payload []byte, size int) []frame {
	if size == 0 || len(payload) <= size {
		return []frame{{op: op, payload: payload}}
	}
	var fs []frame
	for len(payload) >= size {
		fs = append(fs, frame{op: op, payload: payload[:size], more: true})
		payload = payload[size:]
		op = opCont
	}
	return append(fs, frame{op: opCont, payload: payload})
}

func (b *book) misc() {
	c := b.add("10.1.1", "A text message of 65536 octets that the fuzzer cuts into fragments of 1300.",
		"The message comes back, cut in any way; then a clean close.",
		func(r *run) {
			r.send(one, fragments(opText, []byte(stars(65536)), 1300)...)
			r.kill(10)
		},
		exactly(closeNormal, gotText(stars(65536))))
	c.check = func(r *run) { // the fuzzer tests itself
		if r.txKinds[opText] != 1 || r.txKinds[opCont] != 50 {
			r.set(Failed, fmt.Sprintf("the fuzzer sent %d text and %d continuation frames", r.txKinds[opText], r.txKinds[opCont]))
		}
	}
}
