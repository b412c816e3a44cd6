package bench

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"
)

var compare = flag.Bool("compare", false, "print the table of ratios")

// TestCompare prints how the codecs compare in runs that take turns, so that what else the machine does, it does to all:
//
//	go test -run Compare -v . -compare
func TestCompare(t *testing.T) {
	if !*compare {
		t.Skip("without -compare")
	}
	for _, what := range []struct {
		name   string
		codecs func(*set, bool) []codec
	}{{"inflate", inflaters}, {"deflate", deflaters}} {
		for _, takeover := range []bool{false, true} {
			fmt.Printf("\n| %s, takeover=%v | ours ns | std ns | klauspost ns | std/ours | klauspost/ours | size ours | std | klauspost | ours/klauspost |\n",
				what.name, takeover)
			fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
			for _, s := range sets() {
				row(&s, what.codecs(&s, takeover))
			}
		}
	}
}

// row prints the medians of 21 rounds. A round is all messages, several times.
func row(s *set, codecs []codec) {
	const rounds = 21
	times := make([][]float64, len(codecs))
	sizes := make([]int, len(codecs))
	n := len(s.messages)
	again := max(1, 2<<20/(n*s.size))
	for range rounds {
		for c := range codecs {
			sizes[c] = 0
			begin := time.Now()
			for range again {
				for i := range n {
					sizes[c] += codecs[c].next(i)
				}
			}
			times[c] = append(times[c], float64(time.Since(begin))/float64(n*again))
		}
	}
	var median, size [3]float64
	for c := range codecs {
		slices.Sort(times[c])
		median[c] = times[c][rounds/2]
		size[c] = float64(sizes[c]) / float64(n*again*s.size)
	}
	fmt.Printf("| %s | %.0f | %.0f | %.0f | %.2f | %.2f | %.4f | %.4f | %.4f | %+.1f %% |\n", s.name, median[0], median[1],
		median[2], median[1]/median[0], median[2]/median[0], size[0], size[1], size[2], 100*(size[0]/size[2]-1))
}
