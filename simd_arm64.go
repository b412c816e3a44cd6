//go:build !purego

package websocket

// simd_arm64.go owns the choice of the assembly that suits this CPU.

const (
	simdNone = iota // portable Go: every arm64 has NEON, but tests ask for it
	simdNEON

	simdUTF8 = simdNEON // the least that utf8Blocks runs on
)

var simd = simdNEON

// maskBulk masks bulkMin bytes and more; dst is as long as src.
func maskBulk(dst, src []byte, key, next uint32) {
	if simd < simdNEON {
		maskWords(dst, src, key)
		return
	}
	maskNEON(&dst[0], &src[0], len(src), key, next)
}

func utf8Blocks(p *byte, n int, class *[3][16]uint8) bool {
	return utf8NEON(p, n, class)
}

//go:noescape
func maskNEON(dst, src *byte, n int, key, next uint32)

//go:noescape
func utf8NEON(p *byte, n int, class *[3][16]uint8) bool
