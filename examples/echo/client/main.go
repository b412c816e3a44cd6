// The echo client sends its arguments to an echo server, and prints what comes
// back.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/seed-07372d5a/websocket"
)

func main() {
	url := flag.String("url", "ws://localhost:8080/echo", "the server's `URL`")
	flag.Parse()
	texts := flag.Args()
	if len(texts) == 0 {
		texts = []string{"Hello,", "世界!"}
	}
	if err := talk(*url, texts); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

// talk sends the texts one by one.
func talk(url string, texts []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	c, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer c.CloseNow() // for the returns in between; after Close it does nothing

	for _, text := range texts {
		if err := c.Write(ctx, websocket.Text(text)); err != nil {
			return err
		}
		m, err := c.Read(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", m.Data)
	}
	return c.Close(websocket.CloseNormalClosure, "that is all")
}
