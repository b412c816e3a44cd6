//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// measure.go owns the rounds: in each, every server has its turn.

// A Round is what one turn has shown.
type Round struct {
	CPU      float64 // µs of the server per message, handshake or delivery
	Rate     float64 // of them per second
	P50, P99 float64 // µs until the last answer of a batch, or until the last member has heard
	Allocs   float64 // per message
	Reads    float64 // system calls per message
	Writes   float64
	Memory   float64 // bytes of resident memory per idle connection
	Wire     float64 // bytes that the server sent per message
	Idle     float64 // times that the generator found nothing to do, per message: near zero if it is what is slow
}

// A Result is all rounds of a server in a cell.
type Result struct {
	Cell   string
	Server string
	Rounds []Round
	Error  string `json:",omitempty"`
}

type options struct {
	rounds   int
	turn     time.Duration
	settle   time.Duration // before idle memory is read
	servers  []*library
	progress func(format string, a ...any)
	cores    [2]int // the server's and the generator's
}

// A contender is a library in a cell.
type contender struct {
	*Result
	lib *library
	p   *process
	g   *load
	lfd int
}

// measure runs a cell.
func (o *options) measure(c Cell) []*Result {
	keys := uint32(0x9d4c2b17)
	if c.Kind == "client" {
		keys = 0
	}
	s := c.script(keys)
	var all []*contender
	var results []*Result
	for _, l := range o.servers {
		if c.runs(l) {
			t := &contender{Result: &Result{Cell: c.Name, Server: l.name}, lib: l, lfd: -1}
			all = append(all, t)
			results = append(results, t.Result)
		}
	}
	defer func() {
		for _, t := range all {
			t.end()
		}
	}()
	for _, t := range all {
		if err := t.begin(c, s, o); err != nil {
			t.fail(err)
		}
	}
	rounds := o.rounds
	if c.Kind == "idle" {
		rounds = min(rounds, 3) // memory is a steady figure, and takes long
	}
	for r := range rounds {
		for i := range all {
			t := all[(i+r)%len(all)]
			if t.Error != "" {
				continue
			}
			o.progress("%s: round %d of %d, %s", c.Name, r+1, rounds, t.Server)
			round, err := t.turn(c, s, o)
			if err != nil {
				t.fail(err)
				continue
			}
			t.Rounds = append(t.Rounds, round)
		}
	}
	return results
}

func (t *contender) fail(err error) {
	t.Error = err.Error()
	fmt.Fprintf(os.Stderr, "\n%s, %s: %v\n", t.Cell, t.Server, err)
	t.end()
}

// begin starts the server, connects to it, and checks its answers.
func (t *contender) begin(c Cell, s *script, o *options) (err error) {
	if c.Kind == "idle" {
		return nil // every round has a process of its own
	}
	addr := ""
	if c.Kind == "client" {
		if t.lfd, addr, err = listen(); err != nil {
			return err
		}
	}
	if t.p, err = launch(t.lib, c, addr, o.cores[0]); err != nil {
		return err
	}
	if c.perTurn() || c.Kind == "handshake" {
		return nil
	}
	return t.connect(c, s)
}

func (t *contender) connect(c Cell, s *script) (err error) {
	if t.g, err = newLoad(c, s, t.p.addr, t.lib.kind == "floor"); err != nil {
		return err
	}
	if c.Kind == "handshake" {
		return nil
	}
	if err = t.g.open(t.lfd); err != nil {
		return err
	}
	return t.g.verify()
}

func (t *contender) disconnect() {
	if t.g != nil {
		t.g.close()
		t.g = nil
	}
}

// end stops the server.
func (t *contender) end() {
	t.disconnect()
	if t.p != nil {
		t.p.stop()
		t.p = nil
	}
	if t.lfd >= 0 {
		unix.Close(t.lfd)
		t.lfd = -1
	}
}

// turn measures once.
func (t *contender) turn(c Cell, s *script, o *options) (r Round, err error) {
	if c.Kind == "idle" {
		return t.idle(c, s, o)
	}
	if c.perTurn() || c.Kind == "handshake" {
		if err := t.connect(c, s); err != nil {
			return r, err
		}
		defer t.disconnect()
	}
	if _, err := t.g.run(o.turn / 10); err != nil { // warm up
		return r, err
	}
	t.g.hist, t.g.idle = histogram{}, 0
	for _, l := range t.g.links {
		l.reader.bytes = 0
	}
	if _, err := t.p.ask("begin"); err != nil {
		return r, err
	}
	begun := time.Now()
	n, err := t.g.run(o.turn)
	if err != nil {
		return r, err
	}
	took := time.Since(begun).Seconds()
	u, err := t.p.ask("end")
	if err != nil {
		return r, err
	}
	wire := 0
	for _, l := range t.g.links {
		wire += l.reader.bytes
	}
	per := float64(n)
	return Round{
		CPU:    u.CPU * 1e6 / per,
		Rate:   per / took,
		P50:    t.g.hist.quantile(0.5).Seconds() * 1e6,
		P99:    t.g.hist.quantile(0.99).Seconds() * 1e6,
		Allocs: u.Mallocs / per,
		Reads:  u.Reads / per,
		Writes: u.Writes / per,
		Wire:   float64(wire) / per,
		Idle:   float64(t.g.idle) / per,
	}, nil
}

// idle measures the memory of connections that wait, in a process of its own.
func (t *contender) idle(c Cell, s *script, o *options) (r Round, err error) {
	if t.p, err = launch(t.lib, c, "", o.cores[0]); err != nil {
		return r, err
	}
	defer t.end()
	if t.g, err = newLoad(c, s, t.p.addr, t.lib.kind == "floor"); err != nil {
		return r, err
	}
	few := *t.g
	few.cell.Conns = 100 // what is allocated once, is so before
	if err := few.open(-1); err != nil {
		return r, err
	}
	t.g.links = few.links
	u0, err := t.p.ask("memory")
	if err != nil {
		return r, err
	}
	t.g.cell.Conns -= few.cell.Conns
	if err := t.g.open(-1); err != nil {
		return r, err
	}
	time.Sleep(o.settle)
	u1, err := t.p.ask("memory")
	if err != nil {
		return r, err
	}
	r.Memory = (u1.RSS - u0.RSS) / float64(t.g.cell.Conns)
	return r, nil
}

// A figure picks what is looked at in a round.
type figure func(Round) float64

func cpu(r Round) float64    { return r.CPU }
func memory(r Round) float64 { return r.Memory }

// median returns the median of a figure, NaN if there is none.
func (r *Result) median(f figure) float64 {
	v := make([]float64, len(r.Rounds))
	for i, round := range r.Rounds {
		v[i] = f(round)
	}
	return median(v)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// ratio returns the median of the ratios of two servers' figures in the same
// round, which is what the noise of a machine disturbs least.
func ratio(a, b *Result, f figure) float64 {
	if a == nil || b == nil {
		return math.NaN()
	}
	var v []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		v = append(v, f(a.Rounds[i])/f(b.Rounds[i]))
	}
	return median(v)
}
