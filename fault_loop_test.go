package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

var bg = context.Background()

// A scenario is a conversation in which the victim, whose transport has the
// faults, echoes what the other end says.
type scenario struct {
	name        string
	ways        string // in which it is gone through
	compression *websocket.Compression
	fragments   int  // in which messages are sent; 0: whole
	closes      bool // the victim does, after the last message
	messages    []string
}

var scenarios = []scenario{
	{name: "echo", ways: "Next Reader Serve Feed", messages: []string{"one", "", strings.Repeat("large", 3000)}},
	{name: "fragmented", ways: "Next Serve", fragments: 3, messages: []string{"fragmented", strings.Repeat("pieces", 500)}},
	{name: "closes", ways: "Next Reader Serve Feed", closes: true, messages: []string{"one"}},
	{name: "compressed", ways: "Next Feed", compression: &websocket.Compression{Takeover: true, Threshold: 1},
		messages: []string{"once more and once more", strings.Repeat("and once more ", 500)}},
	{name: "compressed fragments", ways: "Reader Serve", compression: &websocket.Compression{WindowBits: 9}, fragments: 2,
		messages: []string{strings.Repeat("all sizes ", 100)}},
}

// A way is how the victim reads and answers. It returns what ended the
// connection.
var ways = map[string]func(v *victim) error{
	"Next": func(v *victim) error {
		for {
			m, err := v.c.Next(bg)
			if err != nil {
				return err
			}
			v.answer(m, func(m websocket.Message) { v.c.Write(bg, m) })
		}
	},
	"Reader": func(v *victim) error {
		for {
			typ, r, err := v.c.Reader(bg)
			if err != nil {
				return err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			v.answer(websocket.Message{Type: typ, Data: b}, func(m websocket.Message) { v.c.Post(m) })
		}
	},
	"Serve": func(v *victim) error { return v.c.Serve(bg, v.handler()) },
	"Feed": func(v *victim) error {
		h := v.handler()
		err := v.c.Feed(nil, h)
		for p := make([]byte, 4096); err == nil; {
			n, _ := v.nc.Read(p)
			err = v.c.Feed(p[:n], h)
		}
		return err
	},
}

// A victim is the end with the faults.
type victim struct {
	scenario
	nc             net.Conn
	c              *websocket.Conn
	got            []string
	opened, closed int
	told           error // what Handler.Close was
}

func (v *victim) handler() *websocket.Handler {
	return &websocket.Handler{
		Open:    func(*websocket.Conn) { v.opened++ },
		Message: func(c *websocket.Conn, m websocket.Message) { v.answer(m, func(m websocket.Message) { c.Queue(m) }) },
		Close:   func(_ *websocket.Conn, err error) { v.closed++; v.told = err },
	}
}

func (v *victim) answer(m websocket.Message, send func(websocket.Message)) {
	v.got = append(v.got, string(m.Data))
	if v.fragments > 0 {
		sendFragments(v.c, m, v.fragments)
	} else {
		send(m)
	}
	if v.closes && len(v.got) == len(v.messages) {
		v.c.Close(4001, "over")
	}
}

func sendFragments(c *websocket.Conn, m websocket.Message, n int) error {
	w, err := c.Writer(bg, m.Type)
	if err != nil {
		return err
	}
	for i := range n {
		w.Write(m.Data[i*len(m.Data)/n : (i+1)*len(m.Data)/n])
	}
	return w.Close()
}

// talk is the other end's part.
func talk(c *websocket.Conn, s scenario) (got []string, err error) {
	for _, text := range s.messages {
		if s.fragments > 0 {
			err = sendFragments(c, websocket.Text(text), s.fragments)
		} else {
			err = c.Write(bg, websocket.Text(text))
		}
		if err != nil {
			return got, err
		}
		m, err := c.Read(bg)
		if err != nil {
			return got, err
		}
		got = append(got, string(m.Data))
	}
	if s.closes {
		_, err := c.Read(bg)
		return got, err
	}
	return got, c.Close(4000, "done")
}

// calls are those that fail, and how.
var calls = []struct {
	call  wstest.Call
	fault wstest.Fault
	name  string
	want  []error // what the victim may be told, besides the good end
}{
	{wstest.Read, wstest.Fault{}, "fails", []error{wstest.ErrFault}},
	{wstest.Read, wstest.Fault{Forever: true}, "fails for ever", []error{wstest.ErrFault}},
	{wstest.Read, wstest.Fault{Forever: true, Err: io.EOF}, "ends", []error{io.ErrUnexpectedEOF}},
	{wstest.Read, wstest.Fault{Do: wstest.HalfClose}, "half-closes", []error{io.ErrUnexpectedEOF}},
	{wstest.Read, wstest.Fault{Do: wstest.Reset}, "resets", []error{syscall.ECONNRESET}},
	{wstest.Read, wstest.Fault{Do: wstest.Stall}, "stalls", []error{websocket.ErrPeerTimeout, errStalled, syscall.EPIPE}},
	{wstest.Read, wstest.Fault{Do: wstest.Delay, Delay: 3 * time.Second}, "is late", nil},
	{wstest.Write, wstest.Fault{}, "fails", []error{wstest.ErrFault}},
	{wstest.Write, wstest.Fault{Bytes: 1}, "fails after a byte", []error{wstest.ErrFault}},
	{wstest.Write, wstest.Fault{Forever: true}, "fails for ever", []error{wstest.ErrFault}},
	{wstest.Write, wstest.Fault{Bytes: 3, Do: wstest.HalfClose}, "half-closes", []error{syscall.EPIPE}},
	{wstest.Write, wstest.Fault{Bytes: 2, Do: wstest.Reset}, "resets", []error{syscall.ECONNRESET}},
	{wstest.Write, wstest.Fault{Bytes: 1, Do: wstest.Stall}, "stalls", []error{os.ErrDeadlineExceeded}},
	{wstest.Write, wstest.Fault{Do: wstest.Delay, Delay: 3 * time.Second}, "is late", nil},
	{wstest.SetDeadline, wstest.Fault{}, "fails", nil},
	{wstest.SetReadDeadline, wstest.Fault{}, "fails", nil},
	{wstest.SetReadDeadline, wstest.Fault{Forever: true}, "fails for ever", nil},
	{wstest.SetReadDeadline, wstest.Fault{Do: wstest.Reset}, "resets", []error{syscall.ECONNRESET}},
	{wstest.SetWriteDeadline, wstest.Fault{}, "fails", nil},
	{wstest.SetWriteDeadline, wstest.Fault{Forever: true}, "fails for ever", nil},
	{wstest.SetWriteDeadline, wstest.Fault{Do: wstest.Reset}, "resets", []error{syscall.ECONNRESET}},
	{wstest.CloseWrite, wstest.Fault{}, "fails", nil},
	{wstest.Close, wstest.Fault{}, "fails", nil},
}

var (
	errStalled = &websocket.ProtocolError{Code: websocket.ClosePolicyViolation, Reason: "pause inside a message"}
	errNotOurs = errors.New("an error that says that this side closed")
)

// Every call of the transport fails once, the first, the second, and so on until
// there are no more (A80): nothing hangs, panics or is left behind, the
// application is told once and the right thing, and no message is changed.
func TestEveryCallFails(t *testing.T) {
	runs := 0
	for _, s := range scenarios {
		for _, way := range strings.Fields(s.ways) {
			for _, client := range []bool{false, true} {
				t.Run(fmt.Sprint(s.name, " ", way, " client=", client), func(t *testing.T) {
					for _, f := range calls {
						for n, fired := 1, 1; fired > 0; n++ {
							f.fault.Call, f.fault.N = f.call, n
							faults := &wstest.Faults{At: []wstest.Fault{f.fault}}
							name := fmt.Sprintf("call %d of %s %s", n, f.call, f.name)
							synctest.Test(t, func(t *testing.T) { failing(t, name, s, way, client, faults, f.want) })
							fired = faults.Fired()
							require.Less(t, n, 200, name)
							runs++
						}
					}
				})
			}
		}
	}
	t.Log(runs, "runs")
}

// failing runs a scenario once.
func failing(t *testing.T, name string, s scenario, way string, client bool, faults *wstest.Faults, want []error) {
	link := wstest.Link{
		Client: websocket.Config{Compression: s.compression},
		Server: websocket.Config{Compression: s.compression},
	}
	a, b := link.NetPipe()
	pa, pb := link.Params()
	if !client {
		pa, pb = pb, pa
	}
	v := &victim{scenario: s, nc: faults.Wrap(a)}
	v.c = websocket.NewConn(v.nc, pa)
	other := websocket.NewConn(b, pb)
	start := time.Now()

	var got []string
	var otherErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got, otherErr = talk(other, s); otherErr != nil {
			other.CloseNow()
		}
	}()
	err := ways[way](v)
	if way == "Feed" { // an event loop reads on until the connection closes the transport
		<-v.c.Context().Done()
	}
	require.Error(t, err, name)
	require.NotErrorIs(t, err, context.Canceled, name)
	<-done
	v.c.Close(4002, "a second time") // harmless
	<-v.c.Context().Done()
	<-other.Context().Done()

	// Told once, and everybody the same.
	require.Less(t, time.Since(start), 2*time.Minute, name)
	if way == "Serve" || way == "Feed" {
		require.Equal(t, 1, v.opened, name)
		require.Equal(t, 1, v.closed, name)
		require.Equal(t, err, v.told, name)
	}
	_, again := v.c.Next(bg)
	if way == "Feed" {
		require.Equal(t, err, v.c.Feed([]byte("too late"), v.handler()), name)
		require.Equal(t, 1, v.closed, name)
	}
	for _, e := range []error{again, context.Cause(v.c.Context()), v.c.Write(bg, websocket.Text("x")), v.c.Post(websocket.Text("x")), v.c.Ping(bg)} {
		require.Equal(t, err, e, name)
	}
	synctest.Wait()
	require.Equal(t, 1, faults.Calls(wstest.Close), "%s: the transport is closed", name)

	// No message is changed.
	require.Equal(t, s.messages[:len(v.got)], append([]string{}, v.got...), name)
	require.Equal(t, s.messages[:len(got)], append([]string{}, got...), name)

	// The right cause.
	good := error(&websocket.CloseError{Code: 4000, Reason: "done"})
	if s.closes {
		if good = err; !errors.Is(err, net.ErrClosed) || websocket.CodeOf(err) != 4001 {
			good = errNotOurs
		}
	}
	if faults.Fired() == 0 || want == nil {
		require.Equal(t, good, err, name)
		require.Len(t, got, len(s.messages), name)
		return
	}
	if way == "Feed" {
		want = append(want, io.ErrUnexpectedEOF) // it is told no more
	}
	for _, w := range append(want, good) {
		var p *websocket.ProtocolError
		if errors.Is(err, w) || w == good && err.Error() == good.Error() || errors.As(err, &p) && p.Error() == w.Error() {
			return
		}
	}
	require.Fail(t, "wrong cause", "%s: %v, other %v", name, err, otherErr)
}

// The same while many goroutines write, post, stream and ping: all of them return,
// with the error that ended the connection.
func TestEveryCallFailsUnderLoad(t *testing.T) {
	const each = 3
	jobs := []func(c *websocket.Conn) error{
		func(c *websocket.Conn) error { return c.Write(bg, websocket.Text("written")) },
		func(c *websocket.Conn) error { return c.Write(bg, websocket.Binary(make([]byte, 3000))) },
		func(c *websocket.Conn) error { return c.Post(websocket.Text("posted")) },
		func(c *websocket.Conn) error {
			if err := c.Queue(websocket.Text("queued")); err != nil {
				return err
			}
			return c.Flush(bg)
		},
		func(c *websocket.Conn) error { return sendFragments(c, websocket.Text("streamed"), 3) },
		func(c *websocket.Conn) error { return c.Ping(bg) },
	}
	for _, client := range []bool{false, true} {
		for _, f := range calls {
			for n, fired := 1, 1; fired > 0; n++ {
				f.fault.Call, f.fault.N = f.call, n
				name := fmt.Sprintf("client=%v call %d of %s %s", client, n, f.call, f.name)
				synctest.Test(t, func(t *testing.T) {
					faults := &wstest.Faults{At: []wstest.Fault{f.fault}}
					link := wstest.Link{Buffer: 2000}
					if client {
						link.ClientFaults = faults
					} else {
						link.ServerFaults = faults
					}
					c, other := link.Pipe()
					if !client {
						c, other = other, c
					}
					start := time.Now()
					ends := make(chan error, 2)
					go func() { ends <- c.Serve(bg, nil) }()
					go func() { ends <- other.Serve(bg, nil) }()
					errs := make(chan error)
					for _, job := range jobs {
						go func() {
							var err error
							for range each {
								if err = job(c); err != nil {
									break
								}
							}
							errs <- err
						}()
					}
					var failed []error
					for range jobs {
						if err := <-errs; err != nil {
							failed = append(failed, err)
						}
					}
					other.Close(4000, "done")
					<-ends
					<-ends
					<-c.Context().Done()
					for _, err := range failed {
						require.Equal(t, context.Cause(c.Context()), err, name)
					}
					require.Less(t, time.Since(start), 2*time.Minute, name)
					require.Equal(t, 1, faults.Calls(wstest.Close), name)
					fired = faults.Fired()
				})
				require.Less(t, n, 200, name)
			}
		}
	}
}

// The same for the handshake, from either side, with an http.Server and Dial
// (A22): the handler is called at most once, and never if the client cannot have
// got the answer; and for the shutdown of a Server, which ends in time. What is
// left of a connection, net/http's part included, is closed.
func TestEveryCallOfAHandshakeFails(t *testing.T) {
	log.SetOutput(io.Discard) // http.Transport logs what it did not ask for
	defer log.SetOutput(os.Stderr)
	for _, accept := range []string{"Server", "Accept"} {
		for _, victim := range []string{"client", "server"} {
			for _, end := range []string{"Close", "Shutdown"} {
				t.Run(accept+" "+victim+" "+end, func(t *testing.T) {
					for _, f := range calls {
						for n, fired := 1, 1; fired > 0; n++ {
							f.fault.Call, f.fault.N = f.call, n
							faults := &wstest.Faults{At: []wstest.Fault{f.fault}}
							name := fmt.Sprintf("call %d of %s %s", n, f.call, f.name)
							synctest.Test(t, func(t *testing.T) { failingHandshake(t, name, accept, victim, end, faults) })
							fired = faults.Fired()
							require.Less(t, n, 200, name)
						}
					}
				})
			}
		}
	}
}

func failingHandshake(t *testing.T, name, accept, victim, end string, faults *wstest.Faults) {
	var serverEnd wstest.Faults // for its counts
	network := &wstest.Network{Wrap: func(client, server net.Conn) (net.Conn, net.Conn) {
		if victim == "client" {
			return faults.Wrap(client), serverEnd.Wrap(server)
		}
		return client, faults.Wrap(server)
	}}
	var handled, closed atomic.Int32
	ws := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		handled.Add(1)
		c.Serve(ctx, &websocket.Handler{
			Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) },
			Close:   func(*websocket.Conn, error) { closed.Add(1) },
		})
	}}
	var h http.Handler = ws
	if accept == "Accept" {
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := websocket.Accept(w, r, nil); err == nil {
				ws.Handler(bg, c)
			}
		})
	}
	stop := network.Serve("example.com:80", h)
	start := time.Now()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	c, err := websocket.Dial(ctx, "ws://example.com", &websocket.DialOptions{Client: network.Client()})
	if err == nil {
		if err = c.Write(bg, websocket.Text("hello")); err == nil {
			var m websocket.Message
			if m, err = c.Read(bg); err == nil {
				require.Equal(t, "hello", string(m.Data), name)
			}
		}
	}
	switch {
	case c == nil:
	case end == "Shutdown" && accept == "Server":
		go c.Serve(bg, nil)
		require.NoError(t, ws.Shutdown(bg), name)
		<-c.Context().Done()
	default:
		c.Close(websocket.CloseNormalClosure, "")
		<-c.Context().Done()
	}
	if faults.Fired() == 0 {
		require.NoError(t, err, name)
	}
	require.Less(t, time.Since(start), 2*time.Minute, name)
	synctest.Wait() // the connection may not have been accepted yet
	stop()
	synctest.Wait()
	<-time.After(time.Minute) // what waits for a timeout
	synctest.Wait()
	require.Equal(t, handled.Load(), closed.Load(), name)
	require.LessOrEqual(t, handled.Load(), int32(1), name)
	for range ws.Conns() {
		require.Fail(t, "a connection is left", name)
	}
	require.Positive(t, faults.Calls(wstest.Close), name)
	if victim == "client" {
		require.Positive(t, serverEnd.Calls(wstest.Close), name)
	}
}
