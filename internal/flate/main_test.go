package flate

import (
	"os"
	"testing"

	"github.com/seed-07372d5a/websocket/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }

// long is for tests that the race detector, which has nothing to find in one
// goroutine, makes too long.
func long(t *testing.T) {
	if raceEnabled {
		t.Skip("long, and of one goroutine")
	}
}
