"""Signing in at a provider: from the app to GitHub or Google, back with the browser, and to a session.

Invariants: the browser that began is the one that ends it, because state and code are bound to its cookie, so nobody is
signed in to somebody else's account, and nobody's sign-in opens somebody else's browser; a state and a code work once,
for one provider and one flow (those of `resolvers/github.py`, which connects repositories, are others); codes of
providers are exchanged on redemption only, so who opens a link makes no session. What was begun in a session adds an
identity to its account and is ended by that session. Who gets in is decided in `resolvers/identities.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from adapters import github, github_api, one_time_codes, openid
from adapters.github import GitHub
from errors import (
    Conflict,
    Forbidden,
    NotFound,
    RateLimitExceeded,
    ServiceUnavailable,
    SwitchyardError,
    ValidationFailed,
)
from models.audit import AuditEvent
from models.connections import IdentityProvider
from models.database import Row
from models.permissions import Actor, Permission
from models.users import Account
from resolvers import access, identities, proof, sessions
from resolvers.identities import Found
from resolvers.redirects import valid_redirect, with_query
from resolvers.sessions import SignedIn

STATE_SECONDS: Final = 600
CODE_SECONDS: Final = 60
SECOND_TRY_SECONDS: Final = 300
BROWSER_SECONDS: Final = 1_200
"""How long a browser is known: longer than state, code and second tries together."""

_STATE: Final = "sign-in-state"
_CODE: Final = "sign-in-code"
_MAX_PROVIDER_CODE_LENGTH: Final = 2_048
_REVOKE_SECONDS: Final = 2.0
_BROWSER: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_CODE_MISSING: Final = frozenset({"totpRequired", "totpWrong"})
_MAIL_SCOPES: Final = frozenset({"user:email", "user"})


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what its cookie has to say when it is back."""

    authorization_url: str
    browser: str


@dataclass(frozen=True, slots=True)
class Completed:
    """What came of it: a session, or none when an identity was added to the account of a session that goes on."""

    account: Account
    identity: Row
    signed_in: SignedIn | None
    is_new_account: bool


async def start(
    actor: Actor, provider: IdentityProvider, *, redirect_to: str, password: str | None, browser: str | None
) -> Begun:
    """Send somebody to a provider; `browser` is what their cookie says already, if they have one.

    In a session it is to add the provider to the account, which needs the password or a recent sign-in. Raises
    ValidationFailed when `redirect_to` is no page of an allowed app or the proof is missing, Forbidden for access
    tokens, ServiceUnavailable when the provider is not set up here or does not answer, or Redis is away.
    """
    target = valid_redirect(redirect_to)
    if provider not in identities.set_up():
        name = identities.PROVIDER_NAMES[provider]
        raise ServiceUnavailable(
            f"{name} is not set up here: the operator has to give {provider}_CLIENT_ID and {provider}_CLIENT_SECRET."
        )
    if not actor.is_anonymous:
        access.allow(actor, Permission.ACCOUNT_WRITE)
        await proof.prove_again(actor, password, act="linkIdentity")
    browser = browser if browser is not None and _BROWSER.fullmatch(browser) else secrets.token_urlsafe(32)
    verifier = secrets.token_urlsafe(48)  # RFC 7636 §4.1: 43 to 128 characters
    nonce = secrets.token_urlsafe(32)
    state = await one_time_codes.keep(
        sessions.settings(),
        _STATE,
        {
            "provider": provider.value,
            "browser": _hash_of(browser),
            "verifier": verifier,
            "nonce": nonce,
            "redirectTo": target,
            **_session_of(actor),
        },
        seconds=STATE_SECONDS,
    )
    redirect_uri = _callback_url(provider)
    if provider is IdentityProvider.GOOGLE:
        url = await openid.current().authorization_url(
            redirect_uri=redirect_uri, state=state, verifier=verifier, nonce=nonce
        )
    else:
        url = github.current().authorization_url(
            redirect_uri=redirect_uri, state=state, verifier=verifier, scopes=github.SIGN_IN_SCOPES
        )
    return Begun(url, browser)


async def come_back(
    provider: IdentityProvider,
    *,
    state: str,
    code: str | None,
    error: str | None,
    issuer: str | None,
    browser: str | None,
) -> str | None:
    """Where a browser goes that a provider sent back, with a code or an error; None for a state of no sign-in.

    Raises ValidationFailed when the state is another provider's or was begun in another browser: it is used up then.
    """
    settings = sessions.settings()
    begun = await one_time_codes.take(settings, _STATE, state)
    if begun is None:
        return None
    if begun["provider"] != provider.value or not _is_same_browser(begun, browser):
        raise ValidationFailed("This sign-in was begun in another browser, or elsewhere; start again.")
    name = provider.value.lower()
    is_other_issuer = issuer is not None and provider is IdentityProvider.GOOGLE and issuer != settings.google_issuer
    if not code or error or len(code) > _MAX_PROVIDER_CODE_LENGTH or is_other_issuer:  # RFC 9207 §2.4
        refusal = "access_denied" if error == "access_denied" else "failed"
        return with_query(begun["redirectTo"], provider=name, error=refusal)
    ours = await one_time_codes.keep(settings, _CODE, {**begun, "code": code}, seconds=CODE_SECONDS)
    return with_query(begun["redirectTo"], provider=name, code=ours)


async def complete(actor: Actor, *, code: str, totp_code: str | None, browser: str | None) -> Completed:
    """Redeem the code that came with the browser: sign in, or add the identity to the account of the session.

    Raises Conflict when the code is wrong, used, too old, or of another browser or session, and whatever
    `resolvers/identities.py` refuses. What may pass when tried again has a code for that in `details.code`.
    """
    begun = await one_time_codes.take(sessions.settings(), _CODE, code)
    if begun is None or not _is_same_browser(begun, browser) or not _is_same_session(begun, actor):
        # In the same words: who holds somebody else's code learns nothing, and the code is used up.
        refused = Conflict(
            "This sign-in was used already, is too old or is another's; start again.", reason="codeRefused"
        )
        await _note(actor, "login", refused, None if begun is None else str(begun["provider"]))
        raise refused
    is_link = begun["userId"] is not None
    found: Found | None = None
    try:
        found = await _identified(begun)
        if is_link:
            account, identity = await identities.link(actor, found)
            return Completed(account, identity, None, is_new_account=False)
        entered = await identities.sign_in(found, totp_code=totp_code, origin=actor.origin)
    except SwitchyardError as refusal:
        reason = refusal.details.get("reason")
        if reason not in _CODE_MISSING:  # those are written down where they are found
            await _note(actor, "linkIdentity" if is_link else "login", refusal, begun["provider"], found)
        if found is not None and (
            reason in _CODE_MISSING or isinstance(refusal, RateLimitExceeded | ServiceUnavailable)
        ):
            refusal.details = {**refusal.details, "code": await _keep_for_second_try(begun, found)}
        raise
    return Completed(entered.signed_in.account, entered.identity, entered.signed_in, is_new_account=entered.is_new)


# -- what the provider says


async def _identified(begun: Mapping[str, Any]) -> Found:
    provider = IdentityProvider(begun["provider"])
    if "subject" in begun:
        return Found(provider, begun["subject"], begun["email"], begun["login"], begun["name"])
    if provider is IdentityProvider.GOOGLE:
        return await _from_google(begun)
    return await _from_github(begun)


async def _from_google(begun: Mapping[str, Any]) -> Found:
    identified = await openid.current().identify(
        begun["code"],
        verifier=begun["verifier"],
        redirect_uri=_callback_url(IdentityProvider.GOOGLE),
        nonce=begun["nonce"],
    )
    login = identified.email or identified.name or identified.subject
    return Found(
        IdentityProvider.GOOGLE,
        identified.subject,
        identities.verified_address(identified.email),
        login[: identities.MAX_LOGIN_LENGTH],
        identified.name,
    )


async def _from_github(begun: Mapping[str, Any]) -> Found:
    client = github.current()
    granted = await client.exchange_code(
        begun["code"], verifier=begun["verifier"], redirect_uri=_callback_url(IdentityProvider.GITHUB)
    )
    try:
        if not _MAIL_SCOPES & set(granted.scopes):
            raise Conflict("GitHub does not show your e-mail address; allow it.", reason="scopesMissing")
        account = await github_api.account(client, granted.token)
        email = await github_api.verified_email(client, granted.token)
    except (github.TokenRefused, github.Refused, Forbidden, NotFound):
        raise ServiceUnavailable("GitHub did not say who you are; start again in a moment.") from None
    finally:
        await _give_back(client, granted.token)
    return Found(
        IdentityProvider.GITHUB, account.subject, identities.verified_address(email), account.login, account.login
    )


async def _give_back(client: GitHub, token: str) -> None:
    """Make the token worthless, now that it has said who somebody is; GitHub's limits end it if this does not."""
    with suppress(SwitchyardError, TimeoutError):
        async with asyncio.timeout(_REVOKE_SECONDS):
            await client.revoke_token(token)


async def _keep_for_second_try(begun: Mapping[str, Any], found: Found) -> str:
    """Keep what the provider said under another code, for as long as is left of the five minutes."""
    until = float(begun.get("until") or time.time() + SECOND_TRY_SECONDS)
    kept = {name: begun[name] for name in ("provider", "browser", "userId", "sessionId")}
    return await one_time_codes.keep(
        sessions.settings(),
        _CODE,
        {
            **kept,
            "subject": found.subject,
            "email": found.email,
            "login": found.login,
            "name": found.name,
            "until": str(until),
        },
        seconds=max(1, int(until - time.time())),
    )


# -- inside


def _session_of(actor: Actor) -> dict[str, str | None]:
    """The session that began, if one did."""
    return {
        "userId": None if actor.user_id is None else str(actor.user_id),
        "sessionId": None if actor.session_id is None else str(actor.session_id),
    }


def _is_same_session(begun: Mapping[str, Any], actor: Actor) -> bool:
    """Whether a flow that began in a session is ended by it; one that began without any is for everybody."""
    known = {name: begun[name] for name in ("userId", "sessionId")}
    return known["userId"] is None or known == _session_of(actor)


def _is_same_browser(begun: Mapping[str, Any], browser: str | None) -> bool:
    return browser is not None and hmac.compare_digest(begun["browser"], _hash_of(browser))


def _hash_of(browser: str) -> str:
    return hashlib.sha256(browser.encode("utf-8", "replace")).hexdigest()


def _callback_url(provider: IdentityProvider) -> str:
    return f"{sessions.settings().base_url}/auth/{provider.value.lower()}/callback"


async def _note(
    actor: Actor, action: str, refusal: SwitchyardError, provider: str | None, found: Found | None = None
) -> None:
    """Write a refusal down, for the account that it was about if there is one."""
    account = await identities.account_of(found) if found is not None and actor.is_anonymous else None
    target = account["user_id"] if account is not None else actor.user_id
    await AuditEvent.record(
        actor,
        action,
        target_type=None if target is None else "user",
        target_id=target,
        outcome=refusal.code.value,
        details={"provider": provider, "reason": refusal.details.get("reason")},
    )
