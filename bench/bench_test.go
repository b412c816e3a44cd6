//go:build linux

package main

import (
	"bytes"
	"compress/flate"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(serverEnv); spec != "" {
		if err := serverMain(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	doze = 100 // nothing is measured
	os.Exit(m.Run())
}

// Every server answers a handshake, echoes and broadcasts; every client echoes.
// What comes back is compared byte by byte, but for the floors'.
func TestServers(t *testing.T) {
	var cells []Cell
	for _, size := range []int{16, 1 << 10, 70 << 10} {
		for _, text := range []string{"binary", "chinese"} {
			cells = append(cells, echoCell(2, size, 3, text))
		}
		c := clientCell(size)
		c.Conns = 2
		cells = append(cells, c)
	}
	for _, mode := range []string{"alone", "takeover"} {
		c := deflateCell(16<<10, mode)
		c.Conns = 2
		cells = append(cells, c)
	}
	cells = append(cells, broadcastCell(5), handshakeCell())
	for _, l := range libraries {
		for _, c := range cells {
			if !c.runs(l) {
				continue
			}
			t.Run(l.name+"/"+c.Name, func(t *testing.T) {
				s := c.script(0x9d4c2b17)
				if c.Kind == "client" {
					s = c.script(0)
				}
				x := &contender{Result: &Result{}, lib: l, lfd: -1}
				defer x.end()
				o := &options{turn: 5 * time.Millisecond, progress: func(string, ...any) {}}
				require.NoError(t, x.begin(c, s, o))
				r, err := x.turn(c, s, o)
				require.NoError(t, err)
				require.Positive(t, r.CPU)
				require.Positive(t, r.Rate)
				require.Positive(t, r.P99)
			})
		}
	}
}

// What is measured includes who validates UTF-8: this library does.
func TestUTF8(t *testing.T) {
	for _, name := range ours {
		v, err := checksUTF8(lib(name), 0)
		require.NoError(t, err)
		require.Equal(t, "validated: closed with 1007", v)
	}
}

// The generator notices an answer that is not what was sent.
func TestLoadChecks(t *testing.T) {
	c := echoCell(1, 200, 1, "binary")
	s := c.script(0x01020304)
	good := appendFrame(nil, 0x80|opBinary, 0, c.payload(0))
	for _, x := range []struct {
		name string
		in   []byte
		err  string
	}{
		{"good", good, ""},
		{"in fragments", append(appendFrame(nil, opBinary, 0, c.payload(0)[:130]), appendFrame(nil, 0x80, 0, c.payload(0)[130:])...), ""},
		{"another length", appendFrame(nil, 0x80|opBinary, 0, make([]byte, 201)), "201 bytes"},
		{"another type", appendFrame(nil, 0x80|opText, 0, c.payload(0)), "0x81"},
		{"two beginnings", append(appendFrame(nil, opBinary, 0, c.payload(0)), appendFrame(nil, opBinary, 0, nil)...), "0x2"},
		{"a close frame", appendFrame(nil, 0x88, 0, []byte{3, 232}), "0x88"},
		{"another payload", appendFrame(nil, 0x80|opBinary, 0, make([]byte, 200)), "differs"},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, cut := range []int{1, 3, -1, len(x.in)} { // as the network cuts it
				g := &load{cell: c, script: s}
				l := &link{batch: 1, reader: frameReader{keep: cut > 0}}
				if cut < 0 { // later on: all but the payload is checked
					if x.name == "another payload" {
						continue
					}
					cut = len(x.in)
				}
				n := 0
				var err error
				for b := x.in; len(b) > 0 && err == nil; {
					k := min(cut, len(b))
					var m int
					m, err = g.take(l, b[:k])
					n, b = n+m, b[k:]
				}
				if x.err != "" {
					require.ErrorContains(t, err, x.err)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, 1, n)
			}
		})
	}
}

// A script with takeover can be said over and over: its second time round
// refers to nothing that a later one does not have.
func TestScript(t *testing.T) {
	c := deflateCell(1<<10, "takeover")
	s := c.script(0)
	var window []byte
	packed := 0
	total := len(s.first) + 3*len(s.cycle)
	for i := range total {
		f := s.at(i)
		size, n := header(f)
		require.Equal(t, len(f), n+size)
		packed += size
		z := flate.NewReaderDict(bytes.NewReader(append(f[n:len(f):len(f)], "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)), window)
		p, err := io.ReadAll(z)
		require.NoError(t, err)
		require.Equal(t, string(s.says(i)), string(p))
		window = append(window, p...)
		window = window[max(0, len(window)-32<<10):]
	}
	require.Less(t, packed, total*c.Size/2)
	require.Less(t, len(s.cycle[0]), len(s.first[0])) // nor does it begin without a window
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 10_000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	require.InEpsilon(t, 5*time.Millisecond, h.quantile(0.5), 0.02)
	require.InEpsilon(t, 9900*time.Microsecond, h.quantile(0.99), 0.02)
	h = histogram{}
	h.add(17)
	require.Equal(t, time.Duration(17), h.quantile(0.5))
}

// The report has a table for each cell, the ratios of rounds, what was missed,
// and a chart that is well-formed.
func TestReport(t *testing.T) {
	c := echoCell(64, 128, 1, "binary")
	r := &Report{Cells: []Cell{c}, UTF8: map[string]string{}, Versions: map[string]string{}, Results: []*Result{
		{Cell: c.Name, Server: "floor", Rounds: []Round{{CPU: 1}, {CPU: 2}, {CPU: 4}}},
		{Cell: c.Name, Server: "floor-epoll", Rounds: []Round{{CPU: 1}, {CPU: 1}, {CPU: 1}}},
		{Cell: c.Name, Server: "engine", Rounds: []Round{{CPU: 1.1}, {CPU: 1.2}, {CPU: 1.1}}},
		{Cell: c.Name, Server: "websocket-serve", Rounds: []Round{{CPU: 1}, {CPU: 2.08}, {CPU: 8}}},
		{Cell: c.Name, Server: "websocket-next", Rounds: []Round{{CPU: 2}, {CPU: 4}, {CPU: 8}}},
		{Cell: c.Name, Server: "gws", Rounds: []Round{{CPU: 4}, {CPU: 8}, {CPU: 1234.5}}},
		{Cell: c.Name, Server: "nbio", Error: "no answer"},
	}}
	md := r.markdown()
	require.Contains(t, md, "| echo, binary, 64 × 128 B | CPU ≤ 1.05 × floor | 1.04 | **2.00** | – |\n")
	require.Contains(t, md, "| echo, binary, 64 × 128 B | CPU ≤ 1.15 × epoll floor | – | – | 1.10 |\n")
	require.Contains(t, md, "\n| gws | 8.00 | 4.00 | 1.00 |")
	require.Contains(t, md, "nbio failed: no answer")
	require.Less(t, strings.Index(md, "| **websocket-serve** |"), strings.Index(md, "| gws | 8"))
	d := xml.NewDecoder(strings.NewReader(r.chart()))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	require.Equal(t, "1 234.50", number("%.2f", 1234.5))
}
