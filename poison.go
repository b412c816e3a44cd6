//go:build !race

package websocket

// poison does something only under the race detector: see poison_race.go.
func poison([]byte) {}

// A loan is what was lent and is to be poisoned.
type loan struct{}

func (*loan) of([]byte) {}
func (*loan) end()      {}
func (*loan) forget()   {}
