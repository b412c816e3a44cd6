package flate

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/flate/corpus"
)

// Each line of the script's input is a command, and of its output an answer in hexadecimal.
const zlibScript = `
import sys, zlib
for line in sys.stdin:
    op, *a = line.split()
    if op == "deflater":
        z = zlib.compressobj(int(a[0]), zlib.DEFLATED, -int(a[1]), 8, int(a[2]))
    elif op == "inflater":
        z = zlib.decompressobj(-int(a[0]))
    elif op == "deflate":
        c = z.compress(bytes.fromhex(a[0])) + z.flush(zlib.Z_SYNC_FLUSH)
        print(c[:-4].hex(), flush=True)
    elif op == "inflate":
        print(z.decompress(bytes.fromhex(a[0]) + b"\0\0\xff\xff").hex(), flush=True)
`

// A zlib is the C library, in another process.
type zlib struct {
	t  *testing.T
	in *bufio.Writer
	r  *bufio.Reader
}

func newZlib(t *testing.T) *zlib {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 for its zlib module: ", err)
	}
	cmd := exec.Command(python, "-c", zlibScript)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, cmd.Wait())
	})
	return &zlib{t, bufio.NewWriter(in), bufio.NewReader(out)}
}

func (z *zlib) begin(command string, args ...any) {
	fmt.Fprintln(z.in, append([]any{command}, args...)...)
}

func (z *zlib) ask(command string, p []byte) []byte {
	fmt.Fprintln(z.in, command, hex.EncodeToString(p))
	require.NoError(z.t, z.in.Flush())
	line, err := z.r.ReadString('\n')
	require.NoError(z.t, err)
	b, err := hex.DecodeString(strings.TrimSpace(line))
	require.NoError(z.t, err)
	return b
}

// messages cuts data into those of many sizes.
func messages(data []byte) (m [][]byte) {
	for _, n := range []int{1, 5, 100, 300, 1000, 20_000, 3, 50, 70_000, 100} {
		m = append(m, data[:n])
		data = data[n/2:]
	}
	return m
}

// zlib's strategies: default, filtered, Huffman only, run lengths, fixed codes.
func TestInflateZlib(t *testing.T) {
	long(t)
	z := newZlib(t)
	for bits := 9; bits <= maxBits; bits++ {
		for _, how := range [][2]int{{0, 0}, {1, 0}, {6, 0}, {9, 0}, {6, 1}, {6, 2}, {6, 3}, {6, 4}} {
			for _, k := range corpus.Kinds() {
				w := NewWindow(bits)
				z.begin("deflater", how[0], bits, how[1])
				for _, p := range messages(k.Make(150_000)) {
					out, err := inflate(z.ask("deflate", p), 1000, w, bits, int64(len(p)))
					require.NoError(t, err, "%s, %d bits, level and strategy %v", k.Name, bits, how)
					require.True(t, bytes.Equal(p, out), "%s, %d bits, level and strategy %v", k.Name, bits, how)
				}
			}
		}
	}
}

func TestCompressZlib(t *testing.T) {
	z := newZlib(t)
	for bits := minBits; bits <= maxBits; bits++ {
		for _, k := range corpus.Kinds() {
			w := NewWindow(bits)
			z.begin("inflater", bits)
			for _, p := range messages(k.Make(150_000)) {
				out := z.ask("inflate", Compress(nil, p, w, bits))
				require.True(t, bytes.Equal(p, out), "%s, %d bits", k.Name, bits)
				w.Add(p)
			}
		}
	}
}
