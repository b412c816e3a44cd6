package autobahn

// The fuzzing client: it tests a server that echoes (catalogue 1.1).

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// RunServer runs the selected cases against the echo server at cfg.URL. If the server refuses a TCP connection, the
// rest is skipped: the report then holds what was done, and the error says so.
func RunServer(ctx context.Context, cfg Config) (*Report, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("autobahn: %w", err)
	}
	if u.Scheme != "ws" && u.Scheme != "wss" {
		return nil, fmt.Errorf("autobahn: %q is not a ws or wss URL", cfg.URL)
	}
	cases, err := selectCases(&cfg, true)
	if err != nil {
		return nil, err
	}
	f := &fuzzingClient{cfg: &cfg, url: u, total: len(cases), report: NewReport(), agent: cfg.Agent}
	return f.report, f.all(ctx, cases)
}

type fuzzingClient struct {
	cfg    *Config
	url    *url.URL
	total  int
	report *Report

	mu    sync.Mutex
	agent string
	done  int
	held  []*run // ended before the server's name was known
}

// all hands the cases, in order, to as many workers as cfg says.
func (f *fuzzingClient) all(ctx context.Context, cases []*Case) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *Case)
	var workers sync.WaitGroup
	for range max(f.cfg.Parallel, 1) {
		workers.Go(func() {
			for c := range queue {
				if err := f.run(ctx, c); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, c := range cases {
		select {
		case queue <- c:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(queue)
	workers.Wait()
	f.flush()
	return context.Cause(ctx)
}

// run plays one case; the error means that no more can be.
func (f *fuzzingClient) run(ctx context.Context, c *Case) error {
	if ctx.Err() != nil {
		return nil
	}
	r := newRun(c, f.cfg, true)
	if err := f.connect(ctx, r); err != nil {
		return err
	}
	r.judge()
	if c.again && r.verdict != Failed && ctx.Err() == nil {
		f.onceMore(ctx, r)
	}
	if ctx.Err() == nil {
		f.keep(r)
	}
	return nil
}

// onceMore checks that the server survived: a new connection must echo.
func (f *fuzzingClient) onceMore(ctx context.Context, r *run) {
	next := newRun(echoCase, f.cfg, true)
	if err := f.connect(ctx, next); err != nil {
		r.set(Failed, "the server refuses the next connection: "+err.Error())
		return
	}
	next.judge()
	if next.verdict != OK {
		r.set(Failed, "the next connection does not work: "+next.why)
	}
}

// echoCase is the plainest conversation; it belongs to other cases.
var echoCase = &Case{ID: "echo", play: sends(one, kill(5), text(hello)), outcomes: []outcome{exactly(closeNormal, gotText(hello))}}

// connect goes through the opening handshake and the conversation. Only a refused TCP connection is an error.
func (f *fuzzingClient) connect(ctx context.Context, r *run) error {
	if r.prepare != nil {
		if err := r.prepare(r, f.dial); err != nil {
			r.notOpen = err.Error()
			return nil
		}
	}
	conn, err := f.dial(ctx, r.patient(f.cfg.openTimeout()))
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("autobahn: case %s: %w", r.ID, err)
		}
		r.notOpen = err.Error()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	rest, ok := f.shake(r, conn)
	stop()
	if !ok {
		newWire(conn).drop(true)
		return nil
	}
	r.converse(ctx, conn, rest)
	return nil
}

func (f *fuzzingClient) dial(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var conn net.Conn
	var err error
	if f.cfg.Dial != nil {
		conn, err = f.cfg.Dial("tcp", hostPort(f.url))
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", hostPort(f.url))
	}
	if err != nil || f.url.Scheme != "wss" {
		return conn, err
	}
	tc := &tls.Config{}
	if f.cfg.TLS != nil {
		tc = f.cfg.TLS.Clone()
	}
	if tc.ServerName == "" {
		tc.ServerName = f.url.Hostname()
	}
	secure := tls.Client(conn, tc)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// shake sends the request and judges the answer; ok means that the conversation may begin.
func (f *fuzzingClient) shake(r *run, conn net.Conn) (rest []byte, ok bool) {
	conn.SetDeadline(time.Now().Add(r.patient(f.cfg.openTimeout())))
	defer conn.SetDeadline(time.Time{})
	offer := ""
	if len(r.offer) > 0 {
		offer = r.offer[0]
	}
	req := newRequest(f.url, f.cfg, offer)
	for _, o := range r.offer[min(1, len(r.offer)):] {
		req.add("Sec-WebSocket-Extensions", o)
	}
	for _, h := range f.cfg.Headers {
		req.add(h[0], h[1])
	}
	hs := r.handshake
	if hs == nil {
		hs = &handshakeCase{}
	}
	if hs.request != nil {
		hs.request(req)
	}
	r.request = req
	b := req.bytes()
	for _, early := range hs.early {
		b = r.encode(b, early)
	}
	r.preOut = len(b)
	err := writePieces(conn, b, hs.mode)
	var res *head
	if err == nil {
		res, rest, err = readHead(conn)
	}
	r.response = res
	if res != nil {
		r.preIn = len(res.raw)
		f.meet(res.get("Server"))
	}
	return rest, r.answered(req, res, err)
}

// answered judges the response; a case may do that in its own way.
func (r *run) answered(req, res *head, err error) bool {
	if hs := r.handshake; hs != nil && hs.answer != nil {
		r.opened = true // what becomes of it is the case's to say
		return hs.answer(r, req, res, err)
	}
	if err == nil {
		err = checkResponse(req, res)
	}
	if err == nil {
		err = r.agree(res)
	}
	if err != nil {
		var ne net.Error
		r.openTimeout = errors.As(err, &ne) && ne.Timeout()
		r.notOpen = err.Error()
		return false
	}
	return true
}

// agree reads the extensions of the response. Anything but what sections 12 and 13 ask for is refused.
func (r *run) agree(res *head) error {
	header := strings.Join(res.values("Sec-WebSocket-Extensions"), ", ")
	if header == "" {
		return nil
	}
	if len(r.offer) == 0 {
		return fmt.Errorf("extension %q was not asked for", header)
	}
	t, err := agreedTerms(header)
	if err != nil {
		return err
	}
	r.use(t)
	return nil
}

// use begins to compress and decompress.
func (r *run) use(t *terms) {
	if r.terms = t; t != nil {
		r.codec, r.inflater = t.codec(r.client)
		r.inflater.strict = r.strict
	}
}

func writePieces(conn net.Conn, b []byte, m mode) error {
	n := len(b)
	if m > one {
		n = int(m)
	}
	for len(b) > 0 {
		n = min(n, len(b))
		if _, err := conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// meet learns the server's name from its first answer.
func (f *fuzzingClient) meet(server string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.agent == "" && server != "" {
		f.agent = server
	}
}

// keep notes a result. Until the agent has a name, results are held.
func (f *fuzzingClient) keep(r *run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done++
	f.held = append(f.held, r)
	if f.agent != "" {
		f.store()
	}
	if f.cfg.Progress != nil {
		f.cfg.Progress(Progress{f.done, f.total, r.result(f.agent, r.Index)})
	}
}

func (f *fuzzingClient) store() {
	for _, r := range f.held {
		f.report.add(r.result(f.agent, r.Index))
	}
	f.held = nil
}

func (f *fuzzingClient) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.agent == "" {
		f.agent = "UnknownServer"
	}
	f.store()
}
