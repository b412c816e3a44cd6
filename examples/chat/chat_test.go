package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
)

// A visitor is a page of the test.
type visitor struct {
	t    *testing.T
	ctx  context.Context
	conn *websocket.Conn
}

// open starts a chat server and returns the URL of its conversation.
func open(t *testing.T) string {
	ws := &websocket.Server{Options: options, Handler: new(room).serve}
	web := httptest.NewServer(routes(ws))
	t.Cleanup(web.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, ws.Shutdown(ctx))
	})
	return web.URL + "/chat"
}

// visit connects.
func visit(t *testing.T, url string) *visitor {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	c, err := websocket.Dial(ctx, url, nil)
	require.NoError(t, err)
	t.Cleanup(func() { c.CloseNow() })
	return &visitor{t, ctx, c}
}

// enter connects and joins, and expects to be welcomed to these people.
func enter(t *testing.T, url, name string, people ...string) *visitor {
	t.Helper()
	v := visit(t, url)
	v.send(request{Type: "join", Name: name, Key: "key of " + name})
	v.expect(event{Type: "welcome", Name: name, People: people})
	return v
}

func (v *visitor) write(m websocket.Message) {
	v.t.Helper()
	require.NoError(v.t, v.conn.Write(v.ctx, m))
}

func (v *visitor) send(q request) {
	v.t.Helper()
	b, err := json.Marshal(q)
	require.NoError(v.t, err)
	v.write(websocket.Text(string(b)))
}

// expect reads an event. The time of a message is not compared.
func (v *visitor) expect(want event) {
	v.t.Helper()
	m, err := v.conn.Read(v.ctx)
	require.NoError(v.t, err)
	var got event
	require.NoError(v.t, json.Unmarshal(m.Data, &got))
	if want.Type == "message" {
		require.NotZero(v.t, got.Time)
		got.Time = 0
	}
	require.Equal(v.t, want, got)
}

// farewell expects the server to close the connection, for any reason if none
// is given.
func (v *visitor) farewell(code websocket.CloseCode, reason string) {
	v.t.Helper()
	_, err := v.conn.Read(v.ctx)
	var got *websocket.CloseError
	require.ErrorAs(v.t, err, &got)
	require.Equal(v.t, code, got.Code)
	if reason != "" {
		require.Equal(v.t, reason, got.Reason)
	}
}

func TestPeopleComeAndGo(t *testing.T) {
	url := open(t)
	ana := enter(t, url, "Ana", "Ana")
	ben := enter(t, url, "Ben", "Ana", "Ben")
	ana.expect(event{Type: "joined", Name: "Ben"})
	zoe := enter(t, url, "Zoë", "Ana", "Ben", "Zoë")
	ana.expect(event{Type: "joined", Name: "Zoë"})
	ben.expect(event{Type: "joined", Name: "Zoë"})

	require.NoError(t, ben.conn.Close(websocket.CloseGoingAway, ""))
	ana.expect(event{Type: "left", Name: "Ben"})
	zoe.expect(event{Type: "left", Name: "Ben"})
	zoe.conn.CloseNow() // as if the network had gone
	ana.expect(event{Type: "left", Name: "Zoë"})

	enter(t, url, "Ben", "Ana", "Ben")
	ana.expect(event{Type: "joined", Name: "Ben"})
}

func TestMessageReachesAll(t *testing.T) {
	url := open(t)
	ana := enter(t, url, "Ana", "Ana")
	ben := enter(t, url, "Ben", "Ana", "Ben")
	ana.expect(event{Type: "joined", Name: "Ben"})

	for _, text := range []string{
		"Grüße, 世界 👋🏽",
		"two\nlines\tand a tab",
		`<img src=x onerror="alert(1)"><script>alert(2)</script>`, // passed on as it is: the page shows it as text
		strings.Repeat("\U0001f600", maxText),
	} {
		ben.send(request{Type: "say", Text: text})
		want := event{Type: "message", From: "Ben", Text: text}
		ana.expect(want)
		ben.expect(want)
	}
	ben.send(request{Type: "say", Text: " \x00be\x1b[31mll\a \n"})
	ana.expect(event{Type: "message", From: "Ben", Text: "be[31mll"})
}

func TestPrivateMessageReachesOne(t *testing.T) {
	url := open(t)
	ana := enter(t, url, "Ana", "Ana")
	ben := enter(t, url, "Ben", "Ana", "Ben")
	eve := enter(t, url, "Eve", "Ana", "Ben", "Eve")
	ana.expect(event{Type: "joined", Name: "Ben"})
	ana.expect(event{Type: "joined", Name: "Eve"})
	ben.expect(event{Type: "joined", Name: "Eve"})

	ana.send(request{Type: "say", To: "Ben", Text: "a secret"})
	secret := event{Type: "message", From: "Ana", To: "Ben", Text: "a secret"}
	ana.expect(secret)
	ben.expect(secret)
	ana.send(request{Type: "say", Text: "no secret"})
	eve.expect(event{Type: "message", From: "Ana", Text: "no secret"}) // and nothing before it

	ana.expect(event{Type: "message", From: "Ana", Text: "no secret"})
	ana.send(request{Type: "say", To: "Nobody", Text: "hello?"})
	ana.expect(event{Type: "error", Text: "nobody here has that name"})
	ana.send(request{Type: "say", To: "ana", Text: "hello?"})
	ana.expect(event{Type: "error", Text: "that is you"})
}

func TestTextIsBounded(t *testing.T) {
	ana := enter(t, open(t), "Ana", "Ana")
	ana.send(request{Type: "say", Text: strings.Repeat("a", maxText+1)})
	ana.expect(event{Type: "error", Text: "a message has at most 2000 characters"})
	ana.send(request{Type: "say", Text: " \n\x00 "})
	ana.expect(event{Type: "error", Text: "there is nothing in that message"})
	ana.send(request{Type: "say", Text: "still here"})
	ana.expect(event{Type: "message", From: "Ana", Text: "still here"})
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"Ana":                        "Ana",
		" Ana \t Maria\u00a0 ":       "Ana Maria",
		"A\u200bn\u202ea\ufe0f\x00":  "Ana", // zero width, right to left, variation, control
		"世界":                         "世界",
		"<b>Bold</b>":                "<b>Bold</b>",
		strings.Repeat("é", maxName): strings.Repeat("é", maxName),
	} {
		got, err := cleanName(in)
		require.NoError(t, err, "%q", in)
		require.Equal(t, want, got)
	}
	for in, want := range map[string]string{
		"":                             "a name is needed",
		" \t\u3000":                    "a name is needed",
		"\u200b\u2060\u115f":           "a name is needed",
		"\u0301":                       "a name is needed",
		strings.Repeat("é", maxName+1): "a name has at most 24 characters",
	} {
		_, err := cleanName(in)
		require.EqualError(t, err, want, "%q", in)
	}
}

func TestNameIsRefused(t *testing.T) {
	url := open(t)
	enter(t, url, "Ana", "Ana")
	for name, reason := range map[string]string{
		"Ana":                    "somebody here has that name already",
		"ANA":                    "somebody here has that name already",
		" a\u200bna ":            "somebody here has that name already",
		"":                       "a name is needed",
		strings.Repeat("n", 25):  "a name has at most 24 characters",
		strings.Repeat("n", 9e3): "a name has at most 24 characters",
	} {
		v := visit(t, url)
		v.send(request{Type: "join", Name: name, Key: "another"})
		v.farewell(closeRefused, reason)
	}
}

func TestPageComesBack(t *testing.T) {
	url := open(t)
	lost := enter(t, url, "Ana", "Ana")
	ben := enter(t, url, "Ben", "Ana", "Ben")
	lost.expect(event{Type: "joined", Name: "Ben"})
	ana := enter(t, url, "Ana", "Ana", "Ben") // the server has not missed the first one
	lost.farewell(closeReplaced, "you are here on another connection")

	ana.send(request{Type: "say", Text: "back"}) // Ben was not told that she had gone
	ben.expect(event{Type: "message", From: "Ana", Text: "back"})

	v := visit(t, url)
	v.send(request{Type: "join", Name: "Cat"})
	v.expect(event{Type: "welcome", Name: "Cat", People: []string{"Ana", "Ben", "Cat"}})
	v = visit(t, url)
	v.send(request{Type: "join", Name: "Cat"}) // no key is nobody's key
	v.farewell(closeRefused, "somebody here has that name already")
}

func TestHostileInput(t *testing.T) {
	const noJSON = "that is no JSON of this chat"
	for _, c := range []struct {
		name   string
		input  websocket.Message
		code   websocket.CloseCode
		reason string // of the room; empty if the library chooses it
	}{
		{"no JSON", websocket.Text("hello"), websocket.ClosePolicyViolation, noJSON},
		{"half of it", websocket.Text(`{"type":"say","text":"`), websocket.ClosePolicyViolation, noJSON},
		{"too much of it", websocket.Text(`{"type":"say","text":"a"}{}`), websocket.ClosePolicyViolation, noJSON},
		{"nothing", websocket.Text(""), websocket.ClosePolicyViolation, noJSON},
		{"wrong kind", websocket.Text(`{"type":"say","text":["a"]}`), websocket.ClosePolicyViolation, noJSON},
		{"array", websocket.Text(`[]`), websocket.ClosePolicyViolation, noJSON},
		{"deep", websocket.Text(strings.Repeat("[", 16<<10)), websocket.ClosePolicyViolation, noJSON},
		{"null", websocket.Text(`null`), websocket.ClosePolicyViolation, "a say was expected"},
		{"unknown type", websocket.Text(`{"type":"welcome"}`), websocket.ClosePolicyViolation, "a say was expected"},
		{"binary", websocket.Binary([]byte(`{"type":"say","text":"a"}`)), websocket.CloseUnsupportedData, "only text is understood"},
		{"too large", websocket.Text(strings.Repeat(" ", int(options.Config.ReadLimit)+1)), websocket.CloseMessageTooBig, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := open(t)
			ana := enter(t, url, "Ana", "Ana")
			mal := enter(t, url, "Mal", "Ana", "Mal")
			ana.expect(event{Type: "joined", Name: "Mal"})
			mal.write(c.input)
			mal.farewell(c.code, c.reason)
			ana.expect(event{Type: "left", Name: "Mal"})

			v := visit(t, url) // and the same from somebody who has not joined
			v.write(c.input)
			v.farewell(c.code, strings.Replace(c.reason, "a say", "a join", 1))

			ana.send(request{Type: "say", Text: "nothing happened"})
			ana.expect(event{Type: "message", From: "Ana", Text: "nothing happened"})
		})
	}
}

func TestJoinComesFirstAndOnce(t *testing.T) {
	url := open(t)
	v := visit(t, url)
	v.send(request{Type: "say", Text: "who am I?"})
	v.farewell(websocket.ClosePolicyViolation, "a join was expected")
	v = enter(t, url, "Ana", "Ana")
	v.send(request{Type: "join", Name: "Ben"})
	v.farewell(websocket.ClosePolicyViolation, "a say was expected")
}

func TestOtherSitesAreRefused(t *testing.T) {
	_, err := websocket.Dial(t.Context(), open(t), &websocket.DialOptions{Header: http.Header{"Origin": {"https://example.com"}}})
	var refused *websocket.HandshakeError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusForbidden, refused.Status)
}

func TestRoomIsFull(t *testing.T) {
	r := &room{people: make(map[string]*person)}
	for i := range maxPeople {
		r.people[string(rune('a'+i))] = nil
	}
	f := r.join(&person{name: "One more"})
	require.Equal(t, &farewell{websocket.CloseTryAgainLater, "the room is full"}, f)
}

// pipe is a connection to r without buffers, for tests in a bubble.
func pipe(t *testing.T, r *room) *visitor {
	ours, theirs := net.Pipe()
	client := websocket.NewConn(ours, websocket.Params{Client: true})
	server := websocket.NewConn(theirs, websocket.Params{Config: options.Config})
	go func() {
		r.serve(server.Context(), server)
		server.CloseNow()
	}()
	t.Cleanup(func() { client.CloseNow() })
	return &visitor{t, t.Context(), client}
}

func TestSlowReaderDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(room)
		ana := pipe(t, r)
		ana.send(request{Type: "join", Name: "Ana"})
		ana.expect(event{Type: "welcome", Name: "Ana", People: []string{"Ana"}})
		slow := pipe(t, r)
		slow.send(request{Type: "join", Name: "Slow"})
		slow.expect(event{Type: "welcome", Name: "Slow", People: []string{"Ana", "Slow"}})
		ana.expect(event{Type: "joined", Name: "Slow"})

		// Slow reads no more. Every message goes around at once nevertheless.
		start, sent := time.Now(), 0
		for text := strings.Repeat("a", maxText); sent < 2*options.Config.QueueLimit; sent += len(text) {
			require.NoError(t, r.say(r.person("Ana"), "", text, start))
			ana.expect(event{Type: "message", From: "Ana", Text: text})
		}
		require.Zero(t, time.Since(start))
		ana.expect(event{Type: "left", Name: "Slow"})
		require.LessOrEqual(t, time.Since(start), options.Config.CloseTimeout+time.Second)
	})
}

// person finds somebody.
func (r *room) person(name string) *person {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.people[fold(name)]
}

func TestTalkerIsSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ana := pipe(t, new(room))
		ana.send(request{Type: "join", Name: "Ana"})
		ana.expect(event{Type: "welcome", Name: "Ana", People: []string{"Ana"}})
		for range burst + 8 {
			require.NoError(t, ana.conn.Post(websocket.Text(`{"type":"say","text":"again"}`)))
		}
		start := time.Now()
		for range burst {
			ana.expect(event{Type: "message", From: "Ana", Text: "again"})
		}
		require.Zero(t, time.Since(start))
		for range 8 {
			ana.expect(event{Type: "message", From: "Ana", Text: "again"})
		}
		require.Equal(t, 8*interval, time.Since(start))
	})
}

func TestSilentVisitorIsSentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		pipe(t, new(room)).farewell(websocket.ClosePolicyViolation, "nobody joined")
		require.Equal(t, joinTime, time.Since(start))
	})
}

func TestPageIsGuarded(t *testing.T) {
	web := httptest.NewServer(routes(http.NotFoundHandler()))
	defer web.Close()
	elsewhere := regexp.MustCompile(`(src|href)="(https?:)?//|style="|\son[a-z]+="|<script>|innerHTML|insertAdjacent|document\.write`)
	for path, kind := range map[string]string{
		"/": "text/html", "/chat.js": "text/javascript", "/chat.css": "text/css", "/icon.svg": "image/svg+xml",
	} {
		resp, err := web.Client().Get(web.URL + path)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		require.True(t, strings.HasPrefix(resp.Header.Get("Content-Type"), kind), path)
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		require.Empty(t, elsewhere.FindString(string(body)), path)
	}
}

func TestRun(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, "localhost:0", w) }()
	line := make([]byte, 200)
	n, err := r.Read(line)
	require.NoError(t, err)
	url := regexp.MustCompile(`http://localhost:\d+`).FindString(string(line[:n]))
	require.NotEmpty(t, url, "%s", line[:n])

	err = run(ctx, strings.TrimPrefix(url, "http://"), new(bytes.Buffer))
	require.ErrorContains(t, err, "is taken by another program; choose another port with -addr")

	ana := enter(t, url+"/chat", "Ana", "Ana")
	spare, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")) // browsers do that
	require.NoError(t, err)
	defer spare.Close()
	interrupt()
	ana.farewell(websocket.CloseServiceRestart, "the chat will be back soon")
	require.NoError(t, <-ended)
}

func TestAddress(t *testing.T) {
	l := &net.TCPAddr{IP: net.IPv4zero, Port: 81}
	for addr, want := range map[string]string{
		"localhost:0": "http://localhost:81", ":81": "http://localhost:81", "[::]:0": "http://localhost:81",
		"0.0.0.0:81": "http://localhost:81", "192.0.2.1:81": "http://192.0.2.1:81", "[::1]:81": "http://[::1]:81",
	} {
		require.Equal(t, want, address(addr, l), addr)
	}
}
