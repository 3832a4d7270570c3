"""The operations that the GraphiQL page ships fit the API: the tour's tabs and what the page itself sends."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from graphql import GraphQLSchema, build_client_schema, get_introspection_query, parse, validate

from tests.browser.conftest import ApiServer

SOURCES = Path(__file__).parents[2] / "schema" / "console" / "src"
TEMPLATE = re.compile(r"/\* GraphQL \*/ `([^`]+)`")


def _operations(name: str) -> list[str]:
    return TEMPLATE.findall((SOURCES / name).read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def api_schema(api_server: ApiServer) -> GraphQLSchema:
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{api_server.url}/graphql", json={"query": get_introspection_query()})
    return build_client_schema(answer.json()["data"])


def test_every_source_has_the_operations_it_should() -> None:
    assert len(_operations("examples.ts")) == 17
    assert len(_operations("contract.ts")) == 3


@pytest.mark.parametrize("document", _operations("examples.ts") + _operations("contract.ts"))
async def test_shipped_operations_are_valid(api_schema: GraphQLSchema, document: str) -> None:
    assert [error.message for error in validate(api_schema, parse(document))] == []
