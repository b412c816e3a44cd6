// What a session in JavaScript has to get through while its connections are cut:
// returns what it has seen, for the test to judge.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function scenario(Session, url, count, options) {
  const got = [], states = {}, gaps = [], answers = [], errors = [];
  const s = new Session(url, {
    base: 20, max: 100, good: 0, ...options,
    async onmessage(name, n) {
      if (n % 50 === 0) await pause(20);
      got.push(n);
    },
    ongap: (g) => gaps.push(g),
    onstate: (state, detail) => {
      states[state] = (states[state] ?? 0) + 1;
      if (state === "error") errors.push(String(detail));
    },
    methods: {
      double: (n) => 2 * n,
      fail() { throw new Error("secret"); },
      wait: (_, signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(1))),
    },
  });
  const calls = [];
  for (let n = 1; n <= count; n++) {
    s.send("n", n);
    if (n % 10 === 0) {
      calls.push(s.call("echo", { n, "ü": "\u2028" }).then((r) => answers.push(r.n)));
      await pause(5);
    }
  }
  await Promise.all(calls);
  const failed = async (p) => { try { await p; } catch (e) { return typeof e.code === "string" ? e.code : e.name; } };
  const codes = [
    await failed(s.call("none")),
    await failed(s.call("wait", null, { timeout: 50 })),
    await failed(s.call("wait", null, { signal: AbortSignal.timeout(50) })),
  ];
  for (let i = 0; i < 500 && (got.length < count || s.stats.acknowledged < s.stats.sent); i++) await pause(20);
  await s.call("done");
  const stats = s.stats;
  s.close();
  return { got, states, gaps, answers, codes, stats, errors };
}
