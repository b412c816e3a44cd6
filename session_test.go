package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// session_test.go reads a tape of bytes as a program: calls of the API on both
// ends of a connection, each end with a goroutine that writes, one that reads and
// one that does everything else (A72, A81, A90, A91). What holds for all of them
// is little and says much: what is read is what was written, in order, and only
// what the connection's end cut off is missing; every call returns, in time, with
// an error that the manual knows; and the wire carries no more than it must.

// A session is two ends and what they do.
type session struct {
	t     *testing.T
	tape  []byte
	ends  [2]*side
	pings atomic.Int64 // by call
}

// A side is one end of a session.
type side struct {
	*session
	c     *Conn
	nc    *countedConn
	fed   bool
	peer  *side
	does  [3][]func() // by the goroutine that writes, that reads, that does the rest
	alive bool        // at the end of the session, as its reader saw it

	mu      sync.Mutex
	sent    []bool // by number of message: the call that sent it returned nil
	payload int    // bytes in those
	frames  int    // at most

	got     []int // numbers of messages that were read
	skipped int   // messages that the reader left without knowing which
}

// A countedConn counts what is written.
type countedConn struct {
	*memnet.Conn
	out atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

func (s *session) next() int {
	if len(s.tape) == 0 {
		return 0
	}
	b := s.tape[0]
	s.tape = s.tape[1:]
	return int(b)
}

const sessionKeepAlive = 25 * time.Second

// play sets the connection up and carries out the tape.
func play(t *testing.T, tape []byte) {
	start := time.Now()
	s := &session{t: t, tape: tape}
	how := s.next()
	cfg := Config{ReadLimit: 1 << 16, QueueLimit: 1 << (10 + how&7)}
	var agreed string
	if how&8 != 0 {
		cfg.Compression = &Compression{Threshold: 1 + how>>4*20}
		agreed = agreements[how>>4%len(agreements)]
	}
	a, b := memnet.Pipe(64 << (how >> 4 & 7 * 2))
	for i, nc := range []*memnet.Conn{a, b} {
		e := &side{session: s, nc: &countedConn{Conn: nc}}
		e.fed = s.next()&7 == 7
		e.c = NewConn(e.nc, Params{Client: i == 1, Extensions: agreed, Config: cfg})
		s.ends[i] = e
	}
	s.ends[0].peer, s.ends[1].peer = s.ends[1], s.ends[0]
	for _, e := range s.ends {
		if e.fed { // before anybody else calls something, so that Close knows
			e.err(e.c.Feed(nil, e.handler()))
		}
	}
	for len(s.tape) > 0 {
		s.step(s.ends[s.next()&1])
	}
	var wg sync.WaitGroup
	for _, e := range s.ends {
		for _, does := range e.does {
			wg.Go(func() {
				for _, do := range does {
					do()
				}
			})
		}
	}
	for _, e := range s.ends {
		if e.fed {
			go e.feed()
		}
	}
	wg.Wait()
	for _, e := range s.ends {
		e.err(e.c.Flush(bg))
	}
	for _, e := range s.ends { // at the same time: they answer each other's pings
		wg.Go(e.drain)
	}
	wg.Wait()
	synctest.Wait()
	for _, e := range s.ends {
		e.check(time.Since(start))
		require.NoError(t, e.c.CloseNow())
	}
}

// step takes one call from the tape.
func (s *session) step(e *side) {
	const writer, reader, rest = 0, 1, 2
	do := func(who int, f func()) {
		if who != reader || !e.fed { // which must not be read in any other way
			e.does[who] = append(e.does[who], f)
		}
	}
	n, arg := s.next(), s.next()
	wait := time.Duration(1+arg) * 100 * time.Millisecond
	size := 20 + arg*arg/2
	switch {
	case n < 40:
		do(writer, func() {
			e.within(wait, func(ctx context.Context) { e.send(size, func(m Message) error { return e.c.Write(ctx, m) }) })
		})
	case n < 60:
		do(writer, func() { e.send(size, e.c.Queue) })
	case n < 80:
		do(writer, func() { e.send(size, e.c.Post) })
	case n < 90:
		do(writer, func() { e.send(size, func(m Message) error { return e.c.Write(bg, Prepare(m)) }) })
	case n < 110:
		part := 1 + s.next()*20
		do(writer, func() { e.within(wait, func(ctx context.Context) { e.stream(ctx, size, part) }) })
	case n < 120:
		do(writer, func() { e.within(wait, func(ctx context.Context) { e.err(e.c.Flush(ctx)) }) })
	case n < 150:
		do(reader, func() { e.within(wait, func(ctx context.Context) { e.receive(e.c.Next(ctx)) }) })
	case n < 170:
		do(reader, func() { e.within(wait, func(ctx context.Context) { e.receive(e.c.Read(ctx)) }) })
	case n < 190:
		part := 1 + s.next()
		do(reader, func() { e.within(wait, func(ctx context.Context) { e.read(ctx, part, 1<<20) }) })
	case n < 195: // and leave the rest
		part := s.next()
		do(reader, func() { e.within(wait, func(ctx context.Context) { e.read(ctx, max(part, 1), part) }) })
	case n < 200:
		do(reader, func() {
			e.within(wait, func(ctx context.Context) {
				e.err(e.c.Serve(ctx, e.handler()))
			})
		})
	case n < 220:
		do(rest, func() {
			s.pings.Add(1)
			e.within(wait, func(ctx context.Context) { e.err(e.c.Ping(ctx)) })
		})
	case n < 235:
		do([]int{writer, reader, rest}[arg%3], func() { pass(wait * 3) })
	case n < 245:
		do(rest, func() { e.err(e.c.Flush(bg)) })
	case n < 248:
		do([]int{writer, reader, rest}[arg%3], func() { e.goodbye(CloseCode(4000+arg), strings.Repeat("€", arg)) })
	case n < 250:
		do(rest, func() { e.goodbye(CloseCode(n), "a code that does not exist") })
	case n < 252:
		do(rest, func() { e.err(e.c.CloseNow()) })
	case n < 254:
		do(rest, func() { e.nc.Reset() })
	default:
		do(writer, func() {
			require.ErrorIs(s.t, e.c.Write(bg, Text("\xff")), errText)
			require.ErrorIs(s.t, e.c.Queue(Message{}), errType)
		})
	}
}

// within gives f a context that ends, and expects it back soon after: a
// connection that ends meanwhile has its own small times.
func (e *side) within(d time.Duration, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(bg, d)
	defer cancel()
	start := time.Now()
	f(ctx)
	require.LessOrEqual(e.t, time.Since(start), d+5*time.Second, "a call with a context")
}

// content is message number n. It says which it is.
func content(n, size int) Message {
	p := fmt.Appendf(nil, "%07d %07d ", n, size)
	p = append(p, seq(size)...)[:max(size, 16)]
	return Message{Type: MessageType(1 + n&1), Data: p, Plain: n%5 == 0}
}

// begin counts a message that is about to be sent.
func (e *side) begin(size, frames int) (m Message, sent func(error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.sent)
	e.sent = append(e.sent, false)
	m = content(n, size)
	e.payload += len(m.Data)
	e.frames += frames
	return m, func(err error) {
		e.err(err)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.sent[n] = err == nil
	}
}

func (e *side) send(size int, how func(Message) error) {
	m, sent := e.begin(size, 1)
	sent(how(m))
	clear(m.Data) // it is ours again
}

// stream sends a message with Writer.
func (e *side) stream(ctx context.Context, size, part int) {
	m, sent := e.begin(size, 2+size/streamFrame+size/part)
	w, err := e.c.Writer(ctx, m.Type)
	for p := m.Data; err == nil && len(p) > 0; {
		n := min(part, len(p))
		_, err = w.Write(p[:n])
		if p = p[n:]; len(p)%3 == 0 && len(p) < 4*part {
			e.send(30, e.c.Post) // behind this one
		}
	}
	if w != nil {
		if end := w.Close(); err == nil {
			err = end
		}
		_, late := w.Write([]byte("late"))
		require.Error(e.t, late)
	}
	sent(err)
}

// receive checks a message that was read.
func (e *side) receive(m Message, err error) {
	if err != nil {
		e.err(err)
		return
	}
	e.recognize(m.Type, m.Data, true)
}

// recognize finds out which message begins with p.
func (e *side) recognize(typ MessageType, p []byte, whole bool) {
	var n, size int
	if len(p) < 16 {
		require.False(e.t, whole, "%q", p)
		e.skipped++
		return
	}
	_, err := fmt.Sscanf(string(p[:16]), "%d %d", &n, &size)
	require.NoError(e.t, err, "%q", p[:16])
	want := content(n, size)
	if whole {
		require.Equal(e.t, len(want.Data), len(p))
	}
	require.True(e.t, strings.HasPrefix(string(want.Data), string(p)), "message %d", n)
	require.Equal(e.t, want.Type, typ)
	e.got = append(e.got, n)
}

// read reads a message with Reader, as much of it as the caller wants.
func (e *side) read(ctx context.Context, part, most int) {
	typ, r, err := e.c.Reader(ctx)
	if err != nil {
		e.err(err)
		return
	}
	var p []byte
	b := make([]byte, part)
	for err == nil && len(p) < most {
		var n int
		n, err = r.Read(b)
		p = append(p, b[:n]...)
	}
	if err != nil && err != io.EOF {
		e.err(err)
	}
	e.recognize(typ, p, err == io.EOF)
}

// goodbye closes, which takes no longer than CloseTimeout.
func (e *side) goodbye(code CloseCode, reason string) {
	start := time.Now()
	err := e.c.Close(code, reason)
	require.LessOrEqual(e.t, time.Since(start), 5*time.Second, "Close")
	if code.onWire() {
		e.err(err)
	} else {
		require.ErrorContains(e.t, err, "must not be sent")
	}
	require.Error(e.t, e.c.Write(bg, Text("x")), "after Close")
}

func (e *side) handler() *Handler {
	return &Handler{Message: func(_ *Conn, m Message) { e.receive(m, nil) }}
}

// feed is the goroutine that reads for an end that is fed.
func (e *side) feed() {
	var err error
	for b := make([]byte, 1000); err == nil; {
		n, _ := e.nc.Read(b)
		err = e.c.Feed(b[:n], e.handler())
	}
	e.err(err)
}

// drain reads what is left, until nothing comes for a while.
func (e *side) drain() {
	if e.fed {
		pass(time.Minute)
		e.alive = e.c.reason() == nil
		return
	}
	for {
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		m, err := e.c.Next(ctx)
		cancel()
		e.receive(m, err)
		if err != nil {
			e.alive = err == context.DeadlineExceeded
			return
		}
	}
}

// err checks that err is one that the manual has.
func (e *side) err(err error) {
	var peer *CloseError
	var rule *ProtocolError
	switch {
	case err == nil, errors.As(err, &peer):
	case errors.As(err, &rule):
		require.Equal(e.t, errStalled, rule, "the peer is one of us")
	default:
		for _, known := range []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, ErrQueueFull, ErrPeerTimeout,
			net.ErrClosed, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
			if errors.Is(err, known) {
				return
			}
		}
		require.NoError(e.t, err, "not in the manual")
	}
}

// check looks back on the session.
func (e *side) check(took time.Duration) {
	require.True(e.t, slices.IsSorted(e.got), "order: %v", e.got)
	require.Len(e.t, slices.Compact(slices.Clone(e.got)), len(e.got), "twice: %v", e.got)
	sent := e.peer.sent
	switch n := len(e.got); {
	case e.alive && e.peer.alive && e.c.reason() == nil && e.peer.c.reason() == nil: // nothing was cut off
	case n > 0:
		sent = sent[:e.got[n-1]]
	default:
		sent = nil
	}
	lost := -e.skipped
	for n, sure := range sent {
		if _, read := slices.BinarySearch(e.got, n); sure && !read {
			lost++
		}
	}
	require.LessOrEqual(e.t, lost, 0, "messages lost; read were %v of %v", e.got, e.peer.sent)
	pings := 4 + int(e.pings.Load()) + 2*int(took/sessionKeepAlive)
	most := e.payload + 24*e.frames + pings*(8+6) + MaxHeaderSize + maxControl
	require.LessOrEqual(e.t, int(e.nc.out.Load()), most, "bytes on the wire")
}

// Random programs, the same every time.
func TestSessions(t *testing.T) {
	n := 600
	if testing.Short() || raceDetector {
		n = 100
	}
	for i := range n {
		synctest.Test(t, func(t *testing.T) { play(t, tape(uint64(i), 20+i%150)) })
	}
}

// FuzzSession plays any program.
func FuzzSession(f *testing.F) {
	for i := range 40 {
		f.Add(tape(uint64(i), 10+i*4))
	}
	f.Fuzz(func(t *testing.T, tape []byte) {
		if len(tape) > 300 {
			return
		}
		budget.Check(t, len(tape), 100*len(tape)*1000+16<<20, func() {
			synctest.Test(t, func(t *testing.T) { play(t, tape) })
		})
	})
}
