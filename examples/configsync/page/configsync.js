// The administrator's page: it edits by calls, and shows what the program tells
// it, over a session of its own.
import { Session } from "./session.js";

const $ = (id) => document.getElementById(id);

// element makes all elements: text is text, whatever it looks like.
function element(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children); // strings become text nodes
  return e;
}

// set changes a text only if it is another, so that nothing is announced in vain.
function set(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

const url = new URL("session", location);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const session = new Session(url.href, {
  base: 200, max: 2000, good: 1000,
  onmessage: (name, data) => { if (name === "state") show(data); },
  onstate: (what, detail) => {
    if (what === "error") return console.warn(detail);
    const words = { connecting: "Connecting…", open: "Connected", waiting: `Next attempt in ${(detail / 1000).toFixed(1)} s`, ended: "Ended" };
    set($("state"), words[what]);
    $("state").dataset.is = what;
    document.body.classList.toggle("offline", what !== "open");
  },
});

async function ask(method, data) {
  try {
    await session.call(method, data);
    set($("refusal"), "");
    return true;
  } catch (err) {
    set($("refusal"), `That did not work: ${err.message}.`);
    return false;
  }
}

$("add").addEventListener("submit", async (e) => {
  e.preventDefault();
  if (!await ask("set", { key: $("new-key").value, value: $("new-value").value })) return;
  $("add").reset();
  $("new-key").focus();
});

function show(s) {
  set($("version"), `version ${s.version}`);
  const current = s.gateways.filter((g) => g.version === s.version).length, all = s.gateways.length;
  set($("verdict"), current === all ? `All ${all} gateways have version ${s.version}` : `${current} of ${all} gateways have version ${s.version}`);
  $("verdict").className = current === all ? "all" : "some";
  keep($("keys"), s.keys, (k) => k.key, makeKey, showKey);
  keep($("servers"), s.servers, (v) => v.name, makeServer, showServer);
  keep($("gateways"), s.gateways, (g) => g.name, makeGateway, (parts, g) => showGateway(parts, g, s));
}

// keep has one item for each of the things, and changes it rather than making it
// again: what has the focus keeps it.
const items = new Map();

function keep(list, things, name, make, show) {
  const wanted = things.map((thing) => {
    const id = `${list.id} ${name(thing)}`;
    let item = items.get(id);
    if (!item) {
      const parts = make(thing);
      items.set(id, item = { element: element("li", "", ...parts.children), parts, id });
      if (parts.className) item.element.className = parts.className;
    }
    show(item.parts, thing, item.element);
    return item.element;
  });
  for (const [id, { element: e }] of items) {
    if (e.parentNode === list && !wanted.includes(e)) {
      e.remove();
      items.delete(id);
    }
  }
  wanted.forEach((e, i) => { if (list.children[i] !== e) list.insertBefore(e, list.children[i] ?? null); });
}

/* A key: its value can be edited in place. */

function makeKey({ key }) {
  const input = element("input", ""), at = element("span", "at"), save = element("button", "save primary", "Save");
  const form = element("form", "", element("span", "key", key), input, at, save);
  const parts = { children: [form], form, input, at, save, version: 0 };
  input.setAttribute("aria-label", `Value of ${key}`);
  input.maxLength = 256;
  input.spellcheck = false;
  input.autocapitalize = "none";
  save.hidden = true;
  const dirty = () => {
    const is = input.value !== parts.value;
    input.classList.toggle("dirty", is);
    save.hidden = !is;
    at.hidden = is;
  };
  parts.dirty = dirty;
  input.addEventListener("input", dirty);
  input.addEventListener("keydown", (e) => {
    if (e.key !== "Escape") return;
    input.value = parts.value;
    dirty();
  });
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const value = input.value;
    if (await ask("set", { key, value })) {
      parts.value = value;
      dirty();
    }
  });
  const remove = element("button", "delete", "×");
  remove.type = "button";
  remove.title = `Delete ${key}`;
  remove.setAttribute("aria-label", remove.title);
  remove.addEventListener("click", () => ask("delete", { key }));
  form.append(remove);
  return parts;
}

function showKey(parts, { value, version }, item) {
  set(parts.at, `v${version}`);
  if (parts.version === version) return;
  if (parts.version) {
    item.classList.remove("news");
    item.offsetWidth; // begin again
    item.classList.add("news");
  }
  parts.version = version;
  if (parts.value === undefined || !parts.input.classList.contains("dirty")) parts.input.value = value;
  parts.value = value;
  parts.dirty();
}

/* A server: it can be killed, and started again. */

function makeServer({ name }) {
  const button = (text, method, says, className = "") => {
    const e = element("button", className, text);
    e.title = `${says} server ${name}`;
    e.setAttribute("aria-label", e.title);
    e.addEventListener("click", () => ask(method, { server: name }));
    return e;
  };
  const badge = element("span", "badge"), about = element("p", "about soft");
  const letter = element("span", "letter", name);
  letter.dataset.server = name;
  letter.setAttribute("aria-hidden", "true");
  const kill = button("Kill", "kill", "Kill", "danger"), start = button("Start", "start", "Start", "primary"), cut = button("Cut", "cut", "Cut the connections of");
  kill.id = `kill-${name}`;
  start.id = `start-${name}`;
  cut.id = `cut-${name}`;
  return {
    className: "card", badge, about, letter, kill, start, cut,
    children: [element("p", "row", letter, element("strong", "", `Server ${name}`), badge), about, element("p", "buttons", kill, start, cut)],
  };
}

function showServer(parts, { addr, up, gateways }) {
  set(parts.badge, up ? "running" : "dead");
  parts.badge.className = `badge ${up ? "all" : "dead"}`;
  parts.letter.classList.toggle("off", !up);
  set(parts.about, up ? `${gateways} ${gateways === 1 ? "gateway" : "gateways"}` : "nobody listens");
  parts.about.title = addr;
  const focused = parts.kill === document.activeElement || parts.start === document.activeElement;
  parts.kill.hidden = !up;
  parts.start.hidden = up;
  parts.cut.disabled = !up;
  if (focused) (up ? parts.kill : parts.start).focus();
}

/* A gateway: which version it has, from where, and what it did last. */

function makeGateway({ name }) {
  const letter = element("span", "letter"), state = element("span", "soft");
  const version = element("span", "badge version"), edits = element("span", "edit"), counts = element("span", "soft");
  return {
    className: "card", letter, state, version, edits, counts,
    children: [letter, element("p", "name", element("strong", "", name), state), version, element("p", "what", edits, counts)],
  };
}

function showGateway(parts, g, { version }) {
  const open = g.phase === "open";
  set(parts.letter, open ? g.server : "–");
  parts.letter.dataset.server = g.server;
  parts.letter.classList.toggle("off", !open);
  parts.letter.title = open ? `on server ${g.server}` : "on no server";
  set(parts.state, where(g));
  set(parts.version, `v${g.version}`);
  parts.version.className = `badge version ${g.version === version ? "all" : "some"}`;
  parts.version.title = g.version === version ? "has everything" : `is ${version - g.version} behind`;
  const last = JSON.stringify(g.last);
  if (parts.last !== last) {
    parts.last = last;
    parts.edits.replaceChildren(...edits(g.last ?? []));
  }
  set(parts.counts, `${g.applied} applied${g.repeated ? `, ${g.repeated} came again` : ""}`);
}

function where(g) {
  switch (g.phase) {
    case "open":
      if (g.opened === 1 || !g.session) return `on server ${g.server}`;
      return `on server ${g.server}, ${g.session === "new" ? "new session" : "session resumed"}`;
    case "connecting": return `asks server ${g.server}…`;
    case "waiting": return `asks server ${g.server} in ${(g.wait / 1000).toFixed(1)} s`;
    default: return g.phase;
  }
}

// edits shows a few of what was applied last.
function edits(all) {
  if (all.length > 2) return [`${all.length} keys: ${all[0].key} …`];
  return all.flatMap((e, i) => {
    const parts = [i ? "; " : "", `${e.key} `];
    if (e.deleted) return [...parts, element("del", "gone", e.old || "deleted")];
    if (!e.added) parts.push(element("del", "", e.old || "empty"), " → ");
    return [...parts, element("ins", "", e.new || "empty")];
  });
}
