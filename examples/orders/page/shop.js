// A shop's page: orders arrive by a session whose connections the proxy breaks,
// and are confirmed by calls. dispatch.go has the other end.
import { Session } from "./session.js";
import { $, address, count, element, set, state } from "./common.js";

const name = new URLSearchParams(location.search).get("name")?.trim().slice(0, 32) || "Main Street";
set("name", name);
document.title = name;

/* What the shop has had. It survives the page: a page that is loaded again has
   another session, and says in it how far it was. */

const key = `orders: ${name}`;
let memory = { run: "", last: 0, received: 0, twice: 0, missing: 0, auto: false };

function recall() {
  try { Object.assign(memory, JSON.parse(localStorage.getItem(key))); } catch { /* a browser may refuse */ }
}

function remember() {
  try { localStorage.setItem(key, JSON.stringify(memory)); } catch { /* then it is for this page only */ }
}

recall();
$("auto").checked = memory.auto;

/* The session. */

let connections = 0, reporting = 0;
const open = new Map(); // by number: what is to be confirmed
const done = [];        // the latest that are, newest first
const shown = 20;
const items = new Map(); // by order: its element
let drawing = 0;
const response = await fetch("proxy");
const session = new Session(address("session/shop", await response.text()), {
  base: 100, max: 1000, good: 500, // the dispatcher's network is known to be bad
  onmessage: receive,
  ongap: (gap) => { if (gap.lost) join(); },
  onstate: (what, detail) => {
    if (what === "open") connections++;
    state(what, detail);
    draw();
  },
});
join();

function join() {
  session.send("join", { shop: name, run: memory.run, last: memory.last });
}

function receive(type, data) {
  switch (type) {
    case "welcome": return welcome(data);
    case "open": return data.forEach(add);
    case "order": return arrive(data);
    case "moved":
      session.close();
      $("moved").hidden = false;
      for (const e of document.querySelectorAll("section:not(#moved), .switch")) e.inert = true;
  }
}

// welcome comes first in a session, and is followed by what is open already.
function welcome({ run, last }) {
  if (run !== memory.run) Object.assign(memory, { run, received: 0, twice: 0, missing: 0 });
  memory.last = last;
  remember();
  open.clear();
  report();
}

// arrive counts on its own: the session says that numbers have no holes and come
// once, and this is where it shows.
function arrive(o) {
  if (o.number <= memory.last) {
    memory.twice++;
  } else {
    memory.missing += o.number - memory.last - 1;
    memory.last = o.number;
    memory.received++;
    add(o);
  }
  remember(); // before the session acknowledges it
  report();
}

function add(o) {
  open.set(o.number, o);
  if (memory.auto) confirm(o);
  draw();
}

// report tells the dispatcher what was counted here, now and then.
function report() {
  reporting ||= setTimeout(() => {
    reporting = 0;
    const { received, twice, missing } = memory;
    try { session.send("report", { received, twice, missing }); } catch { report(); }
  }, 200);
  draw();
}

// confirm asks until it is answered: confirming twice does no harm.
async function confirm(o) {
  if (o.asking) return;
  o.asking = true;
  draw();
  while (open.get(o.number) === o) {
    try {
      await session.call("confirm", { number: o.number });
      if (open.get(o.number) !== o) break;
      open.delete(o.number);
      done.unshift(o);
      done.length = Math.min(done.length, 8);
    } catch (err) {
      if (err.code === "ended") break;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
  draw();
}

$("auto").addEventListener("change", () => {
  memory.auto = $("auto").checked;
  remember();
  if (memory.auto) confirmAll();
});
$("all").addEventListener("click", confirmAll);
$("back").addEventListener("click", () => location.reload());

function confirmAll() {
  for (const o of open.values()) confirm(o);
}

/* What is seen. */

// draw shows everything soon, however much happens until then.
function draw() {
  drawing ||= setTimeout(() => {
    drawing = 0;
    show();
  }, 50);
}

function show() {
  set("received", count(memory.received));
  set("count", count(open.size));
  for (const id of ["twice", "missing"]) {
    set(id, count(memory[id]));
    $(id).classList.toggle("bad", memory[id] > 0);
  }
  set("connections", count(connections));
  $("all").hidden = open.size < 2;
  $("empty").hidden = open.size > 0;
  $("nothing").hidden = done.length > 0;
  $("more").hidden = open.size <= shown;
  set("more", `and ${count(open.size - shown)} more`);
  const first = [...open.values()].slice(0, shown);
  for (const o of items.keys()) if (!first.includes(o) && !done.includes(o)) items.delete(o);
  fill($("open"), first.map(item));
  fill($("done"), done.map(item));
}

// fill changes what is different, so that a button that has the focus keeps it.
function fill(list, wanted) {
  for (const e of [...list.children]) if (!wanted.includes(e)) e.remove();
  wanted.forEach((e, i) => { if (list.children[i] !== e) list.insertBefore(e, list.children[i] ?? null); });
}

function item(o) {
  let e = items.get(o);
  if (!e) {
    const when = element("time", "", new Date(o.time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    when.dateTime = new Date(o.time).toISOString();
    const button = element("button", "");
    button.addEventListener("click", () => confirm(o));
    e = element("li", "order", element("span", "no", `#${o.id}`), element("strong", "", o.item), 
      element("span", "soft", `for ${o.for} · `, when), button);
    items.set(o, e);
  }
  const button = e.querySelector("button");
  const is = open.get(o.number) !== o ? "confirmed" : o.asking ? "confirming" : "new";
  if (button && e.dataset.is !== is) {
    e.dataset.is = is;
    button.textContent = is === "new" ? "Confirm" : "Confirming…";
    button.setAttribute("aria-label", `Confirm order ${o.id}: ${o.item}`);
    button.disabled = is !== "new";
    if (is === "confirmed") button.replaceWith(element("span", "pill confirmed", "confirmed"));
  }
  return e;
}

draw();
