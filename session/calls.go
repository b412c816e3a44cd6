package session

import (
	"context"
	"errors"
	"time"
)

// calls.go owns questions and answers.

// An answer is what a Call waits for.
type answer struct {
	data []byte
	err  error
}

// A pending is a call of ours.
type pending struct {
	id   uint64      // it changes when the session is lost before the call was sent
	done chan answer // has room, and gets one
}

// Call calls a method of the other side and waits for its reply, whose memory is
// the caller's. The payload, like Send's, is the session's from now on.
//
// The call and its reply survive connections as messages do. An error is an
// [*Error] if the method has returned one, ErrLost if nobody knows what became of
// the call, ErrFull if there was no room for it, ErrEnded, or the cause of ctx.
// When ctx ends, so does that of the method. Any number of calls may be under
// way; they are handled at the same time, and in no order.
func (s *Session) Call(ctx context.Context, method string, data []byte) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := s.check(method, data); err != nil {
		return nil, err
	}
	var late <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		d := s.config.CallTimeout
		if d == 0 {
			d = 30 * time.Second
		}
		t := time.NewTimer(d)
		defer t.Stop()
		late = t.C
	}
	c := &pending{done: make(chan answer, 1)}
	s.mu.Lock()
	id, err := s.push(Envelope{Type: typeCall, Name: method, Data: data}, false)
	if err == nil {
		if s.calls == nil {
			s.calls = make(map[uint64]*pending)
		}
		c.id = id
		s.calls[id] = c
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-c.done:
		return a.data, a.err
	case <-ctx.Done():
		s.abandon(c)
		return nil, context.Cause(ctx)
	case <-late:
		s.abandon(c)
		return nil, context.DeadlineExceeded
	}
}

// abandon tells the other side that nobody waits for c any more.
func (s *Session) abandon(c *pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[c.id] == c {
		delete(s.calls, c.id)
		s.push(Envelope{Type: typeCancel, Re: c.id}, true)
	}
}

// A server is the half of a session that answers.
type server struct {
	running int
	bytes   int // of those that wait
	waiting []*job
	jobs    map[uint64]*job
}

// A job is a call that is being answered.
type job struct {
	id     uint64
	method Method
	data   []byte
	ctx    context.Context
	stop   context.CancelFunc
}

func (j *job) size() int { return len(j.data) + overhead }

// called begins to answer a call.
func (s *Session) called(e *Envelope) {
	v := &s.served
	method := s.config.Methods[e.Name]
	limit := s.config.Concurrency
	if limit == 0 {
		limit = 64
	}
	j := &job{id: e.ID, method: method, data: e.Data}
	switch {
	case method == nil:
		s.reply(j, nil, &Error{Code: CodeNoMethod})
		return
	case v.running >= limit && v.bytes+j.size() > maxInput:
		s.reply(j, nil, &Error{Code: CodeBusy})
		return
	}
	j.ctx, j.stop = context.WithCancel(context.Background())
	if v.jobs == nil {
		v.jobs = make(map[uint64]*job)
	}
	v.jobs[j.id] = j
	if v.running >= limit {
		v.waiting = append(v.waiting, j)
		v.bytes += j.size()
		return
	}
	v.running++
	go s.answer(j)
}

// answer runs a method, and then those that wait.
func (s *Session) answer(j *job) {
	v := &s.served
	for j != nil {
		data, err := s.run(j)
		s.mu.Lock()
		j.stop()
		if v.jobs[j.id] == j { // else the session that it came over is gone
			delete(v.jobs, j.id)
			s.reply(j, data, err)
		}
		j = nil
		if len(v.waiting) > 0 {
			j = v.waiting[0]
			v.waiting[0] = nil
			v.waiting = v.waiting[1:]
			v.bytes -= j.size()
		} else {
			v.waiting = nil
			v.running--
		}
		s.mu.Unlock()
	}
}

func (s *Session) run(j *job) (data []byte, err error) {
	if j.ctx.Err() != nil {
		return nil, j.ctx.Err()
	}
	defer func() {
		if recover() != nil {
			err = &Error{Code: CodeInternal}
		}
	}()
	if data, err = j.method(j.ctx, s, j.data); err == nil {
		err = s.codec().Check(data)
	}
	return data, err
}

// reply sends what a method has returned.
func (s *Session) reply(j *job, data []byte, err error) {
	e := Envelope{Type: typeReply, Re: j.id}
	if s.vault != nil {
		s.vault.done = append(s.vault.done, j.id)
	}
	var own *Error
	switch {
	case err == nil:
		e.Data = data
	case errors.As(err, &own):
		e.Error = own
	case errors.Is(err, context.Canceled):
		e.Error = &Error{Code: CodeCanceled}
	default:
		e.Error = &Error{Code: CodeInternal}
	}
	if _, err := s.push(e, true); err == ErrFull && s.conn != nil {
		// It calls, and does not acknowledge: there is a limit to that too.
		go s.conn.CloseNow()
	}
}

func (v *server) cancel(id uint64) {
	if j := v.jobs[id]; j != nil {
		j.stop()
	}
}

func (v *server) cancelAll() {
	for id, j := range v.jobs {
		delete(v.jobs, id)
		j.stop()
	}
}
