package autobahn

// One case on one connection: an event loop over what arrives and the deadlines (catalogue 1.4). Everything below
// runs on the loop's goroutine; the wire's goroutines only carry octets.

import (
	"context"
	"math/rand/v2"
	"net"
	"time"
	"unicode/utf8"
)

type state byte

const (
	connecting state = iota
	open
	closingState // a Close frame went out
	dropped      // we ended TCP; what still comes is ignored
	lost
)

// A run is one case under way.
type run struct {
	*Case
	cfg    *Config
	client bool // the fuzzer is the client: a server is tested
	wire   *wire
	log    *wirelog
	traffic
	reader

	state             state
	opened            bool
	settled           bool // the verdicts are final
	notOpen           string
	timers            []*timer
	clock             *time.Timer
	started           time.Time
	begun             time.Time // when the connection was open
	took              time.Duration
	request, response *head

	events       []event
	verdict      Verdict
	why          string
	closeVerdict Verdict
	closeWhy     string

	gotClose, closedByMe, failedByMe, droppedByMe, wasClean bool
	openTimeout, closeTimeout, dropTimeout                  bool
	unclean                                                 string
	complaint                                               string // what the fuzzer had against the testee first
	remoteCode, localCode                                   *int
	remoteReason, localReason                               *string

	terms    *terms     // nil: no compression was agreed
	codec    codecTerms // for what the fuzzer sends
	inflater *inflater
	frames   []gotFrame // data and control frames received, for the cases that look at them
	talk     *talk      // of cases that send message after message
	earlier  []string   // keys of this agent's earlier handshakes
	lacking  string     // what the client did not offer
	offered  Verdict    // of a server's answer to an offer
	echoes   int
}

// A gotFrame is what cases of section 20 want to know of a frame.
type gotFrame struct {
	header
	payload string
	at      time.Time
}

func newRun(c *Case, cfg *Config, client bool) *run {
	r := &run{Case: c, cfg: cfg, client: client, started: time.Now(), clock: time.NewTimer(time.Hour)}
	r.log = &wirelog{on: !cfg.NoWirelog && !c.quiet}
	r.traffic.init()
	return r
}

// A timer calls fire on the loop.
type timer struct {
	at   time.Time
	fire func()
}

// after sets a timer. Pauses that belong to a case are not stretched; deadlines are, see patient.
func (r *run) after(d time.Duration, fire func()) *timer {
	t := &timer{time.Now().Add(d), fire}
	r.timers = append(r.timers, t)
	return t
}

func (r *run) patient(d time.Duration) time.Duration {
	return time.Duration(float64(d) * r.cfg.patience())
}

func (r *run) cancel(t *timer) {
	for i, x := range r.timers {
		if x == t {
			r.timers = append(r.timers[:i], r.timers[i+1:]...)
			return
		}
	}
}

// next is the timer that fires first; among equals the one set first.
func (r *run) next() *timer {
	first := &timer{time.Now().Add(time.Hour), func() {}}
	for _, t := range r.timers {
		if t.at.Before(first.at) {
			first = t
		}
	}
	return first
}

// converse plays the case on a connection whose handshake is done, and returns when that is lost.
func (r *run) converse(ctx context.Context, c net.Conn, early []byte) {
	r.wire = newWire(c)
	var hold chan struct{}
	if r.Case.hold > 0 {
		hold = make(chan struct{})
		r.after(r.Case.hold, func() { close(hold) })
	}
	r.wire.start(early, hold)
	r.state, r.opened, r.begun = open, true, time.Now()
	r.after(r.patient(hardLimit), func() { r.drop(true) })
	if missing := r.missing(); missing != "" {
		r.set(Unimplemented, missing)
		r.close(1000, "")
	} else {
		r.play(r)
	}
	r.loop(ctx)
	r.took = time.Since(r.begun)
	r.wire.drop(true)
}

// hardLimit is beyond every deadline of the catalogue: it ends what no rule does.
const hardLimit = 1100 * time.Second

func (r *run) missing() string {
	if r.deflate && r.terms == nil {
		return "no compression was agreed on"
	}
	if r.needs != nil {
		return r.needs(r)
	}
	return ""
}

func (r *run) loop(ctx context.Context) {
	for r.state != lost {
		t := r.next()
		r.clock.Reset(time.Until(t.at))
		select {
		case b, ok := <-r.wire.in:
			if !ok {
				r.lose()
				continue
			}
			r.feed(b)
			r.wire.give(b)
		case <-r.clock.C:
			if !time.Now().Before(t.at) {
				r.cancel(t)
				t.fire()
			}
		case <-ctx.Done():
			r.set(Failed, "the run was interrupted")
			r.wire.drop(true)
			r.state = lost
		}
	}
}

// lose notes the end of TCP.
func (r *run) lose() {
	r.state = lost
	if !r.gotClose && !r.droppedByMe {
		r.unclean = "the testee dropped TCP without a Close frame"
	}
}

// drop ends TCP from our side.
func (r *run) drop(abort bool) {
	if r.state == lost || r.state == dropped {
		return
	}
	r.droppedByMe = true
	r.state = dropped
	r.wire.drop(abort)
}

// hangUp ends TCP once everything queued is out, and drains what is on its way, so that no reset overtakes it.
func (r *run) hangUp() {
	r.droppedByMe = true
	r.state = dropped
	r.wire.queue(job{end: true})
	r.after(r.patient(time.Second), func() { r.wire.drop(false) })
}

// send writes frames as m says. A Close frame among them is the fuzzer's own, unless it says otherwise.
func (r *run) send(m mode, frames ...frame) {
	if r.state == dropped || r.state == lost {
		return
	}
	var all []byte
	for _, f := range frames {
		if all == nil {
			all = r.wire.buffer(len(f.payload) + 64)
		}
		at := len(all)
		all = r.encode(all, f)
		r.log.sent(r, f, m, all[at:])
		if m != one && m != oct {
			chop := int(m)
			if m == each {
				chop = len(all)
			}
			r.write(job{data: all, chop: chop})
			all = nil
		}
	}
	if all != nil {
		r.write(job{data: all, chop: int(max(m, 0))})
	}
	for _, f := range frames {
		if f.op == opClose && !f.raw && r.state == open {
			r.ownClose(f.payload)
		}
	}
}

// encode appends a frame as it goes out in the fuzzer's role.
func (r *run) encode(dst []byte, f frame) []byte {
	key := rand.Uint32()
	if f.key != nil {
		key = *f.key
	}
	at := len(dst)
	dst = f.append(dst, r.client != f.unlike, key)
	r.txFrame(f.op, len(f.payload), len(dst)-at)
	return dst
}

func (r *run) write(j job) {
	r.log.wrote(j)
	r.txOctets(j)
	r.wire.queue(j)
}

// raw writes octets as they are, in pieces of chop with a gap between them.
func (r *run) raw(b []byte, chop int, gap time.Duration) {
	if r.state != dropped && r.state != lost {
		r.write(job{data: append(r.wire.buffer(len(b)), b...), chop: chop, gap: gap})
	}
}

// close sends the fuzzer's own Close; code 0 means an empty one.
func (r *run) close(code int, reason string) {
	if r.state != open {
		return
	}
	f := closeEmpty()
	if code != 0 {
		f = closeWith(code, reason)
	}
	r.send(one, f)
}

// ownClose notes that our Close frame went out before one from the testee.
func (r *run) ownClose(payload []byte) {
	r.closedByMe = true
	r.state = closingState
	r.local(payload)
	r.unclean = "the testee did not answer the Close frame"
	r.closeTimer = r.after(r.patient(r.cfg.closeTimeout()), func() {
		if r.state != closingState {
			return
		}
		r.closeTimeout = true
		r.unclean = "the testee did not answer the Close frame in time"
		r.drop(true)
	})
}

func (r *run) local(payload []byte) {
	if len(payload) >= 2 {
		code := int(payload[0])<<8 | int(payload[1])
		r.localCode = &code
		if len(payload) > 2 {
			reason := reasonText(payload[2:])
			r.localReason = &reason
		}
	}
}

// fail is what the fuzzer does about a testee that breaks the rules: a Close frame, or, if it sent one already,
// the end of TCP.
func (r *run) fail(code int, reason string) {
	if r.complaint == "" {
		r.complaint = reason
	}
	switch r.state {
	case open:
		r.failedByMe = true
		r.close(code, reason)
		if r.verdict == "" && r.Case.message != nil {
			r.set(Failed, reason)
		}
	case closingState:
		r.failedByMe = true
		r.unclean = reason
		r.drop(true)
	}
}

// kill is K: after so many seconds an open connection is closed with 1001, a closing one dropped.
func (r *run) kill(seconds float64) {
	d := r.seconds(seconds)
	r.log.add("KL", seconds)
	r.after(d, func() {
		r.log.add("KLE")
		switch r.state {
		case open:
			r.failedByMe = true
			r.close(1001, "Going Away")
		case closingState:
			r.drop(true)
		}
	})
}

// end is E: after so many seconds an open connection is closed with an empty Close.
func (r *run) end(seconds float64) {
	r.log.add("TI", seconds)
	r.after(r.seconds(seconds), func() {
		r.log.add("TIE")
		r.close(0, "")
	})
}

func (r *run) seconds(s float64) time.Duration {
	return r.patient(time.Duration(s * float64(time.Second)))
}

// pause goes on with then after d, if the connection is still open. With a tag it is an event.
func (r *run) pause(d time.Duration, tag string, then func()) {
	r.log.add("CT", d.Seconds(), tag)
	r.after(d, func() {
		r.log.add("CTE", tag)
		if r.state != open {
			return
		}
		if tag != "" {
			r.events = append(r.events, gotTimeout(tag))
		}
		then()
	})
}

// record notes an event, and closes if that was all the case waits for (catalogue 1.5).
func (r *run) record(e event) {
	r.events = append(r.events, e)
	switch {
	case r.state != open || r.suppressed:
	case r.enough != nil && r.enough(r):
		r.close(1000, "")
	case r.enough == nil && r.complete():
		r.close(1000, "")
	}
}

// complete tells whether nothing more is expected. Upstream wants every list equal; a case of ours may say that
// one list is enough if the fuzzer closes after it.
func (r *run) complete() bool {
	n := 0
	for _, o := range r.outcomes {
		if !sameEvents(o.events, r.events) {
			continue
		}
		if o.closing.first == byFuzzer {
			n++
		}
	}
	return n > 0 && (n == len(r.outcomes) || r.Index > upstreamCases)
}

func sameEvents(a, b []event) bool {
	if len(a) != len(b) {
		return false
	}
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// upstreamCases is how many of the catalogue are upstream's.
const upstreamCases = 517

// gotMessage takes a whole message.
func (r *run) gotMessage(op byte, data []byte) {
	switch {
	case r.failedByMe:
	case r.Case.message != nil:
		r.Case.message(r, message{op, data})
	default:
		r.record(event{kind: "message", data: string(data), binary: op == opBinary})
	}
}

func (r *run) gotPong(p string) {
	r.record(gotPong(p))
	if r.Case.pong != nil {
		r.Case.pong(r, p)
	}
}

// gotPing answers while the connection is open, and is not recorded.
func (r *run) gotPing(p string) {
	if r.state == open {
		r.send(one, pong(p))
	}
}

// gotCloseFrame takes the testee's Close, first or in answer to ours.
func (r *run) gotCloseFrame(p []byte) {
	if r.gotClose {
		return
	}
	r.gotClose = true
	if len(p) >= 2 {
		code := int(p[0])<<8 | int(p[1])
		r.remoteCode = &code
		if len(p) > 2 {
			reason := reasonText(p[2:])
			r.remoteReason = &reason
		}
	}
	if code, bad := badClose(p, r.Index > upstreamCases); bad != "" {
		r.fail(code, bad)
	}
	switch r.state {
	case open:
		r.answerClose()
	case closingState:
		r.wasClean = true
		r.cancel(r.closeTimer)
		if !r.client {
			r.drop(true)
			return
		}
		r.after(r.patient(r.cfg.dropTimeout()), r.notDropped)
	}
}

// badClose is RFC 6455 7.4. Upstream refuses 1012 to 1014 too, which were registered later; the cases of ours do not.
func badClose(p []byte, later bool) (code int, reason string) {
	if len(p) == 0 {
		return 0, ""
	}
	if len(p) == 1 {
		return 1002, "Close frame with a payload of one octet"
	}
	switch c := int(p[0])<<8 | int(p[1]); {
	case later && c >= 1012 && c <= 1014:
	case c < 1000, c >= 1004 && c <= 1006, c >= 1012 && c < 3000, c >= 5000:
		return 1002, "Close frame with a reserved code"
	case !utf8.Valid(p[2:]):
		return 1007, "Close frame whose reason is not UTF-8"
	}
	return 0, ""
}

// answerClose replies to a Close that the testee sent first: always 1000, as upstream does.
func (r *run) answerClose() {
	r.wasClean = true
	p := closeWith(1000, "").uncounted()
	r.send(one, p)
	r.local(p.payload)
	r.state = closingState
	if !r.client {
		r.hangUp()
		return
	}
	// Upstream waits here for ever; ours has an end.
	r.after(r.patient(serverDropLimit), r.notDropped)
}

const serverDropLimit = 10 * time.Second

// notDropped is for a server that keeps TCP after the closing handshake (RFC 6455 7.1.1).
func (r *run) notDropped() {
	if r.state != closingState { // K was first
		return
	}
	r.dropTimeout = true
	r.wasClean = false
	r.unclean = "the testee did not drop TCP after the closing handshake"
	r.drop(true)
}
