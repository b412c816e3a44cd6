//go:build race

package websocket

// poison overwrites memory that was lent, when the loan ends, so that whoever
// kept it sees so in tests run with -race.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}
