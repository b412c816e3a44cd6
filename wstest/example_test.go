package wstest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

func ExamplePipe() {
	client, server := wstest.Pipe()
	go server.Serve(context.Background(), &websocket.Handler{
		Message: func(c *websocket.Conn, m websocket.Message) {
			c.Queue(websocket.Text(strings.ToUpper(string(m.Data))))
		},
	})
	client.Write(context.Background(), websocket.Text("hello"))
	m, _ := client.Read(context.Background())
	fmt.Printf("%s\n", m.Data)
	client.Close(websocket.CloseNormalClosure, "")
	// Output: HELLO
}

// A subscriber is the program under test: it reads news, and dials again when
// the connection is gone.
func subscriber(ctx context.Context, o *websocket.DialOptions, news func(string)) {
	for pause := time.Millisecond; ctx.Err() == nil; pause *= 2 {
		c, err := websocket.Dial(ctx, "ws://news.example", o)
		if err != nil {
			news("not connected")
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = time.Millisecond
		for m, err := range c.Messages(ctx) {
			if err == nil {
				news(string(m.Data))
			}
		}
		c.CloseNow()
	}
}

// Test my reconnect logic without a network. The server is killed and comes
// back; in a testing/synctest bubble the pauses between attempts take no time.
func ExampleNetwork() {
	network := new(wstest.Network)
	edition := func(name string) (stop func()) {
		return network.Serve("news.example:80", &websocket.Server{
			Handler: func(ctx context.Context, c *websocket.Conn) {
				c.Write(ctx, websocket.Text(name+" edition"))
				c.Serve(ctx, nil)
			},
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	news, done := make(chan string), make(chan struct{})
	go func() {
		defer close(done)
		subscriber(ctx, &websocket.DialOptions{Client: network.Client()}, func(s string) {
			select {
			case news <- s:
			case <-ctx.Done():
			}
		})
	}()

	fmt.Println(<-news) // nobody is there yet
	stop := edition("morning")
	for s := range news {
		if s != "not connected" {
			fmt.Println(s)
			break
		}
	}
	stop()              // as if the server had been killed
	fmt.Println(<-news) // the next attempt is refused
	stop = edition("evening")
	for s := range news {
		if s != "not connected" {
			fmt.Println(s)
			break
		}
	}
	cancel()
	<-done
	stop()
	// Output:
	// not connected
	// morning edition
	// not connected
	// evening edition
}

// See what my handler does with a peer that stalls in the middle of a message.
// In a testing/synctest bubble the default of half a minute takes no time; here
// the handler's patience is short instead.
func ExamplePeer() {
	handler := func(c *websocket.Conn) error {
		return c.Serve(context.Background(), &websocket.Handler{
			Message: func(c *websocket.Conn, m websocket.Message) { fmt.Printf("handler: %s\n", m.Data) },
		})
	}

	a, b := wstest.NetPipe()
	c := websocket.NewConn(a, websocket.Params{Config: websocket.Config{ProgressTimeout: 10 * time.Millisecond}})
	peer := wstest.NewPeer(nil, b, wstest.Client) // in a test: NewPeer(t, ...)
	peer.SendText("all of it")
	peer.SendFrames(wstest.Frame{Op: websocket.OpText, Payload: "half of", More: true})
	done := make(chan error)
	go func() { done <- handler(c) }()
	reason := peer.ExpectClose(websocket.ClosePolicyViolation)
	peer.ExpectEOF()
	peer.Close()

	var rule *websocket.ProtocolError
	err := <-done
	fmt.Println(errors.As(err, &rule), err)
	fmt.Printf("the peer was told: %q\n", reason)
	// Output:
	// handler: all of it
	// true websocket: peer failed: 1008 policy violation: pause inside a message
	// the peer was told: "pause inside a message"
}

// A conversation as text: what the program under test gets ("recv") and what it
// must say ("send").
func ExamplePeer_Play() {
	a, b := wstest.NetPipe()
	go func() { // a program that echoes
		c := websocket.NewConn(a, websocket.Params{})
		for m, err := range c.Messages(context.Background()) {
			if err == nil {
				c.Write(context.Background(), m)
			}
		}
	}()
	peer := wstest.NewPeer(nil, b, wstest.Client)
	peer.Play(`
		recv [masked text more "Hel"]
		recv [masked ping "still there?"]
		send [pong "still there?"]
		recv 80820102 0304 6d6d        # the rest of the message, byte by byte
		send [text "Hello"]
		recv [masked close 1000 "bye"]
		send [close 1000]
		send EOF
	`)
	fmt.Println("as expected")
	// Output: as expected
}

// The third write fails: does the program notice?
func ExampleFaults() {
	faults := &wstest.Faults{At: []wstest.Fault{{Call: wstest.Write, N: 3, Err: errors.New("cable pulled")}}}
	client, server := wstest.Link{ServerFaults: faults}.Pipe()
	go client.Serve(context.Background(), nil)
	for i := 1; ; i++ {
		if err := server.Write(context.Background(), websocket.Text("tick")); err != nil {
			fmt.Println("write", i, "failed:", err)
			break
		}
	}
	fmt.Println("ended:", context.Cause(server.Context()))
	client.CloseNow()
	// Output:
	// write 3 failed: cable pulled
	// ended: cable pulled
}

// Record a conversation once, and hold later versions of the program to it.
func ExampleRecorder() {
	greeter := func(greeting string) func(net.Conn) {
		return func(nc net.Conn) {
			c := websocket.NewConn(nc, websocket.Params{})
			c.Serve(context.Background(), &websocket.Handler{
				Message: func(c *websocket.Conn, m websocket.Message) {
					c.Queue(websocket.Text(greeting + ", " + string(m.Data)))
				},
			})
		}
	}

	// Once, and the log goes into testdata.
	a, b := wstest.NetPipe()
	recorder := new(wstest.Recorder)
	recorded := recorder.Wrap(a)
	go greeter("Hello")(recorded)
	client := websocket.NewConn(b, websocket.Params{Client: true})
	client.Write(context.Background(), websocket.Text("Ann"))
	m, _ := client.Read(context.Background())
	fmt.Printf("%s\n", m.Data)
	client.Close(websocket.CloseNormalClosure, "")

	// In every test from then on.
	for _, greeting := range []string{"Hello", "Good day"} {
		a, b := wstest.NetPipe()
		go greeter(greeting)(a)
		err := wstest.Replay(b, recorder.Log())
		if _, what, ok := strings.Cut(fmt.Sprint(err), ": expected"); ok {
			err = errors.New("expected" + what)
		}
		fmt.Println(err)
	}
	// Output:
	// Hello, Ann
	// <nil>
	// expected text "Hello, Ann", not text "Good day, Ann"
}
