/** Signing in and out: the “Account” pane of the sidebar, and the chip at the top right that opens it. */

import { Button, useGraphiQL, useGraphiQLActions, type GraphiQLPlugin } from "@graphiql/react";
import { useEffect, useState, useSyncExternalStore, type SyntheticEvent } from "react";
import { current, signIn, signOut, subscribe, type Session } from "./session";

export const ACCOUNT_PLUGIN: GraphiQLPlugin = { title: "Account", icon: AccountIcon, content: AccountPane };

function useSession() {
  return useSyncExternalStore(subscribe, current);
}

function AccountIcon() {
  return (
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round">
      <circle cx="12" cy="8" r="4" />
      <path d="M4 21c0-4.4 3.6-7 8-7s8 2.6 8 7" />
    </svg>
  );
}

function AccountPane() {
  const { session, notice } = useSession();
  return (
    <section className="account" aria-label="Account">
      <h2>Account</h2>
      {session ? <SignedIn session={session} /> : <SignInForm notice={notice} />}
      <footer>
        <a href="graphql/assets/third-party-notices.txt" target="_blank" rel="noreferrer">
          Third-party notices
        </a>
      </footer>
    </section>
  );
}

function SignedIn({ session }: { session: Session }) {
  return (
    <>
      <p className="account-who" role="status">
        Signed in as <b>{session.username}</b> <span className="account-role">{session.role}</span>
      </p>
      <p>
        Every operation on this page now carries your access token, subscriptions too. It is renewed by itself and
        forgotten when this browser tab closes.
      </p>
      <Button type="button" onClick={() => void signOut()}>
        Sign out
      </Button>
    </>
  );
}

function SignInForm({ notice }: { notice: string | null }) {
  const [failure, setFailure] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const [hasCode, setHasCode] = useState(false);

  async function submit(event: SyntheticEvent<HTMLFormElement>) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    const text = (name: string) => String(fields.get(name) ?? "");
    setBusy(true);
    setFailure(null);
    try {
      await signIn(text("identifier").trim(), text("password"), text("totpCode").trim());
    } catch (error) {
      setFailure(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  }

  return (
    <form onSubmit={(event) => void submit(event)}>
      <p>Sign in once and every operation on this page runs as you.</p>
      <label>
        E-mail or username
        <input name="identifier" autoComplete="username" autoCapitalize="none" spellCheck={false} required autoFocus />
      </label>
      <label>
        Password
        <input name="password" type="password" autoComplete="current-password" required />
      </label>
      {hasCode ? (
        <label>
          Two-factor code
          <input name="totpCode" inputMode="numeric" autoComplete="one-time-code" autoFocus />
        </label>
      ) : (
        <button type="button" className="account-link" onClick={() => setHasCode(true)}>
          I have a two-factor code
        </button>
      )}
      {(failure ?? notice) && (
        <p className="account-failure" role="alert">
          {failure ?? notice}
        </p>
      )}
      <Button type="submit" className="account-submit" disabled={isBusy}>
        {isBusy ? "Signing in…" : "Sign in"}
      </Button>
    </form>
  );
}

/** GraphiQL keeps the width of its panes to itself: only its own sidebar button can bring back a pane that is folded away. */
function openPane(): void {
  document.querySelector<HTMLButtonElement>('.graphiql-sidebar [aria-label="Show Account"]')?.click();
}

/** The product's name and who is signed in; asks for the schema again when signing in may have opened it. */
export function AccountChip() {
  const { session } = useSession();
  const { introspect } = useGraphiQLActions();
  const hasSchema = useGraphiQL(({ schema }) => schema !== null);
  const isSignedIn = session !== null;
  useEffect(() => {
    if (isSignedIn && !hasSchema) introspect();
    // Only a change of who is signed in is a reason to ask again.
  }, [isSignedIn]);
  return (
    <span className="brand">
      <button type="button" className="brand-chip" onClick={openPane}>
        {session ? `${session.username} · ${session.role}` : "Not signed in"}
      </button>
      <span className="brand-name">Switchyard</span>
    </span>
  );
}
