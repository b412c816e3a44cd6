// A session with a Go program's session.Server: messages that arrive over
// connections that come and go, and calls. docs/session.md has the contract.

const WINDOW = 512 << 10, OVERHEAD = 128, QUIET = 25_000, PATIENCE = 20_000, HELLO = 10_000;

export class SessionError extends Error {
  constructor(code, message) {
    super(message || code);
    this.name = "SessionError";
    this.code = code;
  }
}

export class Session {
  #o; #urls; #at = 0; #ws; #open = false; #token; #failures = 0; #timer; #watch; #heard; #pinged; #closed = false;
  #buf = []; #bytes = 0; #last = 0; #next = 1; #highest = 0; #flight = 0; #settled = 0; // what is sent
  #recv = 0; #told = 0; #queue = []; #busy = false; // what has come
  #calls = new Map(); #jobs = new Map(); #stats = { sent: 0, acknowledged: 0, lost: 0, mean: 0 }; #times = [];
  #nudge = () => this.nudge();

  constructor(url, options = {}) {
    this.#urls = [url].flat();
    this.#o = { buffer: 1 << 20, maxAge: 300_000, base: 1000, max: 60_000, good: 10_000, timeout: 30_000, stopCodes: [], methods: {}, ...options };
    globalThis.addEventListener?.("online", this.#nudge);
    this.#connect();
  }

  get connected() { return this.#open; }
  get stats() {
    let left = Math.ceil(this.#stats.acknowledged * 0.99), b = 0; // times grow by a quarter of a power of two
    for (; left > 0; b++) left -= this.#times[b] ?? 0;
    return { ...this.#stats, p99: b && 2 ** ((b - 1) / 4) - 1 };
  }

  send(name, data) { this.#push({ type: "message", name, data }); }

  call(name, data, { signal, timeout = this.#o.timeout } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const entry = this.#push({ type: "call", name, data });
      const give = (why) => {
        if (this.#calls.get(entry.e.id) !== call) return;
        call.done();
        try { this.#push({ type: "cancel", re: entry.e.id }, true); } catch { /* it will find out */ }
        reject(why);
      };
      const abort = () => give(signal.reason);
      const timer = setTimeout(() => give(new SessionError("timeout")), timeout);
      signal?.addEventListener("abort", abort);
      const call = {
        resolve, reject, done: () => {
          if (this.#calls.get(entry.e.id) === call) this.#calls.delete(entry.e.id);
          clearTimeout(timer);
          signal?.removeEventListener("abort", abort);
        },
      };
      this.#calls.set(entry.e.id, call);
    });
  }

  // nudge makes the next attempt now.
  nudge() {
    if (this.#timer && !this.#closed) this.#connect();
  }

  close() {
    this.#end("closed");
    this.#ws?.close(1000);
  }

  #end(why) {
    this.#closed = true;
    this.#open = false;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    globalThis.removeEventListener?.("online", this.#nudge);
    for (const c of [...this.#calls.values()]) { c.done(); c.reject(new SessionError("ended")); }
    for (const a of this.#jobs.values()) a.abort();
    this.#state("ended", why);
  }

  #state(state, detail) { this.#o.onstate?.(state, detail); }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const url = this.#urls[this.#at];
    this.#state("connecting", url);
    let ws, gone = false, good = 0;
    const lost = (code = 1006) => {
      if (gone) return;
      gone = true;
      clearInterval(this.#watch);
      this.#open = false;
      if (this.#closed) return;
      if (code === 1008 || code === 4001 || this.#o.stopCodes.includes(code)) return this.#end(code);
      if (good && Date.now() - good >= this.#o.good) this.#failures = 0;
      else this.#at = (this.#at + 1) % this.#urls.length;
      let wait = Math.random() * Math.min(this.#o.max, this.#o.base * 2 ** this.#failures++);
      if (code === 1012 || code === 1013) wait = Math.max(wait, 5000 + Math.random() * 25_000);
      this.#timer = setTimeout(() => this.#connect(), wait);
      this.#state("waiting", wait);
    };
    const cut = () => { ws.close(); lost(); }; // the close event may take long
    try { ws = this.#ws = new (this.#o.WebSocket ?? WebSocket)(url, this.#o.protocols ?? []); } catch { return lost(1008); }
    this.#heard = Date.now();
    this.#pinged = false;
    this.#watch = setInterval(() => {
      if (gone) return;
      const quiet = Date.now() - this.#heard;
      if (quiet > (this.#open ? QUIET + PATIENCE : HELLO)) cut();
      else if (this.#open && quiet > QUIET && !this.#pinged) { this.#pinged = true; this.#post({ type: "ping" }); }
    }, 1000);
    ws.onopen = () => this.#post({ type: "hello", token: this.#token, ack: this.#handled() });
    ws.onclose = (e) => lost(e.code);
    ws.onerror = () => {};
    ws.onmessage = (m) => {
      if (gone) return;
      this.#heard = Date.now();
      this.#pinged = false;
      try {
        const e = JSON.parse(m.data);
        if (this.#open) return this.#receive(e);
        if (e.type !== "welcome" || !e.token) throw new Error("no welcome");
        good = Date.now();
        this.#welcome(e);
      } catch (err) {
        this.#state("error", err);
        cut();
      }
    };
  }

  #post(e) { this.#ws.send(JSON.stringify(e)); }

  #welcome({ token, ack = 0 }) {
    if (token === this.#token && ack < this.#settled) { // who knows what else
      this.#replace();
      throw new Error("the server has forgotten part of the session");
    }
    if (token !== this.#token || ack > this.#highest) {
      ack = 0;
      this.#replace(token);
    }
    this.#expire();
    this.#settle(ack);
    this.#next = ack + 1;
    this.#flight = 0;
    this.#told = this.#handled();
    this.#open = true;
    this.#state("open");
    this.#pump();
  }

  // replace begins another session: what was sent is not sent again.
  #replace(token) {
    const known = this.#token, calls = this.#calls, first = this.#first(), old = this.#buf;
    const hole = Math.max(first - 1 - this.#highest, 0);
    this.#token = token;
    this.#calls = new Map();
    this.#buf = [];
    this.#bytes = 0;
    let unacknowledged = 0;
    for (const n of old) {
      const sent = n.e.id <= this.#highest, call = calls.get(n.e.id);
      if (sent || n.e.type !== "message" && !(n.e.type === "call" && call)) {
        unacknowledged += sent;
        this.#stats.lost++;
        continue;
      }
      calls.delete(n.e.id);
      n.e.id = hole + this.#buf.length + 1;
      if (call) this.#calls.set(n.e.id, call);
      this.#buf.push(n);
      this.#bytes += n.size;
    }
    this.#last = hole + this.#buf.length;
    this.#next = 1;
    this.#highest = this.#settled = this.#recv = this.#told = 0;
    for (const q of this.#queue) q.id = 0;
    for (const c of calls.values()) { c.done(); c.reject(new SessionError("lost")); }
    for (const a of this.#jobs.values()) a.abort();
    this.#jobs.clear();
    if (known) this.#enqueue({ id: 0, gap: { lost: true, unacknowledged } });
  }

  #first() { return this.#last - this.#buf.length + 1; }

  #push(e, must) {
    if (this.#closed) throw new SessionError("ended");
    const size = JSON.stringify([e.name, e.data]).length + OVERHEAD;
    if (!this.#open) this.#expire();
    if (this.#buf.length && this.#bytes + size > this.#o.buffer * (must ? 2 : 1)) throw new SessionError("full");
    const n = { e: { ...e, id: ++this.#last, timestamp: Date.now() }, size };
    this.#buf.push(n);
    this.#bytes += size;
    this.#stats.sent++;
    this.#pump();
    return n;
  }

  #shift() {
    const n = this.#buf.shift();
    this.#bytes -= n.size;
    if (n.e.id < this.#next) this.#flight -= n.size;
    return n.e;
  }

  #expire() {
    const old = Date.now() - this.#o.maxAge;
    while (this.#buf.length && this.#buf[0].e.timestamp < old) {
      const c = this.#calls.get(this.#shift().id);
      this.#stats.lost++;
      if (c) { c.done(); c.reject(new SessionError("lost")); }
    }
  }

  #settle(ack) {
    const s = this.#stats;
    this.#settled = Math.max(this.#settled, ack);
    while (this.#buf.length && this.#first() <= ack) {
      const ms = Math.max(Date.now() - this.#shift().timestamp, 0), b = Math.ceil(4 * Math.log2(ms + 1));
      s.mean += (ms - s.mean) / ++s.acknowledged;
      this.#times[b] = (this.#times[b] ?? 0) + 1;
    }
  }

  #pump() {
    if (!this.#open || this.#ws.readyState !== 1) return;
    if (this.#next < this.#first()) this.#post({ type: "gap", id: this.#next = this.#first() });
    for (; this.#next <= this.#last; this.#next++) {
      const n = this.#buf[this.#next - this.#first()];
      if (this.#flight && this.#flight + n.size > WINDOW) return;
      this.#post(n.e);
      this.#flight += n.size;
      this.#highest = Math.max(this.#highest, this.#next);
    }
  }

  #receive(e) {
    switch (e.type) {
      case "ack":
        if (e.ack >= this.#next) throw new Error("acknowledges what was not sent");
        this.#settle(e.ack);
        return this.#pump();
      case "ping": return this.#post({ type: "pong" });
      case "pong": return;
      case "gap":
        if (e.id > this.#recv + 1) {
          const messages = e.id - 1 - this.#recv;
          this.#enqueue({ id: this.#recv = e.id - 1, gap: { messages, lost: false, unacknowledged: 0 } });
        }
        return;
    }
    if (e.id <= this.#recv) return;
    if (e.id !== this.#recv + 1) throw new Error("envelope is missing");
    this.#recv = e.id;
    switch (e.type) {
      case "message": return this.#enqueue(e);
      case "call": this.#answer(e); break;
      case "cancel": this.#jobs.get(e.re)?.abort(); break;
      case "reply": {
        const c = this.#calls.get(e.re);
        c?.done();
        if (e.error) c?.reject(new SessionError(e.error.code, e.error.message));
        else c?.resolve(e.data);
        break;
      }
      default: throw new Error("unknown type");
    }
    this.#ack();
  }

  async #answer({ id, name, data }) {
    const job = new AbortController(), r = { type: "reply", re: id };
    this.#jobs.set(id, job);
    try {
      if (!Object.hasOwn(this.#o.methods, name)) throw new SessionError("no_method");
      r.data = await this.#o.methods[name](data, job.signal);
    } catch (err) {
      r.error = err instanceof SessionError ? { code: err.code, message: err.message } : { code: job.signal.aborted ? "canceled" : "internal" };
    }
    if (this.#jobs.get(id) !== job) return; // the session that it came over is gone
    this.#jobs.delete(id);
    try { this.#push(r, true); } catch { this.#ws.close(); }
  }

  async #enqueue(q) {
    this.#queue.push(q);
    if (this.#busy) return;
    for (this.#busy = true; this.#queue.length; this.#queue.shift()) {
      const { name, data, gap } = this.#queue[0];
      try {
        await (gap ? this.#o.ongap?.(gap) : this.#o.onmessage?.(name, data));
      } catch (err) {
        this.#state("error", err);
      }
      if (this.#queue.length % 32 === 0) this.#ack(1);
    }
    this.#busy = false;
    this.#ack();
  }

  // handled is the highest number up to which everything is done; but for the
  // first skip of those that wait.
  #handled(skip = 0) {
    const q = this.#queue.slice(skip).find((q) => q.id);
    return q ? q.id - (q.gap?.messages ?? 1) : this.#recv;
  }

  #ack(skip) {
    const ack = this.#handled(skip);
    if (!this.#open || ack <= this.#told || this.#ws.readyState !== 1) return;
    this.#post({ type: "ack", ack });
    this.#told = ack;
  }
}
