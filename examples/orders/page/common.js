// What both pages use.

export const $ = (id) => document.getElementById(id);

// element makes all elements: text is text, whatever it looks like.
export function element(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children); // strings become text nodes
  return e;
}

export const count = (n) => n.toLocaleString("en");

// set changes a text only if it is another, so that nothing is announced in vain.
export function set(id, text) {
  if ($(id).textContent !== String(text)) $(id).textContent = text;
}

// address is where a session is, by way of another port if there is one.
export function address(path, port) {
  const url = new URL(path, location);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  if (port) url.port = port;
  return url.href;
}

// state shows what a session says of its connection.
export function state(what, detail) {
  const words = {
    connecting: "Connecting…", open: "Connected", waiting: `Next attempt in ${(detail / 1000).toFixed(1)} s`,
    ended: "Ended", error: "Connecting…",
  };
  if (what === "error") console.warn(detail);
  set("state", words[what]);
  $("state").dataset.is = what;
}
