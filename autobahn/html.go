package autobahn

// The two kinds of page of a report directory.

import (
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
)

const pageStyle = `<style>
body { background: #F4F4F4; font: 14px sans-serif; margin: 2em; }
table { border-collapse: collapse; }
td, th { padding: 3px 8px; border: 1px solid #fff; text-align: left; vertical-align: top; }
a { color: inherit; }
.category td { background: #000; color: #fff; font-size: 120%; }
.sub td { background: #333; color: #fff; }
.sub .agent { background: #048; }
.case { background: #666; color: #fff; }
.r { color: #fff; text-align: center; min-width: 5em; }
.small { font-size: 80%; }
.hide .c { display: none; }
pre { margin: 0; white-space: pre-wrap; word-break: break-all; }
</style>`

var indexPage = template.Must(template.New("index").Parse(`<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>WebSocket conformance</title>` + pageStyle + `</head>
<body><h1>WebSocket conformance</h1>
<p><button onclick="document.getElementById('t').classList.toggle('hide')">Show or hide how connections closed</button></p>
<table id="t">
{{range .Rows}}{{if .Category}}<tr class="category"><td colspan="{{$.Width}}">{{.ID}} {{.Title}}</td></tr>
{{else if .Cells}}<tr><td class="case"><a href="#{{.ID}}">{{.ID}}</a></td>{{range .Cells}}<td class="r" style="background: {{.Colour}}">{{if .File}}<a href="{{.File}}">{{.Text}}</a>{{else}}{{.Text}}{{end}}{{if .Note}}<br><span class="small">{{.Note}}</span>{{end}}</td><td class="r c" style="background: {{.CloseColour}}">{{.Close}}</td>{{end}}</tr>
{{else}}<tr class="sub"><td>{{.ID}} {{.Title}}</td>{{range $.Agents}}<td class="agent">{{.}}</td><td class="agent c">Close</td>{{end}}</tr>
{{end}}{{end}}</table>
<h2>Cases</h2>
{{range .Cases}}<p id="{{.ID}}"><b>{{.ID}}</b> {{.Description}}<br>{{.Expectation}}</p>
{{end}}</body></html>
`))

// indexRow is a category, a subcategory with the agents' names, or a case with a pair of cells for each agent.
type indexRow struct {
	ID, Title string
	Category  bool
	Cells     []cell
}

type cell struct {
	Text, Colour, Note, File string
	Close, CloseColour       string
}

// WriteHTML writes index.html.
func (r *Report) WriteHTML(w io.Writer) error {
	agents := r.Agents()
	cases := Cases()
	return indexPage.Execute(w, map[string]any{
		"Agents": agents, "Cases": cases, "Width": 1 + 2*len(agents), "Rows": r.indexRows(agents, cases),
	})
}

func (r *Report) indexRows(agents []string, cases []*Case) []indexRow {
	titles := map[string]string{}
	for _, s := range sections() {
		titles[s.id] = s.title
	}
	var rows []indexRow
	category, sub := "", ""
	for _, c := range cases {
		ids := strings.Split(c.ID, ".")
		if ids[0] != category {
			category, sub = ids[0], ""
			rows = append(rows, indexRow{ID: category, Title: titles[category], Category: true})
		}
		group := ids[0]
		if titles[ids[0]+"."+ids[1]] != "" {
			group = ids[0] + "." + ids[1]
		}
		if group != sub {
			sub = group
			rows = append(rows, indexRow{ID: sub, Title: titles[sub]})
		}
		one := indexRow{ID: c.ID}
		for _, a := range agents {
			one.Cells = append(one.Cells, newCell(r.Result(a, c.ID)))
		}
		rows = append(rows, one)
	}
	return rows
}

func newCell(res *Result) cell {
	if res == nil {
		return cell{Text: "Missing", Colour: "#a05a2c", Close: "Missing", CloseColour: "#a05a2c"}
	}
	c := cell{File: res.file("html")}
	c.Text, c.Colour = behaviorLook(res.Behavior)
	c.Close, c.CloseColour = closeLook(res)
	if res.ReportTime {
		c.Note = fmt.Sprintf("%d ms", res.Duration)
	}
	if t := res.TrafficStats; res.ReportCompressionRatio && t != nil {
		c.Note += fmt.Sprintf(" [%s/%s]", ratioText(t.IncomingCompressionRatio), ratioText(t.OutgoingCompressionRatio))
	}
	return c
}

func ratioText(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.3f", *f)
}

func behaviorLook(v Verdict) (text, colour string) {
	switch v {
	case OK:
		return "Pass", "#0a0"
	case NonStrict:
		return "Non-Strict", "#9a0"
	case Informational:
		return "Info", "#4095BF"
	case Unimplemented:
		return "Unimplemented", "#800080"
	}
	return "Fail", "#900"
}

func closeLook(res *Result) (text, colour string) {
	code := "None"
	if res.RemoteCloseCode != nil {
		code = fmt.Sprint(*res.RemoteCloseCode)
	}
	if res.Behavior == Unimplemented {
		return "Unimplemented", "#800080"
	}
	switch res.BehaviorClose {
	case OK:
		return code, "#0a0"
	case FailedByClient:
		return code, "#6d6"
	case WrongCode:
		return code, "#9a0"
	case Informational:
		return code, "#4095BF"
	case Unclean:
		return "Unclean", "#900"
	}
	return "Fail", "#900"
}

var casePage = template.Must(template.New("case").Parse(`<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{{.R.Agent}}: {{.R.ID}}</title>` + pageStyle + `</head>
<body><p><a href="index.html">All cases</a></p>
<h1>{{.R.Agent}}: case {{.R.ID}}</h1>
<p><span class="r" style="background: {{.Colour}}; padding: 4px 12px">{{.Text}}</span>
<span class="r" style="background: {{.CloseColour}}; padding: 4px 12px">{{.R.BehaviorClose}}</span> {{.R.Started}}, {{.R.Duration}} ms</p>
<h2>Description</h2><p>{{.R.Description}}</p>
<h2>Expectation</h2><p>{{.R.Expectation}}</p>
<h2>Result</h2><p>{{.R.Result}}</p><p>Closing: {{.R.ResultClose}}</p>
<h2>Opening handshake</h2><pre>{{.R.HTTPRequest}}</pre><pre>{{.R.HTTPResponse}}</pre>
<h2>Closing</h2><table>
{{range .Facts}}<tr><td>{{.Name}}</td><td>{{.Value}}</td></tr>
{{end}}</table>
<h2>Traffic</h2>
{{range .Stats}}<h3>{{.Title}}</h3><table><tr><th>{{.What}}</th><th>Count</th></tr>
{{range .Rows}}<tr><td>{{.Name}}</td><td>{{.Value}}</td></tr>
{{end}}</table>
{{end}}<h2>Wire log</h2>
{{range .Log}}<pre style="color: {{.Colour}}">{{.Text}}</pre>
{{end}}<pre style="color: {{.LastColour}}">TCP dropped by {{.Dropper}}</pre>
</body></html>
`))

type fact struct{ Name, Value any }

type statTable struct {
	Title, What string
	Rows        []fact
}

type logLine struct{ Text, Colour string }

// WriteHTML writes the page of one case.
func (r *Result) WriteHTML(w io.Writer) error {
	text, colour := behaviorLook(r.Behavior)
	_, closeColour := closeLook(r)
	dropper, last := "the testee", "#000"
	if r.DroppedByMe {
		dropper, last = "the fuzzer", "#008"
	}
	var lines []logLine
	for _, row := range r.Wirelog {
		lines = append(lines, row.line())
	}
	return casePage.Execute(w, map[string]any{
		"R": r, "Text": text, "Colour": colour, "CloseColour": closeColour, "Facts": r.facts(), "Log": lines,
		"Dropper": dropper, "LastColour": last,
		"Stats": []statTable{
			table("Octets received", "Size", r.RxOctetStats), table("Octets sent", "Size", r.TxOctetStats),
			table("Frames received", "Opcode", r.RxFrameStats), table("Frames sent", "Opcode", r.TxFrameStats),
		},
	})
}

func table(title, what string, counts map[int]int) statTable {
	t := statTable{Title: title, What: what}
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		t.Rows = append(t.Rows, fact{k, counts[k]})
	}
	return t
}

func (r *Result) facts() []fact {
	return []fact{
		{"closed by the fuzzer", r.ClosedByMe}, {"failed by the fuzzer", r.FailedByMe}, {"TCP dropped by the fuzzer", r.DroppedByMe},
		{"clean", r.WasClean}, {"why not clean", value(r.WasNotCleanReason)},
		{"code sent", value(r.LocalCloseCode)}, {"reason sent", value(r.LocalCloseReason)},
		{"code received", value(r.RemoteCloseCode)}, {"reason received", value(r.RemoteCloseReason)},
		{"opening handshake timed out", r.WasOpenHandshakeTimeout}, {"closing handshake timed out", r.WasCloseHandshakeTimeout},
		{"server kept TCP", r.WasServerConnDropTimeout},
	}
}

func value[T any](p *T) any {
	if p == nil {
		return "none"
	}
	return *p
}

// line words a row of the wire log.
func (r row) line() logLine {
	kind, _ := r[0].(string)
	switch kind {
	case "RO":
		p := r[1].([]any)
		return logLine{fmt.Sprintf("RX octets %v: %v", p[0], p[1]), "#060"}
	case "TO":
		p := r[1].([]any)
		return logLine{fmt.Sprintf("TX octets %v: %v", p[0], p[1]), colourIf(r[2], "#606", "#600")}
	case "RF":
		p := r[1].([]any)
		return logLine{fmt.Sprintf("RX frame opcode %v, fin %v, rsv %v, masked %v, key %v, %v octets: %v", r[2], r[3], r[4], r[5], r[6], p[0], p[1]), "#0a0"}
	case "TF":
		p := r[1].([]any)
		return logLine{fmt.Sprintf("TX frame opcode %v, fin %v, rsv %v, key %v, %v octets: %v", r[2], r[3], r[4], r[5], p[0], p[1]), colourIf(r[8], "#a0a", "#a00")}
	case "KL", "TI", "CT":
		return logLine{fmt.Sprintf("%s of %v s set", timerName[kind], r[1]), "#000"}
	case "KLE", "TIE", "CTE":
		return logLine{timerName[kind[:2]] + " over", "#000"}
	}
	return logLine{"log of octets and frames switched off", "#000"}
}

var timerName = map[string]string{"KL": "deadline to kill", "TI": "deadline to close", "CT": "pause"}

func colourIf(v any, yes, no string) string {
	if b, _ := v.(bool); b {
		return yes
	}
	return no
}
