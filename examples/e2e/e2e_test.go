package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Conditions in the page.
const (
	connected = `document.getElementById("state").textContent === "Connected" && document.getElementById("lost").hidden`
	lost      = `!document.getElementById("lost").hidden && document.getElementById("send").disabled`
	atDoor    = `!document.getElementById("door").hidden && document.getElementById("room").hidden`
	atEnd     = `(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight < 60)(document.getElementById("log"))`
	calm      = `document.getAnimations().length === 0`
	fits      = fitsWide + ` && document.documentElement.scrollHeight <= innerHeight`
	fitsWide  = `visualViewport.scale === 1 && document.documentElement.scrollWidth <= innerWidth
		&& [...document.querySelectorAll("button, input, textarea, a, td, dd, h1, h2")].filter((e) => e.checkVisibility({visibilityProperty: true}))
			.map((e) => e.getBoundingClientRect()).every((r) => r.left >= 0 && r.right <= innerWidth)`
)

func online(n int) string {
	return fmt.Sprintf(`document.getElementById("count").textContent === "%d online"`, n)
}

// shows is true when an element that the selector finds has this text in it.
func shows(selector, text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.textContent.includes(%s))`, selector, quote(text))
}

// TestChat is an evening in the chat, with its accidents.
func TestChat(t *testing.T) {
	b := newBrowser(t)
	s := newServer(t, "chat")
	s.start()

	ana, ben := arrive(b, s)
	talk(ana, ben)
	zoe := meetStranger(b, s)
	for _, p := range []*tab{ana, ben, zoe} {
		p.until(online(3))
	}
	whisper(ana, ben, zoe)
	look(ana, ben, zoe)
	scroll(ana, ben)
	miss(ana, zoe)
	crash(s, ana, ben)
	restart(s, ana, ben)

	ben.close()
	ana.until(online(1))

	b.check()
	// Were the page ever to take text for HTML, the browser would refuse.
	require.True(t, ana.is(`(() => { try { document.body.innerHTML = "<i>"; return false } catch { return true } })()`))
}

// arrive lets two people in: the count follows them in and out.
func arrive(b *browser, s *server) (ana, ben *tab) {
	ana = b.open(s.url)
	ana.until(atDoor)
	ana.picture("door", desktop, "light", fits)
	ana.join("Ana")
	ana.until(online(1))
	ben = b.open(s.url)
	ben.join("Ben")
	ben.until(online(2))
	ana.until(online(2))
	ana.until(shows(".note", "joined"))
	ben.click("#leave")
	ben.until(atDoor)
	ana.until(online(1))
	ana.until(shows(".note", "left"))
	ben.join("Ben")
	ana.until(online(2))
	return ana, ben
}

// talk exchanges messages in several scripts, and one that looks like HTML.
func talk(ana, ben *tab) {
	const greeting, answer = "Grüße, 世界 👋🏽", "שלום, Ana — здравствуй!"
	ana.say(greeting)
	ben.until(shows(".message:not(.own) .text", greeting))
	ana.until(shows(".message.own .text", greeting))
	ben.say(answer)
	ana.until(shows(".message:not(.own) .text", answer))

	const html = `<img src=x onerror="window.broken=true"><b>bold</b>`
	ben.say(html)
	for _, p := range []*tab{ana, ben} {
		p.until(shows(".message .text", html))
		p.until(`document.querySelectorAll("#log img, #log b, #log script").length === 0 && window.broken === undefined`)
	}
}

// meetStranger lets a third one in, who wants a name that is taken.
func meetStranger(b *browser, s *server) *tab {
	zoe := b.stranger(s.url)
	zoe.try("ANA")
	zoe.until(shows("#refusal", "Somebody here has that name already. (4001)"))
	zoe.picture("door-refused", phone, "dark", fits)
	zoe.join("Zoë <3")
	return zoe
}

// whisper sends a private message, which the stranger does not see.
func whisper(ana, ben, zoe *tab) {
	ana.click(`#people button[data-name="Ben"]`)
	ana.until(`document.activeElement.id === "text" && document.getElementById("to").textContent === "Ben"`)
	ana.picture("desktop-private", desktop, "light", fits)
	ana.say("Only you shall know: the cake is in the oven.")
	ben.until(shows(".message.private .text", "the cake"))
	ana.until(shows(".message.private.own .text", "the cake"))
	ana.press("Escape")
	ana.until(`document.getElementById("private").hidden`)
	ana.say("Good evening, Zoë!")
	zoe.until(shows(".message .text", "Good evening, Zoë!"))
	require.False(zoe.t, zoe.is(shows("body", "the cake")), "a private message reached somebody else")
}

// look takes pictures of a conversation.
func look(ana, ben, zoe *tab) {
	zoe.say("Hello Ana, hello Ben. Sorry I'm late: the train stood in a field for an hour.")
	zoe.say("Is there any cake?")
	ben.say("I couldn't possibly comment. 🙂")
	for _, p := range []*tab{ana, ben, zoe} {
		p.until(shows(".message .text", "possibly comment"))
	}
	ana.picture("desktop-light", desktop, "light", fits)
	ana.picture("desktop-dark", desktop, "dark", fits)
	ben.picture("phone-light", phone, "light", fits)
	ben.picture("phone-dark", phone, "dark", fits)
	ben.click("#toggle")
	ben.picture("phone-people", phone, "light", fits)
	ben.press("Escape")
	ben.until(`!document.getElementById("room").classList.contains("open")`)
}

// scroll reads further up: there one is told of news, and not moved.
func scroll(ana, ben *tab) {
	ben.say(strings.Repeat("And another line.\n", 80))
	ana.until(shows(".message .text", "And another line.") + "&&" + atEnd)
	ana.run(`document.getElementById("log").scrollTop = 0`)
	ana.until("!" + atEnd)
	ben.say("Are you reading?")
	ana.until(shows("#unread:not([hidden])", "1 new message") + ` && document.title === "(1) Chat" && !` + atEnd)
	ana.picture("desktop-unread", desktop, "dark", fits)
	ana.click("#unread")
	ana.until(atEnd + ` && document.getElementById("unread").hidden && document.title === "Chat"`)
}

// miss writes to somebody who has gone.
func miss(ana, zoe *tab) {
	ana.click(`#people button[data-name="Zoë <3"]`)
	zoe.close()
	ana.until(online(2))
	ana.say("Good night!")
	ana.until(shows(".message.failed", "Nobody here has that name."))
	ana.picture("desktop-failed", desktop, "dark", fits)
	ana.press("Escape")
	ana.until(`document.getElementById("private").hidden`)
}

// crash kills the server and starts it again. The pages say so and come back,
// and what somebody was about to say is still there.
func crash(s *server, ana, ben *tab) {
	ana.enter("Is anybody still")
	s.kill()
	for _, p := range []*tab{ana, ben} {
		p.until(lost)
		p.until(shows(".note", "The connection has ended: 1006"))
		p.until(atEnd)
	}
	ana.until(shows("#countdown", "Next attempt in"))
	ana.picture("desktop-lost", desktop, "light", fits)
	ben.picture("phone-lost", phone, "dark", fits)
	s.start()
	for _, p := range []*tab{ana, ben} {
		p.until(connected)
		p.until(online(2))
		p.until(shows(".note", "Connected again"))
	}
	ana.enter(" there? 世界")
	ana.press("Enter")
	ben.until(shows(".message:not(.own) .text", "Is anybody still there? 世界"))
	ben.say("Yes!")
	ana.until(shows(".message:not(.own) .text", "Yes!"))
}

// restart ends the server in good order, which it tells the pages.
func restart(s *server, ana, ben *tab) {
	s.terminate()
	for _, p := range []*tab{ana, ben} {
		p.until(lost)
		p.until(shows(".note", "The connection has ended: 1012 service restart: the chat will be back soon"))
	}
	s.start()
	for _, p := range []*tab{ana, ben} {
		p.until(connected)
		p.until(online(2))
	}
}

// Viewports.
var (
	desktop = chromedp.EmulateViewport(1280, 800)
	phone   = chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateMobile, chromedp.EmulateTouch)
)

// picture takes a screenshot, when the page is calm and these conditions hold.
func (p *tab) picture(name string, viewport chromedp.Action[chromedp.Void], scheme string, conditions ...string) {
	p.t.Helper()
	p.do(viewport, command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}))
	p.until(strings.Join(append(conditions, calm), "&&"))
	p.save(name)
}
