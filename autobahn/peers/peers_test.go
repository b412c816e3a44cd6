package peers

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/seed-07372d5a/websocket/autobahn"
)

// The peers behave as testdata/peers.txt says, with a reason for every line: the suite is fair as long as each
// reason is one. What misses a deadline on a busy machine is run again.
func TestPeers(t *testing.T) {
	f, err := os.Open("testdata/peers.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := autobahn.ReadExpectations(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range All {
		for role, run := range map[string]func(context.Context, autobahn.Config) ([]*autobahn.Result, error){"server": p.TestServer, "client": p.TestClient} {
			name := p.Name + ", " + role
			t.Run(name, func(t *testing.T) {
				expected := all.For(name)
				cfg := autobahn.Config{Parallel: 8, Messages: 20, Patience: 3, NoWirelog: true}
				var odd []*autobahn.Result
				for round := 0; round == 0 || round < 3 && len(odd) > 0; round++ {
					cfg.Run = nil
					for _, res := range odd {
						cfg.Run = append(cfg.Run, res.ID)
					}
					results, err := run(t.Context(), cfg)
					if err != nil {
						t.Fatal(err)
					}
					odd = expected.Deviations(slices.DeleteFunc(results, undecided))
				}
				for _, res := range odd {
					t.Error(res.Line())
				}
				for _, e := range expected.Unmet() {
					t.Errorf("no case %s was %s", e.IDs, e.Verdicts)
				}
			})
		}
	}
}

func undecided(res *autobahn.Result) bool {
	return res.Behavior == autobahn.Informational || res.Behavior == autobahn.Unimplemented
}
