"""Sessions against a real database: rotation under concurrency, replay, the end, and what a token is worth."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import hypothesis
import jwt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from adapters import events
from errors import Conflict, NotFound, Unauthorized, ValidationFailed
from models import database
from models.ids import Prefix, encode_id, new_id
from models.permissions import Actor, Origin, Permission, Role
from models.sessions import LiveSession
from models.users import Account
from resolvers import access, account_rules, sessions, users
from resolvers.sessions import SessionCache, SignedIn
from resolvers.tokens import TokenKeys
from settings import Settings, load
from tests.factories import NOBODYS_ID
from tests.harness.waiting import eventually

SERVER = "postgres://postgres@127.0.0.1:5432/"
KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()
PASSWORD = "correct horse battery staple"
ORIGIN = Origin(ip="192.0.2.7", user_agent="tests", request_id="req-1")


def a_settings(database_url: str = "postgres://unused", **overrides: Any) -> Settings:
    return load(
        **{
            "database_url": database_url,
            "redis_url": "redis://127.0.0.1:6379/15",
            "redis_namespace": f"test-{uuid4().hex}",
            "secret_keys": f"new:{KEY}",
            "argon2_memory_kib": 8,
            "argon2_concurrency": 2,
            "database_pool_size": 10,
            "rate_limits": False,
            **overrides,
        }
    )


@pytest.fixture(scope="module")
async def scratch_database() -> AsyncIterator[str]:
    name = f"test_sessions_{uuid4().hex}"
    server = await asyncpg.connect(SERVER + "postgres")
    await server.execute(f"CREATE DATABASE {name}")
    try:
        await database.migrate(SERVER + name)
        yield SERVER + name
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


@pytest.fixture(scope="module")
async def settings(scratch_database: str) -> AsyncIterator[Settings]:
    """The process as the lifespan opens it."""
    opened = a_settings(scratch_database)
    async with database.connected(opened), events.connected(opened), sessions.opened(opened):
        yield opened


async def register(**values: Any) -> SignedIn:
    """A new account, signed in: nothing has to be confirmed here."""
    made = await users.register(**values)
    assert made is not None
    return made


@pytest.fixture
async def signed_in(settings: Settings) -> SignedIn:
    name = f"u{uuid4().hex[:20]}"
    return await register(username=name, email=f"{name}@example.com", password=PASSWORD, name="Grace", origin=ORIGIN)


async def counter_of(session: SignedIn) -> int:
    found: int = await database.value("SELECT refresh_counter FROM sessions WHERE id = $1", session.session_id)
    return found


async def age_rotation(session: SignedIn, seconds: int) -> None:
    await database.rows(
        "UPDATE sessions SET rotated_at = rotated_at - make_interval(secs => $2) WHERE id = $1",
        session.session_id,
        float(seconds),
    )


async def set_session(session: SignedIn, column: str, sql: str) -> None:
    await database.rows(f"UPDATE sessions SET {column} = {sql} WHERE id = $1", session.session_id)


async def audit_of(action: str, session: SignedIn) -> list[dict[str, Any]]:
    return await database.rows(
        "SELECT * FROM audit_events WHERE action = $1 AND session_id = $2 ORDER BY id", action, session.session_id
    )


async def refusal(token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await sessions.authenticate(token, ORIGIN)
    return str(caught.value.details["reason"])


async def refused_refresh(token: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        await sessions.refresh(token, ORIGIN)
    return str(caught.value.details["reason"])


# -- rotation


async def test_fifty_parallel_refreshes_rotate_once_and_all_get_the_same_successor(signed_in: SignedIn) -> None:
    answers = await asyncio.gather(*(sessions.refresh(signed_in.refresh_token, ORIGIN) for _ in range(50)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert answers[0].refresh_token != signed_in.refresh_token
    assert await counter_of(signed_in) == 1


async def test_a_chain_of_parallel_refreshes_never_forks(signed_in: SignedIn) -> None:
    token = signed_in.refresh_token
    for generation in range(1, 6):
        answers = await asyncio.gather(*(sessions.refresh(token, ORIGIN) for _ in range(8)))
        [token] = {answer.refresh_token for answer in answers}
        assert await counter_of(signed_in) == generation


# Of each turn: how far behind the newest token those are who ask, how many ask at once, and who comes after the grace.
TURNS = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 1, 2]), st.integers(1, 4), st.booleans()), max_size=6)


@given(TURNS)
@hypothesis.settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_rotation_is_a_chain_whoever_asks_with_whichever_token(
    settings: Settings, turns: list[tuple[int, int, bool]]
) -> None:
    """The model: the newest rotates, the one before gives the newest within ten seconds, all else ends everything."""
    name = f"u{uuid4().hex[:20]}"
    session = await register(username=name, email=f"{name}@example.com", password=PASSWORD, name="Grace", origin=ORIGIN)
    chain = [session.refresh_token]
    for behind, callers, is_late in turns:
        if behind >= len(chain):
            continue
        if is_late:
            await age_rotation(session, 11)
        asked = (sessions.refresh(chain[-1 - behind], ORIGIN) for _ in range(callers))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        if behind == 2 or (behind == 1 and is_late):
            assert all(isinstance(answer, Unauthorized) for answer in answers)
            assert {await refused_refresh(token) for token in chain} == {"revoked"}
            return
        [newest] = {answer.refresh_token for answer in answers if isinstance(answer, SignedIn)}
        assert not any(isinstance(answer, BaseException) for answer in answers)
        if behind == 0:
            chain.append(newest)
        assert newest == chain[-1]
        assert len(set(chain)) == len(chain) == await counter_of(session) + 1


async def test_a_replay_after_the_grace_signs_both_parties_out(signed_in: SignedIn) -> None:
    successor = await sessions.refresh(signed_in.refresh_token, ORIGIN)
    await age_rotation(signed_in, 11)
    assert await refused_refresh(signed_in.refresh_token) == "revoked"
    assert await refused_refresh(successor.refresh_token) == "revoked"
    assert await refusal(successor.access_token) == "revoked"
    [event] = await audit_of("refreshSession", signed_in)
    assert event["outcome"] == "UNAUTHORIZED"
    assert database.from_json(event["details"])["reason"] == "REFRESH_REUSED"


async def test_a_token_two_behind_ends_the_session_even_within_the_grace(signed_in: SignedIn) -> None:
    second = await sessions.refresh(signed_in.refresh_token, ORIGIN)
    third = await sessions.refresh(second.refresh_token, ORIGIN)
    assert await refused_refresh(signed_in.refresh_token) == "revoked"
    assert await refused_refresh(third.refresh_token) == "revoked"


async def test_asking_again_does_not_stretch_the_grace(signed_in: SignedIn) -> None:
    first = await sessions.refresh(signed_in.refresh_token, ORIGIN)
    await age_rotation(signed_in, 9)
    assert (await sessions.refresh(signed_in.refresh_token, ORIGIN)).refresh_token == first.refresh_token
    await age_rotation(signed_in, 2)
    assert await refused_refresh(signed_in.refresh_token) == "revoked"


async def test_a_counter_that_the_row_has_not_reached_ends_nothing(settings: Settings, signed_in: SignedIn) -> None:
    ahead = TokenKeys(settings).issue_refresh(signed_in.session_id, 5)
    assert await refused_refresh(ahead) == "revoked"
    assert (await sessions.refresh(signed_in.refresh_token, ORIGIN)).account == signed_in.account


@pytest.mark.parametrize(
    ("column", "sql"),
    [
        ("last_used_at", "now() - interval '14 days'"),
        ("expires_at", "now()"),
        ("revoked_at", "now()"),
    ],
)
async def test_a_session_past_its_end_gives_nothing(signed_in: SignedIn, column: str, sql: str) -> None:
    await set_session(signed_in, column, sql)
    assert await refused_refresh(signed_in.refresh_token) == "revoked"
    assert await refusal(signed_in.access_token) == "revoked"
    assert await counter_of(signed_in) == 0


async def test_refreshing_keeps_a_session_from_being_idle_but_not_from_its_absolute_end(signed_in: SignedIn) -> None:
    await set_session(signed_in, "last_used_at", "now() - interval '13 days'")
    await set_session(signed_in, "expires_at", "now() + interval '1 hour'")
    refreshed = await sessions.refresh(signed_in.refresh_token, ORIGIN)
    idle = await database.value("SELECT now() - last_used_at FROM sessions WHERE id = $1", signed_in.session_id)
    assert idle < timedelta(minutes=1)
    assert refreshed.refresh_until - datetime.now(UTC) < timedelta(hours=1, minutes=1)


async def test_a_deactivated_user_is_out_at_the_next_look(signed_in: SignedIn) -> None:
    await database.rows("UPDATE users SET is_active = false WHERE id = $1", signed_in.account.id)
    assert await refused_refresh(signed_in.refresh_token) == "revoked"
    assert await refusal(signed_in.access_token) == "revoked"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token.replace(".0.", ".1."),
        lambda token: token.replace(".0.", ".00."),
        lambda token: token.replace(".0.", ".٠."),
        lambda token: token.replace("sws_", "ses_"),
        lambda token: token.rpartition(".")[0],
        lambda token: token + "\n",
        lambda token: token.upper(),
        lambda _: "",
        lambda _: "sws_" + "z" * 26 + ".0." + "A" * 43,
        lambda _: "\ud800",
    ],
)
async def test_a_refresh_token_that_is_not_ours_is_refused(signed_in: SignedIn, spoil: Any) -> None:
    assert await refused_refresh(spoil(signed_in.refresh_token)) == "invalid"
    assert await counter_of(signed_in) == 0


# -- the end


async def test_after_logout_neither_token_works(signed_in: SignedIn) -> None:
    actor = await sessions.authenticate(signed_in.access_token, ORIGIN)
    await sessions.end(actor, refresh_token=None)
    assert await refusal(signed_in.access_token) == "revoked"
    assert await refused_refresh(signed_in.refresh_token) == "revoked"
    assert len(await audit_of("logout", signed_in)) == 1


async def test_logout_twice_is_one_logout(signed_in: SignedIn) -> None:
    for _ in range(2):
        await sessions.end(Actor(origin=ORIGIN), refresh_token=signed_in.refresh_token)
    assert await refusal(signed_in.access_token) == "revoked"
    assert len(await audit_of("logout", signed_in)) == 1


async def test_logout_of_nobody_changes_nothing(signed_in: SignedIn) -> None:
    await sessions.end(Actor(origin=ORIGIN), refresh_token=None)
    assert (await sessions.authenticate(signed_in.access_token, ORIGIN)).user_id == signed_in.account.id


# -- access tokens


async def test_role_and_rights_come_from_the_database_not_from_the_token(signed_in: SignedIn) -> None:
    await database.rows("UPDATE users SET role = 'ADMIN' WHERE id = $1", signed_in.account.id)
    assert jwt.decode(signed_in.access_token, options={"verify_signature": False})["role"] == "USER"
    assert (await sessions.authenticate(signed_in.access_token, ORIGIN)).role is Role.ADMIN


async def test_a_change_in_another_process_is_seen_as_soon_as_its_event_arrives(
    settings: Settings, signed_in: SignedIn
) -> None:
    await sessions.authenticate(signed_in.access_token, ORIGIN)  # now it is cached
    await database.rows("UPDATE sessions SET revoked_at = now() WHERE id = $1", signed_in.session_id)
    assert (await sessions.authenticate(signed_in.access_token, ORIGIN)).user_id == signed_in.account.id
    async with events.hub().watch(("sessions", signed_in.account.id)) as heard:
        redis = events.open_redis(settings)
        try:
            await redis.publish(
                f"{settings.redis_namespace}:events", f'["sessions", "{signed_in.account.id}"]'.encode()
            )
        finally:
            await redis.aclose()
        assert await heard.wait(5)
    assert await refusal(signed_in.access_token) == "revoked"


async def test_the_claims_are_those_of_the_contract(settings: Settings, signed_in: SignedIn) -> None:
    claims = jwt.decode(signed_in.access_token, options={"verify_signature": False})
    assert claims == {
        "sub": encode_id(Prefix.USER, signed_in.account.id),
        "sid": encode_id(Prefix.SESSION, signed_in.session_id),
        "email": signed_in.account.email,
        "name": "Grace",
        "role": "USER",
        "iat": claims["iat"],
        "exp": claims["iat"] + settings.access_token_seconds,
        "iss": settings.base_url,
        "aud": "switchyard",
    }
    assert jwt.get_unverified_header(signed_in.access_token) == {"alg": "HS256", "kid": "new", "typ": "at+jwt"}
    assert sessions.expires_at(signed_in.access_token) == signed_in.expires_at


def forged(
    signed_in: SignedIn,
    *,
    key: bytes | None = b"k" * 32,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
    without: str | None = None,
    **claims: Any,
) -> str:
    """A token as the real one, signed with the real key unless another is given, but for one thing."""
    real = jwt.decode(signed_in.access_token, options={"verify_signature": False})
    payload = {name: value for name, value in {**real, **claims}.items() if name != without}
    # PyJWT's types know no missing key, which the algorithm "none" asks for.
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": "new", "typ": "at+jwt", **(header or {})})  # type: ignore[arg-type]


async def test_a_forged_token_with_nothing_wrong_is_accepted(signed_in: SignedIn) -> None:
    """The forge works: what the next tests refuse, they refuse for the one thing that is wrong."""
    assert (await sessions.authenticate(forged(signed_in), ORIGIN)).user_id == signed_in.account.id


@pytest.mark.parametrize(
    "fault",
    [
        {"key": b"o" * 32},
        {"key": b"k" * 64, "algorithm": "HS512"},
        {"key": None, "algorithm": "none"},
        {"header": {"typ": "JWT"}},
        {"header": {"kid": "old"}},
        {"header": {"kid": None}},
        {"without": "sub"},
        {"without": "sid"},
        {"without": "exp"},
        {"without": "iat"},
        {"without": "iss"},
        {"without": "aud"},
        {"iss": "https://elsewhere.example"},
        {"aud": "elsewhere"},
        {"aud": ["switchyard", "elsewhere"]},
        {"sub": "nobody"},
        {"sub": 7},
        {"sid": 7},
        {"sid": encode_id(Prefix.USER, NOBODYS_ID)},
    ],
    ids=repr,
)
async def test_a_token_with_one_thing_wrong_is_refused(signed_in: SignedIn, fault: dict[str, Any]) -> None:
    if fault.get("header", {}).get("kid", "") is None:
        real = jwt.decode(signed_in.access_token, options={"verify_signature": False})
        token = jwt.encode(real, b"k" * 32, algorithm="HS256", headers={"typ": "at+jwt"})
    else:
        token = forged(signed_in, **fault)
    assert await refusal(token) == "invalid"


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * 100_000, "\ud800", "swp_abc"])
async def test_garbage_is_refused(settings: Settings, token: str) -> None:
    assert await refusal(token) == "invalid"


async def test_a_token_of_another_user_and_this_session_is_refused(signed_in: SignedIn) -> None:
    assert await refusal(forged(signed_in, sub=encode_id(Prefix.USER, new_id()))) == "revoked"


async def test_a_token_of_no_session_is_refused(signed_in: SignedIn) -> None:
    assert await refusal(forged(signed_in, sid=encode_id(Prefix.SESSION, new_id()))) == "revoked"


async def test_a_token_expires_after_ten_seconds_of_leeway(signed_in: SignedIn) -> None:
    now = int(datetime.now(UTC).timestamp())
    assert await refusal(forged(signed_in, iat=now - 100, exp=now - 12)) == "expired"
    within = forged(signed_in, iat=now - 100, exp=now - 5)
    assert (await sessions.authenticate(within, ORIGIN)).user_id == signed_in.account.id
    assert sessions.expires_at(within) < datetime.now(UTC)


async def test_a_token_that_was_good_a_moment_ago_expires_all_the_same(signed_in: SignedIn) -> None:
    soon_over = forged(signed_in, exp=int(datetime.now(UTC).timestamp()) - 8)
    await sessions.authenticate(soon_over, ORIGIN)

    async def is_refused() -> bool:
        try:
            await sessions.authenticate(soon_over, ORIGIN)
        except Unauthorized:
            return True
        return False

    await eventually(is_refused)
    assert await refusal(soon_over) == "expired"


def test_the_newest_key_signs_and_every_key_of_the_ring_verifies() -> None:
    account = Account(new_id(), "a@example.com", "ann", "Ann", Role.USER, datetime.now(UTC))
    session_id = new_id()
    before = TokenKeys(a_settings(secret_keys=f"old:{OTHER_KEY}"))
    during = TokenKeys(a_settings(secret_keys=f"new:{KEY},old:{OTHER_KEY}"))
    after = TokenKeys(a_settings(secret_keys=f"new:{KEY}"))
    access_token, _ = before.issue_access(account, session_id)
    refresh_token = before.issue_refresh(session_id, 3)

    assert during.read_access(access_token).session_id == session_id
    assert during.read_refresh(refresh_token).counter == 3
    newer, _ = during.issue_access(account, session_id)
    assert jwt.get_unverified_header(newer)["kid"] == "new"
    assert after.read_access(newer).user_id == account.id
    with pytest.raises(Unauthorized):
        after.read_access(access_token)
    with pytest.raises(Unauthorized):
        after.read_refresh(refresh_token)


# -- the cache


def a_live_session(*, user_id: UUID | None = None) -> LiveSession:
    account = Account(user_id or new_id(), "a@example.com", "ann", "Ann", Role.USER, datetime.now(UTC))
    return LiveSession(id=new_id(), account=account, counter=0, refresh_until=datetime.now(UTC))


def test_a_cached_session_is_good_for_five_seconds() -> None:
    cache, session = SessionCache(), a_live_session()
    cache.put(session, read_at=100.0, changes=0)
    assert cache.get(session.id, now=105.0) is session
    assert cache.get(session.id, now=105.1) is None


def test_the_cache_drops_the_session_used_longest_ago() -> None:
    cache = SessionCache(size=3)
    kept, dropped, *others = [a_live_session() for _ in range(4)]
    for session in (kept, dropped, others[0]):
        cache.put(session, read_at=0.0, changes=cache.changes)
    cache.get(kept.id, now=0.0)
    cache.put(others[1], read_at=0.0, changes=cache.changes)
    assert len(cache) == 3
    assert cache.get(dropped.id, now=0.0) is None
    assert cache.get(kept.id, now=0.0) is kept


def test_a_session_read_before_a_change_is_not_kept() -> None:
    cache, session = SessionCache(), a_live_session()
    before = cache.changes
    cache.forget_user(session.account.id)
    cache.put(session, read_at=0.0, changes=before)
    assert cache.get(session.id, now=0.0) is None


def test_forgetting_a_user_drops_all_their_sessions_and_no_others() -> None:
    cache, user_id = SessionCache(size=3), new_id()
    first, second, other = a_live_session(user_id=user_id), a_live_session(user_id=user_id), a_live_session()
    for session in (first, second, other):
        cache.put(session, read_at=0.0, changes=cache.changes)
    cache.forget_user(user_id)
    cache.forget_user(user_id)
    assert [cache.get(session.id, now=0.0) for session in (first, second, other)] == [None, None, other]
    cache.put(replace(first, counter=1), read_at=0.0, changes=cache.changes)
    assert len(cache) == 2


# -- accounts


@pytest.mark.parametrize("identifier", ["{email}", "{EMAIL}", "{username}", "{USERNAME}", " {username} "])
async def test_a_login_finds_its_account_whatever_the_case(signed_in: SignedIn, identifier: str) -> None:
    account = signed_in.account
    named = identifier.format(
        email=account.email, EMAIL=account.email.upper(), username=account.username, USERNAME=account.username.upper()
    )
    again = await users.login(identifier=named, password=PASSWORD, origin=ORIGIN)
    assert again.account == account
    assert again.session_id != signed_in.session_id


async def test_a_failed_login_says_the_same_whatever_was_wrong(signed_in: SignedIn) -> None:
    account = signed_in.account
    inactive = await register(
        username=f"i{uuid4().hex[:20]}",
        email=f"{uuid4().hex}@example.com",
        password=PASSWORD,
        name=None,
        origin=ORIGIN,
    )
    await database.rows("UPDATE users SET is_active = false WHERE id = $1", inactive.account.id)
    before = await database.value("SELECT count(*) FROM sessions")
    answers = set()
    for identifier, password in [
        (account.username, "wrong horse battery staple"),
        (f"nobody-{uuid4().hex[:8]}", PASSWORD),
        ("nobody@example.com", PASSWORD),
        ("x" * 10_000, PASSWORD),
        ("", PASSWORD),
        (inactive.account.username, PASSWORD),
        (inactive.account.email, PASSWORD),
    ]:
        with pytest.raises(Unauthorized) as caught:
            await users.login(identifier=identifier, password=password, origin=ORIGIN)
        answers.add((caught.value.message, repr(caught.value.extensions)))
    assert len(answers) == 1
    assert await database.value("SELECT count(*) FROM sessions") == before


async def test_a_failed_login_leaves_a_trail_without_the_name_that_was_typed(signed_in: SignedIn) -> None:
    typed = f"secret-{uuid4().hex[:12]}"
    for identifier in (typed, typed.upper(), signed_in.account.username):
        with pytest.raises(Unauthorized):
            await users.login(identifier=identifier, password="wrong horse battery", origin=ORIGIN)
    trail = await database.rows("SELECT * FROM audit_events WHERE action = 'login' ORDER BY id DESC LIMIT 3")
    known, upper, lower = trail
    assert known["target_id"] == signed_in.account.id
    assert (lower["target_id"], lower["outcome"], lower["ip"]) == (None, "UNAUTHORIZED", "192.0.2.7")
    assert lower["details"] == upper["details"] != known["details"]
    assert typed not in str(trail)


async def test_a_login_renews_a_hash_with_other_parameters(settings: Settings, signed_in: SignedIn) -> None:
    stronger = settings.model_copy(update={"argon2_memory_kib": 16})
    async with sessions.opened(stronger):
        await users.login(identifier=signed_in.account.username, password=PASSWORD, origin=ORIGIN)
    renewed = await database.value("SELECT password_hash FROM users WHERE id = $1", signed_in.account.id)
    assert "$m=16,t=1,p=1$" in renewed


@pytest.mark.parametrize("taken", ["email", "username"])
async def test_a_taken_name_is_a_conflict_that_changes_nothing(signed_in: SignedIn, taken: str) -> None:
    fresh = f"f{uuid4().hex[:20]}"
    values = {"username": fresh, "email": f"{fresh}@example.com"}
    values[taken] = getattr(signed_in.account, taken).upper()
    before = await database.value("SELECT count(*) FROM users")
    with pytest.raises(Conflict) as caught:
        await users.register(**values, password=PASSWORD, name=None, origin=ORIGIN)
    assert caught.value.details["path"] == [taken]
    assert await database.value("SELECT count(*) FROM users") == before


async def test_parallel_registrations_of_one_name_make_one_account(settings: Settings) -> None:
    name = f"p{uuid4().hex[:20]}"
    answers = await asyncio.gather(
        *(
            users.register(username=name, email=f"{name}@example.com", password=PASSWORD, name=None, origin=ORIGIN)
            for _ in range(8)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, SignedIn) for answer in answers) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 7
    assert await database.value("SELECT count(*) FROM users WHERE username_key = $1", name) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "ab"),
        ("username", "a" * 33),
        ("username", "with space"),
        ("username", "with@sign"),
        ("username", "straße"),
        ("username", "аdmin-cyrillic"),
        ("username", ""),
        ("email", "no-at-sign"),
        ("email", "two@at@signs.example"),
        ("email", "full＠width.example"),
        ("email", '"quoted"@example.com'),
        ("email", "a@[127.0.0.1]"),
        ("email", "a" * 250 + "@example.com"),
        ("email", ""),
        ("name", "   "),
        ("name", "n" * 121),
        ("name", "line\nbreak"),
        ("password", "seven77"),
        ("password", "p" * 1_025),
        ("password", "password1"),
        ("password", "Iloveyou1"),
        ("password", "valid-user"),
        ("password", "Valid_User-2024"),
        ("password", "mail.box!99"),
        ("password", "switchyard1"),
    ],
)
async def test_a_bad_value_is_refused_with_its_path(settings: Settings, field: str, value: str) -> None:
    values = {"username": "valid-user", "email": "mail.box@example.com", "password": PASSWORD, "name": "Grace"}
    with pytest.raises(ValidationFailed) as caught:
        await users.register(**{**values, field: value}, origin=ORIGIN)
    assert caught.value.details["path"] == [field]
    assert await database.value("SELECT count(*) FROM users WHERE username_key = 'valid-user'") == 0


@pytest.mark.parametrize(
    "password", ["eight-88", "contraseña larga", "p" * 1_024, "valid-user has nothing to say", "🐴🔋📎 🐴🔋📎 🐴"]
)
async def test_a_good_password_is_accepted(settings: Settings, password: str) -> None:
    account_rules.check_password(password, username="valid-user", email="mail.box@example.com")


async def test_the_visible_form_of_a_name_is_kept(settings: Settings) -> None:
    suffix = uuid4().hex[:12]
    made = await register(
        username=f"Ｇrace.{suffix}",
        email=f"Grace.{suffix}@Example.COM",
        password=PASSWORD,
        name="  Grace Hopper ",
        origin=ORIGIN,
    )
    assert (made.account.username, made.account.name) == (f"Grace.{suffix}", "Grace Hopper")
    assert made.account.email == f"Grace.{suffix}@example.com"
    assert made.account.role is Role.USER


async def test_an_installation_may_use_addresses_of_its_own_network(settings: Settings) -> None:
    suffix = uuid4().hex[:12]
    for number, domain in enumerate(["localhost", "intranet.local", "mail.test", "switchyard.internal"]):
        made = await register(
            username=f"n{number}{suffix}", email=f"{suffix}@{domain}", password=PASSWORD, name=None, origin=ORIGIN
        )
        assert made.account.email == f"{suffix}@{domain}"


async def test_an_administrator_is_made_once_with_a_password_of_twenty_characters(settings: Settings) -> None:
    name = f"a{uuid4().hex[:20]}"
    password = await users.create_admin(email=f"{name}@example.com", username=name, password=None)
    assert len(password) == 20
    assert await users.any_admin_exists()
    made = await users.login(identifier=name, password=password, origin=ORIGIN)
    assert made.account.role is Role.ADMIN
    with pytest.raises(Conflict):
        await users.create_admin(email="other@example.com", username=name, password=None)
    assert (await users.login(identifier=name, password=password, origin=ORIGIN)).account == made.account


async def test_an_existing_user_is_never_promoted(signed_in: SignedIn) -> None:
    with pytest.raises(Conflict):
        await users.create_admin(email=signed_in.account.email, username=f"x{uuid4().hex[:8]}", password=None)
    role = await database.value("SELECT role FROM users WHERE id = $1", signed_in.account.id)
    assert role == "USER"


# -- the gate


async def test_users_see_themselves_and_administrators_see_everybody(signed_in: SignedIn) -> None:
    own_id = encode_id(Prefix.USER, signed_in.account.id)
    own = Actor(user_id=signed_in.account.id)
    stranger, admin = Actor(user_id=new_id()), Actor(user_id=new_id(), role=Role.ADMIN)
    assert await access.user(own, own_id, to=Permission.ACCOUNT_READ) == signed_in.account
    assert await access.user(admin, own_id, to=Permission.USER_READ) == signed_in.account
    for actor in (stranger, Actor()):
        with pytest.raises(NotFound):
            await access.user(actor, own_id, to=Permission.ACCOUNT_READ)


@pytest.mark.parametrize("id_text", ["", "usr_", "nonsense", "\x00", encode_id(Prefix.JOB, UUID(int=7))])
async def test_what_is_no_id_of_a_user_is_not_found(settings: Settings, id_text: str) -> None:
    with pytest.raises(NotFound):
        await access.user(Actor(user_id=new_id(), role=Role.ADMIN), id_text, to=Permission.USER_READ)
