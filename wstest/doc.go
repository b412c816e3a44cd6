// Package wstest tests programs that use package websocket, without a network:
// connections in memory, peers that follow a script, faults on demand, and
// recordings that replay.
//
// Everything here works in a [testing/synctest] bubble, where waiting takes no
// time and a goroutine that is left behind fails the test. Nothing needs one: in
// an ordinary test the same code waits on the real clock.
//
// # Two connections
//
// [Pipe] is all that a test of a message handler needs:
//
//	client, server := wstest.Pipe()
//	go myHandler(ctx, server)
//	client.Write(ctx, websocket.Text("Hello"))
//	m, err := client.Read(ctx)
//
// A [Link] is the same with limits, compression, latency, small buffers or
// faults.
//
// # A peer that misbehaves
//
// A [Peer] speaks bytes and frames over any net.Conn, in whatever pieces and
// with whatever pauses, and says what it expects:
//
//	a, b := wstest.NetPipe()
//	go myHandler(ctx, websocket.NewConn(a, websocket.Params{}))
//	peer := wstest.NewPeer(t, b, wstest.Client)
//	peer.SendFrames(wstest.Frame{Op: websocket.OpText, Payload: "Hel", More: true})
//	peer.Pause(time.Minute) // takes no time in a bubble
//	peer.ExpectClose(websocket.ClosePolicyViolation)
//
// # Servers and clients
//
// A [Network] has hosts with HTTP servers, which come and go, and a client that
// reaches them. It is for code that dials:
//
//	network := new(wstest.Network)
//	stop := network.Serve("example.com:80", &websocket.Server{Handler: myHandler})
//	c, err := websocket.Dial(ctx, "ws://example.com", &websocket.DialOptions{Client: network.Client()})
//	stop() // the server is gone: c breaks, the next Dial is refused
//
// # Faults
//
// [Faults] wrap a net.Conn and make the n-th call of one of its methods fail,
// stall, reset or half-close the connection, and cut reads and writes into
// pieces. How many calls there were can be asked, so that a test may fail the
// first, the second, and so on until there are no more.
//
// # Recordings
//
// A [Recorder] wraps a net.Conn and writes down what passes, as text with one
// line per event. [Replay] plays the other side of such a log, and tells where
// the program now says something else.
package wstest
