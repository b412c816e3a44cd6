// Package autobahn tests WebSocket servers and clients for conformance, in pure Go. It has the 517 cases of the
// Autobahn TestSuite under the same ids, and more of its own from section 20 on.
//
// A server must echo every message. [RunServer] connects to it and returns a [Report]:
//
//	report, err := autobahn.RunServer(ctx, autobahn.Config{URL: "ws://localhost:9001", Agent: "mine"})
//	for _, res := range report.Failures() {
//		fmt.Println(res.Line())
//	}
//
// A client must connect to a [Server]: to /getCaseCount for the number of cases, which comes as text; for each case N
// from 1 on to /runCase?case=N&agent=NAME, and echo there what it receives until the connection ends; and in the end
// to /updateReports?agent=NAME.
//
//	s, err := autobahn.NewServer(autobahn.Config{Dir: "reports"})
//	go s.Serve(listener)
//	<-s.Updated() // some client is through
//	s.Report().WriteSummary(os.Stdout)
//
// Every case has two verdicts: how the testee behaved, and how the connection was closed. Besides OK there is
// NON-STRICT for what is allowed but not best, INFORMATIONAL where anything goes, UNIMPLEMENTED for what was not
// agreed on, and FAILED. [Result.Pass] is the usual rule, [Expectations] are for lists of known deviations, and
// [Report.WriteDir] writes the files that viewers of the original suite's reports read.
//
// The package speaks WebSocket by itself, frame by frame. It does not import the library it belongs to, so that a
// mistake there cannot hide here.
package autobahn
