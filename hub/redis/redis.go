// Package redis connects hubs on several machines by Redis Pub/Sub.
//
//	h := &hub.Hub{
//		Authorize: authorize,
//		Broker:    redis.New(goredis.NewClient(&goredis.Options{Addr: "redis:6379"}), nil),
//	}
//	defer h.Close()
//
// where goredis is github.com/redis/go-redis/v9, whose client is given with its
// password, TLS and timeouts, and stays the caller's to close. Whoever can write
// to Redis can send to all members: it must not be open to others.
//
// A room is a channel, subscribed while it has members on this machine. When
// Redis is gone, or cuts the subscriber off because it was too slow, the
// connection is made again, after 50 ms at first and up to two seconds, with
// jitter, and all channels are subscribed again; each room then has a gap event.
//
// Rooms with history have a Redis Stream each, and what was missed is read from
// it: no gap, unless it is no more. A message to such a room reaches nobody before
// it is in the stream. When Redis has restarted, has lost its data, or a replica
// has taken over, histories begin anew, and each room has a gap event. It takes
// Redis 6.2, with leave to call EVALSHA, SCRIPT LOAD and INFO.
package redis

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket/hub"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
	silence    = 5 * time.Second // after which, or twice as long, Redis is asked whether it is there, and again before it is given up
	subscribed = 1000            // channels of one command
)

// Options are for [New].
type Options struct {
	// Prefix comes before the names of all channels, so that several programs
	// can share a Redis. "": "hub:".
	Prefix string
	// Shards is for Redis Cluster: with 1 or more, sharded Pub/Sub (Redis 7) is
	// used on that many connections, over whose slots the rooms are spread. All
	// hubs must have the same number. 0: ordinary Pub/Sub, on one connection.
	Shards int
}

// New returns a broker for one hub, which is a hub.Historian. nil Options are the defaults.
func New(client redis.UniversalClient, o *Options) hub.Broker {
	b := &broker{client: client, prefix: "hub:"}
	n := 1
	if o != nil {
		b.sharded = o.Shards > 0
		n = max(n, o.Shards)
		if o.Prefix != "" {
			b.prefix = o.Prefix
		}
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for i := range n {
		s := &shard{broker: b, prefix: b.prefix, wanted: make(map[string]bool), changes: make(chan struct{}, 1)}
		if b.sharded {
			s.prefix = fmt.Sprintf("{%s%d}", b.prefix, i) // all in one slot
		}
		b.shards = append(b.shards, s)
	}
	return b
}

type broker struct {
	client  redis.UniversalClient
	prefix  string
	sharded bool
	shards  []*shard
	r       hub.Receiver
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex
	up      int  // shards that are connected
	told    bool // the receiver knows
	toldUp  bool
	telling bool // somebody tells it: others leave it to him
}

// A shard is one connection that subscribes.
type shard struct {
	broker  *broker
	prefix  string
	changes chan struct{} // there is something in changed

	mu      sync.Mutex
	pubsub  *redis.PubSub // nil if there is none
	wanted  map[string]bool
	changed []string
	up      bool
}

func (b *broker) Start(r hub.Receiver) error {
	b.r = r
	for _, s := range b.shards {
		b.done.Go(s.receive)
		b.done.Go(s.subscribe)
	}
	return nil
}

func (b *broker) Close() error {
	b.cancel()
	for _, s := range b.shards {
		s.hangUp()
	}
	b.done.Wait()
	return nil
}

func (b *broker) shard(topic string) *shard {
	if len(b.shards) == 1 {
		return b.shards[0]
	}
	h := fnv.New32a()
	h.Write([]byte(topic))
	return b.shards[h.Sum32()%uint32(len(b.shards))]
}

func (b *broker) Publish(ctx context.Context, packets []hub.Packet) error {
	kept := make(map[string][]hub.Packet)
	for _, x := range packets {
		if x.Keep != nil {
			kept[x.Topic] = append(kept[x.Topic], x)
		}
	}
	_, err := b.pipelined(ctx, func(p redis.Pipeliner) error {
		for _, x := range packets {
			switch channel := b.shard(x.Topic).prefix + x.Topic; {
			case x.Keep != nil:
			case b.sharded:
				p.SPublish(ctx, channel, x.Data)
			default:
				p.Publish(ctx, channel, x.Data)
			}
		}
		for _, packets := range kept {
			b.appendPackets(ctx, p, packets)
		}
		return nil
	})
	return err
}

func (b *broker) Subscribe(topic string)   { b.shard(topic).want(topic, true) }
func (b *broker) Unsubscribe(topic string) { b.shard(topic).want(topic, false) }

func (s *shard) want(topic string, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if yes {
		s.wanted[topic] = true
	} else {
		delete(s.wanted, topic)
	}
	if s.pubsub == nil {
		return // a new connection asks for all that is wanted
	}
	s.changed = append(s.changed, topic)
	select {
	case s.changes <- struct{}{}:
	default:
	}
}

// subscribe passes on what is wanted, as it changes.
func (s *shard) subscribe() {
	for {
		select {
		case <-s.changes:
		case <-s.broker.ctx.Done():
			return
		}
		var on, off []string
		s.mu.Lock()
		seen := make(map[string]bool, len(s.changed))
		for _, topic := range s.changed {
			switch {
			case seen[topic]:
			case s.wanted[topic]:
				on = append(on, topic)
			default:
				off = append(off, topic)
			}
			seen[topic] = true
		}
		s.changed = nil
		pubsub := s.pubsub
		s.mu.Unlock()
		if pubsub != nil && (s.ask(pubsub, on, true) != nil || s.ask(pubsub, off, false) != nil) {
			pubsub.Close() // receive begins anew
		}
	}
}

// ask subscribes or unsubscribes topics.
func (s *shard) ask(pubsub *redis.PubSub, topics []string, on bool) error {
	for len(topics) > 0 {
		channels := make([]string, min(len(topics), subscribed))
		for i := range channels {
			channels[i] = s.prefix + topics[i]
		}
		topics = topics[len(channels):]
		var err error
		switch ctx := s.broker.ctx; {
		case on && s.broker.sharded:
			err = pubsub.SSubscribe(ctx, channels...)
		case on:
			err = pubsub.Subscribe(ctx, channels...)
		case s.broker.sharded:
			err = pubsub.SUnsubscribe(ctx, channels...)
		default:
			err = pubsub.Unsubscribe(ctx, channels...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// receive keeps a connection and passes on what comes. Who is cut off as soon as
// it is connected backs off too.
func (s *shard) receive() {
	wait := firstRetry
	for s.broker.ctx.Err() == nil {
		if since := s.connection(); !since.IsZero() && time.Since(since) > lastRetry {
			wait = firstRetry
		}
		s.hangUp()
		s.connected(false)
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, lastRetry)
		case <-s.broker.ctx.Done():
		}
	}
}

// connection is the life of one connection. It tells when anything came first.
func (s *shard) connection() (since time.Time) {
	ctx := s.broker.ctx
	var pubsub *redis.PubSub
	if s.broker.sharded {
		pubsub = s.broker.client.SSubscribe(ctx)
	} else {
		pubsub = s.broker.client.Subscribe(ctx)
	}
	s.mu.Lock()
	s.pubsub, s.changed = pubsub, nil
	wanted := make([]string, 0, len(s.wanted))
	for topic := range s.wanted {
		wanted = append(wanted, topic)
	}
	s.mu.Unlock()
	if ctx.Err() != nil || s.ask(pubsub, wanted, true) != nil {
		return since
	}
	var heard atomic.Bool
	over := make(chan struct{})
	defer close(over)
	s.broker.done.Go(func() { s.watch(pubsub, &heard, over) })
	for {
		// Without a deadline: one that passes in the middle of a message would
		// have its rest taken for what Redis says next.
		m, err := pubsub.Receive(ctx)
		if err != nil {
			return since
		}
		if since.IsZero() {
			since = time.Now()
		}
		heard.Store(true)
		s.connected(true)
		switch m := m.(type) {
		case *redis.Message:
			topic, ok := s.topic(m.Channel)
			if !ok {
				continue
			}
			if at, data, kept := parseKept(m.Payload); kept {
				s.broker.r.Appended(topic, at, []byte(data))
			} else {
				s.broker.r.Receive(topic, []byte(m.Payload))
			}
		case *redis.Subscription:
			if topic, ok := s.topic(m.Channel); ok && (m.Kind == "subscribe" || m.Kind == "ssubscribe") {
				s.broker.r.Subscribed(topic)
			}
		}
	}
}

// watch asks a connection that is silent whether it is there, and closes it if
// it does not answer.
func (s *shard) watch(pubsub *redis.PubSub, heard *atomic.Bool, over <-chan struct{}) {
	tick := time.NewTicker(silence)
	defer tick.Stop()
	for asked := false; ; {
		select {
		case <-tick.C:
		case <-over:
			return
		}
		switch {
		case heard.Swap(false):
			asked = false
		case asked || pubsub.Ping(s.broker.ctx) != nil:
			pubsub.Close()
			return
		default:
			asked = true
		}
	}
}

func (s *shard) topic(channel string) (string, bool) {
	if len(channel) <= len(s.prefix) || channel[:len(s.prefix)] != s.prefix {
		return "", false
	}
	return channel[len(s.prefix):], true
}

// hangUp closes the connection, if there is one.
func (s *shard) hangUp() {
	s.mu.Lock()
	pubsub := s.pubsub
	s.pubsub = nil
	s.mu.Unlock()
	if pubsub != nil {
		pubsub.Close()
	}
}

// connected counts the shards that are, and tells the hub when they all are, or
// not all.
func (s *shard) connected(yes bool) {
	b := s.broker
	b.mu.Lock()
	if yes != s.up {
		s.up = yes
		if yes {
			b.up++
		} else {
			b.up--
		}
	}
	for !b.telling {
		all := b.up == len(b.shards)
		if b.told && all == b.toldUp || !b.told && yes && !all {
			break
		}
		b.told, b.toldUp, b.telling = true, all, true
		b.mu.Unlock()
		b.r.Connected(all)
		b.mu.Lock()
		b.telling = false
	}
	b.mu.Unlock()
}
