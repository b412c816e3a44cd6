//go:build race

package autobahn

// Under the race detector the double is some ten times slower: fewer and smaller messages do, and more time.
const (
	racing   = true
	patience = 5
)
