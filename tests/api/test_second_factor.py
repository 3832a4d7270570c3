"""Two-factor sign-in through the API: what is refused, races for one code, loss of phone and codes, limits, keys."""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pyotp
import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from adapters.secret_box import SecretBox, kid_of
from models.account_queries import link_hash
from models.ids import decode_id, new_id
from models.sealed import TOTP_SECRET
from resolvers.key_rotation import rotate
from tests.conftest import ApiServer
from tests.factories import LOGIN, NOBODYS_ID, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.second_factor import (
    CONFIRM,
    ENROL,
    PASSWORD,
    Guarded,
    confirmed_person,
    forget_step,
    guard,
    standing,
)
from tests.harness.waiting import eventually

SETTINGS = {"EMAIL_CONFIRMATION": "false", "TRUSTED_PROXIES": "127.0.0.1"}
TRIES = 5

ME = "{ me { twoFactorEnabled recoveryCodesLeft } }"
DISABLE = "mutation ($input: DisableTotpInput!) { it: disableTotp(input: $input) { revokedSessions } }"
RENEW = "mutation ($input: RenewRecoveryCodesInput!) { it: renewRecoveryCodes(input: $input) { recoveryCodes } }"
RESET = "mutation ($input: ResetTwoFactorInput!) { it: resetTwoFactor(input: $input) { revokedSessions } }"
RESET_PASSWORD = "mutation ($input: ResetPasswordInput!) { it: resetPassword(input: $input) { ok } }"
CREATE_TOKEN = "mutation ($input: CreateAccessTokenInput!) { it: createAccessToken(input: $input) { token } }"
OF_USER = "query ($id: ID!) { node(id: $id) { ... on User { twoFactorEnabled recoveryCodesLeft } } }"

_hosts = itertools.count(1)


def somewhere() -> dict[str, str]:
    """A client's address that nobody had before."""
    return {"X-Forwarded-For": f"198.19.0.{next(_hosts)}"}


@pytest_asyncio.fixture
async def person(client: GraphQLClient, db: asyncpg.Connection) -> Person:
    return await confirmed_person(client, db)


@pytest_asyncio.fixture
async def guarded(client: GraphQLClient, db: asyncpg.Connection, person: Person) -> Guarded:
    return await guard(client, db, person)


@pytest_asyncio.fixture(scope="module")
async def strict(api_server: ApiServer, settings_env: dict[str, str]) -> AsyncIterator[GraphQLClient]:
    """An API on the same database with limits, confirmed addresses and a newer key."""
    second = await api_server.second(
        PORT="0",
        EMAIL_CONFIRMATION="true",
        RATE_LIMITS="true",
        RATE_LIMIT_COST_PER_MINUTE="1000",
        RATE_LIMIT_AUTH_PER_MINUTE="100",
        RATE_LIMIT_SECOND_FACTOR_PER_QUARTER_HOUR=str(TRIES),
        SECRET_KEYS=f"newer:{base64.b64encode(b'n' * 32).decode()},{settings_env['SECRET_KEYS']}",
    )
    async with GraphQLClient(second.graphql_url) as graphql:
        yield graphql


async def log_in(
    client: GraphQLClient, person: Person, code: str | None, *, password: str = PASSWORD, **more: Any
) -> dict[str, Any]:
    given = {"identifier": person.username, "password": password, "totpCode": code}
    granted: dict[str, Any] = (await client.run(LOGIN, {"input": given}, **more))["login"]
    return granted


async def login_refused(client: GraphQLClient, person: Person, code: str | None, **more: Any) -> tuple[str | None, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await log_in(client, person, code, **more)
    return caught.value.code, caught.value.extensions["details"].get("reason")


async def refused(client: GraphQLClient, document: str, given: Any, **more: Any) -> tuple[str | None, Any]:
    """The code, and what the details say of the path or else of the reason."""
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, {"input": given}, **more)
    details = caught.value.extensions.get("details", {})
    return caught.value.code, details.get("path") or details.get("reason")


async def letters(db: asyncpg.Connection, user_id: UUID) -> list[dict[str, str]]:
    found = await db.fetch(
        "SELECT payload FROM outbox_messages WHERE topic = 'mail' AND payload->>'userId' = $1 ORDER BY created_at, id",
        str(user_id),
    )
    return [orjson.loads(row["payload"])["variables"] for row in found]


async def trail(db: asyncpg.Connection, user_id: UUID, action: str) -> list[tuple[str, dict[str, Any]]]:
    """Outcome and details of a user's acts of a kind, oldest first, those without details left out."""
    found = await db.fetch(
        "SELECT outcome, details FROM audit_events WHERE target_id = $1 AND action = $2 ORDER BY id", user_id, action
    )
    return [(row["outcome"], details) for row in found if (details := orjson.loads(row["details"]))]


# -- who may not


@pytest.mark.parametrize(
    ("document", "given"),
    [
        (ENROL, {"password": PASSWORD}),
        (CONFIRM, {"code": "000000"}),
        (DISABLE, {"password": PASSWORD, "code": "000000"}),
        (RENEW, {"password": PASSWORD, "code": "000000"}),
    ],
    ids=["enrollTotp", "confirmTotp", "disableTotp", "renewRecoveryCodes"],
)
async def test_neither_strangers_nor_access_tokens_touch_a_second_factor(
    client: GraphQLClient, db: asyncpg.Connection, admin: Person, document: str, given: dict[str, str]
) -> None:
    created = {"name": "CI", "scopes": ["ADMIN"]}
    token = (await client.run(CREATE_TOKEN, {"input": created}, token=admin.token))["it"]["token"]
    assert (await refused(client, document, given))[0] == "UNAUTHORIZED"
    assert (await refused(client, document, given, token=token))[0] == "FORBIDDEN"
    assert await db.fetchval("SELECT sealed_totp FROM users WHERE email = $1", admin.email) is None


async def test_an_address_that_nobody_confirmed_gets_no_second_factor(
    client: GraphQLClient, db: asyncpg.Connection
) -> None:
    person = await new_user(client, password=PASSWORD)
    with_password = {"password": PASSWORD}
    assert await refused(client, ENROL, with_password, token=person.token) == ("CONFLICT", "emailUnconfirmed")
    assert await db.fetchval("SELECT sealed_totp FROM users WHERE username = $1", person.username) is None


async def test_a_borrowed_session_is_not_enough(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    token, user_id = guarded.person.token, guarded.id
    await db.execute("UPDATE sessions SET created_at = now() - interval '6 minutes' WHERE user_id = $1", user_id)
    before = await standing(db, guarded)
    for document in (ENROL, DISABLE, RENEW):
        code: dict[str, str] = {} if document == ENROL else {"code": guarded.code()}
        assert await refused(client, document, {"password": "wrong", **code}, token=token) == (
            "VALIDATION_ERROR",
            ["password"],
        )
        assert await refused(client, document, code, token=token) == ("VALIDATION_ERROR", ["password"])
    for document in (DISABLE, RENEW):
        for wrong in (guarded.wrong_code(), "", "0000-0000-0000-0000"):
            given = {"password": PASSWORD, "code": wrong}
            assert await refused(client, document, given, token=token) == ("VALIDATION_ERROR", ["code"])
    assert await refused(client, ENROL, {"password": PASSWORD}, token=token) == ("CONFLICT", "enrolledAlready")
    assert await refused(client, CONFIRM, {"code": guarded.code()}, token=token) == ("CONFLICT", "enrolledAlready")
    assert await standing(db, guarded) == before


async def test_without_a_second_factor_there_is_none_to_change(client: GraphQLClient, person: Person) -> None:
    given = {"password": PASSWORD, "code": "000000"}
    for document in (DISABLE, RENEW):
        assert await refused(client, document, given, token=person.token) == ("CONFLICT", "notEnrolled")
    assert await refused(client, CONFIRM, {"code": "000000"}, token=person.token) == ("CONFLICT", "notEnrolled")


# -- switching on


async def test_what_waits_to_be_confirmed_counts_for_nothing_and_gives_way_to_the_next(
    client: GraphQLClient, db: asyncpg.Connection, person: Person
) -> None:
    first, second = [
        (await client.run(ENROL, {"input": {"password": PASSWORD}}, token=person.token))["it"]["secret"]
        for _ in range(2)
    ]
    assert first != second
    assert len(first) == len(second) == 32
    await sign_in(client, person.username, PASSWORD)
    old_code = {"code": pyotp.TOTP(first).now()}
    assert await refused(client, CONFIRM, old_code, token=person.token) == ("VALIDATION_ERROR", ["code"])
    assert await client.run(ME, token=person.token) == {"me": {"twoFactorEnabled": False, "recoveryCodesLeft": None}}
    user_id = decode_id(person.id)[1]
    assert await trail(db, user_id, "confirmTotp") == [("UNAUTHORIZED", {"reason": "totpWrong"})]
    assert await db.fetchval("SELECT count(*) FROM recovery_codes WHERE user_id = $1", user_id) == 0


async def test_switching_on_ends_other_sessions_tells_the_owner_and_stores_no_code(
    client: GraphQLClient, db: asyncpg.Connection, person: Person
) -> None:
    other = await sign_in(client, person.username, PASSWORD)
    prepared = (await client.run(ENROL, {"input": {"password": PASSWORD}}, token=person.token))["it"]
    assert prepared["uri"].startswith("otpauth://totp/")
    assert prepared["secret"] in prepared["uri"]
    assert prepared["qrCodeSvg"].startswith("<svg")

    code = {"code": pyotp.TOTP(prepared["secret"]).now()}
    confirmed = (await client.run(CONFIRM, {"input": code}, token=person.token))["it"]

    recovery = confirmed["recoveryCodes"]
    assert len(set(recovery)) == 10
    assert all([len(part) for part in text.split("-")] == [4] * 4 for text in recovery)
    assert confirmed["revokedSessions"] == 1
    assert await client.run(ME, token=person.token) == {"me": {"twoFactorEnabled": True, "recoveryCodesLeft": 10}}
    with pytest.raises(GraphQLFailure):
        await client.run(ME, token=other.token)
    user_id = decode_id(person.id)[1]
    assert "asks for a code" in (await letters(db, user_id))[-1]["what"]
    assert await trail(db, user_id, "confirmTotp") == [("success", {"revokedSessions": 1})]
    reasons = await db.fetch(
        "SELECT revoked_reason FROM sessions WHERE user_id = $1 AND revoked_at > '-infinity'", user_id
    )
    assert [row["revoked_reason"] for row in reasons] == ["TWO_FACTOR_CHANGED"]
    stored = await db.fetch(
        """SELECT row_to_json(u)::text AS text FROM users u WHERE id = $1
           UNION ALL SELECT row_to_json(c)::text FROM recovery_codes c WHERE user_id = $1
           UNION ALL SELECT row_to_json(m)::text FROM outbox_messages m
           UNION ALL SELECT row_to_json(a)::text FROM audit_events a WHERE target_id = $1""",
        user_id,
    )
    hidden = [prepared["secret"], *recovery, *(text.replace("-", "") for text in recovery)]
    assert not [secret for secret in hidden for row in stored if secret in row["text"]]
    # The code that confirmed it was used by that.
    assert await login_refused(client, person, code["code"]) == ("UNAUTHORIZED", "totpWrong")


async def test_of_two_confirmations_at_once_one_shows_the_codes_that_count(
    client: GraphQLClient, db: asyncpg.Connection, person: Person
) -> None:
    secret = (await client.run(ENROL, {"input": {"password": PASSWORD}}, token=person.token))["it"]["secret"]
    given = {"input": {"code": pyotp.TOTP(secret).now()}}
    found = await asyncio.gather(*(client.raw(CONFIRM, given, token=person.token) for _ in range(4)))
    shown = [answer.json()["data"]["it"]["recoveryCodes"] for answer in found if not answer.json().get("errors")]
    assert len(shown) == 1
    user_id = decode_id(person.id)[1]
    kept = await db.fetch("SELECT prefix FROM recovery_codes WHERE user_id = $1", user_id)
    assert {row["prefix"] for row in kept} == {text[:4] for text in shown[0]}


# -- signing in


async def test_whoever_does_not_know_the_password_hears_nothing_of_a_second_factor(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    before = await standing(db, guarded)
    for code in (None, guarded.code(), guarded.recovery[0], guarded.wrong_code()):
        assert await login_refused(client, guarded.person, code, password="wrong") == ("UNAUTHORIZED", "credentials")
    assert await standing(db, guarded) == before


async def test_the_right_password_alone_opens_nothing(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    # Made with other parameters than those of today, so that a login replaces it.
    old_hash = PasswordHasher(time_cost=2, memory_cost=64, parallelism=1).hash(PASSWORD)
    await db.execute("UPDATE users SET password_hash = $2 WHERE id = $1", guarded.id, old_hash)
    before = await standing(db, guarded)
    for nothing in (None, "", "  "):
        assert await login_refused(client, guarded.person, nothing) == ("UNAUTHORIZED", "totpRequired")
    for wrong in (guarded.wrong_code(), "12345", "x" * 10_000, "0000-0000-0000-0000", "١٢٣٤٥٦"):
        assert await login_refused(client, guarded.person, wrong) == ("UNAUTHORIZED", "totpWrong")
    too_far = guarded.code(steps_off=4)
    assert await login_refused(client, guarded.person, too_far) == ("UNAUTHORIZED", "totpWrong")
    assert await standing(db, guarded) == before
    told = await trail(db, guarded.id, "login")
    assert [outcome for outcome, _ in told] == ["UNAUTHORIZED"] * 9
    assert [details["reason"] for _, details in told] == ["totpRequired"] * 3 + ["totpWrong"] * 6
    await log_in(client, guarded.person, guarded.code())
    assert await db.fetchval("SELECT password_hash FROM users WHERE id = $1", guarded.id) != old_hash


async def test_a_code_opens_one_session_and_no_earlier_one_does_after_it(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    code = guarded.code()
    granted = await log_in(client, guarded.person, f" {code[:3]} {code[3:]} ")
    assert granted["user"]["id"] == guarded.person.id
    before = await standing(db, guarded)
    assert await login_refused(client, guarded.person, code) == ("UNAUTHORIZED", "totpWrong")
    assert await login_refused(client, guarded.person, guarded.code(steps_off=-1)) == ("UNAUTHORIZED", "totpWrong")
    assert await standing(db, guarded) == before
    assert ("success", {"factor": "totp"}) in await trail(db, guarded.id, "login")


@pytest.mark.parametrize("kind", ["totp", "recoveryCode"])
async def test_of_twenty_who_sign_in_with_one_code_one_gets_in(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded, kind: str
) -> None:
    code = guarded.code() if kind == "totp" else guarded.recovery[0]
    before = await db.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", guarded.id)
    given = {"input": {"identifier": guarded.person.username, "password": PASSWORD, "totpCode": code}}
    found = await asyncio.gather(*(client.raw(LOGIN, given) for _ in range(20)))
    failures = [answer.json()["errors"][0]["extensions"] for answer in found if answer.json().get("errors")]
    assert len(failures) == 19
    assert {failure["details"].get("reason") for failure in failures} == {"totpWrong"}
    assert await db.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", guarded.id) == before + 1
    told = await trail(db, guarded.id, "login")
    assert told.count(("UNAUTHORIZED", {"reason": "totpWrong"})) == 19
    assert told.count(("success", {"factor": kind})) == 1


async def test_a_recovery_code_works_once_however_it_is_typed_and_its_owner_is_told(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    code = guarded.recovery[3]
    typed = code.upper().replace("0", "O").replace("1", "L").replace("-", " ")
    granted = await log_in(client, guarded.person, typed)
    assert await login_refused(client, guarded.person, code) == ("UNAUTHORIZED", "totpWrong")
    left = {"twoFactorEnabled": True, "recoveryCodesLeft": 9}
    assert await client.run(ME, token=granted["accessToken"]) == {"me": left}
    letter = (await letters(db, guarded.id))[-1]
    assert "recovery code was used" in letter["what"]
    assert letter["then"].startswith("9 of your recovery codes")
    mixed = guarded.recovery[5][:4] + guarded.recovery[4][4:]
    assert await login_refused(client, guarded.person, mixed) == ("UNAUTHORIZED", "totpWrong")


async def test_a_sign_in_that_began_before_the_factor_was_switched_on_is_refused(
    client: GraphQLClient, db: asyncpg.Connection, database_url: str, person: Person
) -> None:
    user_id = decode_id(person.id)[1]
    before = await db.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", user_id)
    other = await asyncpg.connect(database_url, timeout=10)
    async with other.transaction():
        await other.execute(
            "UPDATE users SET sealed_totp = 'v1.test.x', totp_confirmed_at = now() WHERE id = $1", user_id
        )
        running = asyncio.create_task(login_refused(client, person, None))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await eventually(lambda: db.fetchval(waiting), what="the sign-in waits for the row")
    await other.close(timeout=5)
    assert await running == ("UNAUTHORIZED", "totpRequired")
    assert await db.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", user_id) == before


async def test_an_account_that_does_not_open_is_not_asked_for_a_code(
    client: GraphQLClient, strict: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    await db.execute("UPDATE users SET email_verified_at = NULL WHERE id = $1", guarded.id)
    for code in (None, guarded.code()):
        found = await login_refused(strict, guarded.person, code, headers=somewhere())
        assert found == ("UNAUTHORIZED", "credentials")
    await db.execute("UPDATE users SET email_verified_at = now(), is_active = false WHERE id = $1", guarded.id)
    before = await standing(db, guarded)
    for code in (None, guarded.code()):
        assert await login_refused(client, guarded.person, code) == ("UNAUTHORIZED", "credentials")
    assert await standing(db, guarded) == before


async def test_a_new_password_by_a_link_leaves_the_second_factor(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    token = secrets.token_urlsafe(32)
    await db.execute(
        """INSERT INTO one_time_links (id, user_id, purpose, token_hash, email, created_at, expires_at)
           VALUES ($1, $2, 'RESET_PASSWORD', $3, $4, now(), now() + interval '1 hour')""",
        new_id(),
        guarded.id,
        link_hash(token),
        guarded.person.email,
    )
    chosen = "a stapler of seven horses"
    await client.run(RESET_PASSWORD, {"input": {"token": token, "password": chosen}})
    assert await login_refused(client, guarded.person, None, password=chosen) == ("UNAUTHORIZED", "totpRequired")
    assert await log_in(client, guarded.person, guarded.code(), password=chosen)


# -- limits


async def test_after_five_wrong_codes_from_anywhere_the_right_one_has_to_wait(
    client: GraphQLClient, strict: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    for _ in range(TRIES + 2):
        found = await login_refused(strict, guarded.person, None, headers=somewhere())
        assert found == ("UNAUTHORIZED", "totpRequired")
    for _ in range(TRIES):
        found = await login_refused(strict, guarded.person, guarded.wrong_code(), headers=somewhere())
        assert found == ("UNAUTHORIZED", "totpWrong")
    before = await standing(db, guarded)
    for code in (guarded.code(), guarded.recovery[0]):
        with pytest.raises(GraphQLFailure) as caught:
            await log_in(strict, guarded.person, code, headers=somewhere())
        assert caught.value.code == "RATE_LIMIT_EXCEEDED"
        assert caught.value.extensions["details"]["policy"] == "secondFactor"
        assert caught.value.extensions["retryAfterSeconds"] > 60
    # Neither in a session that is open, whatever else is proved there.
    given = {"password": PASSWORD, "code": guarded.code()}
    assert (await refused(strict, DISABLE, given, token=guarded.person.token))[0] == "RATE_LIMIT_EXCEEDED"
    assert await standing(db, guarded) == before


async def test_codes_that_were_right_leave_all_tries(
    client: GraphQLClient, strict: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    for _ in range(TRIES + 1):
        await log_in(strict, guarded.person, guarded.code(), headers=somewhere())
        await forget_step(db, guarded)


# -- switching off, other recovery codes


@pytest.mark.parametrize("kind", ["totp", "recoveryCode"])
async def test_a_code_and_the_password_switch_it_off(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded, kind: str
) -> None:
    other = await log_in(client, guarded.person, guarded.recovery[1])
    code = guarded.code() if kind == "totp" else guarded.recovery[0]
    given = {"input": {"password": PASSWORD, "code": code}}
    assert (await client.run(DISABLE, given, token=guarded.person.token))["it"] == {"revokedSessions": 1}
    off = {"twoFactorEnabled": False, "recoveryCodesLeft": None}
    assert await client.run(ME, token=guarded.person.token) == {"me": off}
    with pytest.raises(GraphQLFailure):
        await client.run(ME, token=other["accessToken"])
    assert await db.fetchval("SELECT count(*) FROM recovery_codes WHERE user_id = $1", guarded.id) == 0
    assert await db.fetchval("SELECT sealed_totp FROM users WHERE id = $1", guarded.id) is None
    assert await log_in(client, guarded.person, None)
    assert await trail(db, guarded.id, "disableTotp") == [("success", {"revokedSessions": 1, "factor": kind})]
    told = [letter["what"] for letter in await letters(db, guarded.id)]
    assert ["used up" in what for what in told] == [False, True, False]
    assert "does not ask" in told[-1]


async def test_new_recovery_codes_void_all_others(
    client: GraphQLClient, db: asyncpg.Connection, guarded: Guarded
) -> None:
    given = {"input": {"password": PASSWORD, "code": guarded.recovery[0]}}
    found = await asyncio.gather(*(client.raw(RENEW, given, token=guarded.person.token) for _ in range(3)))
    shown = [answer.json()["data"]["it"]["recoveryCodes"] for answer in found if not answer.json().get("errors")]
    assert len(shown) == 1
    assert len(set(shown[0])) == 10
    for void in guarded.recovery[:2]:
        assert await login_refused(client, guarded.person, void) == ("UNAUTHORIZED", "totpWrong")
    assert await log_in(client, guarded.person, shown[0][0])
    assert "New recovery codes" in (await letters(db, guarded.id))[1]["what"]


# -- by administrators


async def test_only_an_administrator_takes_the_factor_of_another_away(
    client: GraphQLClient, db: asyncpg.Connection, admin: Person, guarded: Guarded
) -> None:
    stranger = await new_user(client)
    of_guarded = {"userId": guarded.person.id}
    before = await standing(db, guarded)
    assert (await refused(client, RESET, of_guarded))[0] == "UNAUTHORIZED"
    for token in (stranger.token, guarded.person.token):
        assert (await refused(client, RESET, of_guarded, token=token))[0] == "FORBIDDEN"
    assert await standing(db, guarded) == before
    assert (await client.run(OF_USER, {"id": guarded.person.id}, token=stranger.token))["node"] is None
    for nobody in (f"user_{NOBODYS_ID.hex}", "x", ""):
        assert (await refused(client, RESET, {"userId": nobody}, token=admin.token))[0] == "NOT_FOUND"
    assert await refused(client, RESET, {"userId": admin.id}, token=admin.token) == ("CONFLICT", "ownAccount")
    assert await refused(client, RESET, {"userId": stranger.id}, token=admin.token) == ("CONFLICT", "notEnrolled")

    done = await client.run(RESET, {"input": of_guarded}, token=admin.token)

    assert done["it"] == {"revokedSessions": 1}
    assert await refused(client, RESET, of_guarded, token=admin.token) == ("CONFLICT", "notEnrolled")
    with pytest.raises(GraphQLFailure):
        await client.run(ME, token=guarded.person.token)
    assert await log_in(client, guarded.person, None)
    assert "administrator" in (await letters(db, guarded.id))[-1]["what"]
    assert await trail(db, guarded.id, "resetTwoFactor") == [("success", {"revokedSessions": 1})]


# -- keys


async def test_codes_work_on_after_the_key_was_changed(
    strict: GraphQLClient, db: asyncpg.Connection, guarded: Guarded, settings_env: dict[str, str]
) -> None:
    kid, _, key = settings_env["SECRET_KEYS"].partition(":")
    newer = {"newer": b"n" * 32}
    place = TOTP_SECRET.place(guarded.id)
    sealed = "SELECT sealed_totp FROM users WHERE id = $1"
    assert kid_of(await db.fetchval(sealed, guarded.id)) == kid
    await rotate(db, SecretBox(newer | {kid: base64.b64decode(key)}))
    assert SecretBox(newer).open(await db.fetchval(sealed, guarded.id), place=place) == guarded.secret
    assert await log_in(strict, guarded.person, guarded.code(), headers=somewhere())
