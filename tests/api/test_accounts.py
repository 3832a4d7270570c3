"""Accounts through the API: what a stranger learns, how sessions are carried, and that their end is the end."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest

from models.ids import Prefix, decode_id, encode_id, new_id
from models.permissions import Actor, Role
from models.users import Account
from schema.users import User
from tests.conftest import ApiServer
from tests.factories import LOGIN, REGISTER, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, bearer, subscribe
from tests.harness.waiting import eventually

ME = "{ me { id username name email role createdAt } }"
REFRESH = """
mutation ($input: RefreshSessionInput) {
  refreshSession(input: $input) { accessToken refreshToken expiresAt user { id } }
}
"""
LOGOUT = "mutation ($input: LogoutInput) { logout(input: $input) { ok } }"
PASSWORD = "correct horse battery staple"


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client, password=PASSWORD)


@pytest.fixture
async def browser(api_server: ApiServer) -> AsyncIterator[GraphQLClient]:
    """A browser on a page of the API's own origin: it keeps cookies and says where a request comes from."""
    async with GraphQLClient(api_server.graphql_url) as page:
        parts = urlsplit(api_server.graphql_url)
        page.http.headers["origin"] = f"{parts.scheme}://{parts.netloc}"
        yield page


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The first error's message and extensions, without the id of the request."""
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    error = caught.value.errors[0]
    extensions = {name: value for name, value in error["extensions"].items() if name != "requestId"}
    return {"message": error["message"], **extensions}


def a_registration(**changes: Any) -> dict[str, Any]:
    username = f"user-{secrets.token_hex(5)}"
    return {"username": username, "email": f"{username}@example.com", "password": PASSWORD, "name": "Grace", **changes}


def cookies_set(answer: httpx.Response) -> dict[str, Any]:
    """The cookies that an answer sets, by name, with their attributes."""
    parsed: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        parsed.load(header)
    return dict(parsed)


# -- strangers


async def test_nobody_is_nobody(client: GraphQLClient) -> None:
    answer = await client.raw(ME)
    assert answer.json()["data"] == {"me": None}
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "sws_00000000000000000000000000.0.x"])
async def test_a_token_that_is_none_is_refused(client: GraphQLClient, token: str) -> None:
    error = await refused(client, ME, {}, token=token)
    assert (error["code"], error["details"]) == ("UNAUTHORIZED", {"reason": "invalid"})


async def test_a_refresh_token_is_no_access_token(client: GraphQLClient, person: Person) -> None:
    assert (await refused(client, ME, {}, token=person.refresh_token))["code"] == "UNAUTHORIZED"


async def test_a_failed_login_tells_nothing(client: GraphQLClient, person: Person, db: asyncpg.Connection) -> None:
    inactive = await new_user(client, password=PASSWORD)
    await db.execute("UPDATE users SET is_active = false WHERE username = $1", inactive.username)
    before = await db.fetchval("SELECT count(*) FROM sessions")
    errors = [
        await refused(client, LOGIN, {"input": {"identifier": identifier, "password": password}})
        for identifier, password in [
            (person.username, "wrong horse battery staple"),
            (person.email, ""),
            ("nobody-at-all", PASSWORD),
            ("nobody@example.com", PASSWORD),
            (inactive.username, PASSWORD),
        ]
    ]
    assert errors == [errors[0]] * 5
    assert errors[0]["code"] == "UNAUTHORIZED"
    assert await db.fetchval("SELECT count(*) FROM sessions") == before


async def test_every_attempt_to_sign_in_is_in_the_audit_trail(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    typed = f"typed-{secrets.token_hex(8)}"
    answer = await client.raw(LOGIN, {"input": {"identifier": typed, "password": PASSWORD}})
    request_id = answer.headers["x-request-id"]
    failed = await db.fetchrow("SELECT * FROM audit_events WHERE request_id = $1", request_id)
    assert (failed["action"], failed["outcome"], failed["actor_id"]) == ("login", "UNAUTHORIZED", None)
    assert (failed["ip"], typed in str(dict(failed))) == ("127.0.0.1", False)
    user_id = decode_id(person.id)[1]
    registered = await db.fetchrow("SELECT * FROM audit_events WHERE actor_id = $1", user_id)
    assert (registered["action"], registered["outcome"], registered["target_id"]) == ("register", "success", user_id)


# -- registration


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("username", "x", "VALIDATION_ERROR"),
        ("username", "some@body", "VALIDATION_ERROR"),
        ("email", "nowhere", "VALIDATION_ERROR"),
        ("name", "\u0007", "VALIDATION_ERROR"),
        ("password", "short", "VALIDATION_ERROR"),
        ("password", "password123", "VALIDATION_ERROR"),
        ("password", "é" * 513, "VALIDATION_ERROR"),
    ],
)
async def test_a_bad_registration_is_refused_with_the_path(
    client: GraphQLClient, db: asyncpg.Connection, field: str, value: str, code: str
) -> None:
    before = await db.fetchval("SELECT count(*) FROM users")
    error = await refused(client, REGISTER, {"input": a_registration(**{field: value})})
    assert (error["code"], error["details"]["path"]) == (code, [field])
    assert await db.fetchval("SELECT count(*) FROM users") == before


@pytest.mark.parametrize("field", ["username", "email"])
async def test_a_taken_name_is_a_conflict(client: GraphQLClient, person: Person, field: str) -> None:
    error = await refused(client, REGISTER, {"input": a_registration(**{field: getattr(person, field).upper()})})
    assert (error["code"], error["statusCode"], error["details"]) == ("CONFLICT", 409, {"path": [field]})


async def test_whoever_registers_is_a_user_and_signed_in(client: GraphQLClient) -> None:
    fields = a_registration(name=None)
    granted = (await client.run(REGISTER, {"input": fields}))["register"]
    me = (await client.run(ME, token=granted["accessToken"]))["me"]
    assert me["id"] == granted["user"]["id"]
    assert (me["username"], me["name"]) == (fields["username"], fields["username"])
    assert (me["email"], me["role"]) == (fields["email"], "USER")
    assert me["createdAt"].endswith("Z")


async def test_no_role_can_be_asked_for(client: GraphQLClient) -> None:
    error = await refused(client, REGISTER, {"input": a_registration(role="ADMIN")})
    assert error["code"] == "VALIDATION_ERROR"


# -- sessions by bearer token


async def test_parallel_refreshes_all_get_the_one_successor(client: GraphQLClient, person: Person) -> None:
    variables = {"input": {"refreshToken": person.refresh_token}}
    answers = await asyncio.gather(*(client.run(REFRESH, variables) for _ in range(20)))
    [successor] = {answer["refreshSession"]["refreshToken"] for answer in answers}
    assert successor != person.refresh_token
    for answer in answers[:3]:
        assert (await client.run(ME, token=answer["refreshSession"]["accessToken"]))["me"]["id"] == person.id


async def test_a_replay_after_the_grace_ends_the_session_for_both(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    replayed = {"input": {"refreshToken": person.refresh_token}}
    successor = (await client.run(REFRESH, replayed))["refreshSession"]
    await db.execute(
        "UPDATE sessions SET rotated_at = rotated_at - interval '11 seconds' WHERE user_id = $1",
        decode_id(person.id)[1],
    )
    revoked = {"code": "UNAUTHORIZED", "details": {"reason": "revoked"}}
    for document, variables, token in [
        (REFRESH, replayed, None),
        (REFRESH, {"input": {"refreshToken": successor["refreshToken"]}}, None),
        (ME, {}, successor["accessToken"]),
        (ME, {}, person.token),
    ]:
        error = await refused(client, document, variables, token=token)
        assert {name: error[name] for name in revoked} == revoked


async def test_a_refresh_without_any_token_is_refused(client: GraphQLClient) -> None:
    inputs: list[dict[str, Any] | None] = [None, {}, {"refreshToken": None}, {"refreshToken": ""}]
    for variables in ({}, *({"input": given} for given in inputs)):
        error = await refused(client, REFRESH, variables)
        assert (error["code"], error["details"]) == ("UNAUTHORIZED", {"reason": "missing"})


async def test_after_logout_both_tokens_are_dead_and_other_sessions_live(client: GraphQLClient, person: Person) -> None:
    login = {"input": {"identifier": person.email, "password": PASSWORD}}
    other = (await client.run(LOGIN, login))["login"]
    assert await client.run(LOGOUT, {"input": {}}, token=person.token) == {"logout": {"ok": True}}
    assert (await refused(client, ME, {}, token=person.token))["details"] == {"reason": "revoked"}
    error = await refused(client, REFRESH, {"input": {"refreshToken": person.refresh_token}})
    assert error["details"] == {"reason": "revoked"}
    assert (await client.run(ME, token=other["accessToken"]))["me"]["id"] == person.id


async def test_a_session_ended_on_one_server_is_over_on_another(
    client: GraphQLClient, api_server: ApiServer, person: Person
) -> None:
    second = await api_server.second(PORT=str(_free_port()), BASE_URL=api_server.url)
    async with GraphQLClient(second.graphql_url) as elsewhere:
        assert (await elsewhere.run(ME, token=person.token))["me"]["id"] == person.id
        await client.run(LOGOUT, token=person.token)

        async def is_out() -> bool:
            return (await elsewhere.raw(ME, token=person.token)).status_code == 401

        await eventually(is_out, 5)


async def test_a_changed_role_holds_for_a_token_issued_before(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    await db.execute("UPDATE users SET role = 'ADMIN' WHERE username = $1", person.username)

    async def is_admin() -> bool:
        me = (await client.run(ME, token=person.token))["me"]
        return bool(me["role"] == "ADMIN")

    await eventually(is_admin, 6)


# -- sessions by cookies


async def test_a_browser_is_signed_in_without_seeing_a_token(browser: GraphQLClient, person: Person) -> None:
    login = {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}}
    answer = await browser.raw(LOGIN, login)
    granted = answer.json()["data"]["login"]
    assert (granted["accessToken"], granted["refreshToken"]) == (None, None)
    cookies = cookies_set(answer)
    assert set(cookies) == {"switchyard_access", "switchyard_refresh", "switchyard_device"}
    for cookie in cookies.values():
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Lax", "/", "")
    assert 0 < int(cookies["switchyard_access"]["max-age"]) <= 900
    assert int(cookies["switchyard_refresh"]["max-age"]) > 13 * 86_400
    assert (await browser.run(ME))["me"]["id"] == person.id


async def test_cookies_are_host_bound_and_secure_where_the_address_is_https(
    api_server: ApiServer, person: Person
) -> None:
    tls = await api_server.second(PORT=str(_free_port()), BASE_URL="https://switchyard.example")
    async with GraphQLClient(tls.graphql_url) as page:
        login = {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}}
        cookies = cookies_set(await page.raw(LOGIN, login))
    assert set(cookies) == {"__Host-switchyard_access", "__Host-switchyard_refresh", "__Host-switchyard_device"}
    assert all(cookie["secure"] and cookie["httponly"] and cookie["path"] == "/" for cookie in cookies.values())
    assert all(cookie["domain"] == "" for cookie in cookies.values())


async def test_where_no_cookie_can_be_set_no_session_is_opened(
    graphql_ws_url: str, person: Person, db: asyncpg.Connection
) -> None:
    before = await db.fetchval("SELECT count(*) FROM sessions")
    login = {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}}
    async with subscribe(graphql_ws_url, LOGIN, login) as stream:
        with pytest.raises(GraphQLFailure) as caught:
            await stream.next()
    assert (caught.value.code, caught.value.extensions["details"]) == ("VALIDATION_ERROR", {"path": ["cookies"]})
    assert await db.fetchval("SELECT count(*) FROM sessions") == before


async def test_a_foreign_page_cannot_use_the_cookies(browser: GraphQLClient, person: Person) -> None:
    await browser.run(LOGIN, {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}})
    foreign = {"origin": "https://evil.example"}
    assert (await refused(browser, ME, {}, headers=foreign))["code"] == "UNAUTHORIZED"
    assert (await refused(browser, REFRESH, {}, headers=foreign))["details"] == {"reason": "missing"}
    await browser.run(LOGOUT, headers=foreign)
    assert (await browser.run(ME))["me"]["id"] == person.id


async def test_a_browser_renews_by_its_cookie(browser: GraphQLClient, person: Person) -> None:
    await browser.run(LOGIN, {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}})
    before = browser.http.cookies["switchyard_refresh"]
    answer = await browser.raw(REFRESH)
    assert answer.json()["data"]["refreshSession"]["refreshToken"] is None
    assert browser.http.cookies["switchyard_refresh"] != before
    assert (await browser.run(ME))["me"]["id"] == person.id


async def test_a_browser_whose_session_has_ended_loses_its_cookies(
    browser: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    await browser.run(LOGIN, {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}})
    await db.execute("UPDATE sessions SET revoked_at = now() WHERE user_id = $1", decode_id(person.id)[1])
    answer = await browser.raw(REFRESH)
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHORIZED"
    assert set(browser.http.cookies) <= {"switchyard_device"}


@pytest.mark.parametrize("lost", ["switchyard_access", None], ids=["access cookie run out", "both cookies there"])
async def test_a_browser_signs_out_with_what_it_has(
    browser: GraphQLClient, client: GraphQLClient, person: Person, lost: str | None
) -> None:
    await browser.run(LOGIN, {"input": {"identifier": person.username, "password": PASSWORD, "cookies": True}})
    token = browser.http.cookies["switchyard_refresh"]
    if lost is not None:
        browser.http.cookies.delete(lost)
    assert await browser.run(LOGOUT) == {"logout": {"ok": True}}
    assert set(browser.http.cookies) <= {"switchyard_device"}
    assert (await refused(client, REFRESH, {"input": {"refreshToken": token}}))["details"] == {"reason": "revoked"}


async def test_a_cookie_that_is_no_token_is_deleted_by_signing_out(browser: GraphQLClient) -> None:
    browser.http.cookies.set("switchyard_refresh", "garbage", domain="127.0.0.1", path="/")
    assert await browser.run(LOGOUT) == {"logout": {"ok": True}}
    assert set(browser.http.cookies) <= {"switchyard_device"}


# -- who sees whom


NODE = "query ($id: ID!) { node(id: $id) { id ... on User { username email } } }"


async def test_others_are_not_there_for_users_and_there_for_administrators(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    stranger = await new_user(client)
    admin = await new_user(client, role=Role.ADMIN, db=db)
    for token in (None, stranger.token):
        assert await client.run(NODE, {"id": person.id}, token=token) == {"node": None}
    for token in (person.token, admin.token):
        node = (await client.run(NODE, {"id": person.id}, token=token))["node"]
        assert node == {"id": person.id, "username": person.username, "email": person.email}


@pytest.mark.parametrize(
    ("viewer", "sees_email"),
    [
        (Actor(), False),
        (Actor(user_id=UUID(int=8)), False),
        (Actor(user_id=UUID(int=7)), True),
        (Actor(user_id=UUID(int=8), role=Role.ADMIN), True),
    ],
)
def test_an_email_address_is_for_its_owner_and_administrators(viewer: Actor, sees_email: bool) -> None:
    account = Account(UUID(int=7), "a@example.com", "ann", "Ann", Role.USER, datetime.now(UTC))
    assert User.seen_by(viewer, account).email == ("a@example.com" if sees_email else None)


async def test_an_id_of_nobody_is_null(client: GraphQLClient, person: Person) -> None:
    for id_text in (encode_id(Prefix.USER, new_id()), "usr_nonsense", ""):
        assert await client.run(NODE, {"id": id_text}, token=person.token) == {"node": None}


async def test_a_token_may_also_come_in_any_case_of_the_scheme(client: GraphQLClient, person: Person) -> None:
    headers = {"Authorization": bearer(person.token)["Authorization"].replace("Bearer", "bearer")}
    assert (await client.run(ME, headers=headers))["me"]["id"] == person.id


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
