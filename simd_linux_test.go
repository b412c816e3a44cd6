package websocket

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSIMDStaysInside lays the input against pages that cannot be touched, at
// its start and at its end: to read a byte too many is fatal.
func TestSIMDStaysInside(t *testing.T) {
	page := os.Getpagesize()
	m, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	require.NoError(t, err)
	defer syscall.Munmap(m)
	require.NoError(t, syscall.Mprotect(m[:page], syscall.PROT_NONE))
	require.NoError(t, syscall.Mprotect(m[2*page:], syscall.PROT_NONE))
	m = m[page : 2*page]
	dst := make([]byte, page)

	for name := range eachSIMD {
		t.Run(name, func(t *testing.T) {
			for n := range 900 {
				for _, p := range [][]byte{m[:n], m[page-n:]} {
					for _, ascii := range []bool{true, false} {
						copy(p, filler(n, ascii))
						var u utf8Check
						require.True(t, u.add(p))
					}
					maskCopy(dst, p, Mask(p, 0x01020304))
				}
			}
		})
	}
}
