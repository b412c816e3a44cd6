package reconnect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// client.go owns the life of a client: dial, serve, wait, again.

// A Client stays connected. URLs are all it needs; the fields must not be changed
// once it is used. Run is for one goroutine at a time, the other methods are for
// any.
type Client struct {
	// URLs are the servers, at least one: see [websocket.Dial].
	URLs []string
	// Options are what connections are made with. Its Client.Timeout is how long
	// an attempt may take; 0: 10 s.
	Options websocket.DialOptions
	// Header, if it is not nil, is called before every attempt, and what it
	// returns replaces fields of Options.Header: it is where fresh tokens come
	// from. An error is that of the attempt.
	Header func(ctx context.Context) (http.Header, error)
	// Backoff says how long to wait after a failure; nil: Exponential{}.
	Backoff Backoff
	// Good is how long a connection must live for the failures before it to be
	// forgotten. 0: 10 s; negative: no time at all.
	Good time.Duration
	// StopCodes are close codes besides 1008 with which a server ends Run, for
	// example from the application's own, 4000 to 4999.
	StopCodes []websocket.CloseCode
	// Subscribe, if it is not nil, is called with every new connection before
	// anything else happens on it: to log in, to subscribe again. It may read and
	// write, and must return when ctx ends. An error is that of the connection.
	Subscribe func(ctx context.Context, c *websocket.Conn) error
	// OnState, if it is not nil, is called with every change. The goroutine that
	// called Run calls it, and goes on when it returns.
	OnState func(State)
	// OutboxLimit is how many bytes Send keeps, where each message counts for 64
	// besides its data; an empty outbox takes one message of any size. 0: 16 MiB;
	// negative: no limit.
	OutboxLimit int
	// Block makes Send wait for room in the outbox.
	Block bool

	outbox outbox

	mu     sync.Mutex
	cancel context.CancelCauseFunc // of the Run that is under way
	nudge  chan struct{}           // holds one Nudge at most
}

// A Phase is what a Client is doing.
type Phase int

// The phases of a Client.
const (
	Connecting Phase = iota // an attempt is under way
	Open                    // the session runs, Subscribe has succeeded
	Waiting                 // for the time of the next attempt
	Ended                   // Run is about to return
)

var phaseNames = [...]string{"connecting", "open", "waiting", "ended"}

func (p Phase) String() string {
	if p < 0 || int(p) >= len(phaseNames) {
		return fmt.Sprintf("Phase(%d)", int(p))
	}
	return phaseNames[p]
}

// A State is what a Client has come to.
type State struct {
	Phase    Phase
	URL      string    // of the attempt that is under way, was made last, or is next when waiting
	Failures int       // in a row, so far
	Until    time.Time // Waiting: when the next attempt is due
	Err      error     // Waiting: what ended the attempt or connection; Ended: what Run returns
}

// stopError is what Stop makes.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func (e *stopError) Unwrap() error { return e.err }

// Stop returns an error that ends Run when a session, Subscribe or Header returns
// it. Run then returns err itself. Of nil it makes nil.
func Stop(err error) error {
	if err == nil {
		return nil
	}
	return &stopError{err}
}

var errRunning = errors.New("reconnect: Run is called while it runs")

// Run connects, calls session with each new connection, one at a time, and
// connects again when it has ended, until one of the reasons in the package
// comment ends it, which it returns; that is nil if session returned nil.
//
// Session reads the connection, and returns when it or ctx has ended; ctx is
// Run's, and ends with the connection too. When session returns, the connection
// is closed: with CloseNormalClosure after what is in the outbox, if it returned
// nil, else with CloseGoingAway. A nil session discards what comes.
func (c *Client) Run(ctx context.Context, session func(ctx context.Context, conn *websocket.Conn) error) error {
	if err := c.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if !c.start(cancel) {
		return errRunning
	}
	defer c.start(nil)
	c.forget()
	if session == nil {
		session = discard
	}
	r := &run{Client: c, session: session, notBefore: make([]time.Time, len(c.URLs))}
	err := r.loop(ctx)
	r.tell(State{Phase: Ended, URL: r.url(), Failures: r.failures, Err: err})
	return err
}

func discard(ctx context.Context, c *websocket.Conn) error { return c.Serve(ctx, nil) }

// check finds what no attempt could mend.
func (c *Client) check() error {
	if len(c.URLs) == 0 {
		return errors.New("reconnect: Client without URLs")
	}
	for i, s := range c.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme) {
			return fmt.Errorf("reconnect: Client.URLs[%d] is no WebSocket URL", i) // it may have a password in it
		}
	}
	return nil
}

// start notes how to end the Run that begins, or, with nil, that it has ended.
func (c *Client) start(cancel context.CancelCauseFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel != nil && c.cancel != nil {
		return false
	}
	c.cancel = cancel
	return true
}

// overrun ends Run because the outbox is full.
func (c *Client) overrun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel != nil {
		c.cancel(ErrOutboxFull)
	}
}

// Nudge says that the network has changed, or that somebody is impatient: the
// wait that Backoff has asked for is over, and if an attempt is under way and
// fails, the next follows at once. Waits that a server has asked for go on, and
// an open connection is left alone: if it is dead, Config.KeepAlive finds out.
func (c *Client) Nudge() {
	select {
	case c.nudged() <- struct{}{}:
	default:
	}
}

func (c *Client) nudged() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nudge == nil {
		c.nudge = make(chan struct{}, 1)
	}
	return c.nudge
}

// forget takes back a Nudge.
func (c *Client) forget() {
	select {
	case <-c.nudged():
	default:
	}
}

// A run is one call of Run.
type run struct {
	*Client
	session   func(context.Context, *websocket.Conn) error
	at        int         // the URL whose turn it is
	notBefore []time.Time // what each server asked for
	failures  int         // in a row
}

func (r *run) url() string { return r.URLs[r.at] }

func (r *run) tell(s State) {
	if r.OnState != nil {
		r.OnState(s)
	}
}

func (r *run) loop(ctx context.Context) error {
	for {
		err := r.connect(ctx)
		var stop *stopError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &stop):
			return stop.err
		case r.final(err):
			return err
		}
		if err := r.wait(ctx, err); err != nil {
			return err
		}
	}
}

// connect makes one attempt, and serves the connection if there is one. It
// returns what ended it.
func (r *run) connect(ctx context.Context) error {
	r.tell(State{Phase: Connecting, URL: r.url(), Failures: r.failures})
	c, err := r.dial(ctx)
	if err != nil {
		r.failed(err, false)
		return err
	}
	began := time.Now()
	err = r.serve(ctx, c)
	r.forget() // it was for this connection, or for the attempt that led to it
	if err != nil {
		r.failed(err, time.Since(began) >= r.good())
	}
	return err
}

func (r *run) good() time.Duration {
	if r.Good == 0 {
		return 10 * time.Second
	}
	return r.Good
}

func (r *run) dial(ctx context.Context) (*websocket.Conn, error) {
	o := r.Options
	if r.Header != nil {
		fresh, err := r.Header(ctx)
		if err != nil {
			return nil, err
		}
		o.Header = make(http.Header)
		for _, h := range []http.Header{r.Options.Header, fresh} {
			for name, values := range h {
				o.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, ok := ctx.Deadline(); ok && (o.Client == nil || o.Client.Timeout == 0) { // Dial would let that be the attempt's
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
	}
	return websocket.Dial(ctx, r.url(), &o)
}

const attemptTimeout = 10 * time.Second

// serve runs the session. It returns nil if the session did, else why the
// connection or the session ended.
func (r *run) serve(ctx context.Context, c *websocket.Conn) error {
	defer c.CloseNow() // if something panics
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.Context(), func() { cancel(context.Cause(c.Context())) })
	defer stop()
	if r.Subscribe != nil {
		if err := r.Subscribe(ctx, c); err != nil {
			c.Close(websocket.CloseGoingAway, "")
			return why(c, err)
		}
	}
	r.tell(State{Phase: Open, URL: r.url(), Failures: r.failures})
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		r.outbox.deliver(c, done)
	}()
	err := r.session(ctx, c)
	if err == nil && context.Cause(ctx) == ErrOutboxFull {
		err = ErrOutboxFull
	}
	code := websocket.CloseGoingAway
	if err == nil {
		code = websocket.CloseNormalClosure
		close(done)
		select {
		case <-gone:
		case <-ctx.Done():
		}
	} else {
		err = why(c, err)
	}
	c.Close(code, "")
	<-gone
	return err
}

// why prefers what ended the connection to what the session made of it, unless
// that is to stop.
func why(c *websocket.Conn, err error) error {
	var stop *stopError
	if errors.As(err, &stop) {
		return err
	}
	if c.Context().Err() != nil {
		return context.Cause(c.Context())
	}
	return err
}

// final tells whether the server does not want this client back.
func (r *run) final(err error) bool {
	var refusal *websocket.HandshakeError
	var goodbye *websocket.CloseError
	switch {
	case errors.As(err, &refusal):
		switch refusal.Status {
		case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
			return false
		}
		return refusal.Status >= 400 && refusal.Status <= 499
	case errors.As(err, &goodbye):
		return goodbye.Code == websocket.ClosePolicyViolation || slices.Contains(r.StopCodes, goodbye.Code)
	}
	return false
}

// failed counts a failure and chooses the URL of the next attempt: the same
// after a good connection, else the next one; servers that want to be left alone
// are passed over, if there are others.
func (r *run) failed(err error, good bool) {
	now := time.Now()
	r.notBefore[r.at] = now.Add(asked(err, now))
	r.failures++
	if good {
		r.failures = 1
	} else {
		r.at = (r.at + 1) % len(r.URLs)
	}
	for i, first := 1, r.at; i < len(r.URLs) && r.notBefore[r.at].After(now); i++ {
		if at := (first + i) % len(r.URLs); r.notBefore[at].Before(r.notBefore[r.at]) {
			r.at = at
		}
	}
}

// wait waits for the time of the next attempt.
func (r *run) wait(ctx context.Context, why error) error {
	var policy Backoff = Exponential{}
	if r.Backoff != nil {
		policy = r.Backoff
	}
	now := time.Now()
	until := now.Add(max(policy.Wait(r.failures), 0))
	if asked := r.notBefore[r.at]; asked.After(until) {
		until = asked
	}
	r.tell(State{Phase: Waiting, URL: r.url(), Failures: r.failures, Until: until, Err: why})
	nudged := r.nudged()
	for {
		t := time.NewTimer(time.Until(until))
		select {
		case <-t.C:
			return nil
		case <-nudged:
			until = r.notBefore[r.at]
			nudged = nil
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		t.Stop()
	}
}
