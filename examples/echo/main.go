// The echo server sends back every message that it is sent.
//
//	go run ./examples/echo
//	go run ./examples/echo/client Hello!
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed-07372d5a/websocket"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "the `address` to listen on")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("echo: ")

	// ctx ends on the first Ctrl-C; after stop, a second one kills as usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on ws://%s/echo", l.Addr())
	if err := serve(ctx, l); err != nil {
		log.Fatal(err)
	}
}

// echo is all of WebSocket in this program. It has a goroutine of its own; when
// it returns, the connection is closed.
func echo(ctx context.Context, c *websocket.Conn) {
	for m, err := range c.Messages(ctx) {
		if err != nil {
			log.Printf("%v: %v", c.NetConn().RemoteAddr(), err)
			return
		}
		// m is lent until the loop goes on: to keep it longer, clone it.
		// An error can be left alone: the next turn of the loop has it too.
		c.Write(ctx, m)
	}
}

// serve answers requests until ctx ends, and then lets the connections end in
// good order.
func serve(ctx context.Context, l net.Listener) error {
	ws := &websocket.Server{Handler: echo} // it knows its connections
	mux := http.NewServeMux()
	mux.Handle("/echo", ws)
	web := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	failed := make(chan error, 1)
	go func() { failed <- web.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	// Both are told: an http.Server forgets the connections that were upgraded.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(ws.Shutdown(ctx), web.Shutdown(ctx))
}
