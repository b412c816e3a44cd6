// Package e2e tests the examples with real browsers: it builds the programs, starts
// them, and visits them with a headless Chromium.
//
//	cd examples/e2e && go test .
//
// SCREENSHOTS=dir keeps the pictures that it takes. Without a Chromium the test
// is skipped, unless CI is set.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

const (
	patience = 30 * time.Second // for one thing to happen in a page
	whole    = 3 * time.Minute  // for a test
)

// A browser is a Chromium of its own, with nothing remembered.
type browser struct {
	t        *testing.T
	ctx      context.Context
	pictures string // the directory for screenshots

	mu       sync.Mutex
	troubles []string // what pages complained about
}

func newBrowser(t *testing.T) *browser {
	path := chromium(t)
	profile, err := os.MkdirTemp("", "e2e-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(profile) })

	ctx, cancel := context.WithTimeout(context.Background(), whole)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.Headless,
		chromedp.NoSandbox, // a container's root has none; the only pages are ours
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx), "Chromium does not start")

	b := &browser{t: t, ctx: ctx, pictures: os.Getenv("SCREENSHOTS")}
	if b.pictures == "" {
		b.pictures = t.TempDir()
	}
	require.NoError(t, os.MkdirAll(b.pictures, 0o777))
	return b
}

// chromium finds the browser, or ends the test.
func chromium(t *testing.T) string {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const missing = "there is no chromium or google-chrome on the PATH; on Debian: apt-get install chromium"
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// check fails the test if a page had an uncaught error or broke its policy.
func (b *browser) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b.t, b.troubles)
}

func (b *browser) trouble(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles = append(b.troubles, s)
}

// A tab is one page of an example.
type tab struct {
	t     *testing.T
	b     *browser
	ctx   context.Context
	close func()
}

// open opens a page in another tab.
func (b *browser) open(url string) *tab {
	b.t.Helper()
	return b.tab(url)
}

// stranger opens a page where nothing is shared with the other tabs.
func (b *browser) stranger(url string) *tab {
	b.t.Helper()
	return b.tab(url, chromedp.WithNewBrowserContext())
}

func (b *browser) tab(url string, o ...chromedp.ContextOption) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, o...)
	b.t.Cleanup(cancel)
	p := &tab{b.t, b, ctx, cancel}
	require.NoError(b.t, chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.trouble(fmt.Sprintf("%+v", *e.ExceptionDetails))
		case *log.EventEntryAdded:
			if e.Entry.Source == log.EntrySourceSecurity {
				b.trouble(e.Entry.Text)
			}
		}
	}))
	p.do(desktop, chromedp.Navigate(url))
	return p
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	require.NoError(p.t, chromedp.Do(ctx, actions...))
}

// get does something that has a result.
func get[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	require.NoError(p.t, err)
	return v
}

// command is an action that chromedp has no name for.
func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// run evaluates a statement.
func (p *tab) run(js string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void]("void (() => {" + js + "})()"))
}

// is evaluates a condition.
func (p *tab) is(condition string) bool {
	p.t.Helper()
	return get(p, chromedp.Evaluate[bool](condition))
}

// until waits for a condition. It is the page that looks again and again: its
// policy forbids what chromedp.Poll does, to make functions of strings.
func (p *tab) until(condition string) {
	p.t.Helper()
	p.untilAfter(condition, 1)
}

// untilAfter waits so many times as long.
func (p *tab) untilAfter(condition string, times int) {
	p.t.Helper()
	js := fmt.Sprintf(`new Promise((resolve) => {
		const end = performance.now() + %d;
		const look = () => {
			if (%s) resolve("");
			else if (performance.now() > end) resolve(document.title + "\n" + document.body.innerText);
			else setTimeout(look, 20);
		};
		look();
	})`, (patience * 2 / 3).Milliseconds(), condition)
	var instead string
	for range times {
		if instead = get(p, chromedp.Evaluate[string](js, chromedp.EvalAwaitPromise)); instead == "" {
			break
		}
	}
	if instead != "" {
		p.save("failure")
		require.FailNow(p.t, "the page did not get there", "condition: %s\npage: %s", condition, instead)
	}
}

// save takes a screenshot.
func (p *tab) save(name string) {
	p.t.Helper()
	png := get(p, chromedp.CaptureScreenshot())
	require.NoError(p.t, os.WriteFile(filepath.Join(p.b.pictures, name+".png"), png, 0o666))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// press presses Enter or Escape. Unlike chromedp.KeyEvent, it leaves it to the
// browser whether a character follows, so that the page can prevent it.
func (p *tab) press(key string) {
	p.t.Helper()
	e := input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Code: key}
	switch key {
	case "Enter":
		e.WindowsVirtualKeyCode, e.Text = 13, "\r"
	case "Escape":
		e.WindowsVirtualKeyCode = 27
	}
	p.do(command(input.DispatchKeyEvent, e))
	e.Type, e.Text = input.DispatchKeyEventTypeKeyUp, ""
	p.do(command(input.DispatchKeyEvent, e))
}

// enter types into whatever has the focus, as an input method would.
func (p *tab) enter(text string) {
	p.t.Helper()
	p.do(command(input.InsertText, input.InsertTextParams{Text: text}))
}

// try asks to be let in with this name.
func (p *tab) try(name string) {
	p.t.Helper()
	p.until(atDoor)
	p.do(chromedp.Focus(chromedp.CSS("#name")))
	p.run(`document.getElementById("name").select()`) // a name from before is replaced
	p.enter(name)
	p.press("Enter")
}

// join goes in with this name.
func (p *tab) join(name string) {
	p.t.Helper()
	p.try(name)
	p.until(connected)
	p.until(shows("#people", name))
}

// say writes a message and sends it with Enter.
func (p *tab) say(text string) {
	p.t.Helper()
	p.do(chromedp.Focus(chromedp.CSS("#text")))
	p.enter(text)
	p.press("Enter")
	p.until(`document.getElementById("text").value === ""`)
}

// quote makes a string literal of JavaScript.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return string(b)
}
