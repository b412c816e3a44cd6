/** An error of a call, or of send. Codes of this module: "ended" (closed), "full" (options.buffer), "lost" (nobody
 * knows what became of the call), "timeout"; of servers: "no_method", "busy", "canceled", "internal", and their own. */
export class SessionError extends Error {
  constructor(code: string, message?: string);
  readonly code: string;
}

/** Messages that have not arrived, and will not. */
export interface Gap {
  /** How many were dropped by the server, calls and replies included; absent if the session was lost. */
  messages?: number;
  /** The server does not know the session any more, and another one has begun. */
  lost: boolean;
  /** How many of this side's nobody knows whether they were handled. They are not sent again. */
  unacknowledged: number;
}

export interface Stats {
  sent: number;
  acknowledged: number;
  lost: number;
  /** Mean time from being sent to being acknowledged, in ms. */
  mean: number;
  /** 99 of 100 took no longer than this, in ms; at most a fifth too long. */
  p99: number;
}

export interface Options {
  /** Called with every message, in order, one at a time: a promise is waited for. */
  onmessage?(name: string, data: unknown): unknown;
  /** Called in the place of what will not come. */
  ongap?(gap: Gap): unknown;
  /** "connecting" (detail: the URL), "open", "waiting" (ms), "error" (what was thrown), "ended" (close code or "closed").
   * The first call comes before the constructor returns. */
  onstate?(state: "connecting" | "open" | "waiting" | "error" | "ended", detail?: unknown): void;
  /** Answer calls. What is thrown is "internal" for the caller, but for a SessionError. */
  methods?: Record<string, (data: any, signal: AbortSignal) => unknown>;
  protocols?: string | string[];
  /** Characters that may be unacknowledged. Default: 1,048,576. */
  buffer?: number;
  /** ms after which what waits for a connection is dropped. Default: 300,000. */
  maxAge?: number;
  /** The first and the longest bound of the random wait between attempts, in ms. Default: 1,000 and 60,000. */
  base?: number;
  max?: number;
  /** ms that a connection must live for failures to be forgotten. Default: 10,000. */
  good?: number;
  /** ms that a call may take. Default: 30,000. */
  timeout?: number;
  /** Close codes, besides 1008 and 4001, after which there is no other attempt. */
  stopCodes?: number[];
  /** Default: globalThis.WebSocket. */
  WebSocket?: unknown;
}

export class Session {
  /** Connects, and connects again. Several URLs are tried in turn. */
  constructor(url: string | string[], options?: Options);
  readonly connected: boolean;
  readonly stats: Stats;
  /** Sends a message, now or over a later connection. Throws a SessionError with code "full" or "ended". */
  send(name: string, data?: unknown): void;
  /** Calls a method of the server. */
  call(name: string, data?: unknown, options?: { signal?: AbortSignal; timeout?: number }): Promise<any>;
  /** Makes the next attempt now. The event "online" does too. */
  nudge(): void;
  /** Ends the session: the server lets go of it when it expires. */
  close(): void;
}
