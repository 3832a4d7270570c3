/**
 * How GraphiQL reaches the API: queries and mutations by POST, subscriptions by WebSocket, both as the visitor who is
 * signed in. An `Authorization` typed into the Headers editor wins over the session.
 */

import type { Fetcher, FetcherParams } from "@graphiql/toolkit";
import { getOperationAST, Kind, parse, type DocumentNode } from "graphql";
import { refusesToken, sessionIn, type GraphQLAnswer } from "./contract";
import { fillIn, remember } from "./placeholders";
import * as session from "./session";
import * as stream from "./stream";

const INTROSPECTION = "IntrospectionQuery";

/**
 * The operation as the query text says, because GraphiQL reads the text a moment late: ▶ pressed right after a change of
 * tab comes with the name and the syntax tree of the tab before.
 */
function settle(params: FetcherParams): { operation: FetcherParams; document: DocumentNode | null } {
  let document: DocumentNode;
  try {
    document = parse(params.query);
  } catch {
    return { operation: params, document: null }; // The server words syntax errors.
  }
  const operations = document.definitions.filter((definition) => definition.kind === Kind.OPERATION_DEFINITION);
  const isNamed = operations.some(({ name }) => name?.value === params.operationName);
  const operationName = isNamed || operations.length !== 1 ? params.operationName : operations[0]?.name?.value;
  return { operation: { ...params, operationName: operationName ?? null }, document };
}

function authorizationIn(headers: Record<string, unknown>): string | undefined {
  const name = Object.keys(headers).find((key) => key.toLowerCase() === "authorization");
  return name === undefined ? undefined : String(headers[name]);
}

async function send(operation: FetcherParams, headers: Record<string, string>): Promise<GraphQLAnswer> {
  const token = authorizationIn(headers) ? null : await session.freshToken();
  const withToken = (value: string | null) => (value ? { ...headers, authorization: `Bearer ${value}` } : headers);
  let answer = await session.post(operation, withToken(token));
  if (token && refusesToken(answer) && (await session.replaceRefused(token))) {
    answer = await session.post(operation, withToken(await session.freshToken()));
  }
  const granted = sessionIn(answer);
  if (granted) session.adopt(granted);
  remember(answer);
  return answer;
}

export const fetcher: Fetcher = (params, options = {}) => {
  const headers: Record<string, string> = options.headers ?? {};
  const { operation, document } = settle(params);
  if (operation.variables) operation.variables = fillIn(operation.variables);
  if (!document || getOperationAST(document, operation.operationName)?.operation !== "subscription") {
    if (operation.operationName !== INTROSPECTION) stream.clear();
    return send(operation, headers) as ReturnType<Fetcher>;
  }
  return {
    subscribe: (sink: any) => ({
      unsubscribe: stream.subscribe(operation, document, authorizationIn(headers), sink),
    }),
  };
};
