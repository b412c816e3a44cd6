package autobahn

// What one case came to, in upstream's per-case layout. The fields stand in the order of their JSON names.

import (
	"fmt"
)

// A Result is the report of one case for one agent.
type Result struct {
	Agent                    string             `json:"agent"`
	Behavior                 Verdict            `json:"behavior"`
	BehaviorClose            Verdict            `json:"behaviorClose"`
	Case                     int                `json:"case"`
	ClosedByMe               bool               `json:"closedByMe"`
	CreateStats              bool               `json:"createStats"`
	CreateWirelog            bool               `json:"createWirelog"`
	Description              string             `json:"description"`
	DroppedByMe              bool               `json:"droppedByMe"`
	Duration                 int64              `json:"duration"` // ms
	Expectation              string             `json:"expectation"`
	Expected                 map[string][][]any `json:"expected"`
	ExpectedClose            ExpectedClose      `json:"expectedClose"`
	FailedByMe               bool               `json:"failedByMe"`
	HTTPRequest              string             `json:"httpRequest"`
	HTTPResponse             string             `json:"httpResponse"`
	ID                       string             `json:"id"`
	IsServer                 bool               `json:"isServer"` // the fuzzer was the server
	LocalCloseCode           *int               `json:"localCloseCode"`
	LocalCloseReason         *string            `json:"localCloseReason"`
	Received                 [][]any            `json:"received"`
	RemoteCloseCode          *int               `json:"remoteCloseCode"`
	RemoteCloseReason        *string            `json:"remoteCloseReason"`
	ReportCompressionRatio   bool               `json:"reportCompressionRatio"`
	ReportTime               bool               `json:"reportTime"`
	Result                   string             `json:"result"`
	ResultClose              string             `json:"resultClose"`
	RxFrameStats             map[int]int        `json:"rxFrameStats"`
	RxOctetStats             map[int]int        `json:"rxOctetStats"`
	Started                  string             `json:"started"`
	TrafficStats             *TrafficStats      `json:"trafficStats"`
	TxFrameStats             map[int]int        `json:"txFrameStats"`
	TxOctetStats             map[int]int        `json:"txOctetStats"`
	WasClean                 bool               `json:"wasClean"`
	WasCloseHandshakeTimeout bool               `json:"wasCloseHandshakeTimeout"`
	WasNotCleanReason        *string            `json:"wasNotCleanReason"`
	WasOpenHandshakeTimeout  bool               `json:"wasOpenHandshakeTimeout"`
	WasServerConnDropTimeout bool               `json:"wasServerConnectionDropTimeout"`
	Wirelog                  []row              `json:"wirelog"`
}

// ExpectedClose is how the connection should have ended.
type ExpectedClose struct {
	ClosedByMe                 bool  `json:"closedByMe"`
	CloseCode                  []int `json:"closeCode"`
	ClosedByWrongEndpointFatal bool  `json:"closedByWrongEndpointIsFatal"`
	RequireClean               bool  `json:"requireClean"`
}

// Pass is the usual rule: both columns good, where UNIMPLEMENTED counts as good behaviour.
func (r *Result) Pass() bool {
	switch r.Behavior {
	case Unimplemented:
		return true
	case OK, NonStrict, Informational:
	default:
		return false
	}
	return r.BehaviorClose == OK || r.BehaviorClose == Informational || r.BehaviorClose == NonStrict
}

// Line is the result in one line of text.
func (r *Result) Line() string {
	return fmt.Sprintf("%s: %s/%s: %s; %s", r.ID, r.Behavior, r.BehaviorClose, r.Result, r.ResultClose)
}

// result writes a run down.
func (r *run) result(agent string, number int) *Result {
	res := &Result{
		Agent: agent, Behavior: r.verdict, BehaviorClose: r.closeVerdict, Case: number,
		ClosedByMe: r.closedByMe, CreateStats: true, CreateWirelog: !r.cfg.NoWirelog,
		Description: r.Description, Expectation: r.Expectation, DroppedByMe: r.droppedByMe, FailedByMe: r.failedByMe,
		Duration: r.took.Milliseconds(), Expected: r.expected(), ExpectedClose: r.profile().report(),
		HTTPRequest: rawHead(r.request), HTTPResponse: rawHead(r.response), ID: r.ID, IsServer: !r.client,
		LocalCloseCode: r.localCode, LocalCloseReason: r.localReason, Received: [][]any{},
		RemoteCloseCode: r.remoteCode, RemoteCloseReason: r.remoteReason,
		ReportCompressionRatio: r.ratios, ReportTime: r.timed, Result: r.why, ResultClose: r.closeWhy,
		RxFrameStats: r.rxKinds, RxOctetStats: r.rxSizes, TxFrameStats: r.txKinds, TxOctetStats: r.txSizes,
		Started:  r.started.UTC().Format("2006-01-02T15:04:05.000Z"),
		WasClean: r.wasClean, WasCloseHandshakeTimeout: r.closeTimeout,
		WasOpenHandshakeTimeout: r.openTimeout, WasServerConnDropTimeout: r.dropTimeout, Wirelog: r.log.report(r.quiet),
	}
	if r.message == nil {
		res.Received = eventRows(r.events)
	}
	if !r.wasClean && r.unclean != "" {
		res.WasNotCleanReason = &r.unclean
	}
	if r.ratios && r.verdict == OK {
		res.TrafficStats = r.stats()
	}
	return res
}

func rawHead(h *head) string {
	switch {
	case h == nil:
		return "?"
	case h.raw != "":
		return h.raw
	}
	return string(h.bytes())
}

// expected lists what each verdict asks for. A case of ours may have several ways to one verdict.
func (r *run) expected() map[string][][]any {
	m := map[string][][]any{}
	for _, o := range r.outcomes {
		name := string(o.verdict)
		for n := 2; m[name] != nil; n++ {
			name = fmt.Sprintf("%s %d", o.verdict, n)
		}
		m[name] = eventRows(o.events)
	}
	return m
}

func eventRows(events []event) [][]any {
	rows := make([][]any, 0, len(events))
	for _, e := range events {
		if e.kind == "message" {
			rows = append(rows, []any{e.kind, cut(e.data), e.binary})
			continue
		}
		rows = append(rows, []any{e.kind, cut(e.data)})
	}
	return rows
}

func (p closing) report() ExpectedClose {
	codes := p.codes
	if codes == nil {
		codes = []int{}
	}
	return ExpectedClose{ClosedByMe: p.first == byFuzzer, CloseCode: codes, ClosedByWrongEndpointFatal: p.fatal, RequireClean: p.clean}
}

func (l *wirelog) report(quiet bool) []row {
	switch {
	case quiet:
		return []row{{"WLM", false}}
	case l.rows == nil:
		return []row{}
	}
	return l.rows
}
