//go:build (!amd64 && !arm64) || purego

package websocket

// simd_other.go owns the portable stand-ins for the assembly.

import "unicode/utf8"

const simdNone = 0

var simd = simdNone

func maskBulk(dst, src []byte, key, _ uint32) { maskWords(dst, src, key) }

func validBulk(p []byte) bool { return utf8.Valid(p) }
