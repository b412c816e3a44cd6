package autobahn

// The fuzzer's own decompressor. It sees every token, so it can tell how far back a testee reaches: zlib and
// compress/flate notice a distance beyond the agreed window only if it leaves the message (catalogue 20.6.3).

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
)

var (
	errDeflateEnd      = errors.New("compressed message ends inside a block")
	errDeflateType     = errors.New("deflate block of type 3")
	errDeflateStored   = errors.New("stored block whose length does not match its complement")
	errDeflateCode     = errors.New("deflate block with an impossible Huffman code")
	errDeflateSymbol   = errors.New("deflate block with an unused symbol")
	errDeflateDistance = errors.New("distance reaches back further than the window")
	errDeflateSize     = errors.New("message inflates beyond what the fuzzer sends")
)

const maxInflated = 256 << 20 // more than any case asks for; a testee must not be able to fill our memory

// An inflater reads the payloads of one direction of one connection.
type inflater struct {
	window   int  // octets of earlier messages that may be referred to
	takeover bool // whether they may at all
	strict   bool // the window holds inside a message too
	farthest int  // the largest distance met

	out  []byte // the past, and the message under way
	in   []byte
	at   int
	acc  uint64
	have uint
	lit  decoder
	dist decoder
}

func newInflater(windowBits int, takeover bool) *inflater {
	return &inflater{window: 1 << windowBits, takeover: takeover}
}

// inflate returns the message whose payload is p, lent until the next call. It may write behind the end of p.
func (z *inflater) inflate(p []byte) ([]byte, error) {
	past := 0
	if z.takeover {
		past = min(len(z.out), z.window)
		copy(z.out, z.out[len(z.out)-past:])
	}
	z.out = z.out[:past]
	z.in, z.at, z.acc, z.have = p, 0, 0, 0
	if !tailed(p) {
		z.in = append(p, 0, 0, 0xff, 0xff)
	}
	for {
		z.refill()
		if z.at == len(z.in) && z.have < 3 {
			return z.out[past:], nil
		}
		if err := z.blockOf(z.take(1) == 1); err != nil {
			return nil, err
		}
		if z.at == len(z.in) && z.have == 0 {
			return z.out[past:], nil
		}
	}
}

// blockOf reads one block. After a final one the next begins at an octet (RFC 7692 7.2.3.4).
func (z *inflater) blockOf(final bool) error {
	var err error
	switch z.take(2) {
	case 0:
		err = z.storedBlock()
	case 1:
		fixed := fixedDecoders()
		err = z.tokens(&fixed[0], &fixed[1])
	case 2:
		if err = z.tables(); err == nil {
			err = z.tokens(&z.lit, &z.dist)
		}
	default:
		err = errDeflateType
	}
	if final && err == nil {
		z.take(z.have & 7)
	}
	return err
}

// refill has at least 56 bits in acc afterwards, or all there are.
func (z *inflater) refill() {
	if z.at+8 <= len(z.in) {
		z.acc |= binary.LittleEndian.Uint64(z.in[z.at:]) << z.have
		z.at += int((63 - z.have) >> 3)
		z.have |= 56
		return
	}
	for z.have <= 56 && z.at < len(z.in) {
		z.acc |= uint64(z.in[z.at]) << z.have
		z.at++
		z.have += 8
	}
}

// take returns n bits; beyond the end of input they are zeros, and short says so.
func (z *inflater) take(n uint) uint {
	if z.have < n {
		z.refill()
	}
	v := uint(z.acc & (1<<n - 1))
	z.drop(n)
	return v
}

func (z *inflater) drop(n uint) {
	if n > z.have { // short input: have stays huge, see short
		z.have, z.acc = 1<<16, 0
		return
	}
	z.acc >>= n
	z.have -= n
}

// short tells whether more bits were taken than the input has.
func (z *inflater) short() bool { return z.have > 64 }

func (z *inflater) storedBlock() error {
	z.take(z.have & 7)
	n, c := z.take(16), z.take(16)
	switch {
	case z.short():
		return errDeflateEnd
	case n != c^0xffff:
		return errDeflateStored
	}
	back := int(z.have / 8) // octets that refill was ahead
	z.at -= back
	z.acc, z.have = 0, 0
	if len(z.in)-z.at < int(n) {
		return errDeflateEnd
	}
	z.out = append(z.out, z.in[z.at:z.at+int(n)]...)
	z.at += int(n)
	return nil
}

// tables reads the head of a dynamic block (RFC 1951 3.2.7).
func (z *inflater) tables() error {
	nlit, ndist, ncl := z.take(5)+257, z.take(5)+1, z.take(4)+4
	if nlit > 286 || ndist > 30 {
		return errDeflateCode
	}
	var cl [19]uint8
	for _, s := range codeOrder[:ncl] {
		cl[s] = uint8(z.take(3))
	}
	if !z.lit.build(cl[:]) {
		return errDeflateCode
	}
	var lens [286 + 30]uint8
	for i := uint(0); i < nlit+ndist; {
		s, err := z.symbol(&z.lit)
		if err != nil {
			return err
		}
		var v uint8
		n := uint(1)
		switch {
		case s < 16:
			v = uint8(s)
		case s == 16 && i == 0:
			return errDeflateCode
		case s == 16:
			v, n = lens[i-1], 3+z.take(2)
		case s == 17:
			n = 3 + z.take(3)
		default:
			n = 11 + z.take(7)
		}
		if i+n > nlit+ndist {
			return errDeflateCode
		}
		for ; n > 0; n-- {
			lens[i] = v
			i++
		}
	}
	if z.short() {
		return errDeflateEnd
	}
	if !z.lit.build(lens[:nlit]) || !z.dist.build(lens[nlit:nlit+ndist]) {
		return errDeflateCode
	}
	return nil
}

func (z *inflater) symbol(d *decoder) (int, error) {
	if z.have < 48 {
		z.refill()
	}
	e := d.table[z.acc&(1<<d.width-1)]
	if e&subTable != 0 {
		e = d.table[uint64(e>>16)+(z.acc>>d.width)&(1<<(e&15)-1)]
	}
	if e == 0 {
		return 0, errDeflateSymbol
	}
	z.drop(uint(e & 15))
	if z.short() {
		return 0, errDeflateEnd
	}
	return int(e >> 16), nil
}

// tokens reads literals and matches up to the end of the block.
func (z *inflater) tokens(lit, dist *decoder) error {
	for {
		z.literals(lit)
		s, err := z.symbol(lit)
		switch {
		case err != nil:
			return err
		case s < 256:
			z.out = append(z.out, byte(s))
			continue
		case s == 256:
			return nil
		case s > 285:
			return errDeflateSymbol
		}
		length := int(lengthBase[s-257]) + int(z.take(uint(lengthExtra[s-257])))
		if s, err = z.symbol(dist); err != nil {
			return err
		}
		if s > 29 {
			return errDeflateSymbol
		}
		back := int(distBase[s]) + int(z.take(uint(distExtra[s])))
		if z.short() {
			return errDeflateEnd
		}
		if err := z.copy(length, back); err != nil {
			return err
		}
	}
}

// literals reads as many as come in a row with short codes, far from the end of input; they are most of what there is.
func (z *inflater) literals(lit *decoder) {
	out, acc, have, at := z.out, z.acc, z.have, z.at
	table, low := lit.table, uint64(1)<<lit.width-1
	for at+8 <= len(z.in) {
		if have < 16 {
			acc |= binary.LittleEndian.Uint64(z.in[at:]) << have
			at += int((63 - have) >> 3)
			have |= 56
		}
		e := table[acc&low]
		if e&subTable != 0 || e-1 >= 256<<16-1 { // long, unused, or no literal
			break
		}
		out = append(out, byte(e>>16))
		acc >>= e & 15
		have -= uint(e & 15)
	}
	z.out, z.acc, z.have, z.at = out, acc, have, at
}

// copy repeats length octets from dist back.
func (z *inflater) copy(length, dist int) error {
	z.farthest = max(z.farthest, dist)
	at := len(z.out)
	if dist > at || z.strict && dist > z.window {
		return errDeflateDistance
	}
	if at+length > maxInflated {
		return errDeflateSize
	}
	from := at - dist
	if dist >= length {
		z.out = append(z.out, z.out[from:from+length]...)
		return nil
	}
	for range length { // the copy feeds itself
		z.out = append(z.out, z.out[from])
		from++
	}
	return nil
}

// A decoder finds symbols by table: width bits at once, longer codes by a second table.
type decoder struct {
	width uint
	table []uint32 // symbol << 16 | code length; or the second table's place << 16 | subTable | its width
}

const subTable = 1 << 15

var fixedDecoders = sync.OnceValue(func() *[2]decoder {
	var d [2]decoder
	lit, dist := fixedLengths()
	d[0].build(lit[:])
	d[1].build(dist[:])
	return &d
})

// build refuses lengths that are no prefix code. One lone code, or none, is allowed (RFC 1951 3.2.7).
func (d *decoder) build(lens []uint8) bool {
	var count [maxCodeLen + 1]int
	longest := uint8(1)
	for _, n := range lens {
		count[n]++
		longest = max(longest, n)
	}
	left := 1
	for n := 1; n <= maxCodeLen; n++ {
		if left = left<<1 - count[n]; left < 0 {
			return false
		}
	}
	if left > 0 && longest > 1 {
		return false
	}
	d.width = uint(min(longest, 10))
	if cap(d.table) < 1<<10+1<<maxCodeLen {
		d.table = make([]uint32, 0, 1<<10+1<<maxCodeLen)
	}
	d.table = d.table[:1<<d.width]
	clear(d.table)
	var code [288]uint16
	codes(code[:], lens)
	for s, n := range lens {
		if n != 0 {
			d.enter(uint32(s), uint(n), uint(code[s]), uint(longest))
		}
	}
	return true
}

func (d *decoder) enter(symbol uint32, n, code, longest uint) {
	e := symbol<<16 | uint32(n)
	if n <= d.width {
		for i := code; i < 1<<d.width; i += 1 << n {
			d.table[i] = e
		}
		return
	}
	low, rest := code&(1<<d.width-1), longest-d.width
	if d.table[low] == 0 {
		at := len(d.table)
		d.table = d.table[:at+1<<rest]
		clear(d.table[at:])
		d.table[low] = uint32(at)<<16 | subTable | uint32(rest)
	}
	sub := d.table[d.table[low]>>16:]
	for i := code >> d.width; i < 1<<rest; i += 1 << (n - d.width) {
		sub[i] = e
	}
}

// tailed tells whether the sender left on what RFC 7692 7.2.1 wants removed. Otherwise the last octet holds the
// zeros of a block's header, or those behind a final block.
func tailed(p []byte) bool { return bytes.HasSuffix(p, []byte{0, 0, 0xff, 0xff}) }
