// The WebSocket of browsers and of Node: a client that sends back what it gets.

export function web(report) {
  const sockets = new Map();

  function connect({ id, url, protocols }) {
    const s = new WebSocket(url, protocols);
    sockets.set(id, s);
    s.binaryType = "arraybuffer";
    s.onopen = () => {
      s.onerror = null;
      s.onclose = ({ code, reason }) => report({ id, event: "closed", code, reason });
      report({ id, event: "open", protocol: s.protocol, extensions: s.extensions });
    };
    s.onerror = () => report({ id, event: "failed" }); // Node 20 has no close event then
    s.onmessage = (e) => s.send(e.data);
  }

  function close({ id, code, reason }) {
    if (code) sockets.get(id).close(code, reason);
    else sockets.get(id).close();
  }

  return (order) => ({ connect, close })[order.do](order);
}
