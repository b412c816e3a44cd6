// npm's ws as client and as server: both send back what they get.

import { WebSocket, WebSocketServer } from "ws";
import { obey, report } from "./lines.js";

const sockets = new Map();

// deflate makes the option of ws from an order's.
function deflate(d) {
  if (!d) return false;
  const o = { threshold: 0 };
  if (!d.serverTakeover) o.serverNoContextTakeover = true; // false would be to insist on it
  if (!d.clientTakeover) o.clientNoContextTakeover = true;
  if (d.serverBits) o.serverMaxWindowBits = d.serverBits;
  if (d.clientBits) o.clientMaxWindowBits = d.clientBits;
  return o;
}

function echo(id, s) {
  let error;
  sockets.set(id, s);
  s.on("message", (data, binary) => s.send(data, { binary }));
  s.on("ping", (data) => report({ id, event: "pinged", data: data.toString() }));
  s.on("pong", (data) => report({ id, event: "ponged", data: data.toString() }));
  s.on("error", (e) => (error = e.message));
  s.on("close", (code, reason) => {
    sockets.delete(id);
    report({ id, event: "closed", code, reason: reason.toString(), error });
  });
}

const orders = {
  connect({ id, url, protocols, deflate: d, limit }) {
    const s = new WebSocket(url, protocols, { perMessageDeflate: deflate(d), maxPayload: limit });
    let extensions = "";
    const failed = (e) => report({ id, event: "failed", error: e.message });
    s.on("error", failed);
    s.on("upgrade", (answer) => (extensions = answer.headers["sec-websocket-extensions"] ?? ""));
    s.on("open", () => {
      s.off("error", failed);
      echo(id, s);
      report({ id, event: "open", protocol: s.protocol, extensions });
    });
  },

  listen({ id, protocols, deflate: d, limit }) {
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      perMessageDeflate: deflate(d),
      maxPayload: limit,
      handleProtocols: (offered) => protocols.find((p) => p.startsWith("!") || offered.has(p))?.replace("!", "") ?? false,
    });
    server.on("listening", () => report({ id, event: "listening", port: server.address().port }));
    server.on("connection", (s) => {
      server.close();
      echo(id, s);
      report({ id, event: "open", protocol: s.protocol });
    });
  },

  send({ id, binary, parts, ping }) {
    const s = sockets.get(id);
    parts.forEach((part, i) => {
      const fin = i === parts.length - 1;
      s.send(Buffer.from(part, "base64"), { binary, fin });
      if (!fin) s.ping(ping);
    });
  },

  ping: ({ id, ping }) => sockets.get(id).ping(ping),
  close: ({ id, code, reason }) => sockets.get(id).close(code || undefined, reason),
  abort: ({ id }) => sockets.get(id).terminate(),
};

obey((order) => orders[order.do](order));
