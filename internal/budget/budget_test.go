package budget

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A witness is failed instead of the test.
type witness struct {
	testing.TB
	said string
}

func (w *witness) Fatalf(format string, _ ...any) { w.said = format }
func (w *witness) Helper()                        {}

var sink []byte

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name         string
		input, spent int
		over         bool
	}{
		{"nothing", 0, 0, false},
		{"as much as allowed", 1 << 20, 2<<20 + 1000, false},
		{"too much", 1 << 20, 2<<20 + 1<<18, true},
		{"too much for nothing", 0, 1 << 18, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &witness{TB: t}
			Check(w, c.input, 1000, func() { sink = make([]byte, c.spent) })
			require.Equal(t, c.over && !raceEnabled, strings.Contains(w.said, "bytes allocated"), w.said)
		})
	}
}

// Time is told where the system tells it.
func TestCheckTime(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("on linux only")
	}
	w := &witness{TB: t}
	Check(w, 0, 1000, func() {
		for start := cpuTime(); cpuTime() <= start+cpuFree; {
		}
	})
	require.Contains(t, w.said, "CPU")
}
