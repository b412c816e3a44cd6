// Command table runs the conformance suite against the peers and prints the table of autobahn/README.md, and behind
// it every case that is not OK.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/seed-07372d5a/websocket/autobahn"
	"github.com/seed-07372d5a/websocket/autobahn/peers"
)

type test func(context.Context, autobahn.Config) ([]*autobahn.Result, error)

func main() {
	fmt.Println("| library | role | OK | non-strict | info | unimplemented | failed | wrong close |")
	fmt.Println("|---|---|--:|--:|--:|--:|--:|--:|")
	var details strings.Builder
	cfg := autobahn.Config{Parallel: 8, Messages: 20, Patience: 3, NoWirelog: true}
	for _, p := range peers.All {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], p.Name) {
			continue
		}
		for i, run := range []test{p.TestServer, p.TestClient} {
			role := []string{"server", "client"}[i]
			results, err := run(context.Background(), cfg)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
			count(p.Name, role, results, &details)
		}
	}
	fmt.Print("\n", details.String())
}

// count prints a row, and writes to details what is not OK.
func count(name, role string, results []*autobahn.Result, details *strings.Builder) {
	n := map[autobahn.Verdict]int{}
	wrong := 0
	fmt.Fprintf(details, "%s, %s\n", name, role)
	for _, res := range results {
		n[res.Behavior]++
		if res.Behavior == autobahn.Unimplemented || res.Behavior == autobahn.Informational {
			continue
		}
		if res.BehaviorClose != autobahn.OK {
			wrong++
		}
		if res.Behavior != autobahn.OK || res.BehaviorClose != autobahn.OK {
			fmt.Fprintf(details, "  %s\n", res.Line())
		}
	}
	fmt.Printf("| %s | %s | %d | %d | %d | %d | %d | %d |\n", name, role, n[autobahn.OK], n[autobahn.NonStrict],
		n[autobahn.Informational], n[autobahn.Unimplemented], n[autobahn.Failed], wrong)
}
