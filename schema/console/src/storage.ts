/**
 * What GraphiQL keeps between visits (tabs, history, theme) goes to localStorage as usual, but no password or token
 * that was typed into an editor: the values of fields so named are blanked before they are written.
 */

const SECRET = /("?\w*(?:password|token|secret|totpCode)"?\s*:\s*)("""[^]*?"""|"(?:[^"\\\n]|\\.)*"?)/gi;

function redact(text: string): string {
  return text.replace(SECRET, '$1""');
}

/** Redacts every string of a JSON document, or the text itself where it is none (GraphiQL stores both kinds). */
function redactStored(text: string): string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return redact(text);
  }
  // Variables are JSON too; they are the editor's text and must keep their layout.
  const isEnvelope = parsed !== null && typeof parsed === "object" && ("tabs" in parsed || "queries" in parsed || "favorites" in parsed);
  return isEnvelope
    ? JSON.stringify(parsed, (_key, value) => (typeof value === "string" ? redact(value) : value))
    : redact(text);
}

const PREFIX = "graphiql:";
// The side pane takes a third of the window unless told otherwise, more than a form or a list of types needs.
const DEFAULTS: Record<string, string> = { [`${PREFIX}docExplorerFlex`]: "0.28" };

function ownKeys(): string[] {
  return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
}

export const storage = {
  getItem: (key: string) => localStorage.getItem(key) ?? DEFAULTS[key] ?? null,
  setItem: (key: string, value: string) => localStorage.setItem(key, redactStored(value)),
  removeItem: (key: string) => localStorage.removeItem(key),
  get length() {
    return ownKeys().length;
  },
  clear() {
    for (const key of ownKeys()) localStorage.removeItem(key);
  },
};
