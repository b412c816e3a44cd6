package reconnect_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/wstest"
)

// A client of two servers, of which the first is down: it fetches a token for
// each attempt, subscribes on every connection, and is done after one message.
func Example() {
	network := new(wstest.Network)
	defer network.Serve("b.example:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		m, _ := c.Read(ctx)
		c.Write(ctx, websocket.Text("you have said: "+string(m.Data)))
		c.Serve(ctx, nil)
	}})()

	client := &reconnect.Client{
		URLs:    []string{"ws://a.example", "ws://b.example"},
		Options: websocket.DialOptions{Client: network.Client()},
		Header: func(ctx context.Context) (http.Header, error) {
			return http.Header{"Authorization": {"Bearer fresh"}}, nil
		},
		Subscribe: func(ctx context.Context, c *websocket.Conn) error {
			return c.Write(ctx, websocket.Text("subscribe"))
		},
		OnState: func(s reconnect.State) { fmt.Println(s.Phase, s.URL) },
	}
	err := client.Run(context.Background(), func(ctx context.Context, c *websocket.Conn) error {
		m, err := c.Read(ctx)
		if err != nil {
			return err
		}
		fmt.Println(string(m.Data))
		return nil
	})
	fmt.Println(err)
	// Output:
	// connecting ws://a.example
	// waiting ws://b.example
	// connecting ws://b.example
	// open ws://b.example
	// you have said: subscribe
	// ended ws://b.example
	// <nil>
}
