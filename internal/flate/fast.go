package flate

// Masks for the roots.
const (
	litMask  = 1<<litRoot - 1
	distMask = 1<<distRoot - 1
)

// fast decodes while there are 8 bytes of input, so that 56 bits can be had at once: three literals of the root, or
// 48 bits, which is the longest match. What it has no room for, cannot be or ends the block it leaves to slow.
func (z *Inflater) fast() {
	lit, dist := &z.codes.lit, &z.codes.dist
	src, i, b, nb := z.src, 0, z.bits, z.nb
	n := len(z.out)
	out := z.out[:n+int(min(int64(cap(z.out)-n), z.limit-z.total))]
	start, reach := n-z.have, z.reach
	history, historyEnd := z.window.ring()
	for i+8 <= len(src) && n+4 <= len(out) {
		b |= load64(src, i) << (nb & 63)
		i += int(63-nb) >> 3
		nb |= 56
		e := lit[b&litMask]
		if e&isLiteral != 0 {
			b, nb = b>>(e&63), nb-uint(e&63)
			out[n] = byte(e >> 16)
			n++
			if e = lit[b&litMask]; e&isLiteral != 0 {
				b, nb = b>>(e&63), nb-uint(e&63)
				out[n] = byte(e >> 16)
				n++
				if e = lit[b&litMask]; e&isLiteral != 0 {
					b, nb = b>>(e&63), nb-uint(e&63)
					out[n] = byte(e >> 16)
					n++
					continue
				}
			}
			if nb < 48 {
				if i+8 > len(src) {
					break
				}
				b |= load64(src, i) << (nb & 63)
				i += int(63-nb) >> 3
				nb |= 56
			}
		}
		t, tn := b, nb // become b and nb when all is well
		if e&isSpecial != 0 {
			if e&isPointer == 0 {
				break
			}
			t, tn = t>>litRoot, tn-litRoot
			e = lit[uint64(e>>16)+t&(1<<(e>>8&15)-1)]
			if e&isLiteral != 0 {
				b, nb = t>>(e&63), tn-uint(e&63)
				out[n] = byte(e >> 16)
				n++
				continue
			}
			if e&isSpecial != 0 {
				break
			}
		}
		length := value(e, t)
		t, tn = t>>(e&63), tn-uint(e&63)
		e = dist[t&distMask]
		if e&isSpecial != 0 {
			if e&isPointer == 0 {
				break
			}
			t, tn = t>>distRoot, tn-distRoot
			e = dist[uint64(e>>16)+t&(1<<(e>>8&15)-1)]
			if e&isSpecial != 0 {
				break
			}
		}
		d := value(e, t)
		end := n + length
		from, at := out, n-d
		back := start - at // how far into the history
		if end > len(out) || d > reach || back > len(history) {
			break
		}
		b, nb = t>>(e&63), tn-uint(e&63)
		if back > 0 {
			from, at = history, historyEnd-back
			if at < 0 {
				at += len(history)
			}
		}
		if end+32 <= len(out) && at+32 <= len(from) && (back <= 0 && d >= 16 || back >= length && length <= 32) {
			*(*[16]byte)(out[n:]) = *(*[16]byte)(from[at:])
			*(*[16]byte)(out[n+16:]) = *(*[16]byte)(from[at+16:])
			for n += 32; n < end; n += 16 {
				*(*[16]byte)(out[n:]) = *(*[16]byte)(out[n-d:])
			}
			n = end
			continue
		}
		if back > 0 {
			n += z.window.copyAt(out[n:end], back)
		}
		for ; n < end; n++ {
			out[n] = out[n-d]
		}
	}
	wrote := n - len(z.out)
	z.src, z.bits, z.nb, z.out = src[i:], b, nb, out[:n]
	z.wrote(wrote)
}
