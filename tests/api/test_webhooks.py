"""Webhooks of GitHub: what gets in, what each delivery leads to, that it does so once, and who sees the inbox."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio

from errors import Conflict
from models import database, webhook_queries
from models.ids import Prefix, decode_id, encode_id
from models.transaction import after_commit, savepoint, unit_of_work
from resolvers import webhook_events
from tests.conftest import ApiServer, Programs, Template
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness import github_schema
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import settings_of
from tests.harness.github_accounts import connect
from tests.harness.github_server import Fault, GitHubServer

SECRET, NEXT_SECRET = "the-secret-of-webhooks", "the-next-secret"
COMMIT = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
DELIVERY = """
id deliveryId event action repository status message attempts receivedAt processedAt
effects { message project { id slug } deployment { id environment trigger branch commitHash commitMessage author
          pullRequest number } }
"""
LIST = f"""
query ($filter: WebhookDeliveryFilter, $first: Int, $after: String) {{
  webhookDeliveries(filter: $filter, first: $first, after: $after) {{
    totalCount edges {{ node {{ {DELIVERY} }} }} pageInfo {{ endCursor hasNextPage }}
  }}
}}
"""
ONE = f"query ($id: ID!) {{ webhookDelivery(id: $id) {{ {DELIVERY} body }} }}"
NODE = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
REPLAY = f"mutation ($input: ReplayDeliveryInput!) {{ replayDelivery(input: $input) {{ delivery {{ {DELIVERY} }} }} }}"
SET_VARIABLES = """
mutation ($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project { id } } }
"""
CREATE = "mutation ($input: CreateProjectInput!) { createProject(input: $input) { project { id slug } } }"


@pytest_asyncio.fixture(scope="module")
async def github() -> AsyncIterator[GitHubServer]:
    """The stand-in, for questions about who may see a private repository."""
    async with GitHubServer().running() as server:
        yield server
        assert server.violations == []


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template, github: GitHubServer) -> ApiServer:
    """An API that GitHub may send webhooks to."""
    programs.environment.update(
        {**github.settings, "GITHUB_WEBHOOK_SECRET": f"{SECRET}, {NEXT_SECRET}", "GIT_PROTOCOLS": "https,http"}
    )
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    return server


@pytest_asyncio.fixture(scope="module")
async def http(api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    """What GitHub sends with."""
    async with httpx.AsyncClient(base_url=api_server.url, trust_env=False, timeout=30) as sender:
        yield sender


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest.fixture
def repository() -> str:
    """A repository that no other test uses."""
    return f"Octo-{secrets.token_hex(4)}/Hello-World"


# -- sending


def signed(body: bytes, secret: str = SECRET) -> str:
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def push(repository: str, branch: str = "main", *, message: str = "Add it", **changes: Any) -> dict[str, Any]:
    """A push of one commit that changed README.md to a branch that exists, as GitHub documents it."""
    payload = github_schema.payload("push")
    commit = {**payload["head_commit"], "id": changes.get("after", COMMIT), "message": message}
    payload.update(ref=f"refs/heads/{branch}", created=False, head_commit=commit, commits=[commit], **changes)
    payload["repository"].update(full_name=repository, private=changes.get("private", False))
    payload.pop("private", None)
    assert github_schema.webhook_faults("push", payload) == []
    return payload


def pull_request(
    repository: str, branch: str = "feature", *, action: str = "opened", head: str | None = None, commit: str = COMMIT
) -> dict[str, Any]:
    """A pull request to a repository, from itself or from `head`."""
    payload = github_schema.payload("pull_request")
    payload["action"] = action
    if action == "synchronize":
        payload.update(before="0" * 40, after=commit)
    payload["repository"].update(full_name=repository, private=False)
    payload["pull_request"]["head"].update(ref=branch, sha=commit)
    payload["pull_request"]["head"]["repo"].update(full_name=head or repository)
    payload["pull_request"]["base"]["repo"].update(full_name=repository)
    assert github_schema.webhook_faults("pull_request", payload) == []
    return payload


async def post(
    http: httpx.AsyncClient, body: bytes, *, event: str = "push", delivery: str | None = None, **headers: Any
) -> httpx.Response:
    sent = {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": delivery or secrets.token_hex(16),
        "x-hub-signature-256": signed(body),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return await http.post(
        "/webhooks/github", content=body, headers={name: value for name, value in sent.items() if value is not None}
    )


async def deliver(
    http: httpx.AsyncClient, payload: Mapping[str, Any], *, event: str = "push", delivery: str | None = None
) -> dict[str, Any]:
    """The answer to a good delivery."""
    answer = await post(http, json.dumps(payload).encode(), event=event, delivery=delivery)
    body: dict[str, Any] = answer.json()
    assert answer.status_code == (202 if body["status"] == "FAILED" and not body["repeated"] else 200), answer.text
    return body


# -- looking


async def new_project(client: GraphQLClient, owner: Person, repository: str, **changes: Any) -> UUID:
    fields = {"name": f"Site {secrets.token_hex(5)}", "repository": repository, **changes}
    made = (await client.run(CREATE, {"input": fields}, token=owner.token))["createProject"]["project"]
    return decode_id(made["id"])[1]


async def deployments(db: asyncpg.Connection, *projects: UUID) -> list[dict[str, Any]]:
    found = await db.fetch(
        """SELECT d.project_id, d.environment, d.trigger, d.branch, d.commit_hash, d.pull_request, d.is_fork,
                  d.clone_url, d.alias, d.sealed_environment, e.status, e.requested_by_id
           FROM deployments d JOIN executions e ON e.id = d.execution_id
           WHERE d.project_id = ANY($1) ORDER BY d.execution_id""",
        list(projects),
    )
    return [dict(row) for row in found]


async def counted(db: asyncpg.Connection) -> dict[str, int]:
    tables = ("webhook_deliveries", "webhook_effects", "deployments", "executions")
    return {table: await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], person: Person | None) -> str:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, token=person.token if person else None)
    return str(caught.value.code)


async def seen(client: GraphQLClient, person: Person, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.run(ONE, {"id": id_}, token=person.token))["webhookDelivery"]
    return found


# -- the door


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        f"sha256={'0' * 64}",
        f"sha1={'0' * 40}",
        signed(b"something else"),
        "of another secret",
        "in upper case",
        "doubled",
    ],
)
async def test_what_is_not_signed_is_not_even_stored(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    signature: str | None,
) -> None:
    await new_project(client, person, repository)
    body = json.dumps(push(repository)).encode()
    made_up = {
        "of another secret": signed(body, "guessed"),
        "in upper case": signed(body).upper(),
        "doubled": f"{signed(body)}, {signed(body)}",
    }
    before = await counted(db)
    answer = await post(http, body, x_hub_signature_256=made_up.get(signature or "", signature))
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHORIZED")
    assert await counted(db) == before


async def test_the_signature_is_of_the_bytes_as_they_came(
    http: httpx.AsyncClient, repository: str, db: asyncpg.Connection
) -> None:
    before = await counted(db)
    body = json.dumps(push(repository)).encode()
    for changed in (body + b" ", body.replace(b"main", b"evil"), json.dumps(json.loads(body), indent=1).encode()):
        assert (await post(http, changed, x_hub_signature_256=signed(body))).status_code == 401
    assert await counted(db) == before


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b'"text"', {}),
        (b"{} {}", {}),
        (b'{"a": "\xff"}', {}),
        (b'{"a": "\\ud800"}', {}),
        (b"[" * 100_000, {}),
        (b'{"a":' * 100 + b"1" + b"}" * 100, {}),
        (b"{}", {"x_github_delivery": None}),
        (b"{}", {"x_github_delivery": "' OR 1=1"}),
        (b"{}", {"x_github_delivery": "x" * 65}),
        (b"{}", {"x_github_event": None}),
        (b"{}", {"x_github_event": "Push!"}),
        (b"{}", {"content_type": "text/plain"}),
        (b"{}", {"content_type": None}),
        (b"payload=", {"content_type": "application/x-www-form-urlencoded"}),
        (b"other=%7B%7D", {"content_type": "application/x-www-form-urlencoded"}),
        (b"payload=%FF", {"content_type": "application/x-www-form-urlencoded"}),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_what_is_signed_but_no_webhook_is_refused_and_not_stored(
    http: httpx.AsyncClient, db: asyncpg.Connection, body: bytes, headers: dict[str, Any]
) -> None:
    before = await counted(db)
    answer = await post(http, body, **headers)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "VALIDATION_ERROR")
    assert await counted(db) == before


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_long_is_not_read_to_its_end(
    http: httpx.AsyncClient, db: asyncpg.Connection, announced: bool
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    before = await counted(db)
    content = b"x" * (10 * 2**20) if announced else endless()
    try:
        answer = await http.post("/webhooks/github", content=content, headers={"x-hub-signature-256": signed(b"")})
    except (httpx.WriteError, httpx.ReadError):
        pass  # refused before all of it was sent, which closes the connection
    else:
        assert answer.status_code == 413
    assert await counted(db) == before


async def test_without_a_secret_the_door_is_shut(api_server: ApiServer) -> None:
    shut = await api_server.second(GITHUB_WEBHOOK_SECRET=" , ")
    async with httpx.AsyncClient(base_url=shut.url, trust_env=False) as http:
        answer = await post(http, b"{}", x_hub_signature_256=signed(b"{}", ""))
        assert (answer.status_code, (await http.get("/webhooks/github")).status_code) == (503, 405)


async def test_each_of_the_secrets_and_both_forms_are_good(http: httpx.AsyncClient) -> None:
    ping = json.dumps(github_schema.payload("ping")).encode()
    form = urlencode({"payload": ping.decode()}).encode()
    for body, headers in (
        (ping, {"x_hub_signature_256": signed(ping, NEXT_SECRET)}),
        (ping, {"content_type": "application/json; charset=utf-8"}),
        (form, {"content_type": "application/x-www-form-urlencoded"}),
    ):
        answer = await post(http, body, event="ping", **headers)
        assert (answer.status_code, answer.json()["status"], answer.json()["message"]) == (200, "IGNORED", "pong")


# -- once


async def test_a_delivery_that_comes_again_changes_nothing(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    first = await deliver(http, push(repository), delivery="11111111-aaaa-bbbb-cccc-000000000001")
    before = await counted(db)
    # Whatever its body is by now: the id says that it was here.
    again = await deliver(http, push(repository, after="b" * 40), delivery="11111111-aaaa-bbbb-cccc-000000000001")
    assert again == {**first, "repeated": True}
    assert await counted(db) == before
    assert len(await deployments(db, project)) == 1


async def test_the_same_delivery_many_times_at_once_has_one_effect(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    payload, delivery = push(repository), secrets.token_hex(16)
    answers = await asyncio.gather(*(deliver(http, payload, delivery=delivery) for _ in range(6)))
    assert {answer["id"] for answer in answers} == {answers[0]["id"]}
    assert [answer["repeated"] for answer in answers].count(False) == 1
    assert len(await deployments(db, project)) == 1


@pytest.mark.parametrize("push_is_first", [True, False, None])
async def test_a_push_and_a_pull_request_of_the_same_commit_are_one_deployment(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    push_is_first: bool | None,
) -> None:
    project = await new_project(client, person, repository)
    events: list[Callable[[], Any]] = [
        lambda: deliver(http, push(repository, "feature")),
        lambda: deliver(http, pull_request(repository), event="pull_request"),
    ]
    if push_is_first is None:
        await asyncio.gather(*(event() for event in events))
    else:
        for event in events if push_is_first else reversed(events):
            await event()
    made = await deployments(db, project)
    assert [(each["environment"], each["alias"], each["pull_request"]) for each in made] == [("PREVIEW", "feature", 2)]
    effects = await db.fetch("SELECT deployment_id FROM webhook_effects WHERE project_id = $1", project)
    assert len(effects) == 2
    assert len({row["deployment_id"] for row in effects}) == 1


async def test_a_commit_that_reaches_production_is_deployed_there_although_it_has_a_preview(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    await deliver(http, push(repository, "feature"))
    await deliver(http, push(repository, "main"))
    assert [each["environment"] for each in await deployments(db, project)] == ["PREVIEW", "PRODUCTION"]


async def test_a_pull_request_whose_deployment_was_cancelled_gets_another(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    await deliver(http, push(repository, "feature"))
    await db.execute(
        """UPDATE executions SET status = 'CANCELLED', finished_at = now()
           WHERE id IN (SELECT execution_id FROM deployments WHERE project_id = $1)""",
        project,
    )
    await deliver(http, pull_request(repository, action="reopened"), event="pull_request")
    assert [each["trigger"] for each in await deployments(db, project)] == ["PUSH", "PULL_REQUEST"]


# -- what is deployed


async def test_a_push_deploys_every_project_of_its_repository_as_each_wants(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    github: GitHubServer,
    db: asyncpg.Connection,
) -> None:
    other = await new_user(client)
    projects = {
        "production": await new_project(client, person, repository),
        "in other case": await new_project(client, other, repository.upper()),
        "by address": await new_project(client, person, f"{github.url}/{repository}.git"),
        "another branch": await new_project(client, person, repository, branch="release"),
        "no previews": await new_project(client, person, repository, branch="release", previewDeployments=False),
        "by hand": await new_project(client, person, repository, autoDeploy=False),
        "elsewhere": await new_project(client, person, f"{repository}-2"),
    }
    answer = await deliver(http, push(repository))
    assert (answer["status"], answer["message"]) == ("PROCESSED", "6 projects: 4 processed, 2 ignored.")
    made = {each["project_id"]: each["environment"] for each in await deployments(db, *projects.values())}
    assert {name: made.get(project) for name, project in projects.items()} == {
        "production": "PRODUCTION",
        "in other case": "PRODUCTION",
        "by address": "PRODUCTION",
        "another branch": "PREVIEW",
        "no previews": None,
        "by hand": None,
        "elsewhere": None,
    }
    first = next(each for each in await deployments(db, projects["production"]))
    assert {name: first[name] for name in ("trigger", "branch", "commit_hash", "status", "requested_by_id")} == {
        "trigger": "PUSH",
        "branch": "main",
        "commit_hash": COMMIT,
        "status": "QUEUED",
        "requested_by_id": None,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ref": "refs/tags/v1"}, "Only pushes to branches are deployed."),
        ({"deleted": True, "after": "0" * 40, "head_commit": None, "commits": []}, "The branch or tag was deleted."),
        ({"ref": "refs/heads/" + "x" * 300}, "The branch cannot be deployed: A branch has at most 240 bytes."),
        ({"ref": "refs/heads/a..b"}, "The branch cannot be deployed: Git does not allow such a name for a branch."),
    ],
)
async def test_pushes_that_deploy_nothing_say_why(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    changes: dict[str, Any],
    reason: str,
) -> None:
    project = await new_project(client, person, repository)
    answer = await deliver(http, {**push(repository), **changes})
    assert (answer["status"], answer["message"]) == ("IGNORED", reason)
    assert await deployments(db, project) == []


async def test_events_of_unknown_repositories_and_kinds_are_kept_but_ignored(
    http: httpx.AsyncClient, repository: str, db: asyncpg.Connection
) -> None:
    for payload, event, reason in (
        (push(repository), "push", "No project is built from this repository."),
        ({"action": "created", "x\0y": "\0"}, "star", "Events of the kind star deploy nothing."),
        (pull_request(repository, action="closed"), "pull_request", "previews stay"),
    ):
        answer = await deliver(http, payload, event=event)
        assert answer["status"] == "IGNORED"
        assert reason in answer["message"]
        row = await db.fetchrow("SELECT * FROM webhook_deliveries WHERE id = $1", decode_id(answer["id"])[1])
        assert json.loads(row["body"]) == payload


@pytest.mark.parametrize(
    "message",
    [
        "Fix it [skip ci]",
        "[CI SKIP] fix",
        "x\n\nlong [no ci] text",
        "[skip deploy]",
        "Fix\n\n\nskip-checks: true",
        "Fix\n\nCo-authored-by: A <a@b.c>\nskip-checks:true\n",
    ],
)
async def test_a_commit_may_ask_not_to_be_deployed(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    message: str,
) -> None:
    project = await new_project(client, person, repository)
    for payload, event in (
        (push(repository, "feature", message=message), "push"),
        (pull_request(repository), "pull_request"),  # its event does not show the message
    ):
        answer = await deliver(http, payload, event=event)
        assert (answer["status"], answer["message"]) == ("IGNORED", webhook_events.SKIPPED)
    assert await deployments(db, project) == []
    # Another commit of the same pull request is another matter.
    await deliver(http, pull_request(repository, action="synchronize", commit="c" * 40), event="pull_request")
    assert len(await deployments(db, project)) == 1


@pytest.mark.parametrize("message", ["skip ci", "[skip-ci]", "skip-checks: true\n\nis what I would write", "", "[ci]"])
async def test_other_messages_do_not_ask_for_that(message: str) -> None:
    assert webhook_events.is_skipped(message) is False


@pytest.mark.parametrize(
    ("files", "changes", "is_deployed"),
    [
        (["docs/a.md", "webapp/x"], {}, False),
        (["docs/a.md", "web/x"], {}, True),
        (["web"], {}, False),
        ([], {}, True),
        (["docs/a.md"], {"forced": True}, True),
        (["docs/a.md"], {"created": True}, True),
        (["docs/a.md"], {"commits": "many"}, True),
        (["docs/a.md"], {"commits": "none"}, True),
    ],
)
async def test_a_push_beside_the_projects_folder_deploys_nothing(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    files: list[str],
    changes: dict[str, Any],
    is_deployed: bool,
) -> None:
    project = await new_project(client, person, repository, rootDirectory="web")
    payload = push(repository)
    commit = {**payload["head_commit"], "added": files[:1], "modified": [], "removed": files[1:]}
    listed = {"many": [commit] * 21, "none": []}.get(changes.get("commits", ""), [commit])
    answer = await deliver(http, {**payload, **changes, "commits": listed})
    assert answer["message"] == ("A production deployment was queued." if is_deployed else webhook_events.NOTHING_BELOW)
    assert len(await deployments(db, project)) == int(is_deployed)


async def test_a_newer_push_replaces_what_waits(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    await deliver(http, pull_request(repository), event="pull_request")
    await deliver(http, push(repository, "feature", after="b" * 40))
    assert [each["status"] for each in await deployments(db, project)] == ["CANCELLED", "QUEUED"]


async def test_a_forks_pull_request_is_a_preview_without_any_secret(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    github: GitHubServer,
    db: asyncpg.Connection,
) -> None:
    project = await new_project(client, person, repository)
    await client.run(
        SET_VARIABLES,
        {
            "input": {
                "projectId": encode_id(Prefix.PROJECT, project),
                "variables": [{"name": "TOKEN", "value": "secret", "environments": ["PRODUCTION", "PREVIEW"]}],
            }
        },
        token=person.token,
    )
    payload = pull_request(repository, "main", head="Mallory/Fork")
    payload["pull_request"]["head"]["repo"]["clone_url"] = "https://evil.example/x.git"
    await deliver(http, payload, event="pull_request")
    await deliver(http, pull_request(repository), event="pull_request")
    fork, own = await deployments(db, project)
    assert (fork["environment"], fork["is_fork"], fork["alias"]) == ("PREVIEW", True, "pr-2")
    assert fork["clone_url"] == f"{github.url}/Mallory/Fork"
    assert (fork["sealed_environment"], own["sealed_environment"] is None) == (None, False)


async def test_a_pull_request_is_ignored_where_it_would_be_deployed_twice_or_not_at_all(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    quiet = await new_project(client, person, repository, previewDeployments=False)
    from_production = await deliver(http, pull_request(repository, "main"), event="pull_request")
    assert from_production["status"] == "IGNORED"
    gone = pull_request(repository)
    gone["pull_request"]["head"]["repo"] = None
    assert (await deliver(http, gone, event="pull_request"))["message"] == (
        "The fork that the pull request came from is gone."
    )
    assert await deployments(db, project, quiet) == []


# -- what fails


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload.pop("ref"),
        lambda payload: payload.update(ref=7),
        lambda payload: payload.update(after="not a hash"),
        lambda payload: payload["repository"].update(full_name="a/../b"),
        lambda payload: payload.update(repository=None),
        lambda payload: payload.update(commits={"0": 1}),
        lambda payload: payload["repository"].pop("private"),
    ],
)
async def test_a_payload_of_another_shape_fails_and_is_kept(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    db: asyncpg.Connection,
    spoil: Callable[[dict[str, Any]], Any],
) -> None:
    project = await new_project(client, person, repository)
    payload = push(repository)
    spoil(payload)
    answer = await deliver(http, payload)
    assert answer["status"] == "FAILED"
    assert "not as GitHub documents it" in answer["message"]
    assert await deployments(db, project) == []


async def test_what_fails_for_one_project_is_undone_for_it_alone_and_can_be_replayed(
    api_server: ApiServer, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    full, other = await new_project(client, person, repository), await new_user(client)
    free = await new_project(client, other, repository)
    narrow = await api_server.second(MAX_QUEUED_PER_USER="1", BASE_URL=api_server.url)
    async with httpx.AsyncClient(base_url=narrow.url, trust_env=False) as http:
        await deliver(http, push(repository, "busy"))
        before = await db.fetchval("SELECT deployment_count FROM projects WHERE id = $1", full)
        await db.execute(
            """UPDATE executions SET status = 'CANCELLED', finished_at = now()
               WHERE id IN (SELECT execution_id FROM deployments WHERE project_id = $1)""",
            free,
        )
        answer = await deliver(http, push(repository, after="b" * 40))
    assert answer["status"] == "FAILED"
    assert await db.fetchval("SELECT deployment_count FROM projects WHERE id = $1", full) == before
    assert [len(await deployments(db, project)) for project in (full, free)] == [1, 2]
    shown = await seen(client, person, answer["id"])
    assert "waiting, which is the limit" in shown["effects"][0]["message"]
    replayed = (await client.run(REPLAY, {"input": {"id": answer["id"]}}, token=person.token))["replayDelivery"]
    assert (replayed["delivery"]["status"], replayed["delivery"]["attempts"]) == ("PROCESSED", 2)
    assert [len(await deployments(db, project)) for project in (full, free)] == [2, 2]


async def test_a_part_of_a_unit_of_work_that_fails_takes_its_rows_and_effects_along(
    settings_env: dict[str, str], repository: str, db: asyncpg.Connection
) -> None:
    happened = []

    async def happen(what: str) -> None:
        happened.append(what)

    async def store(delivery: str) -> None:
        await webhook_queries.insert(delivery_id=delivery, event="push", action=None, repository=repository, body="{}")
        after_commit(partial(happen, delivery))

    async def fail() -> None:
        async with savepoint():
            await store("undone")
            raise Conflict("no")

    async with database.connected(settings_of(settings_env)):
        with pytest.raises(LookupError):
            async with savepoint():
                raise AssertionError("not inside a unit of work")
        async with unit_of_work():
            await store("first")
            with pytest.raises(Conflict):
                await fail()
            async with savepoint():
                await store("last")
    assert happened == ["first", "last"]
    kept = await db.fetch("SELECT delivery_id FROM webhook_deliveries WHERE repository = $1", repository.lower())
    assert {row["delivery_id"] for row in kept} == {"first", "last"}


# -- private repositories


async def test_a_private_push_is_nobodys_who_may_not_see_the_repository(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    repository: str,
    github: GitHubServer,
    db: asyncpg.Connection,
) -> None:
    member = repository.partition("/")[0]
    github.add_repository(repository, is_private=True)
    stranger, unconnected = await new_user(client), await new_user(client)
    await connect(client, person, github, member)
    await connect(client, stranger, github, f"{member}-stranger")
    mine = await new_project(client, person, repository)
    theirs = [await new_project(client, other, repository) for other in (stranger, unconnected)]
    answer = await deliver(http, push(repository, private=True))
    assert answer["status"] == "PROCESSED"
    assert [len(await deployments(db, project)) for project in (mine, *theirs)] == [1, 0, 0]
    assert (await seen(client, person, answer["id"]))["body"]["after"] == COMMIT
    for other in (stranger, unconnected):
        for document, variables in ((ONE, {"id": answer["id"]}), (REPLAY, {"input": {"id": answer["id"]}})):
            assert await refused(client, document, variables, other) == "NOT_FOUND"


async def test_when_github_does_not_say_who_may_see_it_nothing_happens_until_a_replay(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    admin: Person,
    repository: str,
    github: GitHubServer,
    db: asyncpg.Connection,
) -> None:
    github.add_repository(repository, is_private=True)
    await connect(client, person, github, repository.partition("/")[0])
    project = await new_project(client, person, repository)
    github.fail(Fault.BROKEN, f"/repos/{repository}$")
    answer = await deliver(http, push(repository, private=True))
    assert answer["status"] == "FAILED"
    assert "replay" in answer["message"]
    assert await deployments(db, project) == []
    assert await refused(client, ONE, {"id": answer["id"]}, person) == "NOT_FOUND"
    await client.run(REPLAY, {"input": {"id": answer["id"]}}, token=admin.token)
    assert len(await deployments(db, project)) == 1


# -- the inbox


async def test_strangers_see_no_inbox(client: GraphQLClient) -> None:
    id_ = encode_id(Prefix.WEBHOOK_DELIVERY, NOBODYS_ID)
    for document, variables in ((LIST, {}), (ONE, {"id": id_}), (REPLAY, {"input": {"id": id_}})):
        assert await refused(client, document, variables, None) == "UNAUTHORIZED"


async def test_deliveries_of_others_do_not_exist(
    http: httpx.AsyncClient,
    client: GraphQLClient,
    person: Person,
    admin: Person,
    repository: str,
    db: asyncpg.Connection,
) -> None:
    project, other = await new_project(client, person, repository), await new_user(client)
    id_ = (await deliver(http, push(repository)))["id"]
    unknown = (await deliver(http, github_schema.payload("ping"), event="ping"))["id"]
    before = await counted(db)
    for asked, by in (
        (id_, other),
        (unknown, person),
        (encode_id(Prefix.WEBHOOK_DELIVERY, NOBODYS_ID), person),
        (encode_id(Prefix.PROJECT, project), person),
        ("nonsense", person),
    ):
        for document, variables in ((ONE, {"id": asked}), (REPLAY, {"input": {"id": asked}})):
            assert await refused(client, document, variables, by) == "NOT_FOUND"
    assert (await client.run(NODE, {"ids": [id_, unknown]}, token=other.token))["nodes"] == [None, None]
    assert (await client.run(NODE, {"ids": [id_]}, token=person.token))["nodes"] == [{"id": id_}]
    mine = {"filter": {"projectId": encode_id(Prefix.PROJECT, project)}}
    assert await refused(client, LIST, mine, other) == "NOT_FOUND"
    assert (await client.run(LIST, token=other.token))["webhookDeliveries"]["totalCount"] == 0
    assert (await client.run(LIST, mine, token=admin.token))["webhookDeliveries"]["totalCount"] == 1
    assert (await seen(client, admin, unknown))["message"] == "pong"
    assert await counted(db) == before


async def test_the_inbox_is_filtered_and_paged_and_shows_only_ones_own_effects(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str
) -> None:
    project, other = await new_project(client, person, repository), await new_user(client)
    await new_project(client, other, repository)
    first = await deliver(http, push(repository, message="[skip ci]", after="d" * 40))
    second = await deliver(http, push(repository))
    third = await deliver(http, pull_request(repository), event="pull_request")

    async def listed(**variables: Any) -> list[str]:
        page = (await client.run(LIST, variables, token=person.token))["webhookDeliveries"]
        return [edge["node"]["id"] for edge in page["edges"]]

    assert await listed() == [third["id"], second["id"], first["id"]]
    assert await listed(filter={"status": "IGNORED"}) == [first["id"]]
    assert await listed(filter={"event": "pull_request"}) == [third["id"]]
    assert await listed(filter={"projectId": encode_id(Prefix.PROJECT, project), "event": "push"}, first=1) == [
        second["id"]
    ]
    page = (await client.run(LIST, {"first": 2}, token=person.token))["webhookDeliveries"]
    assert (page["totalCount"], page["pageInfo"]["hasNextPage"]) == (3, True)
    assert await listed(after=page["pageInfo"]["endCursor"]) == [first["id"]]
    shown = await seen(client, person, second["id"])
    assert (shown["event"], shown["repository"], shown["status"]) == ("push", repository.lower(), "PROCESSED")
    (effect,) = shown["effects"]
    assert effect["project"]["id"] == encode_id(Prefix.PROJECT, project)
    assert {name: effect["deployment"][name] for name in ("environment", "trigger", "branch", "commitHash")} == {
        "environment": "PRODUCTION",
        "trigger": "PUSH",
        "branch": "main",
        "commitHash": COMMIT,
    }
    assert effect["deployment"]["author"] == "Codertocat"


# -- replays


async def test_a_replay_of_what_was_deployed_answers_with_that(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project = await new_project(client, person, repository)
    id_ = (await deliver(http, push(repository)))["id"]
    before, shown = await counted(db), await seen(client, person, id_)
    replayed = (await client.run(REPLAY, {"input": {"id": id_}}, token=person.token))["replayDelivery"]["delivery"]
    assert replayed == {name: shown[name] for name in replayed}
    assert await counted(db) == before
    assert len(await deployments(db, project)) == 1


async def test_a_replay_does_what_the_project_wants_by_now_once(
    http: httpx.AsyncClient, client: GraphQLClient, person: Person, repository: str, db: asyncpg.Connection
) -> None:
    project, other = await new_project(client, person, repository, autoDeploy=False), await new_user(client)
    others = await new_project(client, other, repository, autoDeploy=False)
    id_ = (await deliver(http, push(repository)))["id"]
    await db.execute("UPDATE projects SET auto_deploy = true WHERE id = ANY($1)", [project, others])
    answers = await asyncio.gather(*(client.run(REPLAY, {"input": {"id": id_}}, token=person.token) for _ in range(3)))
    assert {answer["replayDelivery"]["delivery"]["status"] for answer in answers} == {"PROCESSED"}
    # Only of one's own projects: what others deploy is theirs to decide.
    assert [len(await deployments(db, each)) for each in (project, others)] == [1, 0]
    actions = await db.fetchval(
        "SELECT count(*) FROM audit_events WHERE action = 'replayDelivery' AND target_id = $1", decode_id(id_)[1]
    )
    assert actions == 3
