//go:build !purego

#include "textflag.h"

// mask_amd64.s is one function in three widths. W bytes fill a vector.
//
//	head = the first W bytes, masked    // loaded now, stored at the end
//	tail = the last W bytes, masked
//	o = the first offset at which dst is aligned to W
//	while o < n-W: mask a vector at o; o += W   // four at a time while they fit
//	store head and tail
//
// Head and tail overlap what lies between, so that nothing is left for a slow
// loop over bytes. As they are loaded before anything is stored, they are
// right in place as well. Stores that are not aligned would take twice as
// long, since every other one (every one of AVX-512) straddles cache lines.
//
// DI dst, SI src, CX the offset o, DX n-W, BX n-W less three vectors: below it
// four fit. Vector 0 is the key as turned by the offset, 1 head, 2 tail.

// func maskSSE2(dst, src *byte, n int, key, next uint32)
// n >= 16
TEXT ·maskSSE2(SB), NOSPLIT, $0-32
	MOVQ   dst+0(FP), DI
	MOVQ   src+8(FP), SI
	MOVQ   n+16(FP), DX
	MOVL   key+24(FP), AX
	MOVL   next+28(FP), BX
	SUBQ   $16, DX
	MOVQ   AX, X1
	PSHUFL $0, X1, X1         // the key in all four places
	MOVOU  (SI), X3
	PXOR   X3, X1
	MOVQ   BX, X2
	PSHUFL $0, X2, X2
	MOVOU  (SI)(DX*1), X3
	PXOR   X3, X2
	MOVQ   DI, CX
	NEGQ   CX
	ANDQ   $15, CX            // bytes from dst to the next multiple of 16
	SHLL   $3, CX
	RORL   CX, AX             // the rotation counts mod 32, so the key by mod 4
	SHRL   $3, CX
	MOVQ   AX, X0
	PSHUFL $0, X0, X0
	LEAQ   -48(DX), BX
	CMPQ   CX, BX
	JGE    one

four:
	MOVOU (SI)(CX*1), X3
	MOVOU 16(SI)(CX*1), X4
	MOVOU 32(SI)(CX*1), X5
	MOVOU 48(SI)(CX*1), X6
	PXOR  X0, X3
	PXOR  X0, X4
	PXOR  X0, X5
	PXOR  X0, X6
	MOVOU X3, (DI)(CX*1)
	MOVOU X4, 16(DI)(CX*1)
	MOVOU X5, 32(DI)(CX*1)
	MOVOU X6, 48(DI)(CX*1)
	ADDQ  $64, CX
	CMPQ  CX, BX
	JLT   four

one:
	CMPQ  CX, DX
	JGE   end
	MOVOU (SI)(CX*1), X3
	PXOR  X0, X3
	MOVOU X3, (DI)(CX*1)
	ADDQ  $16, CX
	JMP   one

end:
	MOVOU X1, (DI)
	MOVOU X2, (DI)(DX*1)
	RET

// func maskAVX2(dst, src *byte, n int, key, next uint32)
// n >= 32
TEXT ·maskAVX2(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), DX
	MOVL         key+24(FP), AX
	MOVL         next+28(FP), BX
	SUBQ         $32, DX
	VMOVD        AX, X1
	VPBROADCASTD X1, Y1
	VPXOR        (SI), Y1, Y1
	VMOVD        BX, X2
	VPBROADCASTD X2, Y2
	VPXOR        (SI)(DX*1), Y2, Y2
	MOVQ         DI, CX
	NEGQ         CX
	ANDQ         $31, CX
	SHLL         $3, CX
	RORL         CX, AX
	SHRL         $3, CX
	VMOVD        AX, X0
	VPBROADCASTD X0, Y0
	LEAQ         -96(DX), BX
	CMPQ         CX, BX
	JGE          one

four:
	VPXOR   (SI)(CX*1), Y0, Y3
	VPXOR   32(SI)(CX*1), Y0, Y4
	VPXOR   64(SI)(CX*1), Y0, Y5
	VPXOR   96(SI)(CX*1), Y0, Y6
	VMOVDQU Y3, (DI)(CX*1)
	VMOVDQU Y4, 32(DI)(CX*1)
	VMOVDQU Y5, 64(DI)(CX*1)
	VMOVDQU Y6, 96(DI)(CX*1)
	ADDQ    $128, CX
	CMPQ    CX, BX
	JLT     four

one:
	CMPQ    CX, DX
	JGE     end
	VPXOR   (SI)(CX*1), Y0, Y3
	VMOVDQU Y3, (DI)(CX*1)
	ADDQ    $32, CX
	JMP     one

end:
	VMOVDQU    Y1, (DI)
	VMOVDQU    Y2, (DI)(DX*1)
	VZEROUPPER                 // or SSE instructions after this would be slow
	RET

// func maskAVX512(dst, src *byte, n int, key, next uint32)
// n >= 64
TEXT ·maskAVX512(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         src+8(FP), SI
	MOVQ         n+16(FP), DX
	MOVL         key+24(FP), AX
	MOVL         next+28(FP), BX
	SUBQ         $64, DX
	VPBROADCASTD AX, Z1
	VPXORD       (SI), Z1, Z1
	VPBROADCASTD BX, Z2
	VPXORD       (SI)(DX*1), Z2, Z2
	MOVQ         DI, CX
	NEGQ         CX
	ANDQ         $63, CX
	SHLL         $3, CX
	RORL         CX, AX
	SHRL         $3, CX
	VPBROADCASTD AX, Z0
	LEAQ         -192(DX), BX
	CMPQ         CX, BX
	JGE          one

four:
	VPXORD    (SI)(CX*1), Z0, Z3
	VPXORD    64(SI)(CX*1), Z0, Z4
	VPXORD    128(SI)(CX*1), Z0, Z5
	VPXORD    192(SI)(CX*1), Z0, Z6
	VMOVDQU32 Z3, (DI)(CX*1)
	VMOVDQU32 Z4, 64(DI)(CX*1)
	VMOVDQU32 Z5, 128(DI)(CX*1)
	VMOVDQU32 Z6, 192(DI)(CX*1)
	ADDQ      $256, CX
	CMPQ      CX, BX
	JLT       four

one:
	CMPQ      CX, DX
	JGE       end
	VPXORD    (SI)(CX*1), Z0, Z3
	VMOVDQU32 Z3, (DI)(CX*1)
	ADDQ      $64, CX
	JMP       one

end:
	VMOVDQU32  Z1, (DI)
	VMOVDQU32  Z2, (DI)(DX*1)
	VZEROUPPER
	RET
