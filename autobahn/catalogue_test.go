package autobahn

import (
	"slices"
	"strings"
	"testing"
)

// The ids must be upstream's, in its order, and as many (catalogue, count).
func TestCatalogueCounts(t *testing.T) {
	want := map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}
	first := map[string]int{"1": 1, "2": 17, "3": 28, "4": 35, "5": 45, "6": 65, "7": 210, "9": 247, "10": 301, "12": 302, "13": 392}
	got, starts, total := map[string]int{}, map[string]int{}, 0
	for _, c := range Cases() {
		s, _, _ := strings.Cut(c.ID, ".")
		if s == "20" {
			if c.Index <= upstreamCases {
				t.Errorf("%s has index %d", c.ID, c.Index)
			}
			continue
		}
		if got[s]++; got[s] == 1 {
			starts[s] = c.Index
		}
		total++
		if !c.Servers || !c.Clients {
			t.Errorf("%s must apply to servers and clients", c.ID)
		}
	}
	if total != upstreamCases {
		t.Errorf("%d cases, want %d", total, upstreamCases)
	}
	for s, n := range want {
		if got[s] != n || starts[s] != first[s] {
			t.Errorf("section %s: %d cases from index %d, want %d from %d", s, got[s], starts[s], n, first[s])
		}
	}
}

func TestCatalogueOrder(t *testing.T) {
	cases := Cases()
	if !slices.IsSortedFunc(cases, func(a, b *Case) int { return compareIDs(a.ID, b.ID) }) {
		t.Error("ids are not in order")
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.ID] {
			t.Errorf("%s twice", c.ID)
		}
		seen[c.ID] = true
		if c.Description == "" || c.Expectation == "" || c.play == nil {
			t.Errorf("%s is not complete", c.ID)
		}
	}
}

func TestSelection(t *testing.T) {
	for _, tt := range []struct {
		run, exclude []string
		want         string
	}{
		{[]string{"2.1"}, nil, "2.1"},
		{[]string{"2.1*"}, nil, "2.1 2.10 2.11"},
		{[]string{"3.*"}, []string{"3.3", "3.7*"}, "3.1 3.2 3.4 3.5 3.6"},
		{[]string{"7.13.*", "10.1.1"}, nil, "7.13.1 7.13.2 10.1.1"},
		{[]string{"6.[57].1*"}, nil, "6.5.1 6.7.1"},
	} {
		cases, err := selectCases(&Config{Run: tt.run, Exclude: tt.exclude}, true)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, c := range cases {
			ids = append(ids, c.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("%v without %v: %s, want %s", tt.run, tt.exclude, got, tt.want)
		}
	}
	if _, err := selectCases(&Config{Run: []string{"(*"}}, true); err == nil {
		t.Error("a broken pattern was taken")
	}
}
