"""The end of an account: proof, what is gone at once, and what a worker removes until nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import orjson
import pyotp
import pytest
import pytest_asyncio

from adapters import storage
from models.executions import ExecutionStatus
from models.ids import new_id
from models.permissions import Role
from models.sealed import TOTP_SECRET
from resolvers import sessions
from tasks import account_purge
from tasks.outbox import NotYet
from tests.conftest import ApiServer, Programs, Template, WorkerFactory
from tests.factories import REGISTER, Person, new_user, sign_in
from tests.harness.client import GraphQLClient, GraphQLFailure, open_socket
from tests.harness.databases import mentions
from tests.harness.executions import add_items, add_request, uuid_of
from tests.harness.github_accounts import connect
from tests.harness.github_server import GitHubServer
from tests.harness.processes import Api
from tests.harness.projects import ONE_DEPLOYMENT, Studio, deployment_id_of, open_studio, uuid
from tests.harness.sites import SiteDesk, SiteProject
from tests.harness.waiting import eventually

SETTINGS = {"RATE_LIMITS": "false", "EMAIL_CONFIRMATION": "false", "WORKER_CRAWL_SLOTS": "0", "WORKER_BUILD_SLOTS": "0"}
EVERYWHERE_SECONDS = 5.0

ME = "{ me { id } }"
DELETE_ACCOUNT = "mutation ($input: DeleteAccountInput!) { it: deleteAccount(input: $input) { ok } }"
DELETE_USER = "mutation ($input: DeleteUserInput!) { it: deleteUser(input: $input) { deletedId } }"
USERS = "query ($search: String) { it: users(filter: {search: $search}) { totalCount } }"
USER = "query ($id: ID!) { it: user(id: $id) { id } }"
NEW_TOKEN = "mutation ($input: CreateAccessTokenInput!) { it: createAccessToken(input: $input) { token } }"
PAGE = {"index.html": "<h1>The same page</h1>" * 100}


@pytest_asyncio.fixture(scope="module")
async def github() -> AsyncIterator[GitHubServer]:
    """The stand-in, where accounts can be connected."""
    async with GitHubServer().running() as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template, github: GitHubServer) -> ApiServer:
    """An API that knows the stand-in."""
    programs.environment.update(github.settings)
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    programs.environment["BASE_URL"] = server.url
    return server


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest.fixture(scope="module")
def sites(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> SiteDesk:
    return SiteDesk(studio.pool, tmp_path_factory.mktemp("outputs"), studio.desk.tell)


@pytest_asyncio.fixture(scope="module")
async def second(api_server: ApiServer) -> Api:
    """Another API process on the same database and Redis."""
    return await api_server.second(PORT="0")


@pytest_asyncio.fixture(scope="module")
async def elsewhere(second: Api) -> AsyncIterator[GraphQLClient]:
    async with GraphQLClient(second.graphql_url) as graphql:
        yield graphql


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


class Home:
    """All that somebody has: a site, a deployment that waits, runs with items, files and logs, tokens, hooks."""

    def __init__(self, studio: Studio, sites: SiteDesk, api: Api, person: Person) -> None:
        self.studio, self.sites, self.api, self.person = studio, sites, api, person
        self.url = ""
        self.hook = ""
        self.token = ""
        self.waiting: UUID
        self.project: SiteProject

    async def furnish(self) -> Home:
        studio, person, desk = self.studio, self.person, self.studio.desk
        made = await studio.project(person)
        self.url = made["url"]
        self.project = SiteProject(uuid(made["id"]), made["slug"], uuid_of(person))
        self.hook = (await studio.hook(person, made["id"]))["url"]
        await studio.set(person, made["id"], {"name": "KEY", "value": "secret", "environments": ["PRODUCTION"]})
        await self.sites.deploy(self.project, PAGE)
        self.waiting = uuid((await studio.deployment(person, made["id"]))["id"])
        run = await desk.finished(person, lines=20)
        await desk.compact(run)
        await desk.finished(person, lines=5)
        await add_items(run, run, [{"n": number} for number in range(7)])
        await add_request(run, state="FAILED", reason="HTTP_ERROR")
        for attempt, named in ((1, True), (2, False)):
            await self._file(run, attempt, named=named)
        fields = {"input": {"name": "CI", "scopes": ["WRITE"]}}
        self.token = (await studio.client.run(NEW_TOKEN, fields, token=person.token))["it"]["token"]
        await studio.pool.execute(
            """INSERT INTO notifications (id, user_id, key, kind, title, body, created_at)
               VALUES ($1, $2, 'k', 'DEPLOYMENT_FAILED', 't', 'b', now())""",
            new_id(),
            uuid_of(person),
        )
        return self

    async def _file(self, run: UUID, attempt: int, *, named: bool) -> None:
        key = f"runs/{run}/{attempt}/items.jsonl"
        await storage.current().put(key, b"{}\n", content_type="application/jsonl")
        if named:
            await self.studio.pool.execute(
                """INSERT INTO output_files
                       (id, run_id, format, key, filename, content_type, size, sha256, row_count, created_at)
                   VALUES ($1, $2, 'JSONL', $3, 'items.jsonl', 'application/jsonl', 3, 'x', 1, now())""",
                new_id(),
                run,
                key,
            )

    async def answers(self) -> int:
        """The status of the site's page."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            return (await http.get(f"{self.api.url}/", headers={"Host": urlsplit(self.url).netloc})).status_code

    async def executions(self) -> list[UUID]:
        found = await self.studio.pool.fetch("SELECT id FROM executions WHERE owner_id = $1", uuid_of(self.person))
        return [row["id"] for row in found]


@pytest.fixture
async def home(studio: Studio, sites: SiteDesk, api_server: ApiServer, person: Person) -> Home:
    return await Home(studio, sites, api_server, person).furnish()


def stored_keys(settings_env: dict[str, str]) -> set[str]:
    """Keys of all objects on the disk."""
    records = (Path(settings_env["DATA_DIR"]) / "files" / "objects").rglob("*.json")
    return {orjson.loads(record.read_bytes())["key"] for record in records}


def letters_to(settings_env: dict[str, str], email: str) -> list[str]:
    """Subjects of the letters to an address."""
    found = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in sorted((Path(settings_env["DATA_DIR"]) / "mail").glob("*.eml"))
    ]
    return [str(letter["subject"]) for letter in found if email in str(letter["to"])]


async def refused(client: GraphQLClient, db: asyncpg.Connection, person: Person, **fields: Any) -> dict[str, Any]:
    """The extensions of a refused `deleteAccount`, which changed nothing but the audit trail."""
    tables = ("users", "sessions", "access_tokens", "executions", "outbox_messages", "projects")
    before = [await db.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(DELETE_ACCOUNT, {"input": fields}, token=person.token)
    assert [await db.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables] == before
    return caught.value.extensions


async def gone(db: asyncpg.Connection, user_id: UUID) -> bool:
    return await db.fetchval("SELECT 1 FROM users WHERE id = $1", user_id) is None


async def assert_nothing_left(
    home: Home, db: asyncpg.Connection, settings_env: dict[str, str], executions: list[UUID]
) -> None:
    """No object of theirs on the disk, no row but the audit trail, and that names nobody."""
    person, user_id = home.person, uuid_of(home.person)
    ids = [str(each) for each in (user_id, home.project.id, *executions)]
    assert [key for key in stored_keys(settings_env) if any(each in key for each in ids)] == []
    left = await mentions(db, str(user_id), person.username, str(home.project.id))
    assert set(left) == {"audit_events"}
    assert "audit_events" not in await mentions(db, person.username, person.email)
    events = await db.fetch("SELECT ip, user_agent FROM audit_events WHERE actor_id = $1", user_id)
    assert len(events) > 3
    assert {tuple(event) for event in events} == {(None, None)}


# -- proof


async def test_nobody_and_a_token_delete_no_account(client: GraphQLClient, person: Person) -> None:
    fields = {"input": {"name": "CI", "scopes": ["WRITE"]}}
    token = (await client.run(NEW_TOKEN, fields, token=person.token))["it"]["token"]
    for shown, code in ((None, "UNAUTHORIZED"), (token, "FORBIDDEN")):
        with pytest.raises(GraphQLFailure) as caught:
            await client.run(DELETE_ACCOUNT, {"input": {"password": person.password}}, token=shown)
        assert caught.value.code == code


async def test_without_proof_nothing_is_deleted(client: GraphQLClient, person: Person, db: asyncpg.Connection) -> None:
    wrong = await refused(client, db, person, password="not the password")
    assert (wrong["code"], wrong["details"]["path"]) == ("VALIDATION_ERROR", ["password"])
    await db.execute(
        "UPDATE sessions SET created_at = now() - interval '6 minutes' WHERE user_id = $1", uuid_of(person)
    )
    stale = await refused(client, db, person)
    assert (stale["code"], stale["details"]["reason"]) == ("VALIDATION_ERROR", "proofTooOld")
    assert (await client.run(ME, token=person.token))["me"]["id"] == person.id


async def test_a_second_factor_is_asked_for(
    client: GraphQLClient, studio: Studio, person: Person, db: asyncpg.Connection
) -> None:
    secret = pyotp.random_base32()
    sealed = sessions.secret_box().seal(secret, place=TOTP_SECRET.place(uuid_of(person)))
    await db.execute(
        "UPDATE users SET sealed_totp = $2, totp_confirmed_at = now() WHERE id = $1", uuid_of(person), sealed
    )
    for code, reason in ((None, "totpRequired"), ("000000", "totpWrong")):
        failure = await refused(client, db, person, password=person.password, totpCode=code)
        assert (failure["code"], failure["details"]["path"]) == ("VALIDATION_ERROR", ["totpCode"])
        assert failure["details"]["reason"] == reason
    proof = {"password": person.password, "totpCode": pyotp.TOTP(secret).now()}
    assert (await client.run(DELETE_ACCOUNT, {"input": proof}, token=person.token))["it"] == {"ok": True}
    row = await db.fetchrow("SELECT sealed_totp, password_hash, is_active FROM users WHERE id = $1", uuid_of(person))
    assert tuple(row) == (None, None, False)


async def test_the_last_administrator_cannot_go(client: GraphQLClient, admin: Person, db: asyncpg.Connection) -> None:
    failure = await refused(client, db, admin, password=admin.password)
    assert (failure["code"], failure["details"]["reason"]) == ("CONFLICT", "lastAdmin")


# -- at once, and after that


async def test_github_forgets_the_token_of_an_account_that_is_deleted(
    client: GraphQLClient, github: GitHubServer, person: Person, db: asyncpg.Connection
) -> None:
    await connect(client, person, github, "octo-leaving")
    assert "octo-leaving" in github.tokens.values()
    # Signed in just now: no password is needed.
    assert (await client.run(DELETE_ACCOUNT, {"input": {}}, token=person.token))["it"] == {"ok": True}
    await eventually(lambda: "octo-leaving" not in github.tokens.values())
    assert await db.fetchval("SELECT count(*) FROM oauth_connections WHERE user_id = $1", uuid_of(person)) == 0
    assert set(await mentions(db, "octo-leaving")) == {"audit_events"}, "until the trail is purged"


async def test_an_account_is_gone_at_once_and_a_worker_leaves_nothing_of_it(
    client: GraphQLClient,
    elsewhere: GraphQLClient,
    second: Api,
    api_server: ApiServer,
    studio: Studio,
    sites: SiteDesk,
    home: Home,
    admin: Person,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
    worker_factory: WorkerFactory,
) -> None:
    person, user_id = home.person, uuid_of(home.person)
    neighbour = await Home(studio, sites, api_server, await new_user(client)).furnish()
    assert (await home.answers(), await neighbour.answers()) == (200, 200)
    running = await studio.desk.started(person)
    assert (await elsewhere.run(ME, token=home.token))["me"]["id"] == person.id
    async with open_socket(second.ws_url, token=person.token) as socket:
        done = await client.run(DELETE_ACCOUNT, {"input": {"password": person.password}}, token=person.token)
        assert done["it"] == {"ok": True}
        assert (await socket.closed(EVERYWHERE_SECONDS)).code in (4401, 4403)

    async def is_out() -> bool:
        answers = [await elsewhere.raw(ME, token=each) for each in (person.token, home.token)]
        return [answer.status_code for answer in answers] == [401, 401]

    await eventually(is_out, EVERYWHERE_SECONDS)
    with pytest.raises(GraphQLFailure):
        await sign_in(client, person.username, person.password)

    async def is_offline() -> bool:
        return await home.answers() == 404

    await eventually(is_offline)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        assert (await http.post(home.hook.replace("https://", "http://"))).status_code == 404
    states = await db.fetch(
        "SELECT status, cancel_requested_at IS NOT NULL FROM executions WHERE id = ANY($1) ORDER BY status",
        [home.waiting, running.id],
    )
    assert [tuple(state) for state in states] == [("CANCELLED", True), ("RUNNING", True)]
    assert await mentions(db, person.email) == {"outbox_messages": 1}, "the letter, and nothing else"
    assert (await client.run(USERS, {"search": "deleted"}, token=admin.token))["it"]["totalCount"] == 0
    with pytest.raises(GraphQLFailure):
        await client.run(USER, {"id": person.id}, token=admin.token)
    fields = {"username": person.username, "email": person.email, "password": person.password}
    again = (await client.run(REGISTER, {"input": fields}))["register"]["user"]
    assert again["id"] != person.id
    await db.execute("DELETE FROM users WHERE email = $1", person.email)

    executions = await home.executions()
    worker = worker_factory()
    await eventually(lambda: letters_to(settings_env, person.email), 15)
    assert letters_to(settings_env, person.email) == ["Your account was deleted"]
    assert not await gone(db, user_id), "it waits for what runs"
    row = await db.fetchrow("SELECT attempts <= 1, last_error FROM outbox_messages WHERE topic = 'account.purge'")
    assert tuple(row) == (True, None), "and that is no failed attempt"
    await running.finish(ExecutionStatus.CANCELLED)

    async def is_gone() -> bool:
        return await gone(db, user_id)

    await eventually(is_gone, 20)
    await worker.wait_event("account_purged")
    await eventually_settled(db, user_id)
    await assert_nothing_left(home, db, settings_env, executions)
    assert await neighbour.answers() == 200
    assert len(await neighbour.executions()) == 4
    assert (await client.run(ME, token=neighbour.token))["me"]["id"] == neighbour.person.id


async def eventually_settled(db: asyncpg.Connection, user_id: UUID) -> None:
    """Wait until the message itself is gone, and what others told meanwhile."""

    async def is_settled() -> bool:
        return not await db.fetchval(
            "SELECT count(*) FROM outbox_messages WHERE payload::text LIKE '%' || $1 || '%'", str(user_id)
        )

    await eventually(is_settled, 10)


async def test_an_administrator_deletes_a_user_and_what_they_asked_for_stays(
    client: GraphQLClient, studio: Studio, admin: Person, person: Person, db: asyncpg.Connection
) -> None:
    leaving = await new_user(client, role=Role.ADMIN, db=db)
    project = await studio.project(person)
    asked = (await studio.deployment(leaving, project["id"]))["id"]
    assert (await studio.read(person, asked))["requestedBy"] == {"id": leaving.id}
    done = await client.run(DELETE_USER, {"input": {"id": leaving.id}}, token=admin.token)
    assert done["it"] == {"deletedId": leaving.id}
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(DELETE_USER, {"input": {"id": leaving.id}}, token=admin.token)
    assert caught.value.code == "NOT_FOUND"
    assert (await studio.read(person, asked))["requestedBy"] is None
    await account_purge.purge(storage.current(), studio.pool, {"userId": str(uuid_of(leaving))})
    assert await gone(db, uuid_of(leaving))
    found = await studio.run(person, ONE_DEPLOYMENT, id=deployment_id_of(uuid(asked)))
    assert (found["status"], found["requestedBy"]) == ("QUEUED", None)
    act = await db.fetchrow(
        "SELECT actor_id, ip FROM audit_events WHERE action = 'deleteUser' ORDER BY id DESC LIMIT 1"
    )
    assert tuple(act) == (uuid_of(admin), "127.0.0.1"), "the administrator's address is theirs"


class Failing:
    """A pool or a storage whose n-th call fails, before or after it has done its work."""

    def __init__(self, inner: Any, counter: list[int], *, names: frozenset[str], is_done: bool) -> None:
        self._inner, self._counter, self._names, self._is_done = inner, counter, names, is_done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found

        async def call(*arguments: Any, **more: Any) -> Any:
            self._counter[0] -= 1
            if self._counter[0] == 0:
                if self._is_done:
                    await found(*arguments, **more)
                raise ConnectionResetError("killed")
            return await found(*arguments, **more)

        return call


async def test_whatever_call_a_purge_is_cut_off_at_the_next_one_goes_on(
    client: GraphQLClient, studio: Studio, home: Home, db: asyncpg.Connection, settings_env: dict[str, str]
) -> None:
    executions = await home.executions()
    await client.run(DELETE_ACCOUNT, {"input": {"password": home.person.password}}, token=home.person.token)
    payload = {"userId": str(uuid_of(home.person))}
    cuts = 0
    while True:
        # Each fails one call later than the one before, while less and less is left; every other call has happened.
        counter = [cuts + 1]
        names = frozenset({"fetch", "fetchval", "execute", "delete"})
        pool = Failing(studio.pool, counter, names=names, is_done=bool(cuts % 2))
        files = Failing(storage.current(), counter, names=names, is_done=bool(cuts % 2))
        try:
            await account_purge.purge(files, pool, payload)
        except NotYet:
            cuts += 1
            assert cuts < 100
            continue
        break
    assert cuts > 5
    assert await gone(db, uuid_of(home.person))
    await account_purge.purge(storage.current(), studio.pool, payload)
    await db.execute("DELETE FROM outbox_messages")
    await assert_nothing_left(home, db, settings_env, executions)


async def test_a_killed_worker_leaves_the_purge_to_the_next(
    client: GraphQLClient,
    studio: Studio,
    home: Home,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
    worker_factory: WorkerFactory,
) -> None:
    user_id, executions = uuid_of(home.person), await home.executions()
    await client.run(DELETE_ACCOUNT, {"input": {"password": home.person.password}}, token=home.person.token)
    waiting_for_lock = """SELECT count(*) FROM pg_stat_activity
                          WHERE datname = current_database() AND wait_event_type = 'Lock'
                            AND application_name = 'switchyard-worker'"""
    first = worker_factory()
    async with db.transaction():
        # The purge has removed objects, and comes to rows that somebody holds: there it is killed.
        await db.execute("SELECT 1 FROM projects WHERE id = $1 FOR UPDATE", home.project.id)

        async def is_held_up() -> bool:
            return bool(await studio.pool.fetchval(waiting_for_lock))

        await eventually(is_held_up, 15)
        first.kill()
    assert not await gone(db, user_id)
    # Nobody waits a minute for the lease of a dead worker here.
    await db.execute("UPDATE outbox_messages SET due_at = now() WHERE topic = 'account.purge'")
    worker_factory()

    async def is_gone() -> bool:
        return await gone(db, user_id)

    await eventually(is_gone, 20)
    await eventually_settled(db, user_id)
    await assert_nothing_left(home, db, settings_env, executions)
