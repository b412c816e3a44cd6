package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/seed-07372d5a/websocket"
)

func Example_server() {
	echo := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return // err says who ended the connection, and why
			}
			c.Write(ctx, m)
		}
	}}
	http.Handle("/echo", echo)
	// http.ListenAndServe("localhost:8080", nil)
}

func Example_client() {
	url, stop := startEcho()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := websocket.Dial(ctx, url, nil) // for example "wss://example.com/echo"
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(websocket.CloseNormalClosure, "")
	if err := c.Write(ctx, websocket.Text("Hello")); err != nil {
		log.Fatal(err)
	}
	m, err := c.Read(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", m.Type, m.Data)
	// Output: text: Hello
}

// startEcho serves as Example_server does.
func startEcho() (url string, stop func()) {
	s := httptest.NewServer(&websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return
			}
			c.Write(ctx, m)
		}
	}})
	return s.URL, s.Close
}

// A handler of one's own, with a page from another host let in.
func ExampleAccept() {
	http.HandleFunc("/clock", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Origins: []string{"https://*.example.com"}})
		if err != nil {
			return // the request has been answered
		}
		go c.Serve(context.Background(), nil) // nothing is expected, but somebody must read
		for {
			select {
			case t := <-time.After(time.Second):
				c.Post(websocket.Text(t.Format(time.TimeOnly)))
			case <-c.Context().Done():
				return
			}
		}
	})
}

// A broadcast encodes its message once and waits for nobody. A receiver that is
// too slow is told to go.
func ExamplePrepare() {
	s := new(websocket.Server)
	s.Handler = func(ctx context.Context, c *websocket.Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return
			}
			m = websocket.Prepare(m)
			for c := range s.Conns() {
				if errors.Is(c.Post(m), websocket.ErrQueueFull) {
					go c.Close(websocket.ClosePolicyViolation, "too slow")
				}
			}
		}
	}
	hs := httptest.NewServer(s)
	defer hs.Close()

	c, err := websocket.Dial(context.Background(), hs.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.CloseNow()
	c.Write(context.Background(), websocket.Text("news for all"))
	m, _ := c.Read(context.Background())
	fmt.Printf("%s\n", m.Data)
	// Output: news for all
}

// Messages that came together are answered together: one read, one write.
func ExampleConn_Serve() {
	a, b := net.Pipe()
	server := websocket.NewConn(a, websocket.Params{})
	done := make(chan struct{})
	go server.Serve(context.Background(), &websocket.Handler{
		Message: func(c *websocket.Conn, m websocket.Message) { c.Queue(m) },
		Close: func(c *websocket.Conn, err error) {
			fmt.Println("server:", err)
			close(done)
		},
	})

	client := websocket.NewConn(b, websocket.Params{Client: true})
	go client.Write(context.Background(), websocket.Text("ping-pong"))
	m, _ := client.Read(context.Background())
	fmt.Printf("client: %s\n", m.Data)
	client.Close(4000, "enough")
	<-done
	// Output:
	// client: ping-pong
	// server: websocket: closed by the peer: 4000 "enough"
}

// Whose doing was it?
func ExampleCodeOf() {
	explain := func(err error) string {
		var peer *websocket.CloseError
		var rule *websocket.ProtocolError
		switch {
		case errors.As(err, &peer):
			return "the peer said goodbye: " + peer.Code.String()
		case errors.As(err, &rule):
			return "the peer broke a rule: " + rule.Reason
		case errors.Is(err, websocket.ErrPeerTimeout):
			return "the peer fell silent"
		case errors.Is(err, net.ErrClosed):
			return "we closed it"
		default:
			return "the network: " + err.Error()
		}
	}
	err := error(&websocket.CloseError{Code: websocket.CloseGoingAway})
	fmt.Println(explain(err))
	fmt.Println(websocket.CodeOf(err) == websocket.CloseGoingAway)
	// Output:
	// the peer said goodbye: 1001 going away
	// true
}

func ExampleServer_Shutdown() {
	ws := &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) { c.Serve(ctx, nil) }}
	hs := &http.Server{Addr: "localhost:8080", Handler: ws}

	// On the way out: no new requests, then goodbye to those who are here.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	hs.Shutdown(ctx)
	ws.Shutdown(ctx)
}
