package autobahn

// Section 7: the closing handshake and its codes (RFC 6455 5.5.1, 7).

import (
	"fmt"
	"strings"
)

const (
	cleanly = "The Close is answered, nothing else comes, and TCP ends in good order."
	pattern = "BAsd7&jh23"
)

func (b *book) closeHandling() {
	first := len(b.cases)
	b.closeOrder()
	b.closePayloads()
	b.closeCodes()
	for _, c := range b.cases[first:] {
		c.suppressed = c.ID != "7.1.1"
		c.wrongCodeFatal = !c.info
	}
}

func (b *book) closeOrder() {
	world := "Hello World!"
	b.add("7.1.1", "A text message; a Close once it has come back.", echoed,
		sends(one, kill(1), text(world)), exactly(closeNormal, gotText(world)))
	b.add("7.1.2", "Two Close frames.", cleanly,
		sends(one, kill(1), closeWith(1000, ""), closeEmpty()), exactly(closeNormal))
	b.add("7.1.3", "A Close, then a ping.", "The Close is answered, the ping is not; TCP ends in good order.",
		sends(one, kill(1), closeWith(1000, ""), ping("")), exactly(closeNormal))
	b.add("7.1.4", "A Close, then a text message.", "The Close is answered, the message is not; TCP ends in good order.",
		sends(one, kill(1), closeWith(1000, ""), text(world)), exactly(closeNormal))
	b.add("7.1.5", "A message that is not finished, a Close, the rest of the message.", cleanly,
		sends(one, kill(1), text(part(1)).open(), closeWith(1000, ""), cont(part(2))), exactly(closeNormal))
	b.add("7.1.6", "A text message of 256 Ki, a short one, a Close, a ping.", "Either way is allowed: this only reports it.",
		func(r *run) {
			big := strings.Repeat(pattern, 262144/len(pattern)+1)[:262144]
			r.send(one, text(big), text(world), closeWith(1000, ""), ping(""))
			r.kill(1)
		}, exactly(closeNormal, gotText(world)), leniently(closeNormal)).info = true
}

func (b *book) closePayloads() {
	malformed := closedWith(byFuzzer, false, 1002)
	b.add("7.3.1", "A Close without a payload.", cleanly, sends(one, kill(1), closeEmpty()), exactly(closeNormal))
	b.add("7.3.2", "A Close with a payload of one octet.", "Code 1002, or a drop.",
		sends(one, kill(1), frame{op: opClose, payload: []byte("a")}), exactly(malformed))
	b.add("7.3.3", "A Close with a code.", cleanly, sends(one, kill(1), closeWith(1000, "")), exactly(closeNormal))
	b.add("7.3.4", "A Close with a code and a reason.", cleanly, sends(one, kill(1), closeWith(1000, "Hello World!")), exactly(closeNormal))
	b.add("7.3.5", "A Close with a code and the longest reason, 123 octets.", cleanly,
		sends(one, kill(1), closeWith(1000, stars(123))), exactly(closeNormal))
	b.add("7.3.6", "A Close with a reason of 124 octets, one too many.", "Code 1002, or a drop.",
		sends(one, kill(1), closeWith(1000, stars(124))), exactly(malformed))
	b.add("7.5.1", "A Close whose reason is not UTF-8.", "Code 1007 or 1002, or a drop.",
		sends(one, kill(1), closeWith(1000, str(badGreek))), exactly(closedWith(byFuzzer, false, 1002, 1007)))
}

func (b *book) closeCodes() {
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		b.add(fmt.Sprintf("7.7.%d", i+1), fmt.Sprintf("A Close with the valid code %d.", code),
			"The Close is answered with the same code, 1000, or none.",
			sends(one, kill(1), closeWith(code, "")), exactly(closedWith(byFuzzer, true, 1000, code)))
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		b.add(fmt.Sprintf("7.9.%d", i+1), fmt.Sprintf("A Close with the code %d, which must not be sent.", code),
			"Code 1002, or a drop.",
			sends(one, kill(1), closeWith(code, "")), exactly(closedWith(byFuzzer, false, 1002)))
	}
	for i, code := range []int{5000, 65535} {
		b.add(fmt.Sprintf("7.13.%d", i+1), fmt.Sprintf("A Close with the code %d, of which RFC 6455 says nothing.", code),
			"Either way is allowed: this only reports it.",
			sends(one, kill(1), closeWith(code, "")), exactly(closeAnyhow)).info = true
	}
}
