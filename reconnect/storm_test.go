package reconnect

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket"
	"github.com/seed-07372d5a/websocket/wstest"
)

// Row 89: a server with 10,000 clients is killed, and comes back 10 s later. The
// clients find it again spread over time, all of them, and leave nothing behind.
func TestStorm(t *testing.T) {
	clients := 10_000
	if raceEnabled {
		clients = 500 // the detector knows 8,128 goroutines at most
	}
	const down, within = 10, 80 // seconds
	synctest.Test(t, func(t *testing.T) {
		n := new(wstest.Network)
		before := runtime.NumGoroutine()
		stop := n.Serve("a:80", server(stays))
		var open, attempts atomic.Int64
		var mu sync.Mutex
		var killed time.Time
		back := make([]int, within) // who was connected again, by seconds since the kill
		tried := make([]int, within)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // they came one by one
				c := &Client{
					URLs:    []string{"ws://a:80"},
					Options: websocket.DialOptions{Client: n.Client()},
					OnState: func(s State) {
						mu.Lock()
						defer mu.Unlock()
						at := 0
						if !killed.IsZero() {
							at = min(int(time.Since(killed)/second), within-1)
						}
						switch s.Phase {
						case Open:
							open.Add(1)
							if !killed.IsZero() {
								back[at]++
							}
						case Connecting:
							attempts.Add(1)
							if !killed.IsZero() {
								tried[at]++
							}
						}
					},
				}
				c.Run(ctx, func(ctx context.Context, c *websocket.Conn) error {
					defer open.Add(-1)
					return c.Serve(ctx, nil)
				})
			})
		}
		time.Sleep(time.Duration(clients)*time.Millisecond + 20*second) // all are good
		require.EqualValues(t, clients, open.Load())
		require.EqualValues(t, clients, attempts.Load(), "nobody needed a second attempt")

		mu.Lock()
		killed = time.Now()
		mu.Unlock()
		stop()
		time.Sleep(down * second)
		require.Zero(t, open.Load())
		stop = n.Serve("a:80", server(stays))
		time.Sleep((within - down) * second)
		require.EqualValues(t, clients, open.Load(), "all are back")

		mu.Lock()
		t.Logf("attempts by second: %v", tried)
		t.Logf("back by second:     %v", back)
		share := func(k int) float64 { return float64(k) / float64(clients) }
		total := 0
		for at, k := range back {
			require.Less(t, share(k), 0.25, "second %d: a storm", at)
			if at < down {
				require.Zero(t, k)
			} else {
				require.Less(t, share(tried[at]), 0.25, "second %d: a storm", at)
			}
			total += k
		}
		require.Equal(t, clients, total, "each came back once")
		busy := 0
		for _, k := range back[down : down+15] {
			if share(k) > 0.02 {
				busy++
			}
		}
		require.GreaterOrEqual(t, busy, 8, "spread over seconds, not bunched")
		mu.Unlock()

		cancel()
		wg.Wait()
		stop()
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine(), before)
	})
}
