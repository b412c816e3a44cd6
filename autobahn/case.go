package autobahn

// The catalogue: every case, in the order of the ids, and how to choose among them.

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Case is one test. What it does is unexported: cases are made in the case_*.go files and nowhere else.
type Case struct {
	ID          string
	Description string
	Expectation string
	Index       int  // 1-based in the whole catalogue
	Servers     bool // applies when a server is tested
	Clients     bool // applies when a client is tested

	play           func(*run) // queues what is sent, and the deadlines
	outcomes       []outcome
	suppressed     bool                              // the fuzzer does not close by itself when all has come
	wrongCodeFatal bool                              // WC→F
	info           bool                              // both columns become INFORMATIONAL
	quiet          bool                              // no wire log: 9, 12, 13
	timed          bool                              // the reports show the duration
	ratios         bool                              // and the compression ratios
	message        func(*run, message)               // takes messages instead of the list of events
	pong           func(*run, string)                // is told of pongs after they were recorded
	weigh          func(*run) (Verdict, string)      // judges the events instead of outcomes
	enough         func(*run) bool                   // tells, after each event, whether the fuzzer may close
	check          func(*run)                        // has the last word
	offer          []string                          // client role: Sec-WebSocket-Extensions headers
	respond        func(*run, *head) (string, error) // server role: the same header of the answer
	deflate        bool                              // UNIMPLEMENTED unless compression was agreed
	needs          func(*run) string                 // what else is missing: UNIMPLEMENTED
	handshake      *handshakeCase                    // changes to the opening handshake
	prepare        func(*run, dialer) error          // client role: before the connection is made
	again          bool                              // a new connection must work afterwards
	strict         bool                              // the inflater holds the window inside a message
	hold           time.Duration                     // the fuzzer reads nothing for so long
}

// A dialer makes one more connection to the server under test.
type dialer func(ctx context.Context, timeout time.Duration) (net.Conn, error)

// A handshakeCase changes the opening handshake. In client role request and answer count, in server role response.
type handshakeCase struct {
	request  func(req *head)                              // before it is sent
	answer   func(r *run, req, res *head, err error) bool // judges the response; true: go on and play
	response func(r *run, req, res *head)                 // before it is sent
	mode     mode                                         // how request or response are written
	early    []frame                                      // in the same write
	special  func(r *run, c net.Conn)                     // server role: does something else than respond, and settles the case
}

// A message as it came, lent.
type message struct {
	op   byte
	data []byte
}

// Cases returns the catalogue, upstream's 517 and then our own from section 20 on.
func Cases() []*Case { return catalogue() }

var catalogue = sync.OnceValue(func() []*Case {
	var b book
	b.framing()
	b.pings()
	b.reservedBits()
	b.opcodes()
	b.fragmentation()
	b.utf8()
	b.closeHandling()
	b.limits()
	b.misc()
	b.compression()
	b.extension()
	for i, c := range b.cases {
		c.Index = i + 1
	}
	return b.cases
})

// A book is the catalogue while it is written.
type book struct{ cases []*Case }

// add enters a case that sends and then waits; timer may be nil.
func (b *book) add(id, description, expectation string, play func(*run), outcomes ...outcome) *Case {
	c := &Case{
		ID: id, Description: description, Expectation: expectation,
		Servers: true, Clients: true, play: play, outcomes: outcomes,
	}
	b.cases = append(b.cases, c)
	return c
}

// A mode says how frames are cut into writes: one for all, one a frame, or pieces of so many octets.
type mode int

const (
	one  mode = 0
	each mode = -1
	oct  mode = 1
)

// sends is the usual play: frames, then a deadline.
func sends(m mode, deadline func(*run), frames ...frame) func(*run) {
	return func(r *run) {
		r.send(m, frames...)
		deadline(r)
	}
}

// kill is the deadline K, end is E (catalogue 1.4).
func kill(seconds float64) func(*run) { return func(r *run) { r.kill(seconds) } }
func end(seconds float64) func(*run)  { return func(r *run) { r.end(seconds) } }

func sections() []section {
	return []section{
		{"1", "Framing"}, {"1.1", "Text messages"}, {"1.2", "Binary messages"},
		{"2", "Pings/Pongs"}, {"3", "Reserved Bits"},
		{"4", "Opcodes"}, {"4.1", "Reserved data opcodes"}, {"4.2", "Reserved control opcodes"},
		{"5", "Fragmentation"},
		{"6", "UTF-8 Handling"}, {"6.1", "Empty text"}, {"6.2", "Valid text, cut up"}, {"6.3", "Invalid text"},
		{"6.4", "Failing early"}, {"6.5", "Valid samples"}, {"6.6", "All prefixes of a sample"},
		{"6.7", "First code point of each length"}, {"6.8", "First forms of five and six octets"},
		{"6.9", "Last code point of each length"}, {"6.10", "Last forms beyond Unicode"}, {"6.11", "Boundaries"},
		{"6.12", "Lone continuation octets"}, {"6.13", "Lone start octets"}, {"6.14", "Last octet missing"},
		{"6.15", "Incomplete sequences joined"}, {"6.16", "Impossible octets"}, {"6.17", "Overlong slashes"},
		{"6.18", "Largest overlong forms"}, {"6.19", "Overlong NUL"}, {"6.20", "Single surrogates"},
		{"6.21", "Surrogate pairs"}, {"6.22", "Noncharacters"}, {"6.23", "Specials"},
		{"7", "Close Handling"}, {"7.1", "Order around Close"}, {"7.3", "Close payloads"}, {"7.5", "Close reason"},
		{"7.7", "Valid close codes"}, {"7.9", "Invalid close codes"}, {"7.13", "Close codes beyond the range"},
		{"9", "Limits/Performance"}, {"9.1", "Large text messages"}, {"9.2", "Large binary messages"},
		{"9.3", "Fragmented text"}, {"9.4", "Fragmented binary"}, {"9.5", "Text in small writes"},
		{"9.6", "Binary in small writes"}, {"9.7", "Text round trips"}, {"9.8", "Binary round trips"},
		{"10", "Misc"}, {"10.1", "Auto-fragmentation"},
		{"12", "WebSocket Compression (different payloads)"}, {"12.1", "JSON"}, {"12.2", "Gray bitmap"},
		{"12.3", "Verse"}, {"12.4", "HTML"}, {"12.5", "PDF"},
		{"13", "WebSocket Compression (different parameters)"},
		{"13.1", "As offered"}, {"13.2", "No context takeover"}, {"13.3", "Window of 9 bits"},
		{"13.4", "Window of 15 bits"}, {"13.5", "No context takeover, 9 bits"},
		{"13.6", "No context takeover, 15 bits"}, {"13.7", "Several offers"},
		{"20", "Beyond upstream"}, {"20.1", "Payload length"}, {"20.2", "Masking"},
		{"20.3", "Reserved bits with compression"}, {"20.4", "Legal deflate streams"},
		{"20.5", "Illegal deflate streams"}, {"20.6", "The testee's deflate output"},
		{"20.7", "Extension offers"}, {"20.8", "Extension responses"}, {"20.9", "Opening handshake, request"},
		{"20.10", "Opening handshake, response"}, {"20.11", "Closing"}, {"20.12", "Fragments and pipelining"},
		{"20.13", "UTF-8, deeper"}, {"20.14", "Robustness and limits"},
	}
}

// A section is a group of cases whose ids begin alike.
type section struct{ id, title string }

// parts are the numbers of an id.
func parts(id string) []int {
	var ns []int
	for s := range strings.SplitSeq(id, ".") {
		n, _ := strconv.Atoi(s)
		ns = append(ns, n)
	}
	return ns
}

// compareIDs orders ids by their numbers.
func compareIDs(a, b string) int {
	return cmp.Or(slices.Compare(parts(a), parts(b)), strings.Compare(a, b))
}

// A selection chooses cases by patterns: with a *, a regular expression from the start of the id, where a dot is
// a dot; without, the id itself (catalogue 1.1).
type selection struct {
	literal map[string]bool
	match   []*regexp.Regexp
}

func newSelection(patterns []string) (s selection, err error) {
	s.literal = map[string]bool{}
	for _, p := range patterns {
		if !strings.Contains(p, "*") {
			s.literal[p] = true
			continue
		}
		re, err := compilePattern(p, false)
		if err != nil {
			return s, err
		}
		s.match = append(s.match, re)
	}
	return s, nil
}

func compilePattern(p string, whole bool) (*regexp.Regexp, error) {
	e := "^" + strings.NewReplacer(".", `\.`, "*", ".*").Replace(p)
	if whole {
		e += "$"
	}
	re, err := regexp.Compile(e)
	if err != nil {
		return nil, fmt.Errorf("autobahn: pattern %q: %w", p, err)
	}
	return re, nil
}

func (s selection) has(id string) bool {
	if s.literal[id] {
		return true
	}
	return slices.ContainsFunc(s.match, func(re *regexp.Regexp) bool { return re.MatchString(id) })
}

// Select returns the cases that patterns choose, for servers and clients alike.
func Select(run, exclude []string) ([]*Case, error) {
	return filterCases(&Config{Run: run, Exclude: exclude}, func(*Case) bool { return true })
}

// selectCases returns what cfg asks for, of the cases that apply to servers or to clients.
func selectCases(cfg *Config, servers bool) ([]*Case, error) {
	return filterCases(cfg, func(c *Case) bool { return servers && c.Servers || !servers && c.Clients })
}

func filterCases(cfg *Config, applies func(*Case) bool) ([]*Case, error) {
	wanted := cfg.Run
	if len(wanted) == 0 {
		wanted = []string{"*"}
	}
	in, err := newSelection(wanted)
	if err != nil {
		return nil, err
	}
	out, err := newSelection(cfg.Exclude)
	if err != nil {
		return nil, err
	}
	var cases []*Case
	for _, c := range Cases() {
		if applies(c) && in.has(c.ID) && !out.has(c.ID) {
			cases = append(cases, c)
		}
	}
	return cases, nil
}

// excludedFor tells whether cfg leaves the case out for this agent. Both patterns hold for the whole word.
func excludedFor(cfg *Config, agent string, c *Case) bool {
	for a, patterns := range cfg.ExcludeFor {
		re, err := compilePattern(a, true)
		if err != nil || !re.MatchString(agent) {
			continue
		}
		for _, p := range patterns {
			if re, err := compilePattern(p, true); err == nil && re.MatchString(c.ID) {
				return true
			}
		}
	}
	return false
}
