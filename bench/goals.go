//go:build linux

package main

import (
	"fmt"
	"math"
)

// goals.go owns what this library wants to reach.

// A goal is a bound on a figure of ours, in a cell.
type goal struct {
	servers []string
	text    string
	value   func(c Cell, find func(server string) *Result, server string) float64
	limit   float64
	format  string
}

var (
	both     = []string{"websocket-serve", "websocket-next"}
	loops    = []string{"engine"}
	ours     = append(both[:2:2], loops...)
	netHTTP  = []string{"gorilla", "coder", "x/net"} // those on top of net/http
	allocate = func(r Round) float64 { return r.Allocs }
)

// goals returns those of a cell.
func (c Cell) goals() (all []goal) {
	epoll := func(limit float64) {
		all = append(all, goal{loops, fmt.Sprintf("CPU ≤ %.2f × epoll floor", limit), overEpoll, limit, "%.2f"})
	}
	floor := func(limit float64, servers ...string) {
		all = append(all, goal{servers, fmt.Sprintf("CPU ≤ %.2f × floor", limit), overFloor, limit, "%.2f"})
	}
	switch {
	case c.Kind == "client":
		floor(1.10, both...)
	case c.Kind == "broadcast":
		floor(1.05, both...)
	case c.Kind == "handshake":
		floor(1.15, both...)
		all = append(all, goal{both, "allocations ≤ leanest on net/http", overLeanest, 1, "%.2f"})
	case c.Kind == "idle":
		all = append(all, goal{both, "resident memory ≤ 3.0 KB", kilobytes, 3, "%.1f KB"})
	case c.Deflate != "":
		all = append(all, goal{both, "CPU ≤ 0.55 × best peer", overPeers, 0.55, "%.2f"})
	case c.InFlight > 1 && c.Size > 1<<10:
		floor(1.15, both[0])
		floor(1.10, loops...)
	case c.InFlight > 1:
		floor(1.25, both[0])
		floor(1.10, loops...)
	case c.Text != "binary":
		floor(1.08, both...)
	case c.Size > 16<<10:
		floor(1.10, both...)
	default:
		floor(1.05, both...)
	}
	if c.Kind == "echo" && c.InFlight == 1 && c.Deflate == "" {
		epoll(1.15)
	}
	if c.Kind == "echo" || c.Kind == "client" {
		all = append(all, goal{ours, "no allocation per message", allocations, 0.05, "%.2f"})
	}
	return all
}

func overFloor(c Cell, find func(string) *Result, server string) float64 {
	return ratio(find(server), find("floor"), cpu)
}

func overEpoll(c Cell, find func(string) *Result, server string) float64 {
	return ratio(find(server), find("floor-epoll"), cpu)
}

func allocations(c Cell, find func(string) *Result, server string) float64 {
	if r := find(server); r != nil {
		return r.median(allocate)
	}
	return math.NaN()
}

func kilobytes(c Cell, find func(string) *Result, server string) float64 {
	if r := find(server); r != nil {
		return r.median(memory) / 1000
	}
	return math.NaN()
}

func overLeanest(c Cell, find func(string) *Result, server string) float64 {
	least := math.NaN()
	for _, name := range netHTTP {
		if r := find(name); r != nil && !(r.median(allocate) >= least) {
			least = r.median(allocate)
		}
	}
	return math.Round(allocations(c, find, server)) / math.Round(least)
}

func overPeers(c Cell, find func(string) *Result, server string) float64 {
	return ratio(find(server), bestPeer(find, cpu), cpu)
}

// bestPeer returns the result of the library with the least of a figure, ours
// and the floors aside.
func bestPeer(find func(string) *Result, f figure) (best *Result) {
	for _, l := range libraries {
		r := find(l.name)
		if l.kind != "" || r == nil || len(r.Rounds) == 0 {
			continue
		}
		if best == nil || r.median(f) < best.median(f) {
			best = r
		}
	}
	return best
}
