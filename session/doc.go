// Package session sends messages that arrive, over connections that come and go,
// and asks questions and waits for their answers.
//
// Each end has a [Session], which outlives connections. What is sent has a
// number, is kept until the other side's handler is done with it, and is sent
// again over the next connection if it was not; what comes twice is recognised.
// docs/session.md has the contract and the wire format, for those who speak it
// from other languages; session/js has a module for browsers.
//
// A server is
//
//	sessions := &session.Server{
//		Config: session.Config{
//			Message: func(s *session.Session, name string, data []byte) { ... },
//			Methods: map[string]session.Method{
//				"add": func(ctx context.Context, s *session.Session, data []byte) ([]byte, error) { ... },
//			},
//		},
//		Open: func(s *session.Session) { ... },
//	}
//	http.Handle("/session", &websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
//		sessions.Serve(ctx, c)
//	}})
//
// and a client, which reconnects by package reconnect,
//
//	client := &session.Client{Reconnect: reconnect.Client{URLs: []string{"wss://example.com/session"}}}
//	go client.Run(ctx)
//	client.Session().Send("order", []byte(`{"item":7}`))
//	answer, err := client.Session().Call(ctx, "add", []byte(`[1,2]`))
//
// # What is promised
//
// Messages are handed to Config.Message in the order in which they were sent,
// none twice, and none is left out without a [Gap] before the next. There is a
// gap when messages had to be dropped, for Config.Buffer or Config.MaxAge, or
// when one side has lost the session: a server that was restarted, or a client
// that was away for too long. An acknowledged message is one for which the other
// side's Config.Message has returned.
//
// # Several servers
//
// With a [Store], such as that of session/redis, a client may come back to any of
// several servers, or to one that was restarted, and goes on where it was. A
// session has one owner at a time: the server that its client came to last.
package session
