//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// chart.go draws bars: a panel per cell, a bar per server.

// charted are the cells that stand for the others.
var charted = []Cell{
	echoCell(64, 128, 1, "binary"),
	echoCell(64, 16<<10, 1, "binary"),
	echoCell(64, 128, 32, "binary"),
	echoCell(64, 1<<10, 1, "chinese"),
	deflateCell(1<<10, "alone"),
	deflateCell(1<<10, "takeover"),
	clientCell(128),
	broadcastCell(100),
	broadcastCell(1000),
	handshakeCell(),
	idleCell(1000),
	idleCell(10_000),
}

const (
	panelWidth  = 380
	labelWidth  = 118
	valueWidth  = 64
	barHeight   = 15
	titleHeight = 34
	columnGap   = 28
	columnCount = 2
	legend      = 46
)

const style = `<style>
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; font-size: 13px; fill: #24292f }
.ours { fill: #0969da } .peer { fill: #8c959f } .floor { fill: #d0d7de }
text.us { fill: #0969da; font-weight: 600 }
line { stroke: #cf222e; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
text { fill: #8b949e } .title { fill: #e6edf3 }
.ours { fill: #388bfd } .peer { fill: #6e7681 } .floor { fill: #373e47 }
text.us { fill: #58a6ff } line { stroke: #f85149 }
}
</style>
`

// chart returns an SVG.
func (r *Report) chart() string {
	cells := slices.DeleteFunc(slices.Clone(charted), func(c Cell) bool {
		return !slices.ContainsFunc(r.Results, func(x *Result) bool { return x.Cell == c.Name && len(x.Rounds) > 0 })
	})
	if len(cells) == 0 {
		cells = r.Cells
	}
	var b strings.Builder
	y, height := legend, 0
	for i, c := range cells {
		x := i % columnCount * (panelWidth + columnGap)
		if x == 0 {
			y += height
			height = 0
		}
		panel, h := r.panel(c)
		height = max(height, h)
		fmt.Fprintf(&b, "<g transform=\"translate(%d %d)\">\n%s</g>\n", x+8, y, panel)
	}
	y += height
	width := columnCount*panelWidth + (columnCount-1)*columnGap + 16
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">
`, width, y, width, y) + style +
		`<text class="title" x="8" y="18">Server CPU per message, µs: shorter is better</text>
<rect class="ours" x="8" y="28" width="10" height="10"/><text x="23" y="37">this library</text>
<rect class="peer" x="108" y="28" width="10" height="10"/><text x="123" y="37">others</text>
<rect class="floor" x="178" y="28" width="10" height="10"/><text x="193" y="37">floors, which parse nothing; the line is the goroutine per connection. ▸: the bar is cut</text>
` + b.String() + "</svg>\n"
}

// panel draws a cell.
func (r *Report) panel(c Cell) (svg string, height int) {
	value := cpu
	unit := ""
	switch c.Kind {
	case "idle":
		value, unit = func(r Round) float64 { return r.Memory / 1000 }, ": KB of memory a connection"
	case "handshake":
		unit = ": CPU each"
	case "broadcast":
		unit = ": CPU a delivery"
	}
	var rows []*Result
	for _, x := range r.Results {
		if x.Cell == c.Name && len(x.Rounds) > 0 {
			rows = append(rows, x)
		}
	}
	slices.SortStableFunc(rows, func(a, b *Result) int {
		switch x, y := a.median(value), b.median(value); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	// What is far slower than all of ours would make the others' bars too short
	// to tell apart: it is cut, with its number beside it.
	most := 0.0
	for _, x := range rows {
		if lib(x.Server).kind != "" {
			most = max(most, 3*x.median(value))
		}
	}
	widest := 0.0
	for _, x := range rows {
		widest = max(widest, min(x.median(value), most))
	}
	room := float64(panelWidth - labelWidth - valueWidth)
	var b strings.Builder
	fmt.Fprintf(&b, "<text class=\"title\" y=\"22\">%s%s</text>\n", html.EscapeString(c.Name), unit)
	if f := r.find(c.Name)("floor"); f != nil {
		x := labelWidth + room*f.median(value)/widest
		fmt.Fprintf(&b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x, x, titleHeight-4, titleHeight+len(rows)*barHeight)
	}
	y := titleHeight
	for _, x := range rows {
		v := x.median(value)
		class, label := "peer", "name"
		switch lib(x.Server).kind {
		case "ours":
			class, label = "ours", "us"
		case "floor":
			class = "floor"
		}
		w := room * max(min(v, most), 0) / widest
		mark := ""
		if v > most {
			mark = "▸ "
		}
		fmt.Fprintf(&b, "<text class=\"%s\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", label, labelWidth-6, y+10, html.EscapeString(x.Server))
		fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>", class, labelWidth, y, max(w, 1), barHeight-4)
		fmt.Fprintf(&b, "<text class=\"%s\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s%s</text>\n", label, panelWidth, y+10, mark, digits(v))
		y += barHeight
	}
	return b.String(), y + 8
}

// digits shows three of them, about.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a < 1:
		return fmt.Sprintf("%.2f", v)
	case a < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
