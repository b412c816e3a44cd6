// Package websocket implements the WebSocket protocol, RFC 6455, for servers and
// clients.
//
// # Serving
//
// A [Server] is an [net/http.Handler] that upgrades requests and gives every
// connection a goroutine. An echo server is
//
//	http.Handle("/echo", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
//		for m, err := range c.Messages(ctx) {
//			if err != nil {
//				return
//			}
//			c.Write(ctx, m)
//		}
//	}})
//
// [Accept] does the same within a handler of one's own. Both refuse web pages of
// other hosts unless AcceptOptions.Origins names them, since a browser would let
// such a page act with its visitor's cookies.
//
// Until its request is whole a client is net/http's, which by default waits for
// it for ever. Set a limit, and one for the connections on which another request
// may come:
//
//	s := &http.Server{Addr: ":8080", ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
//
// Once upgraded, a connection has the limits of [Config] alone. Who may connect,
// and how many at a time, is for a handler around Accept to decide: it answers
// the others with a status of its own, and as long as it serves the connection
// it knows that there is one.
//
// # Dialing
//
// [Dial] connects to a server through an [net/http.Client], with its proxies,
// cookies and TLS:
//
//	c, err := websocket.Dial(ctx, "wss://example.com/feed", nil)
//	if err != nil {
//		return err
//	}
//	defer c.Close(websocket.CloseNormalClosure, "")
//
// # Reading
//
// One goroutine reads. [Conn.Read] returns the next message to keep;
// [Conn.Next] and [Conn.Messages] lend it until the next call, without a copy;
// [Conn.Reader] streams it; [Conn.Serve] calls back. A call that its context cuts
// short loses nothing: the next one goes on where it stopped.
//
// Somebody must read, even where no messages are expected, for it is the reader
// that answers pings, takes pongs and notices the end. A connection that only
// writes has
//
//	go c.Serve(ctx, nil)
//
// # Writing
//
// Any number of goroutines write. [Conn.Write] returns when the network has taken
// the message; messages written at the same time leave together. [Conn.Post]
// never waits: it is what a broadcast calls, with a message from [Prepare].
// [Conn.Queue] and [Conn.Flush] collect answers to messages that came together.
// [Conn.Writer] streams one message.
//
// What waits to be sent is bounded by Config.QueueLimit. Beyond it Post and Queue
// return [ErrQueueFull]: the peer is too slow, and the caller decides whether to
// drop the message or the peer.
//
// # Ending
//
// [Conn.Close] says goodbye and waits for the peer to do the same;
// [Conn.CloseNow] cuts. [Server.Shutdown] does the first for all connections of a
// server, and then the second. When a connection has ended, for whatever reason,
// every call returns the same error, [Conn.Context] has ended with it as its
// cause, and it tells whose doing it was:
//
//   - a [*CloseError]: the peer said goodbye, with this code and reason
//   - a [*ProtocolError]: the peer broke the rules or a limit
//   - [ErrPeerTimeout]: the peer fell silent
//   - an error for which errors.Is(err, net.ErrClosed): this side closed
//   - io.ErrUnexpectedEOF: the peer went without a word
//   - any other: the transport's own
//
// [CodeOf] gives the close code for any of them.
//
// # Limits
//
// The peer is taken to be hostile. Messages, fragments, queues and pauses are
// limited by default: see [Config]. No memory is taken for a length that a peer
// only announces. A peer that is silent is pinged after 25 s, and given up 20 s
// later.
//
// # Compression
//
// Config.Compression switches on permessage-deflate (RFC 7692), where the peer
// agrees. It is off by default: it costs time, and a message that holds both a
// secret and what an attacker can choose gives the secret away by its size.
// Message.Plain keeps such a message as it is.
//
// Limits hold for what a message inflates to. A connection that waits holds no
// codec, and with Compression.Takeover the two windows, which
// Compression.WindowBits makes smaller.
//
// # Who turns the crank
//
// A connection has no goroutine of its own. Whoever calls Read, Next or Serve
// reads from the network; whoever calls Write writes to it. An event loop that
// does its own reading hands the bytes to [Conn.Feed], which is Serve turned
// inside out, and [Upgrade] and [NewConn] are the halves of Accept that it needs.
//
// # Memory
//
// A connection that waits holds no buffers: they are borrowed when there is
// something to read or to write. What [Conn.Next], [Conn.Messages] and a
// [Handler] lend is overwritten when the loan ends if the program was built with
// -race, so that tests show who kept it; [Message.Clone] is for keeping.
package websocket
