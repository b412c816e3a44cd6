// Configsync keeps gateways up to date with a configuration that an administrator
// edits, through servers that may be killed.
//
//	go run ./examples/configsync
//
// store.go has the configuration and its differences, server.go what gateways
// connect to, gateway.go the gateways, and page the administrator's page.
// README.md says what to look at.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session/js"
)

//go:embed page
var page embed.FS

func main() {
	addr := flag.String("addr", "localhost:8080", "the `address` of the administrator's page")
	a := flag.String("a", "localhost:8091", "the `address` of server A")
	b := flag.String("b", "localhost:8092", "the `address` of server B")
	count := flag.Int("gateways", 5, "how many gateways there are")
	flag.Parse()

	// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *addr, []string{*a, *b}, *count, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "configsync:", err)
		os.Exit(1)
	}
}

// seed is the configuration at the start.
var seed = [][2]string{
	{"banner.text", "Welcome"}, {"cache.ttl", "300s"}, {"feature.dark-mode", "on"}, {"http.timeout", "5s"}, {"log.level", "info"},
	{"pool.size", "32"}, {"rate.limit", "100/s"}, {"retry.max", "3"}, {"route.api", "10.0.0.7:8080"}, {"tls.min-version", "1.2"},
}

// run starts the servers, the gateways and the page, until ctx ends.
func run(ctx context.Context, addr string, addrs []string, count int, out io.Writer) error {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken by another program; choose another port with -addr", addr)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	o, err := newOffice(addrs, count)
	if err != nil {
		return err
	}
	defer o.end()
	working, rest := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer rest()
	for _, g := range o.gateways {
		wg.Go(func() { g.run(working) })
	}
	wg.Go(func() { o.work(working) })

	ws := &websocket.Server{
		Options: websocket.AcceptOptions{Config: websocket.Config{CloseTimeout: 2 * time.Second}}, Handler: o.serve,
	}
	web := &http.Server{Handler: routes(ws), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	fmt.Fprintf(out, "Administrator: %s\n", address(addr, l.Addr()))
	for _, s := range o.servers {
		fmt.Fprintf(out, "Server %s:      %s\n", s.name, s.url())
	}
	fmt.Fprintf(out, "%d gateways know both servers. Ctrl-C ends it all.\n", count)

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

// shutdown tells the pages that they may come back, and ends both servers.
func shutdown(ws *websocket.Server, web *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var told sync.WaitGroup
	for c := range ws.Conns() {
		told.Go(func() { c.Close(websocket.CloseServiceRestart, "the office will be open again soon") })
	}
	told.Wait() // for CloseTimeout at most
	err := ws.Shutdown(ctx)
	ctx, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if web.Shutdown(ctx) != nil {
		err = errors.Join(err, web.Close())
	}
	return err
}

// routes has the page, what it is made of, and its session.
func routes(ws http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/session", ws)
	mux.Handle("GET /session.js", http.FileServerFS(js.Files))
	for path, name := range map[string]string{
		"/{$}": "index.html", "/configsync.js": "configsync.js", "/configsync.css": "configsync.css", "/icon.svg": "icon.svg",
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, page, "page/"+name)
		})
	}
	return guard(mux)
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

// gatewayName is "Gateway 1" and so on.
func gatewayName(i int) string { return "Gateway " + strconv.Itoa(i+1) }
