package autobahn

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// A rough server has just enough of a handshake, and then does what serve says.
type rough func(c net.Conn)

func (serve rough) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return "ws://" + l.Addr().String()
}

// upgraded answers the handshake and hands over the connection.
func upgraded(then func(c net.Conn)) rough {
	return func(c net.Conn) {
		h, _, err := readHead(c)
		if err != nil {
			return
		}
		c.Write(newResponse(h, "").bytes())
		then(c)
	}
}

// echoRaw echoes frames without looking at them. It stops after a Close if onClose says so.
func echoRaw(c net.Conn, onClose func(code []byte) bool) {
	var buf []byte
	b := make([]byte, 64<<10)
	for {
		h, n := parseHeader(buf)
		if n == 0 || uint64(len(buf)-n) < h.length {
			m, err := c.Read(b)
			if err != nil {
				return
			}
			buf = append(buf, b[:m]...)
			continue
		}
		p := buf[n : n+int(h.length)]
		buf = buf[n+int(h.length):]
		mask(p, h.key)
		switch h.op {
		case opClose:
			if onClose(p[:min(len(p), 2)]) {
				return
			}
		case opPing:
			c.Write(pong(string(p)).append(nil, false, 0))
		case opPong:
		default:
			c.Write(frame{op: h.op, more: !h.fin, payload: p}.append(nil, false, 0))
		}
	}
}

var roughServers = map[string]rough{
	"status 400": func(c net.Conn) {
		readHead(c)
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	},
	"wrong accept": func(c net.Conn) {
		readHead(c)
		h := &head{}
		h.add("Sec-WebSocket-Key", "something else")
		c.Write(newResponse(h, "").bytes())
		io.Copy(io.Discard, c)
	},
	"reads, never writes, never drops": upgraded(func(c net.Conn) { io.Copy(io.Discard, c) }),
	"drops on the first frame":         upgraded(func(c net.Conn) { c.Read(make([]byte, 1<<20)) }),
	"echo without checks, drops": upgraded(func(c net.Conn) {
		echoRaw(c, func(code []byte) bool {
			c.Write(frame{op: opClose, payload: code}.append(nil, false, 0))
			return true
		})
	}),
	"echo without checks, keeps TCP": upgraded(func(c net.Conn) {
		echoRaw(c, func(code []byte) bool {
			c.Write(frame{op: opClose, payload: code}.append(nil, false, 0))
			return false
		})
	}),
	"echo without checks, no Close": upgraded(func(c net.Conn) {
		echoRaw(c, func([]byte) bool { return false })
	}),
}

// Measured outcomes of upstream's fuzzing client with bad servers (catalogue 1.8).
func TestMeasuredOutcomes(t *testing.T) {
	ids := strings.Fields("1.1.1 2.1 2.7 3.1 3.2 6.4.1 6.5.1 6.6.1 7.1.3 7.3.2 7.3.3 7.9.1 12.1.1 7.13.1")
	all := "F/F F/F F/F F/F F/F F/F F/F F/F F/F F/F F/F F/F F/F IN/IN"
	for server, outcomes := range map[string]string{
		"status 400":                       all,
		"wrong accept":                     all,
		"reads, never writes, never drops": "F/UC F/UC OK/UC OK/F NS/F F/F F/UC F/F OK/UC OK/FC OK/UC OK/FC UI/UC IN/IN",
		"drops on the first frame":         "F/F F/F OK/UC OK/OK NS/OK F/OK F/F OK/OK OK/UC OK/OK OK/UC OK/OK UI/UC IN/IN",
		"echo without checks, drops":       "OK/OK OK/OK OK/OK F/F F/F F/F OK/OK F/F OK/OK OK/FC OK/OK F/WC UI/OK IN/IN",
		"echo without checks, keeps TCP":   "OK/FC OK/UC OK/UC F/F F/F F/F OK/FC F/F F/FC OK/FC OK/FC F/WC UI/UC IN/IN",
		"echo without checks, no Close":    "OK/UC OK/UC OK/UC F/F F/F F/F OK/UC F/F F/UC OK/FC OK/UC OK/FC UI/UC IN/IN",
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			report, err := RunServer(context.Background(), Config{
				URL: roughServers[server].listen(t), Agent: "rough", Run: ids, Parallel: len(ids),
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range strings.Fields(outcomes) {
				res := report.Result("rough", ids[i])
				if got := short[res.Behavior] + "/" + short[res.BehaviorClose]; got != want {
					t.Errorf("%s: %s, want %s (%s; %s)", ids[i], got, want, res.Result, res.ResultClose)
				}
			}
		})
	}
}

var short = map[Verdict]string{
	OK: "OK", NonStrict: "NS", Informational: "IN", Unimplemented: "UI", Failed: "F",
	WrongCode: "WC", Unclean: "UC", FailedByClient: "FC",
}

// A server that refuses TCP ends the run; what was done stays in the report.
func TestRefusedServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	report, err := RunServer(context.Background(), Config{URL: "ws://" + l.Addr().String(), Run: []string{"1.*"}})
	if err == nil || len(report.Agents()) != 0 {
		t.Fatalf("got %v, %v", err, report.Agents())
	}
}

func TestURLs(t *testing.T) {
	for _, bad := range []string{"http://localhost/", "localhost:9001", "ws://%zz"} {
		if _, err := RunServer(context.Background(), Config{URL: bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
