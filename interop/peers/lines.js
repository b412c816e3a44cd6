// Orders come as lines of JSON on standard input, and reports go the same way to
// standard output. When the input ends, so does the program.

import { createInterface } from "node:readline";

export const report = (r) => process.stdout.write(JSON.stringify(r) + "\n");

export function obey(order) {
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const o = JSON.parse(line);
    try {
      order(o);
    } catch (e) {
      report({ id: o.id, event: "failed", error: e.stack });
    }
  });
  lines.on("close", () => process.exit(0));
}
