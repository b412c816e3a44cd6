package peers

import (
	"context"
	"fmt"
	"net"

	"net/http/httptest"
	"strings"
	"sync"

	"github.com/seed-07372d5a/websocket/autobahn"
)

// TestServer runs the suite against the peer's server.
func (p Peer) TestServer(ctx context.Context, cfg autobahn.Config) ([]*autobahn.Result, error) {
	srv := httptest.NewServer(p.Serve)
	defer srv.Close()
	cfg.URL, cfg.Agent = "ws"+strings.TrimPrefix(srv.URL, "http"), word(p.Name)
	report, err := autobahn.RunServer(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return report.Results(cfg.Agent), nil
}

// TestClient runs the suite against the peer's client.
func (p Peer) TestClient(_ context.Context, cfg autobahn.Config) ([]*autobahn.Result, error) {
	suite, err := autobahn.NewServer(cfg)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go suite.Serve(l)
	defer func() {
		suite.Close()
		<-suite.Done()
	}()
	base, agent := "ws://"+l.Addr().String(), word(p.Name)
	turn := make(chan int)
	var workers sync.WaitGroup
	for range max(cfg.Parallel, 1) {
		workers.Go(func() {
			for n := range turn {
				p.Dial(fmt.Sprintf("%s/runCase?case=%d&agent=%s", base, n, agent))
			}
		})
	}
	for n := range suite.Cases() {
		turn <- n + 1
	}
	close(turn)
	workers.Wait()
	p.Dial(base + "/updateReports?agent=" + agent)
	return suite.Report().Results(agent), nil
}
