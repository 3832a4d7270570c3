"""Confirming an address, setting and changing passwords, profiles: over the API, with letters that a worker sends."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from adapters.mail import open_mailer
from models.ids import decode_id, new_id
from settings import Settings
from tasks import account_letters
from tests.conftest import ApiServer, Programs
from tests.factories import LOGIN, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually

SETTINGS = {
    "RATE_LIMITS": "false",
    "EMAIL_CONFIRMATION": "false",
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
}
PASSWORD = "correct horse battery staple"
OTHER_PASSWORD = "a stapler of seven horses"

ME = "{ me { id username name avatarUrl emailVerified } }"
REGISTER = """
mutation ($input: RegisterInput!) {
  register(input: $input) { confirmationRequired accessToken refreshToken expiresAt user { id } }
}
"""
REQUEST_VERIFICATION = """
mutation ($input: RequestEmailVerificationInput!) { requestEmailVerification(input: $input) { ok } }
"""
VERIFY = "mutation ($input: VerifyEmailInput!) { verifyEmail(input: $input) { ok } }"
REQUEST_RESET = "mutation ($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { ok } }"
RESET = "mutation ($input: ResetPasswordInput!) { resetPassword(input: $input) { ok } }"
CHANGE = "mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { revokedCount } }"
PROFILE = """
mutation ($input: UpdateProfileInput!) { updateProfile(input: $input) { user { username name avatarUrl } } }
"""


class Mailbox:
    """Letters as they lie in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def letters(self, email: str) -> list[EmailMessage]:
        found = []
        for path in sorted(self._folder.glob("*.eml")):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            assert isinstance(message, EmailMessage)
            if message["To"].addresses[0].addr_spec == email:
                found.append(message)
        return found

    async def newest(self, email: str, subject: str, *, number: int = 1) -> EmailMessage:
        """The latest letter with a subject, once there are so many of them."""

        def arrived() -> EmailMessage | None:
            found = [letter for letter in self.letters(email) if str(letter["Subject"]) == subject]
            return found[-1] if len(found) >= number else None

        return await eventually(arrived, 10, what=f"{number} letters {subject!r} to {email}")


def text_of(letter: EmailMessage) -> str:
    part = letter.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def link_of(letter: EmailMessage) -> str:
    found = re.search(r"https?://\S+/account/\S+", text_of(letter))
    assert found is not None
    return found[0]


def token_of(letter: EmailMessage) -> str:
    [token] = parse_qs(urlsplit(link_of(letter)).query)["token"]
    return token


@pytest_asyncio.fixture(scope="module", autouse=True)
async def worker(programs: Programs, api_server: ApiServer) -> Program:
    """Started after the API, whose address the links name."""
    started = programs.start((CLI, "worker"), kind="worker")
    await started.wait_event("worker_started")
    return started


@pytest.fixture(scope="module")
def mailbox(settings_env: dict[str, str]) -> Mailbox:
    return Mailbox(Path(settings_env["DATA_DIR"]) / "mail")


@pytest_asyncio.fixture(scope="module")
async def strict(api_server: ApiServer) -> AsyncIterator[GraphQLClient]:
    """An API on the same database where addresses have to be confirmed."""
    second = await api_server.second(EMAIL_CONFIRMATION="true", PORT="0")
    async with GraphQLClient(second.graphql_url) as graphql:
        yield graphql


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client, password=PASSWORD)


async def refused(client: GraphQLClient, document: str, given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, {"input": given}, **more)
    error = caught.value.errors[0]
    return {
        "message": error["message"],
        "code": error["extensions"]["code"],
        "path": error["extensions"]["details"].get("path"),
    }


async def reset_link(client: GraphQLClient, mailbox: Mailbox, person: Person, *, number: int = 1) -> str:
    assert await client.run(REQUEST_RESET, {"input": {"email": person.email}}) == {"requestPasswordReset": {"ok": True}}
    return token_of(await mailbox.newest(person.email, "Choose a new password", number=number))


def a_registration(**changes: Any) -> dict[str, Any]:
    username = f"user-{secrets.token_hex(5)}"
    return {"username": username, "email": f"{username}@example.com", "password": PASSWORD, "name": "Grace", **changes}


def key_of(person: Person) -> UUID:
    return decode_id(person.id)[1]


# -- links that do not work


@pytest.mark.parametrize("fault", ["used", "expired", "foreign", "tampered", "superseded", "deactivated"])
async def test_a_link_that_does_not_work_sets_no_password(
    client: GraphQLClient, mailbox: Mailbox, person: Person, db: asyncpg.Connection, fault: str
) -> None:
    token = await reset_link(client, mailbox, person)
    match fault:
        case "used":
            await client.run(RESET, {"input": {"token": token, "password": PASSWORD}})
        case "expired":
            await db.execute("UPDATE one_time_links SET expires_at = now() WHERE user_id = $1", key_of(person))
        case "foreign":
            await client.run(REQUEST_VERIFICATION, {"input": {"email": person.email}})
            token = token_of(await mailbox.newest(person.email, "Confirm your e-mail address"))
        case "tampered":
            token = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
        case "superseded":
            assert await reset_link(client, mailbox, person, number=2) != token
        case "deactivated":
            await db.execute("UPDATE users SET is_active = false WHERE id = $1", key_of(person))
    before = await db.fetchval("SELECT password_hash FROM users WHERE id = $1", key_of(person))
    error = await refused(client, RESET, {"token": token, "password": OTHER_PASSWORD})
    assert (error["code"], error["path"]) == ("VALIDATION_ERROR", ["token"])
    assert await db.fetchval("SELECT password_hash FROM users WHERE id = $1", key_of(person)) == before


async def test_a_link_for_a_password_confirms_no_address(
    client: GraphQLClient, mailbox: Mailbox, person: Person, db: asyncpg.Connection
) -> None:
    token = await reset_link(client, mailbox, person)
    assert (await refused(client, VERIFY, {"token": token}))["path"] == ["token"]
    assert await db.fetchval("SELECT email_verified_at FROM users WHERE id = $1", key_of(person)) is None


async def test_of_many_who_use_one_link_one_sets_the_password(
    client: GraphQLClient, mailbox: Mailbox, person: Person
) -> None:
    token = await reset_link(client, mailbox, person)
    passwords = [f"{number} {OTHER_PASSWORD}" for number in range(6)]
    answers = await asyncio.gather(
        *(client.raw(RESET, {"input": {"token": token, "password": password}}) for password in passwords)
    )
    [winner] = [
        password for password, answer in zip(passwords, answers, strict=True) if answer.json()["data"] is not None
    ]
    await sign_in(client, person.username, winner)
    await asyncio.gather(
        *(
            refused(client, LOGIN, {"identifier": person.username, "password": password})
            for password in passwords
            if password != winner
        )
    )


async def test_a_password_that_will_not_do_leaves_the_link_as_it_was(
    client: GraphQLClient, mailbox: Mailbox, person: Person
) -> None:
    token = await reset_link(client, mailbox, person)
    for password in ("short", "password123", f"{person.username}1", "é" * 513):
        error = await refused(client, RESET, {"token": token, "password": password})
        assert (error["code"], error["path"]) == ("VALIDATION_ERROR", ["password"])
    await client.run(RESET, {"input": {"token": token, "password": OTHER_PASSWORD}})


async def test_a_token_is_in_the_letter_and_nowhere_else(
    client: GraphQLClient, mailbox: Mailbox, person: Person, db: asyncpg.Connection, api_server: ApiServer
) -> None:
    token = await reset_link(client, mailbox, person)
    tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        query = f'SELECT count(*) FROM "{table["tablename"]}" AS t WHERE t::text LIKE $1'
        assert await db.fetchval(query, f"%{token}%") == 0, table
    await client.http.get(f"{api_server.url}/account/reset", params={"token": token})
    assert token not in api_server.log.read_text()


# -- what strangers learn


@pytest.mark.parametrize("document", [REQUEST_RESET, REQUEST_VERIFICATION], ids=["reset", "verification"])
async def test_an_address_without_account_gets_the_same_answer_after_the_same_work(
    client: GraphQLClient, person: Person, db: asyncpg.Connection, mailbox: Mailbox, document: str
) -> None:
    unknown = f"{secrets.token_hex(6)}@example.com"

    async def work_for(email: str) -> tuple[Any, list[tuple[Any, ...]]]:
        answer = await client.raw(document, {"input": {"email": email}})
        audit = await db.fetch(
            "SELECT action, outcome, actor_id, target_id FROM audit_events WHERE request_id = $1",
            answer.headers["x-request-id"],
        )
        return answer.json(), [tuple(row) for row in audit]

    assert await work_for(unknown) == await work_for(person.email)

    async def all_told() -> bool:
        return not await db.fetchval("SELECT count(*) FROM outbox_messages")

    await eventually(all_told, 10)
    assert len(mailbox.letters(person.email)) == 1
    assert not mailbox.letters(unknown)


async def test_an_address_that_is_none_is_refused(client: GraphQLClient) -> None:
    assert (await refused(client, REQUEST_RESET, {"email": "nowhere"}))["path"] == ["email"]


async def test_where_addresses_are_confirmed_registering_a_taken_one_changes_nothing_and_says_the_same(
    strict: GraphQLClient, person: Person, db: asyncpg.Connection, mailbox: Mailbox
) -> None:
    fresh, taken = a_registration(), a_registration(email=person.email.upper(), password=OTHER_PASSWORD)
    before = await db.fetchrow("SELECT * FROM users WHERE id = $1", key_of(person))
    count = await db.fetchval("SELECT count(*) FROM users")
    sessions = await db.fetchval("SELECT count(*) FROM sessions")
    answers = [await strict.run(REGISTER, {"input": given}) for given in (fresh, taken)]
    nothing = {"accessToken": None, "refreshToken": None, "expiresAt": None, "user": None}
    assert answers == [{"register": {"confirmationRequired": True, **nothing}}] * 2
    assert await db.fetchrow("SELECT * FROM users WHERE id = $1", key_of(person)) == before
    assert await db.fetchval("SELECT count(*) FROM users") == count + 1
    assert await db.fetchval("SELECT count(*) FROM sessions") == sessions
    errors = [
        await refused(strict, LOGIN, {"identifier": given["email"], "password": given["password"]})
        for given in (fresh, taken)
    ]
    assert errors[0] == errors[1]
    letter = await mailbox.newest(person.email, "You have an account already")
    assert person.username in text_of(letter)
    assert taken["username"] not in text_of(letter)
    await mailbox.newest(fresh["email"], "Confirm your e-mail address")


async def test_a_taken_username_is_told_everywhere(strict: GraphQLClient, person: Person) -> None:
    for changes in ({}, {"email": person.email}):
        error = await refused(strict, REGISTER, a_registration(username=person.username.upper(), **changes))
        assert (error["code"], error["path"]) == ("CONFLICT", ["username"])


async def test_registering_a_taken_address_costs_a_password_hash_too(strict: GraphQLClient, person: Person) -> None:
    """The time of one is the work of the other: measured, as a median, with room for a busy machine."""
    clock = asyncio.get_running_loop().time

    async def seconds(email: str | None) -> float:
        started = clock()
        await strict.run(REGISTER, {"input": a_registration(**({"email": email} if email else {}))})
        return clock() - started

    free, taken = [], []
    for _ in range(7):
        free.append(await seconds(None))
        taken.append(await seconds(person.email))
    assert 0.2 < sorted(taken)[3] / sorted(free)[3] < 5


# -- confirming an address


async def test_an_account_works_once_its_address_is_confirmed(
    strict: GraphQLClient, mailbox: Mailbox, api_server: ApiServer, db: asyncpg.Connection
) -> None:
    given = a_registration()
    await strict.run(REGISTER, {"input": {**given, "cookies": True}})
    assert not strict.http.cookies
    wrong = await refused(strict, LOGIN, {"identifier": given["email"], "password": OTHER_PASSWORD})
    right = await refused(strict, LOGIN, {"identifier": given["email"], "password": PASSWORD})
    assert wrong == right
    letter = await mailbox.newest(given["email"], "Confirm your e-mail address")
    assert link_of(letter).startswith(f"{api_server.url}/account/verify?token=")
    token = token_of(letter)
    assert await strict.run(VERIFY, {"input": {"token": token}}) == {"verifyEmail": {"ok": True}}
    assert (await refused(strict, VERIFY, {"token": token}))["path"] == ["token"]
    granted = (await strict.run(LOGIN, {"input": {"identifier": given["email"], "password": PASSWORD}}))["login"]
    assert (await strict.run(ME, token=granted["accessToken"]))["me"]["emailVerified"] is True
    actions = await db.fetch(
        "SELECT action FROM audit_events WHERE actor_id = $1 ORDER BY id", decode_id(granted["user"]["id"])[1]
    )
    assert [row["action"] for row in actions] == ["register", "verifyEmail", "login"]


async def test_whom_the_operator_made_administrator_counts_as_confirmed(
    strict: GraphQLClient, api_server: ApiServer
) -> None:
    await sign_in(strict, api_server.admin_email, api_server.admin_password)


async def test_a_letter_that_is_sent_again_has_a_link_of_its_own_and_leads_to_the_app(
    settings_env: dict[str, str],
    database_url: str,
    person: Person,
    client: GraphQLClient,
    mailbox: Mailbox,
    db: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    await reset_link(client, mailbox, person)
    settings = Settings.model_validate({name.lower(): value for name, value in settings_env.items()}).model_copy(
        update={"app_url": "https://app.example/", "data_dir": tmp_path}
    )
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        send = account_letters.sending(settings, pool, open_mailer(settings))
        async with db.transaction():
            # Held until both are under way: they meet, whatever the machine does.
            await db.execute("SELECT FROM one_time_links WHERE user_id = $1 FOR UPDATE", key_of(person))
            payload = {"letter": "reset_password", "email": person.email.upper()}
            tasks = [asyncio.ensure_future(send(payload)) for _ in range(2)]
            await waiting_for_locks(db, 2)
        await asyncio.gather(*tasks)
    first, second = Mailbox(tmp_path / "mail").letters(person.email)
    assert first["Message-ID"] != second["Message-ID"]
    assert link_of(first).startswith("https://app.example/account/reset?token=")
    given = [{"input": {"token": token_of(each), "password": OTHER_PASSWORD}} for each in (first, second)]
    assert [(await client.raw(RESET, each)).json()["data"] for each in given].count(None) == 1


# -- setting and changing passwords


async def test_a_reset_signs_everybody_out_and_nobody_in(
    client: GraphQLClient, mailbox: Mailbox, person: Person, graphql_ws_url: str, db: asyncpg.Connection
) -> None:
    await db.execute("UPDATE users SET email_verified_at = now() WHERE id = $1", key_of(person))
    await insert_token(db, person, "nightly <build>")
    token = await reset_link(client, mailbox, person)
    async with open_socket(graphql_ws_url, token=person.token) as socket:
        answer = await client.raw(RESET, {"input": {"token": token, "password": OTHER_PASSWORD}})
        assert answer.json() == {"data": {"resetPassword": {"ok": True}}}
        assert "set-cookie" not in answer.headers
        closed = await socket.closed(5)
    assert closed.code in (4401, 4403)
    assert (await client.raw(ME, token=person.token)).status_code == 401
    await refused(client, LOGIN, {"identifier": person.username, "password": PASSWORD})
    again = await sign_in(client, person.username, OTHER_PASSWORD)
    assert (await client.run(ME, token=again.token))["me"]["id"] == person.id
    letter = await mailbox.newest(person.email, "Your password was changed")
    assert "nightly <build>" in text_of(letter)
    assert await working_tokens(db, person) == 1


async def test_a_reset_by_whom_nothing_proved_before_ends_access_tokens_too(
    client: GraphQLClient, mailbox: Mailbox, person: Person, db: asyncpg.Connection
) -> None:
    await insert_token(db, person, "from before")
    token = await reset_link(client, mailbox, person)
    await client.run(RESET, {"input": {"token": token, "password": OTHER_PASSWORD}})
    assert await working_tokens(db, person) == 0
    assert "no access tokens" in text_of(await mailbox.newest(person.email, "Your password was changed"))
    again = await sign_in(client, person.username, OTHER_PASSWORD)
    assert (await client.run(ME, token=again.token))["me"]["emailVerified"] is True


async def test_nobody_changes_a_password_without_session_or_present_password(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    given = {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD}
    assert (await refused(client, CHANGE, given))["code"] == "UNAUTHORIZED"
    for wrong in (OTHER_PASSWORD, "", "é" * 513):
        error = await refused(client, CHANGE, {**given, "currentPassword": wrong}, token=person.token)
        assert (error["code"], error["path"]) == ("VALIDATION_ERROR", ["currentPassword"])
    for weak in ("short", "password123", person.username):
        error = await refused(client, CHANGE, {**given, "newPassword": weak}, token=person.token)
        assert (error["code"], error["path"]) == ("VALIDATION_ERROR", ["newPassword"])
    outcomes = await db.fetch(
        "SELECT outcome FROM audit_events WHERE actor_id = $1 AND action = 'changePassword'", key_of(person)
    )
    assert [row["outcome"] for row in outcomes] == ["VALIDATION_ERROR"] * 3
    await sign_in(client, person.username, PASSWORD)


async def test_a_changed_password_ends_all_other_sessions(
    client: GraphQLClient, mailbox: Mailbox, person: Person
) -> None:
    other = await sign_in(client, person.username, PASSWORD)
    given = {"input": {"currentPassword": PASSWORD, "newPassword": OTHER_PASSWORD}}
    assert await client.run(CHANGE, given, token=person.token) == {"changePassword": {"revokedCount": 1}}
    assert (await client.raw(ME, token=other.token)).status_code == 401
    assert (await client.run(ME, token=person.token))["me"]["id"] == person.id
    await refused(client, LOGIN, {"identifier": person.username, "password": PASSWORD})
    await sign_in(client, person.username, OTHER_PASSWORD)
    await mailbox.newest(person.email, "Your password was changed")


async def test_of_many_changes_at_once_one_holds(client: GraphQLClient, person: Person, db: asyncpg.Connection) -> None:
    passwords = [f"{number} {OTHER_PASSWORD}" for number in range(3)]
    async with asyncio.TaskGroup() as group, db.transaction():
        # Held until all have proved the old password: they meet, whatever the machine does.
        await db.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", key_of(person))
        tasks = [
            group.create_task(
                client.raw(
                    CHANGE, {"input": {"currentPassword": PASSWORD, "newPassword": password}}, token=person.token
                )
            )
            for password in passwords
        ]
        await waiting_for_locks(db, len(tasks))
    answers = [task.result().json() for task in tasks]
    codes = [answer["errors"][0]["extensions"]["code"] for answer in answers if answer["data"] is None]
    assert codes == ["CONFLICT"] * 2
    [winner] = [each for each, answer in zip(passwords, answers, strict=True) if answer["data"] is not None]
    await sign_in(client, person.username, winner)


# -- profiles


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "\u0007"),
        ("username", "some@body"),
        ("avatarUrl", "http://pictures.example/me.png"),
        ("avatarUrl", "javascript:alert(1)"),
        ("avatarUrl", "https://user:secret@pictures.example/"),
        ("avatarUrl", "https://"),
        ("avatarUrl", "https://pictures.example:x/"),
        ("avatarUrl", "https://pictures.example/a b"),
        ("avatarUrl", "https://pictures.example/" + "x" * 1_000),
    ],
)
async def test_a_profile_that_will_not_do_changes_nothing(
    client: GraphQLClient, admin: Person, field: str, value: str
) -> None:
    before = await client.run(ME, token=admin.token)
    given = {"name": "Changed", field: value}
    error = await refused(client, PROFILE, given, token=admin.token)
    assert (error["code"], error["path"]) == ("VALIDATION_ERROR", [field])
    assert await client.run(ME, token=admin.token) == before


async def test_of_two_who_want_one_username_one_gets_it(client: GraphQLClient, db: asyncpg.Connection) -> None:
    people = [await new_user(client), await new_user(client)]
    wanted = f"wanted-{secrets.token_hex(4)}"
    given = {"input": {"username": wanted, "name": "Winner"}}
    answers = [
        answer.json()
        for answer in await asyncio.gather(*(client.raw(PROFILE, given, token=each.token) for each in people))
    ]
    [error] = [answer["errors"][0]["extensions"] for answer in answers if answer["data"] is None]
    assert (error["code"], error["details"]) == ("CONFLICT", {"path": ["username"]})
    names = await db.fetch("SELECT name FROM users WHERE id = ANY($1::uuid[])", [key_of(each) for each in people])
    assert sorted(row["name"] == "Winner" for row in names) == [False, True], "the loser's name stays as well"
    audited = "SELECT count(*) FROM audit_events WHERE action = 'updateProfile' AND actor_id = ANY($1::uuid[])"
    assert await db.fetchval(audited, [key_of(each) for each in people]) == 1


async def test_a_profile_changes_by_what_is_given(client: GraphQLClient, person: Person) -> None:
    async def update(**given: Any) -> dict[str, Any]:
        changed: dict[str, Any] = await client.run(PROFILE, {"input": given}, token=person.token)
        user: dict[str, Any] = changed["updateProfile"]["user"]
        return user

    picture = "https://pictures.example/me.png?size=64"
    user = await update(name=" Ada ", avatarUrl=picture)
    assert user == {"username": person.username, "name": "Ada", "avatarUrl": picture}
    user = await update(username=person.username.upper())
    assert user == {"username": person.username.upper(), "name": "Ada", "avatarUrl": picture}
    assert (await update(avatarUrl=None))["avatarUrl"] is None
    assert (await update())["name"] == "Ada"


# -- pages


@pytest.mark.parametrize("page", ["verify", "reset"])
async def test_a_page_asks_nothing_of_others_and_tells_nobody_its_address(
    client: GraphQLClient, api_server: ApiServer, page: str
) -> None:
    address = f"{api_server.url}/account/{page}"
    answer = await client.http.get(address, params={"token": "a<b>"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    rules = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(rules)
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "a<b>" not in answer.text
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style|https?://", answer.text)
    names = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert sorted(names) == ["files/account.css", "files/account.js"]
    for name in names:
        file = await client.http.get(f"{api_server.url}/account/{name}")
        assert file.status_code == 200
        assert file.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript")
        assert not re.search(r"https?://", file.text)


async def insert_token(db: asyncpg.Connection, person: Person, name: str) -> None:
    await db.execute(
        """INSERT INTO access_tokens (id, user_id, name, token_hash, last_four, scope, created_at)
           VALUES ($1, $2, $3, $4, 'abcd', 'READ', now())""",
        new_id(),
        key_of(person),
        name,
        secrets.token_hex(32),
    )


async def working_tokens(db: asyncpg.Connection, person: Person) -> int:
    count = await db.fetchval(
        "SELECT count(*) FROM access_tokens WHERE user_id = $1 AND revoked_at IS NULL", key_of(person)
    )
    return int(count)


async def waiting_for_locks(db: asyncpg.Connection, count: int) -> None:
    """Wait until so many statements of the module's database wait for a row that somebody holds."""

    async def enough() -> bool:
        await db.execute("SELECT pg_stat_clear_snapshot()")
        found = await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(found) >= count

    await eventually(enough, 5, what=f"{count} statements that wait")
