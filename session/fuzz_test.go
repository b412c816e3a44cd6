package session

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/internal/budget"
	"github.com/seed-07372d5a/websocket/wstest"
)

// Whatever is decoded costs no more than its size allows, and what comes out can
// be sent and comes out again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"type":"message","id":1,"name":"n","timestamp":1763700000000,"data":{"a":[1,2,"x"]}}`))
	f.Add([]byte(`{"type":"reply","id":3,"re":2,"error":{"code":"no","message":"\u0000é"}}`))
	f.Add([]byte(`{"type":"hello","token":"K5","ack":7,"x":[[[[]]]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Envelope
		var err error
		budget.Check(t, len(b), 16*len(b)+4<<10, func() { err = JSON.Decode(b, &e) })
		if err != nil || e.Timestamp < 0 || strings.ContainsFunc(e.Type, func(r rune) bool { return r < 'a' || r > 'z' }) {
			return
		}
		if e.Error != nil && e.Error.Code == "" || JSON.Check(e.Data) != nil {
			return
		}
		out := JSON.Append(nil, &e)
		require.True(t, json.Valid(out), "%s", out)
		var again Envelope
		require.NoError(t, JSON.Decode(out, &again))
		require.Equal(t, e, again)
	})
}

// The envelope's decoder takes and refuses what encoding/json does, and makes the
// same of it, but for names of fields in other letters, which it does not know.
func FuzzDecodeDiffers(f *testing.F) {
	for _, s := range []string{
		`{"type":"message","id":1,"name":"n","timestamp":1763700000000,"data":{"a":[1,2,"x"],"b":{}}}`,
		`{"type":"reply","id":3,"re":2,"error":{"code":"no","message":"\u0000é\ud83d\ude00\ud83d \/\b\f\n\r\t"}}`,
		" {\t\"type\" : \"hello\" ,\r\n\"token\":\"K5\",\"ack\":7,\"x\":[[[[]]]] } ",
		`{"data":null,"type":null,"id":null,"timestamp":-1,"error":null,"name":"` + "\xff" + `"}`,
		`{"data":-0.5e+3,"data":[{},[],"",true,false,null,1E9],"error":{"code":"a"},"error":{"message":"b"}}`,
		`{"id":18446744073709551615}`, `{"id":18446744073709551616}`, `{"id":1.0}`, `{"id":01}`, `{"id":-0}`, `{"id":1e2}`,
		`{"ty\u0070e":"ack"}`, `{"type":1}`, `{"error":1}`, `{"error":{"code":1}}`, `{,}`, `{"a":1,}`, `{"a" 1}`, `{"a":tru}`,
		`{"a":"\x"}`, `{"a":"\u12"}`, "{\"a\":\"\n\"}", `{"a":[1,]}`, `{"a":[}`, `{"a":1}x`, `[]`, `1`, ``, `{`, `{"a`, `{"a":`, `{"a":1`,
	} {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"data":` + strings.Repeat(`[{"a":`, 300) + "1" + strings.Repeat("}]", 300) + `}`))
	f.Add([]byte(`{"data":` + strings.Repeat(`[`, 300) + "1" + strings.Repeat("}", 300) + `}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		require.Equal(t, json.Valid(b), valid(b, 0), "%q", b)
		var e, want Envelope
		err := json.Unmarshal(b, &want)
		if strings.TrimSpace(string(b)) == "null" || otherLetters(b) {
			return
		}
		require.Equal(t, err == nil, e.decode(b, new(names)), "%q: %v", b, err)
		if err == nil {
			require.Equal(t, want, e, "%q", b)
		}
	})
}

// otherLetters tells whether a name of a field would be ours if it were folded.
func otherLetters(b []byte) bool {
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		token, err := d.Token()
		if err != nil {
			return false
		}
		name, _ := token.(string)
		for _, our := range []string{"type", "id", "re", "ack", "token", "name", "timestamp", "data", "error", "code", "message"} {
			if name != our && strings.EqualFold(name, our) {
				return true
			}
		}
	}
}

// Whatever a client sends, lines of which are messages, the server neither
// panics nor hangs, and lets go of it.
func FuzzServe(f *testing.F) {
	f.Add("{\"type\":\"hello\"}\n{\"type\":\"message\",\"id\":1,\"name\":\"n\"}\n{\"type\":\"call\",\"id\":2,\"name\":\"echo\",\"data\":1}\n" +
		"{\"type\":\"cancel\",\"id\":3,\"re\":2}\n{\"type\":\"ack\",\"ack\":1}\n{\"type\":\"gap\",\"id\":18446744073709551615}")
	f.Add("{\"type\":\"hello\",\"token\":\"x\",\"ack\":18446744073709551615}\n{\"type\":\"reply\",\"id\":1,\"re\":1}\n{\"type\":\"ping\"}")
	f.Fuzz(func(t *testing.T, lines string) {
		synctest.Test(t, func(t *testing.T) {
			client, conn := wstest.Pipe()
			v := &Server{Config: Config{
				Message: func(s *Session, name string, data []byte) { s.Send("back", data) },
				Methods: map[string]Method{"echo": func(_ context.Context, _ *Session, data []byte) ([]byte, error) { return data, nil }},
			}}
			done := make(chan error, 1)
			go func() { done <- v.Serve(t.Context(), conn) }()
			go client.Serve(t.Context(), nil)
			for line := range strings.Lines(lines) {
				if client.Write(t.Context(), websocket.Text(strings.ToValidUTF8(line, ""))) != nil {
					break
				}
			}
			synctest.Wait()
			client.CloseNow()
			require.Error(t, <-done)
			v.Shutdown()
			synctest.Wait()
		})
	})
}
