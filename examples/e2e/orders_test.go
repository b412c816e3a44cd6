package e2e

import "testing"

// TestOrders sends orders to a shop's page while the proxy breaks its
// connections: the dispatcher's page ends at 100 %, none twice.
func TestOrders(t *testing.T) {
	b := newBrowser(t)
	url := launch(t, "orders", "-addr", "localhost:0", "-proxy", "localhost:0")
	wire := newWire(t, url)
	desk := b.open(wire.url + "/dispatcher")
	desk.until(shows("#state", "Connected"))
	desk.until(shows("#verdict", "No order was sent yet."))
	desk.pictures("orders-empty")
	desk.click("#one") // waits for a shop
	desk.until(shows("#verdict", "1 of 1 order on the way"))

	shop := b.open(url + "/shop")
	shop.until(text("received", "1"))
	desk.until(shows("#verdict", "The order has arrived, none twice."))
	shop.click("#open button")
	shop.until(`document.querySelectorAll("#done .confirmed").length === 1`)
	desk.until(text("confirmed", "1"))

	// A thousand, while connections are cut, half-open and stalled.
	shop.click("#auto")
	desk.click("#thousand")
	desk.until(text("sent", "1,001"))
	desk.pictures("orders-under-way")
	shop.pictures("shop-under-way")
	shop.run(`document.getElementById("auto").click()`) // by hand again
	desk.untilAfter(shows("#verdict", "All 1,001 orders have arrived, none twice."), 3)
	desk.until(text("share", "100 %"))
	desk.until(text("twice", "0") + "&&" + text("missing", "0") + "&&" + text("arrived", "1,001"))
	shop.until(text("received", "1,001") + "&&" + text("twice", "0") + "&&" + text("missing", "0"))
	desk.until(`Number(document.getElementById("reconnects").textContent) > 0`)
	shop.until(`Number(document.getElementById("connections").textContent) > 1`)
	desk.pictures("orders-all")
	shop.pictures("shop-all")

	// The page is loaded again in the middle of more: it goes on where it was.
	desk.click(`#fault label:has([value=cut])`)
	desk.until(shows("#about", "at any byte"))
	desk.click("#thousand")
	desk.until(text("sent", "2,001"))
	shop.run("location.reload()")
	desk.untilAfter(shows("#verdict", "All 2,001 orders have arrived, none twice."), 3)
	shop.until(text("received", "2,001") + "&&" + text("twice", "0") + "&&" + text("missing", "0"))

	// The dispatcher's own connection is cut, and what is asked for meanwhile is done once.
	wire.cut()
	desk.until(shows("#state", "Next attempt in"))
	desk.run(`for (const id of ["one", "one", "one"]) document.getElementById(id).click()`)
	wire.mend()
	desk.until(shows("#state", "Connected"))
	desk.until(shows("#verdict", "All 2,004 orders have arrived, none twice."))

	// Whoever opens the shop elsewhere takes it over, with what is to be confirmed.
	desk.click(`#fault label:has([value=calm])`)
	desk.until(shows("#about", "left alone"))
	other := b.open(url + "/shop")
	shop.until(`!document.getElementById("moved").hidden`)
	shop.pictures("shop-moved")
	other.until(text("received", "2,004"))
	other.until(`document.querySelectorAll("#open button").length > 0`)
	other.click("#all")
	other.until(text("count", "0"))
	other.pictures("shop-idle")
	desk.until(text("confirmed", "2,004"))
	b.check()
}
