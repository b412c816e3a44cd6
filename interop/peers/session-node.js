// The scenario in Node, whose WebSocket is npm's ws where it has none of its own.
import { WebSocket } from "ws";
import { Session } from "../../session/js/session.js";
import { scenario } from "./session.js";

const [url, count] = process.argv.slice(2);
console.log(JSON.stringify(await scenario(Session, url, Number(count), { WebSocket })));
