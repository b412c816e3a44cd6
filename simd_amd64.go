//go:build !purego

package websocket

// simd_amd64.go owns the choice of the assembly that suits this CPU.

// What a CPU and its operating system offer; each has those before it.
const (
	simdNone = iota // portable Go: no CPU has so little, but tests ask for it
	simdSSE2        // every amd64
	simdAVX2
	simdAVX512

	simdUTF8 = simdAVX2 // the least that utf8Blocks runs on
)

var simd = detectSIMD()

func detectSIMD() int {
	const (
		osxsave = 1 << 27       // leaf 1, ecx: XGETBV may be asked
		avx2    = 1 << 5        // leaf 7, ebx
		avx512  = 1<<16 | 1<<30 // leaf 7, ebx: F and BW
		vbmi    = 1 << 1        // leaf 7, ecx: CPUs with it do not slow down for ZMM
		gfni    = 1 << 8        // leaf 7, ecx
		ymm     = 0x06          // XCR0: the system keeps XMM and YMM for each thread
		zmm     = 0xe6          // XCR0: and all of ZMM
	)
	maxLeaf, _, _ := cpuid(0)
	_, _, ecx1 := cpuid(1)
	if maxLeaf < 7 || ecx1&osxsave == 0 {
		return simdSSE2
	}
	_, ebx7, ecx7 := cpuid(7)
	xcr0 := xgetbv()
	if ebx7&avx2 == 0 || xcr0&ymm != ymm {
		return simdSSE2
	}
	if ebx7&avx512 != avx512 || ecx7&vbmi == 0 || ecx7&gfni == 0 || xcr0&zmm != zmm {
		return simdAVX2
	}
	return simdAVX512
}

// maskBulk masks bulkMin bytes and more; dst is as long as src.
func maskBulk(dst, src []byte, key, next uint32) {
	n := len(src)
	switch {
	case simd == simdAVX512 && n >= 512: // for less, AVX2 is as fast
		maskAVX512(&dst[0], &src[0], n, key, next)
	case simd >= simdAVX2:
		maskAVX2(&dst[0], &src[0], n, key, next)
	case simd == simdSSE2:
		maskSSE2(&dst[0], &src[0], n, key, next)
	default:
		maskWords(dst, src, key)
	}
}

func utf8Blocks(p *byte, n int, class *[3][16]uint8) bool {
	if simd == simdAVX512 && n >= 128 {
		return utf8AVX512(p, n, class)
	}
	return utf8AVX2(p, n, class)
}

// cpuid asks for subleaf 0.
func cpuid(leaf uint32) (eax, ebx, ecx uint32)

// xgetbv returns the low half of XCR0.
func xgetbv() uint32

//go:noescape
func maskSSE2(dst, src *byte, n int, key, next uint32)

//go:noescape
func maskAVX2(dst, src *byte, n int, key, next uint32)

//go:noescape
func maskAVX512(dst, src *byte, n int, key, next uint32)

//go:noescape
func utf8AVX2(p *byte, n int, class *[3][16]uint8) bool

//go:noescape
func utf8AVX512(p *byte, n int, class *[3][16]uint8) bool
