package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/leak"
	"github.com/seed-07372d5a/websocket/wstest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-report" { // TestMeasure has started its server
		main()
		return
	}
	os.Exit(leak.Run(m))
}

const host = "push.example:80"

// A place is a server in a bubble, on a network whose buffers are small.
type place struct {
	*server
	t   *testing.T
	net *wstest.Network
}

func open(t *testing.T) *place {
	p := &place{newServer(new(meters)), t, &wstest.Network{Buffer: 1 << 10}}
	l, err := p.net.Listen(host)
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.web.Serve(new(meters).listener(l))
	}()
	t.Cleanup(func() {
		require.NoError(t, p.shutdown())
		<-ended
	})
	return p
}

func (p *place) dial() net.Conn {
	c, err := p.net.DialContext(p.t.Context(), "tcp", host)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { c.Close() })
	return c
}

// A reader is a client that keeps what it gets.
type reader struct {
	mu     sync.Mutex
	quotes []string
}

// read follows the feed in one of the ways.
func (p *place) read(k kind) *reader {
	r, c := new(reader), p.dial()
	var ended sync.WaitGroup
	ended.Go(func() {
		k.follow(c, k, "http://"+host, func(q []byte) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.quotes = append(r.quotes, string(q))
		})
	})
	p.t.Cleanup(func() {
		c.Close()
		ended.Wait()
	})
	return r
}

func (r *reader) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.quotes
}

// publish publishes n quotes at once.
func (p *place) publish(n int) (quotes []string) {
	for i := range n {
		q := p.feed.publish(listed[i%len(listed)].symbol, float64(i))
		quotes = append(quotes, string(q.json))
	}
	return quotes
}

func TestQuote(t *testing.T) {
	f := newFeed()
	now := time.UnixMicro(1795334400123456)
	q := f.add("ACME", 17.254, now)
	require.Equal(t, `{"t":1795334400123456,"s":"ACME","p":17.25}`, string(q.json))
	require.Equal(t, "id: 1795334400123456\ndata: "+string(q.json)+"\n\n", string(q.event))
	require.Equal(t, q.time+1, f.add("ACME", 17, now).time, "times are numbers, too")
	require.Equal(t, q.time+2, f.add("ACME", 17, now.Add(-time.Hour)).time)
}

// Whichever way they come, quotes are the same in the same order, for those who
// were there from the beginning and for those who come later.
func TestSameSequence(t *testing.T) {
	for _, k := range kinds(time.Second) {
		t.Run(strings.Trim(k.path, "/"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := open(t)
				early := p.read(k)
				var want []string
				for i := range 60 {
					want = append(want, p.publish(1+i%5)...)
					time.Sleep(time.Duration(i*i) * time.Millisecond)
				}
				late := p.read(k)
				time.Sleep(2 * time.Second)
				want = append(want, p.publish(7)...)
				time.Sleep(2 * time.Second)
				require.Equal(t, want, early.got())
				require.Equal(t, want, late.got())
			})
		})
	}
}

// get asks for something, in the bubble.
func (p *place) get(path string, header ...string) *http.Response {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), "GET", "http://"+host+path, nil)
	require.NoError(p.t, err)
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	client := p.net.Client()
	p.t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Do(r)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (p *place) body(path string) string {
	p.t.Helper()
	b, err := io.ReadAll(p.get(path).Body)
	require.NoError(p.t, err)
	return string(b)
}

// Who comes back gets what they have missed, and nothing else.
func TestComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		quotes := p.publish(10)
		for _, c := range []struct {
			name  string
			after int64
			want  []string
		}{
			{"three are missed", published([]byte(quotes[6])), quotes[7:]},
			{"a time between two quotes", published([]byte(quotes[0])) - 1, quotes},
			{"a clock that was set back", published([]byte(quotes[9])) + 1e9, quotes},
		} {
			array := "[" + strings.Join(c.want, ",") + "]"
			query := fmt.Sprintf("?after=%d", c.after)
			require.Equal(t, array, p.body("/poll"+query), c.name)
			require.Equal(t, array, p.body("/long"+query), c.name)

			for _, resp := range []*http.Response{
				p.get("/events" + query),
				p.get("/events?after=1", fmt.Sprintf("Last-Event-ID: %d", c.after)),
			} {
				require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
				lines := bufio.NewScanner(resp.Body)
				for _, q := range c.want {
					for _, line := range []string{fmt.Sprintf("id: %d", published([]byte(q))), "data: " + q, ""} {
						require.True(t, lines.Scan())
						require.Equal(t, line, lines.Text(), c.name)
					}
				}
				resp.Body.Close()
			}

			conn, err := websocket.Dial(t.Context(), "http://"+host+"/ws"+query, &websocket.DialOptions{Client: p.net.Client()})
			require.NoError(t, err)
			for _, q := range c.want {
				m, err := conn.Read(t.Context())
				require.NoError(t, err)
				require.Equal(t, websocket.Text(q), m, c.name)
			}
			require.NoError(t, conn.Close(websocket.CloseNormalClosure, ""))
		}
		require.Equal(t, "[]", p.body(fmt.Sprintf("/poll?after=%d", published([]byte(quotes[9])))))
	})
}

// Somebody who is too far behind gets the last quotes.
func TestFarBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		var all []string
		for _, n := range []int{kept - 1, 2, kept - 1, 1, 3 * kept} {
			all = append(all, p.publish(n)...)
			require.Equal(t, "["+strings.Join(all[max(0, len(all)-kept):], ",")+"]", p.body("/poll"))
		}
		require.LessOrEqual(t, cap(p.feed.quotes), 2*kept)
	})
}

// Who comes while quotes are published misses none, and gets none twice.
func TestComesMeanwhile(t *testing.T) {
	for _, k := range kinds(time.Second) {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				p := open(t)
				var want []string
				var ended sync.WaitGroup
				ended.Go(func() {
					for range kept / 2 {
						want = append(want, p.publish(1)...)
						runtime.Gosched()
					}
				})
				var readers []*reader
				for range 4 {
					readers = append(readers, p.read(k))
				}
				ended.Wait()
				time.Sleep(2 * time.Second)
				for _, r := range readers {
					require.Equal(t, want, r.got(), k.name)
				}
			})
		}
	}
}

// Those who wait are told when the server goes.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		events := p.get("/events")
		var ended sync.WaitGroup
		ended.Go(func() {
			synctest.Wait()
			p.shutdown()
		})
		require.Equal(t, http.StatusServiceUnavailable, p.get("/long").StatusCode)
		_, err := io.ReadAll(events.Body)
		require.NoError(t, err, "the answer is whole")
		ended.Wait()
	})
}

// Clients that read nothing, and such that have gone without a word, hold nobody
// up: publishing takes no time, and the others get all of it. (A69, A119)
func TestSlowAndVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		var readers []*reader
		for _, k := range kinds(time.Second)[1:] { // who polls asks when they like
			readers = append(readers, p.read(k))
		}
		deaf := make(map[string]*wstest.Peer)
		for _, path := range []string{"/poll", "/long", "/events", "/ws"} {
			for _, vanishes := range []bool{false, true} {
				peer := wstest.NewPeer(t, p.dial(), wstest.Client)
				if path == "/ws" {
					peer.Dial(path)
				} else {
					peer.Send([]byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n"))
				}
				synctest.Wait()
				if vanishes {
					peer.Close()
				} else {
					deaf[path] = peer
				}
			}
		}
		start := time.Now()
		var want []string
		for range 50 {
			want = append(want, p.publish(100)...)
			synctest.Wait()
		}
		require.Zero(t, time.Since(start))
		for i, r := range readers {
			require.Equal(t, want, r.got(), kinds(0)[1+i].name)
		}
		require.Equal(t, int64(2), p.feed.hub.Stats().Members, "one reads, one is deaf")

		// The deaf one that hears again is not told everything, but the last price of
		// each symbol.
		last := make(map[string]string)
		for _, q := range want[len(want)-len(listed):] {
			last[symbolOf(t, q)] = q
		}
		heard, frames := make(map[string]string), 0
		for ; !maps.Equal(last, heard); frames++ {
			q := deaf["/ws"].Frame().Payload
			heard[symbolOf(t, q)] = q
		}
		require.Less(t, frames, len(want)/2)

		// The others are cut when the network has taken nothing for long.
		time.Sleep(writeTime + time.Second)
		b, _ := io.ReadAll(deaf["/events"].Conn)
		require.Less(t, len(b), 4<<10, "what was under way, and no more")
	})
}

func symbolOf(t *testing.T, q string) string {
	var v struct{ S string }
	require.NoError(t, json.Unmarshal([]byte(q), &v))
	return v.S
}

// Without quotes, those who wait get a word before proxies lose their patience.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		start := time.Now()
		require.Equal(t, "[]", p.body("/long"))
		require.Equal(t, patience, time.Since(start))

		events := p.get("/events").Body
		start = time.Now()
		b := make([]byte, 3)
		for range 2 {
			_, err := io.ReadFull(events, b)
			require.NoError(t, err)
			require.Equal(t, ":\n\n", string(b))
		}
		require.Equal(t, 2*patience, time.Since(start))
	})
}

func TestBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		for path, want := range map[string]int{
			"/poll?after=x": 400, "/long?after=-1": 400, "/events?after=1e9": 400, "/ws?after=99999999999999999999": 400,
			"/ws": 426, "/stats": 400, "/stats?page=" + strings.Repeat("a", maxName+1): 400, "/nothing": 404,
		} {
			require.Equal(t, want, p.get(path).StatusCode, path)
		}
		conn, err := websocket.Dial(t.Context(), "http://"+host+"/ws", &websocket.DialOptions{Client: p.net.Client()})
		require.NoError(t, err)
		require.NoError(t, conn.Write(t.Context(), websocket.Text("hello"))) // nothing is expected
		_, err = conn.Read(t.Context())
		require.Equal(t, websocket.CloseMessageTooBig, websocket.CodeOf(err))
	})
}

// The server's figures are those that the client's end of the connection counts,
// also when a connection serves one kind after another.
func TestBytesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t)
		last := published([]byte(p.publish(20)[19]))
		type figures struct{ Requests, In, Out int64 }
		var want struct{ Kinds map[string]figures }
		stats := func() {
			t.Helper()
			synctest.Wait() // until what is written is counted, too
			got := want
			got.Kinds = nil
			require.NoError(t, json.Unmarshal([]byte(p.body("/stats?page=me")), &got))
			require.Equal(t, want, got)
		}
		want.Kinds = map[string]figures{"/poll": {}, "/long": {}, "/events": {}, "/ws": {}}
		stats()

		c := p.dial()
		r := bufio.NewReader(c)
		for _, path := range []string{"/poll", "/", "/long", "/poll", "/push.css", "/long", "/poll"} {
			request := "GET " + path + "?page=me HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
			answer := exchange(t, c, r, request)
			if f, ok := want.Kinds[path]; ok {
				want.Kinds[path] = figures{f.Requests + 1, f.In + int64(len(request)), f.Out + answer}
			}
			stats()
		}

		// What is read after an upgrade counts at once.
		n := new(atomic.Int64)
		peer := wstest.NewPeer(t, tapped{p.dial(), n}, wstest.Client)
		peer.Dial(fmt.Sprintf("/ws?page=me&after=%d", last))
		before := n.Load()
		peer.SendFrames(wstest.Frame{Op: websocket.OpPing, Payload: "hello"})
		peer.Expect(wstest.Frame{Op: websocket.OpPong, Payload: "hello"})
		require.Equal(t, before+2*2+4+2*5, n.Load())
		synctest.Wait()
		var got struct{ Kinds map[string]figures }
		require.NoError(t, json.Unmarshal([]byte(p.body("/stats?page=me")), &got))
		require.Equal(t, n.Load(), got.Kinds["/ws"].In+got.Kinds["/ws"].Out)
		peer.Close()

		ends := make(map[string]*atomic.Int64)
		for _, k := range kinds(0)[2:] {
			n := new(atomic.Int64)
			ends[k.path] = n
			k.path += "?page=you&and=" // what follows does not matter
			c := tapped{p.dial(), n}
			var ended sync.WaitGroup
			ended.Go(func() { k.follow(c, k, "http://"+host, func([]byte) {}) })
			t.Cleanup(func() {
				c.Close()
				ended.Wait()
			})
		}
		synctest.Wait()
		p.publish(5)
		synctest.Wait()
		require.NoError(t, json.Unmarshal([]byte(p.body("/stats?page=you")), &got))
		for path, n := range ends {
			f := got.Kinds[path]
			require.Equal(t, int64(1), f.Requests, path)
			require.Greater(t, f.In, int64(100), path)
			require.Equal(t, n.Load(), f.In+f.Out, path)
		}
	})
}

// exchange sends a request, and returns how many bytes the answer has.
func exchange(t *testing.T, c net.Conn, r *bufio.Reader, request string) int64 {
	go io.WriteString(c, request)
	var all bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.TeeReader(oneByte{r}, &all), 16), nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return int64(all.Len())
}

// oneByte reads no more than it has to.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

func TestVisitorsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := new(meters)
		visit := func(name string) *visitor {
			time.Sleep(time.Second)
			return m.visitor(httptest.NewRequest("GET", "/stats?page="+name, nil))
		}
		first, second := visit("first"), visit("second")
		for i := range maxVisitors {
			visit(fmt.Sprint(i))
			require.Same(t, first, visit("first"))
		}
		require.Len(t, m.visitors, maxVisitors)
		require.NotSame(t, second, visit("second"))
	})
}

func TestPageIsGuarded(t *testing.T) {
	web := httptest.NewServer(newServer(nil).web.Handler)
	defer web.Close()
	elsewhere := regexp.MustCompile(`(src|href)="(https?:)?//|style="|\son[a-z]+="|<script>|innerHTML|insertAdjacent|document\.write`)
	for path, kind := range map[string]string{
		"/": "text/html", "/push.js": "text/javascript", "/push.css": "text/css", "/icon.svg": "image/svg+xml",
	} {
		resp, err := web.Client().Get(web.URL + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), path)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		require.Empty(t, elsewhere.FindString(string(body)), path)
	}
}

// The program trades, and ends in good order while clients of all kinds wait.
func TestServe(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, "localhost:0", time.Millisecond, w, new(meters)) }()
	line := make([]byte, 200)
	n, err := r.Read(line)
	require.NoError(t, err)
	url := regexp.MustCompile(`http://localhost:\d+`).FindString(string(line[:n]))
	require.NotEmpty(t, url, "%s", line[:n])
	addr := strings.TrimPrefix(url, "http://")

	err = serve(ctx, addr, time.Second, new(bytes.Buffer), nil)
	require.ErrorContains(t, err, "is taken by another program; choose another port with -addr")

	var clients sync.WaitGroup
	for _, k := range kinds(time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		came := make(chan struct{}, 1)
		clients.Go(func() {
			k.follow(c, k, url, func(q []byte) {
				select {
				case came <- struct{}{}:
				default:
				}
			})
		})
		for range 3 {
			<-came
		}
	}
	spare, err := net.Dial("tcp", addr) // browsers do that
	require.NoError(t, err)
	defer spare.Close()
	interrupt()
	clients.Wait()
	require.NoError(t, <-ended)
}

// The comparison runs, at a small scale, and finds what cannot be otherwise.
func TestMeasure(t *testing.T) {
	if _, err := cpuTime(); err != nil {
		t.Skip(err)
	}
	p := plan{clients: 4, every: 20 * time.Millisecond, poll: 40 * time.Millisecond, settle: 100 * time.Millisecond, window: 400 * time.Millisecond}
	var out bytes.Buffer
	require.NoError(t, measure(t.Context(), &out, p))
	rows := regexp.MustCompile(`(?m)^\| (\S.*\S) +\| +[0-9.]+ µs +\| +-?[0-9.]+ KB +\| +([0-9]+) B +\| +[0-9.]+ ms +\| +[0-9.]+ ms +\|$`).
		FindAllStringSubmatch(out.String(), -1)
	require.Len(t, rows, 4, out.String())
	size := make(map[string]int)
	for _, r := range rows {
		n, err := strconv.Atoi(r[2])
		require.NoError(t, err)
		size[r[1]] = n
	}
	require.Less(t, size["WebSocket"], size["Server-Sent Events"], out.String())
	require.Less(t, size["Server-Sent Events"], size["long polling"], out.String())
	require.NotContains(t, out.String(), "a client got", "every client gets every update")

	require.ErrorContains(t, measure(t.Context(), &out, plan{}), "nothing to measure")
}

func TestAddress(t *testing.T) {
	l := &net.TCPAddr{IP: net.IPv4zero, Port: 81}
	for addr, want := range map[string]string{
		"localhost:0": "http://localhost:81", ":81": "http://localhost:81", "[::]:0": "http://localhost:81",
		"0.0.0.0:81": "http://localhost:81", "192.0.2.1:81": "http://192.0.2.1:81", "[::1]:81": "http://[::1]:81",
	} {
		require.Equal(t, want, address(addr, l), addr)
	}
}
