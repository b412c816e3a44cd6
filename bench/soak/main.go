// Soak runs a server and its clients for as long as one likes: connections of
// all kinds, over TCP and TLS, with faults. Every message has a number and a
// checksum. It fails if one is lost, changed or out of order without a fault that
// explains it, and if goroutines, descriptors or memory are left behind.
//
//	cd bench && go run ./soak -for 10m
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	duration = flag.Duration("for", 10*time.Minute, "how long")
	clients  = flag.Int("clients", 200, "connections at the same time")
	seed     = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is random")
)

// Totals of the run.
var (
	lives, sent, echoed, heard, bytes atomic.Int64 // heard: broadcasts
	unsure                            atomic.Int64 // messages that a fault has cost
	faults                            counts
	problems                          failures
)

func main() {
	flag.Parse()
	if !soak() {
		os.Exit(1)
	}
}

// soak does all of it, and tells whether all was well.
func soak() bool {
	fmt.Printf("soak: %v, %d clients, -seed %d, %s\n", *duration, *clients, *seed, runtime.Version())
	begin := time.Now()
	phase := min(max(*duration/12, time.Second), 20*time.Second)
	var samples []sample
	w := newWorld()
	base := measure() // with the listeners
	for n := 0; time.Since(begin) < *duration && problems.few(); n++ {
		left := *duration - time.Since(begin)
		w.run(min(phase, left), uint64(n))
		s := settle(base)
		samples = append(samples, s)
		fmt.Printf("%7v  %d lives, %d messages and %d echoes, %d broadcasts, %d MB; %d unsure; %v; after: %v\n",
			time.Since(begin).Round(time.Second), lives.Load(), sent.Load(), echoed.Load(), heard.Load(),
			bytes.Load()>>20, unsure.Load(), faults.String(), s)
	}
	w.close()
	drift(samples)
	switch {
	case echoed.Load() == 0 || heard.Load() == 0:
		problems.add("nothing was carried")
	case problems.none():
		fmt.Printf("PASS: %v, %d connections, %d messages, %d broadcasts, %d MB, no loss that no fault explains, no leak, no drift\n",
			time.Since(begin).Round(time.Second), lives.Load(), echoed.Load(), heard.Load(), bytes.Load()>>20)
		return true
	}
	fmt.Print(problems.String())
	return false
}

// A sample is what the process holds when nothing is connected.
type sample struct {
	live, inuse             uint64 // bytes of heap
	goroutines, descriptors int
}

func (s sample) String() string {
	return fmt.Sprintf("%d KB live, %d KB in use, %d goroutines, %d descriptors", s.live>>10, s.inuse>>10, s.goroutines, s.descriptors)
}

func measure() sample {
	var m runtime.MemStats
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return sample{m.HeapAlloc, m.HeapInuse, runtime.NumGoroutine(), descriptors()}
}

func descriptors() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}

// settle waits until what a phase has started has ended, and reports what does
// not.
func settle(base sample) (s sample) {
	for end := time.Now().Add(patience / 4); ; time.Sleep(20 * time.Millisecond) {
		// Descriptors are counted before a collection, which closes what was
		// forgotten; two more are the poller's own, that come with the first socket.
		if runtime.NumGoroutine() <= base.goroutines && descriptors() <= base.descriptors+2 {
			return measure()
		}
		if time.Now().After(end) {
			break
		}
	}
	s = measure()
	b := make([]byte, 1<<20)
	problems.add("left behind: %v, at first %v\n%s", s, base, b[:min(runtime.Stack(b, true), 20_000)])
	return s
}

// drift compares what is live at the end with what was at the beginning, by
// medians, since single samples are noisy.
func drift(samples []sample) {
	if len(samples) < 4 {
		return
	}
	part := max(len(samples)/3, 1)
	median := func(s []sample) uint64 {
		var v []uint64
		for _, s := range s {
			v = append(v, s.live)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	samples = samples[1:] // the first pays for what stays
	first, last := median(samples[:part]), median(samples[len(samples)-part:])
	fmt.Printf("live heap: %d KB at first, %d KB at last\n", first>>10, last>>10)
	if last > first+first/4+1<<20 {
		problems.add("memory drifts: %d KB became %d KB", first>>10, last>>10)
	}
}

// failures are what must not be.
type failures struct {
	mu    sync.Mutex
	n     int
	texts []string
}

func (f *failures) add(format string, a ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; len(f.texts) < 20 {
		f.texts = append(f.texts, fmt.Sprintf(format, a...))
	}
}

func (f *failures) none() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.n == 0 }
func (f *failures) few() bool  { f.mu.Lock(); defer f.mu.Unlock(); return f.n < 20 }

func (f *failures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("FAIL: %d problems\n%s\n", f.n, strings.Join(f.texts, "\n"))
}

// counts are numbers by name.
type counts struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]int{}
	}
	c.m[name]++
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimPrefix(fmt.Sprint(c.m), "map")
}
