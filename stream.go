package websocket

import (
	"context"
	"errors"
	"io"
	"sync"
)

// stream.go owns messages that are read or written a part at a time.

// Reader returns the type of the next message and a stream of what is in it, for
// messages that need not be in memory as a whole; Config.ReadLimit holds all the
// same. The stream ends with io.EOF. Text is checked as it comes: the stream
// fails at the first byte that is not UTF-8.
//
// For the end of ctx, before and after Reader returns, the same holds as for
// Read. The next reading call on c discards what is left of the message.
func (c *Conn) Reader(ctx context.Context) (MessageType, io.Reader, error) {
	if err := c.begin(ctx); err != nil {
		return 0, nil, err
	}
	t, r, err := c.beginStream(ctx)
	c.quit(err)
	return t, r, err
}

// beginStream waits for the first piece of the next message.
func (c *Conn) beginStream(ctx context.Context) (MessageType, io.Reader, error) {
	r := &messageReader{c: c, ctx: ctx}
	if c.stream == nil && c.msg != nil { // begun by a call that was cut short
		if c.stream = r; c.machine.packed {
			c.msg = c.zip.join(c.msg)
			r.data = c.msg.b // and what the rest refers to
		} else {
			r.data, c.msg = c.msg.b, nil
		}
		return c.kind, r, nil
	}
	for {
		p, err := c.step()
		switch {
		case err != nil:
			return 0, nil, err
		case p.op == 0:
			if err := c.fill(ctx); err != nil {
				return 0, nil, err
			}
		case c.stream != nil:
			if err := c.skip(p); err != nil {
				return 0, nil, err
			}
		default:
			c.kind, c.stream = MessageType(p.op), r
			if err := r.take(p); err != nil {
				return 0, nil, err
			}
			return c.kind, r, nil
		}
	}
}

// A messageReader reads a message as a stream.
type messageReader struct {
	c    *Conn
	ctx  context.Context
	data []byte // what is here, in the connection's read buffer
	rest piece  // behind data, if there is more of it to inflate
	full bool
	last bool // nothing follows these
}

// Read implements io.Reader.
func (r *messageReader) Read(p []byte) (n int, err error) {
	c := r.c
	if err := c.enter(r.ctx); err != nil {
		return 0, err
	}
	defer func() { c.quit(err) }()
	switch {
	case c.stream != r && r.last && len(r.data) == 0 && !r.full:
		return 0, io.EOF
	case c.stream != r:
		return 0, errStale
	case len(p) == 0:
		return 0, nil
	}
	for len(r.data) == 0 {
		if r.full {
			if err := r.take(r.rest); err != nil {
				return 0, err
			}
			continue
		}
		if r.last {
			c.endStream()
			return 0, io.EOF
		}
		if n, err = r.more(p); n > 0 || err != nil {
			return n, err
		}
	}
	n = copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// take makes a piece what is read next.
func (r *messageReader) take(p piece) (err error) {
	if r.data, r.last = p.data, p.last; p.packed {
		r.data, r.full, err = r.c.unpackSome(&p)
		r.rest = p
	}
	return err
}

// more reads more of the message: a large part straight into p, whose length it
// returns then.
func (r *messageReader) more(p []byte) (int, error) {
	c := r.c
	next, err := c.step()
	if err != nil {
		return 0, err
	}
	if next.op != 0 {
		return 0, r.take(next)
	}
	room := c.machine.room()
	if room == 0 || c.machine.packed || len(p) < int(c.size) {
		return 0, c.fill(r.ctx)
	}
	n, err := c.recv(r.ctx, p[:min(room, int64(len(p)))])
	if err != nil {
		return 0, err
	}
	if next, _, err = c.machine.next(p[:n]); err != nil {
		return 0, c.fail(err.(*ProtocolError))
	}
	r.last = next.last
	return n, nil
}

var errWriterClosed = errors.New("websocket: the message was already ended")

// streamFrame is what a streaming Writer collects for one frame, in bytes.
const streamFrame = 4 << 10

// Writer begins a message of type t that is written as a stream, in as many
// frames as it takes. The message ends, and is out, when the writer is closed;
// until then other messages wait, those of Queue and Post in memory. What Write
// is given is only read, and is the caller's again when it returns.
//
// The end of ctx ends the writing. A writer that fails when a part of its
// message is already out ends the connection with CloseInternalError, for there
// is no other way to take it back.
func (c *Conn) Writer(ctx context.Context, t MessageType) (io.WriteCloser, error) {
	if t != MessageText && t != MessageBinary {
		return nil, errType
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.out.open(ctx); err != nil {
		return nil, err
	}
	return &messageWriter{c: c, ctx: ctx, kind: t, op: Opcode(t)}, nil
}

// A messageWriter writes a message as a stream.
type messageWriter struct {
	c    *Conn
	ctx  context.Context
	kind MessageType

	mu   sync.Mutex
	op   Opcode    // of the next frame
	buf  *buffer   // of the next frame
	text utf8Check // so far
	zip  *streamDeflater
	err  error // why nothing more can be written
}

// Write implements io.Writer.
func (w *messageWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if w.kind == MessageText && !w.text.add(p) {
		return 0, w.fail(errText)
	}
	for n := 0; ; {
		part := p[n:]
		if w.buf == nil && len(part) >= streamFrame {
			part = part[:min(len(part), 64<<10)]
			if err := w.send(part, false); err != nil {
				return n, err
			}
		} else {
			if w.buf == nil {
				w.buf = borrow(streamFrame)
			}
			part = part[:min(len(part), streamFrame-len(w.buf.b))]
			w.buf.b = append(w.buf.b, part...)
			if len(w.buf.b) == streamFrame {
				if err := w.sendBuffer(false); err != nil {
					return n, err
				}
			}
		}
		if n += len(part); n == len(p) {
			return n, nil
		}
	}
}

// Close implements io.Closer.
func (w *messageWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err == errWriterClosed:
		return nil
	case w.err != nil:
		return w.err
	case w.kind == MessageText && !w.text.complete():
		return w.fail(errText)
	}
	if err := w.sendBuffer(true); err != nil {
		return err
	}
	w.err = errWriterClosed
	return nil
}

func (w *messageWriter) sendBuffer(fin bool) error {
	var p []byte
	if w.buf != nil {
		p = w.buf.b
	}
	err := w.send(p, fin)
	w.buf.release()
	w.buf = nil
	return err
}

func (w *messageWriter) send(p []byte, fin bool) error {
	if w.ctx.Err() != nil {
		return w.fail(context.Cause(w.ctx))
	}
	h := Header{Fin: fin, Opcode: w.op}
	if w.op != OpContinuation {
		if w.zip = w.c.out.zip.stream(p, fin); w.zip != nil {
			h.RSV = rsv1
		}
	}
	if w.zip != nil {
		b := borrow(len(p))
		defer b.release()
		b.b = w.zip.fragment(b.b, p, fin)
		p = b.b
	}
	err := w.c.settle(w.c.out.fragment(w.ctx, h, p))
	w.op = OpContinuation
	if err != nil {
		return w.fail(err)
	}
	return nil
}

// fail gives up the message.
func (w *messageWriter) fail(err error) error {
	w.err = err
	if w.op == OpContinuation {
		w.c.sayGoodbye(CloseInternalError, "")
		return err
	}
	w.c.out.mu.Lock()
	w.c.out.release()
	w.c.out.mu.Unlock()
	w.c.kick()
	return err
}
