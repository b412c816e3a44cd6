package redis

import (
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/seed-07372d5a/websocket/hub"
)

// history.go owns the histories of rooms: a stream for each, whose entries have
// the IDs TIME-OFFSET, and a hash with the epoch, the last offset, and the last
// number of each writer. Both expire, the hash a day after the stream, so that
// one who comes back to a quiet room is not told of a gap.

const maxPage = 16 << 20 // bytes; older messages are not read

// Both scripts begin with finding out where the history is. It begins anew if it
// is not there, or was kept by another server, which may not have had all of it:
// master_replid changes when Redis restarts, and when a replica takes over.
const begin = `
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
local m = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'time', 'server')
local epoch, offset, time = m[1], tonumber(m[2] or 0), tonumber(m[3] or 0)
if not epoch or m[4] ~= server then
	redis.call('DEL', KEYS[1], KEYS[2])
	epoch, offset, time = ARGV[1], 0, 0
	redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', '0', 'time', '0', 'server', server)
end
local now = redis.call('TIME')
time = math.max(time, now[1] * 1000 + math.floor(now[2] / 1000)) -- IDs grow, whatever the clock does
local age = tonumber(ARGV[2])
redis.call('PEXPIRE', KEYS[1], age + 24 * 60 * 60 * 1000)
`

// ARGV: an epoch, age, most, PUBLISH or SPUBLISH, channel; then writer, number,
// packet for each.
var appendScript = redis.NewScript(begin + `
for i = 6, #ARGV, 3 do
	local writer, number, packet = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
	if number > tonumber(redis.call('HGET', KEYS[1], writer) or 0) then
		offset = offset + 1
		local at = string.format('%.0f', offset)
		if redis.call('HLEN', KEYS[1]) > 1000 then -- writers of machines that are long gone
			for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
				if #field == 32 then redis.call('HDEL', KEYS[1], field) end
			end
		end
		redis.call('HSET', KEYS[1], 'offset', at, 'time', string.format('%.0f', time), writer, ARGV[i + 1])
		redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], string.format('%.0f-', time) .. at, 'd', packet)
		redis.call(ARGV[4], ARGV[5], 'L' .. epoch .. string.format('%016x', offset) .. packet)
	end
end
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', time - age))
return redis.call('PEXPIRE', KEYS[2], age)
`)

// ARGV: an epoch, age, offset, most bytes.
var readScript = redis.NewScript(begin + `
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', time - age))
local want, most, to, entries = offset - tonumber(ARGV[3]), tonumber(ARGV[4]), '+', {}
while want > 0 do
	local part = redis.call('XREVRANGE', KEYS[2], to, '-', 'COUNT', math.min(want, 100))
	if #part == 0 then break end
	for _, entry in ipairs(part) do
		most = most - #entry[2][2]
		if most < 0 then want = 0 break end
		entries[#entries + 1] = entry[1]
		entries[#entries + 1] = entry[2][2]
		want, to = want - 1, '(' .. entry[1]
	end
end
return {epoch, string.format('%.0f', offset), string.format('%.0f', time), entries}
`)

// keys returns those of a topic's history, which are in one slot of a cluster.
func (s *shard) keys(topic string) []string {
	return []string{s.prefix + "{" + topic + "}:history", s.prefix + "{" + topic + "}:log"}
}

// newEpoch returns what an epoch that begins is called.
func newEpoch() string {
	var b [8]byte
	crand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// appendPackets asks for the packets of one topic to be kept, all or none.
func (b *broker) appendPackets(ctx context.Context, p redis.Pipeliner, packets []hub.Packet) {
	x := packets[len(packets)-1]
	s := b.shard(x.Topic)
	publish := "PUBLISH"
	if b.sharded {
		publish = "SPUBLISH"
	}
	args := []any{newEpoch(), x.Keep.Age.Milliseconds(), x.Keep.Messages, publish, s.prefix + x.Topic}
	for _, x := range packets {
		args = append(args, x.Keep.Writer, x.Keep.Number, x.Data)
	}
	p.EvalSha(ctx, appendScript.Hash(), s.keys(x.Topic), args...)
}

// pipelined is Pipelined for what calls the scripts, which Redis may not have yet.
func (b *broker) pipelined(ctx context.Context, f func(redis.Pipeliner) error) ([]redis.Cmder, error) {
	cmds, err := b.client.Pipelined(ctx, f)
	if !slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return redis.HasErrorPrefix(c.Err(), "NOSCRIPT") }) {
		return cmds, err
	}
	for _, script := range []*redis.Script{appendScript, readScript} {
		if err := script.Load(ctx, b.client).Err(); err != nil {
			return nil, err
		}
	}
	return b.client.Pipelined(ctx, f)
}

// History is of hub.Historian.
func (b *broker) History(ctx context.Context, queries []hub.Query) ([]hub.Page, error) {
	cmds, err := b.pipelined(ctx, func(p redis.Pipeliner) error {
		for _, q := range queries {
			after := strconv.FormatUint(q.After, 10)
			p.EvalSha(ctx, readScript.Hash(), b.shard(q.Topic).keys(q.Topic), newEpoch(), q.Age.Milliseconds(), after, maxPage)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pages := make([]hub.Page, len(cmds))
	for i, cmd := range cmds {
		reply, err := cmd.(*redis.Cmd).Slice()
		if err != nil {
			return nil, err
		}
		if pages[i], err = parsePage(reply); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

var errReply = errors.New("hub/redis: not a history")

// parsePage reads the readScript's reply. What is not as the other script has
// left it ends the page.
func parsePage(reply []any) (page hub.Page, err error) {
	if len(reply) != 4 {
		return page, errReply
	}
	var text [3]string
	for i := range text {
		s, ok := reply[i].(string)
		if !ok {
			return page, errReply
		}
		text[i] = s
	}
	entries, ok := reply[3].([]any)
	var err1, err2, err3 error
	page.Last.Epoch, err1 = strconv.ParseUint(text[0], 16, 64)
	page.Last.Offset, err2 = strconv.ParseUint(text[1], 10, 64)
	now, err3 := strconv.ParseInt(text[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil || !ok {
		return page, errReply
	}
	for i := 0; i+1 < len(entries); i += 2 {
		id, ok1 := entries[i].(string)
		data, ok2 := entries[i+1].(string)
		at, offset, ok3 := strings.Cut(id, "-")
		ms, err := strconv.ParseInt(at, 10, 64)
		want := strconv.FormatUint(page.Last.Offset-uint64(i/2), 10)
		if !ok1 || !ok2 || !ok3 || err != nil || offset != want {
			break
		}
		age := time.Duration(min(max(now-ms, 0), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
		page.Packets = append(page.Packets, hub.Kept{Data: []byte(data), Age: age})
	}
	slices.Reverse(page.Packets)
	return page, nil
}

// parseKept takes apart what the appendScript publishes: "L", epoch and offset of
// 16 hexadecimal digits each, and the packet.
func parseKept(payload string) (at hub.Position, data string, ok bool) {
	if len(payload) < 33 || payload[0] != 'L' {
		return at, "", false
	}
	var err1, err2 error
	at.Epoch, err1 = strconv.ParseUint(payload[1:17], 16, 64)
	at.Offset, err2 = strconv.ParseUint(payload[17:33], 16, 64)
	return at, payload[33:], err1 == nil && err2 == nil
}
