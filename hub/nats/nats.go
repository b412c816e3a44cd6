// Package nats connects hubs on several machines by NATS.
//
//	h := &hub.Hub{Authorize: authorize, Broker: nats.New("nats://localhost:4222", "hub")}
//	defer h.Close()
//
// Whoever can publish to the subjects below the prefix can send to all members.
package nats

import (
	"context"
	"encoding/base64"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/seed-07372d5a/websocket/hub"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// New returns a broker for one hub, over the NATS servers of a URL, with the
// options that the client library has. All subjects begin with the prefix, which
// "" makes "hub", and a dot.
func New(url, prefix string, options ...nats.Option) hub.Broker {
	if prefix == "" {
		prefix = "hub"
	}
	return &broker{url: url, prefix: prefix + ".", options: options, topics: make(map[string]*subscription)}
}

type broker struct {
	url, prefix string
	options     []nats.Option
	r           hub.Receiver
	conn        *nats.Conn
	messages    chan *nats.Msg // of all subscriptions, in the order in which they came
	confirm     chan struct{}  // somebody is to be told that it is subscribed
	ctx         context.Context
	cancel      context.CancelFunc
	done        sync.WaitGroup

	mu     sync.Mutex
	topics map[string]*subscription
}

type subscription struct {
	*nats.Subscription
	told bool // the hub knows that it is active
}

func (b *broker) Start(r hub.Receiver) (err error) {
	b.r = r
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.messages, b.confirm = make(chan *nats.Msg, 64<<10), make(chan struct{}, 1)
	options := append([]nats.Option{
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // the hub keeps what is unsent
		nats.CustomReconnectDelay(func(n int) time.Duration {
			return min(firstRetry<<min(n, 10), lastRetry) + time.Duration(time.Now().UnixNano()%int64(firstRetry))
		}),
	}, b.options...)
	options = append(options,
		nats.ConnectHandler(func(*nats.Conn) { b.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { b.connected() }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { r.Connected(false) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.Lost("") }), // such as a slow consumer
	)
	if b.conn, err = nats.Connect(b.url, options...); err != nil {
		return err
	}
	b.done.Go(b.receive)
	b.done.Go(b.confirmAll)
	if !b.conn.IsConnected() {
		r.Connected(false)
	}
	return nil
}

// connected is called when there is a connection, for the first time or again:
// the library has asked for all subscriptions, whose packets may have been lost.
func (b *broker) connected() {
	b.mu.Lock()
	for _, s := range b.topics {
		s.told = false
	}
	b.mu.Unlock()
	b.r.Connected(true)
	b.wake()
}

func (b *broker) wake() {
	select {
	case b.confirm <- struct{}{}:
	default:
	}
}

// receive passes on what comes.
func (b *broker) receive() {
	for {
		select {
		case m := <-b.messages:
			if topic, err := base64.RawURLEncoding.DecodeString(m.Subject[len(b.prefix):]); err == nil {
				b.r.Receive(string(topic), m.Data)
			}
		case <-b.ctx.Done():
			return
		}
	}
}

// confirmAll tells the hub of subscriptions once the server has answered after
// them.
func (b *broker) confirmAll() {
	for {
		select {
		case <-b.confirm:
		case <-b.ctx.Done():
			return
		}
		var topics []string
		b.mu.Lock()
		for topic, s := range b.topics {
			if !s.told {
				topics = append(topics, topic)
				s.told = true
			}
		}
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(b.ctx, lastRetry)
		err := b.conn.FlushWithContext(ctx)
		cancel()
		if err == nil {
			for _, topic := range topics {
				b.r.Subscribed(topic)
			}
			continue
		}
		b.mu.Lock()
		for _, topic := range topics {
			if s := b.topics[topic]; s != nil {
				s.told = false
			}
		}
		b.mu.Unlock()
		if !b.conn.IsConnected() {
			continue // connected wakes it
		}
		select {
		case <-time.After(firstRetry):
			b.wake()
		case <-b.ctx.Done():
			return
		}
	}
}

// Topics have what subjects give a meaning to: base64 has not.
func (b *broker) subject(topic string) string {
	return b.prefix + base64.RawURLEncoding.EncodeToString([]byte(topic))
}

func (b *broker) Subscribe(topic string) {
	s, err := b.conn.ChanSubscribe(b.subject(topic), b.messages)
	if err != nil {
		return // it is closed
	}
	b.mu.Lock()
	b.topics[topic] = &subscription{Subscription: s}
	b.mu.Unlock()
	b.wake()
}

func (b *broker) Unsubscribe(topic string) {
	b.mu.Lock()
	s := b.topics[topic]
	delete(b.topics, topic)
	b.mu.Unlock()
	if s != nil {
		s.Unsubscribe()
	}
}

func (b *broker) Publish(ctx context.Context, packets []hub.Packet) error {
	for _, p := range packets {
		if err := b.conn.Publish(b.subject(p.Topic), p.Data); err != nil {
			return err
		}
	}
	return b.conn.FlushWithContext(ctx)
}

func (b *broker) Close() error {
	if b.conn != nil {
		b.cancel()
		b.conn.Close()
		b.done.Wait()
	}
	return nil
}
