"""Limits through the API: what counts, on whom, whatever way it comes in; what callers are told; outages of Redis."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import secrets
import time
from http.cookies import SimpleCookie
from typing import Any

import asyncpg
import httpx
import pytest_asyncio
from redis.asyncio import Redis

from models.ids import decode_id
from resolvers.limit_news import OTHERS, Recent
from tests.conftest import ApiServer
from tests.factories import LOGIN, REGISTER, Person
from tests.harness import github_schema
from tests.harness.client import GraphQLClient, open_socket, subscribe_sse
from tests.harness.processes import Api
from tests.harness.projects import CREATE as CREATE_PROJECT
from tests.harness.projects import CREATE_HOOK, PROJECT
from tests.harness.relay import Relay

CALLS, AUTH, DEPLOYMENTS = 40, 5, 3
COME_BACK = 200
"""Far more tries than calls come back in the time that the tries take: one each 1.5 seconds."""

WEBHOOK_SECRET = "the-secret-of-webhooks"
SETTINGS = {
    "RATE_LIMITS": "true",
    "RATE_LIMIT_COST_PER_MINUTE": str(CALLS),
    "RATE_LIMIT_AUTH_PER_MINUTE": str(AUTH),
    "RATE_LIMIT_DEPLOYMENTS_PER_HOUR": str(DEPLOYMENTS),
    "TRUSTED_PROXIES": "127.0.0.1",
    "GITHUB_WEBHOOK_SECRET": WEBHOOK_SECRET,
}
PASSWORD = "correct horse battery staple"
ME = "{ me { id } }"
DEPLOY = """
mutation ($input: CreateDeploymentInput!) { it: createDeployment(input: $input) { deployment { id } } }
"""
REDEPLOY = "mutation ($input: RedeployInput!) { it: redeploy(input: $input) { deployment { id } } }"
ASK_RESET = "mutation ($input: RequestPasswordResetInput!) { requestPasswordReset(input: $input) { ok } }"
RESET = "mutation ($input: ResetPasswordInput!) { resetPassword(input: $input) { ok } }"
CHANGE_PASSWORD = "mutation ($input: ChangePasswordInput!) { changePassword(input: $input) { revokedCount } }"
WATCH = "subscription { notifications { id } }"

_hosts = itertools.count(1)


def somewhere() -> dict[str, str]:
    """A client's address that nobody had before."""
    number = next(_hosts)
    return {"X-Forwarded-For": f"198.{18 + number // 65_536 % 2}.{number // 256 % 256}.{number % 256}"}


async def new_person(client: GraphQLClient) -> Person:
    """A user who was registered from an address of its own and has made no call yet."""
    username = f"user-{secrets.token_hex(5)}"
    fields = {"username": username, "email": f"{username}@example.com", "password": PASSWORD, "name": "Grace"}
    made = (await client.run(REGISTER, {"input": fields}, headers=somewhere()))["register"]
    user = made["user"]
    return Person(
        user["id"], user["email"], username, user["role"], PASSWORD, made["accessToken"], made["refreshToken"]
    )


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_person(client)


def codes(answer: httpx.Response) -> list[str]:
    return [error["extensions"]["code"] for error in answer.json().get("errors", [])]


async def log_in(
    client: GraphQLClient, identifier: str, password: str, headers: dict[str, str], **more: Any
) -> httpx.Response:
    return await client.raw(LOGIN, {"input": {"identifier": identifier, "password": password, **more}}, headers=headers)


def left(answer: httpx.Response) -> int:
    """What the answer says may be spent at once."""
    return int(answer.headers["ratelimit"].partition(";r=")[2].partition(";")[0])


async def spend(client: GraphQLClient, token: str, count: int) -> None:
    for _ in range(count):
        assert (await client.raw(ME, token=token)).status_code == 200


async def spend_all(client: GraphQLClient, token: str) -> httpx.Response:
    """Ask until it is refused, which is after all calls and the one or two that come back meanwhile; the refusal."""
    await spend(client, token, CALLS)
    return await over(client, ME, token=token)


async def over(client: GraphQLClient, document: str, **more: Any) -> httpx.Response:
    for _ in range(COME_BACK):
        answer = await client.raw(document, **more)
        if answer.status_code != 200:
            break
    return answer


# -- all operations


async def test_a_user_who_asks_too_often_is_told_when_to_come_back_and_nobody_else_notices(
    client: GraphQLClient, person: Person
) -> None:
    answer = await spend_all(client, person.token)
    assert answer.status_code == 429
    (error,) = answer.json()["errors"]
    seconds = error["extensions"].pop("retryAfterSeconds")
    assert error["extensions"].pop("requestId") == answer.headers["x-request-id"]
    assert error["extensions"] == {
        "code": "RATE_LIMIT_EXCEEDED",
        "statusCode": 429,
        "details": {"policy": "calls", "limit": CALLS, "windowSeconds": 60},
    }
    assert 1 <= seconds <= 2
    assert answer.headers["retry-after"] == str(seconds)
    assert answer.headers["ratelimit-policy"] == f'"calls";q={CALLS};w=60'
    assert answer.headers["ratelimit"].startswith('"calls";r=0;t=')
    other = await new_person(client)
    assert (await client.raw(ME, token=other.token)).status_code == 200


async def test_headers_say_what_is_left(client: GraphQLClient, person: Person) -> None:
    answer = await client.raw(ME, token=person.token)
    assert answer.headers["ratelimit-policy"] == f'"calls";q={CALLS};w=60'
    assert answer.headers["ratelimit"] == f'"calls";r={CALLS - 1};t=2'
    assert "retry-after" not in answer.headers
    assert left(await client.raw(ME, token=person.token)) == CALLS - 2


async def test_what_asks_for_many_nodes_counts_for_several_and_never_for_more_than_there_is(
    client: GraphQLClient, person: Person
) -> None:
    hundred_and_one = (
        "{ projects(first: 100) { nodes: edges { node { id } } } more: projects(first: 1) { totalCount } }"
    )
    assert left(await client.raw(hundred_and_one, token=person.token)) == CALLS - 3
    few = "{ projects(first: 50) { edges { node { id } } } }"
    assert left(await client.raw(few, token=person.token)) == CALLS - 4
    other = await new_person(client)
    parts = " ".join(f"a{number}: projects(first: 100) {{ totalCount }}" for number in range(25))
    whole = await client.raw(f"{{ {parts} }}", token=other.token)  # 2,500 nodes: 50 calls, of which there are 40
    assert (whole.status_code, left(whole)) == (200, 0)


async def test_a_refused_operation_charges_nothing(client: GraphQLClient, person: Person) -> None:
    await spend(client, person.token, CALLS - 2)
    heavy = "{ projects(first: 100) { edges { node { deployHooks { id } } } } }"
    assert (await client.raw(heavy, token=person.token)).status_code == 429
    assert left(await client.raw("{ __typename }", token=person.token)) in (1, 2)
    assert (await client.raw(ME, token=person.token)).status_code == 200


async def test_who_is_not_signed_in_counts_by_address_and_introspection_counts_too(client: GraphQLClient) -> None:
    here, there = somewhere(), somewhere()
    for _ in range(CALLS):
        assert (await client.raw("{ __schema { queryType { name } } }", headers=here)).status_code == 200
    assert (await over(client, "{ __typename }", headers=here)).status_code == 429
    assert (await client.raw("{ __typename }", headers=there)).status_code == 200
    # What a client writes left of its own address is its word, and no way to be somebody else.
    forged = {"X-Forwarded-For": f"{there['X-Forwarded-For']}, {here['X-Forwarded-For']}"}
    assert (await over(client, "{ __typename }", headers=forged)).status_code == 429


async def test_an_ipv6_host_is_its_network(client: GraphQLClient) -> None:
    network, next_one = "2001:db8:1:1", "2001:db8:1:2"
    for number in range(CALLS):
        await client.raw("{ __typename }", headers={"X-Forwarded-For": f"{network}::{number:x}"})
    within = await over(client, "{ __typename }", headers={"X-Forwarded-For": f"{network}:ffff::1"})
    beside = await client.raw("{ __typename }", headers={"X-Forwarded-For": f"{next_one}::1"})
    assert (within.status_code, beside.status_code) == (429, 200)


async def test_operations_on_a_socket_count_and_a_subscription_when_it_starts(
    client: GraphQLClient, graphql_ws_url: str, person: Person
) -> None:
    async with open_socket(graphql_ws_url, token=person.token) as socket:
        await socket.start(WATCH)
        for _ in range(CALLS - 1):
            await socket.start(ME)
        ended = [await socket.receive() for _ in range(2 * (CALLS - 1))]
        assert {message["type"] for message in ended} == {"next", "complete"}
        for document in (ME, WATCH):
            for _ in range(COME_BACK):
                operation_id = await socket.start(document)
                try:
                    answer = await socket.receive(0.5 if document is WATCH else 10)
                except TimeoutError:
                    continue  # a call had come back: the subscription has started, and says nothing yet
                if answer["type"] == "error":
                    break
                assert (await socket.receive())["type"] == "complete"
            assert (answer["type"], answer["id"]) == ("error", operation_id)
            assert answer["payload"][0]["extensions"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert (await over(client, ME, token=person.token)).status_code == 429


async def test_operations_in_event_streams_count(client: GraphQLClient, person: Person) -> None:
    await spend(client, person.token, CALLS)
    for document in (ME, WATCH):
        for _ in range(COME_BACK):
            await over(client, ME, token=person.token)
            async with subscribe_sse(client, document, token=person.token) as stream:
                try:
                    async with asyncio.timeout(0.5 if document is WATCH else 10):
                        name, answer = await anext(stream)
                except TimeoutError:
                    continue  # as above
            if "errors" in answer:
                break
        assert (name, answer["errors"][0]["extensions"]["code"]) == ("next", "RATE_LIMIT_EXCEEDED")
        assert answer["errors"][0]["extensions"]["retryAfterSeconds"] in (1, 2)


async def test_two_processes_count_together(client: GraphQLClient, api_server: ApiServer, person: Person) -> None:
    second = await api_server.second()
    async with GraphQLClient(second.graphql_url) as other:
        await spend(client, person.token, CALLS // 2)
        await spend(other, person.token, CALLS // 2)
        assert (await over(other, ME, token=person.token)).status_code == 429
        assert (await over(client, ME, token=person.token)).status_code == 429


# -- proving who one is


async def test_aliases_of_a_failing_login_are_as_many_attempts(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    attempts = " ".join(
        f'a{number}: login(input: {{identifier: "{person.username}", password: "guess {number}"}}) {{ expiresAt }}'
        for number in range(10)
    )
    document = f"mutation {{ {attempts} }}"
    where = somewhere()
    # A payload may not be null, so the first failure ends its operation.
    found = [codes(await client.raw(document, headers=where)) for _ in range(AUTH + 2)]
    assert found == [["UNAUTHORIZED"]] * AUTH + [["RATE_LIMIT_EXCEEDED"]] * 2
    tried = "SELECT count(*) FROM audit_events WHERE action = 'login' AND ip = $1"
    assert await db.fetchval(tried, where["X-Forwarded-For"]) == AUTH


async def test_failures_lock_the_account_for_strangers_from_everywhere_and_the_right_password_does_not_help(
    client: GraphQLClient, person: Person
) -> None:
    for _ in range(AUTH):
        assert codes(await log_in(client, person.username, "wrong", somewhere())) == ["UNAUTHORIZED"]
    for identifier in (person.username, f" {person.username.upper()} "):
        answer = await log_in(client, identifier, PASSWORD, somewhere())
        assert codes(answer) == ["RATE_LIMIT_EXCEEDED"]
        assert answer.headers["ratelimit-policy"] == f'"auth";q={AUTH};w=60'
        assert answer.headers["ratelimit"].startswith('"auth";r=0;t=')
        assert 1 <= int(answer.headers["retry-after"]) <= 12
    # The session that exists goes on.
    assert (await client.raw(ME, token=person.token)).status_code == 200


async def test_accounts_that_do_not_exist_are_limited_alike(client: GraphQLClient) -> None:
    nobody = f"user-{secrets.token_hex(5)}"
    found = [codes(await log_in(client, nobody, "wrong", somewhere())) for _ in range(AUTH + 1)]
    assert found == [["UNAUTHORIZED"]] * AUTH + [["RATE_LIMIT_EXCEEDED"]]


async def test_an_address_that_fails_at_many_accounts_is_stopped_and_one_that_succeeds_is_not(
    client: GraphQLClient, person: Person
) -> None:
    office, guesser = somewhere(), somewhere()
    for _ in range(AUTH + 2):
        assert codes(await log_in(client, person.username, PASSWORD, office)) == []
    for number in range(AUTH):
        assert codes(await log_in(client, f"nobody-{number}", "wrong", guesser)) == ["UNAUTHORIZED"]
    assert codes(await log_in(client, person.username, PASSWORD, guesser)) == ["RATE_LIMIT_EXCEEDED"]


async def test_attempts_at_once_are_no_more_than_attempts_in_turn(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(
        *(log_in(client, person.username, f"guess {number}", somewhere()) for number in range(20))
    )
    assert sum(codes(answer) == ["UNAUTHORIZED"] for answer in answers) == AUTH
    looked_at = "SELECT count(*) FROM audit_events WHERE action = 'login' AND target_id = $1"
    assert await db.fetchval(looked_at, decode_id(person.id)[1]) == AUTH


async def test_what_is_wrong_with_the_input_is_no_attempt(client: GraphQLClient, person: Person) -> None:
    where = somewhere()
    for _ in range(AUTH + 1):
        assert codes(await log_in(client, person.username, "x" * 1_025, where)) == ["VALIDATION_ERROR"]
    assert codes(await log_in(client, person.username, PASSWORD, where)) == []


async def test_strangers_cannot_lock_out_a_browser_that_was_signed_in_before(
    client: GraphQLClient, api_server: ApiServer, person: Person
) -> None:
    page = {"Origin": api_server.url}
    answer = await log_in(client, person.username, PASSWORD, {**somewhere(), **page}, cookies=True)
    client.http.cookies.clear()
    cookie: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        cookie.load(header)
    device = cookie["switchyard_device"]
    assert (device["httponly"], device["samesite"], device["path"]) == (True, "Lax", "/")
    assert int(device["max-age"]) == 365 * 86_400
    known = {**page, "Cookie": f"switchyard_device={device.value}"}
    for _ in range(AUTH):
        await log_in(client, person.username, "wrong", somewhere())
    assert codes(await log_in(client, person.username, PASSWORD, somewhere())) == ["RATE_LIMIT_EXCEEDED"]
    assert codes(await log_in(client, person.username, PASSWORD, {**somewhere(), **known})) == []

    # It is of this account and of this browser, and cannot be made.
    body, _, signature = device.value.rpartition(".")
    for forged in (f"{body}.{'0' * 64}", f"{body[:-1]}{'01'[body[-1] == '0']}.{signature}", "x", ""):
        headers = {**somewhere(), **page, "Cookie": f"switchyard_device={forged}"}
        assert codes(await log_in(client, person.username, PASSWORD, headers)) == ["RATE_LIMIT_EXCEEDED"]
    other = await new_person(client)
    for _ in range(AUTH):
        await log_in(client, other.username, "wrong", somewhere())
    assert codes(await log_in(client, other.username, PASSWORD, {**somewhere(), **known})) == ["RATE_LIMIT_EXCEEDED"]

    # Nor may it guess for ever.
    found = [codes(await log_in(client, person.username, "wrong", {**somewhere(), **known})) for _ in range(AUTH + 1)]
    assert found == [["UNAUTHORIZED"]] * AUTH + [["RATE_LIMIT_EXCEEDED"]]


async def test_every_registration_counts_and_a_refused_one_makes_nothing(
    client: GraphQLClient, db: asyncpg.Connection
) -> None:
    names = [f"user-{secrets.token_hex(5)}" for _ in range(AUTH + 3)]
    parts = " ".join(
        f'{name.replace("-", "_")}: register(input: {{username: "{name}", email: "{name}@example.com", '
        f'password: "{PASSWORD}"}}) {{ expiresAt }}'
        for name in names
    )
    answer = await client.raw(f"mutation {{ {parts} }}", headers=somewhere())
    assert codes(answer) == ["RATE_LIMIT_EXCEEDED"]
    made = await db.fetch("SELECT username FROM users WHERE username = ANY($1) ORDER BY id", names)
    assert [row["username"] for row in made] == names[:AUTH]


async def test_who_is_locked_out_by_others_can_still_ask_for_a_new_password(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    for _ in range(AUTH):
        await log_in(client, person.email, "wrong", somewhere())
    assert codes(await log_in(client, person.email, PASSWORD, somewhere())) == ["RATE_LIMIT_EXCEEDED"]
    ask = {"input": {"email": person.email}}
    found = [codes(await client.raw(ASK_RESET, ask, headers=somewhere())) for _ in range(AUTH)]
    # The registration named the address too.
    assert found == [[]] * (AUTH - 1) + [["RATE_LIMIT_EXCEEDED"]]
    asked = await db.fetchval(
        "SELECT count(*) FROM outbox_messages WHERE payload::text LIKE '%' || $1 || '%'", person.email
    )
    assert asked == 1
    where = somewhere()
    use = {"input": {"token": "never-worked", "password": PASSWORD}}
    found = [codes(await client.raw(RESET, use, headers=where)) for _ in range(AUTH + 1)]
    assert found == [["VALIDATION_ERROR"]] * AUTH + [["RATE_LIMIT_EXCEEDED"]]


async def test_a_stolen_session_cannot_guess_the_password(client: GraphQLClient, person: Person) -> None:
    async def change(current: str) -> list[str]:
        fields = {"input": {"currentPassword": current, "newPassword": "another horse battery"}}
        return codes(await client.raw(CHANGE_PASSWORD, fields, token=person.token, headers=somewhere()))

    assert [await change("wrong") for _ in range(AUTH)] == [["VALIDATION_ERROR"]] * AUTH
    assert await change(PASSWORD) == ["RATE_LIMIT_EXCEEDED"]
    # Nobody else can bring that about: it is no failed log-in.
    assert codes(await log_in(client, person.username, PASSWORD, somewhere())) == []


# -- new deployments


async def project_of(client: GraphQLClient, person: Person, repository: str = "https://git.example.com/a/b.git") -> str:
    fields = {"name": f"Site {secrets.token_hex(4)}", "repository": repository}
    made = await client.run(CREATE_PROJECT + PROJECT, {"input": fields}, token=person.token)
    project_id: str = made["it"]["project"]["id"]
    return project_id


async def deploy(client: GraphQLClient, person: Person, project_id: str, **more: Any) -> httpx.Response:
    return await client.raw(DEPLOY, {"input": {"projectId": project_id, **more}}, token=person.token)


async def deployments(db: asyncpg.Connection, person: Person) -> int:
    count: int = await db.fetchval(
        """SELECT count(*) FROM deployments d JOIN executions e ON e.id = d.execution_id
           JOIN users u ON u.id = e.owner_id WHERE u.username = $1""",
        person.username,
    )
    return count


async def test_aliases_of_one_mutation_are_as_many_deployments(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    project_id = await project_of(client, person)
    parts = " ".join(
        f'a{number}: createDeployment(input: {{projectId: "{project_id}"}}) {{ deployment {{ id }} }}'
        for number in range(DEPLOYMENTS + 1)
    )
    answer = await client.raw(f"mutation {{ {parts} }}", token=person.token)
    (error,) = answer.json()["errors"]
    assert (error["path"], error["extensions"]["code"]) == ([f"a{DEPLOYMENTS}"], "RATE_LIMIT_EXCEEDED")
    assert error["extensions"]["details"] == {"policy": "deployments", "limit": DEPLOYMENTS, "windowSeconds": 3_600}
    assert 1_100 <= error["extensions"]["retryAfterSeconds"] <= 1_200
    assert answer.headers["ratelimit-policy"] == f'"deployments";q={DEPLOYMENTS};w=3600'
    assert await deployments(db, person) == DEPLOYMENTS


async def test_only_what_becomes_a_deployment_counts(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    project_id = await project_of(client, person)
    for _ in range(DEPLOYMENTS + 1):
        assert codes(await deploy(client, person, project_id, branch="..")) == ["VALIDATION_ERROR"]
        assert codes(await deploy(client, person, project_id, idempotencyKey="first")) == []
    assert codes(await deploy(client, person, project_id, branch="x", idempotencyKey="first")) == ["CONFLICT"]
    made = (await deploy(client, person, project_id)).json()["data"]["it"]["deployment"]["id"]
    again = await client.raw(REDEPLOY, {"input": {"id": made}}, token=person.token)
    assert codes(again) == []
    for answer in (
        await deploy(client, person, project_id),
        await client.raw(REDEPLOY, {"input": {"id": made}}, token=person.token),
    ):
        assert codes(answer) == ["RATE_LIMIT_EXCEEDED"]
    # Who repeats a call because its answer was lost gets the answer.
    assert codes(await deploy(client, person, project_id, idempotencyKey="first")) == []
    assert await deployments(db, person) == DEPLOYMENTS


async def test_a_hook_over_its_owners_limit_answers_429(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    project_id = await project_of(client, person)
    hook = await client.run(CREATE_HOOK, {"input": {"projectId": project_id, "name": "Timer"}}, token=person.token)
    for _ in range(DEPLOYMENTS):
        assert (await client.http.post(hook["it"]["url"])).status_code == 202
    answer = await client.http.post(hook["it"]["url"])
    assert (answer.status_code, codes(answer)) == (429, ["RATE_LIMIT_EXCEEDED"])
    assert int(answer.headers["retry-after"]) > 1_000
    assert codes(await deploy(client, person, project_id)) == ["RATE_LIMIT_EXCEEDED"]
    assert await deployments(db, person) == DEPLOYMENTS


async def test_a_push_over_the_limit_fails_for_its_owner_alone_and_can_be_replayed(
    client: GraphQLClient,
    api_server: ApiServer,
    person: Person,
    db: asyncpg.Connection,
    settings_env: dict[str, str],
) -> None:
    name = f"team/{secrets.token_hex(5)}"
    other = await new_person(client)
    project_id = await project_of(client, person, f"https://github.com/{name}")
    await project_of(client, other, f"https://github.com/{name}")
    for _ in range(DEPLOYMENTS):
        assert codes(await deploy(client, person, project_id)) == []
    payload = github_schema.payload("push")
    payload["repository"].update(full_name=name, private=False)
    payload.update(ref="refs/heads/main", deleted=False, created=True, after=secrets.token_hex(20))
    body = json.dumps(payload).encode()
    answer = await client.http.post(
        f"{api_server.url}/webhooks/github",
        content=body,
        headers={
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": secrets.token_hex(16),
            "X-Hub-Signature-256": f"sha256={hmac.digest(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hex()}",
        },
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "FAILED"), answer.text
    assert (await deployments(db, person), await deployments(db, other)) == (DEPLOYMENTS, 1)
    (delivery,) = (
        await client.run("{ webhookDeliveries { edges { node { id effects { message } } } } }", token=person.token)
    )["webhookDeliveries"]["edges"]
    assert "too many deployments" in delivery["node"]["effects"][0]["message"]

    async def replayed() -> dict[str, Any]:
        document = """mutation ($input: ReplayDeliveryInput!) {
          replayDelivery(input: $input) { delivery { status effects { deployment { id } } } } }"""
        made = await client.run(document, {"input": {"id": delivery["node"]["id"]}}, token=person.token)
        found: dict[str, Any] = made["replayDelivery"]["delivery"]
        return found

    assert (await replayed())["status"] == "FAILED"
    async with Redis.from_url(settings_env["REDIS_URL"]) as redis:  # an hour passes
        keys = [key async for key in redis.scan_iter(f"{settings_env['REDIS_NAMESPACE']}:limit:deployments:*")]
        assert await redis.delete(*keys)
    assert (await replayed())["status"] == "PROCESSED"
    assert await deployments(db, person) == DEPLOYMENTS + 1


# -- without Redis


async def test_a_redis_that_falls_silent_keeps_attempts_limited_and_answers_quick(
    client: GraphQLClient, api_server: ApiServer, person: Person, settings_env: dict[str, str]
) -> None:
    async with Relay(settings_env["REDIS_URL"]) as relay:
        cut_off: Api = await api_server.second(REDIS_URL=relay.url)
        async with GraphQLClient(cut_off.graphql_url) as alone:
            assert codes(await log_in(alone, person.username, "wrong", somewhere())) == ["UNAUTHORIZED"]
            relay.silence()
            found = [codes(await log_in(alone, person.username, "wrong", somewhere())) for _ in range(AUTH + 3)]
            assert found.count(["UNAUTHORIZED"]) == AUTH - 1
            assert found[-1] == ["RATE_LIMIT_EXCEEDED"]
            seconds = []
            for _ in range(10):
                started = time.monotonic()
                assert (await alone.raw(ME, token=person.token)).status_code == 200
                seconds.append(time.monotonic() - started)
            assert sorted(seconds)[5] < 0.1
            await cut_off.wait_event("rate_limits_without_redis")


# -- what is written of refusals


async def test_a_refused_account_is_told_of_once_by_its_pseudonym_in_the_log_and_in_the_audit_trail(
    client: GraphQLClient, api_server: ApiServer, db: asyncpg.Connection, person: Person
) -> None:
    for _ in range(AUTH):
        await log_in(client, person.email, "wrong", somewhere())
    refused = [await log_in(client, person.email, "wrong", somewhere()) for _ in range(6)]
    assert [codes(answer) for answer in refused] == [["RATE_LIMIT_EXCEEDED"]] * 6
    ids = [answer.headers["x-request-id"] for answer in refused]
    [line] = [line for line in api_server.events("rate_limited") if line["request_id"] in ids]
    assert (line["policy"], line["request_id"]) == ("auth", ids[0])
    assert line["counted"].startswith("account:")
    assert person.email not in api_server.log.read_text()
    told = "SELECT outcome, actor_id, ip, details FROM audit_events WHERE action = 'rateLimit' AND request_id = ANY($1)"
    [event] = await db.fetch(told, ids)
    assert (event["outcome"], event["actor_id"]) == ("RATE_LIMIT_EXCEEDED", None)
    assert event["ip"] is not None
    details = json.loads(event["details"])
    assert details == {"policy": "auth", "reason": "account", "identifierHash": line["counted"].partition(":")[2]}
    failed = "SELECT details ->> 'identifierHash' FROM audit_events WHERE action = 'login' AND target_id = $1"
    assert await db.fetchval(failed, decode_id(person.id)[1]) == details["identifierHash"]


async def test_refused_calls_and_deployments_are_told_of_by_the_users_id_and_leave_no_event(
    client: GraphQLClient, api_server: ApiServer, db: asyncpg.Connection, person: Person
) -> None:
    before = await db.fetchval("SELECT count(*) FROM audit_events WHERE action = 'rateLimit'")
    refusal = await spend_all(client, person.token)
    await over(client, ME, token=person.token)
    counted = f"user:{decode_id(person.id)[1].hex}"
    lines = [line for line in api_server.events("rate_limited") if line["counted"] == counted]
    assert [line["policy"] for line in lines] == ["calls"]
    assert lines[0]["request_id"] == refusal.headers["x-request-id"]
    assert await db.fetchval("SELECT count(*) FROM audit_events WHERE action = 'rateLimit'") == before


async def test_a_wrong_present_password_refused_is_told_to_the_owner_of_the_account(
    client: GraphQLClient, db: asyncpg.Connection, person: Person
) -> None:
    wrong = {"input": {"currentPassword": "wrong", "newPassword": "another horse battery"}}
    found = [
        codes(await client.raw(CHANGE_PASSWORD, wrong, token=person.token, headers=somewhere()))
        for _ in range(AUTH + 2)
    ]
    assert found[AUTH:] == [["RATE_LIMIT_EXCEEDED"]] * 2
    told = "SELECT count(*) FROM audit_events WHERE action = 'rateLimit' AND target_type = 'user' AND target_id = $1"
    assert await db.fetchval(told, decode_id(person.id)[1]) == 1


def test_a_flood_of_subjects_is_told_of_in_bounds() -> None:
    now = 0.0
    recent = Recent(10, most=3, clock=lambda: now)
    assert [recent.claim("auth", name) for name in "aab"] == ["a", None, "b"]
    assert recent.claim("calls", "a") == "a"
    assert [recent.claim("auth", f"{number}") for number in range(1_000)] == [OTHERS, *[None] * 999]
    assert len(recent) == 4
    now = 9.9
    assert recent.claim("auth", "a") is None
    now = 10.0
    assert [recent.claim("auth", name) for name in "abc"] == ["a", "b", "c"]
    assert len(recent) == 3
