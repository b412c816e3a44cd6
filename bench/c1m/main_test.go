//go:build linux

package main

import (
	"os"
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

// Two pairs with a few connections each: every server has a row with all of
// them, says what it held on the way, and those with a goroutine for each
// connection show it.
func TestRun(t *testing.T) {
	o := options{pairs: 2, most: 200, libs: []string{"engine", "Server", "gorilla", "gws", "nbio"}, settle: 100 * time.Millisecond}
	var b strings.Builder
	require.NoError(t, o.run(&b))
	report := b.String()
	require.Contains(t, report, "limited by -n\n")
	for _, name := range o.libs {
		goroutines := `1\.\d+`
		if name == "engine" || name == "nbio" {
			goroutines = `0\.\d+`
		}
		require.Regexp(t, `(?m)^  `+name+`: 400 connections, \d+ MiB, \d+ goroutines$`, report)
		require.Regexp(t, `(?m)^\| `+name+` \| 400 \| \d+ \| -?\d+ \| `+goroutines+` \| -?\d+ \|$`, report)
	}
}
