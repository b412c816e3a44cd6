//go:build !go1.26

package websocket

// withoutFIPS runs f. See fips_go126.go.
func withoutFIPS(f func()) { f() }
