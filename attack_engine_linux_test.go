package websocket

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// attack_engine_test.go runs the table of attack_test.go through an engine's loops,
// over the real network: what need not wait. For time see the engine's own tests.

// EngineLoops starts an engine, and returns how to make a connection of it, whose
// other end it yields. This package's tests cannot import the engine, others set it.
var EngineLoops func(t testing.TB, h Handler, config *tls.Config) (connect func(p Params) net.Conn)

// paused tells whether a script takes time.
func paused(script []event) bool {
	return slices.ContainsFunc(script, func(e event) bool { return e.pause > 0 })
}

func TestAttacksEngine(t *testing.T) {
	config, _ := certificate(t)
	for _, a := range attacks {
		if a.side == "client" || a.at > 0 {
			continue
		}
		for _, secure := range []*tls.Config{nil, config} {
			t.Run(fmt.Sprintf("%s TLS=%v", a.name, secure != nil), func(t *testing.T) { a.checkEngine(t, secure) })
		}
	}
}

// checkEngine runs each of the row's inputs once, and if they are few, with each way
// to compress.
func (a *attack) checkEngine(t *testing.T, config *tls.Config) {
	var got []string
	ends := make(chan error, 1)
	connect := EngineLoops(t, Handler{
		Message: func(_ *Conn, m Message) { got = append(got, m.Type.String()+" "+string(m.Data)) },
		Close:   func(_ *Conn, err error) { ends <- err },
	}, config)
	inputs := a.more
	if a.in != nil {
		inputs = append(mixed{a.in}, inputs...)
	}
	limit := a.limit
	if limit == 0 {
		limit = attackLimit
	}
	stride := 3
	if raceDetector { // it is slow
		stride = 12
	}
	for i, in := range inputs {
		for k, z := range zips {
			m := mode{drive: "engine", tls: config != nil, zip: z, cut: cuts[(i+k)%len(cuts)]}
			if !a.applies(m) || len(inputs) >= len(zips) && (i+k)%stride != 0 {
				continue
			}
			script := m.script(in)
			if paused(script) {
				continue // TestAttacks has them, with a clock that can be moved
			}
			p := Params{Config: Config{ReadLimit: limit}}
			switch z {
			case "unused", "takeover":
				p.Extensions = "permessage-deflate"
			case "reset":
				p.Extensions = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
			}
			got = nil
			peer := connect(p)
			sent := m.attack(peer, script)
			about := fmt.Sprintf("input %d, %+v", i, m)
			require.Equal(t, a.err, <-ends, about)
			require.Equal(t, brief(a.want), brief(got), about)
			if !a.ping {
				require.Equal(t, brief(a.answers()), brief(sent), about)
			}
		}
	}
}

// attack goes through the script, and returns the frames that come.
func (m mode) attack(peer net.Conn, script []event) []string {
	defer peer.Close()
	peer.SetDeadline(time.Now().Add(20 * time.Second))
	written := make(chan struct{})
	go func() {
		defer close(written)
		for _, e := range script {
			size := m.sizes(len(e.b))
			for rest := e.b; len(rest) > 0; {
				n := len(rest)
				if size != nil {
					n = min(n, size())
				}
				if _, err := peer.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}
	}()
	all, _ := io.ReadAll(peer)
	peer.Close() // what it writes still, nobody reads
	<-written
	return readFrames(all)
}
