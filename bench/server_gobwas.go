//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	"github.com/klauspost/compress/flate"
)

func init() {
	register(&library{
		name: "gobwas", module: "github.com/gobwas/ws", server: gobwasServer, client: gobwasClient, deflate: true,
		note: "Upgrader on the bare connection, wsutil.Reader on a bufio.Reader, utf8.Valid, which is faster than its CheckUTF8, frames to a bufio.Writer " +
			"that is flushed when no more input is buffered; klauspost's flate, level 1; broadcast of a compiled frame",
	})
}

func gobwasServer(l net.Listener, c Cell) error {
	var members group[net.Conn]
	return each(l, func(nc net.Conn) {
		defer nc.Close()
		var u ws.Upgrader
		if c.Deflate != "" {
			e := wsflate.Extension{Parameters: wsflate.DefaultParameters}
			u.Negotiate = func(o httphead.Option) (httphead.Option, error) { return e.Negotiate(o) }
		}
		if _, err := u.Upgrade(nc); err != nil {
			return
		}
		if c.Kind != "broadcast" {
			gobwasEcho(nc, bufio.NewReader(nc), ws.StateServerSide, c, nil)
			return
		}
		members.add(nc)
		defer members.remove(nc)
		gobwasEcho(nc, bufio.NewReader(nc), ws.StateServerSide, c, func(op ws.OpCode, p []byte) {
			f := ws.MustCompileFrame(ws.NewFrame(op, true, p))
			members.each(func(nc net.Conn) { nc.Write(f) })
		})
	})
}

func gobwasClient(addr string, c Cell) error {
	return dialAll(c, func() (func(), error) {
		nc, br, _, err := ws.Dial(context.Background(), "ws://"+addr)
		if br == nil {
			br = bufio.NewReader(nc)
		}
		return func() { gobwasEcho(nc, br, ws.StateClientSide, c, nil) }, err
	})
}

func gobwasEcho(nc net.Conn, br *bufio.Reader, side ws.State, c Cell, answer func(ws.OpCode, []byte)) {
	bw := bufio.NewWriter(nc)
	rd := wsutil.Reader{Source: br, State: side, OnIntermediate: wsutil.ControlFrameHandler(nc, side)}
	var state wsflate.MessageState
	if c.Deflate != "" {
		rd.State |= ws.StateExtended
		rd.Extensions = []wsutil.RecvExtension{&state}
	}
	var z *gobwasCodec
	var buf []byte
	for {
		h, err := rd.NextFrame()
		if err != nil {
			return
		}
		if h.OpCode.IsControl() {
			if rd.OnIntermediate(h, &rd) != nil {
				return
			}
			continue
		}
		if h.Fin && int(h.Length) <= cap(buf) { // as a rule
			buf = buf[:h.Length]
			_, err = io.ReadFull(&rd, buf)
		} else {
			buf, err = readInto(buf, &rd)
		}
		if err != nil {
			return
		}
		out, op, rsv := buf, h.OpCode, byte(0)
		if state.IsCompressed() {
			z = gobwasFlate.Get().(*gobwasCodec)
			if out, err = z.repack(buf); err != nil {
				return
			}
			rsv = ws.Rsv(true, false, false)
		}
		if op == ws.OpText && rsv == 0 && !utf8.Valid(out) {
			nc.Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusInvalidFramePayloadData, ""))))
			return
		}
		if answer != nil {
			answer(op, out)
			continue
		}
		head := ws.Header{Fin: true, OpCode: op, Rsv: rsv, Length: int64(len(out))}
		if side == ws.StateClientSide {
			head.Masked, head.Mask = true, ws.NewMask()
			ws.Cipher(out, head.Mask, 0)
		}
		if ws.WriteHeader(bw, head) != nil {
			return
		}
		bw.Write(out)
		if z != nil {
			gobwasFlate.Put(z)
			z = nil
		}
		if br.Buffered() == 0 && bw.Flush() != nil {
			return
		}
	}
}

// A gobwasCodec inflates a message and deflates it again.
type gobwasCodec struct {
	src           bytes.Reader
	plain, packed bytes.Buffer
	r             *wsflate.Reader
	w             *wsflate.Writer
}

type gobwasInflater struct{ io.Reader }

func (z gobwasInflater) Reset(r io.Reader) { z.Reader.(flate.Resetter).Reset(r, nil) }

var gobwasFlate = sync.Pool{New: func() any {
	return &gobwasCodec{
		r: wsflate.NewReader(nil, func(r io.Reader) wsflate.Decompressor { return gobwasInflater{flate.NewReader(r)} }),
		w: wsflate.NewWriter(nil, func(w io.Writer) wsflate.Compressor { f, _ := flate.NewWriter(w, 1); return f }),
	}
}}

func (z *gobwasCodec) repack(p []byte) ([]byte, error) {
	z.plain.Reset()
	z.packed.Reset()
	z.src.Reset(p)
	z.r.Reset(struct{ io.Reader }{&z.src}) // of a source with ReadByte, wsflate reads one byte too many
	if _, err := z.plain.ReadFrom(z.r); err != nil {
		return nil, err
	}
	z.w.Reset(&z.packed)
	z.w.Write(z.plain.Bytes())
	err := z.w.Flush()
	return z.packed.Bytes(), err
}
