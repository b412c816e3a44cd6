package session_test

import (
	"context"
	"fmt"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/reconnect"
	"github.com/seed-07372d5a/websocket/session"
	"github.com/seed-07372d5a/websocket/wstest"
)

// A client asks a server that greets those who come, and whose connection is cut
// meanwhile.
func Example() {
	network := new(wstest.Network)
	sessions := &session.Server{
		Config: session.Config{
			Methods: map[string]session.Method{
				"add": func(ctx context.Context, s *session.Session, data []byte) ([]byte, error) {
					network.Cut("example.com:80")
					return []byte("3"), nil
				},
			},
		},
		Open: func(s *session.Session) { s.Send("welcome", []byte(`"good morning"`)) },
	}
	stop := network.Serve("example.com:80", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		sessions.Serve(ctx, c)
	}})

	greeted := make(chan struct{})
	client := &session.Client{
		Reconnect: reconnect.Client{
			URLs:    []string{"ws://example.com"},
			Options: websocket.DialOptions{Client: network.Client()},
		},
		Config: session.Config{
			Message: func(_ *session.Session, name string, data []byte) {
				fmt.Printf("%s %s\n", name, data)
				close(greeted)
			},
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- client.Run(ctx) }()
	<-greeted
	answer, err := client.Session().Call(ctx, "add", []byte("[1,2]"))
	fmt.Printf("%s %v\n", answer, err)

	cancel()
	<-ended
	stop()
	sessions.Shutdown()
	// Output:
	// welcome "good morning"
	// 3 <nil>
}
