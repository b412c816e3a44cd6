package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Conditions in the page with the quotes.
const (
	allLive  = `document.querySelectorAll("article.live").length === 4`
	noneLive = `document.querySelectorAll("article.live").length === 0`
	// Every pane has prices, a latency, and the bytes that a quote has cost.
	allMove = `["poll", "long", "sse", "ws"].every((kind) => {
		const text = (s) => document.querySelector("article[data-kind=" + kind + "] " + s).textContent;
		return [...document.querySelectorAll("article[data-kind=" + kind + "] .quotes b")].every((b) => Number(b.textContent) > 0)
			&& / m?s$/.test(text(".latency")) && / k?B$/.test(text(".bytes")) && figure(kind) > 0;
	})`
	// All charts have four lines.
	allDrawn = `document.querySelectorAll("figure path[d^=M][class^=line]").length === 12
		&& [...document.querySelectorAll("figure .value")].every((e) => e.textContent !== "")`
	chartsFit = `visualViewport.scale === 1 && document.documentElement.scrollWidth <= innerWidth
		&& [...document.querySelectorAll("svg text, article *, header *")].map((e) => e.getBoundingClientRect())
			.every((r) => r.left >= 0 && r.right <= innerWidth)`
)

// figures defines what conditions ask for.
const figures = `globalThis.figure = (kind) =>
	Number(document.querySelector("article[data-kind=" + kind + "] .requests").textContent.replaceAll(",", ""))`

// TestPush looks at quotes that come in four ways, until the server dies and
// comes back.
func TestPush(t *testing.T) {
	b := newBrowser(t)
	s := newServer(t, "push")
	s.start()
	p := b.open(s.url)
	p.run(figures)
	p.until(allLive + " && " + allMove)

	// Of those who poll the requests go on; of the others there was one.
	p.until(`figure("poll") > 8 && figure("long") > figure("poll")`)
	require.True(t, p.is(`figure("sse") === 1 && figure("ws") === 1`))
	p.until(allDrawn)
	p.until(`document.getElementById("clock").textContent === "The clocks of server and page agree."`)

	// A quote moves something on the page, whichever way it has come.
	for _, kind := range []string{"poll", "long", "sse", "ws"} {
		prices := fmt.Sprintf(`document.querySelector("article[data-kind=%s] .quotes").textContent`, kind)
		p.run("globalThis.before = " + prices)
		p.until(prices + " !== globalThis.before")
	}
	p.quotePictures("push", allLive)

	// Nothing is asked for while the page pauses.
	p.click("#pause")
	p.until(noneLive + ` && document.querySelector(".state").textContent === "Paused"`)
	p.picture("push-paused", desktop, "light", chartsFit)
	p.click("#pause")
	p.until(allLive)

	s.kill()
	p.until(noneLive)
	p.picture("push-lost", desktop, "dark", chartsFit)
	p.run(`globalThis.ago = Object.fromEntries(["poll", "long", "sse", "ws"].map((k) => [k, figure(k)]))`)
	s.start()
	p.until(allLive)
	// The counting goes on where it was.
	p.until(`["poll", "long", "sse", "ws"].every((k) => figure(k) > ago[k])`)

	s.terminate()
	p.until(noneLive)
	s.start()
	p.until(allLive)
	b.check()
}

// quotePictures takes screenshots of all sizes, in light and dark, charts included.
func (p *tab) quotePictures(name, condition string) {
	p.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		p.picture(name+"-desktop-"+scheme, desktop, scheme, chartsFit, condition)
		p.picture(name+"-phone-"+scheme, phone, scheme, chartsFit, condition)
		p.run(`document.getElementById("charts").scrollIntoView()`)
		p.picture(name+"-phone-charts-"+scheme, phone, scheme, condition)
		p.run(`scrollTo(0, 0)`)
	}
	p.do(desktop)
}
