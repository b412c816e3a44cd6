package e2e

import (
	"fmt"
	"testing"
)

// gateway is a condition on the text of a gateway's card.
func gateway(n int, text string) string {
	return fmt.Sprintf(`document.querySelectorAll("#gateways li")[%d]?.innerText.includes(%s)`, n-1, quote(text))
}

// all is the same of all five.
func all(text string) string {
	js := "true"
	for n := 1; n <= 5; n++ {
		js += "&&" + gateway(n, text)
	}
	return js
}

// edit gives a key a value, as a user does.
func (p *tab) edit(key, value string) {
	p.t.Helper()
	label := quote("Value of " + key)
	p.run(`const e = document.querySelector('[aria-label=` + label + `]'); e.focus(); e.select()`)
	p.enter(value)
	p.press("Enter")
	p.until(`(e => e.value === ` + quote(value) + ` && !e.classList.contains("dirty"))(document.querySelector('[aria-label=` + label + `]'))`)
}

// TestConfigsync edits a configuration while servers are killed: the gateways
// move to the other one, and apply the keys that have changed and no others.
func TestConfigsync(t *testing.T) {
	b := newBrowser(t)
	url := launch(t, "configsync", "-addr", "localhost:0", "-a", "localhost:0", "-b", "localhost:0")
	wire := newWire(t, url)
	p := b.open(wire.url)
	p.until(shows("#verdict", "All 5 gateways have version 10"))
	p.until(gateway(1, "on server A") + "&&" + gateway(2, "on server B") + "&&" + all("10 applied"))
	p.until(shows("#servers li", "3 gateways") + "&&" + shows("#servers li", "2 gateways"))
	p.pictures("config-start")

	p.edit("rate.limit", "250/s")
	p.until(shows("#verdict", "All 5 gateways have version 11"))
	p.until(all("rate.limit 100/s → 250/s") + "&&" + all("11 applied"))

	// A server is killed: its gateways go to the other one, and nothing is applied again.
	p.click("#kill-A")
	p.until(shows("#servers li", "dead"))
	p.pictures("config-killed")
	p.until(all("on server B") + "&&" + gateway(1, "new session") + "&&" + all("11 applied"))
	p.edit("log.level", "debug")
	p.until(all("log.level info → debug") + "&&" + all("12 applied") + "&&" + all("v12"))
	p.pictures("config-moved")

	// Both are dead, and things change: the gateways are behind until one is back.
	p.click("#kill-B")
	p.until(`document.querySelectorAll("#servers .dead").length === 2`)
	p.edit("log.level", "warn")
	p.edit("log.level", "error")
	p.click(`[title="Delete retry.max"]`)
	p.until(shows("#verdict", "0 of 5 gateways have version 15"))
	p.pictures("config-dead")
	p.click("#start-A")
	p.until(shows("#verdict", "All 5 gateways have version 15"))
	p.until(all("on server A") + "&&" + all("log.level debug → error; retry.max 3") + "&&" + all("14 applied"))

	// Connections are cut: the sessions go on.
	p.until(`!document.getElementById("cut-A").disabled`)
	p.run(`setTimeout(() => document.getElementById("cut-A").click(), 1500)`) // they were good ones then
	p.until(all("session resumed"))
	p.until(all("14 applied"))

	// The page's own connection is cut, and what is asked for meanwhile is done.
	wire.cut()
	p.until(shows("#state", "Next attempt in"))
	p.run(`document.getElementById("new-key").value = "added.offline"; document.querySelector("#add button").click()`)
	p.run(`document.getElementById("start-B").click()`)
	wire.mend()
	p.until(shows("#state", "Connected"))
	p.until(shows("#keys .key", "added.offline") + `&& document.querySelectorAll("#servers .dead").length === 0`)
	p.until(shows("#verdict", "All 5 gateways have version 16") + "&&" + all("added.offline empty") + "&&" + all("15 applied"))
	p.pictures("config-end")

	// What is refused is said.
	p.run(`document.getElementById("new-key").value = "ok"; document.getElementById("new-value").value = "x".repeat(300); document.querySelector("#add button").click()`)
	p.until(shows("#refusal", "at most 256 bytes"))
	b.check()
}
