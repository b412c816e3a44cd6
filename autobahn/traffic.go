package autobahn

// What reports count: octets and frames, by size and kind, and how well compression did.

// Traffic counts one connection. The maps are those of the reports: size of one read or write, or opcode, to count.
type traffic struct {
	rxSizes, txSizes map[int]int
	rxKinds, txKinds map[int]int
	in, out          flow
	preIn, preOut    int
}

// A flow is one direction after the handshake.
type flow struct {
	wire, payload, app int
	frames, messages   int
}

func (t *traffic) init() {
	t.rxSizes, t.txSizes = map[int]int{}, map[int]int{}
	t.rxKinds, t.txKinds = map[int]int{}, map[int]int{}
}

func (t *traffic) rxOctets(b []byte) {
	t.rxSizes[len(b)]++
	t.in.wire += len(b)
}

func (t *traffic) txOctets(j job) {
	n := len(j.data)
	t.out.wire += n
	if j.chop > 0 && j.chop < n {
		t.txSizes[j.chop] += n / j.chop
		n %= j.chop
	}
	if n > 0 {
		t.txSizes[n]++
	}
}

func (t *traffic) rxHeader(h header, size int) {
	t.rxKinds[int(h.op)]++
	t.in.frames++
}

func (t *traffic) rxMessage(payload int) {
	t.in.messages++
	t.in.payload += payload
}

func (t *traffic) rxApp(n int) { t.in.app += n }

func (t *traffic) txFrame(op byte, payload, wire int) {
	t.txKinds[int(op)]++
	t.out.frames++
}

// txMessage counts a message of the cases that report ratios.
func (t *traffic) txMessage(app, payload int) {
	t.out.messages++
	t.out.app += app
	t.out.payload += payload
}

// TrafficStats is the report of a case of sections 12 and 13.
type TrafficStats struct {
	IncomingCompressionRatio       *float64 `json:"incomingCompressionRatio"`
	IncomingOctetsAppLevel         int      `json:"incomingOctetsAppLevel"`
	IncomingOctetsWebSocketLevel   int      `json:"incomingOctetsWebSocketLevel"`
	IncomingOctetsWireLevel        int      `json:"incomingOctetsWireLevel"`
	IncomingWebSocketFrames        int      `json:"incomingWebSocketFrames"`
	IncomingWebSocketMessages      int      `json:"incomingWebSocketMessages"`
	IncomingWebSocketOverhead      *float64 `json:"incomingWebSocketOverhead"`
	OutgoingCompressionRatio       *float64 `json:"outgoingCompressionRatio"`
	OutgoingOctetsAppLevel         int      `json:"outgoingOctetsAppLevel"`
	OutgoingOctetsWebSocketLevel   int      `json:"outgoingOctetsWebSocketLevel"`
	OutgoingOctetsWireLevel        int      `json:"outgoingOctetsWireLevel"`
	OutgoingWebSocketFrames        int      `json:"outgoingWebSocketFrames"`
	OutgoingWebSocketMessages      int      `json:"outgoingWebSocketMessages"`
	OutgoingWebSocketOverhead      *float64 `json:"outgoingWebSocketOverhead"`
	PreopenIncomingOctetsWireLevel int      `json:"preopenIncomingOctetsWireLevel"`
	PreopenOutgoingOctetsWireLevel int      `json:"preopenOutgoingOctetsWireLevel"`
}

func (t *traffic) stats() *TrafficStats {
	return &TrafficStats{
		IncomingCompressionRatio: ratio(t.in.payload, t.in.app), IncomingOctetsAppLevel: t.in.app,
		IncomingOctetsWebSocketLevel: t.in.payload, IncomingOctetsWireLevel: t.in.wire,
		IncomingWebSocketFrames: t.in.frames, IncomingWebSocketMessages: t.in.messages,
		IncomingWebSocketOverhead: ratio(t.in.wire-t.in.payload, t.in.payload),
		OutgoingCompressionRatio:  ratio(t.out.payload, t.out.app), OutgoingOctetsAppLevel: t.out.app,
		OutgoingOctetsWebSocketLevel: t.out.payload, OutgoingOctetsWireLevel: t.out.wire,
		OutgoingWebSocketFrames: t.out.frames, OutgoingWebSocketMessages: t.out.messages,
		OutgoingWebSocketOverhead:      ratio(t.out.wire-t.out.payload, t.out.payload),
		PreopenIncomingOctetsWireLevel: t.preIn, PreopenOutgoingOctetsWireLevel: t.preOut,
	}
}

// ratio is null in the report if there is nothing to divide by.
func ratio(a, b int) *float64 {
	if b == 0 {
		return nil
	}
	f := float64(a) / float64(b)
	return &f
}
