package autobahn

// Octets in, frames checked, messages out. The fuzzer is strict with the testee (catalogue 1.4).

import (
	"time"
	"unicode/utf8"
)

// A reader is the receiving half of a run.
type reader struct {
	part    [14]byte // a header under way
	nPart   int
	inFrame bool
	bad     bool // the frame under way broke a rule: its payload is skipped
	deaf    bool // no frame border can be found any more
	hdr     header
	key     uint32
	left    uint64
	peek    []byte // the beginning of the payload, for the log
	ctrl    []byte

	msg        []byte
	msgOp      byte // 0: no message is open
	compressed bool
	closeTimer *timer
}

const peekSize = 65

// feed takes what the network brought.
func (r *run) feed(b []byte) {
	r.rxOctets(b)
	r.log.read(b)
	for len(b) > 0 && !r.deaf && r.state != dropped && r.state != lost {
		if r.inFrame {
			n := int(min(r.left, uint64(len(b))))
			r.payload(b[:n])
			b = b[n:]
			continue
		}
		n := copy(r.part[r.nPart:], b)
		h, size := parseHeader(r.part[:r.nPart+n])
		if size == 0 {
			r.nPart += n
			return
		}
		b = b[size-r.nPart:]
		r.nPart = 0
		r.begin(h, size)
	}
}

// begin starts a frame, and ends it too if it has no payload.
func (r *run) begin(h header, size int) {
	r.hdr, r.key, r.left, r.inFrame = h, h.key, h.length, true
	r.peek, r.ctrl = r.peek[:0], r.ctrl[:0]
	r.rxHeader(h, size)
	if h.length>>63 != 0 {
		r.deaf = true
		r.fail(1002, "the top bit of the payload length is set")
		return
	}
	r.bad = false
	if broken := r.broken(h); broken != "" {
		r.bad = true
		r.fail(1002, broken)
	}
	if !r.bad && h.op < opClose {
		if h.op != opCont {
			r.msgOp, r.msg, r.compressed = h.op, r.msg[:0], h.rsv&rsv1 != 0
		}
	}
	if r.left == 0 && r.state != dropped {
		r.finish()
	}
}

// broken names the rule of RFC 6455 5 that a header breaks.
func (r *run) broken(h header) string {
	control := h.op >= opClose
	var allowed byte
	if r.terms != nil && (h.op == opText || h.op == opBinary) {
		allowed = rsv1 // RFC 7692 6
	}
	switch {
	case h.rsv&^allowed != 0:
		return "reserved bits are set"
	case h.op > opBinary && h.op < opClose || h.op > opPong:
		return "reserved opcode"
	case h.masked && r.client:
		return "a server must not mask"
	case !h.masked && !r.client:
		return "a client must mask"
	case control && !h.fin:
		return "fragmented control frame"
	case control && h.length > 125:
		return "control frame with more than 125 octets"
	case !h.minimal():
		return "payload length is not in its shortest form"
	case h.op == opCont && r.msgOp == 0:
		return "continuation of no message"
	case !control && h.op != opCont && r.msgOp != 0:
		return "new message inside another"
	}
	return ""
}

func (r *run) payload(b []byte) {
	if r.hdr.masked {
		r.key = mask(b, r.key)
	}
	r.left -= uint64(len(b))
	if n := peekSize - len(r.peek); n > 0 {
		r.peek = append(r.peek, b[:min(n, len(b))]...)
	}
	switch {
	case r.bad:
	case r.hdr.op >= opClose:
		r.ctrl = append(r.ctrl, b...)
	case len(r.msg)+len(b) > maxInflated:
		r.bad = true
		r.fail(1009, "the testee sends more than any case asks for")
	default:
		r.msg = append(r.msg, b...)
	}
	if r.left == 0 && r.state != dropped {
		r.finish()
	}
}

// finish takes a whole frame.
func (r *run) finish() {
	r.inFrame = false
	r.log.received(r.hdr, r.peek)
	if r.bad {
		return
	}
	r.look()
	switch r.hdr.op {
	case opClose:
		r.gotCloseFrame(r.ctrl)
	case opPing:
		r.gotPing(string(r.ctrl))
	case opPong:
		r.gotPong(string(r.ctrl))
	default:
		if r.hdr.fin {
			r.finishMessage()
		}
	}
}

// look keeps what cases of section 20 examine.
func (r *run) look() {
	if r.Index > upstreamCases && len(r.frames) < 4096 {
		f := gotFrame{header: r.hdr, at: time.Now()}
		if r.hdr.op < opClose && r.hdr.length < 1<<16 && r.hdr.fin {
			f.payload = string(r.msg[len(r.msg)-int(r.hdr.length):])
		}
		r.frames = append(r.frames, f)
	}
}

func (r *run) finishMessage() {
	op, data := r.msgOp, r.msg
	r.msgOp = 0
	r.rxMessage(len(data))
	if r.compressed {
		var err error
		if data, err = r.inflater.inflate(r.msg); err != nil {
			r.fail(1007, err.Error())
			return
		}
	}
	r.rxApp(len(data))
	if op == opText && !utf8.Valid(data) {
		r.fail(1007, "text message that is not UTF-8")
		return
	}
	r.gotMessage(op, data)
}
