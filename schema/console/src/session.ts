/**
 * Who is signed in on this page: tokens in memory and, so that a reload keeps them, in this tab's sessionStorage.
 *
 * Invariant: a refresh token is spent once. One renewal runs at a time, and a duplicated browser tab, which starts with
 * a copy of the same tokens, hears of the successor over a BroadcastChannel instead of spending the old one again.
 */

import { fault, RENEW, sessionIn, SIGN_IN, SIGN_OUT, type Granted, type GraphQLAnswer } from "./contract";

export interface Session {
  accessToken: string;
  refreshToken: string;
  expiresAtMs: number;
  username: string;
  role: string;
}

interface State {
  session: Session | null;
  /** Why nobody is signed in any more, for the sign-in form. */
  notice: string | null;
}

const KEY = "switchyard:session";
const RENEW_BEFORE_MS = 45_000;
const REQUEST_DEADLINE_MS = 60_000;

export const ENDPOINT = location.pathname;

const listeners = new Set<() => void>();
const channel = new BroadcastChannel("switchyard:session");
let state: State = { session: stored(), notice: null };
let renewal: Promise<boolean> | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

function stored(): Session | null {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  } catch {
    return null;
  }
}

function become(session: Session | null, notice: string | null = null): void {
  state = { session, notice };
  if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
  else sessionStorage.removeItem(KEY);
  planRenewal();
  listeners.forEach((listener) => listener());
}

function planRenewal(): void {
  clearTimeout(timer);
  if (!state.session) return;
  // A token that lives shorter than the margin is renewed half way, not in a loop.
  const left = state.session.expiresAtMs - Date.now();
  timer = setTimeout(() => void renew(), Math.min(Math.max(left - RENEW_BEFORE_MS, left / 2, 1_000), 2 ** 31 - 1));
}

channel.onmessage = ({ data }: MessageEvent<{ spent: string; session: Session | null }>) => {
  if (state.session?.refreshToken === data.spent) become(data.session, data.session ? null : "Signed out in another tab.");
};
planRenewal();

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function current(): State {
  return state;
}

/** Takes over the session that an operation granted. */
export function adopt(granted: Granted): void {
  const spent = state.session?.refreshToken;
  const session: Session = {
    accessToken: granted.accessToken,
    refreshToken: granted.refreshToken,
    expiresAtMs: Date.parse(granted.expiresAt),
    username: granted.user.username,
    role: granted.user.role,
  };
  become(session);
  if (spent) channel.postMessage({ spent, session });
}

/** One operation over HTTP, as it is: no token is added, nothing is repeated. Rejects when no GraphQL answer arrives. */
export async function post(body: object, headers: Record<string, string> = {}): Promise<GraphQLAnswer> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(ENDPOINT, {
      method: "POST",
      headers: {
        accept: "application/graphql-response+json, application/json;q=0.9",
        "content-type": "application/json",
        ...headers,
      },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_DEADLINE_MS),
    });
    text = await response.text();
  } catch (error) {
    throw fault(`The server gave no answer: ${error instanceof Error ? error.message : String(error)}`);
  }
  try {
    return JSON.parse(text) as GraphQLAnswer;
  } catch {
    throw fault(`HTTP ${response.status}: ${text.slice(0, 500) || response.statusText || "an empty answer"}`);
  }
}

/** The access token, renewed first when it is about to expire; null when nobody is signed in. */
export async function freshToken(): Promise<string | null> {
  if (state.session && state.session.expiresAtMs - Date.now() < 2_000) await renew();
  return state.session?.accessToken ?? null;
}

/** Renews because the server refused `token`; true when there is another one to try. */
export async function replaceRefused(token: string): Promise<boolean> {
  if (!state.session) return false;
  return state.session.accessToken !== token || (await renew());
}

function renew(): Promise<boolean> {
  renewal ??= spendRefreshToken().finally(() => {
    renewal = null;
  });
  return renewal;
}

async function spendRefreshToken(): Promise<boolean> {
  const before = state.session;
  if (!before) return false;
  let answer: GraphQLAnswer;
  try {
    answer = await post({ query: RENEW, variables: { input: { refreshToken: before.refreshToken } } });
  } catch {
    return false; // The server is away; the session may well hold, and the next operation asks again.
  }
  if (state.session !== before) return state.session !== null; // Signed out, in again or renewed meanwhile.
  const granted = sessionIn(answer);
  if (granted) {
    adopt(granted);
    return true;
  }
  if (answer.errors?.some(({ extensions }) => extensions?.code === "UNAUTHORIZED")) {
    become(null, "Your session has ended. Sign in again.");
  }
  return false;
}

/** Signs in; rejects with a message for the visitor. */
export async function signIn(identifier: string, password: string, totpCode: string): Promise<void> {
  const input = { identifier, password, ...(totpCode && { totpCode }) };
  const answer = await post({ query: SIGN_IN, variables: { input } });
  const granted = sessionIn(answer);
  if (!granted) throw fault(answer.errors?.map(({ message }) => message).join("\n") || "The server gave no session.");
  adopt(granted);
}

/** Ends the session here at once and, when the server can be reached, there too. */
export async function signOut(): Promise<void> {
  const token = await freshToken();
  const spent = state.session?.refreshToken;
  become(null);
  if (spent) channel.postMessage({ spent, session: null });
  if (token) await post({ query: SIGN_OUT }, { authorization: `Bearer ${token}` }).catch(() => undefined);
}

