// Package leak lets the tests of a package fail if they leave goroutines or
// descriptors behind.
package leak

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long what ends by itself may take to.
const patience = 10 * time.Second

// Run runs the tests, from TestMain, and returns what to exit with.
func Run(m *testing.M) int {
	before := descriptors()
	code := m.Run()
	if code != 0 || fuzzing() {
		return code
	}
	var left []string
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		http.DefaultClient.CloseIdleConnections()
		if left = append(goroutines(), more(before, descriptors())...); len(left) == 0 {
			return 0
		}
		if time.Now().After(end) {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "FAIL: the tests have left behind:\n\n%s\n", strings.Join(left, "\n\n"))
	return 1
}

// fuzzing: the engine's own goroutines and files are nobody's business.
func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

// goroutines returns the stacks of all but this one and the runtime's.
func goroutines() (stacks []string) {
	b := make([]byte, 1<<20)
	n := runtime.Stack(b, true)
	for n == len(b) {
		b = make([]byte, 2*len(b))
		n = runtime.Stack(b, true)
	}
	for i, s := range strings.Split(strings.TrimSpace(string(b[:n])), "\n\n") {
		if i > 0 && !strings.Contains(s, "os/signal.loop") { // the first is this one
			stacks = append(stacks, s)
		}
	}
	return stacks
}

// descriptors returns what the open ones refer to, where the system tells. The
// poller's own come with the first socket, and stay.
func descriptors() (refs []string) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		ref, err := os.Readlink(dir + "/" + e.Name())
		if err != nil || strings.HasPrefix(ref, "anon_inode:[event") || strings.HasPrefix(ref, "/proc/") {
			continue
		}
		refs = append(refs, e.Name()+" "+ref)
	}
	return refs
}

// more returns what is in after and not in before.
func more(before, after []string) (refs []string) {
	for _, ref := range after {
		if !slices.Contains(before, ref) {
			refs = append(refs, "descriptor "+ref)
		}
	}
	return refs
}
