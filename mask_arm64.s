//go:build !purego

#include "textflag.h"

// func maskNEON(dst, src *byte, n int, key, next uint32)
// n >= 16
//
//	tail = the last 16 bytes, masked    // loaded now, stored at the end
//	while more than 16 bytes are left: mask 64 if they fit, else 16
//	store tail
//
// The tail overlaps the vector before it, so that nothing is left for a slow
// loop over bytes. As it is loaded before anything is stored, it is right in
// place as well.
//
// R0 dst, R1 src, R2 what is left of n-16, R5 where the tail goes.
TEXT ·maskNEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	MOVWU key+24(FP), R3
	MOVWU next+28(FP), R4
	VDUP R3, V0.S4          // the key in all four places
	VDUP R4, V1.S4
	SUB  $16, R2
	ADD  R2, R0, R5
	ADD  R2, R1, R6
	VLD1 (R6), [V2.B16]
	VEOR V1.B16, V2.B16, V2.B16

four:
	CMP    $48, R2                                    // the fourth may reach into the tail
	BLE    one
	VLD1.P 64(R1), [V4.B16, V5.B16, V6.B16, V7.B16]
	VEOR   V0.B16, V4.B16, V4.B16
	VEOR   V0.B16, V5.B16, V5.B16
	VEOR   V0.B16, V6.B16, V6.B16
	VEOR   V0.B16, V7.B16, V7.B16
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R0)
	SUB    $64, R2
	B      four

one:
	CMP    $0, R2
	BLE    end
	VLD1.P 16(R1), [V4.B16]
	VEOR   V0.B16, V4.B16, V4.B16
	VST1.P [V4.B16], 16(R0)
	SUB    $16, R2
	B      one

end:
	VST1 [V2.B16], (R5)
	RET
