// Cluster is one room on three servers, which a Redis connects, in a page on
// which each of them can be killed.
//
//	cd examples/cluster && go run .
//
// server.go is a server: all that a program of one's own would have of this.
// The rest is the stage: control.go has what the page's buttons do, process.go
// and redis.go what is killed by them.
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
	"strconv"
	"syscall"
	"time"
)

//go:embed page
var page embed.FS

func main() {
	port := flag.Int("port", 8080, "the page's `port` on this machine; 0: any that is free")
	addr := flag.String("redis", "", "the `address` of a Redis that is there; without it one is started")
	number := flag.Int("server", 0, "be the server with this `number`, on -listen: so the program starts itself")
	listen := flag.String("listen", "", "see -server")
	flag.Parse()

	ctx, stop := context.WithCancel(context.Background())
	var err error
	if *number > 0 {
		// It is ended by the program that has started it, or with it, and not by
		// a Ctrl-C that is meant for that one.
		signal.Ignore(os.Interrupt, syscall.SIGHUP)
		go func() {
			io.Copy(io.Discard, os.Stdin)
			stop()
		}()
		err = serve(ctx, *number, *listen, *addr, *port, os.Stdout)
	} else {
		// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		context.AfterFunc(ctx, stop)
		var redis *unit
		if redis, err = newRedis(*addr); err == nil {
			err = run(ctx, *port, redis, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run serves the page, and has the servers and Redis, until ctx ends.
func run(ctx context.Context, port int, redis *unit, out io.Writer) error {
	l, err := net.Listen("tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d is taken by another program; choose another one with -port", port)
	}
	if err != nil {
		return err
	}
	port = l.Addr().(*net.TCPAddr).Port
	c, err := newControl(redis, port)
	if err == nil {
		defer c.stop()
		err = c.start()
	}
	if err != nil {
		l.Close()
		return err
	}
	web := &http.Server{Handler: c.routes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	fmt.Fprintf(out, "Three servers and %s are running: http://localhost:%d (Ctrl-C ends them)\n", redis.Kind, port)
	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return web.Close()
	}
}

// routes has the page, and what its buttons are connected with at /control.
func (c *control) routes() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the files are in the program
	}
	// The page may use what comes from here, and connect to the three servers.
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
	for _, u := range c.units[:servers] {
		policy += " ws://" + u.Addr
	}
	policy += "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'"
	mux := http.NewServeMux()
	mux.Handle("/control", &c.pages)
	mux.Handle("/", guard(policy, http.FileServerFS(files)))
	return mux
}

func guard(policy string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("Cache-Control", "no-cache")
		h.ServeHTTP(w, r)
	})
}
