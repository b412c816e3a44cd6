package autobahn

// Section 9: large messages, many fragments, small writes, round trips. Only type and length of echoes count.

import (
	"bytes"
	"fmt"
)

const (
	ki = 1 << 10
	mi = 1 << 20
)

// sizeName words a number of octets.
func sizeName(n int) string {
	switch {
	case n >= mi && n%mi == 0:
		return fmt.Sprintf("%d Mi", n/mi)
	case n >= ki && n%ki == 0:
		return fmt.Sprintf("%d Ki", n/ki)
	}
	return fmt.Sprint(n)
}

func repeated(pattern string, n int) []byte {
	return bytes.Repeat([]byte(pattern), n/len(pattern)+1)[:n]
}

const binaryPattern = "\x00\xfe\x23\xfa\xf0"

func (b *book) limits() {
	first := len(b.cases)
	b.large("9.1", opText, []float64{10, 10, 100, 100, 100, 100})
	b.large("9.2", opBinary, []float64{10, 10, 10, 10, 100, 100})
	b.cutUp("9.3", opText)
	b.cutUp("9.4", opBinary)
	b.smallWrites("9.5", opText)
	b.smallWrites("9.6", opBinary)
	b.roundTrips("9.7", opText, "*")
	b.roundTrips("9.8", opBinary, "\xfe")
	for _, c := range b.cases[first:] {
		c.quiet, c.timed = true, true
	}
}

func kindName(op byte) string {
	if op == opText {
		return "text"
	}
	return "binary"
}

func patternOf(op byte) string {
	if op == opText {
		return pattern
	}
	return binaryPattern
}

// sizedEcho ends a case after one echo of that type and length.
func sizedEcho(op byte, n int) func(*run, message) {
	return func(r *run, m message) {
		switch {
		case r.verdict != "":
			r.set(Failed, "more than one message came back")
		case m.op != op || len(m.data) != n:
			r.set(Failed, fmt.Sprintf("a %s message of %d octets came back", kindName(m.op), len(m.data)))
		default:
			r.set(OK, "the message came back")
		}
		r.close(1000, "")
	}
}

func (b *book) large(group string, op byte, deadlines []float64) {
	for i, n := range []int{64 * ki, 256 * ki, mi, 4 * mi, 8 * mi, 16 * mi} {
		c := b.add(fmt.Sprintf("%s.%d", group, i+1), fmt.Sprintf("A %s message of %s octets in one frame.", kindName(op), sizeName(n)), echoed,
			func(r *run) {
				r.send(one, frame{op: op, payload: repeated(patternOf(op), n)})
				r.end(deadlines[i])
			})
		c.message = sizedEcho(op, n)
	}
}

func (b *book) cutUp(group string, op byte) {
	for i, size := range []int{64, 256, ki, 4 * ki, 16 * ki, 64 * ki, 256 * ki, mi, 4 * mi} {
		fill := "*"
		if i == 0 && op == opBinary {
			fill = "\xfe"
		}
		c := b.add(fmt.Sprintf("%s.%d", group, i+1),
			fmt.Sprintf("A %s message of 4 Mi octets in fragments of %s.", kindName(op), sizeName(size)), echoed,
			func(r *run) {
				r.send(one, fragments(op, repeated(fill, 4*mi), size)...)
				r.end(100)
			})
		c.message = sizedEcho(op, 4*mi)
	}
}

func (b *book) smallWrites(group string, op byte) {
	for i, chop := range []int{64, 128, 256, 512, 1024, 2048} {
		c := b.add(fmt.Sprintf("%s.%d", group, i+1),
			fmt.Sprintf("A %s message of 1 Mi octets in one frame, written in pieces of %d.", kindName(op), chop), echoed,
			func(r *run) {
				r.send(mode(chop), frame{op: op, payload: repeated(patternOf(op), mi)})
				r.end(1000)
			})
		c.message = sizedEcho(op, mi)
	}
}

func (b *book) roundTrips(group string, op byte, fill string) {
	deadlines := []float64{60, 60, 60, 120, 240, 480}
	for i, n := range []int{0, 16, 64, 256, 1024, 4096} {
		c := b.add(fmt.Sprintf("%s.%d", group, i+1),
			fmt.Sprintf("1000 %s messages of %d octets, each after the echo of the last.", kindName(op), n),
			"Every message comes back; then a clean close.",
			func(r *run) {
				payload := bytes.Repeat([]byte(fill), n)
				r.talk = &talk{op: op, want: func(int) []byte { return payload }, lengthOnly: true}
				r.talk.send(r)
				r.end(deadlines[i])
			})
		c.message = nextOfTalk
	}
}
