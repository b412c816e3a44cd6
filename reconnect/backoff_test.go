package reconnect

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestExponential(t *testing.T) {
	for _, x := range []struct {
		e    Exponential
		n    int
		want time.Duration
	}{
		{Exponential{}, 1, second}, {Exponential{}, 2, 2 * second}, {Exponential{}, 3, 4 * second},
		{Exponential{}, 6, 32 * second}, {Exponential{}, 7, 60 * second}, {Exponential{}, math.MaxInt32, 60 * second},
		{Exponential{Base: 5 * second, Max: 7 * second}, 1, 5 * second}, {Exponential{Base: 5 * second, Max: 7 * second}, 2, 7 * second},
		{Exponential{Base: 5 * second, Max: second}, 1, second}, {Exponential{Base: -1, Max: -1}, 9, 60 * second},
		{Exponential{Base: 1, Max: math.MaxInt64}, 1000, longest},
	} {
		require.Equal(t, x.want, x.e.bound(x.n), "%+v", x)
		var sum, least, most time.Duration
		least = math.MaxInt64
		const times = 2000
		for range times {
			d := x.e.Wait(x.n)
			sum, least, most = sum+d/times, min(least, d), max(most, d)
		}
		require.GreaterOrEqual(t, least, time.Duration(0))
		require.Less(t, most, x.want)
		require.InDelta(t, 0.5, float64(sum)/float64(x.want), 0.05, "full jitter: %+v", x)
		require.Less(t, float64(least), 0.05*float64(x.want))
		require.Greater(t, float64(most), 0.95*float64(x.want))
	}
}

func TestLinear(t *testing.T) {
	for _, x := range []struct {
		l    Linear
		n    int
		want time.Duration
	}{
		{Linear{}, 1, 0}, {Linear{}, 2, 10 * second}, {Linear{}, 12, 110 * second}, {Linear{}, 13, 120 * second},
		{Linear{}, 14, 120 * second}, {Linear{}, math.MaxInt, 120 * second},
		{Linear{Step: 7 * second, Max: 10 * second}, 2, 7 * second}, {Linear{Step: 7 * second, Max: 10 * second}, 3, 10 * second},
		{Linear{Step: 1, Max: math.MaxInt64}, math.MaxInt, longest},
	} {
		require.Equal(t, x.want, x.l.Wait(x.n), "%+v", x)
	}
}
