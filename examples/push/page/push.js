// The page's half: it follows the same feed in four ways, and shows what each
// costs. The server counts bytes and requests, see meter.go; the page, latency.

const $ = (id) => document.getElementById(id);
const page = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");

const span = 60_000;         // milliseconds that the charts show
const smooth = 3_000;        // those that a median in them is of
const recent = 30_000;       // and the median that stands for now
const pollEvery = 1000;
const patience = 35_000;     // for a word of the server, which has one every 25 s
const firstDelay = 400, longestDelay = 8_000;

/* The clocks. Times in quotes are the server's, in microseconds since 1970. */

// clock knows what to add to performance.now() for the server's time. The answer
// that came quickest tells best; a clock that may be right, because the
// difference is no larger than what is uncertain, is taken to be.
const clock = {
  samples: [], offset: performance.timeOrigin, error: Infinity,
  tell(sent, received, now) {
    this.samples.push({ offset: now / 1000 - (sent + received) / 2, error: (received - sent) / 2 });
    if (this.samples.length > 30) this.samples.shift();
    const best = this.samples.reduce((a, b) => (b.error < a.error ? b : a));
    const same = Math.abs(best.offset - performance.timeOrigin) <= best.error;
    this.offset = same ? performance.timeOrigin : best.offset;
    this.error = same ? 0 : best.error;
  },
  now() { return performance.now() + this.offset; },
};

/* The four ways. Each is given a feed, and returns how to stop it. */

const query = (feed) => `page=${page}&after=${feed.after()}`;

// ask polls, with a pause between an answer and the next request.
function ask(path, pause) {
  return (feed) => {
    const stop = new AbortController();
    let timer;
    const next = async () => {
      try {
        const answer = await fetch(`${path}?${query(feed)}`, { signal: stop.signal });
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        feed.got(await answer.json());
        timer = setTimeout(next, pause);
      } catch {
        if (!stop.signal.aborted) feed.failed();
      }
    };
    next();
    return () => { clearTimeout(timer); stop.abort(); };
  };
}

function listen(feed) {
  const events = new EventSource(`events?${query(feed)}`);
  events.onopen = () => feed.got([]);
  events.onmessage = (e) => feed.got([JSON.parse(e.data)]);
  events.onerror = () => feed.failed(); // it would try again, but not after each kind of failure
  return () => events.close();
}

function converse(feed) {
  const url = new URL(`ws?${query(feed)}`, location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  socket.onopen = () => feed.got([]);
  socket.onmessage = (e) => feed.got([JSON.parse(e.data)]);
  socket.onclose = () => feed.failed();
  return () => { socket.onclose = null; socket.close(); };
}

const kinds = [
  { id: "poll", path: "/poll", name: "Polling", how: "Asks every second", open: ask("poll", pollEvery) },
  { id: "long", path: "/long", name: "Long polling", how: "Asks, and waits for the next quote", open: ask("long", 0) },
  { id: "sse", path: "/events", name: "Server-Sent Events", how: "One answer, which does not end", open: listen },
  { id: "ws", path: "/ws", name: "WebSocket", how: "One socket, a frame for each quote", open: converse },
];

// A Feed is one kind at work.
class Feed {
  live = false;
  attempts = 0;
  count = 0;        // quotes that have come
  latest = {};      // symbol: time of its last quote
  last = 0;         // time of the last quote
  latencies = [];   // {x: when it came, y: milliseconds, middle: the median then}, of the last minute
  requests = [];    // {x, y}, of the last minute
  bytes = [];
  perQuote = NaN;   // bytes
  before = null;    // what was counted by servers that are no more

  constructor(kind) {
    Object.assign(this, kind);
    this.pane = new Pane(this);
  }

  // after is up to when nothing is missing. A socket that was slow may have got a
  // quote of one symbol before an older one of another.
  after() {
    if (!this.last) return Math.round((clock.now() - 3000) * 1000); // a few to begin with
    return this.id === "ws" ? Math.min(...Object.values(this.latest)) : this.last;
  }

  start() {
    this.stop();
    this.since = clock.now(); // what was published before has not been delayed on its way
    this.end = this.open(this);
    this.watch();
  }

  stop() {
    this.end?.();
    this.end = null;
    this.live = false;
    clearTimeout(this.redial);
    clearTimeout(this.watchdog);
  }

  watch() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.failed(), patience);
  }

  got(quotes) {
    const x = performance.now();
    for (const q of quotes) {
      this.last = Math.max(this.last, q.t);
      if (q.t <= (this.latest[q.s] ?? 0)) continue;
      this.latest[q.s] = q.t;
      this.count++;
      if (q.t / 1000 >= this.since) this.latencies.push({ x, y: x + clock.offset - q.t / 1000 });
      this.pane.price(q.s, q.p);
    }
    const newest = this.latencies.at(-1);
    if (newest?.x === x) newest.middle = this.median(smooth);
    this.live = true;
    this.attempts = 0;
    this.watch();
  }

  // failed tries again. The delay doubles with every attempt, and is uncertain,
  // so that not all pages come back at the same moment.
  failed() {
    this.stop();
    const delay = Math.min(longestDelay, firstDelay * 2 ** this.attempts++) * (0.5 + Math.random());
    this.redial = setTimeout(() => this.start(), delay);
  }

  // cost takes the server's figures, which begin again when the server does.
  cost(since, f) {
    const bytes = f.in + f.out;
    if (this.before?.since !== since) {
      const { total = { requests: 0, bytes: 0 } } = this;
      this.before = { since, ...total };
    }
    this.total = { requests: this.before.requests + f.requests, bytes: this.before.bytes + bytes };
    const x = performance.now();
    this.requests.push({ x, y: this.total.requests });
    this.bytes.push({ x, y: this.total.bytes });
    if (this.count) this.perQuote = this.total.bytes / this.count;
  }

  // median is that of the latencies of a time that has just passed.
  median(time) {
    const from = performance.now() - time;
    const values = this.latencies.filter((p) => p.x > from).map((p) => p.y).sort((a, b) => a - b);
    return values.length ? values[values.length >> 1] : NaN;
  }

  forget(before) {
    for (const points of [this.latencies, this.requests, this.bytes]) {
      while (points.length > 1 && points[1].x < before) points.shift();
    }
  }
}

/* What is seen. */

function element(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children); // strings become text nodes
  return e;
}

// show writes a text that may be there already.
function show(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

const nothing = "–";

function milliseconds(ms) {
  if (Number.isNaN(ms)) return nothing;
  if (ms >= 10_000) return `${(ms / 1000).toFixed(0)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 10 ? `${ms.toFixed(0)} ms` : `${Math.max(ms, 0).toFixed(1)} ms`;
}

function amount(bytes) {
  if (Number.isNaN(bytes)) return nothing;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(bytes >= 1e7 ? 0 : 1)} MB`;
  if (bytes >= 1e3) return `${(bytes / 1e3).toFixed(bytes >= 1e4 ? 0 : 1)} kB`;
  return `${bytes.toFixed(0)} B`;
}

const whole = (n) => n.toLocaleString("en");

class Pane {
  prices = new Map();

  constructor(kind) {
    this.state = element("p", "state", nothing);
    this.latency = element("p", "latency", nothing);
    this.requests = element("dd", "requests", nothing);
    this.perQuote = element("dd", "bytes", nothing);
    this.quotes = element("ul", "quotes");
    for (const s of ["ACME", "GLOBEX", "HOOLI", "INITECH"]) this.row(s);
    this.box = element("article", "",
      element("div", "top", element("h2", "", kind.name), this.state),
      element("p", "how", kind.how),
      this.latency, element("p", "", "median latency of 30 s"),
      element("dl", "",
        element("div", "", element("dt", "", "Requests"), this.requests),
        element("div", "", element("dt", "", "Bytes per quote"), this.perQuote)),
      this.quotes);
    this.box.dataset.kind = kind.id;
    $("panes").append(this.box);
  }

  row(symbol) {
    const row = element("li", "", element("span", "", symbol), element("b", "", nothing));
    this.prices.set(symbol, row);
    this.quotes.append(row);
    return row;
  }

  price(symbol, p) {
    const row = this.prices.get(symbol) ?? this.row(symbol);
    const before = Number(row.dataset.price ?? p);
    if (p !== before) row.className = p > before ? "up" : "down";
    row.dataset.price = p;
    show(row.lastChild, p.toFixed(2));
  }

  draw(feed) {
    this.box.classList.toggle("live", feed.live);
    show(this.state, feed.live ? "Live" : running ? "Offline" : "Paused");
    show(this.latency, milliseconds(feed.median(recent)));
    show(this.requests, feed.total ? whole(feed.total.requests) : nothing);
    show(this.perQuote, amount(feed.perQuote));
  }
}

function shape(parent, tag, attributes = {}, text = "") {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.textContent = text;
  parent.append(e);
  return e;
}

const margin = { left: 54, right: 58, top: 8, bottom: 22 };

// A Chart shows one figure of all kinds over the last minute.
class Chart {
  width = 0;
  height = 0;
  top = 0; // of its scale

  // o has points(feed); value(feed) for the right end, and its text; scale(max),
  // and the label of a tick; for a logarithmic one log and bottom; and whether to
  // show each point, and a line for the median.
  constructor(id, o) {
    Object.assign(this, o);
    this.svg = shape($(id), "svg", { role: "img", "aria-label": $(id).querySelector("h2").textContent });
    this.grid = shape(this.svg, "g");
    this.plot = shape(this.svg, "svg"); // clips
    this.lines = new Map(feeds.map((f) => {
      const g = shape(this.plot, "g", { "data-kind": f.id });
      return [f, {
        dots: shape(g, "path", { class: "dots" }),
        line: shape(g, "path", { class: id === "requests" && f.id === "sse" ? "line wide" : "line" }),
        value: shape(this.svg, "text", { class: "value", "data-kind": f.id }),
      }];
    }));
    new ResizeObserver(() => { this.fit(); this.draw(); }).observe(this.svg);
  }

  fit() {
    const { width, height } = this.svg.getBoundingClientRect();
    Object.assign(this, { width, height, top: 0 });
    this.w = Math.max(0, width - margin.left - margin.right);
    this.h = Math.max(0, height - margin.top - margin.bottom);
    for (const [k, v] of Object.entries({ x: margin.left, y: margin.top, width: this.w, height: this.h })) this.plot.setAttribute(k, v);
  }

  y(v) {
    const part = this.log
      ? Math.log(Math.max(v, this.bottom) / this.bottom) / Math.log(this.top / this.bottom)
      : v / this.top;
    return this.h * (1 - part);
  }

  // rule draws the axes anew, if the scale is another one.
  rule(max) {
    const { top, ticks } = this.scale(max);
    if (top === this.top) return;
    this.top = top;
    this.grid.replaceChildren();
    for (const v of ticks) {
      const y = margin.top + this.y(v);
      shape(this.grid, "line", { class: v === ticks[0] ? "axis" : "grid", x1: margin.left, x2: margin.left + this.w, y1: y, y2: y });
      shape(this.grid, "text", { x: margin.left - 7, y: y + 4, "text-anchor": "end" }, this.label(v));
    }
    for (const s of [60, 45, 30, 15, 0]) {
      const x = margin.left + this.w * (1 - (s * 1000) / span);
      shape(this.grid, "text", { x, y: this.height - 6, "text-anchor": "middle" }, s ? `−${s} s` : "now");
    }
  }

  draw() {
    if (this.w <= 0) return;
    const x = (p) => (this.w * (1 - (drawnAt - p.x) / span)).toFixed(1);
    const y = (v) => this.y(v).toFixed(1);
    let max = 0;
    for (const f of feeds) for (const p of this.points(f)) max = Math.max(max, p.y);
    this.rule(max);
    const ends = [];
    for (const [f, { dots, line, value }] of this.lines) {
      const points = this.points(f);
      let d = "", before = -Infinity;
      for (const p of points) {
        const v = this.dots ? p.middle : p.y;
        if (v === undefined) continue; // it came together with others
        d += `${p.x - before > 5000 ? "M" : "L"}${x(p)} ${y(v)}`;
        before = p.x;
      }
      line.setAttribute("d", d);
      if (this.dots) dots.setAttribute("d", points.map((p) => `M${x(p)} ${y(p.y)}h0`).join(""));
      const v = this.value(f);
      show(value, Number.isNaN(v) ? "" : this.text(v));
      if (!Number.isNaN(v)) ends.push({ value, y: margin.top + this.y(v) + 4 });
    }
    // Values at the right end keep a distance.
    const step = 14, lowest = margin.top + this.h + 4;
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + step);
    for (let i = ends.length - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, (ends[i + 1]?.y ?? lowest + step) - step);
    for (const e of ends) {
      e.value.setAttribute("x", margin.left + this.w + 6);
      e.value.setAttribute("y", e.y.toFixed(1));
    }
  }
}

// decades is a logarithmic scale of milliseconds.
function decades(max) {
  const top = [2e3, 5e3, 1e4, 2e4, 5e4, 1e5].find((t) => max <= t) ?? 1e6;
  return { top, ticks: [0.1, 1, 10, 100, 1e3, 1e4, 1e5].filter((t) => t <= top) };
}

// even is a scale from 0 with round steps.
function even(max) {
  const rough = Math.max(max, 4) / 4, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((n) => n * unit >= rough);
  const n = Math.max(2, Math.ceil(max / step));
  return { top: n * step, ticks: Array.from({ length: n + 1 }, (_, i) => i * step) };
}

const short = (s) => s.replace(/\.0(?= )/, "");

/* At work. */

const feeds = kinds.map((k) => new Feed(k));
let drawnAt = performance.now();
let since = 0; // of the server's counters

const charts = [
  new Chart("latency", {
    points: (f) => f.latencies, value: (f) => f.median(recent), text: milliseconds, dots: true,
    scale: decades, label: (v) => short(milliseconds(v)), log: true, bottom: 0.1,
  }),
  new Chart("requests", { points: (f) => f.requests, value: (f) => f.total?.requests ?? NaN, text: whole, scale: even, label: whole }),
  new Chart("bytes", { points: (f) => f.bytes, value: (f) => f.total?.bytes ?? NaN, text: amount, scale: even, label: (v) => (v ? short(amount(v)) : "0") }),
];

for (const k of kinds) {
  const item = element("li", "", k.name);
  item.dataset.kind = k.id;
  $("legend").append(item);
}

function draw() {
  drawnAt = performance.now();
  for (const f of feeds) {
    f.forget(drawnAt - span - 1000);
    f.pane.draw(f);
  }
  for (const c of charts) c.draw();
}

// stats asks for the server's figures and its time.
async function stats() {
  const sent = performance.now();
  const answer = await fetch(`stats?page=${page}`, { signal: AbortSignal.timeout(5000) });
  const received = performance.now();
  const s = await answer.json();
  clock.tell(sent, received, s.now);
  for (const f of feeds) f.cost(s.since, s.kinds[f.path]);
  show($("clock"), clock.error
    ? `The clocks of server and page have been compared: latencies are right to ±${milliseconds(clock.error)}.`
    : "The clocks of server and page agree.");
}

let running = false, held = false, asked = 0, ticking, asking;

async function keepAsking() {
  clearTimeout(asking);
  const turn = ++asked;
  try { await stats(); } catch { /* the panes say that the server is away */ }
  if (running && turn === asked) asking = setTimeout(keepAsking, 1000);
}

async function run() {
  const want = !document.hidden && !held;
  if (want === running) return;
  running = want;
  clearInterval(ticking);
  if (running) {
    await keepAsking(); // the clock comes first
    if (!running) return;
    for (const f of feeds) f.start();
    clearInterval(ticking);
    ticking = setInterval(draw, 100);
  } else {
    clearTimeout(asking);
    for (const f of feeds) f.stop();
    draw();
  }
}

$("pause").addEventListener("click", () => {
  held = !held;
  show($("pause"), held ? "Resume" : "Pause");
  run();
});
document.addEventListener("visibilitychange", run);
addEventListener("online", () => { if (running) for (const f of feeds) if (!f.live) f.start(); });
addEventListener("pagehide", () => { for (const f of feeds) f.stop(); }); // and not when it is kept for going back
addEventListener("pageshow", (e) => { if (e.persisted && running) for (const f of feeds) f.start(); });
run();
