// What programs in TypeScript write, and what they are told is wrong. It is only
// compiled.
import { Session, SessionError, type Gap, type Options, type Stats } from "../../session/js/session.js";

const options: Options = {
  onmessage: async (name: string, data: unknown) => { console.log(name, data); },
  ongap: (g: Gap) => console.log(g.lost, g.messages ?? 0, g.unacknowledged),
  onstate: (state, detail) => { if (state === "open") console.log(detail); },
  methods: { add: ([a, b]: [number, number], signal: AbortSignal) => signal.aborted ? undefined : a + b },
  buffer: 1000, maxAge: 1000, base: 1, max: 2, good: 3, timeout: 4, stopCodes: [4002], protocols: ["a"], WebSocket,
};
const s = new Session(["wss://a", "wss://b"], options);
s.send("order", { item: 7 });
s.send("order");
const answer: Promise<number> = s.call("add", [1, 2], { signal: AbortSignal.timeout(1), timeout: 2 });
answer.catch((e: unknown) => e instanceof SessionError && e.code satisfies string);
const stats: Stats = s.stats;
const sum: number = stats.sent + stats.acknowledged + stats.lost + stats.mean + stats.p99;
const open: boolean = s.connected;
s.nudge();
s.close();
new Session("wss://a");
console.log(sum, open);

// @ts-expect-error: a name is a string
s.send(1);
// @ts-expect-error: there is no such option
new Session("wss://a", { retries: 3 });
// @ts-expect-error: it is read only
s.connected = true;
// @ts-expect-error: a URL is needed
new Session();
// @ts-expect-error: no such state
new Session("wss://a", { onstate: (state) => state === "closed" });
