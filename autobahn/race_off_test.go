//go:build !race

package autobahn

const (
	racing   = false
	patience = 2
)
