package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/seed-07372d5a/websocket"
)

// session.go owns one end of a session: what was sent and is not acknowledged,
// and what has come.

// Config says how a session behaves. The zero Config is a good one, and discards
// what comes.
type Config struct {
	// Message is called with every message, in order, one at a time for each
	// session, on a goroutine that does nothing else; data is its own to keep.
	// When it returns the message is acknowledged. A panic is not caught.
	Message func(s *Session, name string, data []byte)
	// Gap is called in the place of messages that will not come.
	Gap func(s *Session, g Gap)
	// Methods answer calls.
	Methods map[string]Method
	// Concurrency is how many methods run at the same time, for each session.
	// More calls wait, with up to 4 MiB; beyond that they are answered with
	// CodeBusy. 0: 64.
	Concurrency int
	// Buffer is how many bytes wait to be acknowledged, where each message counts
	// for 128 besides its name and payload; empty, it takes one message of any
	// size. 0: 1 MiB.
	Buffer int
	// DropOldest makes Send drop the oldest messages when Buffer is full, which
	// the other side is told by a Gap, instead of returning ErrFull.
	DropOldest bool
	// MaxAge is how old a message may be when it is sent over another connection;
	// older ones are dropped. 0: 5 minutes; negative: for ever.
	MaxAge time.Duration
	// CallTimeout is how long Call waits if its context has no deadline. 0: 30 s.
	CallTimeout time.Duration
	// Codec is what envelopes are encoded with; nil: JSON.
	Codec Codec
}

// A Method answers calls of one name. Its ctx ends when the caller no longer
// waits or the session has ended. An error that is an [*Error] is what the caller
// gets; of any other it gets CodeInternal. data is the method's to keep.
type Method func(ctx context.Context, s *Session, data []byte) ([]byte, error)

// A Gap says that messages have not arrived, and will not.
type Gap struct {
	// Messages is how many were dropped by the other side, calls and replies
	// included; 0 if the session was lost, for then nobody knows.
	Messages uint64
	// Lost: the other side does not know the session any more, and another one
	// has begun. What it had sent may be missing.
	Lost bool
	// Unacknowledged is how many of this side's the other may have handled or
	// not when the session was lost. They are not sent again.
	Unacknowledged uint64
	// Doubtful is how many of the other side's messages another server had taken
	// when the session moved: it has handled them, or will, or has died before. They
	// do not come again. See Server.Store.
	Doubtful uint64
}

// The reasons why something is not sent, or not answered.
var (
	// ErrFull says that Config.Buffer bytes wait to be acknowledged, and that the
	// message was not taken.
	ErrFull = errors.New("session: buffer is full")
	// ErrLost says that the session was lost while a call was under way, which
	// may have been handled or not.
	ErrLost = errors.New("session: session was lost")
	// ErrMoved says that the session goes on at another server.
	ErrMoved = errors.New("session: session has moved to another server")
	// ErrEnded says that the session has ended.
	ErrEnded = errors.New("session: session has ended")
)

const (
	overhead    = 128       // what an envelope counts for besides its name and payload, in bytes
	window      = 512 << 10 // how much is under way on a connection
	maxInput    = 4 << 20   // how much may wait for Config.Message, and for methods
	maxName     = 255
	maxID       = 1<<53 - 1 // what JavaScript counts to
	ackEvery    = 32
	postPause   = 10 * time.Millisecond // when the connection's own queue is full
	timeToHello = 10 * time.Second
)

// CloseReplaced is the close code for a connection whose session goes on over a
// newer one.
const CloseReplaced websocket.CloseCode = 4001

// An entry is an envelope that is not acknowledged.
type entry struct {
	Envelope
	at time.Time
}

func (e *entry) size() int { return len(e.Name) + len(e.Data) + overhead }

// An item waits for Config.Message or Config.Gap.
type item struct {
	id   uint64
	name string
	data []byte
	gap  *Gap
}

func (i *item) size() int { return len(i.name) + len(i.data) + overhead }

// A Session is one end of a session. Its methods may be called from any
// goroutine.
type Session struct {
	config *Config

	mu    sync.Mutex
	token string
	conn  *websocket.Conn // nil: none
	err   error           // the end

	// What is sent: buf has the numbers from last-buf.len()+1 to last.
	buf     *ring[entry]
	bytes   int    // of buf
	last    uint64 // the last number given
	next    uint64 // the next to be sent over conn
	highest uint64 // the highest ever sent over any
	settled uint64 // the highest ever acknowledged
	flight  int    // bytes under way on conn
	retry   *time.Timer

	// What has come.
	recv       uint64      // the highest number taken
	told       uint64      // what conn has been told of it
	queue      *ring[item] // for Config.Message, the first of which may be under way
	queued     int         // bytes of queue
	delivering bool
	idle       chan struct{} // closed when that ends; made only if somebody waits

	calls  map[uint64]*pending // ours, that wait
	served server
	vault  *vault // nil: it is in no store

	sent, acked, lost uint64
	times             *histogram
}

func newSession(c *Config, token string) *Session {
	return &Session{config: c, token: token, next: 1}
}

func (s *Session) codec() Codec {
	if s.config.Codec == nil {
		return JSON
	}
	return s.config.Codec
}

func (s *Session) limit() int {
	if s.config.Buffer == 0 {
		return 1 << 20
	}
	return s.config.Buffer
}

// Send sends a message: now, if there is a connection, and again over later ones
// until it is acknowledged. It does not wait. The payload, with the default Codec
// a JSON value or empty, is the session's from now on.
func (s *Session) Send(name string, data []byte) error {
	if err := s.check(name, data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.push(Envelope{Type: typeMessage, Name: name, Data: data}, false)
	return err
}

func (s *Session) check(name string, data []byte) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return errName
	}
	return s.codec().Check(data)
}

// push gives e a number and sends it. What must be sent may exceed the limit once
// more.
func (s *Session) push(e Envelope, must bool) (uint64, error) {
	if s.err != nil {
		return 0, s.err
	}
	n := entry{Envelope: e, at: time.Now()}
	if s.conn == nil {
		s.expire(n.at)
	}
	limit := s.limit()
	for s.buf.len() > 0 && n.size() > limit-s.bytes {
		if must && n.size() <= 2*limit-s.bytes {
			break
		}
		if !s.config.DropOldest {
			return 0, ErrFull
		}
		s.drop()
	}
	s.last++
	n.ID, n.Timestamp = s.last, n.at.UnixMilli()
	s.buf = s.buf.push(n, &entries)
	s.bytes += n.size()
	s.sent++
	s.keep()
	s.pump()
	return s.last, nil
}

func (s *Session) first() uint64 { return s.last - uint64(s.buf.len()) + 1 }

// shift removes the oldest entry.
func (s *Session) shift() {
	e := s.buf.at(0)
	s.bytes -= e.size()
	if e.ID < s.next {
		s.flight -= e.size()
	}
	s.buf = s.buf.shift(&entries)
}

// drop gives up the oldest entry. The other side will be told by pump.
func (s *Session) drop() {
	e := s.buf.at(0)
	if c := s.calls[e.ID]; c != nil && e.Type == typeCall {
		delete(s.calls, e.ID)
		c.done <- answer{err: ErrFull}
	}
	s.lost++
	s.shift()
}

// expire drops what is too old to be sent over another connection.
func (s *Session) expire(now time.Time) {
	age := s.config.MaxAge
	if age == 0 {
		age = 5 * time.Minute
	}
	for age > 0 && s.buf.len() > 0 && now.Sub(s.buf.at(0).at) > age {
		s.drop()
	}
}

// pump gives the connection what it has not got, as far as the window goes.
func (s *Session) pump() {
	if s.conn == nil {
		return
	}
	if s.next < s.first() {
		if s.post(&Envelope{Type: typeGap, ID: s.first()}) != nil {
			return
		}
		s.next = s.first()
	}
	last := s.last
	if s.vault != nil {
		last = s.vault.stored
	}
	for s.next <= last {
		e := s.buf.at(int(s.next - s.first()))
		if s.flight > 0 && s.flight+e.size() > window || s.post(&e.Envelope) != nil {
			return
		}
		s.flight += e.size()
		s.highest = max(s.highest, s.next)
		s.next++
	}
}

// Rings of empty queues, and memory to encode in.
var entries, items sync.Pool

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// post sends an envelope over the connection that is there. If the connection's
// queue is full there is another pump soon; if it has ended, another connection.
func (s *Session) post(e *Envelope) error {
	b := scratch.Get().(*[]byte)
	defer scratch.Put(b)
	*b = s.codec().Append((*b)[:0], e)
	err := s.conn.Post(websocket.Message{Type: s.codec().Type(), Data: *b})
	if cap(*b) > 64<<10 {
		*b = nil
	}
	if err == websocket.ErrQueueFull && s.retry == nil {
		s.retry = time.AfterFunc(postPause, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.retry = nil
			s.pump()
			s.sendAck()
		})
	}
	return err
}

// acknowledge lets go of what the other side has handled.
func (s *Session) acknowledge(n uint64) error {
	if n >= s.next {
		return errors.New("acknowledges what was not sent")
	}
	s.settle(n)
	s.keep()
	s.pump()
	return nil
}

// settle lets go of everything up to n.
func (s *Session) settle(n uint64) {
	s.settled = max(s.settled, n)
	now := time.Now()
	for s.buf.len() > 0 && s.buf.at(0).ID <= n {
		if s.times == nil {
			s.times = new(histogram)
		}
		s.times.add(now.Sub(s.buf.at(0).at))
		s.acked++
		s.shift()
	}
}

// attach goes on over c, whose other end has handled what is up to ack.
func (s *Session) attach(c *websocket.Conn, ack uint64) {
	s.conn = c
	s.expire(time.Now())
	s.next = s.highest + 1 // whatever was sent may be acknowledged
	s.settle(ack)
	s.next, s.flight, s.told = ack+1, 0, s.handled()
	s.keep()
	s.pump()
}

// detach lets go of c, if it is the session's.
func (s *Session) detach(c *websocket.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return false
	}
	s.conn = nil
	return true
}

// replace begins another session, because the other side does not know this one.
// What was never sent goes into it.
func (s *Session) replace(token string) {
	known := s.token != ""
	s.token = token
	g := Gap{Lost: true}
	for s.buf.len() > 0 && s.buf.at(0).ID <= s.highest {
		g.Unacknowledged++
		s.lost++
		s.shift()
	}
	var hole uint64 // dropped before they were sent: the new session begins with a gap
	if first := s.first(); first > s.highest+1 {
		hole = first - 1 - s.highest
	}
	// Replies and cancellations are about calls of the session that is lost.
	var kept *ring[entry]
	calls := make(map[uint64]*pending)
	for ; s.buf.len() > 0; s.buf = s.buf.shift(&entries) {
		e := *s.buf.at(0)
		c := s.calls[e.ID]
		if e.Type != typeMessage && (e.Type != typeCall || c == nil) {
			s.lost++
			s.bytes -= e.size()
			continue
		}
		id := hole + uint64(kept.len()) + 1
		if c != nil {
			delete(s.calls, e.ID)
			c.id, calls[id] = id, c
		}
		e.ID = id
		kept = kept.push(e, &entries)
	}
	s.buf = kept
	for _, c := range s.calls {
		c.done <- answer{err: ErrLost}
	}
	s.calls = calls
	s.served.cancelAll()
	s.last, s.next, s.highest, s.flight = hole+uint64(s.buf.len()), 1, 0, 0
	s.settled = 0
	s.recv, s.told = 0, 0
	for i := range s.queue.len() {
		s.queue.at(i).id = 0 // acknowledging them is of no use
	}
	if known {
		s.enqueue(item{gap: &g})
	}
}

// serve reads c until it ends.
func (s *Session) serve(ctx context.Context, c *websocket.Conn) error {
	var e Envelope
	var known names
	for {
		m, err := c.Next(ctx)
		if err != nil {
			return err
		}
		e = Envelope{}
		switch codec := s.codec().(type) {
		case jsonCodec:
			if m.Type != websocket.MessageText || !e.decode(m.Data, &known) {
				err = errEnvelope
			}
		default:
			if m.Type != codec.Type() {
				err = errors.New("message of another type")
			} else {
				other := new(Envelope) // on the heap, but not for the default
				err = codec.Decode(m.Data, other)
				e = *other
			}
		}
		if err == nil {
			err = s.receive(c, &e, !c.Buffered())
		}
		if err != nil {
			c.Close(websocket.ClosePolicyViolation, "session: what is that?")
			return fmt.Errorf("session: the other side sent nonsense: %w", err)
		}
	}
}

// receive handles what has come over c, and acknowledges if it was the last for
// now. It does not keep e.
func (s *Session) receive(c *websocket.Conn, e *Envelope, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c || s.err != nil {
		return nil // it was replaced, and is closed
	}
	if last {
		defer s.sendAck()
	}
	if e.ID > maxID {
		return errors.New("id out of range")
	}
	switch e.Type {
	case typeAck:
		return s.acknowledge(e.Ack)
	case typePing:
		s.post(&Envelope{Type: typePong})
		return nil
	case typePong:
		return nil
	case typeGap:
		if e.ID > s.recv+1 {
			e.ID, e.Re = e.ID-1, e.ID-1-s.recv // the last of them, and how many
			s.recv = e.ID
			return s.arrive(e)
		}
		return nil
	case typeMessage, typeCall, typeReply, typeCancel:
	default:
		return fmt.Errorf("envelope of type %.20q", e.Type)
	}
	switch {
	case e.ID == 0:
		return errors.New("envelope without an id")
	case e.ID <= s.recv: // a duplicate
		return nil
	case e.ID > s.recv+1:
		return errors.New("envelope is missing")
	case len(e.Name) > maxName:
		return errName
	}
	s.recv++
	return s.arrive(e)
}

// arrive has e take effect, now or when the store knows it.
func (s *Session) arrive(e *Envelope) error {
	if s.vault != nil {
		return s.hold(e)
	}
	return s.take(e)
}

// take does what e says.
func (s *Session) take(e *Envelope) error {
	switch e.Type {
	case typeGap:
		return s.enqueue(item{id: e.ID, gap: &Gap{Messages: e.Re}})
	case typeMessage:
		return s.enqueue(item{id: e.ID, name: e.Name, data: e.Data})
	case typeCall:
		s.called(e)
	case typeReply:
		if c := s.calls[e.Re]; c != nil {
			delete(s.calls, e.Re)
			a := answer{data: e.Data}
			switch {
			case e.Error == nil:
			case e.Error.Code == CodeLost:
				a.err = ErrLost
			default:
				a.err = e.Error
			}
			c.done <- a
		}
	case typeCancel:
		s.served.cancel(e.Re)
	}
	return nil
}

// enqueue hands i to the handlers, behind what they have not done yet.
func (s *Session) enqueue(i item) error {
	if s.queue.len() > 0 && s.queued+i.size() > maxInput {
		return errWindow
	}
	s.queue = s.queue.push(i, &items)
	s.queued += i.size()
	if !s.delivering {
		s.delivering = true
		go s.deliver()
	}
	return nil
}

// deliver calls the handlers until there is nothing for them.
func (s *Session) deliver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := 1; s.queue.len() > 0 && s.err == nil; n++ {
		i := *s.queue.at(0)
		s.mu.Unlock()
		switch {
		case i.gap != nil && s.config.Gap != nil:
			s.config.Gap(s, *i.gap)
		case i.gap == nil && s.config.Message != nil:
			s.config.Message(s, i.name, i.data)
		}
		s.mu.Lock()
		s.queued -= i.size()
		s.queue = s.queue.shift(&items)
		s.keep() // it is not in doubt any more
		if n%ackEvery == 0 {
			s.sendAck()
		}
	}
	s.delivering = false
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	if s.err != nil {
		s.queue, s.queued = nil, 0
	}
	s.sendAck()
}

// handled is the highest number up to which everything is done.
func (s *Session) handled() uint64 {
	for i := range s.queue.len() {
		if q := s.queue.at(i); q.id > 0 {
			if q.gap != nil {
				return q.id - q.gap.Messages // the first of them is one more
			}
			return q.id - 1
		}
	}
	if s.vault != nil {
		return s.vault.taken
	}
	return s.recv
}

func (s *Session) sendAck() {
	if n := s.handled(); s.conn != nil && n > s.told && s.post(&Envelope{Type: typeAck, Ack: n}) == nil {
		s.told = n
	}
}

// end ends the session, and tells whether it had not ended before. It returns the
// connection, if there is one.
func (s *Session) end(err error) (c *websocket.Conn, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, false
	}
	s.err = err
	if err == ErrMoved {
		err = ErrLost // the answer goes to the other server
	}
	for id, c := range s.calls {
		delete(s.calls, id)
		c.done <- answer{err: err}
	}
	s.served.cancelAll()
	if s.vault != nil {
		s.vault.arrived = nil
	}
	if s.err == ErrMoved { // the other server has what is in the store
		s.lost += s.last - max(s.vault.stored, s.first()-1)
	} else {
		s.lost += uint64(s.buf.len())
	}
	s.buf, s.bytes = nil, 0
	if s.retry != nil {
		s.retry.Stop()
	}
	return s.conn, true
}

// Err returns nil while the session goes on, and otherwise why it has ended for
// this end: ErrEnded, because the client stayed away, or by Shutdown; ErrMoved;
// or ErrLost, because the Store has forgotten it.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Connected tells whether there is a connection now.
func (s *Session) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// Stats returns what was counted so far, by this end on this machine.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Sent: s.sent, Acknowledged: s.acked, Lost: s.lost, Mean: s.times.mean(), P99: s.times.p99()}
}
