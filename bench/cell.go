//go:build linux

package main

import "fmt"

// cell.go owns what is measured.

// A Cell is one situation that all servers are measured in.
type Cell struct {
	Name     string
	Kind     string // echo, broadcast, handshake, idle; client: an echo in which the library dials and the generator accepts
	Conns    int
	Size     int    // of a message, in bytes
	InFlight int    // messages sent at once, before the answers are awaited
	Text     string // binary, ascii, chinese, json
	Deflate  string // "": off; alone: without context takeover; takeover
}

func echoCell(conns, size, inFlight int, text string) Cell {
	c := Cell{Kind: "echo", Conns: conns, Size: size, InFlight: inFlight, Text: text}
	c.Name = fmt.Sprintf("echo, %s, %d × %s", text, conns, bytesName(size))
	if inFlight > 1 {
		c.Name += fmt.Sprintf(", %d in flight", inFlight)
	}
	return c
}

func deflateCell(size int, mode string) Cell {
	c := echoCell(64, size, 1, "json")
	c.Deflate = mode
	c.Name = fmt.Sprintf("compressed, %s, 64 × %s JSON", mode, bytesName(size))
	return c
}

func clientCell(size int) Cell {
	c := echoCell(64, size, 1, "binary")
	c.Kind = "client"
	c.Name = fmt.Sprintf("client, 64 × %s", bytesName(size))
	return c
}

func broadcastCell(members int) Cell {
	return Cell{Name: fmt.Sprintf("broadcast, %d × 128 B", members), Kind: "broadcast", Conns: members, Size: 128, InFlight: 1, Text: "binary"}
}

func handshakeCell() Cell {
	return Cell{Name: "handshake", Kind: "handshake", Conns: 16, Size: 16, InFlight: 1, Text: "binary"}
}

func idleCell(conns int) Cell {
	return Cell{Name: fmt.Sprintf("idle, %d connections", conns), Kind: "idle", Conns: conns, Size: 16, InFlight: 1, Text: "binary"}
}

func bytesName(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// quickCells show where a library stands in less than two minutes.
func quickCells() []Cell {
	return []Cell{
		echoCell(64, 128, 1, "binary"),
		echoCell(64, 16<<10, 1, "binary"),
		echoCell(64, 128, 32, "binary"),
		echoCell(64, 1<<10, 1, "chinese"),
		deflateCell(1<<10, "alone"),
		deflateCell(1<<10, "takeover"),
		clientCell(128),
		broadcastCell(100),
		handshakeCell(),
		idleCell(1000),
	}
}

// fullCells are all that docs/benchmarks.md tells of.
func fullCells() []Cell {
	var all []Cell
	for _, conns := range []int{1, 64, 1000} {
		for _, size := range []int{16, 128, 1 << 10, 16 << 10, 256 << 10} {
			if conns*size <= 64<<20 {
				all = append(all, echoCell(conns, size, 1, "binary"))
			}
		}
	}
	for _, size := range []int{16, 128, 1 << 10, 16 << 10} {
		all = append(all, echoCell(64, size, 32, "binary"))
	}
	all = append(all, echoCell(1, 128, 32, "binary"), echoCell(1000, 128, 32, "binary"))
	for _, text := range []string{"ascii", "chinese"} {
		all = append(all, echoCell(64, 1<<10, 1, text), echoCell(64, 64<<10, 1, text))
	}
	for _, mode := range []string{"alone", "takeover"} {
		all = append(all, deflateCell(1<<10, mode), deflateCell(16<<10, mode))
	}
	return append(all,
		clientCell(128), clientCell(1<<10), clientCell(16<<10),
		broadcastCell(100), broadcastCell(1000), broadcastCell(5000),
		handshakeCell(), idleCell(10_000))
}

// perTurn tells that connections are made anew whenever it is a server's turn:
// there are not descriptors enough for all servers at once.
func (c Cell) perTurn() bool { return c.Conns > 1000 }

// runs tells whether l takes part in c.
func (c Cell) runs(l *library) bool {
	switch {
	case l.only != "" && l.only != c.Kind:
		return false
	case c.Kind == "client" && l.client == nil, c.Kind != "client" && l.server == nil:
		return false
	case c.Deflate == "alone" && !l.deflate, c.Deflate == "takeover" && !l.takeover:
		return false
	}
	return true
}

// headerLen is the length of the header of a frame with n bytes of payload.
func headerLen(n int, masked bool) int {
	k := 2
	switch {
	case n > 65535:
		k = 10
	case n > 125:
		k = 4
	}
	if masked {
		k += 4
	}
	return k
}
