package session

import (
	"math/bits"
	"time"
)

// stats.go owns what is counted.

// Stats say what became of what this side has sent: messages, calls, replies and
// cancellations.
type Stats struct {
	Sent         uint64        // taken by Send and Call, and sent for them
	Acknowledged uint64        // the other side has handled them
	Lost         uint64        // dropped, or unacknowledged when the session was lost, or not in the store when it moved; some may have arrived
	Mean         time.Duration // from being sent to being acknowledged
	P99          time.Duration // 99 of 100 took no longer; at most a fifth too long
}

// Share is how much of what was sent and is not under way any more was
// acknowledged, from 0 to 1; 1 if nothing was sent.
func (s Stats) Share() float64 {
	if s.Acknowledged+s.Lost == 0 {
		return 1
	}
	return float64(s.Acknowledged) / float64(s.Acknowledged+s.Lost)
}

// A histogram counts times in buckets that grow by a quarter of a power of two.
type histogram struct {
	sum     time.Duration
	n       uint64
	buckets [4 * 36]uint32 // of microseconds: up to 19 hours
}

func (h *histogram) add(d time.Duration) {
	h.sum += d
	h.n++
	h.buckets[bucket(d)]++
}

// bucket is the power of two, and the two bits after the first.
func bucket(d time.Duration) int {
	us := uint64(max(d/time.Microsecond, 0)) + 4
	p := bits.Len64(us) - 3
	return min(4*p+int(us>>p)&3, 4*36-1)
}

// top is the longest time in a bucket.
func top(i int) time.Duration {
	p := i / 4
	return time.Duration((uint64(i%4)+5)<<p-4) * time.Microsecond
}

func (h *histogram) mean() time.Duration {
	if h == nil || h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

func (h *histogram) p99() time.Duration {
	if h == nil || h.n == 0 {
		return 0
	}
	left := h.n - h.n/100
	for i, k := range h.buckets {
		if left <= uint64(k) {
			return top(i)
		}
		left -= uint64(k)
	}
	return 0
}
