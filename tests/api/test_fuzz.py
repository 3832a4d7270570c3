"""A short run of `make fuzz` with a fixed seed, and what its judge lets through."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx
import pytest

from models.permissions import Role
from tests.conftest import ApiServer
from tests.factories import new_user
from tests.fuzz.runner import Fuzzer, fault_of
from tests.harness.client import GraphQLClient

SEED = 20


@pytest.mark.parametrize("role", [None, Role.USER, Role.ADMIN], ids=["nobody", "user", "administrator"])
async def test_no_odd_operation_is_our_fault(
    api_server: ApiServer, client: GraphQLClient, db: asyncpg.Connection, role: Role | None
) -> None:
    loop = asyncio.get_running_loop()

    def sign_in() -> str | None:
        if role is None:
            return None
        return asyncio.run_coroutine_threadsafe(new_user(client, role=role, db=db), loop).result(30).token

    report = await asyncio.to_thread(lambda: Fuzzer(api_server.graphql_url, sign_in).run(1, SEED))
    assert report.cases > 80
    assert not report.findings, "\n".join(map(str, report.findings.values()))
    assert not api_server.events("operation_failed") + api_server.events("request_failed")


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, '{"data": {}}', None),
        (200, '{"errors": [{"message": "no", "path": ["me"], "extensions": {"code": "NOT_FOUND"}}]}', None),
        (503, '{"errors": [{"message": "no", "extensions": {"code": "SERVICE_UNAVAILABLE"}}]}', None),
        (500, '{"errors": [{"message": "no", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}', "status 500"),
        (
            200,
            '{"errors": [{"message": "", "path": ["a", 0], "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}',
            "code INTERNAL_SERVER_ERROR at ['a']",
        ),
        (200, '{"errors": [{"message": "no", "path": ["a"]}]}', "code None at ['a']"),
        (200, '{"errors": [{"message": "no", "extensions": {"code": "SOMETHING"}}]}', "code SOMETHING at []"),
        (400, "Bad Request", "not JSON"),
    ],
)
def test_the_judge_knows_a_fault_of_ours(status: int, body: str, fault: str | None) -> None:
    assert fault_of(httpx.Response(status, text=body)) == fault
