package autobahn

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpectations(t *testing.T) {
	const list = "# a comment\n\na*\t1.*|2.1\tFAILED/OK\tknown\nb\t1.1.1\tNON-STRICT/OK\tknown\n"
	res := func(id string, b, c Verdict) *Result { return &Result{ID: id, Behavior: b, BehaviorClose: c} }
	for _, tt := range []struct {
		name    string
		results []*Result
		odd     string
		unmet   int
	}{
		{"a, x", []*Result{res("1.1.1", Failed, OK), res("2.10", OK, OK)}, "", 0},
		{"a, x", []*Result{res("1.1.1", OK, OK)}, "1.1.1", 1},
		{"a, x", []*Result{res("2.10", Failed, OK), res("2.1", Failed, OK)}, "2.10", 0},
		{"b", []*Result{res("1.1.1", NonStrict, Unclean)}, "1.1.1", 1},
		{"c", []*Result{res("1.1.1", OK, WrongCode), res("3.1", OK, OK)}, "1.1.1", 0},
	} {
		all, err := ReadExpectations(strings.NewReader(list))
		require.NoError(t, err)
		e := all.For(tt.name)
		var odd []string
		for _, r := range e.Deviations(tt.results) {
			odd = append(odd, r.ID)
		}
		require.Equal(t, tt.odd, strings.Join(odd, " "), tt.name)
		require.Len(t, e.Unmet(), tt.unmet, tt.name)
	}
	_, err := ReadExpectations(strings.NewReader("only\tthree\tfields\n"))
	require.Error(t, err)
}
