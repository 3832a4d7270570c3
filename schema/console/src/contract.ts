/**
 * Every name of the API that the page itself relies on: signing in, errors, streams and the example placeholders.
 *
 * The example operations (examples.ts) are the only other place that names fields. A test validates both files
 * against the schema, so a renamed field is noticed before a visitor notices it.
 */

export interface Granted {
  accessToken: string;
  refreshToken: string;
  expiresAt: string;
  user: { username: string; role: string };
}

export interface GraphQLAnswer {
  data?: Record<string, any> | null;
  errors?: ReadonlyArray<{
    message: string;
    path?: ReadonlyArray<string | number>;
    extensions?: Record<string, any>;
  }>;
}

/** An error whose message is all there is to see: GraphiQL prints the stack of others beside the answer. */
export function fault(message: string): Error {
  const error = new Error(message);
  delete error.stack;
  return error;
}

export const SIGN_IN = /* GraphQL */ `
  mutation SignIn($input: LoginInput!) {
    login(input: $input) {
      accessToken
      refreshToken
      expiresAt
      user {
        username
        role
      }
    }
  }
`;

export const RENEW = /* GraphQL */ `
  mutation RenewSession($input: RefreshSessionInput!) {
    refreshSession(input: $input) {
      accessToken
      refreshToken
      expiresAt
      user {
        username
        role
      }
    }
  }
`;

export const SIGN_OUT = /* GraphQL */ `
  mutation SignOut {
    logout {
      __typename
    }
  }
`;

/** The session in an answer to one of the operations above, or to the visitor's own `login`. */
export function sessionIn(answer: GraphQLAnswer): Granted | null {
  const payload = answer.data?.login ?? answer.data?.refreshSession;
  const complete = payload?.accessToken && payload.refreshToken && payload.expiresAt && payload.user?.username;
  return complete ? payload : null;
}

/** Whether the answer refuses the token it came with; a refused password is no such thing. */
export function refusesToken(answer: GraphQLAnswer): boolean {
  return (answer.errors ?? []).some(
    ({ extensions, path }) => extensions?.code === "UNAUTHORIZED" && path?.[0] !== "login" && path?.[0] !== "refreshSession",
  );
}

export interface LogLine {
  sequence: number;
  timestamp?: string;
  level?: string;
  message?: string;
  stage?: string | null;
}

/** The variable that a reconnecting log stream moves forward. */
export const CURSOR_VARIABLE = "afterSequence";

/** The lines and the cursor of one event of the `logs` subscription; null for any other event. */
export function logBatchIn(answer: GraphQLAnswer): { lines: LogLine[]; lastSequence: number } | null {
  for (const value of Object.values(answer.data ?? {})) {
    if (value && typeof value === "object" && Array.isArray(value.lines)) {
      const lines: LogLine[] = value.lines.filter((line: LogLine) => typeof line?.sequence === "number");
      return { lines, lastSequence: value.lastSequence ?? lines.at(-1)?.sequence ?? 0 };
    }
  }
  return null;
}

/** The tool that the example job uses; the first one listed stands in when there is none of this slug. */
const EXAMPLE_TOOL = "catalogue";

/** Ids worth remembering in an answer, by the placeholder that stands for them in variables. */
export function idsIn(answer: GraphQLAnswer): Record<string, string> {
  const data = answer.data ?? {};
  const tools = (data.tools?.edges ?? []).map((edge: any) => edge?.node);
  const tool = tools.find((node: any) => node?.slug === EXAMPLE_TOOL) ?? tools[0];
  const found = {
    "@tool": tool?.id,
    "@job": data.createJob?.job?.id,
    "@run": (data.createJob ?? data.runJob)?.run?.id,
    "@project": data.createProject?.project?.id,
    "@deployment": (data.createDeployment ?? data.redeploy)?.deployment?.id,
  };
  return Object.fromEntries(Object.entries(found).filter(([, id]) => typeof id === "string")) as Record<string, string>;
}

/** Where a placeholder gets its value, for the message shown when it has none yet. */
export const PLACEHOLDER_SOURCES: Record<string, string> = {
  "@tool": "the tab “Tools”",
  "@job": "the tab “CreateJob”",
  "@run": "the tab “CreateJob”",
  "@project": "the tab “CreateProject”",
  "@deployment": "the tab “Deploy”",
};
