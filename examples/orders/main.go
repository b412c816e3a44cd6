// Orders is a dispatcher who sends orders to shops, over a network that breaks
// all the time, and a count that says that all arrive and none twice.
//
//	go run ./examples/orders
//
// dispatch.go is the dispatcher, proxy.go the bad network, and page has the two
// pages. README.md says what to look at.
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
	"sync"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/session/js"
)

//go:embed page
var pages embed.FS

func main() {
	addr := flag.String("addr", "localhost:8080", "the `address` of the pages; \":8080\" is open to other devices too")
	bad := flag.String("proxy", "localhost:8081", "the `address` of the proxy by which the shops connect")
	flag.Parse()

	// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *addr, *bad, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

// run serves the pages and the proxy until ctx ends.
func run(ctx context.Context, addr, bad string, out io.Writer) error {
	front, err := listen(addr, "-addr")
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := listen(bad, "-proxy")
	if err != nil {
		return err
	}
	defer back.Close()

	p := &proxy{to: front.Addr().String(), life: 2 * time.Second, stallTime: 2 * time.Second, fault: mixed}
	d := newDispatcher(p)
	options := websocket.AcceptOptions{Config: config}
	shops := &websocket.Server{Options: options, Handler: d.serveShop}
	desks := &websocket.Server{Options: options, Handler: d.serveDesk}
	web := &http.Server{
		Handler:           routes(shops, desks, port(front.Addr()), port(back.Addr())),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	failed := make(chan error, 2)
	var wg sync.WaitGroup
	wg.Go(func() { failed <- web.Serve(front) })
	wg.Go(func() { failed <- p.serve(back) })
	working, rest := context.WithCancel(ctx)
	wg.Go(func() { d.work(working) })

	url := address(addr, front.Addr())
	fmt.Fprintf(out, "Dispatcher: %s/dispatcher\nShop:       %s/shop (another one: %[2]s/shop?name=Harbour)\n", url, url)
	fmt.Fprintf(out, "Shops connect by a proxy on port %s that breaks connections. Ctrl-C ends it all.\n", port(back.Addr()))

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	rest()
	back.Close()
	err = errors.Join(err, shutdown(web, shops, desks))
	d.end()
	wg.Wait()
	return err
}

func listen(addr, option string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program; choose another port with %s", addr, option)
	}
	return l, err
}

func port(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

// address is what a browser is to be given. The port of l is the one that was
// found, if addr asked for any.
func address(addr string, l net.Addr) string {
	host, _, _ := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port(l))
}

// shutdown tells the pages that they may come back, and ends all servers.
func shutdown(web *http.Server, servers ...*websocket.Server) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var told sync.WaitGroup
	for _, ws := range servers {
		for c := range ws.Conns() {
			told.Go(func() { c.Close(websocket.CloseServiceRestart, "the dispatcher will be back soon") })
		}
	}
	told.Wait() // for config.CloseTimeout at most
	for _, ws := range servers {
		err = errors.Join(err, ws.Shutdown(ctx))
	}
	ctx, cancel = context.WithTimeout(ctx, time.Second)
	defer cancel()
	if web.Shutdown(ctx) != nil {
		err = errors.Join(err, web.Close())
	}
	return err
}

// routes has the two pages, their sessions, and what they are made of.
func routes(shops, desks http.Handler, own, bad string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/session/shop", through(shops, own, bad))
	mux.Handle("/session/dispatcher", desks)
	mux.HandleFunc("GET /proxy", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, bad) })
	mux.Handle("GET /session.js", http.FileServerFS(js.Files))
	for path, name := range map[string]string{
		"/dispatcher": "dispatcher.html", "/shop": "shop.html", "/dispatcher.js": "dispatcher.js", "/shop.js": "shop.js",
		"/common.js": "common.js", "/orders.css": "orders.css", "/icon.svg": "icon.svg",
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, pages, "page/"+name)
		})
	}
	mux.Handle("GET /{$}", http.RedirectHandler("/dispatcher", http.StatusFound))
	return guard(mux, bad)
}

// through lets the shop's page connect by the proxy. To a browser that is another
// origin, which the library would refuse; this program knows that behind the
// proxy's port there is only itself.
func through(h http.Handler, own, bad string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, port, err := net.SplitHostPort(r.Host); err == nil && port == bad {
			same := *r
			same.Host = net.JoinHostPort(host, own)
			r = &same
		}
		h.ServeHTTP(w, r)
	})
}

// guard lets the pages use what comes from this server and connect to it and to
// the proxy, and nothing else.
func guard(h http.Handler, bad string) http.Handler {
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws://*:" + bad +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-cache")
		h.ServeHTTP(w, r)
	})
}
