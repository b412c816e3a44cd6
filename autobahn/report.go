package autobahn

// All results, by agent and case, and upstream's files made of them (catalogue 2).

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// A Report collects results. Its methods are safe from every goroutine.
type Report struct {
	mu      sync.Mutex
	results map[string]map[string]*Result
}

// NewReport is empty. Reports of several runs can be joined with Add.
func NewReport() *Report { return &Report{results: map[string]map[string]*Result{}} }

func (r *Report) add(res *Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.results[res.Agent]
	if of == nil {
		of = map[string]*Result{}
		r.results[res.Agent] = of
	}
	of[res.ID] = res
}

// Add takes over the results of another report; a repeated case overwrites.
func (r *Report) Add(other *Report) {
	for _, a := range other.Agents() {
		for _, res := range other.Results(a) {
			r.add(res)
		}
	}
}

// Agents are the names of those tested, sorted.
func (r *Report) Agents() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.results))
}

// Results of one agent, in the order of the catalogue.
func (r *Report) Results(agent string) []*Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	rs := slices.Collect(maps.Values(r.results[agent]))
	slices.SortFunc(rs, func(a, b *Result) int { return compareIDs(a.ID, b.ID) })
	return rs
}

// Result of one case, or nil.
func (r *Report) Result(agent, id string) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[agent][id]
}

// Failures are the results that do not pass, of all agents.
func (r *Report) Failures() []*Result {
	var failed []*Result
	for _, a := range r.Agents() {
		for _, res := range r.Results(a) {
			if !res.Pass() {
				failed = append(failed, res)
			}
		}
	}
	return failed
}

// indexEntry is a case in index.json.
type indexEntry struct {
	Behavior        Verdict `json:"behavior"`
	BehaviorClose   Verdict `json:"behaviorClose"`
	Duration        int64   `json:"duration"`
	RemoteCloseCode *int    `json:"remoteCloseCode"`
	ReportFile      string  `json:"reportfile"`
}

// WriteJSON writes index.json: agent, case id, verdicts.
func (r *Report) WriteJSON(w io.Writer) error {
	index := map[string]map[string]indexEntry{}
	for _, a := range r.Agents() {
		index[a] = map[string]indexEntry{}
		for _, res := range r.Results(a) {
			index[a][res.ID] = indexEntry{res.Behavior, res.BehaviorClose, res.Duration, res.RemoteCloseCode, res.file("json")}
		}
	}
	return writeJSON(w, index)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "   ")
	return e.Encode(v)
}

// file is the name of a case's report.
func (r *Result) file(ext string) string {
	return fmt.Sprintf("%s_case_%s.%s", fileWord(r.Agent), strings.ReplaceAll(r.ID, ".", "_"), ext)
}

// fileWord turns an agent's name into part of a file name.
func fileWord(agent string) string {
	s := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return ' '
	}, strings.ToLower(strings.TrimSpace(agent)))
	return strings.ReplaceAll(strings.TrimSpace(s), " ", "_")
}

// WriteDir writes index.json, index.html, and a JSON and an HTML file for every case.
func (r *Report) WriteDir(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := writeFile(dir, "index.json", r.WriteJSON); err != nil {
		return err
	}
	if err := writeFile(dir, "index.html", r.WriteHTML); err != nil {
		return err
	}
	for _, a := range r.Agents() {
		for _, res := range r.Results(a) {
			if err := writeFile(dir, res.file("json"), func(w io.Writer) error { return writeJSON(w, res) }); err != nil {
				return err
			}
			if err := writeFile(dir, res.file("html"), res.WriteHTML); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeFile(dir, name string, write func(io.Writer) error) error {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return fmt.Errorf("autobahn: %s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(dir, name), buf.Bytes(), 0o666)
}

// WriteSummary writes for people: a table by section, then every case that is not OK and why.
func (r *Report) WriteSummary(w io.Writer) error {
	for _, a := range r.Agents() {
		results := r.Results(a)
		passed := 0
		for _, res := range results {
			if res.Pass() {
				passed++
			}
		}
		fmt.Fprintf(w, "%s: %d of %d cases passed\n\n", a, passed, len(results))
		if err := writeTable(w, results); err != nil {
			return err
		}
		writeNotOK(w, results)
	}
	return nil
}

// columns of the summary's table; what is none of these is counted as failed.
var columns = []Verdict{OK, NonStrict, Informational, Unimplemented, Failed}

func writeTable(w io.Writer, results []*Result) error {
	count := map[string]map[Verdict]int{}
	closes := map[string]int{}
	for _, res := range results {
		s, _, _ := strings.Cut(res.ID, ".")
		if count[s] == nil {
			count[s] = map[Verdict]int{}
		}
		count[s][res.Behavior]++
		if res.Behavior != Unimplemented && res.BehaviorClose != OK && res.BehaviorClose != Informational {
			closes[s]++
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "section\tOK\tnon-strict\tinfo\tunimplemented\tfailed\twrong close\t")
	for _, s := range slices.SortedFunc(maps.Keys(count), compareIDs) {
		fmt.Fprint(t, s, "\t")
		for _, v := range columns {
			fmt.Fprint(t, orDash(count[s][v]), "\t")
		}
		fmt.Fprint(t, orDash(closes[s]), "\t\n")
	}
	return t.Flush()
}

func orDash(n int) string {
	if n == 0 {
		return "·"
	}
	return fmt.Sprint(n)
}

func writeNotOK(w io.Writer, results []*Result) {
	fmt.Fprintln(w)
	for _, res := range results {
		switch {
		case res.Behavior == Unimplemented, res.Behavior == Informational:
		case res.Behavior != OK:
			fmt.Fprintf(w, "%-12s %-16s %s\n%29s %s\n", res.ID, res.Behavior, res.Description, "", res.Result)
		}
		switch res.BehaviorClose {
		case OK, Informational:
		default:
			if res.Behavior != Unimplemented {
				fmt.Fprintf(w, "%-12s close: %-16s %s\n", res.ID, res.BehaviorClose, res.ResultClose)
			}
		}
	}
	writeUnimplemented(w, results)
}

// writeUnimplemented names those cases by what was missing: they are many, and few are the reasons.
func writeUnimplemented(w io.Writer, results []*Result) {
	by := map[string][]string{}
	for _, res := range results {
		if res.Behavior == Unimplemented {
			by[res.Result] = append(by[res.Result], res.ID)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(by)) {
		ids := by[why]
		few := strings.Join(ids[:min(len(ids), 12)], " ")
		if len(ids) > 12 {
			few += " …"
		}
		fmt.Fprintf(w, "%d unimplemented: %s: %s\n", len(ids), why, few)
	}
}
