// Package redis keeps sessions in Redis, so that a client may go on with its
// session at any of several servers.
//
//	sessions := &session.Server{
//		Store: redis.New(goredis.NewClient(&goredis.Options{Addr: "redis:6379"}), nil),
//		...
//	}
//
// where goredis is github.com/redis/go-redis/v9, whose client is given with its
// password, TLS and timeouts, and stays the caller's to close. Messages that are
// not acknowledged are in Redis as they are: whoever can read it can read them,
// and whoever can write to it can send to everybody. It must not be open to others.
//
// A session is a hash, which is changed by scripts, and expires. Redis must not
// evict it (maxmemory-policy noeviction, or it is lost, of which clients are
// told), and keeps what it has confirmed over a crash only as far as it is
// configured to: with appendfsync everysec the last second may be missing, and a
// replica that takes over may be behind. Servers and clients find that out and are
// told that the session is lost if they know more than Redis does. What can be
// missing without a word is what only a Redis that is gone has known: messages that
// a server has sent, that the client has not got, and that the replica has not.
package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket/session"
)

// Options are for [New].
type Options struct {
	// Prefix comes before the keys of all sessions, so that several programs can
	// share a Redis. "": "session:".
	Prefix string
}

// New returns a store for any number of servers. nil Options are the defaults.
func New(client redis.UniversalClient, o *Options) session.Store {
	s := &store{client: client, prefix: "session:"}
	if o != nil && o.Prefix != "" {
		s.prefix = o.Prefix
	}
	return s
}

type store struct {
	client redis.UniversalClient
	prefix string
}

// Fields of the hash that are not the session's have names that begin with a dot.
const fence, number = ".fence", ".number"

// Clients ask again when an answer is lost: a session is created anew, a claim
// costs one more number, and a save of the same number is late.
var (
	create = redis.NewScript(`
		redis.call('DEL', KEYS[1])
		redis.call('HSET', KEYS[1], '.fence', 1, '.number', 0)
		return redis.call('PEXPIRE', KEYS[1], ARGV[1])`)

	claim = redis.NewScript(`
		if redis.call('HEXISTS', KEYS[1], '.fence') == 0 then return {} end
		redis.call('HINCRBY', KEYS[1], '.fence', 1)
		redis.call('HSET', KEYS[1], '.number', 0)
		redis.call('PEXPIRE', KEYS[1], ARGV[1])
		return redis.call('HGETALL', KEYS[1])`)

	// ARGV: fence, number, ms to keep, how many to set, names and values, names to
	// delete. Numbers are compared as what they are: Lua's are exact up to 2^53.
	save = redis.NewScript(`
		local is = redis.call('HMGET', KEYS[1], '.fence', '.number')
		if not is[1] then return 1 end
		if is[1] ~= ARGV[1] then return 2 end
		if tonumber(ARGV[2]) <= tonumber(is[2]) then return 0 end
		if ARGV[3] == '0' then redis.call('DEL', KEYS[1]) return 0 end
		redis.call('HSET', KEYS[1], '.number', ARGV[2])
		local n = 4 + 2 * tonumber(ARGV[4])
		for i = 5, n, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
		for i = n + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
		redis.call('PEXPIRE', KEYS[1], ARGV[3])
		return 0`)
)

func (s *store) Create(ctx context.Context, key string, keep time.Duration) error {
	return create.Run(ctx, s.client, []string{s.prefix + key}, ms(keep)).Err()
}

func (s *store) Claim(ctx context.Context, key string, keep time.Duration) (uint64, map[string][]byte, error) {
	all, err := claim.Run(ctx, s.client, []string{s.prefix + key}, ms(keep)).StringSlice()
	if err != nil {
		return 0, nil, err
	}
	if len(all) == 0 {
		return 0, nil, session.ErrUnknown
	}
	fields := make(map[string][]byte, len(all)/2)
	var n uint64
	for i := 0; i+1 < len(all); i += 2 {
		switch name, value := all[i], all[i+1]; name {
		case fence:
			if n, err = strconv.ParseUint(value, 10, 64); err != nil {
				return 0, nil, errors.New("session/redis: a fence that is no number")
			}
		case number:
		default:
			fields[name] = []byte(value)
		}
	}
	return n, fields, nil
}

// Save sends all updates in one pipeline. The keys may be in several slots of a
// cluster.
func (s *store) Save(ctx context.Context, updates []session.Update) error {
	for again := false; ; again = true {
		results := make([]*redis.Cmd, len(updates))
		_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := range updates {
				u := &updates[i]
				results[i] = save.EvalSha(ctx, p, []string{s.prefix + u.Key}, arguments(u)...)
			}
			return nil
		})
		if redis.HasErrorPrefix(err, "NOSCRIPT") && !again {
			if err := s.load(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for i, r := range results {
			switch code, err := r.Int(); {
			case err != nil:
				return err
			case code == 0:
				updates[i].Err = nil
			case code == 1:
				updates[i].Err = session.ErrUnknown
			case code == 2:
				updates[i].Err = session.ErrMoved
			default:
				return fmt.Errorf("session/redis: a script returned %d", code)
			}
		}
		return nil
	}
}

// load gives every server of a cluster the script, which they forget when they
// are restarted.
func (s *store) load(ctx context.Context) error {
	if c, ok := s.client.(*redis.ClusterClient); ok {
		return c.ForEachShard(ctx, func(ctx context.Context, c *redis.Client) error { return save.Load(ctx, c).Err() })
	}
	return save.Load(ctx, s.client).Err()
}

func arguments(u *session.Update) []any {
	args := make([]any, 0, 4+2*len(u.Set)+len(u.Delete))
	args = append(args, u.Fence, u.Number, ms(u.Keep), len(u.Set))
	for name, value := range u.Set {
		args = append(args, name, value)
	}
	for _, name := range u.Delete {
		args = append(args, name)
	}
	return args
}

// ms rounds up: 0 is for what is 0.
func ms(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
