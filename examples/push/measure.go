package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/seed-07372d5a/websocket"
)

// measure.go owns the comparison. The server is this program in a process of its
// own, whose CPU time and memory are read from inside; the clients are in this
// one, and count the bytes of their connections, so that the server does not pay
// for counting.

// A plan is what is measured.
type plan struct {
	clients int           // of each kind
	every   time.Duration // how often there is an update
	poll    time.Duration // how often those who poll ask; the page does it every second
	settle  time.Duration // how long clients are left alone before they are measured
	window  time.Duration // how long they are
}

// A kind is one of the four ways, as a client sees it.
type kind struct {
	name string
	path string
	// follow calls got for all quotes that arrive, until the connection ends.
	follow func(c net.Conn, k kind, url string, got func(q []byte)) error
	accept string
	pause  time.Duration // between an answer and the next request
}

func kinds(poll time.Duration) []kind {
	return []kind{
		{"polling, every " + poll.String(), "/poll", ask, "*/*", poll},
		{"long polling", "/long", ask, "*/*", 0},
		{"Server-Sent Events", "/events", listen, "text/event-stream", 0},
		{"WebSocket", "/ws", converse, "", 0},
	}
}

// browser is what Chromium sends with a request of a page's script, besides Host
// and Accept. It has no cookies.
var browser = []string{
	"Accept-Encoding: gzip, deflate, br, zstd",
	"Accept-Language: en-US,en;q=0.9",
	"Connection: keep-alive",
	`Sec-Ch-Ua: "Not:A-Brand";v="8", "Chromium";v="156"`,
	"Sec-Ch-Ua-Mobile: ?0",
	`Sec-Ch-Ua-Platform: "Linux"`,
	"Sec-Fetch-Dest: empty",
	"Sec-Fetch-Mode: cors",
	"Sec-Fetch-Site: same-origin",
	userAgent,
}

const userAgent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"

// request sends one for the quotes after a time, as a browser does.
func (k kind) request(c net.Conn, after int64) error {
	b := fmt.Appendf(nil, "GET %s?after=%d HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n%s\r\n\r\n",
		k.path, after, c.RemoteAddr(), k.accept, strings.Join(browser, "\r\n"))
	_, err := c.Write(b)
	return err
}

// ask polls, in the short or the long way.
func ask(c net.Conn, k kind, url string, got func([]byte)) error {
	r := bufio.NewReader(c)
	var after int64
	for {
		if err := k.request(c, after); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		var quotes []json.RawMessage
		if err := json.Unmarshal(body, &quotes); err != nil {
			return err
		}
		for _, q := range quotes {
			got(q)
			after = published(q)
		}
		time.Sleep(k.pause)
	}
}

// listen reads events.
func listen(c net.Conn, k kind, url string, got func([]byte)) error {
	if err := k.request(c, 0); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if q, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			got(q)
		}
	}
	return lines.Err()
}

// converse reads messages.
func converse(c net.Conn, k kind, url string, got func([]byte)) error {
	name, value, _ := strings.Cut(userAgent, ": ")
	ctx := context.Background()
	conn, err := websocket.Dial(ctx, url+k.path, &websocket.DialOptions{
		Header: http.Header{name: {value}, "Origin": {url}, "Accept-Language": {"en-US,en;q=0.9"}},
		Client: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
		}},
	})
	if err != nil {
		return err
	}
	for m, err := range conn.Messages(ctx) {
		if err != nil {
			return err
		}
		got(m.Data)
	}
	return nil
}

// published reads when a quote was.
func published(q []byte) int64 {
	q = bytes.TrimPrefix(q, []byte(`{"t":`))
	n := max(0, bytes.IndexByte(q, ','))
	t, _ := strconv.ParseInt(string(q[:n]), 10, 64)
	return t
}

// A crowd is the clients of one kind.
type crowd struct {
	conns []net.Conn
	ended sync.WaitGroup
	bytes atomic.Int64

	mu      sync.Mutex
	arrived []arrival
	err     error // the first of those that came before the end
	closing bool
}

// An arrival is a quote with how long it was under way.
type arrival struct {
	quote int64
	took  time.Duration
}

// gather connects clients, evenly spread over the time between two polls.
func gather(ctx context.Context, k kind, url string, p plan) (*crowd, error) {
	c := new(crowd)
	for range p.clients {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			c.disperse()
			return nil, err
		}
		conn = tapped{conn, &c.bytes}
		c.conns = append(c.conns, conn)
		c.ended.Go(func() {
			err := k.follow(conn, k, url, c.got)
			c.mu.Lock()
			defer c.mu.Unlock()
			if !c.closing && c.err == nil {
				c.err = fmt.Errorf("%s: a client has ended: %w", k.name, err)
			}
		})
		if err := pause(ctx, p.poll/time.Duration(p.clients)); err != nil {
			c.disperse()
			return nil, err
		}
	}
	return c, nil
}

func (c *crowd) got(q []byte) {
	now := time.Now()
	t := published(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrived = append(c.arrived, arrival{t, now.Sub(time.UnixMicro(t))})
}

// disperse ends the clients.
func (c *crowd) disperse() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.ended.Wait()
}

// A tapped connection counts what it carries.
type tapped struct {
	net.Conn
	bytes *atomic.Int64
}

func (t tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.bytes.Add(int64(n))
	return n, err
}

func (t tapped) Write(p []byte) (int, error) {
	n, err := t.Conn.Write(p)
	t.bytes.Add(int64(n))
	return n, err
}

// Figures are what the server says about itself.
type figures struct {
	Now    int64         // microseconds since 1970
	CPU    time.Duration // used so far
	Memory int64         // heap in use and stacks, in bytes, after garbage collection if it was asked for
}

// report writes figures for each line of input: those of "memory" after garbage
// collection.
func report(in io.Reader, out io.Writer) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		f := figures{Now: time.Now().UnixMicro()}
		f.CPU, _ = cpuTime()
		if lines.Text() == "memory" {
			runtime.GC()
			runtime.GC() // the second empties what sync.Pools have kept from the first
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		f.Memory = int64(m.HeapInuse + m.StackInuse)
		json.NewEncoder(out).Encode(f)
	}
}

// A subject is the server that is measured.
type subject struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	url string
}

// start runs this program again, as a server.
func start(ctx context.Context, every time.Duration) (*subject, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &subject{cmd: exec.CommandContext(ctx, program, "-report", "-addr", "127.0.0.1:0", "-every", every.String())}
	s.cmd.Stderr = os.Stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	if s.url = regexp.MustCompile(`http://\S+`).FindString(line); s.url == "" {
		s.stop()
		return nil, fmt.Errorf("the server has not started: %q, %w", line, err)
	}
	return s, nil
}

func (s *subject) ask(what string) (f figures, err error) {
	if _, err = fmt.Fprintln(s.in, what); err != nil {
		return f, err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(line, &f)
}

func (s *subject) stop() error {
	s.in.Close() // it ends by itself
	return s.cmd.Wait()
}

// A result is a row of the table.
type result struct {
	kind     string
	updates  int           // of the server, in the window
	share    float64       // of them that arrived at a client, on average
	cpu      time.Duration // of the server, per update and client
	memory   int64         // of the server, per client
	bytes    float64       // per update and client
	p50, p99 time.Duration
}

// measure compares the kinds, one after the other, each with a server of its own.
func measure(ctx context.Context, out io.Writer, p plan) error {
	if _, err := cpuTime(); err != nil {
		return err
	}
	if p.clients < 1 || p.every <= 0 || p.window < p.every {
		return errors.New("there is nothing to measure: no clients, or no time")
	}
	fmt.Fprintf(out, "%d clients of each kind, an update every %v, looked at for %v after %v to settle.\n%s\n\n",
		p.clients, p.every, p.window, p.settle, machine())
	var results []result
	for _, k := range kinds(p.poll) {
		r, err := p.measure(ctx, k)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	return table(out, results)
}

// measure measures one kind.
func (p plan) measure(ctx context.Context, k kind) (r result, err error) {
	s, err := start(ctx, p.every)
	if err != nil {
		return r, err
	}
	defer s.stop()
	alone, err := s.ask("memory")
	if err != nil {
		return r, err
	}
	c, err := gather(ctx, k, s.url, p)
	if err != nil {
		return r, err
	}
	defer c.disperse()
	if err := pause(ctx, p.settle); err != nil {
		return r, err
	}
	begin, err := s.ask("figures")
	if err != nil {
		return r, err
	}
	carried := c.bytes.Load()
	if err := pause(ctx, p.window); err != nil {
		return r, err
	}
	end, err := s.ask("figures")
	if err != nil {
		return r, err
	}
	carried = c.bytes.Load() - carried
	crowded, err := s.ask("memory")
	if err != nil {
		return r, err
	}
	updates, took, err := c.await(ctx, begin.Now, end.Now)
	if err != nil {
		return r, err
	}
	slices.Sort(took)
	n := updates * p.clients
	return result{
		kind: k.name, updates: updates, share: float64(len(took)) / float64(n),
		cpu:    (end.CPU - begin.CPU) / time.Duration(n),
		memory: (crowded.Memory - alone.Memory) / int64(p.clients),
		bytes:  float64(carried) / float64(n),
		p50:    took[len(took)/2], p99: took[len(took)*99/100],
	}, nil
}

// await returns how many updates were published between two times, and how long
// they took to all clients. Those that are under way have some seconds to arrive.
func (c *crowd) await(ctx context.Context, begin, end int64) (int, []time.Duration, error) {
	for range 100 {
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return 0, nil, err
		}
		updates, took, err := c.between(begin, end)
		if err != nil || len(took) > 0 && len(took) == updates*len(c.conns) {
			return updates, took, err
		}
	}
	updates, took, err := c.between(begin, end)
	if err == nil && len(took) == 0 {
		err = errors.New("no update has arrived")
	}
	return updates, took, err
}

func (c *crowd) between(begin, end int64) (int, []time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var took []time.Duration
	updates := make(map[int64]bool)
	for _, a := range c.arrived {
		if begin <= a.quote && a.quote < end {
			updates[a.quote] = true
			took = append(took, a.took)
		}
	}
	return len(updates), took, c.err
}

// table prints the results, in Markdown.
func table(out io.Writer, results []result) error {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| kind\t| server CPU per update and client\t| server memory per client\t| on the wire per update\t| latency p50\t| p99\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range results {
		fmt.Fprintf(w, "| %s\t| %.1f µs\t| %.1f KB\t| %.0f B\t| %s\t| %s\t|\n", r.kind,
			float64(r.cpu)/1e3, float64(r.memory)/1e3, r.bytes, milliseconds(r.p50), milliseconds(r.p99))
	}
	w.Flush()
	for _, r := range results {
		if r.share != 1 {
			fmt.Fprintf(&b, "\n%s: a client got %.2f %% of %d updates.\n", r.kind, 100*r.share, r.updates)
		}
	}
	_, err := out.Write(b.Bytes())
	return err
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / 1e6
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// machine says where this runs.
func machine() string {
	cpu := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.+)`).FindSubmatch(b); m != nil {
			cpu = string(m[1])
		}
	}
	return fmt.Sprintf("Server and clients share %d × %s, %s, %s; HTTP/1.1, nothing is compressed.",
		runtime.NumCPU(), cpu, runtime.GOOS, runtime.Version())
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
