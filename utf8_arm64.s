//go:build !purego

#include "textflag.h"

// func utf8NEON(p *byte, n int, class *[3][16]uint8) bool
// n >= 19. utf8_simd.go explains the method.
//
// R0 the block of 16 bytes in hand, R1 the last one, which ends with p and so
// may overlap the one before it. V20 gathers the errors.
TEXT ·utf8NEON(SB), NOSPLIT, $0-25
	MOVD  p+0(FP), R0
	MOVD  n+8(FP), R1
	MOVD  class+16(FP), R2
	VLD1  (R2), [V21.B16, V22.B16, V23.B16]
	VMOVI $0x80, V16.B16
	VMOVI $0x70, V17.B16
	VMOVI $0x60, V18.B16
	VMOVI $0x0f, V19.B16
	VEOR  V20.B16, V20.B16, V20.B16
	ADD   R0, R1, R1
	SUB   $16, R1

	// Before the first block there is nothing to load: shift zeros in.
	VLD1 (R0), [V0.B16]
	VEXT $15, V0.B16, V20.B16, V1.B16 // the bytes, each moved on by one place
	VEXT $14, V0.B16, V20.B16, V2.B16 // by two
	VEXT $13, V0.B16, V20.B16, V3.B16 // by three
	B    check

block:
	VLD1    (R0), [V0.B16]
	SUB     $3, R0, R4
	VLD1    (R4), [V3.B16]
	VORR    V0.B16, V3.B16, V4.B16
	VUSHR   $7, V4.B16, V4.B16
	VUADDLV V4.B16, V4             // how many bytes are not ASCII
	VMOV    V4.H[0], R4
	CBZ     R4, ascii              // nor the three before: nothing is open
	SUB     $2, R0, R4
	VLD1    (R4), [V2.B16]
	SUB     $1, R0, R4
	VLD1    (R4), [V1.B16]

check:
	// Which errors do each byte and the one before it make together?
	VUSHR $4, V1.B16, V4.B16
	VTBL  V4.B16, [V21.B16], V4.B16 // by the high half of the byte before
	VAND  V19.B16, V1.B16, V5.B16
	VTBL  V5.B16, [V22.B16], V5.B16 // by its low half
	VUSHR $4, V0.B16, V6.B16
	VTBL  V6.B16, [V23.B16], V6.B16 // by the high half of the byte
	VAND  V4.B16, V5.B16, V5.B16
	VAND  V5.B16, V6.B16, V6.B16

	// Two continuation bytes in a row are right where a lead byte of three or
	// four stands two or three places before, and nothing else is.
	VUMAX V16.B16, V2.B16, V2.B16
	VSUB  V18.B16, V2.B16, V2.B16 // 0xe0 and above, less 0x60, keep the high bit
	VUMAX V16.B16, V3.B16, V3.B16
	VSUB  V17.B16, V3.B16, V3.B16 // 0xf0 and above, less 0x70
	VORR  V2.B16, V3.B16, V3.B16
	VAND  V16.B16, V3.B16, V3.B16
	VEOR  V3.B16, V6.B16, V6.B16
	VORR  V6.B16, V20.B16, V20.B16

next:
	CMP  R1, R0
	BEQ  end
	ADD  $16, R0
	CMP  R1, R0
	CSEL HI, R1, R0, R0 // not beyond the last block
	B    block

ascii:
	// The block at R0 is ASCII; so, likely, are the next four.
	ADD     $64, R0, R5
	CMP     R1, R5
	BHI     next
	ADD     $16, R0, R4
	VLD1    (R4), [V0.B16, V1.B16, V2.B16, V3.B16]
	VORR    V0.B16, V1.B16, V0.B16
	VORR    V2.B16, V3.B16, V2.B16
	VORR    V0.B16, V2.B16, V0.B16
	VUSHR   $7, V0.B16, V0.B16
	VUADDLV V0.B16, V0
	VMOV    V0.H[0], R4
	CBNZ    R4, next
	MOVD    R5, R0
	B       ascii

end:
	VUADDLV V20.B16, V20
	VMOV    V20.H[0], R4
	CMP     $0, R4
	CSET    EQ, R4
	MOVB    R4, ret+24(FP)
	RET
