// Command wsspec runs the WebSocket conformance suite against any server or client.
//
//	wsspec server [flags] ws://host:port/path    test a server that echoes
//	wsspec client [flags]                        listen for clients that echo
//
// A server must send every text and binary message back. A client must ask /getCaseCount for the number of cases,
// open /runCase?case=N&agent=NAME for each and echo on it, and end with /updateReports?agent=NAME.
//
// The exit status is 0 if all cases passed, 1 if not, 2 if they could not be run.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/seed-07372d5a/websocket/autobahn"
)

const usage = `usage:
  wsspec server [flags] ws://host:port/path    test a server that echoes
  wsspec client [flags]                        listen for clients that echo
  wsspec list [-run patterns]                  name the cases

flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags of every subcommand.
type options struct {
	*flag.FlagSet
	run, exclude, agent, out, listen, cert, key, expect string
	json, insecure, keep, quiet                         bool
	parallel, messages                                  int
	limit                                               int64
	patience                                            float64
}

func newOptions(stderr io.Writer) *options {
	o := &options{FlagSet: flag.NewFlagSet("wsspec", flag.ContinueOnError)}
	o.SetOutput(stderr)
	o.StringVar(&o.run, "run", "", "only these cases: ids or patterns like 6.*, with commas")
	o.StringVar(&o.exclude, "exclude", "", "not these cases")
	o.StringVar(&o.agent, "agent", "", "name of the server in reports; by default what it calls itself")
	o.StringVar(&o.out, "o", "", "directory to write reports to: index.html, index.json, two files a case")
	o.StringVar(&o.expect, "expect", "", "file of known verdicts (autobahn.Expectations): only what differs from it fails")
	o.BoolVar(&o.json, "json", false, "print index.json instead of the summary")
	o.BoolVar(&o.quiet, "q", false, "no progress line")
	o.IntVar(&o.parallel, "parallel", 4, "server: cases at a time; 1 is what the original suite does")
	o.IntVar(&o.messages, "messages", 1000, "messages in each case of 9.7, 9.8, 12 and 13")
	o.Int64Var(&o.limit, "limit", 0, "the largest message that is taken; without it three cases about limits do not run")
	o.Float64Var(&o.patience, "patience", 1, "stretch all deadlines by this factor, for slow machines")
	o.BoolVar(&o.insecure, "insecure", false, "server: take any certificate")
	o.StringVar(&o.listen, "listen", ":9001", "client: address to listen on")
	o.StringVar(&o.cert, "cert", "", "client: certificate file, for wss")
	o.StringVar(&o.key, "key", "", "client: key file")
	o.BoolVar(&o.keep, "keep", false, "client: go on after the first client is through")
	o.Usage = func() {
		fmt.Fprint(stderr, usage)
		o.PrintDefaults()
	}
	return o
}

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o := newOptions(stderr)
	if len(args) == 0 {
		o.Usage()
		return 2
	}
	rest, err := o.parse(args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	var report *autobahn.Report
	switch {
	case args[0] == "server" && len(rest) == 1:
		report, err = o.server(ctx, rest[0], stderr)
	case args[0] == "client" && len(rest) == 0:
		report, err = o.client(ctx, stdout, stderr)
	case args[0] == "list" && len(rest) == 0:
		return o.list(stdout, stderr)
	default:
		o.Usage()
		return 2
	}
	return o.finish(report, err, stdout, stderr)
}

// parse takes flags before and after the URL.
func (o *options) parse(args []string) (rest []string, err error) {
	for {
		if err := o.Parse(args); err != nil {
			return nil, err
		}
		if o.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, o.Arg(0)), o.Args()[1:]
	}
}

func (o *options) config(stderr io.Writer) autobahn.Config {
	cfg := autobahn.Config{
		Agent: o.agent, Run: split(o.run), Exclude: split(o.exclude), Parallel: o.parallel, Messages: o.messages,
		Limit: o.limit, Patience: o.patience, Dir: o.out,
	}
	if o.insecure {
		cfg.TLS = &tls.Config{InsecureSkipVerify: true}
	}
	if !o.quiet && isTerminal(stderr) {
		cfg.Progress = newLine(stderr).show
	}
	return cfg
}

func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (o *options) server(ctx context.Context, url string, stderr io.Writer) (*autobahn.Report, error) {
	cfg := o.config(stderr)
	cfg.URL = url
	return autobahn.RunServer(ctx, cfg)
}

// client serves until one client is through, or for ever.
func (o *options) client(ctx context.Context, stdout, stderr io.Writer) (*autobahn.Report, error) {
	s, err := autobahn.NewServer(o.config(stderr))
	if err != nil {
		return nil, err
	}
	l, err := o.listener()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(stderr, "%d cases for clients at %s\n", len(s.Cases()), l.Addr())
	go s.Serve(l)
	for {
		select {
		case <-ctx.Done():
		case <-s.Done():
		case agent := <-s.Updated():
			if o.keep {
				fmt.Fprintf(stderr, "\r\x1b[K%s is through\n", agent)
				continue
			}
		}
		s.Close()
		<-s.Done()
		return s.Report(), s.Err()
	}
}

func (o *options) listener() (net.Listener, error) {
	l, err := net.Listen("tcp", o.listen)
	if err != nil || o.cert == "" {
		return l, err
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		l.Close()
		return nil, err
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}}), nil
}

func (o *options) list(stdout, stderr io.Writer) int {
	cases, err := autobahn.Select(split(o.run), split(o.exclude))
	if err != nil {
		fmt.Fprintln(stderr, "wsspec:", err)
		return 2
	}
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "   ")
		e.Encode(cases)
		return 0
	}
	for _, c := range cases {
		fmt.Fprintf(stdout, "%-10s %s\n%-10s %s\n", c.ID, c.Description, "", c.Expectation)
	}
	return 0
}

// finish prints, writes, and says how it went.
func (o *options) finish(report *autobahn.Report, err error, stdout, stderr io.Writer) int {
	if !o.quiet && isTerminal(stderr) {
		fmt.Fprint(stderr, "\r\x1b[K")
	}
	if report == nil {
		fmt.Fprintln(stderr, "wsspec:", err)
		return 2
	}
	show := report.WriteSummary
	if o.json {
		show = report.WriteJSON
	}
	err = errors.Join(err, show(stdout))
	if o.out != "" {
		err = errors.Join(err, report.WriteDir(o.out))
	}
	bad, readErr := o.failures(report, stderr)
	switch err = errors.Join(err, readErr); {
	case err != nil:
		fmt.Fprintln(stderr, "wsspec:", err)
		return 2
	case bad > 0:
		return 1
	}
	return 0
}

// failures counts what does not pass, or what is not as the file of expectations has it.
func (o *options) failures(report *autobahn.Report, stderr io.Writer) (int, error) {
	if o.expect == "" {
		return len(report.Failures()), nil
	}
	f, err := os.Open(o.expect)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	all, err := autobahn.ReadExpectations(f)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, agent := range report.Agents() {
		list := all.For(agent)
		for _, res := range list.Deviations(report.Results(agent)) {
			fmt.Fprintln(stderr, "not as expected:", res.Line())
			n++
		}
		for _, e := range list.Unmet() {
			fmt.Fprintf(stderr, "not as expected: no case %s was %s\n", e.IDs, e.Verdicts)
			n++
		}
	}
	return n, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A line is the progress that is written over and over.
type line struct {
	w      io.Writer
	failed int
	last   time.Time
}

func newLine(w io.Writer) *line { return &line{w: w} }

func (l *line) show(p autobahn.Progress) {
	if !p.Result.Pass() {
		l.failed++
		fmt.Fprintf(l.w, "\r\x1b[K%s\n", p.Result.Line())
	}
	if p.Done < p.Total && time.Since(l.last) < 50*time.Millisecond {
		return
	}
	l.last = time.Now()
	const width = 30
	filled := width * p.Done / max(p.Total, 1)
	fmt.Fprintf(l.w, "\r\x1b[K%s%s %d/%d  %s  %d failed",
		strings.Repeat("█", filled), strings.Repeat("░", width-filled), p.Done, p.Total, p.Result.ID, l.failed)
}
