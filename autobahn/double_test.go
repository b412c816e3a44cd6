package autobahn

import (
	"cmp"
	"context"
	"net"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/autobahn/internal/double"
)

// A role tests the double as a server or as a client.
type role struct {
	name string
	run  func(d *double.Double, cfg Config) (*Report, error)
}

var roles = []role{{"server", testServer}, {"client", testClient}}

// testServer runs cases against the double as a server.
func testServer(d *double.Double, cfg Config) (*Report, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	go d.Serve(l)
	cfg.URL, cfg.Agent = "ws://"+l.Addr().String(), "double"
	return RunServer(context.Background(), cfg)
}

// testClient runs cases with the double as a client.
func testClient(d *double.Double, cfg Config) (*Report, error) {
	s, err := NewServer(cfg)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go s.Serve(l)
	defer func() {
		s.Close()
		<-s.Done()
	}()
	err = d.RunAll("ws://"+l.Addr().String(), "double", max(cfg.Parallel, 1))
	return s.Report(), err
}

// unusual are the cases where a double without faults is not OK, by intention: its inflater wants whole messages, it
// declines small windows, and some cases only report.
var unusual = map[string]Verdict{
	"20.5.7": NonStrict, "20.7.17": NonStrict, "20.5.10": Unimplemented,
	"20.10.16": Informational, "20.11.10": Informational,
}

// declined are those that need a small window, or a client that asks for what the double does not.
var declined = map[string]*regexp.Regexp{
	"server": regexp.MustCompile(`^(13\.[35]\.|20\.6\.3$|20\.5\.11$)`),
	"client": regexp.MustCompile(`^(13\.[3456]\.|20\.6\.5$|20\.8\.(1|12|13)$)`),
}

func TestDoubleWithoutFaults(t *testing.T) {
	for _, role := range roles {
		t.Run(role.name, func(t *testing.T) {
			t.Parallel()
			d := &double.Double{Offer: deflateName, Limit: 16 * mi}
			cfg := Config{Parallel: 4, Messages: 20, Limit: 16 * mi, Patience: 4}
			if racing {
				cfg.Messages, cfg.Exclude = 3, []string{"9.[12].[56]*", "9.[56].*", "20.14.5", "20.14.8"}
			}
			report, err := role.run(d, cfg)
			require.NoError(t, err)
			for _, res := range report.Results("double") {
				want := cmp.Or(unusual[res.ID], OK)
				if caseByID(res.ID).info {
					want = Informational
				}
				if declined[role.name].MatchString(res.ID) {
					want = Unimplemented
				}
				if res.Behavior != want || want != Informational && res.BehaviorClose != OK {
					t.Error(res.Line())
				}
			}
			cases, err := selectCases(&cfg, role.name == "server")
			require.NoError(t, err)
			require.Len(t, report.Results("double"), len(cases))
		})
	}
}

// The cases about limits, with a smaller one.
func TestDoubleLimit(t *testing.T) {
	for _, role := range roles {
		t.Run(role.name, func(t *testing.T) {
			report, err := role.run(sound(double.None), Config{Limit: doubleLimit, Run: []string{"20.5.10", "20.14.2", "20.14.3", "20.14.4"}})
			require.NoError(t, err)
			require.Len(t, report.Results("double"), 4)
			for _, res := range report.Results("double") {
				require.Equal(t, "OK/OK", short[res.Behavior]+"/"+short[res.BehaviorClose], res.Line())
			}
		})
	}
}

func caseByID(id string) *Case {
	for _, c := range Cases() {
		if c.ID == id {
			return c
		}
	}
	return nil
}
