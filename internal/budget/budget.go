// Package budget holds code that is fed by strangers to what it may cost, for fuzz targets.
package budget

import (
	"runtime"
	"testing"
	"time"
)

// What an input of n bytes may cost at most, besides what Check is told: twice its size in memory, and this much CPU
// time. The latter is generous, for fuzzed code is instrumented and machines are slow: it is there to find what takes
// minutes. What can be counted (steps, calls, bytes of output) the targets count.
const (
	slack   = 32 << 10 // bytes of memory that belong to the runtime
	cpuFree = time.Second / 4
	cpuByte = 20 * time.Microsecond
)

// Check calls f, which is fed n bytes, and fails t if f allocated more than 2*n + fixed bytes, dead or alive, or took
// longer on its CPU than an input of that size ever should. Under the race detector memory is not looked at, for there
// sync.Pool throws things away at random.
//
// Looking at the memory stops the world: for most of the smallest inputs it is left out.
func Check(t testing.TB, n, fixed int, f func()) {
	t.Helper()
	measure := !raceEnabled && (n >= 256 || n%8 == 0)
	var before, after runtime.MemStats
	if measure {
		runtime.ReadMemStats(&before)
	}
	runtime.LockOSThread()
	start := cpuTime()
	f()
	took := cpuTime() - start
	runtime.UnlockOSThread()
	if most := cpuFree + time.Duration(n)*cpuByte; took > most {
		t.Fatalf("%v of CPU time for %d bytes of input, %v are allowed", took, n, most)
	}
	if measure {
		runtime.ReadMemStats(&after)
		if took, most := after.TotalAlloc-before.TotalAlloc, uint64(2*n+fixed+slack); took > most {
			t.Fatalf("%d bytes allocated for %d bytes of input, %d are allowed", took, n, most)
		}
	}
}
