"""Webhook endpoints through the API: who may have, see and change them, their secrets, tests and repetitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from models import user_queries
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.transaction import unit_of_work
from tests.conftest import Programs
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.deployments import insert_deployment, insert_project, set_status
from tests.harness.executions import Desk, open_desk, uuid_of
from tests.harness.processes import Api
from tests.harness.webhook_receiver import Answer, WebhookReceiver, webhook_receiver

RUNNING, SUCCEEDED = ExecutionStatus.RUNNING, ExecutionStatus.SUCCEEDED
ENDPOINT = """
id url description eventTypes isActive failingSince disabledAt disabledReason previousSecretUntil owner { id }
project { id } job { id }
"""
DISPATCH = """
id eventId eventType state attempts nextAttemptAt statusCode durationMs responseExcerpt failure failureMessage payload
attemptLog { at statusCode durationMs failure message } createdAt finishedAt endpoint { id }
"""
CREATE = f"""
mutation ($input: CreateWebhookEndpointInput!) {{
  createWebhookEndpoint(input: $input) {{ secret endpoint {{ {ENDPOINT} }} }}
}}
"""
UPDATE = f"""
mutation ($input: UpdateWebhookEndpointInput!) {{
  updateWebhookEndpoint(input: $input) {{ endpoint {{ {ENDPOINT} }} }}
}}
"""
ROTATE = """
mutation ($id: ID!) { rotateWebhookSecret(input: {id: $id}) { secret endpoint { previousSecretUntil } } }
"""
DELETE = "mutation ($id: ID!) { deleteWebhookEndpoint(input: {id: $id}) { deletedId } }"
TEST = f"""
mutation ($id: ID!) {{ testWebhookEndpoint(input: {{id: $id}}) {{
  delivered statusCode durationMs responseExcerpt failure failureMessage dispatch {{ {DISPATCH} }}
}} }}
"""
AGAIN = f"mutation ($id: ID!) {{ redeliverWebhook(input: {{dispatchId: $id}}) {{ dispatch {{ {DISPATCH} }} }} }}"
ONE = f"query ($id: ID!) {{ webhookEndpoint(id: $id) {{ {ENDPOINT} }} }}"
LIST = f"""
query ($filter: WebhookEndpointFilter) {{
  webhookEndpoints(filter: $filter, first: 100) {{ totalCount edges {{ node {{ {ENDPOINT} }} }} }}
}}
"""
LOG = f"""
query ($id: ID!, $filter: WebhookDispatchFilter, $first: Int, $after: String) {{ webhookEndpoint(id: $id) {{
  dispatches(filter: $filter, first: $first, after: $after) {{
    totalCount edges {{ cursor node {{ {DISPATCH} }} }} pageInfo {{ hasNextPage }}
  }}
}} }}
"""


@pytest_asyncio.fixture(scope="module", autouse=True)
async def receiver(programs: Programs) -> AsyncIterator[WebhookReceiver]:
    """Before the API, which must know that it may be sent to."""
    async with webhook_receiver() as started:
        programs.environment["WEBHOOK_ALLOWED_HOSTS"] = started.allowed
        programs.environment["MAX_WEBHOOK_ENDPOINTS_PER_USER"] = "3"
        yield started


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def make(client: GraphQLClient, person: Person, url: str, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = (await client.run(CREATE, {"input": {"url": url, **fields}}, token=person.token))[
        "createWebhookEndpoint"
    ]
    return made


async def refused(client: GraphQLClient, document: str, variables: dict[str, Any], person: Person) -> GraphQLFailure:
    with pytest.raises(GraphQLFailure) as failure:
        await client.run(document, variables, token=person.token)
    return failure.value


# -- making and seeing


async def test_an_endpoint_is_made_once_and_its_secret_shown_once(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver, db: asyncpg.Connection
) -> None:
    url = receiver.url("a?token=abc")
    key = {"idempotencyKey": "k", "eventTypes": ["RUN_FAILED", "RUN_STARTED", "RUN_FAILED"], "description": "CI"}
    made = await make(client, person, url, **key)
    assert made["secret"].startswith("whsec_")
    endpoint = made["endpoint"]
    assert (endpoint["url"], endpoint["description"]) == (url, "CI")
    assert endpoint["eventTypes"] == ["RUN_STARTED", "RUN_FAILED"]
    assert (endpoint["isActive"], endpoint["owner"]["id"], endpoint["project"]) == (True, person.id, None)
    again = await make(client, person, url, **key)
    assert (again["secret"], again["endpoint"]["id"]) == (None, endpoint["id"])
    other = await refused(client, CREATE, {"input": {"url": receiver.url("b"), **key}}, person)
    assert other.code == "CONFLICT"
    stored = await db.fetchval("SELECT sealed_secret FROM webhook_endpoints ORDER BY id DESC LIMIT 1")
    assert stored.startswith("v1.test.")
    assert made["secret"].removeprefix("whsec_") not in stored
    written = await db.fetchval(
        "SELECT details::text FROM audit_events WHERE action = 'createWebhookEndpoint' ORDER BY id DESC LIMIT 1"
    )
    assert "token" not in written
    assert receiver.allowed in written


@pytest.mark.parametrize(
    ("fields", "path", "reason"),
    [
        ({"url": "http://10.0.0.1/"}, "url", "BLOCKED_URL"),
        ({"url": "http://127.0.0.1:1/"}, "url", "BLOCKED_URL"),
        ({"url": "http://localhost/"}, "url", "BLOCKED_URL"),
        ({"url": "gopher://93.184.215.14/"}, "url", "BLOCKED_URL"),
        ({"url": "https://user:pw@93.184.215.14/"}, "url", "BLOCKED_URL"),
        ({"url": "https://93.184.215.14/" + "x" * 2_048}, "url", None),
        ({"url": ""}, "url", None),
        ({"eventTypes": []}, "eventTypes", None),
        ({"eventTypes": ["PING"]}, "eventTypes", None),
        ({"description": "x" * 201}, "description", None),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_place(
    fields: dict[str, Any],
    path: str,
    reason: str | None,
    client: GraphQLClient,
    person: Person,
    receiver: WebhookReceiver,
) -> None:
    failure = await refused(client, CREATE, {"input": {"url": receiver.url("a"), **fields}}, person)
    assert failure.code == "VALIDATION_ERROR"
    details = failure.errors[0]["extensions"]["details"]
    assert details["path"] == ["input", path]
    assert details.get("reason") == reason


async def test_a_limit_that_a_race_does_not_pass(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver
) -> None:
    answers = await asyncio.gather(*(make(client, person, receiver.url("a")) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 3
    assert {answer.code for answer in answers if isinstance(answer, GraphQLFailure)} == {"CONFLICT"}


async def test_narrowed_to_one_project_or_job_of_ones_own(
    client: GraphQLClient, person: Person, desk: Desk, receiver: WebhookReceiver, db: asyncpg.Connection
) -> None:
    project = await insert_project(db, uuid_of(person))
    project_id, job_id = encode_id(Prefix.PROJECT, project), encode_id(Prefix.JOB, await desk.job(person))
    url = receiver.url("a")
    of_project = await make(client, person, url, projectId=project_id)
    of_job = await make(client, person, url, jobId=job_id, eventTypes=["RUN_FAILED"])
    assert of_project["endpoint"]["project"] == {"id": project_id}
    assert of_job["endpoint"]["job"] == {"id": job_id}
    for filter_, found in (({"projectId": project_id}, of_project), ({"jobId": job_id}, of_job)):
        page = (await client.run(LIST, {"filter": filter_}, token=person.token))["webhookEndpoints"]
        assert [edge["node"]["id"] for edge in page["edges"]] == [found["endpoint"]["id"]]
        assert page["totalCount"] == 1
    both = await make(client, person, url, projectId=project_id, jobId=job_id)
    assert (both["endpoint"]["project"], both["endpoint"]["job"]) == ({"id": project_id}, {"id": job_id})
    never = {"url": url, "jobId": job_id, "eventTypes": ["DEPLOYMENT_FAILED"]}
    assert (await refused(client, CREATE, {"input": never}, person)).code == "VALIDATION_ERROR"
    stranger = await new_user(client)
    foreign = await refused(client, CREATE, {"input": {"url": url, "jobId": job_id}}, stranger)
    assert (foreign.code, foreign.errors[0]["extensions"]["details"]["path"]) == ("NOT_FOUND", ["input", "jobId"])
    await client.run(
        "mutation ($id: ID!) { deleteProject(input: {id: $id}) { __typename } }", {"id": project_id}, token=person.token
    )
    page = (await client.run(LIST, token=person.token))["webhookEndpoints"]
    assert [edge["node"]["id"] for edge in page["edges"]] == [of_job["endpoint"]["id"]], "it goes with its project"


async def test_administrators_see_endpoints_but_no_secrets(
    client: GraphQLClient, person: Person, admin: Person, receiver: WebhookReceiver
) -> None:
    id_ = (await make(client, person, receiver.url("hook/secret-part?token=abc")))["endpoint"]["id"]
    seen = (await client.run(ONE, {"id": id_}, token=admin.token))["webhookEndpoint"]
    assert seen["url"] == f"http://{receiver.allowed}/…"
    assert (await refused(client, ROTATE, {"id": id_}, admin)).code == "NOT_FOUND"
    stranger = await new_user(client)
    for document in (ONE, ROTATE, DELETE, TEST):
        assert (await refused(client, document, {"id": id_}, stranger)).code == "NOT_FOUND"
    switched = await client.run(UPDATE, {"input": {"id": id_, "isActive": False}}, token=admin.token)
    assert switched["updateWebhookEndpoint"]["endpoint"]["disabledReason"] == "BY_USER"


async def test_what_can_be_changed(client: GraphQLClient, person: Person, receiver: WebhookReceiver) -> None:
    id_ = (await make(client, person, receiver.url("a"), eventTypes=["RUN_FAILED"]))["endpoint"]["id"]

    async def changed(**fields: Any) -> dict[str, Any]:
        data = await client.run(UPDATE, {"input": {"id": id_, **fields}}, token=person.token)
        endpoint: dict[str, Any] = data["updateWebhookEndpoint"]["endpoint"]
        return endpoint

    assert (await changed())["eventTypes"] == ["RUN_FAILED"]
    assert (await changed(eventTypes=None))["eventTypes"] is None
    assert (await changed(url=receiver.url("b"), description="New"))["url"] == receiver.url("b")
    off = await changed(isActive=False)
    assert (off["isActive"], off["disabledReason"], off["disabledAt"] is None) == (False, "BY_USER", False)
    assert await changed(isActive=False) == off, "again is the same"
    on = await changed(isActive=True)
    assert (on["isActive"], on["disabledReason"], on["disabledAt"]) == (True, None, None)
    blocked = await refused(client, UPDATE, {"input": {"id": id_, "url": "http://10.0.0.1/"}}, person)
    assert blocked.errors[0]["extensions"]["details"]["reason"] == "BLOCKED_URL"


# -- secrets and tests


async def test_a_test_says_what_the_receiver_answered(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver
) -> None:
    made = await make(client, person, receiver.url("test"))
    id_ = made["endpoint"]["id"]
    tested = (await client.run(TEST, {"id": id_}, token=person.token))["testWebhookEndpoint"]
    assert (tested["delivered"], tested["statusCode"], tested["responseExcerpt"]) == (True, 200, "ok")
    message = receiver.requests["test"][0].verified(made["secret"])
    assert (message["type"], message["data"]) == ("ping", {"endpointId": id_})
    assert tested["dispatch"]["eventId"] == receiver.requests["test"][0].event_id
    assert tested["dispatch"]["payload"] == message
    rotated = (await client.run(ROTATE, {"id": id_}, token=person.token))["rotateWebhookSecret"]
    assert rotated["endpoint"]["previousSecretUntil"] is not None
    receiver.answer("test", Answer(500, b"broken"))
    tested = (await client.run(TEST, {"id": id_}, token=person.token))["testWebhookEndpoint"]
    assert (tested["delivered"], tested["failure"], tested["responseExcerpt"]) == (False, "BAD_STATUS", "broken")
    for key in (made["secret"], rotated["secret"]):
        receiver.requests["test"][1].verified(key)
    await client.run(ROTATE, {"id": id_}, token=person.token)
    await client.run(TEST, {"id": id_}, token=person.token)
    receiver.requests["test"][2].verified(rotated["secret"])
    with pytest.raises(Exception, match="No matching signature"):
        receiver.requests["test"][2].verified(made["secret"])
    log = (await client.run(LOG, {"id": id_, "first": 2}, token=person.token))["webhookEndpoint"]["dispatches"]
    assert (log["totalCount"], log["pageInfo"]["hasNextPage"]) == (3, True)
    assert [edge["node"]["state"] for edge in log["edges"]] == ["DELIVERED", "FAILED"]
    assert log["edges"][1]["node"]["attemptLog"][0]["statusCode"] == 500
    rest = await client.run(LOG, {"id": id_, "after": log["edges"][1]["cursor"]}, token=person.token)
    assert len(rest["webhookEndpoint"]["dispatches"]["edges"]) == 1
    failed = await client.run(LOG, {"id": id_, "filter": {"state": "FAILED", "eventType": "PING"}}, token=person.token)
    assert failed["webhookEndpoint"]["dispatches"]["totalCount"] == 1
    endpoint = (await client.run(ONE, {"id": id_}, token=person.token))["webhookEndpoint"]
    assert endpoint["failingSince"] is None, "a test says nothing of the endpoint"


async def test_it_is_sent_again_under_the_same_id(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver, db: asyncpg.Connection
) -> None:
    id_ = (await make(client, person, receiver.url("again")))["endpoint"]["id"]
    sent = (await client.run(TEST, {"id": id_}, token=person.token))["testWebhookEndpoint"]["dispatch"]
    again = (await client.run(AGAIN, {"id": sent["id"]}, token=person.token))["redeliverWebhook"]["dispatch"]
    assert (again["state"], again["eventId"], again["finishedAt"]) == ("PENDING", sent["eventId"], None)
    assert again["nextAttemptAt"] is not None
    await db.execute(
        "UPDATE webhook_dispatches SET lease_until = now() + interval '1 minute' WHERE endpoint_id = "
        "(SELECT id FROM webhook_endpoints ORDER BY id DESC LIMIT 1)"
    )
    assert (await refused(client, AGAIN, {"id": sent["id"]}, person)).code == "CONFLICT"
    await client.run(UPDATE, {"input": {"id": id_, "isActive": False}}, token=person.token)
    assert (await refused(client, AGAIN, {"id": sent["id"]}, person)).code == "CONFLICT"
    stranger = await new_user(client)
    assert (await refused(client, AGAIN, {"id": sent["id"]}, stranger)).code == "NOT_FOUND"
    await client.run(DELETE, {"id": id_}, token=person.token)
    assert (await refused(client, AGAIN, {"id": sent["id"]}, person)).code == "NOT_FOUND"


async def test_tests_are_counted(
    person: Person, programs: Programs, receiver: WebhookReceiver, client: GraphQLClient
) -> None:
    id_ = (await make(client, person, receiver.url("counted")))["endpoint"]["id"]
    server = await programs.api(Api, RATE_LIMITS="true", RATE_LIMIT_WEBHOOK_TESTS_PER_HOUR="2")
    async with GraphQLClient(server.graphql_url) as counted:
        for _ in range(2):
            await counted.run(TEST, {"id": id_}, token=person.token)
        assert (await refused(counted, TEST, {"id": id_}, person)).code == "RATE_LIMIT_EXCEEDED"
    assert len(receiver.requests["counted"]) == 2
    await server.stop()


async def test_a_promotion_is_told(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver, db: asyncpg.Connection
) -> None:
    await make(client, person, receiver.url("a"))
    project = await insert_project(db, uuid_of(person))
    deployment = await insert_deployment(db, project)
    await set_status(db, deployment, RUNNING)
    await set_status(db, deployment, SUCCEEDED)
    promote = "mutation ($id: ID!) { promoteDeployment(input: {id: $id}) { __typename } }"
    await client.run(promote, {"id": encode_id(Prefix.DEPLOYMENT, deployment)}, token=person.token)
    statuses = await db.fetch(
        "SELECT payload->>'status' AS status FROM outbox_messages WHERE topic = 'execution.news'"
        " AND payload->>'executionId' = $1 ORDER BY id",
        str(deployment),
    )
    assert [row["status"] for row in statuses] == ["QUEUED", "RUNNING", "SUCCEEDED", "PROMOTED"]


async def test_of_a_deleted_account_nothing_is_sent_and_no_secret_left(
    client: GraphQLClient, person: Person, receiver: WebhookReceiver, db: asyncpg.Connection, desk: Desk
) -> None:
    id_ = (await make(client, person, receiver.url("a")))["endpoint"]["id"]
    await client.run(TEST, {"id": id_}, token=person.token)
    async with unit_of_work():
        await user_queries.delete_belongings(uuid_of(person), email=person.email)
    row = await db.fetchrow("SELECT * FROM webhook_endpoints WHERE owner_id = $1", uuid_of(person))
    assert (row["is_active"], row["sealed_secret"], row["sealed_previous_secret"]) == (False, None, None)
    while await user_queries.delete_dispatches(db, uuid_of(person), limit=10):
        continue
    while await user_queries.delete_some(db, uuid_of(person), limit=10):
        continue
    assert await db.fetchval("SELECT count(*) FROM webhook_endpoints WHERE owner_id = $1", uuid_of(person)) == 0


async def test_the_catalogue_names_every_type(client: GraphQLClient, person: Person) -> None:
    data = await client.run("{ webhookEventTypes { eventType name description } }", token=person.token)
    names = {each["eventType"]: each["name"] for each in data["webhookEventTypes"]}
    assert names["RUN_INCOMPLETE"] == "run.incomplete"
    assert all(name == key.lower().replace("_", ".") for key, name in names.items())
