// Package hub is for push: rooms, who is in them, and messages to a room, to
// all rooms of a namespace, to a person or to one connection.
//
//	h := &hub.Hub{Authorize: func(ctx context.Context, m *hub.Member, r hub.Room) error {
//		if !mayRead(m.User(), r) {
//			return hub.ErrRefused
//		}
//		return nil
//	}}
//	m, err := h.Add(conn, "ann")                      // until the connection ends
//	err = m.Join(ctx, hub.Room{"sport", "tennis"})    // asks Authorize
//	err = h.Send(hub.Room{"sport", "tennis"}, websocket.Text("15:0"))
//
// A [Member] is a connection in the hub, with the user it belongs to; a user may
// have several. It may be in many rooms. A [Room] is a name in a namespace: it
// comes into being when the first member joins, and is gone when the last has
// left. There is nothing to create and nothing to clean up.
//
// The hub reads nothing. Whoever serves the connection does, in whatever style:
// a loop over messages, Serve, or an event loop with Feed. An [Endpoint] does
// all of it, with callbacks.
//
// # Who may join
//
// [Hub.Authorize] is asked each time somebody joins, and [Hub.Recheck] asks it
// again about those who are in, for example when rights have changed. Without it
// nobody can join anything. That a room has a name that is hard to guess is no
// protection.
//
// Room names are at most 128 bytes of ASCII letters, digits and "_.:@~-";
// namespaces at most 32 of the letters, digits, "_" and "-". What else people
// call their rooms is for the application to map.
//
// # Sending
//
// A message is encoded, and compressed, once for all who get it. Sending never
// waits for anybody's network: a member that is slow does not delay others, nor
// the sender. No lock is held meanwhile. Messages of one sender to a room come
// in the order of its calls; those of several senders may be seen in different
// orders by different members.
//
// What waits for a member is bounded by its connection's Config.QueueLimit. When
// that is full, [Options].Policy of the room decides: [CloseSlow] closes the
// connection with 1008, [DropNewest] and [DropOldest] drop messages, and
// [KeepLatest] keeps the last one for each key, as quotes want. [Hub.Stats]
// counts what was done.
//
// # Who is there
//
// In rooms with Options.Presence the hub keeps track of users: the first
// connection of a user that joins is an event, [Joined], and the last that
// leaves is one, [Left]. A member that joins is sent who is there by an event of
// its own, [Welcome]. Hub.Encode turns events into messages for the members, and
// Hub.OnEvent tells the application.
//
// # Coming back
//
// A room with Options.History keeps its newest messages. What members are sent
// there has an Event.Offset, which Hub.Encode sends along; a client that was away
// gives the last one back, and [Member.Resume] sends it exactly what it has missed,
// in order, or a [Gap]. No broker is needed. With a [Historian], such as hub/redis,
// it may come back to any machine; then all members hear a room's messages in one
// order, and none before the broker has it.
//
// # Several machines
//
// With a [Broker], what is sent on one machine reaches the members on all. Those
// on the same machine get it at once; others when the broker delivers it, once,
// in the sender's order. While the broker cannot be reached, messages go on
// within each machine, and up to 8 MiB wait for the others. Wherever some may
// have been lost there is a [Gap] event: never silence. Presence heals within 20
// seconds after a machine has died. A hub with a broker is to be closed.
//
// # Limits
//
// Every limit is a field with a default. A connection is in 100 rooms at most,
// so that nobody fills the memory with rooms. A membership takes less than 200
// bytes, and a member that keeps up has no queue.
package hub
