//go:build linux

package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// utf8.go finds out who validates text (RFC 6455 section 8.1): it sends what is
// none, and looks at the answer.

// checksUTF8 tells what l does with a text message that is not UTF-8.
func checksUTF8(l *library, core int) (verdict string, err error) {
	c := Cell{Kind: "echo", Conns: 1, Size: 16, InFlight: 1, Text: "ascii"}
	p, err := launch(l, c, "", core)
	if err != nil {
		return "", err
	}
	defer p.stop()
	fd, err := c.dial(p.addr)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	bad := []byte("not \xff\xfe UTF-8 \xc0")
	if _, err := unix.Write(fd, appendFrame(nil, 0x80|opText, 0x01020304, bad)); err != nil {
		return "", err
	}
	var b []byte
	for len(b) < 4 {
		chunk := make([]byte, 256)
		n, err := again(func() (int, error) { return unix.Read(fd, chunk) })
		if n <= 0 {
			if err == unix.EAGAIN {
				return "no answer", nil
			}
			return "validated: closed without a code", nil
		}
		b = append(b, chunk[:n]...)
	}
	switch b[0] {
	case 0x80 | opText:
		return "not validated: echoed", nil
	case 0x88:
		return fmt.Sprintf("validated: closed with %d", binary.BigEndian.Uint16(b[2:])), nil
	}
	return fmt.Sprintf("a frame with first byte %#x", b[0]), nil
}
