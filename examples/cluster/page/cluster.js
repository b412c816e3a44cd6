// The page: three panes, each connected to a server as a visitor of its own
// would be, and a connection to the program that runs them for the buttons.

const $ = (id) => document.getElementById(id);

const names = ["Ada", "Ben", "Cleo"];
const firstDelay = 250, longestDelay = 4_000; // milliseconds between two attempts to connect
const latency = 1_500; // a message that takes longer is late
const pace = 1_200;    // of messages by themselves

// element makes all elements: text is text, whatever it looks like.
function element(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children); // strings become text nodes
  return e;
}

// A backoff doubles the delay with every attempt, and makes it uncertain, so
// that not all pages come back at the same moment.
function backoff(attempts) {
  return Math.min(longestDelay, firstDelay * 2 ** attempts) * (0.5 + Math.random());
}

/* What was said here, by id: the panes that it has arrived in, and the element
that shows it. */

const said = new Map();

function arrived(id, number) {
  const m = said.get(id);
  if (!m) return;
  m.panes.add(number);
  showReach(m);
}

function showReach({ element, panes }) {
  if (!element) return;
  for (const i of element.children) i.classList.toggle("there", panes.has(Number(i.dataset.server)));
  const there = [...panes].sort().join(", ");
  element.setAttribute("aria-label", `arrived at server ${there}`);
  element.title = `Arrived at server ${there}`;
}

/* A pane is one visitor of one server. */

class Pane {
  socket = null;
  joined = false;
  people = new Set();
  known = new Set(); // who was there before the connection was lost
  alone = false;    // the server says that it cannot reach Redis
  since = null;     // when the connection was lost
  attempts = 0;
  unanswered = [];  // what we said and have not seen come back
  unit = { up: false };
  followed = true;  // the end of the log is being read
  size = "";        // of the log

  constructor(number) {
    this.number = number;
    this.user = names[number - 1];
    this.root = $("pane").content.cloneNode(true).firstElementChild;
    this.root.dataset.server = number;
    this.root.setAttribute("aria-label", `Server ${number}`);
    this.log = this.part(".log");
    this.input = this.part("input");
    this.part("h2").textContent = `Server ${number}`;
    this.log.setAttribute("aria-label", `Messages on server ${number}`);
    this.input.placeholder = `Message from ${this.user}`;
    this.input.setAttribute("aria-label", `Message from ${this.user}, on server ${number}`);
    this.part("form").addEventListener("submit", (e) => {
      e.preventDefault();
      const text = this.input.value.trim();
      if (text && this.say(text)) this.input.value = "";
    });
    this.log.addEventListener("scroll", () => this.following());
    new ResizeObserver(() => {
      if (this.followed) this.scrollToEnd();
      this.size = this.measure();
    }).observe(this.log);
    $("panes").append(this.root);
    this.show();
  }

  part(selector) { return this.root.querySelector(selector); }

  /* The connection. */

  connect() {
    clearInterval(this.redial);
    const ws = this.socket = new WebSocket(`ws://${this.unit.addr}/?user=${encodeURIComponent(this.user)}`);
    ws.onmessage = (e) => this.receive(JSON.parse(e.data));
    ws.onclose = (e) => this.ended(e.code, e.reason);
    this.show();
  }

  ended(code, reason) {
    this.socket = null;
    if (this.joined) {
      this.joined = false;
      this.since = performance.now();
      this.note(`The connection was lost: ${code}${reason && ` ${reason}`}`, "bad");
      for (const { text } of this.unanswered) this.note(`It may not have arrived: “${text}”`, "bad");
      this.unanswered = [];
    }
    this.alone = false;
    this.dialAt = performance.now() + backoff(this.attempts++);
    clearInterval(this.redial);
    this.redial = setInterval(() => {
      if (performance.now() >= this.dialAt) this.connect();
      else this.show();
    }, 100);
    showAll();
  }

  receive(e) {
    switch (e.type) {
      case "welcome":
        if (this.since !== null) {
          const seconds = Math.max(1, Math.round((performance.now() - this.since) / 1000));
          this.note(`Connected again, after ${seconds} s`);
          this.gap();
        }
        this.joined = true;
        this.attempts = 0;
        this.known = this.people; // a server that was just started hears of them in a moment
        this.people = new Set(e.users);
        break;
      case "joined":
        this.people.add(e.user);
        if (!this.known.delete(e.user) && this.joined) this.note(`${e.user} joined`);
        break;
      case "left":
        this.people.delete(e.user);
        this.note(`${e.user} left`);
        noticed(e.user);
        break;
      case "message":
        this.message(e);
        break;
      case "gap":
        this.gap();
        break;
      case "degraded":
        this.alone = true;
        this.note("Redis cannot be reached: messages stay on this server, and wait for the others", "bad");
        break;
      case "recovered":
        this.alone = false;
        this.note("Redis can be reached again");
        break;
    }
    showAll();
  }

  say(text) {
    if (!this.joined) return false;
    const id = crypto.randomUUID();
    said.set(id, { panes: new Set(), element: null });
    this.unanswered.push({ id, text });
    this.socket.send(JSON.stringify({ id, text }));
    return true;
  }

  /* What is seen. */

  message(m) {
    const own = m.user === this.user;
    const when = new Date(m.time), late = Date.now() - m.time;
    const time = element("time", "", when.toLocaleTimeString());
    time.dateTime = when.toISOString();
    const about = element("div", "about", element("span", "author", own ? "You" : m.user), time);
    if (late > latency) about.append(element("span", "late", `${Math.round(late / 1000)} s late`));
    const e = element("article", `message${own ? " own" : ""}`, about, element("div", "text", m.text));
    e.dataset.server = m.server;
    arrived(m.id, this.number);
    if (own && said.has(m.id) && this.unanswered.some((u) => u.id === m.id)) {
      this.unanswered = this.unanswered.filter((u) => u.id !== m.id);
      const reach = element("div", "reach", ...panes.map((p) => {
        const i = element("i", "", String(p.number));
        i.dataset.server = p.number;
        return i;
      }));
      reach.setAttribute("role", "img");
      const sent = said.get(m.id);
      sent.element = reach;
      showReach(sent);
      e.append(reach);
    }
    this.append(e);
  }

  note(text, className = "") { this.append(element("p", `note ${className}`, text)); }

  // gap is where something may have been lost. One is enough in a place.
  gap() {
    if (this.log.lastElementChild?.classList.contains("gap")) return;
    this.append(element("p", "gap", "Messages may be missing here"));
  }

  // append adds to the log. Who reads further up is not moved.
  append(e) {
    const { log } = this, follow = this.following();
    log.append(e);
    while (log.childElementCount > 200) log.firstElementChild.remove();
    if (follow) this.scrollToEnd();
  }

  // following tells whether the end of the log is being read. A log that becomes
  // smaller does not change that.
  following() {
    const { log } = this;
    if (this.size === this.measure()) this.followed = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    return this.followed;
  }

  measure() { return `${this.log.clientWidth}x${this.log.clientHeight}`; }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.followed = true;
  }

  show() {
    const { root, unit, joined } = this;
    root.classList.toggle("cut", !joined);
    root.classList.toggle("alone", joined && this.alone);
    this.part(".send").disabled = !joined;
    const left = Math.max(1, Math.ceil((this.dialAt - performance.now()) / 1000));
    this.part(".state").textContent = joined ? (this.alone ? "Alone, without Redis" : "Connected")
      : this.socket || !unit.addr ? "Connecting…" : `Next attempt in ${left} s`;
    // Whose server is dead is still listed, until the others have noticed.
    const people = [...this.people].sort().map((who) => {
      const number = names.indexOf(who) + 1;
      const li = element("li", "", who);
      if (number) li.dataset.server = number;
      if (number && !panes[number - 1]?.unit.up) {
        li.classList.add("ghost");
        li.title = `${who}’s server is dead: that will be noticed within 20 s`;
      }
      return li;
    });
    this.part(".people").replaceChildren(...people);
  }
}

const panes = [];
for (const n of [1, 2, 3]) panes.push(new Pane(n));

function showAll() {
  for (const p of panes) p.show();
  const reached = panes.filter((p) => p.joined && !p.alone).length;
  $("redis").querySelector(".state").textContent = `connects ${reached} of ${panes.length} servers`;
}

/* The story: what has just happened, and what to look at. */

function tell(text) { $("story").textContent = text; }

function happened(unit) {
  if (unit.trouble) return tell(unit.trouble);
  if (unit.name === "redis") {
    tell(unit.up
      ? "Redis is back. The servers reconnect within seconds and pass on what waited; what may be lost is marked."
      : "Redis is dead. Each server goes on by itself: what is said arrives there, and waits for the others.");
    return;
  }
  const who = names[unit.name - 1];
  tell(unit.up
    ? `Server ${unit.name} is back, and ${who} with it. What was said meanwhile it has not seen: its pane says so.`
    : `Server ${unit.name} is dead, and said no goodbye. The others list ${who} until it has been silent for 15 to 20 seconds.`);
}

// noticed is called when a server says that somebody has left.
function noticed(who) {
  const dead = panes.find((p) => p.user === who && p.unit.up === false);
  if (dead) tell(`The others have noticed that server ${dead.number} is dead: ${who} has left.`);
}

/* The program that runs all this, and its buttons. */

let control = null;
let units = [];
let lost = 0;

function connect() {
  const url = new URL("control", location);
  url.protocol = "ws:";
  control = new WebSocket(url);
  control.onmessage = (e) => know(JSON.parse(e.data));
  control.onclose = () => {
    control = null;
    tell("The program has ended. Start it again, and this page comes back.");
    for (const b of document.querySelectorAll(".power")) b.disabled = true;
    setTimeout(connect, backoff(lost++));
  };
}

// know takes over how the units are.
function know(now) {
  const before = units;
  if (before.length && before.some((u, i) => u.addr !== now[i].addr)) {
    location.reload(); // it is another run of the program
    return;
  }
  units = now;
  if (!before.length || lost) tell("Say something: the numbers below it light up where it has arrived. Then kill what you like.");
  lost = 0;
  for (const [i, unit] of units.entries()) {
    const pane = panes[i], root = pane?.root ?? $("redis");
    const power = root.querySelector(".power");
    root.classList.toggle("up", unit.up);
    root.classList.toggle("down", !unit.up);
    root.querySelector(".where").replaceChildren(
      ...pane ? [] : [element("span", "kind", unit.kind)],
      element("span", "addr", unit.addr),
      ...unit.pid ? [element("span", "pid", `pid ${unit.pid}`)] : [],
    );
    power.disabled = false;
    power.hidden = unit.fixed;
    power.textContent = unit.up ? "Kill" : "Start";
    power.setAttribute("aria-label", `${unit.up ? "Kill" : "Start"} ${pane ? `server ${unit.name}` : "Redis"}`);
    if (pane) {
      pane.unit = unit;
      if (!before.length) pane.connect();
    }
    if (before.length && (before[i].up !== unit.up || unit.trouble && before[i].trouble !== unit.trouble)) happened(unit);
  }
  showAll();
}

for (const b of document.querySelectorAll(".power")) {
  b.addEventListener("click", () => {
    const i = [...document.querySelectorAll(".power")].indexOf(b); // they are in the order of the units
    b.disabled = true;
    control?.send(JSON.stringify({ do: units[i].up ? "kill" : "start", name: units[i].name }));
  });
}

/* Messages by themselves. */

let spoken = 0, talking;

$("auto").querySelector("input").addEventListener("change", (e) => {
  clearInterval(talking);
  if (e.target.checked) talking = setInterval(() => {
    const pane = panes[spoken % panes.length];
    pane.say(`Message ${++spoken}`);
  }, pace);
});

connect();
