//go:build linux

// Command hub measures package hub: the fan-out of a message to many members
// beside melody, centrifuge and floors that write the same bytes, what members
// that do not read are to the others, joining and leaving, memory, and Redis. It
// prints Markdown. From the directory bench:
//
//	go run ./hub            # less than a minute
//	go run ./hub -rounds 15 -turn 1s
//
// Each server is a process on core 0 with GOMAXPROCS=1, with a driver on core 1
// that holds the members. All connections stay; in each round every server has
// its turn, in which it sends a message when all members have had the one before.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	if role() {
		return
	}
	var o options
	flag.IntVar(&o.members, "n", 10_000, "members; a process has one descriptor for each")
	flag.IntVar(&o.size, "size", 128, "bytes of a message")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.DurationVar(&o.turn, "turn", 300*time.Millisecond, "a server's turn in a round")
	servers := flag.String("servers", "", "only these servers, separated by commas; the floor is always there")
	flag.Parse()
	for _, c := range contenders {
		if *servers == "" || c.name == "floor" || slices.Contains(strings.Split(*servers, ","), c.name) {
			o.servers = append(o.servers, c.name)
		}
	}
	begun := time.Now()
	err := o.run(os.Stdout, func(what string) { fmt.Fprintf(os.Stderr, "[%s] %s\n", time.Since(begun).Round(time.Second), what) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "It took %s.\n", time.Since(begun).Round(time.Second))
}

type options struct {
	members, size, rounds int
	turn                  time.Duration
	servers               []string
}

// A job is what a driver and its server are to do.
type job struct {
	Server   string
	Members  int
	Size     int
	Sleepers int // of the members: they never read
	// Tight makes the buffers of sockets and the queues small, so that sleepers
	// fill them soon.
	Tight bool
}

// A turn is what one has shown.
type turn struct {
	Deliveries float64
	CPU        float64 // seconds of the server
	Took       float64 // seconds
	P50, P99   float64 // ms from sending to a member
	Most       float64 // ms until 99 % of the members have a message, in half of the sends: a busy machine disturbs it less
	RSS        float64 // bytes of the server
}

// A pair is a driver, with its server, and what its turns have shown.
type pair struct {
	job
	p     *process
	turns []turn
}

// run prints each table when it is known.
func (o *options) run(w io.Writer, say func(string)) error {
	fmt.Fprintf(w, "%d members, %d bytes, %d rounds of %s, medians.\n\n", o.members, o.size, o.rounds, o.turn)
	for _, measure := range []func(io.Writer, func(string)) error{o.fanOut, o.sleepers, o.redis} {
		if err := measure(w, say); err != nil {
			return err
		}
	}
	return nil
}

// begin starts pairs, whose members are connected then. The caller ends them.
func begin(say func(string), jobs ...job) (all []*pair, err error) {
	for _, j := range jobs {
		say(fmt.Sprintf("%s: %d members connect, %d of them to sleep", j.Server, j.Members, j.Sleepers))
		p, err := start("driver", j, 1)
		if err != nil {
			return all, err
		}
		all = append(all, &pair{job: j, p: p})
		if line, err := p.line(); err != nil || line != "ready" {
			return all, fmt.Errorf("%s: %s %v", j.Server, line, err)
		}
	}
	return all, nil
}

func end(all []*pair) {
	for _, x := range all {
		x.p.stop()
	}
}

// fanOut compares all servers, and lets the hub's tell of itself.
func (o *options) fanOut(w io.Writer, say func(string)) error {
	var jobs []job
	for _, s := range o.servers {
		jobs = append(jobs, job{Server: s, Members: o.members, Size: o.size})
	}
	all, err := begin(say, jobs...)
	defer func() { end(all) }()
	if err != nil {
		return err
	}
	if err := o.turns(say, all); err != nil {
		return err
	}
	fmt.Fprint(w, fanOutTable(all))
	if i := slices.IndexFunc(all, func(x *pair) bool { return x.Server == "hub" }); i >= 0 {
		say("joining and leaving")
		return hubTable(w, all[i].p)
	}
	return nil
}

// sleepers compares the hub with itself when a share of the members does not
// read.
func (o *options) sleepers(w io.Writer, say func(string)) error {
	var jobs []job
	for _, s := range o.servers {
		if strings.HasPrefix(s, "hub") {
			j := job{Server: s, Members: o.members, Size: o.size, Tight: true}
			jobs = append(jobs, j)
			j.Sleepers = max(o.members/100, 1)
			jobs = append(jobs, j)
		}
	}
	all, err := begin(say, jobs...)
	defer func() { end(all) }()
	if err != nil {
		return err
	}
	if err := o.turns(say, all); err != nil {
		return err
	}
	fmt.Fprint(w, sleepersTable(all))
	return nil
}

// turns runs the rounds.
func (o *options) turns(say func(string), all []*pair) error {
	for r := range o.rounds {
		say(fmt.Sprintf("round %d of %d", r+1, o.rounds))
		for i := range all {
			x := all[(i+r)%len(all)]
			var t turn
			line, err := x.p.ask(fmt.Sprint("turn ", o.turn.Nanoseconds()))
			if err == nil {
				err = json.Unmarshal([]byte(line), &t)
			}
			if err != nil {
				return fmt.Errorf("%s: %s %w", x.Server, line, err)
			}
			x.turns = append(x.turns, t)
		}
	}
	return nil
}

func perCPU(t turn) float64 { return t.Deliveries / t.CPU }
func p99(t turn) float64    { return t.P99 }
func most(t turn) float64   { return t.Most }

func (x *pair) median(f func(turn) float64) float64 {
	v := make([]float64, len(x.turns))
	for i, t := range x.turns {
		v[i] = f(t)
	}
	return median(v)
}

// ratio is the median of the ratios within the rounds.
func ratio(a, b *pair, f func(turn) float64) float64 {
	v := make([]float64, len(a.turns))
	for i := range v {
		v[i] = f(a.turns[i]) / f(b.turns[i])
	}
	return median(v)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

func fanOutTable(all []*pair) string {
	var b strings.Builder
	fmt.Fprintln(&b, "| fan-out | deliveries per CPU second | × floor | deliveries/s | p50, ms | p99, ms | resident, KB a member |")
	fmt.Fprintln(&b, "|---|--:|--:|--:|--:|--:|--:|")
	floor := all[slices.IndexFunc(all, func(x *pair) bool { return x.Server == "floor" })]
	for _, x := range all {
		fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.0f | %.1f | %.1f | %.1f |\n", x.Server, x.median(perCPU), ratio(x, floor, perCPU),
			x.median(func(t turn) float64 { return t.Deliveries / t.Took }),
			x.median(func(t turn) float64 { return t.P50 }), x.median(p99),
			x.median(func(t turn) float64 { return t.RSS })/1000/float64(x.Members))
	}
	return b.String()
}

func sleepersTable(all []*pair) string {
	var b strings.Builder
	fmt.Fprintln(&b, "\n| members that do not read | until 99 % of the others have a message, ms: none | 1 % | × | p99 of all deliveries, ms: none | 1 % | × |")
	fmt.Fprintln(&b, "|---|--:|--:|--:|--:|--:|--:|")
	for i := 0; i+1 < len(all); i += 2 {
		none, some := all[i], all[i+1]
		fmt.Fprintf(&b, "| %s |", none.Server)
		for _, f := range []func(turn) float64{most, p99} {
			fmt.Fprintf(&b, " %.1f | %.1f | %.2f |", none.median(f), some.median(f), ratio(some, none, f))
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// hubTable has the hub's server join and leave, and weigh memberships.
func hubTable(w io.Writer, p *process) error {
	fmt.Fprint(w, "\n| the hub alone | |\n|---|--:|\n")
	for _, what := range []string{"churn", "rooms", "weigh", "presence"} {
		line, err := p.ask(what)
		if err != nil {
			return err
		}
		text, value, _ := strings.Cut(line, ": ")
		fmt.Fprintf(w, "| %s | %s |\n", text, value)
	}
	return nil
}
