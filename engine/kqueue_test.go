package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a kqueue says is what a loop is told. The loops' own tests run with it too:
// see faked.
func TestKqueueEvents(t *testing.T) {
	one, two := token{1, 1}, token{2, 7}
	for _, c := range []struct {
		name string
		says []change
		want []event
	}{
		{"input", []change{{fd: 5, input: true}}, []event{{one, readable}}},
		{"output", []change{{fd: 5}}, []event{{one, writable}}},
		{"both", []change{{fd: 5, input: true}, {fd: 5}}, []event{{one, readable}, {one, writable}}},
		{"two", []change{{fd: 5}, {fd: 6, input: true}}, []event{{one, writable}, {two, readable}}},
		{"the peer's end", []change{{fd: 5, input: true, end: true}}, []event{{one, readable | halfClosed}}},
		{"our own end", []change{{fd: 5, end: true}}, []event{{one, writable}}},
		{"reset", []change{{fd: 5, end: true, err: true}, {fd: 5, input: true, end: true, err: true}},
			[]event{{one, writable | readable | halfClosed | dead}, {one, readable | halfClosed | dead}}},
		{"of nobody", []change{{fd: 4, input: true, end: true, err: true}, {fd: 6}}, []event{{two, writable}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l ledger
			l.add(5, one)
			l.add(6, two)
			l.begin()
			into := make([]event, batch)
			require.Equal(t, c.want, into[:l.events(c.says, into)])
		})
	}
}

// A descriptor that has another owner than when the kernel spoke (A94): what the end
// of the one before was may not be the end of the next.
func TestKqueueReuse(t *testing.T) {
	var l ledger
	into := make([]event, batch)
	reset := []change{{fd: 5, input: true, end: true, err: true}}
	l.add(5, token{1, 1})
	l.begin()
	l.remove(5)
	require.Zero(t, l.events(reset, into), "nobody's")
	l.add(5, token{1, 2})
	require.Equal(t, 1, l.events(reset, into))
	require.Equal(t, event{token{1, 2}, readable | halfClosed}, into[0], "a reason to read, and no more")
	l.begin()
	require.Equal(t, 1, l.events(reset, into))
	require.Equal(t, event{token{1, 2}, readable | halfClosed | dead}, into[0])
}
