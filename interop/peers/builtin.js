// Node's own WebSocket client.

import { obey, report } from "./lines.js";
import { web } from "./web.js";

obey(web(report));
