//go:build linux

package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if !role() {
		os.Exit(m.Run())
	}
}

// A tiny run has every server deliver to every member, and prints a figure in
// each cell of each table.
func TestRun(t *testing.T) {
	o := options{members: 60, size: 128, rounds: 2, turn: 10 * time.Millisecond}
	for _, c := range contenders {
		o.servers = append(o.servers, c.name)
	}
	var b strings.Builder
	require.NoError(t, o.run(&b, func(string) {}))
	report := b.String()
	for _, row := range []string{
		"floor", "floor-raw", "hub", "hub-engine", "melody", "centrifuge", "bytes of a membership",
		"bytes of a membership with presence", "of the same hub",
	} {
		require.Regexp(t, `(?m)^\| `+row+` \|( [0-9.]+ \|)+$`, report)
	}
	n := 0
	for _, cell := range regexp.MustCompile(`[0-9.]+ \|`).FindAllString(report, -1) {
		v, err := strconv.ParseFloat(strings.TrimSuffix(cell, " |"), 64)
		require.NoError(t, err)
		if v > 0 {
			n++
		}
	}
	require.GreaterOrEqual(t, n, 6*4+4+2*4+2, report)
	member := regexp.MustCompile(`bytes of a membership with presence \| (\d+) `).FindStringSubmatch(report)
	bytes, err := strconv.Atoi(member[1])
	require.NoError(t, err)
	require.Less(t, bytes, 400, "few members share what a room costs")
}

// The driver counts messages however the network cuts them, and not what else
// comes.
func TestTake(t *testing.T) {
	long := "\x81\x7e\x00\x80" + strings.Repeat("x", 128)
	in := long + "\x89\x01p" + "\x81\x02in" + long
	for cut := 1; cut <= len(in); cut++ {
		d, l, n := &driver{job: job{Size: 100}}, &link{}, 0
		for rest := in; rest != ""; {
			k := min(cut, len(rest))
			m, err := d.take(l, []byte(rest[:k]))
			require.NoError(t, err)
			n, rest = n+m, rest[k:]
		}
		require.Equal(t, 2, n, cut)
		require.Empty(t, l.rest)
	}
	_, err := (&driver{}).take(&link{}, []byte("\x88\x02\x03\xe8"))
	require.ErrorContains(t, err, "closed")
}
