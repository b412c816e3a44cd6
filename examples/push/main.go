// Push delivers one feed of quotes in four ways, side by side on a page that this
// program serves: by polling, long polling, Server-Sent Events and WebSocket.
//
//	go run ./examples/push
//
// The page shows what each costs. With a thousand clients of each kind instead
// of one:
//
//	go run ./examples/push -measure
//
// feed.go has the quotes, kinds.go the four ways, meter.go counts bytes,
// measure.go measures.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "localhost:8080", "the `address` to listen on; \":8080\" is open to other devices too")
	every := flag.Duration("every", 0, "how often there is a quote, about (default 250ms, with -measure 500ms)")
	measuring := flag.Bool("measure", false, "compare the four kinds, and print a table")
	clients := flag.Int("clients", 1000, "with -measure: how many clients of each kind")
	window := flag.Duration("for", 20*time.Second, "with -measure: how long each kind is looked at")
	reporting := flag.Bool("report", false, "what -measure starts the server with: it counts no bytes, and tells its figures for each line of input")
	flag.Parse()
	if *every <= 0 {
		*every = 250 * time.Millisecond
		if *measuring {
			*every *= 2
		}
	}

	// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var err error
	switch {
	case *measuring:
		err = measure(ctx, os.Stdout, plan{*clients, *every, time.Second, 3 * time.Second, *window})
	case *reporting:
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			report(os.Stdin, os.Stdout)
			cancel() // whoever asked has gone
		}()
		err = serve(ctx, *addr, *every, os.Stdout, nil)
	default:
		err = serve(ctx, *addr, *every, os.Stdout, new(meters))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
}

// serve serves the page and its quotes until ctx ends.
func serve(ctx context.Context, addr string, every time.Duration, out io.Writer, m *meters) error {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another port with -addr, such as -addr localhost:8081", addr)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The quotes are at %s (Ctrl-C ends it)\n", address(addr, l.Addr()))

	s := newServer(m)
	failed := make(chan error, 1)
	go func() { failed <- s.web.Serve(m.listener(l)) }()
	market, stop := context.WithCancel(ctx)
	closed := make(chan struct{})
	go func() {
		s.feed.trade(market, every)
		close(closed)
	}()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = s.shutdown()
	}
	stop()
	<-closed
	return err
}

// address is what a browser is to be given. The port of l is the one that was
// found, if addr asked for any.
func address(addr string, l net.Addr) string {
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	_, port, _ := net.SplitHostPort(l.String())
	return "http://" + net.JoinHostPort(host, port)
}

// A server has the four kinds, and the page everywhere else.
type server struct {
	feed *feed
	web  *http.Server
	end  context.CancelFunc // of the requests that wait for quotes
}

// newServer counts bytes with m, if it is not nil.
func newServer(m *meters) *server {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the files are in the program
	}
	s := &server{feed: newFeed()}
	mux := http.NewServeMux()
	mux.HandleFunc("/poll", s.feed.poll)
	mux.HandleFunc("/long", s.feed.long)
	mux.HandleFunc("/events", s.feed.events)
	mux.Handle("/ws", s.feed.socket())
	mux.HandleFunc("/stats", m.stats)
	mux.Handle("/", guard(http.FileServerFS(files)))

	var ctx context.Context
	ctx, s.end = context.WithCancel(context.Background())
	s.web = &http.Server{
		Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	m.install(s.web)
	return s
}

// shutdown ends all that goes on: an http.Server would wait for the requests
// that wait for quotes, and forgets the connections that were upgraded.
func (s *server) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.end()
	err := s.feed.endpoint.Shutdown(ctx)

	// What is left after a second are connections that browsers keep ready
	// without asking for anything.
	ctx, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if s.web.Shutdown(ctx) != nil {
		err = errors.Join(err, s.web.Close())
	}
	return err
}

// policy lets the page use what comes from this server, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-cache")
		h.ServeHTTP(w, r)
	})
}
