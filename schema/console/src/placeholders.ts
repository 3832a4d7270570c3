/**
 * Placeholders such as `@run` in variables stand for the ids of the last things made or listed on this page, so the
 * tour needs no copying. They are filled in just before an operation leaves; the editor keeps what was typed.
 */

import { fault, idsIn, PLACEHOLDER_SOURCES, type GraphQLAnswer } from "./contract";

const KEY = "switchyard:ids";

function known(): Record<string, string> {
  return JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
}

export function remember(answer: GraphQLAnswer): void {
  const found = idsIn(answer);
  if (Object.keys(found).length > 0) {
    sessionStorage.setItem(KEY, JSON.stringify({ ...known(), ...found }));
  }
}

/** A copy of the variables with every known placeholder replaced; throws, saying what to do, when one has no value yet. */
export function fillIn(variables: unknown): any {
  const ids = known();
  const fill = (value: unknown): unknown => {
    if (typeof value === "string" && value in PLACEHOLDER_SOURCES) {
      const id = ids[value];
      if (!id) throw fault(`${value} has no value yet: run ${PLACEHOLDER_SOURCES[value]} first, or put an id here.`);
      return id;
    }
    if (Array.isArray(value)) return value.map(fill);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, fill(inner)]));
    }
    return value;
  };
  return fill(variables);
}
