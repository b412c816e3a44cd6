package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-07372d5a/websocket/autobahn"
	"github.com/seed-07372d5a/websocket/autobahn/internal/double"
)

func serve(t *testing.T, d *double.Double) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go d.Serve(l)
	return "ws://" + l.Addr().String()
}

func TestServerCommand(t *testing.T) {
	good, bad := serve(t, &double.Double{}), serve(t, &double.Double{Fault: double.NoPong})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed.Close()
	known := filepath.Join(t.TempDir(), "known.txt")
	require.NoError(t, os.WriteFile(known, []byte("*\t2.1\tFAILED/OK\tno pongs\n"), 0o666))
	for _, tt := range []struct {
		name           string
		args           []string
		status         int
		stdout, stderr string // parts of what is printed
	}{
		{"passes", []string{"server", good, "-run", "1.1.1,2.1"}, 0, "double: 2 of 2 cases passed", ""},
		{"fails", []string{"server", "-run", "1.1.1,2.1", bad}, 1, "double: 1 of 2 cases passed", ""},
		{"fails as expected", []string{"server", "-expect", known, "-run", "1.1.1,2.1", bad}, 0, "1 of 2", ""},
		{"passes unexpectedly", []string{"server", "-expect", known, "-run", "1.1.1,2.1", good}, 1, "2 of 2", "no case 2.1 was FAILED/OK"},
		{"nobody there", []string{"server", "ws://" + closed.Addr().String()}, 2, "", "refused"},
		{"no URL", []string{"server"}, 2, "", "usage:"},
		{"no command", nil, 2, "", "usage:"},
		{"wrong scheme", []string{"server", "http://localhost"}, 2, "", "not a ws or wss URL"},
		{"wrong flag", []string{"server", "-x", good}, 2, "", "-x"},
		{"list", []string{"list", "-run", "5.1"}, 0, "A ping in two fragments.", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, tt.status, run(context.Background(), tt.args, &stdout, &stderr))
			require.Contains(t, stdout.String(), tt.stdout)
			require.Contains(t, stderr.String(), tt.stderr)
		})
	}
}

func TestJSON(t *testing.T) {
	dir := t.TempDir()
	var stdout bytes.Buffer
	args := []string{"server", "-json", "-agent", "me", "-o", dir, "-run", "1.1.1", serve(t, &double.Double{})}
	require.Zero(t, run(context.Background(), args, &stdout, io.Discard))
	var index map[string]map[string]struct{ Behavior string }
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &index))
	require.Equal(t, "OK", index["me"]["1.1.1"].Behavior)
	written, err := os.ReadFile(filepath.Join(dir, "index.json"))
	require.NoError(t, err)
	require.Equal(t, stdout.String(), string(written))
}

// A client is through when it asks for reports.
func TestClientCommand(t *testing.T) {
	for _, tt := range []struct {
		fault  double.Fault
		status int
	}{{double.None, 0}, {double.NoPong, 1}} {
		out, in := io.Pipe()
		var stdout bytes.Buffer
		status := make(chan int)
		go func() {
			status <- run(context.Background(), []string{"client", "-listen", "127.0.0.1:0", "-run", "1.1.1,2.1"}, &stdout, in)
			in.Close()
		}()
		line := make([]byte, 200)
		n, err := out.Read(line)
		require.NoError(t, err)
		go io.Copy(io.Discard, out)
		_, address, found := strings.Cut(strings.TrimSpace(string(line[:n])), "2 cases for clients at ")
		require.True(t, found, string(line[:n]))
		require.NoError(t, (&double.Double{Fault: tt.fault}).RunAll("ws://"+address, "me", 1))
		require.Equal(t, tt.status, <-status)
		require.Contains(t, stdout.String(), "of 2 cases passed")
	}
}

func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	l := newLine(&out)
	good := &autobahn.Result{ID: "1.1.1", Behavior: autobahn.OK, BehaviorClose: autobahn.OK}
	bad := &autobahn.Result{ID: "2.1", Behavior: autobahn.Failed, BehaviorClose: autobahn.OK, Result: "nothing came"}
	l.show(autobahn.Progress{Done: 1, Total: 2, Result: good})
	require.Contains(t, out.String(), " 1/2  1.1.1  0 failed")
	l.show(autobahn.Progress{Done: 2, Total: 2, Result: bad})
	require.Contains(t, out.String(), "2.1: FAILED/OK: nothing came")
	require.Contains(t, out.String(), " 2/2  2.1  1 failed")
}
