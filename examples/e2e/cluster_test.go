package e2e

import (
	"fmt"
	"net"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// pane is a selector in one of the three panes.
func pane(n int, rest string) string {
	return fmt.Sprintf(`.pane[data-server="%d"] %s`, n, rest)
}

// isIn is true when a pane's server is reached, and reaches the other ones.
func isIn(n int) string {
	return fmt.Sprintf(`document.querySelector(%q).textContent === "Connected"`, pane(n, ".state"))
}

// gaps is how many lines say that messages may be missing.
func gaps(p *tab, n int) int {
	return get(p, chromedp.Evaluate[int](fmt.Sprintf(`document.querySelectorAll(%q).length`, pane(n, ".gap"))))
}

// type writes a message in a pane, and sends it.
func (p *tab) sayIn(n int, text string) {
	p.t.Helper()
	p.click(pane(n, "input"))
	p.enter(text)
	p.press("Enter")
	p.until(fmt.Sprintf(`document.querySelector(%q).value === ""`, pane(n, "input")))
}

func (p *tab) seeIn(text string, panes ...int) {
	p.t.Helper()
	for _, n := range panes {
		p.until(shows(pane(n, ".message .text"), text))
	}
}

// TestCluster kills a server, and Redis, and sees both recover.
func TestCluster(t *testing.T) {
	b := newBrowser(t)
	addr := freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	s := newProgram(t, "cluster", addr, "-port", port)
	s.start()
	t.Cleanup(s.terminate) // it has processes of its own to end

	p := b.open(s.url)
	for n := 1; n <= 3; n++ {
		p.until(isIn(n))
		for _, who := range []string{"Ada", "Ben", "Cleo"} {
			p.until(shows(pane(n, ".people li:not(.ghost)"), who))
		}
	}
	p.sayIn(1, "Is everybody here? Grüße!")
	p.seeIn("Is everybody here? Grüße!", 1, 2, 3)
	p.sayIn(2, "I am.")
	p.sayIn(3, `<img src=x onerror="window.broken=true">`)
	p.seeIn("I am.", 1, 2, 3)
	p.seeIn(`<img src=x`, 1, 2, 3)
	p.until(fmt.Sprintf(`document.querySelectorAll(%q).length === 3`, pane(1, ".reach i.there")))
	p.pictures("cluster-well")

	p.click(pane(2, ".power"))
	p.until(shows(pane(2, ".note.bad"), "The connection was lost: 1006"))
	p.until(shows(pane(2, ".state"), "Next attempt in"))
	p.until(shows(pane(1, ".people li.ghost"), "Ben"))
	p.until(shows("#story", "Server 2 is dead"))
	p.sayIn(1, "Ben?")
	p.seeIn("Ben?", 1, 3)
	p.pictures("cluster-server-dead")
	p.click(pane(2, ".power"))
	p.until(isIn(2))
	p.until(shows(pane(2, ".note"), "Connected again"))
	require.Equal(t, 1, gaps(p, 2))
	require.False(t, p.is(shows(pane(2, ".message .text"), "Ben?")), "nobody keeps messages")
	p.sayIn(3, "Welcome back!")
	p.seeIn("Welcome back!", 1, 2, 3)

	before := []int{0, gaps(p, 1), gaps(p, 2), gaps(p, 3)}
	p.click("#redis .power")
	for n := 1; n <= 3; n++ {
		p.until(shows(pane(n, ".state"), "Alone, without Redis"))
	}
	p.sayIn(1, "Only here.")
	p.seeIn("Only here.", 1)
	p.sayIn(3, "Only there.")
	p.seeIn("Only there.", 3)
	require.False(t, p.is(shows(pane(3, ".message .text"), "Only here.")))
	p.until(shows("#redis .power", "Start"))
	p.pictures("cluster-redis-dead")
	p.click("#redis .power")
	for n := 1; n <= 3; n++ {
		p.until(isIn(n))
		p.until(fmt.Sprintf(`document.querySelectorAll(%q).length > %d`, pane(n, ".gap"), before[n]))
	}
	p.seeIn("Only here.", 1, 2, 3) // it has waited
	p.seeIn("Only there.", 1, 2, 3)
	p.until(shows(pane(2, ".message .late"), "s late"))
	p.sayIn(2, "Together again.")
	p.seeIn("Together again.", 1, 2, 3)
	p.pictures("cluster-recovered")

	p.click("#auto")
	p.seeIn("Message 4", 1, 2, 3)
	p.click("#auto")

	b.check()
	require.True(t, p.is(`window.broken === undefined && document.querySelectorAll(".log img").length === 0`))
}
