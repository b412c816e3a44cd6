// Package reconnect keeps a client connected: it dials, serves the connection,
// and when that ends dials again, without a stampede and without giving up.
//
//	client := &reconnect.Client{URLs: []string{"wss://a.example/feed", "wss://b.example/feed"}}
//	err := client.Run(ctx, func(ctx context.Context, c *websocket.Conn) error {
//		for m, err := range c.Messages(ctx) {
//			if err != nil {
//				return err // the connection has ended: there will be another
//			}
//			show(m)
//		}
//		return nil
//	})
//
// # One attempt after the other
//
// The URLs are tried in turn, beginning with the first; where a connection was
// good, the next attempt goes to the same URL. A connection is good when it has
// lived for Client.Good. One that ends sooner counts as a failed attempt, so that
// a server that accepts and drops is not called in a loop.
//
// How long to wait is for a [Backoff] to say, by the number of failures in a row.
// [Exponential], the default, waits for a random time, which spreads the clients
// of a server that restarts; [Linear] keeps to a timetable. There is always
// another attempt, until something ends Run.
//
// What a server asks for is respected. One that answered with Retry-After is left
// alone for that long, an hour at most; one that closed with 1012 service restart
// or 1013 try again later, for a random time between 5 and 30 s. Other URLs may
// be tried meanwhile.
//
// # The end
//
// Run ends, and says why, when
//
//   - its ctx does
//   - the session returns nil: it has done what it was there for
//   - the session, or one of the hooks, returns an error made by [Stop]
//   - the server refuses the handshake with a status from 400 to 499 other than
//     408, 425 and 429, for asking again would be answered the same: the error is
//     a [*websocket.HandshakeError]
//   - the server closes with 1008 policy violation or one of Client.StopCodes: a
//     [*websocket.CloseError]
//   - the outbox is full: [ErrOutboxFull]
//
// Anything else, and that includes failures to resolve a name or to agree on TLS,
// is taken to pass.
//
// # Sending
//
// While a connection is open its session may write to it as to any other. For
// what shall survive the connection there is [Client.Send]: messages wait in the
// outbox, in order, until the network has taken them, over this connection or a
// later one. What the network took before it broke may still be lost, and
// a message that it was taking may come twice; one on which the server closes
// with 1009 message too big, twice, is dropped. Package session is for those who need to know
// what arrived.
package reconnect
