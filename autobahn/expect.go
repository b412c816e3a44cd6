package autobahn

// Expectations: which verdicts of which cases are known and why, so that a change in either direction is noticed.

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Expectations list results that are not OK, for one or more names of testees. A list is read from lines of four
// fields with tabs between: names, case ids, behavior/behaviorClose, and why. In the first two a * at the end stands
// for any rest, and | separates alternatives. Empty lines and those that begin with # do not count. The first line
// that fits a case holds for it; a case that no line fits must be OK/OK.
type Expectations []*Expectation

// An Expectation is one line.
type Expectation struct {
	Names, IDs string
	Verdicts   string // behavior/behaviorClose
	Why        string
	met        bool
}

// ReadExpectations reads a list.
func ReadExpectations(r io.Reader) (Expectations, error) {
	var list Expectations
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("autobahn: line %d of expectations has %d fields instead of 4", n, len(f))
		}
		list = append(list, &Expectation{Names: f[0], IDs: f[1], Verdicts: f[2], Why: f[3]})
	}
	return list, lines.Err()
}

// For returns what is expected of one testee, as a copy of its own.
func (e Expectations) For(name string) Expectations {
	var list Expectations
	for _, x := range e {
		if fits(x.Names, name) {
			one := *x
			list = append(list, &one)
		}
	}
	return list
}

// Deviations returns the results that are not as expected, and remembers which expectations were met.
func (e Expectations) Deviations(results []*Result) []*Result {
	var odd []*Result
	for _, res := range results {
		want := "OK/OK"
		i := slices.IndexFunc(e, func(x *Expectation) bool { return fits(x.IDs, res.ID) })
		if i >= 0 {
			want = e[i].Verdicts
		}
		switch {
		case string(res.Behavior)+"/"+string(res.BehaviorClose) != want:
			odd = append(odd, res)
		case i >= 0:
			e[i].met = true
		}
	}
	return odd
}

// Unmet returns the expectations that no result has met so far: they are out of date.
func (e Expectations) Unmet() []*Expectation {
	return slices.DeleteFunc(slices.Clone(e), func(x *Expectation) bool { return x.met })
}

// fits takes words, or beginnings and a *, with | between.
func fits(pattern, s string) bool {
	for p := range strings.SplitSeq(pattern, "|") {
		if before, open := strings.CutSuffix(p, "*"); open && strings.HasPrefix(s, before) || p == s {
			return true
		}
	}
	return false
}
