package autobahn

// The fuzzing server: clients come and ask for cases by path (catalogue 1.2).

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Server tests the clients that connect to it.
type Server struct {
	cfg    Config
	cases  []*Case
	report *Report
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	ln       net.Listener
	port     string
	changed  chan struct{}         // closed and made anew with every result
	pending  map[string][]*heldRun // cases of an agent that end well only if it connects again
	keys     map[string][]string   // Sec-WebSocket-Keys of an agent's handshakes
	running  map[string]int        // cases of an agent under way
	done     int
	ended    chan struct{}
	writeErr error
	updated  chan string
	conns    sync.WaitGroup
}

// A heldRun waits for its agent to come again.
type heldRun struct {
	run    *run
	agent  string
	number int
}

// NewServer makes a fuzzing server for the cases that cfg selects.
func NewServer(cfg Config) (*Server, error) {
	cases, err := selectCases(&cfg, false)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, cases: cases, report: NewReport(), changed: make(chan struct{}), ended: make(chan struct{}),
		running: map[string]int{}, pending: map[string][]*heldRun{}, keys: map[string][]string{}, updated: make(chan string, 16),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Cases are those that clients will be asked to run.
func (s *Server) Cases() []*Case { return s.cases }

// Report holds what is known so far.
func (s *Server) Report() *Report { return s.report }

// Updated receives an agent's name each time one asked for reports; that is when it is through.
func (s *Server) Updated() <-chan string { return s.updated }

// Serve accepts connections until Close, or until a client asks for /stopServer. For wss, wrap l with tls.NewListener.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.ln = l
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	s.mu.Unlock()
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				err = nil
			}
			s.conns.Wait()
			close(s.ended)
			return err
		}
		s.conns.Go(func() { s.handle(c) })
	}
}

// Close ends Serve and every connection.
func (s *Server) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return nil
	}
	return s.ln.Close()
}

// Done is closed when Serve has returned.
func (s *Server) Done() <-chan struct{} { return s.ended }

func (s *Server) handle(c net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(s.cfg.openTimeout()))
	h, rest, err := readHead(c)
	if err != nil {
		c.Close()
		return
	}
	u, err := s.accept(h)
	if err != nil {
		refuse(c, err)
		return
	}
	if u == nil {
		page(c)
		return
	}
	if err := s.route(c, h, rest, u); err != nil {
		refuse(c, err)
	}
}

// accept checks a request; a nil URL is somebody with a browser.
func (s *Server) accept(h *head) (*url.URL, error) {
	words := strings.Split(h.first, " ")
	if len(words) != 3 {
		return nil, &httpError{400, "malformed request line"}
	}
	u, err := url.ParseRequestURI(words[1])
	if err != nil {
		return nil, &httpError{400, "malformed request target"}
	}
	if words[0] == "GET" && len(h.values("Upgrade")) == 0 {
		return nil, nil
	}
	if err := checkRequest(h); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(h.get("Host"))
	if err == nil && port != s.port {
		return nil, &httpError{400, "Host names another port"}
	}
	return u, nil
}

func refuse(c net.Conn, err error) {
	e := &httpError{500, err.Error()}
	errors.As(err, &e)
	fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		e.status, http.StatusText(e.status), len(e.reason), e.reason)
	c.Close()
}

func page(c net.Conn) {
	body := "<!DOCTYPE html><title>wsspec</title><p>This is a fuzzing server for WebSocket clients. " +
		"They begin with /getCaseCount, go on with /runCase?case=N&amp;agent=NAME and end with /updateReports?agent=NAME.</p>\n"
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	c.Close()
}

// route answers one path. An error fails the opening handshake with its status, else with 500.
func (s *Server) route(c net.Conn, h *head, rest []byte, u *url.URL) error {
	q := u.Query()
	agent := q.Get("agent")
	s.arrived(agent)
	switch u.Path {
	case "/getCaseCount":
		return s.tell(c, h, rest, strconv.Itoa(len(s.cases)))
	case "/getCaseInfo":
		_, cs, err := s.caseOf(q)
		if err != nil {
			return err
		}
		b, _ := json.Marshal(map[string]string{"id": cs.ID, "description": cs.Description})
		return s.tell(c, h, rest, string(b))
	case "/getCaseStatus":
		return s.status(c, h, rest, q, agent)
	case "/runCase":
		return s.runCase(c, h, rest, q, agent)
	case "/updateReports":
		return s.update(c, h, rest, q, agent)
	case "/stopServer":
		defer s.Close()
		return s.tell(c, h, rest, "")
	}
	return s.converse(c, h, rest, commandCase, nil)
}

var errNoAgent = errors.New("no agent was named")

// caseOf finds the case that a query names.
func (s *Server) caseOf(q url.Values) (number int, c *Case, err error) {
	if id := q.Get("casetuple"); id != "" {
		for i, c := range s.cases {
			if c.ID == id {
				return i + 1, c, nil
			}
		}
		return 0, nil, fmt.Errorf("no case %q", id)
	}
	n, err := strconv.Atoi(q.Get("case"))
	if err != nil || n < 1 || n > len(s.cases) {
		return 0, nil, fmt.Errorf("no case %q", q.Get("case"))
	}
	return n, s.cases[n-1], nil
}

// tell completes the handshake, sends a text unless it is empty, and closes.
func (s *Server) tell(c net.Conn, h *head, rest []byte, answer string) error {
	return s.converse(c, h, rest, &Case{play: func(r *run) {
		if answer != "" {
			r.send(one, text(answer))
		}
		r.close(0, "")
	}}, nil)
}

// converse plays what is no case of the catalogue. It waits for ready, if that is not nil, when the handshake is done.
func (s *Server) converse(c net.Conn, h *head, rest []byte, cs *Case, ready func() bool) error {
	r := newRun(cs, &s.cfg, false)
	r.log.on = false
	if _, err := c.Write(newResponse(h, "").bytes()); err != nil {
		c.Close()
		return nil
	}
	c.SetDeadline(time.Time{})
	if ready != nil && !ready() {
		c.Close()
		return nil
	}
	r.converse(s.ctx, c, rest)
	return nil
}

// status waits for a result and tells it.
func (s *Server) status(c net.Conn, h *head, rest []byte, q url.Values, agent string) error {
	_, cs, err := s.caseOf(q)
	if err != nil {
		return err
	}
	if agent == "" {
		return errNoAgent
	}
	var res *Result
	ready := func() bool {
		return s.wait(func() bool {
			res = s.report.Result(agent, cs.ID)
			return res != nil
		})
	}
	return s.converse(c, h, rest, &Case{play: func(r *run) {
		b, _ := json.Marshal(map[string]Verdict{"behavior": res.Behavior})
		r.send(one, text(string(b)))
		r.close(0, "")
	}}, ready)
}

// wait returns when there is what it waits for; false if the server ends before.
func (s *Server) wait(there func() bool) bool {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if there() {
			return true
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return false
		}
	}
}

// update writes reports for all agents so far.
func (s *Server) update(c net.Conn, h *head, rest []byte, q url.Values, agent string) error {
	if agent == "" {
		return errNoAgent
	}
	err := s.converse(c, h, rest, &Case{play: func(r *run) { r.close(0, "") }}, func() bool {
		idle := s.wait(func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.running[agent] == 0
		})
		if idle && s.cfg.Dir != "" {
			s.failedWrite(s.report.WriteDir(s.cfg.Dir))
		}
		return idle
	})
	select {
	case s.updated <- agent:
	default: // nobody is interested
	}
	if last := q.Get("shutdownOnComplete"); last == "true" || last == "yes" {
		s.Close()
	}
	return err
}

// failedWrite remembers that reports could not be written.
func (s *Server) failedWrite(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeErr = err
}

// Err tells why the last reports could not be written, if so.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeErr
}

// runs counts an agent's cases up and down.
func (s *Server) runs(agent string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[agent] += n
	s.signal()
}

// signal wakes those who wait; s.mu is held.
func (s *Server) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// runCase plays a case with the client and keeps the result.
func (s *Server) runCase(c net.Conn, h *head, rest []byte, q url.Values, agent string) error {
	number, cs, err := s.caseOf(q)
	if err != nil {
		return err
	}
	if agent == "" {
		return errNoAgent
	}
	if excludedFor(&s.cfg, agent, cs) {
		return s.tell(c, h, rest, "")
	}
	s.runs(agent, 1)
	defer s.runs(agent, -1)
	r := newRun(cs, &s.cfg, false)
	r.request, r.preIn = h, len(h.raw)
	r.earlier = s.note(agent, h.get("Sec-WebSocket-Key"))
	ok, err := s.shake(r, c, h)
	if ok {
		c.SetDeadline(time.Time{})
		r.converse(s.ctx, c, rest)
	} else if err == nil {
		newWire(c).drop(false)
	}
	if err != nil {
		r.notOpen = err.Error()
	}
	r.judge()
	s.keep(r, agent, number)
	return err
}

// note remembers the keys that an agent used, and returns those from before.
func (s *Server) note(agent, key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.keys[agent]
	s.keys[agent] = append(before[:len(before):len(before)], key)
	return before
}

// keep stores a result, or holds it until the agent comes again.
func (s *Server) keep(r *run, agent string, number int) {
	if r.again && r.verdict != Failed && s.ctx.Err() == nil {
		s.mu.Lock()
		s.pending[agent] = append(s.pending[agent], &heldRun{r, agent, number})
		s.mu.Unlock()
		return
	}
	s.store(r.result(agent, number))
}

func (s *Server) store(res *Result) {
	s.report.add(res)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal()
	s.done++
	if s.cfg.Progress != nil {
		s.cfg.Progress(Progress{s.done, len(s.cases), res})
	}
}

// arrived stores what waited for the agent to connect once more.
func (s *Server) arrived(agent string) {
	s.mu.Lock()
	held := s.pending[agent]
	delete(s.pending, agent)
	s.mu.Unlock()
	for _, h := range held {
		s.store(h.run.result(h.agent, h.number))
	}
}

// shake answers the opening handshake as the case wants it; ok means that the conversation may begin.
func (s *Server) shake(r *run, c net.Conn, req *head) (ok bool, err error) {
	var extensions string
	if r.respond != nil {
		if extensions, err = r.respond(r, req); err != nil {
			return false, err
		}
		r.use(r.terms)
	}
	res := newResponse(req, extensions)
	hs := r.handshake
	if hs == nil {
		hs = &handshakeCase{}
	}
	if hs.response != nil {
		hs.response(r, req, res)
	}
	r.response = res
	if hs.answer != nil && !hs.answer(r, req, res, nil) {
		return false, nil
	}
	if hs.special != nil {
		hs.special(r, c)
		return false, nil
	}
	b := res.bytes()
	for _, f := range hs.early {
		b = r.encode(b, f)
	}
	r.preOut = len(b)
	if err := writePieces(c, b, hs.mode); err != nil {
		r.notOpen = err.Error()
		return false, nil
	}
	return true, nil
}
