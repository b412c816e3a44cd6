package autobahn

// Responses that are none: 20.10.14 to 20.10.16.

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const floodSize = 16 * mi

// floodHeaders writes header lines until the client has had enough.
func floodHeaders(r *run, c net.Conn) {
	c.SetDeadline(time.Now().Add(r.patient(10 * time.Second)))
	head := "HTTP/1.1 101 Switching Protocols\r\n"
	lines := []byte(strings.Repeat("X-Filler: "+strings.Repeat("x", 500)+"\r\n", 32))
	n, err := io.WriteString(c, head)
	for err == nil && n < floodSize {
		var m int
		m, err = c.Write(lines)
		n += m
	}
	if err == nil {
		r.settle(Failed, fmt.Sprintf("the client took %d octets of header", n))
		return
	}
	r.settle(OK, fmt.Sprintf("the client gave up after at most %d octets", n))
}

// cutResponse ends TCP in the middle of a header line.
func cutResponse(r *run, c net.Conn) {
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
	r.settle(OK, "the client came back")
}

// noResponse waits for the client to lose patience.
func noResponse(r *run, c net.Conn) {
	start := time.Now()
	c.SetDeadline(start.Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil && time.Since(start) >= 10*time.Second {
		r.settle(Informational, "the client still waits after ten seconds")
		return
	}
	r.settle(Informational, fmt.Sprintf("the client gave up after %.1f seconds", time.Since(start).Seconds()))
}
