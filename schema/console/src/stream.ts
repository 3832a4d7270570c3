/**
 * Subscriptions over graphql-transport-ws, one socket per subscription so that each speaks for whoever started it.
 *
 * A lost connection is tried again until the visitor stops it. A log stream then goes on after the last sequence seen:
 * nothing is missed, nothing comes twice. What happens is told to the live pane through `watch`.
 */

import { visit, type DocumentNode } from "graphql";
import { createClient, type Client } from "graphql-ws";
import { CURSOR_VARIABLE, fault, logBatchIn, type GraphQLAnswer, type LogLine } from "./contract";
import { ENDPOINT, freshToken, replaceRefused } from "./session";

export type StreamPhase = "idle" | "connecting" | "live" | "reconnecting" | "complete" | "stopped" | "failed";

export interface StreamState {
  phase: StreamPhase;
  events: number;
  reconnects: number;
  lines: readonly LogLine[];
}

export interface Sink {
  next(answer: any): void;
  error(error: unknown): void;
  complete(): void;
}

const IDLE: StreamState = { phase: "idle", events: 0, reconnects: 0, lines: [] };
const LINES_KEPT = 2_000;
const ACK_DEADLINE_MS = 10_000;
const PING_EVERY_MS = 10_000;
const PONG_DEADLINE_MS = 5_000;
const LONGEST_PAUSE_MS = 10_000;
// Close codes of our server: graphql-ws gives up on the first and tries again after the second.
const CLOSED_UNAUTHORIZED = 4401;
const CLOSED_FORBIDDEN = 4403;

let state = IDLE;
const listeners = new Set<() => void>();

export function watch(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function current(): StreamState {
  return state;
}

/** Empties the live pane, when another operation takes the stage. */
export function clear(): void {
  tell(IDLE);
}

function tell(change: Partial<StreamState>): void {
  state = { ...state, ...change };
  listeners.forEach((listener) => listener());
}

function socketAddress(): string {
  const address = new URL(ENDPOINT, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

function declaresCursor(document: DocumentNode): boolean {
  let found = false;
  visit(document, {
    VariableDefinition: ({ variable }) => {
      found ||= variable.name.value === CURSOR_VARIABLE;
    },
  });
  return found;
}

interface Link {
  ownAuthorization: string | undefined;
  /** The token that the newest connection was opened with, and whether the server has refused it since. */
  token: string | null;
  isRefused: boolean;
  isOver: boolean;
}

function connect(link: Link): Client {
  let pongDeadline: ReturnType<typeof setTimeout> | undefined;
  const tellIfCurrent = (change: Partial<StreamState>) => {
    if (!link.isOver) tell(change);
  };
  const client = createClient({
    url: socketAddress(),
    lazy: true,
    connectionAckWaitTimeout: ACK_DEADLINE_MS,
    keepAlive: PING_EVERY_MS,
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    retryWait: async (retries) => {
      const pause = Math.min(300 * 2 ** retries, LONGEST_PAUSE_MS);
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random() / 2)));
    },
    connectionParams: async () => {
      if (link.ownAuthorization) return { authorization: link.ownAuthorization };
      if (link.isRefused && link.token) await replaceRefused(link.token);
      link.isRefused = false;
      link.token = await freshToken();
      return link.token ? { authorization: `Bearer ${link.token}` } : {};
    },
    on: {
      connecting: (isRetry) => {
        if (isRetry) tellIfCurrent({ phase: "reconnecting", reconnects: state.reconnects + 1 });
      },
      connected: () => tellIfCurrent({ phase: "live" }),
      closed: (event) => {
        clearTimeout(pongDeadline);
        link.isRefused = event instanceof CloseEvent && event.code === CLOSED_FORBIDDEN;
        if (state.phase === "live") tellIfCurrent({ phase: "reconnecting" });
      },
      ping: (isReceived) => {
        if (!isReceived) pongDeadline = setTimeout(() => client.terminate(), PONG_DEADLINE_MS);
      },
      pong: (isReceived) => {
        if (isReceived) clearTimeout(pongDeadline);
      },
    },
  });
  return client;
}

/** Starts a subscription; returns the function that stops it. */
export function subscribe(
  operation: { query: string; operationName?: string | null; variables?: any },
  document: DocumentNode,
  ownAuthorization: string | undefined,
  sink: Sink,
): () => void {
  tell({ ...IDLE, phase: "connecting" });
  // graphql-ws sends this very object again after a reconnect, so moving the cursor in it is what resumes the stream.
  const payload = {
    query: operation.query,
    variables: { ...operation.variables },
    ...(operation.operationName && { operationName: operation.operationName }),
  };
  const resumes = declaresCursor(document);
  const link: Link = { ownAuthorization, token: null, isRefused: false, isOver: false };
  const client = connect(link);
  let lastSequence = 0;
  let hasRenewed = false;
  let unsubscribe = () => {};

  const end = (phase: StreamPhase) => {
    link.isOver = true;
    tell({ phase });
    void client.dispose();
  };
  const receive = (answer: GraphQLAnswer) => {
    hasRenewed = false;
    const batch = logBatchIn(answer);
    const fresh = (batch?.lines ?? []).filter(({ sequence }) => sequence > lastSequence);
    if (batch) {
      lastSequence = Math.max(lastSequence, batch.lastSequence);
      if (resumes) payload.variables = { ...payload.variables, [CURSOR_VARIABLE]: lastSequence };
    }
    tell({ events: state.events + 1, lines: [...state.lines, ...fresh].slice(-LINES_KEPT) });
    sink.next(answer);
  };
  const fail = async (error: unknown) => {
    const isRefused = error instanceof CloseEvent && error.code === CLOSED_UNAUTHORIZED;
    if (isRefused && link.token && !hasRenewed && (await replaceRefused(link.token))) {
      hasRenewed = true;
      if (!link.isOver) start();
      return;
    }
    if (link.isOver) return;
    end("failed");
    sink.error(error instanceof CloseEvent ? fault(`Socket closed: ${error.code} ${error.reason}`) : error);
  };
  const start = () => {
    unsubscribe = client.subscribe(payload, {
      next: (answer) => receive(answer as GraphQLAnswer),
      error: (error) => void fail(error),
      complete: () => {
        if (link.isOver) return;
        end("complete");
        sink.complete();
      },
    });
  };
  start();
  return () => {
    if (link.isOver) return;
    end("stopped");
    unsubscribe();
  };
}
