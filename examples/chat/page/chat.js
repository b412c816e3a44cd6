// The page's half of the conversation; room.go has the server's. What others
// wrote enters the document as text and in no other way: see element.

const $ = (id) => document.getElementById(id);
const room = $("room"), log = $("log"), text = $("text");

/* What the page knows. */

const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");
let name = "";          // ours
let here = new Set();   // the names of those who are here, ours too
let to = "";            // whom we write to; "" is everyone
let unanswered = [];    // what we said and have no answer to, oldest first
let unread = 0;

/* The connection. */

const patience = 10_000; // milliseconds that the server may take to answer
const steady = 5_000;    // a connection that lasted so long was a good one
const firstDelay = 500, longestDelay = 15_000;

let socket = null;      // the one that counts: others are left to end unheard
let joined = false;     // and it has been welcomed
let wanted = false;     // we were in, and want to be in again
let attempts = 0;       // since the last good connection
let since = 0;          // when this one became one
let watchdog, redial, dialAt;

const closeNames = {
  1000: "normal closure", 1001: "going away", 1002: "protocol error", 1003: "unsupported data", 1005: "no code given",
  1006: "connection lost", 1007: "invalid data", 1008: "policy violation", 1009: "message too big", 1011: "internal error",
  1012: "service restart", 1013: "try again later",
};

const explain = (code, reason) => [code, closeNames[code]].filter(Boolean).join(" ") + (reason ? `: ${reason}` : "");

function connect() {
  clearInterval(redial);
  const url = new URL("chat", location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const ws = socket = new WebSocket(url);
  ws.onopen = () => ws.send(JSON.stringify({ type: "join", name, key }));
  ws.onmessage = (e) => { if (ws === socket) receive(JSON.parse(e.data)); };
  ws.onclose = (e) => { if (ws === socket) ended(e.code, e.reason); };
  watch();
  showState();
}

// watch gives up on a connection that is silent when it should not be: the
// browser would wait for minutes.
function watch() {
  clearTimeout(watchdog);
  if (joined && unanswered.length === 0) return;
  watchdog = setTimeout(() => {
    hangUp();
    ended(1006, "the server does not answer");
  }, patience);
}

function hangUp() {
  clearTimeout(watchdog);
  const ws = socket;
  socket = null;
  ws?.close(1000);
}

function ended(code, reason) {
  const why = explain(code, reason);
  clearTimeout(watchdog);
  socket = null;
  if (joined) {
    joined = false;
    if (performance.now() - since > steady) attempts = 0;
    note(`The connection has ended: ${why}`, "bad");
    for (const m of unanswered) fail(m, "The connection was lost: it may not have arrived.");
    unanswered = [];
  }
  if (!wanted || code === 1000 || code >= 4000) { // we have not been in, or are not to come back
    goOut(reason ? `${sentence(reason)} (${code})` : `There is no connection: ${why}.`);
    return;
  }
  $("why").textContent = `${why}.`;
  waitAndConnect();
}

// waitAndConnect doubles the delay with every attempt, and makes it uncertain,
// so that not all pages come back at the same moment.
function waitAndConnect() {
  const delay = Math.min(longestDelay, firstDelay * 2 ** attempts++) * (0.5 + Math.random());
  dialAt = performance.now() + delay;
  clearInterval(redial);
  redial = setInterval(tick, 100);
  tick();
  showState();
}

function tick() {
  const left = Math.ceil((dialAt - performance.now()) / 1000);
  $("countdown").textContent = `Next attempt in ${Math.max(left, 0)} s.`;
  if (left <= 0) connect();
}

function connectNow() {
  if (wanted && !socket) connect();
}

/* What the server says. */

function receive(e) {
  switch (e.type) {
    case "welcome":
      welcome(e);
      break;
    case "joined":
      here.add(e.name);
      showPeople();
      note(`${isolate(e.name)} joined`);
      break;
    case "left":
      here.delete(e.name);
      showPeople();
      note(`${isolate(e.name)} left`);
      break;
    case "message":
      if (e.from === name) answered();
      showMessage(e);
      break;
    case "error":
      fail(answered(), sentence(e.text));
      break;
  }
}

function welcome(e) {
  name = e.name;
  remember(name);
  here = new Set(e.people);
  joined = true;
  since = performance.now();
  watch();
  note(wanted ? "Connected again" : `You joined as ${isolate(name)}`);
  if (!wanted) goIn();
  wanted = true;
  showState();
  showPeople();
}

// answered takes what the server has answered off the list: it answers in order.
function answered() {
  const m = unanswered.shift();
  watch();
  return m;
}

/* In and out. */

function goIn() {
  $("door").hidden = true;
  room.hidden = false;
  text.focus();
}

function goOut(why) {
  wanted = false;
  clearInterval(redial);
  setTo("");
  showMenu(false);
  room.hidden = true;
  $("door").hidden = false;
  $("enter").disabled = false;
  $("refusal").textContent = why;
  $("name").focus();
}

$("join").addEventListener("submit", (e) => {
  e.preventDefault();
  name = $("name").value;
  attempts = 0;
  $("refusal").textContent = "";
  $("enter").disabled = true;
  connect();
});

$("leave").addEventListener("click", () => {
  hangUp();
  joined = false;
  unanswered = [];
  note("You left");
  goOut("");
});

$("retry").addEventListener("click", connectNow);
addEventListener("online", connectNow);

// A browser may refuse to keep anything.
function remember(name) {
  try { localStorage.setItem("name", name); } catch {}
}
try { $("name").value = localStorage.getItem("name") ?? ""; } catch {}

/* What we say. */

function say(m) {
  unanswered.push(m);
  socket.send(JSON.stringify({ type: "say", ...m }));
  if (unanswered.length === 1) watch();
}

$("composer").addEventListener("submit", (e) => {
  e.preventDefault();
  if (!joined || text.value.trim() === "") return;
  say({ to, text: text.value });
  text.value = "";
  fit();
  scrollToEnd();
  text.focus();
});

text.addEventListener("keydown", (e) => {
  const composing = e.isComposing || e.keyCode === 229; // an input method's Enter only ends a word
  if (e.key === "Enter" && !e.shiftKey && !composing) {
    e.preventDefault();
    $("composer").requestSubmit();
  }
});
text.addEventListener("input", fit);

function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
}

// setTo chooses whom we write to: one person, or everyone.
function setTo(who) {
  to = who;
  const label = to ? `Message to ${isolate(to)} alone` : "Message to everyone";
  $("private").hidden = !to;
  $("to").textContent = to;
  text.placeholder = label;
  text.setAttribute("aria-label", label);
  showPeople();
}

function writeTo(who) {
  setTo(who);
  showMenu(false);
  text.focus();
}

$("public").addEventListener("click", () => writeTo(""));

/* What is seen. */

// element makes all elements: text is text, whatever it looks like.
function element(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children); // strings become text nodes
  return e;
}

// isolate keeps a name that is written from right to left from turning the
// words around it.
const isolate = (s) => `\u2068${s}\u2069`;

const sentence = (s) => s && `${s[0].toUpperCase()}${s.slice(1)}.`;

// tint gives every name a colour of its own, the same on every page.
function tint(e, name) {
  let hash = 0;
  for (const c of name) hash = Math.imul(hash ^ c.codePointAt(0), 0x9e3779b1);
  e.style.setProperty("--hue", (hash >>> 16) % 360);
  return e;
}

function avatar(name) {
  const e = tint(element("span", "avatar", [...name][0].toUpperCase()), name);
  e.setAttribute("aria-hidden", "true");
  return e;
}

function showState() {
  room.classList.toggle("offline", !joined);
  $("state").textContent = joined ? "Connected" : socket ? "Connecting…" : "Offline";
  $("lost").hidden = joined || !wanted;
  $("retry").disabled = socket !== null;
  if (socket) $("countdown").textContent = "Connecting…";
  $("send").disabled = !joined;
  showPeople();
}

function showPeople() {
  const n = joined ? here.size : 0;
  $("count").textContent = joined ? `${n} online` : "Offline";
  $("brief").textContent = joined ? n : "–";
  $("toggle").setAttribute("aria-label", joined ? `${n} online: show the people` : "Show the people");
  const others = [...here].filter((who) => who !== name).sort((a, b) => a.localeCompare(b));
  const focused = document.activeElement?.dataset.name;
  $("people").replaceChildren(...[name, ...others].filter(Boolean).map(personItem));
  if (focused) [...$("people").querySelectorAll("button")].find((b) => b.dataset.name === focused)?.focus();
}

function personItem(who) {
  const own = who === name;
  const e = element(own ? "div" : "button", "", avatar(who), element("bdi", "", who));
  if (own) {
    e.append(element("small", "", "you"));
  } else {
    e.dataset.name = who;
    e.title = `Write to ${isolate(who)} alone`;
    e.setAttribute("aria-pressed", who === to);
    e.addEventListener("click", () => writeTo(who === to ? "" : who));
  }
  return element("li", "", e);
}

function showMessage(m) {
  const own = m.from === name, last = log.lastElementChild;
  const when = new Date(m.time);
  const e = element("article", "message");
  const time = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = when.toISOString();
  time.title = when.toLocaleString();
  const about = element("div", "about");
  if (!own) {
    const author = tint(element("button", "author", element("bdi", "", m.from)), m.from);
    author.title = `Write to ${isolate(m.from)} alone`;
    author.addEventListener("click", () => writeTo(m.from));
    e.append(avatar(m.from));
    about.append(author);
  }
  if (m.to) about.append(element("span", "aim", own ? `only to ${isolate(m.to)}` : "only to you"));
  about.append(time);
  e.append(about, element("div", "text", m.text));
  e.classList.toggle("own", own);
  e.classList.toggle("private", Boolean(m.to));
  // Who goes on talking is not named again.
  Object.assign(e.dataset, { from: m.from, to: m.to ?? "", time: m.time });
  const { from, to: aim, time: before } = last?.dataset ?? {};
  e.classList.toggle("more", from === m.from && aim === e.dataset.to && m.time - before < 300_000);
  append(e, !own);
}

// fail shows what did not arrive, and offers to say it again.
function fail(m, why) {
  if (!m) {
    note(why, "bad");
    return;
  }
  const again = element("button", "", "Send again");
  const e = element("article", "message own failed",
    element("div", "about", m.to ? `only to ${isolate(m.to)}` : ""),
    element("div", "text", m.text),
    element("div", "failure", why, again));
  again.addEventListener("click", () => {
    if (!joined) return;
    e.remove();
    say(m);
    text.focus();
  });
  append(e, false);
}

function note(s, className = "") {
  append(element("p", `note ${className}`, s), false);
}

// append adds to the log. Who reads further up is not moved, but told.
function append(e, news) {
  const stay = !following();
  log.append(e);
  while (log.childElementCount > 500) log.firstElementChild.remove();
  if (!stay) scrollToEnd();
  if (news && (stay || document.hidden)) {
    unread++;
    showUnread();
  }
}

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 60;

// following tells whether the end of the log is being read. A log that becomes
// smaller, for a keyboard or a longer text, does not change that.
let followed = true, size = "";
const measure = () => `${log.clientWidth}x${log.clientHeight}`;

function following() {
  if (size === measure()) followed = atEnd();
  return followed;
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
  followed = true;
}

new ResizeObserver(() => {
  if (followed) scrollToEnd();
  size = measure();
}).observe(log);

function showUnread() {
  if (!document.hidden && atEnd()) unread = 0;
  document.title = unread ? `(${unread}) Chat` : "Chat";
  $("unread").hidden = unread === 0 || atEnd();
  $("unread").textContent = unread === 1 ? "1 new message ↓" : `${unread} new messages ↓`;
}

log.addEventListener("scroll", () => {
  following();
  showUnread();
});
$("unread").addEventListener("click", () => { scrollToEnd(); text.focus(); });
document.addEventListener("visibilitychange", () => {
  showUnread();
  if (!document.hidden) connectNow();
});

// The list of people, where there is no room for it.
function showMenu(open) {
  room.classList.toggle("open", open);
  $("toggle").setAttribute("aria-expanded", open);
}
$("toggle").addEventListener("click", () => showMenu(!room.classList.contains("open")));
$("shade").addEventListener("click", () => showMenu(false));
document.addEventListener("keydown", (e) => {
  if (e.key !== "Escape" || e.isComposing) return;
  if (room.classList.contains("open")) {
    showMenu(false);
    $("toggle").focus();
  } else if (to) {
    writeTo("");
  }
});
