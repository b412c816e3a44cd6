package hub

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
	"github.com/stretchr/testify/require"
)

// tell is an Encode that says everything: "kind@offset:text".
func tell(e Event) (websocket.Message, bool) {
	return websocket.Text(e.Kind.String() + "@" + e.Offset + ":" + e.User + string(e.Message.Data)), true
}

func keeping(n int, age time.Duration) func(Room) Options {
	return func(r Room) Options {
		if r.Namespace == "chat" {
			return Options{History: n, HistoryAge: age}
		}
		return Options{}
	}
}

// brief takes the epochs out of what somebody has heard; they must be one.
func brief(t *testing.T, heard string) string {
	t.Helper()
	epoch := ""
	lines := strings.Split(heard, "|")
	for i, line := range lines {
		kind, rest, _ := strings.Cut(line, "@")
		offset, text, _ := strings.Cut(rest, ":")
		if e, n, ok := strings.Cut(offset, "-"); ok {
			require.Contains(t, []string{"", e}, epoch)
			epoch, offset = e, n
		}
		lines[i] = strings.TrimRight(kind+offset+" "+text, " ")
	}
	return strings.Join(lines, "|")
}

// offset returns the last offset in what somebody has heard.
func offset(heard string) string {
	last := heard[strings.LastIndex(heard, "@")+1:]
	last, _, _ = strings.Cut(last, ":")
	return last
}

// A112: who comes back with an offset gets exactly what it has missed, or a gap.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, Encode: tell, Options: keeping(5, time.Minute)}
		say := func(texts ...string) {
			for _, text := range texts {
				b := []byte(text)
				require.NoError(t, h.Send(lobby(), websocket.Message{Type: websocket.MessageText, Data: b}))
				clear(b) // it was only lent
			}
		}
		resume := func(offset string) *person {
			p := enter(t, h, "").read()
			require.NoError(t, p.Resume(bg, lobby(), offset))
			return p
		}
		ann := enter(t, h, "ann", lobby()).read()
		first := ann.heard()
		require.Equal(t, "welcome0", brief(t, first), "even a room where nothing was said has an offset")
		say("a", "b")
		heard := ann.heard()
		require.Equal(t, "sent1 a|sent2 b", brief(t, heard))
		at2 := offset(heard)
		require.Equal(t, "sent1 a|sent2 b|welcome2", brief(t, resume(offset(first)).heard()))
		require.Equal(t, "sent1 a|sent2 b|welcome2", brief(t, resume("").heard()), "all there is")
		require.Equal(t, "welcome2", brief(t, enter(t, h, "", lobby()).read().heard()), "Join is from now on")

		ann.client.CloseNow()
		synctest.Wait()
		say("c", "d")
		ben := resume(at2)
		require.Equal(t, "sent3 c|sent4 d|welcome4", brief(t, ben.heard()))
		say("e")
		require.NoError(t, ben.Resume(bg, lobby(), "")) // it is there already
		require.Equal(t, "sent5 e", brief(t, ben.heard()))
		say("f", "g")
		require.Equal(t, "sent6 f|sent7 g", brief(t, ben.heard()))
		require.Equal(t, "sent3 c|sent4 d|sent5 e|sent6 f|sent7 g|welcome7", brief(t, resume(at2).heard()), "just all kept")
		say("h")
		require.Equal(t, "gap8|welcome8", brief(t, resume(at2).heard()), "the third is gone")
		require.Equal(t, "sent4 d|sent5 e|sent6 f|sent7 g|sent8 h|welcome8", brief(t, resume("").heard()))
		require.Equal(t, "sent8 h", brief(t, ben.heard()))

		// Their own messages are what those who come back have missed, too.
		require.NoError(t, ben.SendOthers(lobby(), websocket.Text("i")))
		require.Equal(t, "", ben.heard())
		at8 := strings.Replace(at2, "-2", "-8", 1)
		require.Equal(t, "sent9 i|welcome9", brief(t, strings.ReplaceAll(resume(at8).heard(), "ben", "")))

		// What is too old is no more.
		time.Sleep(40 * time.Second)
		say("j")
		time.Sleep(40 * time.Second)
		at9 := strings.Replace(at2, "-2", "-9", 1)
		require.Equal(t, "gap10|welcome10", brief(t, resume(at8).heard()))
		require.Equal(t, "sent10 j|welcome10", brief(t, resume(at9).heard()))
		time.Sleep(40 * time.Second)
		require.Equal(t, "gap10|welcome10", brief(t, resume(at9).heard()))
		require.Equal(t, "welcome10", brief(t, resume("").heard()))

		// What nobody has said is a gap, and no more.
		for _, bad := range []string{
			at2[:17] + "11", at2[:17] + "18446744073709551615", at2[:17] + "99999999999999999999", at2[:17], at2[:16], "0", "-",
			"0000000000000000-10", "000000000000000x-10", at2[:17] + "-1", at2[:17] + "1x", strings.Repeat("1", 1<<20), "\xff",
		} {
			require.Equal(t, "gap10|welcome10", brief(t, resume(bad).heard()), "%.40q", bad)
		}
		p := enter(t, h, "").read()
		require.NoError(t, p.Resume(bg, Room{"other", "a"}, at2))
		require.Equal(t, "gap", brief(t, p.heard()), "a room that keeps nothing")
		p = enter(t, h, "").read()
		require.NoError(t, p.Resume(bg, Room{"chat", "b"}, at2))
		require.Equal(t, "gap0|welcome0", brief(t, p.heard()), "an offset of another room")
	})
}

// Rooms that nobody is in keep their messages, and are forgotten in the end.
func TestHistoryAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, Encode: tell, Options: keeping(5, 0)}
		ann := enter(t, h, "ann", lobby()).read()
		heard := ann.heard()
		ann.client.CloseNow()
		synctest.Wait()
		empty(t, h)
		require.NoError(t, h.Send(lobby(), websocket.Text("a")))
		require.NoError(t, h.Send(lobby(), websocket.Text("b")))
		require.NoError(t, h.Send(Room{"other", "a"}, websocket.Text("b")))
		empty(t, h)
		ann = enter(t, h, "ann").read()
		require.NoError(t, ann.Resume(bg, lobby(), offset(heard)))
		heard = ann.heard()
		require.Equal(t, "sent1 a|sent2 b|welcome2", brief(t, heard))
		require.Equal(t, int64(2), h.Stats().Replayed)
		ann.client.CloseNow()
		shelved := func() (n int) {
			synctest.Wait()
			for i := range h.shards {
				n += len(h.shards[i].shelf)
			}
			return n
		}
		require.Equal(t, 1, shelved())
		time.Sleep(rememberFor) // its messages are gone, not what was the last
		ann = enter(t, h, "ann").read()
		require.NoError(t, ann.Resume(bg, lobby(), offset(heard)))
		require.Equal(t, "welcome2", brief(t, ann.heard()))
		ann.client.CloseNow()
		time.Sleep(10 * time.Minute)
		require.Zero(t, shelved())
		ann = enter(t, h, "ann").read()
		require.NoError(t, ann.Resume(bg, lobby(), offset(heard)))
		require.Equal(t, "gap0|welcome0", brief(t, ann.heard()))
	})
}

// A112: much that was missed comes at the pace of the network, whatever the
// queue's limit; what is said meanwhile comes after it.
func TestResumeMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, Encode: tell, Options: keeping(1000, time.Hour)}
		ann := enter(t, h, "ann", lobby()).read()
		text := func(i int) string { return fmt.Sprintf("%0500d", i) }
		for i := range 1000 {
			require.NoError(t, h.Send(lobby(), websocket.Text(text(i))))
		}
		heard := ann.heard()
		slow := enterBy(t, h, slow(), "slow")
		require.NoError(t, slow.Resume(bg, lobby(), heard[strings.Index(heard, "@")+1:strings.Index(heard, ":")]))
		synctest.Wait()
		gone := enterBy(t, h, wstest.Link{Buffer: 1000}, "gone")
		require.NoError(t, gone.Resume(bg, lobby(), ""))
		for i := range 200 {
			require.NoError(t, h.Send(lobby(), websocket.Text(text(1000+i))))
		}
		gone.client.CloseNow() // in the middle
		slow.read()
		lines := strings.Split(slow.heard(), "|")
		require.Len(t, lines, 1201)
		for i, line := range lines[:1200] {
			require.True(t, strings.HasPrefix(line, "sent@") && strings.HasSuffix(line, ":"+text(i)), "%d: %.60s", i, line)
		}
		require.Equal(t, "welcome1200", brief(t, lines[1200]))
		require.NoError(t, h.Send(lobby(), websocket.Text("live")))
		require.Equal(t, "sent1201 live", brief(t, slow.heard()))

		// Whoever leaves meanwhile hears no more than was under way.
		left := enterBy(t, h, wstest.Link{Buffer: 1000}, "left")
		require.NoError(t, left.Resume(bg, lobby(), ""))
		synctest.Wait()
		require.NoError(t, left.Leave(lobby()))
		require.NotContains(t, left.read().heard(), "welcome")
		require.NoError(t, h.Send(lobby(), websocket.Text("live")))
		require.Empty(t, left.heard())
		slow.heard()

		// Whoever is so slow that it is forgotten meanwhile is told.
		slow = enterBy(t, h, wstest.Link{Buffer: 1000, Server: websocket.Config{WriteTimeout: time.Hour, KeepAlive: -1}}, "slower")
		require.NoError(t, slow.Resume(bg, lobby(), ""))
		for i := range 1001 {
			require.NoError(t, h.Send(lobby(), websocket.Text(text(i))))
		}
		slow.read()
		lines = strings.Split(slow.heard(), "|")
		require.Len(t, lines, 1002)
		require.Equal(t, "gap2203|welcome2203", brief(t, strings.Join(lines[1000:], "|")))
	})
}

// A112, A118: whoever sends and whoever comes and goes, all hear the same in the
// same order, and nobody misses anything.
func TestResumeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, Encode: tell, Options: func(Room) Options { return Options{History: 10_000, Presence: true} }}
		const publishers, messages, clients = 4, 200, 8
		order := make([]map[string]string, clients) // text by offset
		var all sync.WaitGroup
		enter(t, h, "witness", lobby()).read()
		for i := range publishers {
			all.Go(func() {
				for j := range messages {
					h.Send(lobby(), websocket.Text(fmt.Sprint("p", i, ".", j)))
				}
			})
		}
		for i := range clients {
			order[i] = map[string]string{}
			all.Go(func() {
				rnd := rand.New(rand.NewPCG(8, uint64(i)))
				last, n := "", 0
				for n < publishers*messages {
					client, server := wstest.Pipe()
					go server.Serve(bg, nil)
					m, err := h.Add(server, fmt.Sprint("c", i))
					if err != nil || m.Resume(bg, lobby(), last) != nil {
						t.Error(err)
						return
					}
					for range 1 + rnd.IntN(200) {
						msg, err := client.Read(bg)
						if err != nil {
							t.Error(err)
							break
						}
						kind, rest, _ := strings.Cut(string(msg.Data), "@")
						at, text, _ := strings.Cut(rest, ":")
						if kind == "sent" {
							n++
							order[i][at] = text
							if p, ok := parsePosition(at); !ok || p.Offset != uint64(n) {
								t.Errorf("client %d: %s after %d", i, at, n-1)
							}
						}
						if kind == "gap" {
							t.Error("a gap")
						}
						if at != "" {
							last = at
						}
						if n == publishers*messages {
							break
						}
					}
					client.CloseNow()
					server.CloseNow()
				}
			})
		}
		all.Wait()
		for i := range clients {
			require.Len(t, order[i], publishers*messages)
			require.Equal(t, order[0], order[i])
		}
		next := map[string]int{}
		for n := range publishers * messages {
			for at, text := range order[0] {
				if strings.HasSuffix(at, fmt.Sprint("-", n+1)) {
					from, number, _ := strings.Cut(text, ".")
					require.Equal(t, fmt.Sprint(next[from]), number, "a sender's order")
					next[from]++
				}
			}
		}
	})
}

// With a broker that keeps nothing, a machine keeps what it has heard, and what
// it may have missed is a gap, then and for those who come back.
func TestHistoryOfOneMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{rand: func(int) int { return 1 }}
		machine := func() (*Hub, *port) {
			p := x.port()
			return &Hub{Authorize: anybody, Broker: p, Encode: tell, Options: keeping(100, time.Hour)}, p
		}
		a, _ := machine()
		b, port := machine()
		ann := enter(t, a, "", lobby()).read()
		ben := enter(t, b, "", lobby()).read()
		require.NoError(t, a.Send(lobby(), websocket.Text("a")))
		require.NoError(t, b.Send(lobby(), websocket.Text("b")))
		require.Equal(t, "welcome0|sent1 a|sent2 b", brief(t, ann.heard()))
		heard := ben.heard()
		first := heard[strings.Index(heard, "@")+1 : strings.Index(heard, ":")]
		again := enter(t, b, "").read()
		require.NoError(t, again.Resume(bg, lobby(), first))
		require.Equal(t, 3, len(strings.Split(again.heard(), "|")))
		x.mu.Lock()
		port.cut()
		x.mu.Unlock()
		port.connect()
		require.ElementsMatch(t, []string{"gap", "gap0"}, strings.Split(brief(t, ben.heard()), "|"), "of the namespace, and of the room")
		again = enter(t, b, "").read()
		require.NoError(t, again.Resume(bg, lobby(), offset(heard)))
		require.Equal(t, "gap0|welcome0", brief(t, again.heard()))
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// What is sent while somebody else is telling is told later, and was only lent.
func TestHistoryLent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Hub{Authorize: anybody, Encode: tell, Options: func(Room) Options { return Options{History: 10, Presence: true} }}
		h.OnEvent = func(e Event) {
			for _, text := range []string{"a", "b"} {
				b := []byte(text)
				h.Send(lobby(), websocket.Message{Type: websocket.MessageText, Data: b})
				clear(b)
			}
		}
		ann := enter(t, h, "ann").read()
		require.NoError(t, ann.Join(bg, lobby()))
		require.Equal(t, "joined ann|welcome0|sent1 a|sent2 b", brief(t, ann.heard()))
	})
}

// A112: with a Historian what was missed comes by itself, and without a gap,
// though nothing follows it.
func TestHistorian(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := &exchange{rand: func(int) int { return 1 }}
		machine := func() (*Hub, *port) {
			p := x.port()
			h := &Hub{Authorize: anybody, Broker: keeper{p}, Encode: tell, Options: keeping(100, time.Hour)}
			t.Cleanup(func() { h.Close() })
			return h, p
		}
		a, pa := machine()
		b, pb := machine()
		defer a.Close()
		defer b.Close()
		roomy := wstest.Link{Server: websocket.Config{QueueLimit: 16 << 20}}
		ann, ben := enterBy(t, a, roomy, "ann", lobby()).read(), enterBy(t, b, roomy, "ben", lobby()).read()
		time.Sleep(time.Second)
		require.NoError(t, a.Send(lobby(), websocket.Text("a")))
		require.NoError(t, ann.SendOthers(lobby(), websocket.Text("b")))
		synctest.Wait()
		require.NoError(t, b.Send(lobby(), websocket.Text("c")))
		require.Equal(t, "welcome0|sent1 a|sent3 c", brief(t, ann.heard()))
		heard := ben.heard()
		require.Equal(t, "welcome0|sent1 a|sent2 annb|sent3 c", brief(t, heard))
		at3 := offset(heard)

		// A machine that is cut off is told later; no message is before its time.
		x.mu.Lock()
		pb.cut()
		x.mu.Unlock()
		require.NoError(t, a.Send(lobby(), websocket.Text("d")))
		synctest.Wait()
		require.NoError(t, b.Send(lobby(), websocket.Text("e")))
		require.Equal(t, "", ben.heard())
		require.Equal(t, "sent4 d", brief(t, ann.heard()))
		zoe := enter(t, b, "zoe").read()
		require.NoError(t, zoe.Resume(bg, lobby(), at3))
		late := enter(t, b, "late", lobby()).read() // it does not know what it has missed
		pb.connect()
		time.Sleep(5 * time.Second)
		ben2 := brief(t, ben.heard())
		require.Equal(t, "sent4 d|sent5 e", strings.ReplaceAll(strings.ReplaceAll(ben2, "gap|", ""), "|gap", ""))
		require.Equal(t, "sent5 e", brief(t, ann.heard()))
		require.Contains(t, brief(t, zoe.heard()), "sent4 d|sent5 e")
		late.heard()

		// One who has joined while the broker could not be reached has a gap.
		x.mu.Lock()
		pb.cut()
		x.mu.Unlock()
		time.Sleep(time.Second)
		other := Room{"chat", "other"}
		late = enter(t, b, "late", other).read()
		require.NoError(t, a.Send(other, websocket.Text("before it is known")))
		pb.connect()
		time.Sleep(5 * time.Second)
		require.Contains(t, brief(t, late.heard()), "gap1|welcome1")

		// What is sent before a subscription is active is read when it is.
		x.mu.Lock()
		x.hold = true
		x.mu.Unlock()
		third := Room{"chat", "third"}
		late = enter(t, a, "late").read()
		joined := make(chan error)
		go func() { joined <- late.Join(bg, third) }()
		time.Sleep(time.Second)
		require.NoError(t, b.Send(third, websocket.Text("early")))
		time.Sleep(100 * time.Millisecond)
		x.mu.Lock()
		x.hold = false
		pa.subscribe(roomTopic(third))
		x.mu.Unlock()
		require.NoError(t, <-joined)
		time.Sleep(time.Second)
		require.Equal(t, "welcome0|sent1 early", brief(t, late.heard()))

		ben.heard()
		// Lies about what was kept where cost a reading or two (A115).
		x.mu.Lock()
		before := x.reads
		x.mu.Unlock()
		last := b.find(roomTopic(lobby())).history.last
		for _, lie := range []Position{{}, {Epoch: 1, Offset: 7}, {last.Epoch, last.Offset + 2}, {last.Epoch, 1 << 63}, last} {
			b.link.Appended(roomTopic(lobby()), lie, []byte("lie"))
			time.Sleep(time.Second)
		}
		x.mu.Lock()
		require.LessOrEqual(t, x.reads-before, 8)
		x.mu.Unlock()
		require.Empty(t, ben.heard())

		// A room that is never quiet is caught up with by few readings.
		x.mu.Lock()
		pb.cut()
		x.mu.Unlock()
		require.NoError(t, a.Send(lobby(), websocket.Text("missed")))
		ben.heard()
		x.mu.Lock()
		before = x.reads
		x.mu.Unlock()
		pb.connect()
		for i := range 100 {
			require.NoError(t, a.Send(lobby(), websocket.Text(fmt.Sprint("steady", i))))
			time.Sleep(500 * time.Microsecond)
		}
		time.Sleep(time.Second)
		x.mu.Lock()
		require.Less(t, x.reads-before, 10)
		x.mu.Unlock()
		require.Regexp(t, `missed\|.*steady0\|.*steady99$`, ben.heard())

		// What does not fit any more is not sent, and the sender is told.
		x.mu.Lock()
		pa.cut()
		x.mu.Unlock()
		big := websocket.Binary(make([]byte, 1_000_000))
		for range 8 {
			require.NoError(t, a.Send(lobby(), big))
		}
		require.ErrorIs(t, a.Send(lobby(), big), ErrUnsent)
		r := httptest.NewRequest("POST", "/?namespace=chat&room=lobby", bytes.NewReader(big.Data))
		r.Header.Set("Authorization", "Bearer secret")
		w := httptest.NewRecorder()
		(&Publisher{Hub: a, Token: "secret"}).ServeHTTP(w, r)
		require.Equal(t, 503, w.Code)
		require.NoError(t, a.Send(lobby(), websocket.Text("small")))
		pa.connect()
		time.Sleep(10 * time.Second)
		require.Regexp(t, `sent115 small$`, brief(t, ben.heard()))
	})
}

// What clients say that they have heard is theirs to invent.
func FuzzPosition(f *testing.F) {
	f.Add("0123456789abcdef-7")
	f.Add("0123456789abcdef--1")
	f.Add("+123456789abcdef-18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := parsePosition(s)
		if !ok {
			return
		}
		q, ok := parsePosition(p.String())
		require.True(t, ok)
		require.Equal(t, p, q)
		h := &history{last: Position{Epoch: p.Epoch, Offset: 9}, entries: make([]*entry, 5)}
		missed, complete := h.since(p.Offset)
		require.Equal(t, complete, p.Offset >= 4 && p.Offset <= 9)
		require.Equal(t, complete, uint64(len(missed)) == 9-p.Offset)
	})
}
