//go:build linux

package main

import (
	"fmt"
	"time"
)

func report(out string, list []Cell, results []*Result, o *options, begun time.Time) error {
	for _, c := range list {
		fmt.Println(c.Name)
		var floor *Result
		for _, r := range results {
			if r.Cell == c.Name && r.Server == "floor" {
				floor = r
			}
		}
		for _, r := range results {
			if r.Cell == c.Name {
				fmt.Printf("  %-18s %8.2f µs %6.3f  %9.0f/s p50 %7.1f p99 %7.1f  allocs %5.2f  r %5.2f w %5.2f mem %6.0f wire %5.0f busy %.2f %s\n", r.Server, r.median(cpu), ratio(r, floor, cpu), r.median(func(r Round) float64 { return r.Rate }),
					r.median(func(r Round) float64 { return r.P50 }), r.median(func(r Round) float64 { return r.P99 }), r.median(func(r Round) float64 { return r.Allocs }), r.median(func(r Round) float64 { return r.Reads }), r.median(func(r Round) float64 { return r.Writes }), r.median(memory), r.median(func(r Round) float64 { return r.Wire }), r.median(func(r Round) float64 { return r.Busy }), r.Error)
			}
		}
	}
	return nil
}
