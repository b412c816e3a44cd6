package double

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// A request or response: the first line, and the headers by lower-case name.
type request struct {
	line    string
	headers map[string][]string
}

func (r *request) get(name string) string { return strings.Join(r.headers[name], ",") }

func (r *request) has(name, word string) bool {
	for w := range strings.SplitSeq(r.get(name), ",") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

var errHead = errors.New("header too long or malformed")

func read(in *bufio.Reader) (*request, error) {
	r := &request{headers: map[string][]string{}}
	for total := 0; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if total += len(line); total > 64<<10 {
			return nil, errHead
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case r.line == "":
			r.line = line
		case line == "":
			return r, nil
		default:
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				return nil, errHead
			}
			k = strings.ToLower(k)
			r.headers[k] = append(r.headers[k], strings.TrimSpace(v))
		}
	}
}

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Serve echoes on every connection of l until l is closed.
func (d *Double) Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go d.serve(c)
	}
}

func (d *Double) serve(c net.Conn) {
	src := &source{Conn: c}
	in := bufio.NewReaderSize(src, 64<<10)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	r, err := read(in)
	if err != nil {
		c.Close()
		return
	}
	if status, more := d.refuses(r); status != "" {
		fmt.Fprintf(c, "HTTP/1.1 %s\r\n%sContent-Length: 0\r\nConnection: close\r\n\r\n", status, more)
		c.Close()
		return
	}
	c.SetDeadline(time.Time{})
	extensions, comp := d.accept(r.get("sec-websocket-extensions"))
	accept := acceptOf(r.get("sec-websocket-key"))
	if d.has(AcceptWrong) {
		accept = acceptOf("another key")
	}
	b := "HTTP/1.1 101 Switching Protocols\r\nServer: double\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + "\r\n"
	if extensions != "" {
		b += "Sec-WebSocket-Extensions: " + extensions + "\r\n"
	}
	if d.has(SubprotocolInvented) {
		b += "Sec-WebSocket-Protocol: invented\r\n"
	}
	io.WriteString(c, b+"\r\n")
	if d.has(EarlyDataLost) {
		in.Discard(in.Buffered())
	}
	p := &peer{Double: d, conn: c, in: in, comp: comp}
	src.before = p.pending
	p.echo()
}

// refuses is RFC 6455 4.2.1: the status to answer with, and headers for it.
func (d *Double) refuses(r *request) (status, more string) {
	words := strings.Split(r.line, " ")
	key, err := base64.StdEncoding.DecodeString(r.get("sec-websocket-key"))
	switch {
	case len(words) != 3 || words[2] != "HTTP/1.1":
		return "505 HTTP Version Not Supported", ""
	case words[0] != "GET":
		return "405 Method Not Allowed", ""
	case len(r.headers["host"]) != 1, !r.has("upgrade", "websocket"), !r.has("connection", "upgrade"):
		return "400 Bad Request", ""
	case r.get("sec-websocket-version") != "13" && !d.has(VersionUnchecked):
		return "426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n"
	case (err != nil || len(key) != 16) && !d.has(KeyUnchecked):
		return "400 Bad Request", ""
	}
	return "", ""
}

// Dial opens one connection and echoes on it until it ends.
func (d *Double) Dial(address string) error {
	p, err := d.open(address)
	if err != nil {
		return err
	}
	p.echo()
	return nil
}

// Ask opens one connection and returns the first message.
func (d *Double) Ask(address string) (string, error) {
	honest := &Double{}
	p, err := honest.open(address)
	if err != nil {
		return "", err
	}
	defer p.hangUp()
	p.conn.SetDeadline(time.Now().Add(time.Minute))
	h, err := p.head()
	if err != nil {
		return "", err
	}
	b := make([]byte, h.length)
	_, err = io.ReadFull(p.in, b)
	p.send(8, nil, false)
	p.flush()
	return string(b), err
}

func (d *Double) open(address string) (*peer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout("tcp", u.Host, 5*time.Second)
	if err != nil {
		return nil, err
	}
	p, err := d.upgrade(c, u)
	if err != nil {
		c.Close()
	}
	return p, err
}

func (d *Double) upgrade(c net.Conn, u *url.URL) (*peer, error) {
	var b [16]byte
	if !d.has(SameKey) {
		rand.Read(b[:])
	}
	key := base64.StdEncoding.EncodeToString(b[:])
	req := "GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\n"
	if d.Offer != "" {
		req += "Sec-WebSocket-Extensions: " + d.Offer + "\r\n"
	}
	c.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, req+"\r\n")
	src := &source{Conn: c}
	in := bufio.NewReaderSize(src, 64<<10)
	r, err := read(in)
	if err != nil {
		return nil, err
	}
	if err := d.mistrusts(r, key); err != nil {
		return nil, err
	}
	comp, err := d.agree(r.headers["sec-websocket-extensions"])
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Time{})
	if d.has(EarlyDataLost) {
		in.Discard(in.Buffered())
	}
	p := &peer{Double: d, conn: c, in: in, client: true, comp: comp}
	src.before = p.pending
	return p, nil
}

var errAnswered = errors.New("the answer is no upgrade")

// mistrusts is RFC 6455 4.1.
func (d *Double) mistrusts(r *request, key string) error {
	accept := r.headers["sec-websocket-accept"]
	switch {
	case !strings.HasPrefix(r.line, "HTTP/1.1 101 ") && !d.has(StatusUnchecked):
	case !d.has(AcceptUnchecked) && (len(accept) != 1 || accept[0] != acceptOf(key)):
	case !strings.EqualFold(r.get("upgrade"), "websocket"), !r.has("connection", "upgrade"):
	case len(r.headers["sec-websocket-protocol"]) > 0 && !d.has(SubprotocolUnchecked):
	default:
		return nil
	}
	return errAnswered
}

// RunAll drives a fuzzing server: it asks for the number of cases, runs them, several at a time, and asks for reports.
func (d *Double) RunAll(base, agent string, parallel int) error {
	n, err := d.Ask(base + "/getCaseCount")
	if err != nil {
		return err
	}
	var count int
	if _, err := fmt.Sscan(n, &count); err != nil {
		return err
	}
	turn := make(chan int)
	done := make(chan struct{})
	for range parallel {
		go func() {
			for i := range turn {
				d.Dial(fmt.Sprintf("%s/runCase?case=%d&agent=%s", base, i, agent)) // many of them must fail
			}
			done <- struct{}{}
		}()
	}
	for i := 1; i <= count; i++ {
		turn <- i
	}
	close(turn)
	for range parallel {
		<-done
	}
	honest := &Double{}
	return honest.Dial(base + "/updateReports?agent=" + agent)
}
