package autobahn

// Sections 12 and 13: permessage-deflate with five kinds of data, and with seven kinds of parameters.

import (
	"fmt"
	"strings"
)

// deflateSizes are the 18 cases of every family: message size, fragment size, deadline E.
var deflateSizes = []struct {
	size, fragment int
	deadline       float64
}{
	{16, 0, 60}, {64, 0, 60}, {256, 0, 120}, {1024, 0, 240}, {4096, 0, 480}, {8192, 0, 480},
	{16384, 0, 480}, {32768, 0, 480}, {65536, 0, 480}, {131072, 0, 480}, {8192, 256, 480}, {16384, 256, 480},
	{32768, 256, 480}, {65536, 256, 480}, {131072, 256, 480}, {131072, 1024, 480}, {131072, 4096, 480}, {131072, 32768, 480},
}

const plainOffer = deflateName + "; client_no_context_takeover; client_max_window_bits" // PMD in the catalogue

func (b *book) compression() {
	for i, c := range []func() *corpus{corpusJSON, corpusBitmap, corpusVerse, corpusHTML, corpusPDF} {
		kind := []string{"JSON", "a gray bitmap", "verse in ISO 8859-1", "HTML", "a PDF"}[i]
		isText := i == 0 || i == 3
		b.deflateFamily(fmt.Sprintf("12.%d", i+1), "from "+kind, c, isText, []string{plainOffer}, answer{})
	}
	with := func(params string) string { return plainOffer + params }
	for i, p := range []struct {
		offers []string
		answer answer
	}{
		{[]string{plainOffer}, answer{}},
		{[]string{with("; server_no_context_takeover")}, answer{noTakeover: true}},
		{[]string{with("; server_max_window_bits=9")}, answer{bits: 9}},
		{[]string{with("; server_max_window_bits=15")}, answer{bits: 15}},
		{[]string{with("; server_no_context_takeover; server_max_window_bits=9")}, answer{noTakeover: true, bits: 9}},
		{[]string{with("; server_no_context_takeover; server_max_window_bits=15")}, answer{noTakeover: true, bits: 15}},
		{[]string{with("; server_no_context_takeover; server_max_window_bits=9"), with("; server_no_context_takeover"), plainOffer},
			answer{noTakeover: true, bits: 9, optional: true}},
	} {
		b.deflateFamily(fmt.Sprintf("13.%d", i+1), "from JSON", corpusJSON, true, p.offers, p.answer)
	}
}

func (b *book) deflateFamily(group, from string, data func() *corpus, isText bool, offers []string, a answer) {
	op := byte(opBinary)
	if isText {
		op = opText
	}
	for i, s := range deflateSizes {
		in := "one frame"
		if s.fragment > 0 {
			in = fmt.Sprintf("fragments of %d octets", s.fragment)
		}
		c := b.add(fmt.Sprintf("%s.%d", group, i+1),
			fmt.Sprintf("1000 compressed %s messages of %d %s, each in %s. Offer: %s.", kindName(op), s.size, from, in, strings.Join(offers, ", ")),
			"Every message comes back; then a clean close.",
			func(r *run) {
				r.talk = &talk{op: op, fragment: s.fragment, want: func(k int) []byte { return data().slice(k, s.size) }}
				r.talk.tape = newTape(data(), s.size, r.cfg.messages(), r.codec)
				r.talk.send(r)
				r.end(s.deadline)
			})
		c.message = nextOfTalk
		c.quiet, c.timed, c.ratios, c.deflate = true, true, true, true
		c.offer = []string{strings.Join(offers, ", ")}
		c.respond = a.to
	}
}

// to answers an offer as the case wants; a request without an offer gets no extension.
func (a answer) to(r *run, req *head) (string, error) {
	header, t, err := a.respond(strings.Join(req.values("Sec-WebSocket-Extensions"), ", "))
	if err != nil {
		return "", &httpError{400, err.Error()}
	}
	r.terms = t
	return header, nil
}
