package autobahn

// What a case demands, and the judgement over what happened (catalogue 1.5 to 1.7).

import (
	"fmt"
	"slices"
	"strings"
)

// A Verdict is one of the words that reports hold, for the behaviour of a testee or for how it closed.
type Verdict string

const (
	OK             Verdict = "OK"
	NonStrict      Verdict = "NON-STRICT"
	Informational  Verdict = "INFORMATIONAL"
	Unimplemented  Verdict = "UNIMPLEMENTED"
	Failed         Verdict = "FAILED"
	WrongCode      Verdict = "WRONG CODE"
	Unclean        Verdict = "UNCLEAN"
	FailedByClient Verdict = "FAILED BY CLIENT"
)

// An event is a message, a pong, or a pause that the testee sat out.
type event struct {
	kind   string // "message", "pong", "timeout"
	data   string
	binary bool
}

func gotText(s string) event    { return event{kind: "message", data: s} }
func gotBinary(s string) event  { return event{kind: "message", data: s, binary: true} }
func gotPong(s string) event    { return event{kind: "pong", data: s} }
func gotTimeout(s string) event { return event{kind: "timeout", data: s} }

func (e event) String() string {
	if e.kind == "message" && e.binary {
		return "binary message " + cut(e.data)
	}
	return e.kind + " " + cut(e.data)
}

// closer says who must have closed first.
type closer byte

const (
	byFuzzer closer = iota
	byTestee        // a TCP drop without a Close frame counts too
	byAny
)

// A closing is how a connection must end.
type closing struct {
	first    closer
	clean    bool
	codes    []int // acceptable from the testee; no code always is
	anyCode  bool
	dropOnly bool // a Close frame from the testee is not acceptable
	ours     bool // the fuzzer may end TCP
	fatal    bool // U7: behavior FAILED if the fuzzer had to close first
}

// The catalogue's profiles.
var (
	closeNormal   = closing{first: byFuzzer, clean: true, codes: []int{1000}} // CN
	closeProtocol = closing{first: byTestee, codes: []int{1002}}              // PE
	closeUTF8     = closing{first: byTestee, codes: []int{1007}, fatal: true} // U7
	closeDeflate  = closing{first: byTestee, codes: []int{1007, 1002}}        // DE
	closeAnyhow   = closing{first: byAny, anyCode: true, ours: true}          //
	closeLimit    = closing{first: byTestee, codes: []int{1009}}              //
	closeDropped  = closing{first: byTestee, dropOnly: true}                  //
	closeOddly    = closing{first: byTestee, anyCode: true}                   //
)

func closedWith(first closer, clean bool, codes ...int) closing {
	return closing{first: first, clean: clean, codes: codes}
}

// An outcome is one way a case may go, and what it is worth.
type outcome struct {
	verdict Verdict
	events  []event
	closing closing
}

func exactly(c closing, events ...event) outcome   { return outcome{OK, events, c} }
func leniently(c closing, events ...event) outcome { return outcome{NonStrict, events, c} }
func perhaps(c closing, events ...event) outcome   { return outcome{Informational, events, c} }

// judge fills in both verdicts once the connection is lost.
func (r *run) judge() {
	if r.settled {
		return
	}
	if !r.opened {
		r.set(Failed, "the opening handshake failed: "+r.notOpen)
		r.setClose(Failed, "there was no connection to close")
		r.overrule()
		return
	}
	at := r.matching()
	profile := r.profile()
	if r.verdict == Unimplemented {
		profile = closeNormal
	} else if r.weigh != nil {
		r.set(r.weigh(r))
	} else if at >= 0 {
		profile = r.outcomes[at].closing
		if r.verdict == "" {
			r.set(r.outcomes[at].verdict, fmt.Sprintf("what came is what %s asks for", r.outcomes[at].verdict))
		}
	} else if r.verdict == "" {
		r.set(Failed, r.mismatch())
	}
	r.setClose(r.judgeClose(profile))
	if profile.fatal && r.closedByMe {
		r.set(Failed, "the testee left it to the fuzzer to close")
	}
	if r.wrongCodeFatal && r.closeVerdict == WrongCode {
		r.set(Failed, "the testee closed with a wrong code")
	}
	r.overrule()
}

// mismatch says what came instead.
func (r *run) mismatch() string {
	why := "nothing came"
	if n := len(r.events); n > 0 {
		why = fmt.Sprintf("%d events came that are not those expected, the last: %v", n, r.events[n-1])
	}
	if r.complaint != "" {
		why += "; the fuzzer objected: " + r.complaint
	}
	return why
}

// overrule is the last word of the special rules.
func (r *run) overrule() {
	if r.verdict == Unimplemented {
		return
	}
	if r.opened && r.check != nil {
		r.check(r)
	}
	if r.info || r.verdict == Informational {
		r.verdict, r.closeVerdict = Informational, Informational
	}
}

// profile is the closing that stands for the whole case.
func (r *run) profile() closing {
	if len(r.outcomes) == 0 {
		return closeNormal
	}
	return r.outcomes[0].closing
}

// matching prefers an outcome whose closing is met as well; with the one profile that every upstream case has,
// that is the first whose events are equal.
func (r *run) matching() int {
	found := -1
	for i, o := range r.outcomes {
		if !slices.Equal(o.events, r.events) {
			continue
		}
		if v, _ := r.judgeClose(o.closing); v == OK {
			return i
		}
		if found < 0 {
			found = i
		}
	}
	return found
}

// judgeClose is catalogue 1.7: the first rule that applies.
func (r *run) judgeClose(p closing) (Verdict, string) {
	switch {
	case p.first == byFuzzer && !r.closedByMe:
		return Failed, "the testee closed first"
	case p.first == byTestee && r.closedByMe:
		return Failed, "the testee did not close"
	case p.clean && !r.wasClean:
		return Unclean, "the connection did not end by the closing handshake: " + r.unclean
	case r.gotClose && p.dropOnly:
		return WrongCode, "the testee sent a Close frame on a connection that must not be open"
	case r.remoteCode != nil && !p.anyCode && !slices.Contains(p.codes, *r.remoteCode):
		return WrongCode, fmt.Sprintf("the testee closed with code %d; %s", *r.remoteCode, p.wanted())
	case r.client && r.droppedByMe && !p.ours:
		return FailedByClient, "the fuzzer had to drop the TCP connection, which is the server's task"
	}
	return OK, "the connection was ended as it should be"
}

func (p closing) wanted() string {
	if len(p.codes) == 0 {
		return "it must not send one"
	}
	s := strings.Trim(fmt.Sprint(p.codes), "[]")
	return "acceptable: " + strings.ReplaceAll(s, " ", ", ") + ", or none"
}

func (r *run) set(v Verdict, why string)      { r.verdict, r.why = v, why }
func (r *run) setClose(v Verdict, why string) { r.closeVerdict, r.closeWhy = v, why }

// settle decides both columns at once, where no connection was to be had.
func (r *run) settle(v Verdict, why string) {
	r.settled = true
	r.set(v, why)
	switch v {
	case NonStrict, Unimplemented:
		v = OK
	}
	r.setClose(v, why)
}
