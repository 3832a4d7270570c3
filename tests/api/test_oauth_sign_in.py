"""Signing in with GitHub and Google through the API, against stand-ins: who gets in, and who does not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import jwt
import pyotp
import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis.asyncio import Redis

from adapters.secret_box import SecretBox
from models.ids import Prefix, decode_id, encode_id, new_id
from models.sealed import TOTP_SECRET
from schema.credentials import oauth_cookie
from settings import Settings, parse_keyring
from tests.api.test_account_life import Mailbox, token_of
from tests.conftest import ApiServer, Programs, Template, WorkerFactory
from tests.factories import LOGIN, NOBODYS_ID, Person, new_user, sign_in
from tests.harness import github_accounts
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket
from tests.harness.github_accounts import location_of, parameter
from tests.harness.github_server import Fault as GitHubFault
from tests.harness.github_server import GitHubServer
from tests.harness.oauth_browsers import COMPLETE, IDENTITY, START, Browser, somebody
from tests.harness.openid_server import CLIENT_ID, Claims, Fault, Forgery, OpenIdServer
from tests.harness.waiting import eventually

SETTINGS = {"EMAIL_CONFIRMATION": "false", "WORKER_CRAWL_SLOTS": "0", "WORKER_BUILD_SLOTS": "0"}
APP = "https://app.example.com"
MINE = f"{{ identities {{ {IDENTITY} }} }}"
UNLINK = (
    f"mutation ($input: UnlinkIdentityInput!) {{ unlinkIdentity(input: $input) {{ identities {{ {IDENTITY} }} }} }}"
)
PROVIDERS = "{ signInProviders }"
PASSWORD = "correct horse battery staple"


@pytest_asyncio.fixture(scope="module")
async def github() -> AsyncIterator[GitHubServer]:
    """The stand-in."""
    async with GitHubServer().running() as server:
        yield server
        assert server.violations == []


@pytest_asyncio.fixture(scope="module")
async def google() -> AsyncIterator[OpenIdServer]:
    """The stand-in."""
    async with OpenIdServer().running() as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template, github: GitHubServer, google: OpenIdServer) -> ApiServer:
    """An API whose providers are the stand-ins."""
    programs.environment.update({**github.settings, **google.settings, "ALLOWED_ORIGINS": APP})
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    return server


@pytest_asyncio.fixture(scope="module")
async def strict(api_server: ApiServer) -> AsyncIterator[Browser]:
    """A browser at a second API: addresses have to be confirmed, there is no GitHub, and few attempts are allowed."""
    second = await api_server.second(
        EMAIL_CONFIRMATION="true", GITHUB_CLIENT_ID="", RATE_LIMITS="true", RATE_LIMIT_AUTH_PER_MINUTE="2"
    )
    async with Browser(second.graphql_url) as opened:
        yield opened


@pytest.fixture
async def browser(api_server: ApiServer) -> AsyncIterator[Browser]:
    async with Browser(api_server.graphql_url) as opened:
        yield opened


@pytest.fixture
async def other_browser(api_server: ApiServer) -> AsyncIterator[Browser]:
    async with Browser(api_server.graphql_url) as opened:
        yield opened


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client, password=PASSWORD)


@pytest.fixture(autouse=True)
def fresh(github: GitHubServer, google: OpenIdServer) -> None:
    """Whoever signs in at the stand-ins has never been seen."""
    github.browser_login = f"octo-{secrets.token_hex(5)}"
    google.browser = somebody()


async def refused(attempt: Awaitable[Any]) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await attempt
    error = caught.value.errors[0]
    extensions = {name: value for name, value in error["extensions"].items() if name != "requestId"}
    return {"message": error["message"], "reason": extensions["details"].get("reason"), **extensions}


async def everything(db: asyncpg.Connection) -> Any:
    """What no refusal may change."""
    return await db.fetch(
        """SELECT u.id, u.password_hash, u.email_verified_at, u.last_login_at,
                  (SELECT count(*) FROM sessions s WHERE s.user_id = u.id) AS sessions,
                  (SELECT array_agg(i.subject ORDER BY i.id) FROM identities i WHERE i.user_id = u.id) AS identities
           FROM users u ORDER BY u.id"""
    )


def key_of(typed_id: str) -> UUID:
    return decode_id(typed_id)[1]


async def trail(db: asyncpg.Connection, user_id: str) -> list[tuple[str, str, Any]]:
    found = await db.fetch(
        "SELECT action, outcome, details FROM audit_events WHERE target_id = $1 ORDER BY id", key_of(user_id)
    )
    return [(each["action"], each["outcome"], json.loads(each["details"]).get("provider")) for each in found]


async def confirm(db: asyncpg.Connection, person: Person) -> None:
    await db.execute("UPDATE users SET email_verified_at = now() WHERE id = $1", key_of(person.id))


async def second_factor(db: asyncpg.Connection, person_id: str, settings_env: dict[str, str]) -> pyotp.TOTP:
    """Switch a second factor on, as if its owner had."""
    secret, user_id = pyotp.random_base32(), key_of(person_id)
    sealed = SecretBox(parse_keyring(SecretStr(settings_env["SECRET_KEYS"]))).seal(
        secret, place=TOTP_SECRET.place(user_id)
    )
    await db.execute("UPDATE users SET sealed_totp = $2, totp_confirmed_at = now() WHERE id = $1", user_id, sealed)
    await db.execute(
        "INSERT INTO recovery_codes (id, user_id, prefix, code_hash, created_at) VALUES ($1, $2, 'abcd', 'x', now())",
        new_id(),
        user_id,
    )
    return pyotp.TOTP(secret)


# -- what is not set up, and where browsers may go


async def test_apps_are_told_which_buttons_to_show(client: GraphQLClient, strict: Browser) -> None:
    assert await client.run(PROVIDERS) == {"signInProviders": ["GITHUB", "GOOGLE"]}
    assert await strict.run(PROVIDERS) == {"signInProviders": ["GOOGLE"]}
    error = await refused(strict.start("GITHUB"))
    assert (error["code"], "GITHUB_CLIENT_ID" in error["message"]) == ("SERVICE_UNAVAILABLE", True)


@pytest.mark.parametrize("target", ["https://evil.example/", f"{APP}.evil.example/", f"{APP}/#token", "/relative"])
async def test_a_browser_is_sent_back_to_allowed_apps_only(browser: Browser, target: str) -> None:
    error = await refused(browser.start("GOOGLE", redirectTo=target))
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "redirectTo"])


async def test_a_socket_cannot_bind_a_browser(graphql_ws_url: str) -> None:
    async with open_socket(graphql_ws_url) as socket:
        await socket.start(START, {"input": {"provider": "GOOGLE", "redirectTo": APP}})
        answer = (await socket.receive())["payload"]
    assert answer["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"


async def test_the_cookie_is_for_the_server_alone(browser: Browser) -> None:
    given = {"input": {"provider": "GOOGLE", "redirectTo": APP}}
    first = await browser.raw(START, given)
    [cookie] = first.headers.get_list("set-cookie")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1200"} <= set(cookie.split("; "))
    # A second tab goes on with it, so that the first can be ended too.
    assert (await browser.raw(START, given)).headers.get_list("set-cookie") == [cookie]


def test_the_cookie_is_the_hosts_alone_where_there_is_tls() -> None:
    assert oauth_cookie(Settings.model_construct(base_url="https://api.example.com")) == "__Host-switchyard_oauth"


async def test_no_more_is_asked_for_than_who_somebody_is(browser: Browser, client: GraphQLClient) -> None:
    assert parameter(await browser.start("GITHUB"), "scope") == "read:user user:email"
    assert parameter(await browser.start("GOOGLE"), "scope") == "openid email profile"


async def test_a_refusal_at_the_provider_reaches_the_app(browser: Browser) -> None:
    state = parameter(await browser.start("GOOGLE", redirectTo=f"{APP}/back?page=1"), "state")
    answer = await browser.visit(f"{browser.origin}/auth/google/callback?error=access_denied&state={state}")
    assert answer.headers["location"] == f"{APP}/back?page=1&provider=google&error=access_denied"


async def test_another_issuers_answer_is_none(browser: Browser) -> None:
    callback = await browser.callback("GOOGLE")
    answer = await browser.visit(callback.replace("iss=", "iss=https://evil.example&was="))
    assert parameter(answer.headers["location"], "error") == "failed"


# -- new accounts, and coming back


@pytest.mark.parametrize("provider", ["GITHUB", "GOOGLE"])
async def test_whoever_comes_first_gets_an_account_and_comes_back_to_it(
    browser: Browser,
    other_browser: Browser,
    google: OpenIdServer,
    github: GitHubServer,
    db: asyncpg.Connection,
    provider: str,
) -> None:
    login = google.browser.email.partition("@")[0] if provider == "GOOGLE" else github.browser_login
    first = await browser.sign_in(provider)
    assert (first["isNewAccount"], first["user"]["username"]) == (True, login)
    assert (first["user"]["email"], first["user"]["emailVerified"]) == (f"{login}@example.com", True)
    again = await other_browser.sign_in(provider)
    assert (again["isNewAccount"], again["user"]) == (False, first["user"])
    [mine] = (await other_browser.run(MINE, token=again["accessToken"]))["identities"]
    assert (mine["provider"], mine["email"], mine["id"]) == (provider, f"{login}@example.com", first["identity"]["id"])
    assert mine["lastUsedAt"] > first["identity"]["lastUsedAt"]
    assert await trail(db, first["user"]["id"]) == [("register", "success", provider), ("login", "success", provider)]
    row = await db.fetchrow("SELECT * FROM users WHERE id = $1", key_of(first["user"]["id"]))
    assert (row["password_hash"], row["last_login_at"] is None) == (None, False)
    if provider == "GITHUB":
        assert github.browser_login not in github.tokens.values(), "what was granted is given back"


async def test_cookies_carry_the_session_if_they_shall(browser: Browser) -> None:
    done = await browser.sign_in("GOOGLE", cookies=True)
    assert (done["accessToken"], done["refreshToken"]) == (None, None)
    assert (await browser.run("{ me { id } }"))["me"]["id"] == done["user"]["id"]
    assert {"switchyard_access", "switchyard_refresh", "switchyard_device"} <= set(browser.http.cookies)


async def test_a_username_that_is_taken_is_made_another(browser: Browser, google: OpenIdServer, person: Person) -> None:
    google.browser = somebody(email=f"{person.username}@elsewhere.example", name="\u0007")
    made = (await browser.sign_in("GOOGLE"))["user"]
    assert made["username"].startswith(person.username[:24])
    assert made["username"] != person.username


@pytest.mark.parametrize("local", ["x", "_-_", "ö" * 20, "a" * 64])
async def test_any_address_makes_a_username(browser: Browser, google: OpenIdServer, local: str) -> None:
    google.browser = somebody(email=f"{local}@{secrets.token_hex(6)}.example")
    assert 3 <= len((await browser.sign_in("GOOGLE"))["user"]["username"]) <= 32


# -- state, cookie and code


async def test_a_state_works_once(browser: Browser) -> None:
    callback = await browser.callback("GOOGLE")
    assert (await browser.visit(callback)).status_code == 303
    assert (await browser.visit(callback)).status_code == 400


async def test_a_state_is_its_providers(browser: Browser) -> None:
    callback = await browser.callback("GOOGLE")
    assert (await browser.visit(callback.replace("/auth/google/", "/auth/github/"))).status_code == 400
    assert (await browser.visit(callback)).status_code == 400, "it is used up"
    assert (await browser.visit(f"{browser.origin}/auth/gitlab/callback?state=x")).status_code == 404
    assert (await browser.visit(f"{browser.origin}/auth/google/callback?code=x")).status_code == 400


@pytest.mark.parametrize("has_begun", [True, False])
async def test_an_attackers_sign_in_is_not_ended_in_a_victims_browser(
    browser: Browser, other_browser: Browser, db: asyncpg.Connection, has_begun: bool
) -> None:
    if has_begun:
        await other_browser.start("GOOGLE")
    before = await everything(db)
    assert (await other_browser.visit(await browser.callback("GOOGLE"))).status_code == 400
    code = await browser.code("GOOGLE")
    assert (await refused(other_browser.complete(code)))["reason"] == "codeRefused"
    assert (await refused(browser.complete(code)))["reason"] == "codeRefused", "it is used up"
    assert await everything(db) == before


async def test_a_code_works_once_and_for_a_minute(
    browser: Browser, settings_env: dict[str, str], db: asyncpg.Connection
) -> None:
    code = await browser.code("GOOGLE")
    await browser.complete(code)
    assert (await refused(browser.complete(code)))["reason"] == "codeRefused"
    before = await everything(db)
    async with Redis.from_url(settings_env["REDIS_URL"]) as redis:
        pattern = f"{settings_env['REDIS_NAMESPACE']}:once:sign-in-code:*"
        others = {key async for key in redis.scan_iter(pattern)}
        code = await browser.code("GOOGLE")
        [mine] = {key async for key in redis.scan_iter(pattern)} - others
        assert 0 < await redis.ttl(mine) <= 60
        await redis.delete(mine)  # as its time would
    assert (await refused(browser.complete(code)))["reason"] == "codeRefused"
    assert await everything(db) == before


async def test_connecting_github_and_signing_in_with_it_are_not_confused(
    browser: Browser, client: GraphQLClient, person: Person, github: GitHubServer, db: asyncpg.Connection
) -> None:
    """Each half of either flow is worthless in the other, and is not used up there."""
    before = await everything(db)
    connecting = await github_accounts.allow(await github_accounts.begin(client, person))
    wrong_path = connecting.replace("/auth/github/", "/auth/google/")
    assert (await browser.visit(wrong_path)).status_code == 400
    to_connect = parameter(await location_of(connecting), "code")
    to_sign_in = await browser.code("GITHUB")
    assert (await refused(browser.complete(to_connect)))["reason"] == "codeRefused"
    assert (await refused(github_accounts.complete(client, person, to_sign_in)))["reason"] == "codeRefused"
    assert await everything(db) == before
    assert (await github_accounts.complete(client, person, to_connect))["login"] == github.browser_login
    done = await browser.complete(to_sign_in)
    assert done["isNewAccount"]
    assert done["user"]["id"] != person.id
    assert await db.fetchval("SELECT count(*) FROM identities WHERE user_id = $1", key_of(person.id)) == 0


async def test_of_many_who_redeem_one_code_one_signs_in(browser: Browser, db: asyncpg.Connection) -> None:
    code = await browser.code("GOOGLE")
    before = await db.fetchval("SELECT count(*) FROM sessions")
    answers = await asyncio.gather(*(browser.raw(COMPLETE, {"input": {"code": code}}) for _ in range(20)))
    errors = [error["extensions"]["details"]["reason"] for each in answers for error in each.json().get("errors", ())]
    assert errors == ["codeRefused"] * 19
    assert await db.fetchval("SELECT count(*) FROM sessions") == before + 1


async def test_two_first_sign_ins_of_one_person_make_one_account(
    browser: Browser, other_browser: Browser, google: OpenIdServer, github: GitHubServer, db: asyncpg.Connection
) -> None:
    """With one identity whose address changes in between, and with two identities that have one address."""
    subject = secrets.token_hex(10)
    for providers in (("GOOGLE", "GOOGLE"), ("GOOGLE", "GITHUB")):
        google.browser = somebody(subject=subject, email=f"{github.browser_login}@example.com")
        codes = [await browser.code(providers[0])]
        if providers[1] == "GOOGLE":
            google.browser = somebody(subject=subject)
        codes.append(await other_browser.code(providers[1]))
        async with db.transaction():
            await db.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")  # nobody can be added for now
            both = asyncio.gather(browser.complete(codes[0]), other_browser.complete(codes[1]))
            await waiting_for_locks(db, 2)
        done = await both
        assert done[0]["user"]["id"] == done[1]["user"]["id"]
        assert sorted(each["isNewAccount"] for each in done) == [False, True]
        subject, github.browser_login = secrets.token_hex(10), f"octo-{secrets.token_hex(5)}"


async def waiting_for_locks(db: asyncpg.Connection, number: int) -> None:
    """Wait until so many transactions of the API wait for one another, or for the test's."""

    async def met() -> bool:
        await db.execute("SELECT pg_stat_clear_snapshot()")
        found = await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(found == number)

    await eventually(met, 5, what=f"{number} that wait for locks")


# -- what a provider says


def hs256_with_the_public_key(server: OpenIdServer, claims: Claims) -> str:
    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': server.keys[0].kid})}.{part(claims)}"
    digest = hmac.digest(server.public_pem(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def changed(**changes: Any) -> Forgery:
    return lambda server, claims: server.sign(
        {name: value for name, value in {**claims, **changes}.items() if value is not None}
    )


def by_another_key(server: OpenIdServer, claims: Claims) -> str:
    stranger = OpenIdServer()
    return stranger.sign(claims, kid=server.keys[0].kid)


FORGERIES: dict[str, Forgery] = {
    "alg none": lambda server, claims: jwt.encode(claims, "", algorithm="none", headers={"kid": server.keys[0].kid}),
    "alg HS256 with the public key": hs256_with_the_public_key,
    "another key": by_another_key,
    "garbage": lambda *_: "a.b.c",
    "another issuer": changed(iss="https://accounts.google.com"),
    "another audience": changed(aud="somebody-else"),
    "no audience": changed(aud=None),
    "several audiences, no party": changed(aud=[CLIENT_ID, "x"], azp=None),
    "another party": changed(azp="somebody-else"),
    "another nonce": changed(nonce="n"),
    "no nonce": changed(nonce=None),
    "expired": lambda server, claims: changed(exp=int(time.time()) - 120)(server, claims),
    "no end": changed(exp=None),
    "from the future": lambda server, claims: changed(iat=int(time.time()) + 600)(server, claims),
    "from yesterday": lambda server, claims: changed(iat=int(time.time()) - 86_400)(server, claims),
    "nobody": changed(sub=None),
    "a number": changed(sub=7),
    "too long": changed(sub="1" * 256),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_token_that_proves_nothing_opens_nothing(
    browser: Browser, google: OpenIdServer, db: asyncpg.Connection, forgery: str
) -> None:
    before, code = await everything(db), await browser.code("GOOGLE")
    google.forge(FORGERIES[forgery])
    error = await refused(browser.complete(code))
    assert (error["code"], error["reason"], "code" in error["details"]) == ("CONFLICT", "codeRefused", False)
    assert await everything(db) == before


async def test_a_token_for_several_that_names_us_is_ours(browser: Browser, google: OpenIdServer) -> None:
    code = await browser.code("GOOGLE")
    google.forge(changed(aud=[CLIENT_ID, "x"]))
    assert (await browser.complete(code))["isNewAccount"]


async def test_keys_may_change(browser: Browser, google: OpenIdServer) -> None:
    await browser.sign_in("GOOGLE")
    google.rotate()
    assert not (await browser.sign_in("GOOGLE"))["isNewAccount"]


@pytest.mark.parametrize("fault", [Fault.BROKEN, Fault.HTML, Fault.HUGE, Fault.CUT_OFF])
async def test_a_google_that_fails_opens_nothing(
    browser: Browser, google: OpenIdServer, db: asyncpg.Connection, fault: Fault
) -> None:
    before, code = await everything(db), await browser.code("GOOGLE")
    google.fail(fault, "token")
    assert (await refused(browser.complete(code)))["code"] == "SERVICE_UNAVAILABLE"
    assert await everything(db) == before


@pytest.mark.parametrize("path", ["access_token", "/user$", "/user/emails"])
@pytest.mark.parametrize("fault", [GitHubFault.BROKEN, GitHubFault.GARBAGE, GitHubFault.UNAUTHORIZED])
async def test_a_github_that_fails_opens_nothing(
    browser: Browser, github: GitHubServer, db: asyncpg.Connection, fault: GitHubFault, path: str
) -> None:
    before, code = await everything(db), await browser.code("GITHUB")
    github.fail(fault, path)
    error = await refused(browser.complete(code))
    assert error["code"] in {"SERVICE_UNAVAILABLE", "CONFLICT"}
    assert await everything(db) == before


@pytest.mark.parametrize("verified", [False, "true", None, 1])
async def test_an_address_that_google_has_not_verified_makes_nothing(
    browser: Browser, google: OpenIdServer, client: GraphQLClient, db: asyncpg.Connection, verified: Any
) -> None:
    for email in (somebody().email, (await new_user(client)).email):
        google.browser = somebody(email=email, email_verified=verified)
        before = await everything(db)
        error = await refused(browser.sign_in("GOOGLE"))
        assert (error["code"], error["reason"]) == ("CONFLICT", "emailNotVerified")
        assert await everything(db) == before


async def test_at_github_only_the_primary_address_counts(
    browser: Browser, github: GitHubServer, person: Person, db: asyncpg.Connection
) -> None:
    await confirm(db, person)
    github.emails[github.browser_login] = [
        {"email": person.email, "primary": True, "verified": False},
        {"email": "other@example.com", "primary": False, "verified": True},
    ]
    before = await everything(db)
    assert (await refused(browser.sign_in("GITHUB")))["reason"] == "emailNotVerified"
    github.emails[github.browser_login] = []
    assert (await refused(browser.sign_in("GITHUB")))["reason"] == "emailNotVerified"
    github.granted_scopes = "read:user"
    try:
        assert (await refused(browser.sign_in("GITHUB")))["reason"] == "scopesMissing"
    finally:
        github.granted_scopes = None
    assert await everything(db) == before


@pytest.mark.parametrize(
    "form",
    ["{local}\uff20example.com", "{local}@\uff45xample.com", "\u212a{rest}@example.com", "{local}\0@example.com"],
)
async def test_what_looks_like_an_address_is_not_somebody_elses(
    browser: Browser, google: OpenIdServer, client: GraphQLClient, db: asyncpg.Connection, form: str
) -> None:
    """A full-width `@` or letter, a Kelvin sign, a NUL: all of them fold to the address of an account."""
    local = f"k{secrets.token_hex(6)}"
    victim = await new_user(client)
    await db.execute(
        "UPDATE users SET email = $2, email_key = $2, email_verified_at = now() WHERE id = $1",
        key_of(victim.id),
        f"{local}@example.com",
    )
    google.browser = somebody(email=form.format(local=local, rest=local[1:]))
    before = await everything(db)
    assert (await refused(browser.sign_in("GOOGLE")))["reason"] == "emailNotVerified"
    assert await everything(db) == before


# -- accounts that are there


async def test_a_confirmed_account_is_linked_and_its_owner_told(
    browser: Browser, google: OpenIdServer, client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    await confirm(db, person)
    google.browser = somebody(email=person.email.upper())
    done = await browser.sign_in("GOOGLE")
    assert (done["isNewAccount"], done["user"]["id"]) == (False, person.id)
    await client.run("{ me { id } }", token=person.token)
    await sign_in(client, person.email, PASSWORD)
    [letter] = await db.fetch(
        "SELECT payload FROM outbox_messages WHERE payload->>'userId' = $1", str(key_of(person.id))
    )
    assert json.loads(letter["payload"])["template"] == "identity_linked"
    assert (await trail(db, person.id))[1:3] == [("linkIdentity", "success", "GOOGLE"), ("login", "success", "GOOGLE")]


async def test_whoever_opened_an_unconfirmed_account_keeps_no_way_into_it(
    browser: Browser,
    other_browser: Browser,
    google: OpenIdServer,
    github: GitHubServer,
    client: GraphQLClient,
    person: Person,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
) -> None:
    """An attacker registers a victim's address, and prepares every way back; then its owner comes with Google."""
    await other_browser.sign_in("GITHUB", token=person.token)
    github.browser_login = f"octo-{secrets.token_hex(5)}"
    await github_accounts.connect(client, person, github, github.browser_login)
    made = await client.run(
        'mutation { createAccessToken(input: {name: "back door", scopes: [READ]}) { token } }', token=person.token
    )
    script_token = made["createAccessToken"]["token"]
    await client.run("{ me { id } }", token=script_token)
    await second_factor(db, person.id, settings_env)
    google.browser = somebody(email=person.email)
    done = await browser.sign_in("GOOGLE")
    assert (done["user"]["id"], done["isNewAccount"], done["user"]["emailVerified"]) == (person.id, False, True)
    for token in (person.token, script_token):
        assert (await refused(client.run("{ me { id } }", token=token)))["code"] == "UNAUTHORIZED"
    login = {"input": {"identifier": person.email, "password": PASSWORD}}
    assert (await refused(client.run(LOGIN, login)))["code"] == "UNAUTHORIZED"
    row = await db.fetchrow("SELECT * FROM users WHERE id = $1", key_of(person.id))
    assert [row[name] for name in ("password_hash", "sealed_totp", "totp_confirmed_at")] == [None] * 3
    for table in ("recovery_codes", "oauth_connections", "one_time_links"):
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE user_id = $1", row["id"]) == 0
    [mine] = (await browser.run(MINE, token=done["accessToken"]))["identities"]
    assert mine["provider"] == "GOOGLE"
    reasons = await db.fetch("SELECT DISTINCT revoked_reason FROM sessions WHERE user_id = $1", row["id"])
    assert {each["revoked_reason"] for each in reasons} == {None, "ACCOUNT_LINKED"}
    assert github.browser_login not in github.tokens.values(), "GitHub has forgotten the connection"


async def test_a_deactivated_account_does_not_open(
    browser: Browser, google: OpenIdServer, person: Person, db: asyncpg.Connection
) -> None:
    known = await browser.sign_in("GOOGLE")
    for user_id in (known["user"]["id"], person.id):
        await db.execute("UPDATE users SET is_active = false WHERE id = $1", key_of(user_id))
    before = await everything(db)
    by_identity = await refused(browser.sign_in("GOOGLE"))
    google.browser = somebody(email=person.email)
    by_address = await refused(browser.sign_in("GOOGLE"))
    assert by_identity == by_address
    assert by_identity["code"] == "UNAUTHORIZED"
    assert await everything(db) == before
    assert (await trail(db, person.id))[-1] == ("login", "UNAUTHORIZED", "GOOGLE")


async def test_a_second_account_of_a_provider_does_not_open_an_account(
    browser: Browser, google: OpenIdServer, db: asyncpg.Connection
) -> None:
    """An address that was given to somebody else at the provider has another subject there."""
    first = google.browser
    await browser.sign_in("GOOGLE")
    google.browser = somebody(email=first.email)
    before = await everything(db)
    error = await refused(browser.sign_in("GOOGLE"))
    assert (error["code"], error["reason"]) == ("CONFLICT", "providerTaken")
    assert await everything(db) == before


async def test_a_second_factor_is_asked_for_without_another_journey(
    browser: Browser,
    other_browser: Browser,
    google: OpenIdServer,
    person: Person,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
) -> None:
    await confirm(db, person)
    totp = await second_factor(db, person.id, settings_env)
    google.browser = somebody(email=person.email)
    before = await everything(db)
    missing = await refused(browser.sign_in("GOOGLE"))
    assert (missing["code"], missing["reason"]) == ("UNAUTHORIZED", "totpRequired")
    wrong_code = "000000" if totp.now() != "000000" else "111111"
    wrong = await refused(browser.complete(missing["details"]["code"], totpCode=wrong_code))
    assert (wrong["code"], wrong["reason"]) == ("UNAUTHORIZED", "totpWrong")
    assert (await refused(browser.complete(missing["details"]["code"])))["reason"] == "codeRefused"
    assert await everything(db) == before
    done = await browser.complete(wrong["details"]["code"], totpCode=totp.now())
    assert done["user"]["id"] == person.id
    used = await refused(browser.sign_in("GOOGLE", totpCode=totp.now()))
    assert used["reason"] == "totpWrong", "a code works once"
    assert (await refused(other_browser.complete(used["details"]["code"])))["reason"] == "codeRefused"


# -- linking and unlinking


async def test_a_session_links_an_identity_to_its_account(
    browser: Browser, client: GraphQLClient, google: OpenIdServer, person: Person, db: asyncpg.Connection
) -> None:
    done = await browser.sign_in("GOOGLE", token=person.token)
    assert (done["user"]["id"], done["accessToken"], done["isNewAccount"]) == (person.id, None, False)
    assert done["identity"]["email"] == google.browser.email
    again = await browser.sign_in("GOOGLE", token=person.token)
    assert again["identity"]["id"] == done["identity"]["id"], "twice is once"
    assert (await browser.sign_in("GOOGLE"))["user"]["id"] == person.id
    assert [event[0] for event in await trail(db, person.id)] == ["register", "linkIdentity", "login"]
    google.browser = somebody()
    assert (await refused(browser.sign_in("GOOGLE", token=person.token)))["reason"] == "providerTaken"


async def test_what_is_anothers_or_not_verified_is_not_linked(
    browser: Browser, google: OpenIdServer, person: Person, db: asyncpg.Connection
) -> None:
    await browser.sign_in("GOOGLE")
    before = await everything(db)
    assert (await refused(browser.sign_in("GOOGLE", token=person.token)))["reason"] == "taken"
    google.browser = somebody(email_verified=False)
    assert (await refused(browser.sign_in("GOOGLE", token=person.token)))["reason"] == "emailNotVerified"
    assert await everything(db) == before


async def test_what_a_session_began_only_it_can_end(
    browser: Browser, client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    sibling = await sign_in(client, person.email, PASSWORD)
    stranger = await new_user(client)
    before = await everything(db)
    for token in (None, sibling.token, stranger.token):
        code = await browser.code("GOOGLE", token=person.token)
        assert (await refused(browser.complete(code, token=token)))["reason"] == "codeRefused"
    assert await everything(db) == before


async def test_linking_and_unlinking_want_a_proof(
    browser: Browser, client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    identity = (await browser.sign_in("GOOGLE", token=person.token))["identity"]
    await db.execute(
        "UPDATE sessions SET created_at = now() - interval '6 minutes' WHERE user_id = $1", key_of(person.id)
    )
    unlink = {"input": {"id": identity["id"]}}
    for attempt in (browser.start("GITHUB", token=person.token), client.run(UNLINK, unlink, token=person.token)):
        assert (await refused(attempt))["reason"] == "proofTooOld"
    wrong = await refused(browser.start("GITHUB", token=person.token, password="wrong"))
    assert (wrong["code"], wrong["details"]["path"]) == ("VALIDATION_ERROR", ["password"])
    await browser.start("GITHUB", token=person.token, password=PASSWORD)
    done = await client.run(UNLINK, {"input": {**unlink["input"], "password": PASSWORD}}, token=person.token)
    assert done == {"unlinkIdentity": {"identities": []}}
    assert (await browser.sign_in("GOOGLE"))["isNewAccount"], "it opens that account no more"
    assert ("unlinkIdentity", "success", "GOOGLE") in await trail(db, person.id)


async def test_scripts_neither_see_nor_link_identities(browser: Browser, client: GraphQLClient, person: Person) -> None:
    made = await client.run(
        'mutation { createAccessToken(input: {name: "ci", scopes: [WRITE]}) { token } }', token=person.token
    )
    token = made["createAccessToken"]["token"]
    unlink = {"input": {"id": encode_id(Prefix.IDENTITY, NOBODYS_ID)}}
    for attempt in (
        browser.start("GOOGLE", token=token),
        client.run(MINE, token=token),
        client.run(UNLINK, unlink, token=token),
    ):
        assert (await refused(attempt))["code"] == "FORBIDDEN"


async def test_identities_are_their_owners_alone(
    browser: Browser, client: GraphQLClient, person: Person, admin: Person, db: asyncpg.Connection
) -> None:
    identity_id = (await browser.sign_in("GOOGLE", token=person.token))["identity"]["id"]
    node = "query ($id: ID!) { node(id: $id) { id } }"
    assert (await client.run(node, {"id": identity_id}, token=person.token))["node"] == {"id": identity_id}
    before = await everything(db)
    for stranger in (await new_user(client), admin):
        before = await everything(db)
        assert (await client.run(node, {"id": identity_id}, token=stranger.token))["node"] is None
        error = await refused(client.run(UNLINK, {"input": {"id": identity_id}}, token=stranger.token))
        assert error["code"] == "NOT_FOUND"
        assert await everything(db) == before
    for attempt in (client.run(MINE), client.run(UNLINK, {"input": {"id": identity_id}})):
        assert (await refused(attempt))["code"] == "UNAUTHORIZED"


async def test_the_last_way_in_stays(
    browser: Browser, google: OpenIdServer, github: GitHubServer, db: asyncpg.Connection
) -> None:
    first = await browser.sign_in("GOOGLE")
    token, ids = first["accessToken"], [first["identity"]["id"]]
    error = await refused(browser.run(UNLINK, {"input": {"id": ids[0]}}, token=token))
    assert (error["code"], error["reason"]) == ("CONFLICT", "lastMethod")
    ids.append((await browser.sign_in("GITHUB", token=token))["identity"]["id"])
    async with db.transaction():
        await db.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", key_of(first["user"]["id"]))
        both = asyncio.gather(*(browser.raw(UNLINK, {"input": {"id": each}}, token=token) for each in ids))
        await waiting_for_locks(db, 2)
    answers = await both
    reasons = [error["extensions"]["details"]["reason"] for each in answers for error in each.json().get("errors", ())]
    assert reasons == ["lastMethod"], "two at once do not take two"
    assert len((await browser.run(MINE, token=token))["identities"]) == 1


async def test_an_account_without_a_password_gets_one_by_a_letter(
    browser: Browser,
    client: GraphQLClient,
    google: OpenIdServer,
    worker_factory: WorkerFactory,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
) -> None:
    done, email = await browser.sign_in("GOOGLE"), google.browser.email
    nobody = await refused(client.run(LOGIN, {"input": {"identifier": "nobody@example.com", "password": PASSWORD}}))
    passwordless = await refused(client.run(LOGIN, {"input": {"identifier": email, "password": PASSWORD}}))
    assert passwordless == nobody
    await client.run(f'mutation {{ requestPasswordReset(input: {{email: "{email}"}}) {{ ok }} }}')
    worker_factory()
    token = await reset_token(settings_env, email)
    await client.run(f'mutation {{ resetPassword(input: {{token: "{token}", password: "{PASSWORD}"}}) {{ ok }} }}')
    person = await sign_in(client, email, PASSWORD)
    assert person.id == done["user"]["id"]
    unlink = {"input": {"id": done["identity"]["id"], "password": PASSWORD}}
    assert (await client.run(UNLINK, unlink, token=person.token))["unlinkIdentity"]["identities"] == []


async def reset_token(settings_env: dict[str, str], email: str) -> str:
    mailbox = Mailbox(Path(settings_env["DATA_DIR"]) / "mail")
    return token_of(await mailbox.newest(email, "Choose a new password"))


# -- where addresses have to be confirmed, and attempts are counted


async def test_an_identity_opens_an_unconfirmed_account_only_with_its_address(
    strict: Browser, browser: Browser, google: OpenIdServer, person: Person, db: asyncpg.Connection
) -> None:
    await browser.sign_in("GOOGLE", token=person.token)
    before = await everything(db)
    assert (await refused(strict.sign_in("GOOGLE")))["code"] == "UNAUTHORIZED"
    assert await everything(db) == before
    google.browser = somebody(subject=google.browser.subject, email=person.email)
    done = await strict.sign_in("GOOGLE")
    assert (done["user"]["id"], done["user"]["emailVerified"]) == (person.id, True)
    await sign_in(strict, person.email, PASSWORD)


async def test_new_accounts_are_counted_and_what_waits_is_not_lost(
    strict: Browser, google: OpenIdServer, db: asyncpg.Connection
) -> None:
    limited: dict[str, Any] | None = None
    for _ in range(3):
        google.browser = somebody()
        before = await everything(db)
        try:
            await strict.sign_in("GOOGLE")
        except GraphQLFailure as failure:
            limited = failure.extensions
            break
    assert limited is not None
    assert limited["code"] == "RATE_LIMIT_EXCEEDED"
    assert await everything(db) == before
    async with Browser(strict.url) as other:
        assert (await refused(other.complete(limited["details"]["code"])))["reason"] == "codeRefused"
