package hub

import (
	"context"
	"time"
)

// broker.go owns what a hub asks of a broker.

// A Broker carries packets between the hubs of several machines. It knows
// nothing of what is in them, and may lose them, repeat them and deliver a hub's
// own: the hub finds out. What it must do is keep the packets of one Publish, and
// of successive ones, in order within a topic, and say when it may have lost
// some.
//
// Topics are up to 200 bytes of UTF-8 without control characters; they may have
// any punctuation and spaces in them.
//
// A Broker belongs to one Hub. It keeps itself connected: backing off, with
// jitter, and subscribing again are its business. It should try every three
// seconds at least, for which hubs keep what has waited while the broker was gone.
type Broker interface {
	// Start is called once, before all else. Packets that arrive, and what
	// becomes of the connection, are told to r. It does not wait for the broker;
	// an error says that it never will be reached.
	Start(r Receiver) error

	// Publish sends packets in order, and returns when the broker has them. On an
	// error any of them may have arrived or not; the hub sends them again. It is
	// called by one goroutine at a time. The packets are lent.
	Publish(ctx context.Context, packets []Packet) error

	// Subscribe and Unsubscribe say which topics are wanted. They do not wait,
	// and are called one at a time; a subscription that is active is confirmed
	// by Receiver.Subscribed.
	Subscribe(topic string)
	Unsubscribe(topic string)

	// Close ends it; it calls Receiver no more once it has returned.
	Close() error
}

// A Historian is a Broker that keeps what is sent to rooms with Options.History:
// the packets of a topic in one order for all machines, numbered without a hole.
// A history that was lost, or may have lost something, begins anew with another
// epoch, which is random, and with offset 1. With another Broker, machines keep
// what they have heard each for itself.
type Historian interface {
	Broker

	// History reads what is kept, and answers queries in their order. It is called
	// by one goroutine at a time.
	History(ctx context.Context, queries []Query) ([]Page, error)
}

// A Packet is what goes over a broker. The first byte of Data is less than 32.
type Packet struct {
	Topic string
	Data  []byte
	Keep  *Keep // nil: it is not kept; for any but a Historian it always is
}

// Keep says that a packet goes to the end of its topic's history, and from there
// to all that are subscribed, by Receiver.Appended: to the hub that it is of, too.
type Keep struct {
	Messages int           // the newest that stay
	Age      time.Duration // how long they stay

	// A packet is kept once, however often it is tried: if the last one of this
	// Writer in this topic had the same Number, or a greater one, it is not kept
	// again. A Writer is 32 hexadecimal digits.
	Writer string
	Number uint64
}

// A Query asks for what was kept after an offset of the epoch that now is.
type Query struct {
	Topic string
	Age   time.Duration // as in Keep
	After uint64
}

// A Page is the end of a topic's history.
type Page struct {
	Last    Position // of the newest packet that there ever was; if there was none, of offset 0
	Packets []Kept   // those up to Last; if the first is not Query.After+1, it is the oldest that is kept
}

// A Kept is a packet that was kept.
type Kept struct {
	Data []byte
	Age  time.Duration // since then
}

// A Receiver is the hub as its broker sees it. Its methods may be called from
// any goroutine, do not wait for any network, and for one topic are to be called
// one after the other.
type Receiver interface {
	// Receive is called with what has arrived, which is lent.
	Receive(topic string, data []byte)
	// Appended is called with a packet that was kept, and where. It is lent. The
	// hub reads the History to find what it has missed.
	Appended(topic string, at Position, data []byte)
	// Subscribed says that from now on packets of the topic arrive. Whenever that
	// is not the first time since Hub asked for it, some may have been lost.
	Subscribed(topic string)
	// Lost says that packets of a topic may have been lost although it stays
	// subscribed; "" says so of all.
	Lost(topic string)
	// Connected says whether the broker can be reached. It begins with false.
	Connected(yes bool)
}
