package websocket

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/internal/memnet"
)

// Connections share what they have in common, and nothing else: each has its own
// limit and subprotocol, however many kinds there are, and in whatever order they
// were made.
func TestProfiles(t *testing.T) {
	const kinds = 40 // more than are remembered
	for i := range 5 * kinds {
		k := i % kinds
		if i%3 == 0 {
			k = i % 4
		}
		a, _ := memnet.Pipe(1 << 10)
		c := NewConn(a, Params{Subprotocol: strconv.Itoa(k), Config: Config{ReadLimit: int64(100 + k), KeepAlive: -1}})
		require.Equal(t, strconv.Itoa(k), c.Subprotocol())
		var got int
		h := &Handler{Message: func(_ *Conn, m Message) { got = len(m.Data) }}
		require.NoError(t, c.Feed(nil, h))
		require.NoError(t, c.Feed(frames(masked(bin, 1), string(seq(100+k))), h))
		require.Equal(t, 100+k, got)
		require.Equal(t, errTooBig, c.Feed(frames(masked(bin, 1), string(seq(101+k))), h))
		c.CloseNow()
	}
	one, two := (&Params{}).profile(), (&Params{Config: Config{ReadLimit: 1 << 20}}).profile()
	require.Same(t, one, two, "the default by two names")
}
