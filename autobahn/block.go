package autobahn

// Deflate blocks (RFC 1951 3.2.3 to 3.2.7): tokens in, bits out.

import "math/bits"

// A blockWriter appends blocks to out.
type blockWriter struct {
	out  []byte
	acc  uint64 // bits that do not make an octet yet
	have uint

	litCount  [286]uint32
	distCount [30]uint32
	litLen    [288]uint8
	distLen   [30]uint8
	litCode   [288]uint16
	distCode  [30]uint16
	clCount   [19]uint32
	clLen     [19]uint8
	clCode    [19]uint16
	rle       []uint16 // the code lengths in the notation of 3.2.7: symbol, and repeat << 8
}

// bits appends the low n bits of v, n at most 16.
func (w *blockWriter) bits(v uint64, n uint) {
	w.acc |= v << w.have
	w.have += n
	if w.have >= 48 {
		w.out = append(w.out, byte(w.acc), byte(w.acc>>8), byte(w.acc>>16), byte(w.acc>>24), byte(w.acc>>32), byte(w.acc>>40))
		w.acc >>= 48
		w.have -= 48
	}
}

// align fills up the octet under way with zeros, and writes all there is.
func (w *blockWriter) align() {
	for n := (w.have + 7) / 8; n > 0; n-- {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
	w.have = 0
}

// sync ends a message: the header of an empty stored block, of which RFC 7692 7.2.1 leaves out the rest.
func (w *blockWriter) sync() {
	w.bits(0, 3)
	w.align()
}

// fewTokens never pay for the head of a dynamic block.
const fewTokens = 24

// write puts tokens, which stand for plain, into the cheapest kind of block.
func (w *blockWriter) write(tokens []uint32, plain []byte) {
	w.count(tokens)
	fixedLit, fixedDist := fixedLengths()
	fixed := w.cost(fixedLit[:], fixedDist[:30])
	dynamic := fixed
	if len(tokens) > fewTokens {
		dynamic = w.plan() + w.cost(w.litLen[:], w.distLen[:])
	}
	stored := 8 * (len(plain) + 5*(len(plain)/65535+1))
	switch {
	case stored <= min(fixed, dynamic):
		w.stored(plain)
	case fixed <= dynamic:
		w.litLen = fixedLit
		copy(w.distLen[:], fixedDist[:])
		w.bits(1<<1, 3)
		w.body(tokens)
	default:
		w.dynamic(tokens)
	}
}

// writeDynamic is write without the choice.
func (w *blockWriter) writeDynamic(tokens []uint32) {
	w.count(tokens)
	w.plan()
	w.dynamic(tokens)
}

func (w *blockWriter) stored(plain []byte) {
	for {
		part := plain[:min(len(plain), 65535)]
		w.bits(0, 3)
		w.align()
		w.bits(uint64(len(part)), 16)
		w.bits(uint64(^uint16(len(part))), 16)
		w.align()
		w.out = append(w.out, part...)
		if plain = plain[len(part):]; len(plain) == 0 {
			return
		}
	}
}

func (w *blockWriter) dynamic(tokens []uint32) {
	w.bits(2<<1, 3)
	nlit, ndist, ncl := w.counts()
	w.bits(uint64(nlit-257), 5)
	w.bits(uint64(ndist-1), 5)
	w.bits(uint64(ncl-4), 4)
	for _, s := range codeOrder[:ncl] {
		w.bits(uint64(w.clLen[s]), 3)
	}
	codes(w.clCode[:], w.clLen[:])
	for _, r := range w.rle {
		s := r & 31
		w.bits(uint64(w.clCode[s]), uint(w.clLen[s]))
		w.bits(uint64(r>>8), rleExtra(s))
	}
	w.body(tokens)
}

func (w *blockWriter) body(tokens []uint32) {
	codes(w.litCode[:], w.litLen[:])
	codes(w.distCode[:], w.distLen[:])
	for _, t := range tokens {
		if t&matchBit == 0 {
			w.bits(uint64(w.litCode[t]), uint(w.litLen[t]))
			continue
		}
		length, dist := uint16(t>>16&0xff)+3, uint32(t&0x7fff)+1
		ls, ds := lengthSymbol(length), distSymbol(dist)
		w.bits(uint64(w.litCode[257+ls]), uint(w.litLen[257+ls]))
		w.bits(uint64(length-lengthBase[ls]), uint(lengthExtra[ls]))
		w.bits(uint64(w.distCode[ds]), uint(w.distLen[ds]))
		w.bits(uint64(dist-uint32(distBase[ds])), uint(distExtra[ds]))
	}
	w.bits(uint64(w.litCode[256]), uint(w.litLen[256]))
}

func (w *blockWriter) count(tokens []uint32) {
	clear(w.litCount[:])
	clear(w.distCount[:])
	w.litCount[256] = 1
	for _, t := range tokens {
		if t&matchBit == 0 {
			w.litCount[t]++
			continue
		}
		w.litCount[257+lengthSymbol(uint16(t>>16&0xff)+3)]++
		w.distCount[distSymbol(uint32(t&0x7fff)+1)]++
	}
}

// plan chooses the codes of a dynamic block and returns the bits that its header takes.
func (w *blockWriter) plan() int {
	codeLengths(w.litLen[:286], w.litCount[:], maxCodeLen)
	w.litLen[286], w.litLen[287] = 0, 0
	codeLengths(w.distLen[:], w.distCount[:], maxCodeLen)
	nlit, ndist := w.used()
	w.rle = w.rle[:0]
	clear(w.clCount[:])
	w.runs(w.litLen[:nlit])
	w.runs(w.distLen[:ndist])
	codeLengths(w.clLen[:], w.clCount[:], 7)
	_, _, ncl := w.counts()
	n := 3 + 5 + 5 + 4 + 3*ncl
	for _, r := range w.rle {
		n += int(w.clLen[r&31]) + int(rleExtra(r&31))
	}
	return n
}

func (w *blockWriter) used() (nlit, ndist int) {
	nlit, ndist = 286, 30
	for nlit > 257 && w.litLen[nlit-1] == 0 {
		nlit--
	}
	for ndist > 1 && w.distLen[ndist-1] == 0 {
		ndist--
	}
	return nlit, ndist
}

func (w *blockWriter) counts() (nlit, ndist, ncl int) {
	nlit, ndist = w.used()
	for ncl = 19; ncl > 4 && w.clLen[codeOrder[ncl-1]] == 0; {
		ncl--
	}
	return nlit, ndist, ncl
}

// runs adds lens to rle: 16 repeats the last length 3 to 6 times, 17 and 18 are 3 to 10 and 11 to 138 zeros.
func (w *blockWriter) runs(lens []uint8) {
	for i := 0; i < len(lens); {
		n := 1
		for i+n < len(lens) && lens[i+n] == lens[i] {
			n++
		}
		v := uint16(lens[i])
		i += n
		for v == 0 && n >= 11 {
			n -= w.run(18, min(n, 138), 11)
		}
		if v == 0 && n >= 3 {
			n -= w.run(17, n, 3)
		}
		if n > 0 {
			n -= w.run(v, 1, 1)
		}
		for v != 0 && n >= 3 {
			n -= w.run(16, min(n, 6), 3)
		}
		for ; n > 0; n-- {
			w.run(v, 1, 1)
		}
	}
}

func (w *blockWriter) run(symbol uint16, n, least int) int {
	w.clCount[symbol]++
	w.rle = append(w.rle, symbol|uint16(n-least)<<8)
	return n
}

func rleExtra(symbol uint16) uint {
	switch symbol {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

// cost is the number of bits that the counted tokens take with the given code lengths.
func (w *blockWriter) cost(lit, dist []uint8) int {
	n := 3
	for s, c := range w.litCount {
		b := int(lit[s])
		if s > 256 {
			b += int(lengthExtra[s-257])
		}
		n += int(c) * b
	}
	for s, c := range w.distCount {
		n += int(c) * int(dist[s]+distExtra[s])
	}
	return n
}

func lengthSymbol(n uint16) int {
	switch {
	case n == maxMatch:
		return 28
	case n < 11:
		return int(n) - 3
	}
	n -= 3
	e := bits.Len16(n) - 3
	return 4*e + int(n>>e)
}

func distSymbol(d uint32) int {
	d--
	if d < 4 {
		return int(d)
	}
	e := bits.Len32(d) - 2
	return 2*e + int(d>>e)
}
