// Package mask compares how libraries mask.
package mask

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"testing"
	_ "unsafe" // for go:linkname

	"github.com/gobwas/ws"
	_ "github.com/lxzan/gws"
	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// gws exports no masking.
//
//go:linkname gwsMask github.com/lxzan/gws/internal.MaskXOR
func gwsMask(b []byte, key []byte)

var key = [4]byte{0x17, 0x2b, 0x4c, 0x9d}

// masks are ways to mask in place, with the same result.
var masks = []struct {
	name string
	mask func(b []byte)
}{
	{"websocket", func(b []byte) { websocket.Mask(b, binary.LittleEndian.Uint32(key[:])) }},
	{"gobwas", func(b []byte) { ws.Cipher(b, key, 0) }},
	{"gws", func(b []byte) { gwsMask(b, key[:]) }},
}

func TestMasks(t *testing.T) {
	want := make([]byte, 1021)
	for i := range want {
		want[i] = key[i%4]
	}
	for _, m := range masks {
		b := make([]byte, len(want))
		m.mask(b)
		require.Equal(t, want, b, m.name)
	}
}

// BenchmarkMask has crypto/subtle.XORBytes beside them, which needs a key as
// long as the payload.
func BenchmarkMask(b *testing.B) {
	for _, size := range []int{16, 128, 1 << 10, 16 << 10, 256 << 10} {
		p, long := make([]byte, size), make([]byte, size)
		run := func(name string, f func(b []byte)) {
			b.Run(fmt.Sprintf("lib=%s/size=%d", name, size), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					f(p)
				}
			})
		}
		for _, m := range masks {
			run(m.name, m.mask)
		}
		run("subtle.XORBytes", func(b []byte) { subtle.XORBytes(b, b, long) })
	}
}
