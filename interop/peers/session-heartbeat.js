// What a session does about a server that falls silent, and when, in seconds; and
// which close codes are the end. No network, and no waiting.
import { mock } from "node:test";
import { Session } from "../../session/js/session.js";

mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
let log = [], now = 0, socket;
const note = (what) => log.push(`${now} ${what}`);

class Silent {
  readyState = 1;
  constructor() { socket = this; }
  send(s) { note(JSON.parse(s).type); }
  close() { note("close"); }
}

function pass(seconds) {
  for (; seconds > 0; seconds--) {
    now++;
    mock.timers.tick(1000);
  }
}

function begin(options) {
  log = [];
  now = 0;
  const s = new Session("ws://silent", { WebSocket: Silent, onstate: (state) => note(state), ...options });
  socket.onopen();
  return s;
}

const result = {};
const welcome = () => socket.onmessage({ data: '{"type":"welcome","token":"t"}' });

let s = begin();
pass(12); // no welcome
s.close();
result.welcome = log;

s = begin({ base: 1000, max: 1 });
welcome();
pass(47); // silence
s.close();
result.silence = log;

s = begin();
welcome();
pass(40);
socket.onmessage({ data: '{"type":"pong"}' });
pass(40);
s.close();
result.pong = log;

result.codes = {};
for (const code of [1000, 1001, 1006, 1008, 1011, 1012, 1013, 4000, 4001, 4002]) {
  s = begin({ stopCodes: [4002] });
  welcome();
  log = [];
  socket.onclose({ code });
  result.codes[code] = log[0].split(" ")[1];
  s.close();
}
// 97 of 100 messages are acknowledged at once, one after 2 s, two after 9 s more.
s = begin();
welcome();
for (let n = 1; n <= 100; n++) s.send("n", n);
const ack = (n) => socket.onmessage({ data: JSON.stringify({ type: "ack", ack: n }) });
ack(97);
pass(2);
ack(98);
result.early = s.stats;
pass(9);
ack(100);
result.stats = s.stats;

// A server that knows less than it has acknowledged: the session is lost.
const gaps = [];
s.close();
s = begin({ base: 1, max: 1, ongap: (g) => gaps.push(g), onstate: () => {} });
welcome();
s.send("n", 1);
ack(1);
socket.onclose({ code: 1006 });
pass(1);
log = [];
const sent = [];
socket.send = (m) => sent.push(JSON.parse(m));
socket.onopen();
welcome(); // with ack 0
await null;
pass(1);
socket.send = (m) => sent.push(JSON.parse(m));
socket.onopen();
result.forgotten = { gaps, sent };
s.close();
console.log(JSON.stringify(result));
