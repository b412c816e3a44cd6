// Chat is a room where people talk, in a page that this program serves.
//
//	go run ./examples/chat
//
// room.go is the server's half of the conversation, page/chat.js the page's. It
// stands on package websocket alone: its names are claimed by the first message
// and belong to one page, and one lock gives all the same order, which is most
// of it. A chat that leaves this to package hub has 30 lines: see the example of
// hub.Endpoint.
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
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "localhost:8080", "the `address` to listen on; \":8080\" is open to other devices too")
	flag.Parse()

	// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *addr, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// run serves the chat until ctx ends.
func run(ctx context.Context, addr string, out io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another port with -addr, such as -addr localhost:8081", addr)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "The chat is open at %s (Ctrl-C ends it)\n", address(addr, l.Addr()))

	ws := &websocket.Server{Options: options, Handler: new(room).serve}
	web := &http.Server{Handler: routes(ws), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return shutdown(ws, web)
	}
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

// shutdown tells the pages that they may come back, and ends both servers: an
// http.Server forgets the connections that were upgraded. Whoever comes while
// it goes on is turned away by ws.Shutdown.
func shutdown(ws *websocket.Server, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var told sync.WaitGroup
	for c := range ws.Conns() {
		told.Go(func() { c.Close(websocket.CloseServiceRestart, "the chat will be back soon") })
	}
	told.Wait() // for options.Config.CloseTimeout at most
	err := ws.Shutdown(ctx)

	// A second is plenty for the files of the page. What is left then are
	// connections that browsers keep ready without asking for anything.
	ctx, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if web.Shutdown(ctx) != nil {
		err = errors.Join(err, web.Close())
	}
	return err
}

// routes has the conversation at /chat, and the page everywhere else.
func routes(ws http.Handler) http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the files are in the program
	}
	mux := http.NewServeMux()
	mux.Handle("/chat", ws)
	mux.Handle("/", guard(http.FileServerFS(files)))
	return mux
}

// policy lets the page use what comes from this server, and nothing else: were
// somebody's text ever taken for HTML, its scripts would not run, its pictures
// would not load, and the browser would refuse it in the first place.
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
