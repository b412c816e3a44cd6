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

// choices are what the command line says.
type choices struct {
	full           bool
	cells, servers string
	rounds         int
	turn           time.Duration
	out            string
}

func run() error {
	var ch choices
	flag.BoolVar(&ch.full, "full", false, "all cells, and more and longer rounds")
	flag.StringVar(&ch.cells, "cells", "", "only the cells that match this regular expression, of all there are")
	flag.StringVar(&ch.servers, "servers", "", "only these servers, separated by commas; the floors are always there")
	flag.IntVar(&ch.rounds, "rounds", 0, "rounds a cell (5, or 9 with -full)")
	flag.DurationVar(&ch.turn, "turn", 0, "how long a server's turn is in a round (100ms, or 400ms with -full)")
	flag.StringVar(&ch.out, "out", "out", "the directory for benchmarks.md, .json and .svg")
	flag.StringVar(&profiles, "profiles", "", "write CPU profiles of the servers to this directory, which costs them some")
	flag.Parse()
	var err error
	if profiles != "" {
		if profiles, err = filepath.Abs(profiles); err != nil {
			return err
		}
	}
	list, err := ch.list()
	if err != nil {
		return err
	}
	o := ch.options()
	begun := time.Now()
	r := newReport(o, begun)
	r.Cells = list
	if err := o.checkAll(r); err != nil {
		return err
	}
	o.measureAll(r, begun)
	r.Took = time.Since(begun).Round(time.Second).String()
	if err := r.write(ch.out); err != nil {
		return err
	}
	fmt.Print(r.goals())
	fmt.Fprintf(os.Stderr, "It took %s. All figures: %s\n", r.Took, filepath.Join(ch.out, "benchmarks.md"))
	return nil
}

// list returns the cells that were chosen.
func (ch *choices) list() (list []Cell, err error) {
	switch {
	case ch.cells == "" && ch.full:
		return fullCells(), nil
	case ch.cells == "":
		return quickCells(), nil
	}
	re, err := regexp.Compile(ch.cells)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range append(quickCells(), fullCells()...) {
		if re.MatchString(c.Name) && !seen[c.Name] {
			seen[c.Name] = true
			list = append(list, c)
		}
	}
	return list, nil
}

// options returns how to measure, and moves this process to its core.
func (ch *choices) options() *options {
	o := &options{rounds: 5, turn: 100 * time.Millisecond, settle: 500 * time.Millisecond}
	if ch.full {
		o.rounds, o.turn, o.settle = 9, 400*time.Millisecond, 3*time.Second
	}
	if ch.rounds > 0 {
		o.rounds = ch.rounds
	}
	if ch.turn > 0 {
		o.turn = ch.turn
	}
	for _, l := range libraries {
		if ch.servers == "" || l.kind == "floor" || contains(ch.servers, l.name) {
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
	return o
}

// checkAll finds out who validates UTF-8.
func (o *options) checkAll(r *Report) (err error) {
	for _, l := range o.servers {
		if l.kind == "floor" {
			continue
		}
		if r.UTF8[l.name], err = checksUTF8(l, o.cores[0]); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s: invalid UTF-8: %s\n", l.name, r.UTF8[l.name])
	}
	return nil
}

// measureAll runs the cells, and says which: in a terminal on one line.
func (o *options) measureAll(r *Report, begun time.Time) {
	stderr, err := os.Stderr.Stat()
	terminal := err == nil && stderr.Mode()&os.ModeCharDevice != 0
	for i, c := range r.Cells {
		say := func(format string, a ...any) string {
			return fmt.Sprintf("[%d/%d, %s] ", i+1, len(r.Cells), time.Since(begun).Round(time.Second)) + fmt.Sprintf(format, a...)
		}
		o.progress = func(format string, a ...any) {
			if terminal {
				fmt.Fprint(os.Stderr, "\r\033[K", say(format, a...))
			}
		}
		if !terminal {
			fmt.Fprintln(os.Stderr, say("%s", c.Name))
		}
		r.Results = append(r.Results, o.measure(c)...)
	}
	if terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}

func contains(list, name string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(s) == name {
			return true
		}
	}
	return false
}
