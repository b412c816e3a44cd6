package reconnect

import (
	"math/rand/v2"
	"time"
)

// backoff.go owns how long to wait.

// A Backoff says how long to wait before an attempt after n failures in a row,
// where n is 1 or more. What is negative is taken for 0. It is called by one
// goroutine at a time for each Client that uses it.
type Backoff interface {
	Wait(n int) time.Duration
}

// Exponential waits for a random time ("full jitter"): evenly distributed from 0
// to a bound, which begins with Base and doubles with every failure up to Max.
// The zero value is ready.
type Exponential struct {
	Base time.Duration // 0: 1 s
	Max  time.Duration // 0: 60 s
}

// Wait returns a random time.
func (e Exponential) Wait(n int) time.Duration { return random(0, e.bound(n)) }

// bound is Base * 2^(n-1), at most Max.
func (e Exponential) bound(n int) time.Duration {
	d, most := positive(e.Base, time.Second), positive(e.Max, time.Minute)
	for ; n > 1 && d < most; n-- {
		d *= 2
	}
	return min(d, most)
}

// Linear makes the first attempt after a good connection at once, the next ones
// after Step, 2*Step and so on, up to Max. Clients that lose their server at the
// same moment come back at the same moment: it is for few of them. The zero value
// is ready.
type Linear struct {
	Step time.Duration // 0: 10 s
	Max  time.Duration // 0: 120 s
}

// Wait returns (n-1)*Step, at most Max.
func (l Linear) Wait(n int) time.Duration {
	step, most := positive(l.Step, 10*time.Second), positive(l.Max, 2*time.Minute)
	if time.Duration(n-1) > most/step { // else it could overflow
		return most
	}
	return min(time.Duration(n-1)*step, most)
}

// positive returns d, or what stands for the zero value.
func positive(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return min(d, longest)
}

// longest keeps sums and doubles from overflowing.
const longest = 1000 * time.Hour

// random returns a time from a up to, not including, b.
func random(a, b time.Duration) time.Duration { return a + rand.N(max(b-a, 1)) }
