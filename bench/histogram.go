//go:build linux

package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations, to within 1/32 of each.
type histogram struct {
	counts [64 * 32]uint32
	n      int
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
}

func bucket(v uint64) int {
	if v < 64 {
		return int(v)
	}
	k := bits.Len64(v) - 6
	return k*32 + int(v>>k)
}

// quantile returns the duration that a share q are shorter than.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.n))
	for i, n := range h.counts {
		if rank -= int(n); rank < 0 {
			if i < 64 {
				return time.Duration(i)
			}
			k := i/32 - 1
			return time.Duration((uint64(i-k*32)<<1 + 1) << k >> 1)
		}
	}
	return 0
}
