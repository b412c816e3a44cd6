//go:build linux

// Command bench compares this library with others, and with floors that move
// the same bytes and parse nothing. See README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	if spec := os.Getenv(serverEnv); spec != "" {
		signal.Ignore(os.Interrupt) // the generator ends it
		if err := serverMain(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	full := flag.Bool("full", false, "all cells, and more and longer rounds")
	cells := flag.String("cells", "", "only the cells that match this regular expression, of all there are")
	servers := flag.String("servers", "", "only these servers, separated by commas; the floor is always there")
	rounds := flag.Int("rounds", 0, "rounds a cell (5, or 9 with -full)")
	turn := flag.Duration("turn", 0, "how long a server's turn is in a round (100ms, or 400ms with -full)")
	out := flag.String("out", "out", "the directory for benchmarks.md, .json and .svg")
	flag.StringVar(&profiles, "profiles", "", "write CPU profiles of the servers to this directory, which costs them some")
	flag.Parse()
	if profiles != "" {
		var err error
		if profiles, err = filepath.Abs(profiles); err != nil {
			return err
		}
	}

	o := &options{rounds: 5, turn: 100 * time.Millisecond, settle: 500 * time.Millisecond}
	list := quickCells()
	if *full {
		o.rounds, o.turn, o.settle = 9, 400*time.Millisecond, 3*time.Second
		list = fullCells()
	}
	if *cells != "" {
		re, err := regexp.Compile(*cells)
		if err != nil {
			return err
		}
		list = nil
		seen := map[string]bool{}
		for _, c := range append(quickCells(), fullCells()...) {
			if re.MatchString(c.Name) && !seen[c.Name] {
				seen[c.Name] = true
				list = append(list, c)
			}
		}
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	if *turn > 0 {
		o.turn = *turn
	}
	for _, l := range libraries {
		if *servers == "" || l.kind == "floor" && !strings.Contains(l.name, "-") || contains(*servers, l.name) {
			o.servers = append(o.servers, l)
		}
	}
	if cores := runtime.NumCPU(); cores > 1 {
		o.cores = [2]int{0, 1}
	} else {
		fmt.Fprintln(os.Stderr, "There is one core only: server and generator share it.")
		doze = 100
	}
	pin(o.cores[1])

	stderr, err := os.Stderr.Stat()
	terminal := err == nil && stderr.Mode()&os.ModeCharDevice != 0
	begun := time.Now()
	r := newReport(o, begun)
	r.Cells = list
	for _, l := range o.servers {
		if l.kind != "floor" {
			if r.UTF8[l.name], err = checksUTF8(l, o.cores[0]); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			fmt.Fprintf(os.Stderr, "%s: invalid UTF-8: %s\n", l.name, r.UTF8[l.name])
		}
	}
	for i, c := range list {
		o.progress = func(format string, a ...any) {
			line := fmt.Sprintf("[%d/%d, %s] ", i+1, len(list), time.Since(begun).Round(time.Second)) + fmt.Sprintf(format, a...)
			if terminal {
				fmt.Fprint(os.Stderr, "\r\033[K", line)
			}
		}
		if !terminal {
			fmt.Fprintf(os.Stderr, "[%d/%d, %s] %s\n", i+1, len(list), time.Since(begun).Round(time.Second), c.Name)
		}
		r.Results = append(r.Results, o.measure(c)...)
	}
	if terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
	r.Took = time.Since(begun).Round(time.Second).String()
	if err := r.write(*out); err != nil {
		return err
	}
	fmt.Print(r.goals())
	fmt.Fprintf(os.Stderr, "It took %s. All figures: %s\n", r.Took, filepath.Join(*out, "benchmarks.md"))
	return nil
}

func contains(list, name string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(s) == name {
			return true
		}
	}
	return false
}
