package autobahn

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/autobahn/internal/double"
)

func TestReportFileNames(t *testing.T) {
	for agent, want := range map[string]string{
		"AutobahnPython/0.10.9": "autobahnpython_0_10_9_case_1_1_1.json",
		"  My Server! ":         "my_server_case_1_1_1.json",
	} {
		require.Equal(t, want, (&Result{Agent: agent, ID: "1.1.1"}).file("json"))
	}
}

// The files are those that viewers of upstream's reports read (catalogue 2).
func TestReportDirectory(t *testing.T) {
	report, err := testServer(&double.Double{Fault: double.NoPong}, Config{Run: []string{"1.1.4", "2.1", "6.4.1", "12.1.1"}, Messages: 5})
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, report.WriteDir(dir))

	var index map[string]map[string]map[string]any
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	require.Len(t, index["double"], 4)
	for id, entry := range index["double"] {
		require.ElementsMatch(t, []string{"behavior", "behaviorClose", "remoteCloseCode", "duration", "reportfile"}, keys(entry))
		var one map[string]any
		readJSON(t, filepath.Join(dir, entry["reportfile"].(string)), &one)
		require.Equal(t, id, one["id"])
		require.ElementsMatch(t, caseKeys, keys(one))
	}
	require.Equal(t, "FAILED", index["double"]["2.1"]["behavior"])

	var c map[string]any
	readJSON(t, filepath.Join(dir, "double_case_6_4_1.json"), &c)
	require.Equal(t, []any{[]any{"timeout", "A"}}, c["received"])
	require.Equal(t, map[string]any{"closedByMe": false, "closeCode": []any{1007.}, "requireClean": false, "closedByWrongEndpointIsFatal": true}, c["expectedClose"])
	var kinds []string
	for _, r := range c["wirelog"].([]any) {
		kinds = append(kinds, r.([]any)[0].(string))
	}
	require.Subset(t, []string{"TF", "TO", "RO", "RF", "CT", "CTE"}, kinds)
	require.Contains(t, kinds, "CTE")

	page, err := os.ReadFile(filepath.Join(dir, "index.html"))
	require.NoError(t, err)
	require.Contains(t, string(page), `<a href="double_case_2_1.html">Fail</a>`)
	require.Equal(t, len(Cases())-4, strings.Count(string(page), `">Missing</td><td class="r c"`))
}

// caseKeys are all of a per-case file.
var caseKeys = strings.Fields(`agent behavior behaviorClose case closedByMe createStats createWirelog description droppedByMe
	duration expectation expected expectedClose failedByMe httpRequest httpResponse id isServer localCloseCode
	localCloseReason received remoteCloseCode remoteCloseReason reportCompressionRatio reportTime result resultClose
	rxFrameStats rxOctetStats started trafficStats txFrameStats txOctetStats wasClean wasCloseHandshakeTimeout
	wasNotCleanReason wasOpenHandshakeTimeout wasServerConnectionDropTimeout wirelog`)

func keys(m map[string]any) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

// readJSON also makes sure that the names on the outermost level are sorted.
func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, v))
	var names []string
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(line, []byte("   \"")) {
			names = append(names, string(line[4:bytes.IndexByte(line[4:], '"')+4]))
		}
	}
	require.NotEmpty(t, names)
	require.True(t, slices.IsSorted(names), "%s: %v", file, names)
}

func TestSummary(t *testing.T) {
	report, err := testServer(&double.Double{Fault: double.NoPong}, Config{Run: []string{"1.1.1", "2.1", "13.3.1"}, Messages: 5})
	require.NoError(t, err)
	var s strings.Builder
	require.NoError(t, report.WriteSummary(&s))
	for _, want := range []string{"double: 2 of 3 cases passed", "2.1          FAILED", "1 unimplemented: no compression was agreed on: 13.3.1"} {
		require.Contains(t, s.String(), want)
	}
	require.Len(t, report.Failures(), 1)
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{
		"text":     "text",
		"\xff\x01": "0xff01",
		stars(60):  stars(60),
		stars(61):  stars(61) + " ...",
		stars(99):  stars(64) + " ...",
	} {
		require.Equal(t, want, cut(in))
	}
}
