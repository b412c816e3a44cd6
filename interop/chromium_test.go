package interop

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// newChromium starts a headless Chromium and returns it with a page of h.
func newChromium(t *testing.T, h *host) *peer {
	ctx := startChromium(t)
	h.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(`<!DOCTYPE html><title>peer</title><script type="module">
			import { web } from "/web.js";
			window.order = web((r) => window.report(JSON.stringify(r)));
		</script>`))
	})
	h.mux.HandleFunc("GET /web.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "peers/web.js")
	})

	p := &peer{name: "chromium", silent: true, picky: true, packs: true, eight: true, links: map[int]chan report{}}
	p.send = func(o order) error {
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void]("void order("+string(b)+")"))
	}
	require.NoError(t, chromedp.Listen(ctx, func(e any) {
		if e, ok := e.(*runtime.EventBindingCalled); ok && e.Name == "report" {
			var r report
			if json.Unmarshal([]byte(e.Payload), &r) == nil {
				p.report(r)
			}
		}
	}))
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	require.NoError(t, chromedp.Do(first,
		command(runtime.AddBinding, runtime.AddBindingParams{Name: "report"}),
		chromedp.Navigate(h.url("http", "/")),
	))
	p.leave = func() error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return chromedp.Do(ctx, chromedp.Navigate(h.url("http", "/nowhere")))
	}
	agent, err := chromedp.Run(first, chromedp.Evaluate[string]("navigator.userAgent"))
	require.NoError(t, err)
	t.Log(agent)
	return p
}

// startChromium returns the context of a browser with nothing remembered.
func startChromium(t *testing.T) context.Context {
	path := findChromium(t)
	profile, err := os.MkdirTemp("", "interop-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(profile) })
	ctx, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.UserDataDir(profile),
		chromedp.Headless,
		chromedp.NoSandbox, // a container's root has none; the only page is ours
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-back-forward-cache", true), // a page that is left is gone
	)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		end, stop := context.WithTimeout(ctx, patience)
		defer stop()
		chromedp.Cancel(end) // returns when it has ended
		cancel()
	})
	require.NoError(t, chromedp.Do(ctx), "Chromium does not start")
	return ctx
}

func findChromium(t *testing.T) string {
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "there is no chromium or google-chrome on the PATH; on Debian: apt-get install chromium")
	return ""
}

// command is an action that chromedp has no name for.
func command[P any](c cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}
