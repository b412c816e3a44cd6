// The dispatcher's page: it asks for orders to be sent, and shows what becomes
// of them. It has a session of its own, past the proxy.
import { Session } from "./session.js";
import { $, address, count, element, set, state } from "./common.js";

const session = new Session(address("session/dispatcher"), {
  base: 200, max: 2000, good: 1000,
  onmessage: (name, data) => { if (name === "state") show(data); },
  onstate: (what, detail) => {
    state(what, detail);
    document.body.classList.toggle("offline", what !== "open");
  },
});

const faults = {
  calm: "Connections are left alone.",
  cut: "Connections are reset after about two seconds, at any byte.",
  halfopen: "The shop’s side is reset, and the server is not told: it finds out by a ping, or when the shop comes back.",
  stall: "Nothing passes for two seconds, and then the connection is reset.",
  mixed: "Every connection meets one of the three after about two seconds, by chance.",
};

async function ask(method, data) {
  try {
    await session.call(method, data);
    set("refusal", "");
  } catch (err) {
    set("refusal", `That did not work: ${err.message}.`);
  }
}

$("one").addEventListener("click", () => ask("send", { count: 1 }));
$("thousand").addEventListener("click", () => ask("send", { count: 1000 }));
$("harm").addEventListener("click", () => ask("harm"));
$("fault").addEventListener("change", (e) => {
  set("about", faults[e.target.value]);
  ask("fault", { fault: e.target.value });
});

// percent rounds down: 100 % are all of them.
function percent(part, all) {
  if (part === all) return "100 %";
  return `${(Math.floor(part / all * 1000) / 10).toFixed(1)} %`;
}

const time = (ms) => ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
const many = (n, one, more) => `${count(n)} ${n === 1 ? one : more}`;

function show(s) {
  set("share", s.sent ? percent(s.arrived, s.sent) : "0 %");
  $("summary").classList.toggle("none", s.sent === 0);
  const bar = $("bar");
  bar.firstElementChild.style.width = `${s.sent ? s.arrived / s.sent * 100 : 0}%`;
  bar.setAttribute("aria-valuenow", s.sent ? Math.floor(s.arrived / s.sent * 100) : 0);
  set("verdict", verdict(s));
  const whole = s.sent > 0 && s.arrived === s.sent, wrong = s.twice + s.missing > 0;
  $("summary").classList.toggle("whole", whole && !wrong);
  $("summary").classList.toggle("wrong", wrong);

  for (const id of ["sent", "arrived", "confirmed", "twice", "missing", "reconnects"]) set(id, count(s[id]));
  for (const id of ["twice", "missing"]) $(id).classList.toggle("bad", s[id] > 0);
  set("mean", s.mean ? time(s.mean) : "–");
  set("p99", s.p99 ? time(s.p99) : "–");

  const { fault, live, harmed } = s.proxy;
  if (!$("fault").contains(document.activeElement) || !$("about").textContent) {
    document.querySelector(`#fault [value=${fault}]`).checked = true;
    set("about", faults[fault]);
  }
  set("traffic", `${many(live, "connection", "connections")} now, ${count(harmed)} broken so far.`);

  $("nobody").hidden = s.shops.length > 0;
  $("shops").replaceChildren(...s.shops.map(shop));
  $("none").hidden = s.latest.length > 0;
  $("last").querySelector("table").hidden = s.latest.length === 0;
  $("latest").replaceChildren(...s.latest.map(order));
}

function verdict(s) {
  if (s.sent === 0) return "No order was sent yet.";
  const wrong = [];
  if (s.twice) wrong.push(`${count(s.twice)} came twice`);
  if (s.missing) wrong.push(`${count(s.missing)} are missing`);
  const fault = wrong.length ? wrong.join(", ") : "none twice";
  if (s.arrived < s.sent) return `${count(s.sent - s.arrived)} of ${many(s.sent, "order", "orders")} on the way, ${fault}.`;
  return `${s.sent === 1 ? "The order has" : `All ${count(s.sent)} orders have`} arrived, ${fault}.`;
}

function shop(s) {
  const dot = element("span", s.connected ? "dot on" : "dot");
  dot.setAttribute("role", "img");
  dot.setAttribute("aria-label", s.connected ? "connected" : "not connected");
  return element("li", "", dot, element("bdi", "", s.name),
    element("span", "soft", `${count(s.arrived)} of ${count(s.sent)} arrived, ${count(s.confirmed)} confirmed`));
}

function order(o) {
  return element("tr", "",
    element("td", "no", `#${o.id}`), element("td", "", o.item), element("td", "", o.for), element("td", "", element("bdi", "", o.shop)),
    element("td", "", element("span", `pill ${o.state}`, o.state)));
}
