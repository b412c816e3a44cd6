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
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// Every order of what can happen to a connection that ends, from both ends
// (A72, A73, A74, A81): the rules below say what must come of it.

// A happening is one of the things that happen.
type happening byte

const (
	evClose    happening = 'C' // this side: Close(1000)
	evCloseNow happening = 'N' // this side: CloseNow
	evCancel   happening = 'X' // the context of the read or of Serve ends
	evWrite    happening = 'W' // this side: a Write that finds the network full, and waits
	evCutWrite happening = 'Y' // the context of the write ends
	evGoodbye  happening = 'g' // the peer: a close frame with 4001
	evFIN      happening = 'f' // the peer: no more bytes
	evReset    happening = 'r' // the peer: a reset
	evBreak    happening = 'b' // the peer: a frame that breaks the rules
	evTime     happening = 't' // time passes, more than any timeout
)

const allEvents = "CNXWYgfrbt"

// The timeouts of these tests, in the order in which they strike; the first two
// are lastWords and linger, a second each.
var orderConfig = Config{
	CloseTimeout:     4 * time.Second,
	WriteTimeout:     5 * time.Second,
	KeepAlive:        4 * time.Second,
	KeepAliveTimeout: 2 * time.Second,
}

const orderTime = 7 * time.Second

// An end is how a connection ended, or what closed its transport.
type end string

// The ends, and by what a caller tells them (DESIGN section 8).
var ends = map[end]struct {
	code CloseCode
	is   error
	kind any // a pointer for errors.As
}{
	"closed":        {1000, net.ErrClosed, nil},
	"going away":    {1001, net.ErrClosed, nil},
	"cut":           {1006, net.ErrClosed, nil},
	"peer's":        {4001, nil, new(*CloseError)},
	"rule":          {1002, nil, new(*ProtocolError)},
	"EOF":           {1006, io.ErrUnexpectedEOF, nil},
	"reset":         {1006, syscall.ECONNRESET, nil},
	"write cut":     {1006, context.Canceled, nil},
	"write timeout": {1006, os.ErrDeadlineExceeded, nil},
	"silence":       {1006, ErrPeerTimeout, nil},
	"unanswered":    {1006, os.ErrDeadlineExceeded, nil}, // of Close only
	"any":           {1006, nil, nil},                    // of Close only: whatever the blocked write got
}

func (e end) check(t testing.TB, err error, what string) {
	t.Helper()
	want := ends[e]
	switch {
	case err == nil,
		want.is != nil && !errors.Is(err, want.is),
		want.kind != nil && !errors.As(err, want.kind),
		e != "any" && CodeOf(err) != want.code:
		t.Errorf("%s: %v, not %q", what, err, e)
	}
}

// A course is what happens by the rules. The first event that ends the connection decides what every later
// call returns; what ends the transport decides what Close returns.
type course struct {
	mode    string      // "read", "serve", "none": who reads
	reading bool        // somebody does, Close included
	input   []happening // of the peer, and not read yet
	mute    bool        // the peer can send nothing more
	reset   bool        // the peer has reset the connection
	blocked bool        // a Write waits
	cancel  bool        // evCutWrite has come
	waits   bool        // for the peer's close frame
	last    end         // if not "", nothing more is read: last words are on their way for this, which takes 2 s at most

	end      end       // "" while open
	sent     CloseCode // in our close frame; 0: none
	answered bool      // the peer's close frame was read
	cut      end       // what closed the transport; "" while it is open
}

func (r *course) decide(e end) bool {
	if r.end != "" {
		return false
	}
	r.end = e
	return true
}

// finish: the transport goes.
func (r *course) finish(e end) {
	r.decide(e)
	if r.cut == "" {
		r.cut = e
	}
}

// goodbye: a close frame goes out and the peer's is waited for.
func (r *course) goodbye(e end) {
	if r.decide(e) {
		r.sent, r.waits = ends[e].code, true
	}
	r.reading = true
}

// lastWords: the transport goes when the peer has closed its side, or later.
func (r *course) lastWords(e end) {
	if r.decide(e) {
		r.sent = ends[e].code
	}
	r.last, r.waits = e, false
}

// consume: what has come is read, if anybody reads.
func (r *course) consume() {
	for r.reading && r.last == "" && r.cut == "" && len(r.input) > 0 {
		e := r.input[0]
		r.input = r.input[1:]
		switch e {
		case evGoodbye:
			r.answered = true
			r.lastWords("peer's")
		case evBreak:
			r.lastWords("rule")
		case evFIN:
			r.finish("EOF")
		case evReset:
			r.finish("reset")
		}
	}
	if r.last != "" && !r.blocked && (slices.Contains(r.input, evFIN) || slices.Contains(r.input, evReset)) {
		r.finish(r.last) // the peer has closed its side
	}
}

func (r *course) happen(e happening) {
	switch e {
	case evClose:
		if r.cut == "" {
			r.goodbye("closed")
		}
	case evCloseNow:
		r.finish("cut")
	case evCancel:
		switch {
		case r.mode == "serve" && r.cut == "":
			r.goodbye("going away")
		case r.mode == "read" && !r.waits: // Close reads on
			r.reading = false
		}
	case evWrite:
		switch {
		case r.end != "" || r.cancel:
		case r.reset:
			r.finish("reset")
		default:
			r.blocked = true
		}
	case evCutWrite:
		r.cancel = true
		if r.blocked {
			r.finish("write cut")
		}
	case evGoodbye, evBreak, evFIN:
		if !r.mute {
			r.input = append(r.input, e)
			r.mute = e == evFIN
		}
	case evReset:
		if r.reset {
			break
		}
		r.mute, r.reset = true, true
		r.input = []happening{evReset} // what was unread is lost
		if r.blocked {
			r.finish("reset")
		}
	case evTime:
		switch {
		case r.last != "" && r.blocked:
			r.finish("any") // the half-close has failed the write, or the write timeout has
		case r.last != "":
			r.finish(r.last)
		case r.waits:
			r.finish("unanswered")
		case r.blocked:
			r.finish("write timeout")
		case r.reset:
			r.finish("reset") // the ping of the keepalive meets it
		case r.reading:
			r.finish("silence")
		}
	}
	r.consume()
}

// closeReturns checks what Close has returned.
func (r *course) closeReturns(t testing.TB, err error) {
	t.Helper()
	if r.answered || r.cut == "cut" {
		if err != nil {
			t.Errorf("Close: %v", err)
		}
		return
	}
	r.cut.check(t, err, "Close")
}

// A stage is where it happens: a connection, its peer, and who reads.
type stage struct {
	t            testing.TB
	c            *Conn
	peer         *memnet.Conn
	client       bool
	transport    *closeCounter
	wg           sync.WaitGroup
	cancelRead   context.CancelFunc
	cancelWrite  context.CancelFunc
	writing      context.Context
	mu           sync.Mutex
	closeErrs    []error
	writeErrs    []error
	readErrs     []error // of the goroutine that reads
	handlerErrs  []error
	serveReturns []error
}

type closeCounter struct {
	*memnet.Conn
	mu     sync.Mutex
	closes int
}

func (c *closeCounter) Close() error {
	c.mu.Lock()
	c.closes++
	c.mu.Unlock()
	return c.Conn.Close()
}

func newStage(t testing.TB, mode string, client bool) *stage {
	a, b := memnet.Pipe(1000)
	s := &stage{t: t, peer: b, client: client, transport: &closeCounter{Conn: a}}
	s.c = NewConn(s.transport, Params{Client: client, Config: orderConfig})
	var reading context.Context
	reading, s.cancelRead = context.WithCancel(bg)
	s.writing, s.cancelWrite = context.WithCancel(bg)
	switch mode {
	case "read":
		s.wg.Go(func() {
			for {
				if _, err := s.c.Read(reading); err != nil {
					s.note(&s.readErrs, err)
					return
				}
			}
		})
	case "serve":
		s.wg.Go(func() {
			s.note(&s.serveReturns, s.c.Serve(reading, &Handler{Close: func(_ *Conn, err error) { s.note(&s.handlerErrs, err) }}))
		})
	}
	return s
}

func (s *stage) note(errs *[]error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*errs = append(*errs, err)
}

func (s *stage) frame(h Header, payload string) {
	if !s.client {
		h = masked(h, 0x01020304)
	}
	s.peer.Write(frames(h, payload))
}

func (s *stage) play(e happening) {
	switch e {
	case evClose:
		s.wg.Go(func() { s.note(&s.closeErrs, s.c.Close(1000, "")) })
	case evCloseNow:
		s.c.CloseNow()
	case evCancel:
		s.cancelRead()
	case evWrite:
		s.wg.Go(func() { s.note(&s.writeErrs, s.c.Write(s.writing, Binary(seq(3000)))) })
	case evCutWrite:
		s.cancelWrite()
	case evGoodbye:
		s.frame(closed, closeFrame(4001, ""))
	case evBreak:
		s.frame(withRSV(text, 4), "")
	case evFIN:
		s.peer.CloseWrite()
	case evReset:
		s.peer.Reset()
	case evTime:
		pass(orderTime)
	}
}

// curtain checks what must hold when all is over, in whatever order it was.
func (s *stage) curtain(mode string) (verdict error) {
	t := s.t
	verdict = context.Cause(s.c.Context())
	if verdict == nil {
		t.Error("it is not over")
		return nil
	}
	_, err := s.c.Writer(bg, MessageText)
	_, _, rerr := s.c.Reader(bg)
	_, nerr := s.c.Next(bg)
	for i, err := range []error{err, rerr, nerr, s.c.Write(bg, Text("x")), s.c.Queue(Text("x")), s.c.Post(Text("x")), s.c.Ping(bg), s.c.Serve(bg, nil)} {
		if err != verdict {
			t.Errorf("later call %d: %v, not %v", i, err, verdict)
		}
	}
	if err := s.c.CloseNow(); err != nil {
		t.Error("CloseNow:", err)
	}
	if s.transport.closes != 1 {
		t.Errorf("the transport was closed %d times", s.transport.closes)
	}
	for _, err := range s.writeErrs {
		if err != verdict && !(s.writing.Err() != nil && errors.Is(err, context.Canceled)) {
			t.Errorf("Write: %v, not %v", err, verdict)
		}
	}
	if mode == "serve" {
		if len(s.handlerErrs) != 1 || s.serveReturns[0] != s.handlerErrs[0] {
			t.Errorf("Handler.Close: %v; Serve: %v", s.handlerErrs, s.serveReturns)
		}
	}
	for _, err := range slices.Concat(s.readErrs, s.serveReturns) {
		if err != verdict && err != context.Canceled {
			t.Errorf("reading: %v, not %v", err, verdict)
		}
	}
	return verdict
}

// closeCodes is what the peer finds: whole frames, and a close frame as the
// last, whose code it returns.
func (s *stage) closeFrame(whole bool) (code CloseCode) {
	b, err := io.ReadAll(s.peer)
	if err != nil {
		s.t.Error(err)
	}
	for len(b) > 0 {
		h, n := ParseHeader(b)
		if n <= 0 || n+int(h.Len) > len(b) {
			if whole {
				s.t.Errorf("half a frame: %x", b)
			}
			return code
		}
		p := b[n : n+int(h.Len)]
		Mask(p, h.Key)
		if code != 0 {
			s.t.Errorf("a frame behind the close frame: %v", h)
		}
		if h.Opcode == OpClose {
			code = CloseCode(uint16(p[0])<<8 | uint16(p[1]))
		}
		b = b[n+len(p):]
	}
	return code
}

// TestCloseOrders plays every order of up to three events, of four without the
// race detector, one after the other.
func TestCloseOrders(t *testing.T) {
	most := 3
	if !raceDetector && !testing.Short() {
		most = 4
	}
	for _, mode := range []string{"read", "serve", "none"} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " client=", client), func(t *testing.T) {
				orders(most, func(order []happening) {
					synctest.Test(t, func(t *testing.T) { playOrder(t, mode, client, order) })
				})
			})
		}
	}
}

// orders calls f with every sequence of 1 to most different events.
func orders(most int, f func([]happening)) {
	var next func([]happening)
	next = func(order []happening) {
		if len(order) > 0 {
			f(order)
		}
		if len(order) == most {
			return
		}
		for _, e := range []happening(allEvents) {
			if !slices.Contains(order, e) {
				next(append(order, e))
			}
		}
	}
	next(make([]happening, 0, most))
}

func playOrder(t *testing.T, mode string, client bool, order []happening) {
	defer func() {
		if t.Failed() {
			t.Logf("in the order %s", order)
		}
	}()
	s := newStage(t, mode, client)
	r := &course{mode: mode, reading: mode != "none"}
	synctest.Wait()
	for i, e := range order {
		s.play(e)
		r.happen(e)
		synctest.Wait()
		if over := context.Cause(s.c.Context()) != nil; over != (r.cut != "") {
			t.Errorf("after %s: over: %v; by the rules: %q, transport %q", order[:i+1], over, r.end, r.cut)
		}
	}
	if r.end == "" && len(r.input) > 0 && !r.blocked { // nobody has read it: now somebody does
		r.reading = true
		r.consume()
		_, err := s.c.Read(bg)
		r.end.check(t, err, "Read")
	}
	start := time.Now()
	if r.end == "" { // nothing has ended it
		r.happen(evCloseNow)
		s.c.CloseNow()
	} else if r.cut == "" {
		r.happen(evTime)
	}
	s.wg.Wait()
	<-s.c.Context().Done()
	// It never takes longer than CloseTimeout, or the last words and their lingering.
	if took := time.Since(start); took > max(orderConfig.CloseTimeout, lastWords+linger) {
		t.Errorf("it took %v", took)
	}
	if verdict := s.curtain(mode); verdict != nil {
		r.end.check(t, verdict, "the end")
	}
	for _, err := range append(s.closeErrs, s.c.Close(1000, "")) {
		r.closeReturns(t, err)
	}
	if !slices.Contains(order, evReset) {
		wrote := slices.Contains(order, evWrite)
		gone := r.cut == "EOF" // a close frame may leave before it is noticed
		if code := s.closeFrame(!wrote); code != r.sent && !wrote && !(gone && code == 0) {
			t.Errorf("the close frame has %d, not %d", code, r.sent)
		}
	}
}

// TestCloseAtOnce starts up to four events at the same time. Whichever comes
// first, the end is that of one of them, and every call returns the same.
func TestCloseAtOnce(t *testing.T) {
	most := 3
	if !raceDetector && !testing.Short() {
		most = 4
	}
	causes := map[happening][]end{
		evClose: {"closed"}, evCloseNow: {"cut"}, evCancel: {"going away"}, evCutWrite: {"write cut"},
		evGoodbye: {"peer's"}, evFIN: {"EOF"}, evReset: {"reset"}, evBreak: {"rule"},
	}
	for _, mode := range []string{"read", "serve", "none"} {
		for _, client := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " client=", client), func(t *testing.T) {
				orders(most, func(set []happening) {
					if !slices.IsSorted(set) || slices.Contains(set, evTime) {
						return
					}
					synctest.Test(t, func(t *testing.T) {
						defer func() {
							if t.Failed() {
								t.Logf("at once: %s", set)
							}
						}()
						s := newStage(t, mode, client)
						for _, e := range set {
							s.wg.Go(func() { s.play(e) })
						}
						pass(orderTime)
						s.c.CloseNow()
						s.wg.Wait()
						verdict := s.curtain(mode)
						var may []end
						for _, e := range set {
							may = append(may, causes[e]...)
						}
						if !slices.ContainsFunc(append(may, "cut", "silence", "write timeout"), func(e end) bool {
							var f failure
							e.check(&f, verdict, "")
							return !f.failed
						}) {
							t.Errorf("the end: %v, after %s", verdict, may)
						}
					})
				})
			})
		}
	}
}

// A failure only notes that a check failed.
type failure struct {
	testing.TB
	failed bool
}

func (f *failure) Helper()               {}
func (f *failure) Errorf(string, ...any) { f.failed = true }

// Two that close at the same time, each in its own way: both get their code and
// one call of Handler.Close (A72).
func TestCloseBothEnds(t *testing.T) {
	ways := map[string]func(*Conn) error{
		"Close":    func(c *Conn) error { return c.Close(4000, "") },
		"CloseNow": func(c *Conn) error { return c.CloseNow() },
	}
	for a, closeA := range ways {
		for b, closeB := range ways {
			for _, first := range []string{"", "server", "client"} {
				t.Run(strings.Join([]string{a, b, first}, " "), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s, c := pipe(quiet, quiet)
						var wg sync.WaitGroup
						got := make(chan error, 4)
						for _, conn := range []*Conn{s, c} {
							wg.Go(func() {
								conn.Serve(bg, &Handler{Close: func(_ *Conn, err error) { got <- err }})
							})
						}
						synctest.Wait()
						order := []func(){func() { closeA(s) }, func() { closeB(c) }}
						if first == "client" {
							slices.Reverse(order)
						}
						for _, f := range order {
							wg.Go(f)
							if first != "" {
								synctest.Wait()
							}
						}
						wg.Wait()
						require.Len(t, got, 2, "one call each")
						require.Zero(t, since(), "nobody waits for a timeout")
						if first == "" && a == "Close" && b == "Close" {
							require.Equal(t, CloseCode(4000), CodeOf(context.Cause(s.Context())))
							require.Equal(t, CloseCode(4000), CodeOf(context.Cause(c.Context())))
						}
					})
				})
			}
		}
	}
}
