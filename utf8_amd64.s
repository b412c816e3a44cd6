//go:build !purego

#include "textflag.h"

// FILL sets every byte of a vector to the byte that c repeats four times.
#define FILL(c, x, y) \
	MOVL         c, AX; \
	VMOVD        AX, x; \
	VPBROADCASTD x, y

// func utf8AVX2(p *byte, n int, class *[3][16]uint8) bool
// n >= 35. utf8_simd.go explains the method.
//
// SI the block of 32 bytes in hand, R8 the last one, which ends with p and so
// may overlap the one before it. Y12 gathers the errors.
TEXT ·utf8AVX2(SB), NOSPLIT, $0-25
	MOVQ           p+0(FP), SI
	MOVQ           n+8(FP), R8
	MOVQ           class+16(FP), AX
	VBROADCASTI128 (AX), Y13
	VBROADCASTI128 16(AX), Y14
	VBROADCASTI128 32(AX), Y15
	FILL($0x80808080, X8, Y8)
	FILL($0x70707070, X9, Y9)
	FILL($0x60606060, X10, Y10)
	FILL($0x0f0f0f0f, X11, Y11)
	VPXOR          Y12, Y12, Y12
	LEAQ           -32(SI)(R8*1), R8

	// Before the first block there is nothing to load: shift zeros in.
	VMOVDQU    (SI), Y0
	VPMOVMSKB  Y0, AX             // the high bit of every byte
	TESTL      AX, AX
	JZ         ascii
	VPERM2I128 $0x08, Y0, Y0, Y1  // Y1: 16 zeros, the first half of Y0
	VPALIGNR   $15, Y1, Y0, Y2    // the bytes, each moved on by one place
	VPALIGNR   $14, Y1, Y0, Y3    // by two
	VPALIGNR   $13, Y1, Y0, Y4    // by three
	JMP        check

block:
	VMOVDQU   (SI), Y0
	VMOVDQU   -3(SI), Y4
	VPOR      Y0, Y4, Y1
	VPMOVMSKB Y1, AX
	TESTL     AX, AX
	JZ        ascii      // and so are the three bytes before: nothing is open
	VMOVDQU   -2(SI), Y3
	VMOVDQU   -1(SI), Y2

check:
	// Which errors do each byte and the one before it make together?
	VPSRLW  $4, Y2, Y5
	VPAND   Y11, Y5, Y5
	VPSHUFB Y5, Y13, Y5 // by the high half of the byte before
	VPAND   Y11, Y2, Y6
	VPSHUFB Y6, Y14, Y6 // by its low half
	VPSRLW  $4, Y0, Y7
	VPAND   Y11, Y7, Y7
	VPSHUFB Y7, Y15, Y7 // by the high half of the byte
	VPAND   Y5, Y6, Y6
	VPAND   Y6, Y7, Y7

	// Two continuation bytes in a row are right where a lead byte of three or
	// four stands two or three places before, and nothing else is.
	VPSUBUSB Y10, Y3, Y3   // 0xe0 and above, less 0x60, keep the high bit
	VPSUBUSB Y9, Y4, Y4    // 0xf0 and above, less 0x70
	VPOR     Y3, Y4, Y4
	VPAND    Y8, Y4, Y4
	VPXOR    Y4, Y7, Y7
	VPOR     Y7, Y12, Y12

next:
	CMPQ    SI, R8
	JEQ     end
	ADDQ    $32, SI
	CMPQ    SI, R8
	CMOVQHI R8, SI
	JMP     block

ascii:
	// The block at SI is ASCII; so, likely, are the next four.
	LEAQ      128(SI), AX
	CMPQ      AX, R8
	JHI       next
	VMOVDQU   32(SI), Y0
	VMOVDQU   64(SI), Y1
	VPOR      96(SI), Y0, Y0
	VPOR      128(SI), Y1, Y1
	VPOR      Y0, Y1, Y1
	VPMOVMSKB Y1, AX
	TESTL     AX, AX
	JNZ       next
	ADDQ      $128, SI
	JMP       ascii

end:
	VPTEST     Y12, Y12
	SETEQ      ret+24(FP)
	VZEROUPPER
	RET
