//go:build linux

package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report.go owns what is written: benchmarks.md, .json and .svg.

// A Report is all that was found out.
type Report struct {
	Date     string
	Machine  string
	Go       string
	Rounds   int
	Turn     string
	Took     string
	Versions map[string]string // of modules
	UTF8     map[string]string // what servers do with invalid text
	Cells    []Cell
	Results  []*Result
}

func newReport(o *options, begun time.Time) *Report {
	r := &Report{
		Date: begun.UTC().Format("2006-01-02"), Machine: machine(), Go: runtime.Version(), Rounds: o.rounds, Turn: o.turn.String(),
		Versions: map[string]string{}, UTF8: map[string]string{},
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, m := range b.Deps {
			r.Versions[m.Path] = m.Version
		}
	}
	return r
}

// machine describes the computer.
func machine() string {
	model := runtime.GOARCH
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	var u unix.Utsname
	unix.Uname(&u)
	kernel, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d × %s, Linux %s", runtime.NumCPU(), model, kernel)
}

// find returns a way to look up the results of a cell.
func (r *Report) find(cell string) func(server string) *Result {
	return func(server string) *Result {
		for _, x := range r.Results {
			if x.Cell == cell && x.Server == server && len(x.Rounds) > 0 {
				return x
			}
		}
		return nil
	}
}

// write makes the files.
func (r *Report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	j, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"benchmarks.md": r.markdown(), "benchmarks.json": string(j) + "\n", "benchmarks.svg": r.chart()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

//go:embed method.md
var method string

func (r *Report) markdown() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p("# Benchmarks\n\n")
	p("%s, %s, %s. %d rounds of %s per server and cell, medians.\n\n", r.Date, r.Machine, r.Go, r.Rounds, r.Turn)
	p("![server CPU per message](benchmarks.svg)\n\n")
	p("%s\n", strings.TrimSpace(method))
	p("\n## Goals\n\n")
	p("%s\n", r.goals())
	p("## Who takes part\n\n")
	p("| server | version | how | invalid UTF-8 in a text message |\n|---|---|---|---|\n")
	for _, l := range libraries {
		if r.took(l.name) {
			p("| %s | %s | %s | %s |\n", l.name, r.version(l), l.note, cmp.Or(r.UTF8[l.name], "–"))
		}
	}
	for _, c := range r.Cells {
		p("\n## %s\n\n%s", strings.ToUpper(c.Name[:1])+c.Name[1:], r.table(c))
	}
	return b.String()
}

// took tells whether a server has taken part.
func (r *Report) took(server string) bool {
	return slices.ContainsFunc(r.Results, func(x *Result) bool { return x.Server == server && len(x.Rounds) > 0 })
}

func (r *Report) version(l *library) string {
	switch {
	case l.kind == "ours":
		return "this"
	case l.kind == "floor":
		return "–"
	}
	return r.Versions[l.module]
}

// goals is a table of what was reached.
func (r *Report) goals() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| cell | goal | Serve | Next | engine |\n|---|---|---|---|---|\n")
	for _, c := range r.Cells {
		find := r.find(c.Name)
		for _, g := range c.goals() {
			fmt.Fprintf(&b, "| %s | %s |", c.Name, g.text)
			for _, server := range ours {
				v := math.NaN()
				if slices.Contains(g.servers, server) {
					v = g.value(c, find, server)
				}
				switch {
				case math.IsNaN(v):
					fmt.Fprint(&b, " – |")
				case v <= g.limit+0.005:
					fmt.Fprintf(&b, " "+g.format+" |", v)
				default:
					fmt.Fprintf(&b, " **"+g.format+"** |", v)
				}
			}
			fmt.Fprintln(&b)
		}
	}
	fmt.Fprint(&b, "\nIn bold: missed.\n")
	return b.String()
}

// A column is a figure in a table.
type column struct {
	name   string
	f      figure
	format string
}

// table shows a cell.
func (r *Report) table(c Cell) string {
	find := r.find(c.Name)
	main, message := cpu, "message"
	columns := []column{
		{"p50, µs", func(r Round) float64 { return r.P50 }, "%.0f"},
		{"p99, µs", func(r Round) float64 { return r.P99 }, "%.0f"},
		{"allocations", allocate, "%.2f"},
		{"reads", func(r Round) float64 { return r.Reads }, "%.2f"},
		{"writes", func(r Round) float64 { return r.Writes }, "%.2f"},
	}
	first := column{"CPU, µs", cpu, "%.2f"}
	switch {
	case c.Kind == "idle":
		main, first, columns, message = memory, column{"resident, KB", func(r Round) float64 { return r.Memory / 1000 }, "%.1f"}, nil, "connection"
	case c.Kind == "handshake":
		message = "handshake"
	case c.Kind == "broadcast":
		message = "delivery"
	case c.Deflate != "":
		columns = append(columns, column{"bytes", func(r Round) float64 { return r.Wire }, "%.0f"})
	}
	if c.Kind != "idle" {
		columns = append([]column{{strings.Replace(message+"s", "ys", "ies", 1) + "/s", func(r Round) float64 { return r.Rate }, "%.0f"}}, columns...)
	}
	var rows []*Result
	var failed []*Result
	for _, x := range r.Results {
		if x.Cell == c.Name && len(x.Rounds) > 0 {
			rows = append(rows, x)
		} else if x.Cell == c.Name {
			failed = append(failed, x)
		}
	}
	slices.SortStableFunc(rows, func(a, b *Result) int {
		if d := a.median(main) - b.median(main); d != 0 {
			return int(math.Copysign(1, d))
		}
		return 0
	})
	floor, best := find("floor"), bestPeer(find, main)
	var b strings.Builder
	fmt.Fprintf(&b, "| per %s | %s | × floor | × best peer |", message, first.name)
	for _, col := range columns {
		fmt.Fprintf(&b, " %s |", col.name)
	}
	fmt.Fprintf(&b, "\n|---%s\n", strings.Repeat("|--:", 3+len(columns))+"|")
	for _, x := range rows {
		name := x.Server
		if lib(name).kind == "ours" {
			name = "**" + name + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |", name, number(first.format, x.median(first.f)),
			number("%.2f", ratio(x, floor, main)), number("%.2f", ratio(x, best, main)))
		for _, col := range columns {
			fmt.Fprintf(&b, " %s |", number(col.format, x.median(col.f)))
		}
		fmt.Fprintln(&b)
	}
	for _, x := range failed {
		fmt.Fprintf(&b, "\n%s failed: %s\n", x.Server, x.Error)
	}
	return b.String()
}

// number formats v, with a space between thousands; – if there is none.
func number(format string, v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	s := fmt.Sprintf(format, math.Abs(v))
	whole, rest, dot := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + " " + whole[i:]
	}
	if dot {
		whole += "." + rest
	}
	if v < 0 && strings.Trim(whole, "0.") != "" {
		whole = "−" + whole
	}
	return whole
}
