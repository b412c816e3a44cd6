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

// func utf8AVX512(p *byte, n int, class *[3][16]uint8) bool
// n >= 67. As utf8AVX2, with blocks of 64, and fewer steps: an affine
// transformation takes the high half of every byte, VPERMB looks at six bits only,
// where the table repeats, and VPTERNLOGD makes any function of three inputs.
TEXT ·utf8AVX512(SB), NOSPLIT, $0-25
	MOVQ            p+0(FP), SI
	MOVQ            n+8(FP), R8
	MOVQ            class+16(FP), AX
	VBROADCASTI32X4 (AX), Z13
	VBROADCASTI32X4 16(AX), Z14
	VBROADCASTI32X4 32(AX), Z15
	MOVL            $0x80808080, AX
	VPBROADCASTD    AX, Z8
	MOVL            $0x70707070, AX
	VPBROADCASTD    AX, Z9
	MOVL            $0x60606060, AX
	VPBROADCASTD    AX, Z10
	MOVQ            $0x1020408000000000, AX // byte by byte, x>>4 as a matrix of bits
	VPBROADCASTQ    AX, Z11
	VPXORQ          Z12, Z12, Z12
	LEAQ            -64(SI)(R8*1), R8

	// Before the first block there is nothing to load: masks put zeros there.
	VMOVDQU64  (SI), Z0
	VPTESTMB   Z8, Z0, K1
	KORTESTQ   K1, K1
	JZ         ascii
	MOVQ       $-2, AX
	KMOVQ      AX, K1
	VMOVDQU8.Z -1(SI), K1, Z2
	MOVQ       $-4, AX
	KMOVQ      AX, K1
	VMOVDQU8.Z -2(SI), K1, Z3
	MOVQ       $-8, AX
	KMOVQ      AX, K1
	VMOVDQU8.Z -3(SI), K1, Z4
	JMP        check

block:
	VMOVDQU64 (SI), Z0
	VMOVDQU64 -3(SI), Z4
	VPORQ     Z0, Z4, Z1
	VPTESTMB  Z8, Z1, K1
	KORTESTQ  K1, K1
	JZ        ascii        // and so are the three bytes before: nothing is open
	VMOVDQU64 -2(SI), Z3
	VMOVDQU64 -1(SI), Z2

check:
	// Which errors do each byte and the one before it make together?
	VGF2P8AFFINEQB $0, Z11, Z2, Z5
	VPSHUFB        Z5, Z13, Z5
	VPERMB         Z14, Z2, Z6
	VGF2P8AFFINEQB $0, Z11, Z0, Z7
	VPSHUFB        Z7, Z15, Z7
	VPTERNLOGD     $0x80, Z5, Z6, Z7   // and

	// What stands two and three places before?
	VPSUBUSB   Z10, Z3, Z3
	VPSUBUSB   Z9, Z4, Z4
	VPTERNLOGD $0xa8, Z8, Z3, Z4       // 3 or 4, and the high bit
	VPTERNLOGD $0xf6, Z7, Z4, Z12      // 12 or (4 xor 7)

next:
	CMPQ    SI, R8
	JEQ     end
	ADDQ    $64, SI
	CMPQ    SI, R8
	CMOVQHI R8, SI
	JMP     block

ascii:
	// The block at SI is ASCII; so, likely, are the next four.
	LEAQ      256(SI), AX
	CMPQ      AX, R8
	JHI       next
	VMOVDQU64 64(SI), Z0
	VMOVDQU64 128(SI), Z1
	VPORQ     192(SI), Z0, Z0
	VPTERNLOGD $0xfe, 256(SI), Z0, Z1  // or
	VPTESTMB  Z8, Z1, K1
	KORTESTQ  K1, K1
	JNZ       next
	ADDQ      $256, SI
	JMP       ascii

end:
	VPTESTMB   Z12, Z12, K1
	KORTESTQ   K1, K1
	SETEQ      ret+24(FP)
	VZEROUPPER
	RET
