package engine

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/streams"
)

// differ_test.go compares the loops with Serve: the same bytes, however they come
// and whatever the kernel says about them, make the same calls and the same
// output (A100, A41, A42).

// A trace is what a connection did.
type trace struct {
	calls []string
	out   []string // frames, without pongs
	pongs []string
}

// parse takes output apart. The last frame may be cut off.
func (tr *trace) parse(out []byte) {
	for len(out) > 0 {
		h, n := websocket.ParseHeader(out)
		if n <= 0 || int64(len(out)-n) < h.Len {
			return
		}
		frame := fmt.Sprintf("%x %x %x", h.Opcode, h.RSV, out[n:n+int(h.Len)])
		out = out[n+int(h.Len):]
		if h.Opcode == websocket.OpPong {
			tr.pongs = append(tr.pongs, frame)
		} else {
			tr.out = append(tr.out, frame)
		}
	}
}

func (tr *trace) handler() websocket.Handler {
	note := func(format string, a ...any) { tr.calls = append(tr.calls, fmt.Sprintf(format, a...)) }
	return websocket.Handler{
		Open: func(*websocket.Conn) { note("open") },
		Message: func(c *websocket.Conn, m websocket.Message) {
			note("%s %x", m.Type, m.Data)
			if len(m.Data) > 0 && m.Data[0] == 'q' { // as good a moment as any
				c.Close(4000, "enough")
			}
			c.Queue(m)
		},
		Close: func(_ *websocket.Conn, err error) { note("close %v", err) },
	}
}

// A case is a stream and how it comes.
type streamed struct {
	parts [][]byte
	end   error
	p     websocket.Params
}

// makeStream makes a case of what a fuzzer has.
func makeStream(tape, cuts []byte, how byte) (s streamed) {
	s.p.Config = websocket.Config{ReadLimit: 70_000, QueueLimit: -1, KeepAlive: -1, ProgressTimeout: -1}
	deflate, takeover := how&1 != 0, how&2 != 0
	if deflate {
		s.p.Config.Compression = &websocket.Compression{Takeover: takeover, Threshold: 1}
		s.p.Extensions = "permessage-deflate"
		if !takeover {
			s.p.Extensions += "; server_no_context_takeover; client_no_context_takeover"
		}
	}
	in := streams.Make(tape, streams.Terms{Client: true, Deflate: deflate, Takeover: takeover, Bits: 15})
	for i := 0; len(in) > 0; i++ {
		n := len(in)
		if len(cuts) > 0 {
			c := int(cuts[i%len(cuts)])
			n = min(n, 1+c*c)
		}
		s.parts = append(s.parts, in[:n:n])
		in = in[n:]
	}
	if s.end = io.EOF; how&4 != 0 {
		s.end = syscall.ECONNRESET
	}
	return s
}

// serve is the trace of Serve.
func (s streamed) serve(t *testing.T) (tr trace) {
	synctest.Test(t, func(t *testing.T) {
		nc := &scripted{end: s.end}
		for _, p := range s.parts {
			nc.parts = append(nc.parts, bytes.Clone(p))
		}
		h := tr.handler()
		websocket.NewConn(nc, s.p).Serve(bg, &h)
		tr.parse(nc.out)
	})
	return tr
}

// Scripted is a blocking transport that yields its parts.
type scripted struct {
	parts [][]byte
	end   error
	out   []byte
}

func (s *scripted) Read(p []byte) (n int, err error) {
	synctest.Wait()
	if len(s.parts) == 0 {
		return 0, s.end
	}
	n = copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error) {
	s.out = append(s.out, p...)
	return len(p), nil
}
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// loop is the trace of a loop, whose kernel does what kernel says: a byte for each
// step.
func (s streamed) loop(t *testing.T, kqueue bool, kernel []byte) (tr trace) {
	fakedWith(t, kqueue, func(t *testing.T, e *Engine, os *fake, _ *diary) {
		e.Handler = tr.handler()
		e.Options.Config = s.p.Config
		stale := os.open() // a descriptor that has had an owner, of whom events are left
		adopt(e, stale, websocket.Params{})
		synctest.Wait()
		p := stale.poller
		stale.ends(io.EOF)
		synctest.Wait()
		require.False(t, stale.isOpen())
		tr.calls = nil

		sock := os.open()
		l, _ := e.join()
		l.adopt(socket{fd: sock.fd}, nil, s.p, nil)
		parts := s.parts
		for i, k := range kernel {
			switch k % 16 {
			default: // some input
				n := min(int(k>>4)%4+1, len(parts))
				sock.comes(clones(parts[:n])...)
				parts = parts[n:]
			case 0:
				sock.happens(readable | writable)
			case 1:
				os.mu.Lock()
				sock.eintr = int(k >> 4)
				os.mu.Unlock()
			case 2:
				p.says(event{stale.token, readable | writable | halfClosed | dead})
			case 3:
				os.mu.Lock()
				sock.most = int(k>>4) * 7
				os.mu.Unlock()
			case 4, 5:
				sock.takes(int(k>>4) * int(k>>4))
			case 6:
				sock.takes(-1)
			case 7: // all of the rest, and the end, at once
				os.mu.Lock()
				sock.in = append(sock.in, clones(parts)...)
				os.mu.Unlock()
				parts = nil
				sock.ends(s.end)
			}
			if i%3 > 0 {
				synctest.Wait()
			}
		}
		sock.comes(clones(parts)...)
		if s.end == io.EOF {
			sock.takes(-1)
		}
		synctest.Wait()
		sock.ends(s.end)
		synctest.Wait()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.False(t, sock.isOpen(), "the end is the end")
		tr.parse(sock.out)
	})
	return tr
}

func clones(parts [][]byte) (all [][]byte) {
	for _, p := range parts {
		all = append(all, bytes.Clone(p))
	}
	return all
}

// same compares a loop with Serve.
func (s streamed) same(t *testing.T, kernel []byte) {
	t.Helper()
	s.sameWith(t, false, kernel)
	s.sameWith(t, true, kernel)
}

func (s streamed) sameWith(t *testing.T, kqueue bool, kernel []byte) {
	t.Helper()
	want, got := s.serve(t), s.loop(t, kqueue, kernel)
	require.Equal(t, want.calls, got.calls)
	limited := len(kernel) > 0
	if s.end != io.EOF && limited { // what is not out by then is lost
		require.LessOrEqual(t, len(got.out), len(want.out))
		want.out = want.out[:len(got.out)]
	}
	require.Equal(t, strings.Join(want.out, "\n"), strings.Join(got.out, "\n"))
	if !limited {
		require.Equal(t, want.pongs, got.pongs)
	}
}

func TestSameAsServe(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, r.IntN(n+1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for i := range 150 {
		tape, cuts, kernel, how := random(300), random(8), random(60), byte(r.Uint32())
		t.Run(fmt.Sprint(i), func(t *testing.T) { makeStream(tape, cuts, how).same(t, kernel) })
	}
}

func FuzzLoop(f *testing.F) {
	f.Add([]byte("\x00\x00\x05hello"), []byte{}, []byte{}, byte(0))
	f.Add([]byte("\x00\x00\x05hello\x8c\x04ping"), []byte{1, 2}, []byte{0x24, 8, 0x14, 0, 6, 2, 7}, byte(5))
	f.Fuzz(func(t *testing.T, tape, cuts, kernel []byte, how byte) {
		if len(tape) > 1000 || len(kernel) > 200 {
			t.Skip("more of the same")
		}
		makeStream(tape, cuts, how).same(t, kernel)
	})
}
