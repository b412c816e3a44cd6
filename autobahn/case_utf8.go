package autobahn

// Section 6: text must be UTF-8, and must be refused when it is not, as early as may be (RFC 6455 8.1).

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	greek    = "cebae1bdb9cf83cebcceb5" // A in the catalogue
	umlauts  = "48656c6c6f2dc2b540c39fc3b6c3a4c3bcc3a0c3a12d5554462d382121"
	edited   = "656469746564"
	badGreek = greek + "eda080" + edited
)

const (
	echoed  = "The message comes back; then a clean close."
	refused = "The connection is failed with 1007 or dropped, and nothing comes back."
)

func str(hex string) string { return string(unhex(hex)) }

func (b *book) utf8() {
	text3 := func(id, description, a, m, z string) {
		b.add(id, description, echoed, sends(one, end(1), text(a).open(), cont(m).open(), cont(z)), exactly(closeNormal, gotText(a+m+z)))
	}
	b.add("6.1.1", "An empty text message.", echoed, sends(one, end(1), text("")), exactly(closeNormal, gotText("")))
	text3("6.1.2", "A text message of three empty fragments.", "", "", "")
	text3("6.1.3", "A text message of three fragments, only the middle one with a payload.", "", "middle frame payload", "")
	b.add("6.2.1", "Valid UTF-8 in one frame.", echoed, sends(one, end(1), text(str(umlauts))), exactly(closeNormal, gotText(str(umlauts))))
	b.add("6.2.2", "Valid UTF-8 in two fragments, cut between two code points.", echoed,
		sends(one, end(1), text(str(umlauts[:30])).open(), cont(str(umlauts[30:]))), exactly(closeNormal, gotText(str(umlauts))))
	b.add("6.2.3", "Valid UTF-8 in fragments of one octet.", echoed,
		sends(one, end(1), fragments(opText, unhex(umlauts), 1)...), exactly(closeNormal, gotText(str(umlauts))))
	b.add("6.2.4", "Greek in fragments of one octet.", echoed,
		sends(one, end(1), fragments(opText, unhex(greek), 1)...), exactly(closeNormal, gotText(str(greek))))
	b.add("6.3.1", "Text with a surrogate in it, in one frame.", refused,
		sends(one, kill(1), text(str(badGreek))), exactly(closeUTF8))
	b.add("6.3.2", "Text with a surrogate in it, in fragments of one octet.", refused,
		sends(one, kill(1), fragments(opText, unhex(badGreek), 1)...), exactly(closeUTF8))
	b.failFast()
	for _, line := range strings.Split(strings.TrimSpace(utf8Families), "\n") {
		b.family(line)
	}
}

// failFast is 6.4: three parts with a second between them, of which the second makes the text invalid.
func (b *book) failFast() {
	for i, cutAt := range [][2]int{{11, 15}, {12, 13}, {11, 15}, {12, 13}} {
		whole := unhex(greek + "f4908080" + edited)
		p1, p2, p3 := whole[:cutAt[0]], whole[cutAt[0]:cutAt[1]], whole[cutAt[1]:]
		how, play := "fragments", inFragments(p1, p2, p3)
		if i >= 2 {
			how, play = "writes of one frame", inOneFrame(len(p1), len(p2), whole)
		}
		b.add(fmt.Sprintf("6.4.%d", i+1),
			fmt.Sprintf("Text that becomes invalid at octet %d, in three %s with a second between them.", 13, how),
			"The connection is failed after the second part. Failing only after the third is not strict.",
			play, exactly(closeUTF8, gotTimeout("A")), leniently(closeUTF8, gotTimeout("A"), gotTimeout("B")))
	}
}

// inSteps runs three steps with a second between them.
func inSteps(r *run, first, second, third func()) {
	first()
	r.pause(time.Second, "A", func() {
		second()
		r.pause(time.Second, "B", func() {
			third()
			r.kill(1)
		})
	})
}

func inFragments(p1, p2, p3 []byte) func(*run) {
	return func(r *run) {
		inSteps(r,
			func() { r.send(one, text(string(p1)).open()) },
			func() { r.send(one, cont(string(p2)).open()) },
			func() { r.send(one, cont(string(p3))) })
	}
}

func inOneFrame(n1, n2 int, whole []byte) func(*run) {
	return func(r *run) {
		f := text(string(whole)).open()
		wire := r.encode(nil, f)
		r.log.sent(r, f, one, wire)
		n1 := n1 + f.headLen(r.client)
		inSteps(r,
			func() { r.raw(wire[:n1], 0, 0) },
			func() { r.raw(wire[n1:n1+n2], 0, 0) },
			func() { r.raw(wire[n1+n2:], 0, 0); r.send(one, cont("")) })
	}
}

// family reads one line: the id, then for every case + (valid) or - and the octets.
func (b *book) family(line string) {
	words := strings.Fields(line)
	for i, w := range words[1:] {
		id := words[0] + "." + strconv.Itoa(i+1)
		payload := str(w[1:])
		if w[0] == '+' {
			b.add(id, "Text that is valid UTF-8: "+w[1:]+".", echoed, sends(one, kill(.5), text(payload)), exactly(closeNormal, gotText(payload)))
			continue
		}
		b.add(id, "Text that is not UTF-8: "+w[1:]+".", refused, sends(one, kill(.5), text(payload)), exactly(closeUTF8))
	}
}

const utf8Families = `
6.5 +68656c6c6f24776f726c64 +68656c6c6fc2a2776f726c64 +68656c6c6fe282ac776f726c64 +68656c6c6ff0a4ada2776f726c64 +cebae1bdb9cf83cebcceb5
6.6 -ce +ceba -cebae1 -cebae1bd +cebae1bdb9 -cebae1bdb9cf +cebae1bdb9cf83 -cebae1bdb9cf83ce +cebae1bdb9cf83cebc -cebae1bdb9cf83cebcce +cebae1bdb9cf83cebcceb5
6.7 +00 +c280 +e0a080 +f0908080
6.8 -f888808080 -fc8480808080
6.9 +7f +dfbf +efbfbf +f48fbfbf
6.10 -f7bfbfbf -fbbfbfbfbf -fdbfbfbfbfbf
6.11 +ed9fbf +ee8080 +efbfbd +f48fbfbf -f4908080
6.12 -80 -bf -80bf -80bf80 -80bf80bf -80bf80bf80 -80bf80bf80bf -808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbe
6.13 -c020c120c220c320c420c520c620c720c820c920ca20cb20cc20cd20ce20cf20d020d120d220d320d420d520d620d720d820d920da20db20dc20dd20de20 -e020e120e220e320e420e520e620e720e820e920ea20eb20ec20ed20ee20 -f020f120f220f320f420f520f620 -f820f920fa20 -fc20
6.14 -c0 -e080 -f08080 -f8808080 -fc80808080 -df -efbf -f7bfbf -fbbfbfbf -fdbfbfbfbf
6.15 -c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf
6.16 -fe -ff -fefeffff
6.17 -c0af -e080af -f08080af -f8808080af -fc80808080af
6.18 -c1bf -e09fbf -f08fbfbf -f887bfbfbf -fc83bfbfbfbf
6.19 -c080 -e08080 -f0808080 -f880808080 -fc8080808080
6.20 -eda080 -edadbf -edae80 -edafbf -edb080 -edbe80 -edbfbf
6.21 -eda080edb080 -eda080edbfbf -edadbfedb080 -edadbfedbfbf -edae80edb080 -edae80edbfbf -edafbfedb080 -edafbfedbfbf
6.22 +efbfbe +efbfbf +f09fbfbe +f09fbfbf +f0afbfbe +f0afbfbf +f0bfbfbe +f0bfbfbf +f18fbfbe +f18fbfbf +f19fbfbe +f19fbfbf +f1afbfbe +f1afbfbf +f1bfbfbe +f1bfbfbf +f28fbfbe +f28fbfbf +f29fbfbe +f29fbfbf +f2afbfbe +f2afbfbf +f2bfbfbe +f2bfbfbf +f38fbfbe +f38fbfbf +f39fbfbe +f39fbfbf +f3afbfbe +f3afbfbf +f3bfbfbe +f3bfbfbf +f48fbfbe +f48fbfbf
6.23 +efbfb9 +efbfba +efbfbb +efbfbc +efbfbd +efbfbe +efbfbf
`
