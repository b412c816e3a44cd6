//go:build race

package websocket

// poison overwrites memory that was lent, when the loan ends, so that whoever
// kept it sees so in tests run with -race.
func poison(b []byte) {
	for i := range b {
		b[i] = 0xDB
	}
}

// A loan is what was lent and is to be poisoned.
type loan struct{ b []byte }

func (l *loan) of(b []byte) { l.b = b }

// end ends the loan.
func (l *loan) end() {
	poison(l.b)
	l.b = nil
}

// forget leaves what was lent to the borrower.
func (l *loan) forget() { l.b = nil }
