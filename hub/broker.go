package hub

import "context"

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
// jitter, and subscribing again are its business.
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

// A Packet is what goes over a broker.
type Packet struct {
	Topic string
	Data  []byte
}

// A Receiver is the hub as its broker sees it. Its methods may be called from
// any goroutine, do not wait for any network, and for one topic are to be called
// one after the other.
type Receiver interface {
	// Receive is called with what has arrived, which is lent.
	Receive(topic string, data []byte)
	// Subscribed says that from now on packets of the topic arrive. Whenever that
	// is not the first time since Hub asked for it, some may have been lost.
	Subscribed(topic string)
	// Lost says that packets of a topic may have been lost although it stays
	// subscribed; "" says so of all.
	Lost(topic string)
	// Connected says whether the broker can be reached. It begins with false.
	Connected(yes bool)
}
