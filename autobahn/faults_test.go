package autobahn

import (
	"strings"
	"sync"
	"testing"

	"github.com/seed-07372d5a/websocket/autobahn/internal/double"
)

// Every fault, and the cases that must find it. A verdict that a sound double gets would prove nothing: TestFaults
// runs the same cases without the fault as well.
var faults = []struct {
	fault  double.Fault
	server string // case=behavior/behaviorClose, with the fuzzing client
	client string // the same with the fuzzing server
}{
	{double.NoUTF8, "6.3.1=F/F 6.4.1=F/F 6.6.1=F/F 20.13.3.11=F/F", "6.3.2=F/F 6.14.8=F/F 20.13.6=F/F"},
	{double.UTF8AtEnd, "6.4.1=NS/OK 6.4.3=NS/OK 20.13.8=NS/OK", "6.4.2=NS/OK 6.4.4=NS/OK"},
	{double.UTF8PerFrame, "6.4.3=NS/OK 6.4.4=NS/OK", "6.4.3=NS/OK 20.13.8=NS/OK"},
	{double.UTF8FramesAlone, "6.2.3=F/F 20.13.5=F/F", "6.2.4=F/F 20.13.7=F/F"},
	{double.RSVIgnored, "3.1=F/F 3.4=F/F 3.7=OK/OK 20.3.4=F/F 20.3.13=F/F", "3.1=F/F 3.5=F/F 20.3.12=F/F"},
	{double.EmptyPong, "2.2=F/OK 2.10=F/OK", "2.4=F/OK 5.6=F/OK"},
	{double.NoPong, "2.1=F/OK 5.19=F/OK", "2.3=F/OK"},
	{double.LastPongOnly, "2.10=F/OK 20.12.11=NS/OK", "2.11=F/OK"},
	{double.LatePong, "5.6=F/OK 5.20=F/OK", "5.8=F/OK 20.12.5=F/WC"},
	{double.WrongCloseCode, "1.1.1=OK/WC 7.3.3=F/WC 7.7.1=F/WC", "7.1.1=F/WC 7.7.10=F/WC"},
	{double.NoCloseReply, "1.1.1=OK/UC 7.3.1=OK/UC", "7.3.3=OK/UC"},
	{double.DropOnClose, "1.1.1=OK/UC 7.7.2=OK/UC", "7.3.4=OK/UC"},
	{double.EchoAfterClose, "7.1.4=F/FC 20.11.13=F/UC", ""},
	{double.KeepTCP, "1.1.1=OK/FC 2.1=OK/UC 7.3.3=OK/FC", ""},
	{double.CloseCodeUnchecked, "7.9.1=F/WC 20.11.4=OK/WC", "7.9.9=F/WC"},
	{double.CloseReasonUnchecked, "7.5.1=F/WC 20.11.6=OK/WC", "7.5.1=F/WC"},
	{double.ShortCloseAccepted, "7.3.2=F/WC", "7.3.2=F/WC"},
	{double.FragmentedControl, "5.1=F/OK 20.11.7=OK/WC 20.12.8=F/F", "5.1=F/OK"},
	{double.LongControl, "2.5=OK/F 7.3.6=F/WC", "2.5=OK/F"},
	{double.StrayContinuation, "5.9=F/F 5.17=F/F", "5.10=F/F"},
	{double.NestedMessage, "5.18=F/F 20.12.2=F/F", "5.18=F/F 20.5.8=F/F"},
	{double.ReservedOpcode, "4.1.1=OK/F 4.2.3=F/F 20.12.9=OK/F", "4.2.1=OK/F"},
	{double.LengthSign, "1.1.6=F/F 20.1.13=F/F", "1.2.6=F/F"},
	{double.TopBitIgnored, "20.1.6=F/F", "20.1.6=F/F"},
	{double.NonMinimal, "20.1.1=NS/OK 20.1.9=F/F 20.1.11=OK/WC", "20.1.4=NS/OK 20.1.9=F/F"},
	{double.MaskUnchecked, "20.2.1=F/F 20.2.2=F/F 20.2.4=F/F", "20.2.10=F/F 20.2.11=F/F"},
	// Binary: of a text, one key in eight makes another text.
	{double.MaskRestarts, "1.2.6=F/WC 1.2.7=F/WC", ""},
	{double.KeyReused, "", "20.2.12=F/OK"},
	{double.WrongMask, "1.1.1=F/UC", "1.1.1=F/UC"},
	{double.TextAsBinary, "1.1.1=F/WC 5.3=F/OK 12.1.1=F/OK", "6.1.1=F/OK"},
	{double.LastFragmentOnly, "5.3=F/OK 6.1.3=F/OK", "5.5=F/OK"},
	{double.Echo16Bit, "9.1.2=F/OK 20.6.6=F/OK", "9.2.2=F/OK"},
	{double.EarlyDataLost, "20.9.15=NS/OK", "20.10.12=F/WC"},
	{double.InflateUnlimited, "20.5.10=F/F", "20.5.10=F/F"},
	{double.InflateTakeoverLost, "12.1.1=F/F 13.1.1=F/F 20.4.3=F/F", "12.1.11=F/F 20.4.12=F/F"},
	{double.DeflateTakeoverKept, "13.2.1=F/WC 20.6.1=F/UC", "13.2.1=F/WC 20.6.2=F/UC"},
	{double.WindowIgnored, "13.3.5=F/WC 20.6.3=F/WC 20.7.20=OK/OK", ""},
	{double.InflateErrorsIgnored, "20.5.1=F/F 20.5.3=F/F 20.5.4=IN/IN", "20.5.2=F/F"},
	{double.RSV1OnContinuation, "12.1.2=F/WC 20.6.6=F/WC", "20.4.1=F/WC"},
	{double.RSV1Anywhere, "20.3.1=F/F 20.3.8=F/F 20.3.3=OK/WC", "20.3.2=OK/F"},
	{double.TailLeftOn, "20.6.7=IN/IN", "20.6.7=IN/IN"},
	{double.AnyExtension, "20.7.2=F/F 20.7.3=F/F", "20.8.2=F/F"},
	{double.AnyParameter, "20.7.4=F/F 20.7.7=F/F 20.7.14=F/F", "20.8.5=F/F 20.8.10=F/F 20.8.11=F/F"},
	{double.AcceptWrong, "1.1.1=F/F 20.9.18=F/F", ""},
	{double.AcceptUnchecked, "", "20.10.1=F/F 20.10.2=F/F 20.10.3=F/F"},
	{double.StatusUnchecked, "", "20.10.4=F/F"},
	{double.SubprotocolInvented, "20.9.17=F/F 1.1.1=F/F", ""},
	{double.SubprotocolUnchecked, "", "20.10.9=F/F"},
	{double.VersionUnchecked, "20.9.1=F/F 20.9.2=F/F", ""},
	{double.KeyUnchecked, "20.9.3=F/F 20.9.4=NS/OK", ""},
	{double.SameKey, "", "20.10.17=F/F"},
}

const doubleLimit = 2 * mi

func sound(f double.Fault) *double.Double {
	return &double.Double{Fault: f, Offer: deflateName, Limit: doubleLimit}
}

// A faultRun is one case with and without the fault.
type faultRun struct {
	role         role
	id, want     string
	fault        double.Fault
	got, without string
}

// TestFaults has all cases under way at once: most of their time is spent waiting for deadlines.
func TestFaults(t *testing.T) {
	var runs []*faultRun
	for _, tt := range faults {
		for i, expected := range []string{tt.server, tt.client} {
			for _, e := range strings.Fields(expected) {
				id, want, _ := strings.Cut(e, "=")
				runs = append(runs, &faultRun{role: roles[i], id: id, want: want, fault: tt.fault})
			}
		}
	}
	var wait sync.WaitGroup
	for _, r := range runs {
		wait.Go(func() { r.got = oneVerdict(r.role, r.fault, r.id) })
		wait.Go(func() { r.without = oneVerdict(r.role, double.None, r.id) })
	}
	wait.Wait()
	caught := map[double.Fault]bool{}
	for _, r := range runs {
		if r.got != r.want {
			t.Errorf("%s, %s, %s: %s, want %s", r.fault, r.role.name, r.id, r.got, r.want)
		}
		if r.got != r.without {
			caught[r.fault] = true
		}
	}
	for _, tt := range faults {
		if !caught[tt.fault] {
			t.Errorf("%s: a sound double gets the same verdicts", tt.fault)
		}
	}
}

// oneVerdict runs one case against the double. Another goes before, for 20.10.17 looks for keys used earlier.
func oneVerdict(r role, f double.Fault, id string) string {
	report, err := r.run(sound(f), Config{Run: []string{"1.2.1", id}, Messages: 20, Limit: doubleLimit, Patience: patience})
	if err != nil {
		return err.Error()
	}
	res := report.Result("double", id)
	if res == nil {
		return "no result"
	}
	return short[res.Behavior] + "/" + short[res.BehaviorClose]
}
