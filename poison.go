//go:build !race

package websocket

// poison does something only under the race detector: see poison_race.go.
func poison([]byte) {}
