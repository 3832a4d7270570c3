"""Variables of builds through the API: names and sizes, all or nothing, and that no value is ever seen again."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.secret_box import Tampered
from models.projects import DeploymentEnvironment
from models.sealed import DEPLOYMENT_ENVIRONMENT, ENVIRONMENT_VALUE
from resolvers import sessions
from resolvers.projects import MAX_VALUE_BYTES, MAX_VALUES_BYTES, MAX_VARIABLES, RESERVED_VARIABLES
from tests.conftest import ApiServer
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.projects import DELETE, ONE, SET, Studio, open_studio, uuid


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture
async def project(studio: Studio, person: Person) -> str:
    """The id of a project."""
    project_id: str = (await studio.project(person))["id"]
    return project_id


def variable(name: str, value: str | None = "x", *environments: str) -> dict[str, Any]:
    return {"name": name, "value": value, **({"environments": list(environments)} if environments else {})}


async def refused(studio: Studio, person: Person, project: str, *variables: Any, **more: Any) -> GraphQLFailure:
    given = {"projectId": project, "variables": list(variables), **more}
    return await studio.refused(person, SET, input=given)


async def names(studio: Studio, person: Person, project: str) -> list[tuple[str, str]]:
    found = (await studio.run(person, ONE, id=project))["environmentVariables"]
    return [(each["name"], each["environment"]) for each in found]


def contents_of(folder: Path) -> bytes:
    """All that is written in the files of a folder."""
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


# -- what is refused


@pytest.mark.parametrize(
    "name",
    [
        *("", "1A", "A-B", "A B", "A.B", "Ä", "A=B", "A\n", "A;id", "$A", "x" * 129, "\u0661A"),
        *sorted(RESERVED_VARIABLES),
        *("path", "Ld_Preload"),
    ],
)
async def test_name_that_builds_cannot_have_is_refused(studio: Studio, person: Person, project: str, name: str) -> None:
    failure = await refused(studio, person, project, variable("GOOD"), variable(name))
    assert failure.code == "VALIDATION_ERROR"
    assert failure.extensions["details"]["path"] == ["input", "variables", 1, "name"]


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ([variable("A"), variable("A")], [1, "name"]),
        ([variable("A", "x", "PREVIEW"), variable("B"), variable("A", "y")], [2, "name"]),
        ([variable("A"), variable("A", None)], [1, "name"]),
        ([variable("A", "x", "PREVIEW", "PREVIEW")], [0, "name"]),
        ([{"name": "A", "value": "x", "environments": []}], [0, "environments"]),
        ([variable("B"), variable("A", "x" * (MAX_VALUE_BYTES + 1))], [1, "value"]),
        ([variable("A", "é" * (MAX_VALUE_BYTES // 2 + 1))], [0, "value"]),
        ([variable(f"A{n}", "x" * MAX_VALUE_BYTES) for n in range(5)], []),
        ([variable(f"A{n}") for n in range(MAX_VARIABLES + 1)], []),
    ],
    ids=["twice", "twice-in-one", "set-and-removed", "environment-twice", "no-environment", "long", "long-in-bytes",
         "long-together", "many"],
)  # fmt: skip
async def test_set_that_does_not_fit_changes_nothing(
    studio: Studio, person: Person, project: str, variables: list[Any], path: list[Any]
) -> None:
    await studio.set(person, project, variable("KEPT"))
    failure = await refused(studio, person, project, *variables)
    assert failure.code == "VALIDATION_ERROR"
    assert failure.extensions["details"]["path"] == ["input", "variables", *path]
    assert "xxx" not in json.dumps(failure.errors)


async def test_value_that_no_program_can_be_given_is_refused(studio: Studio, person: Person, project: str) -> None:
    assert (await refused(studio, person, project, variable("A", "a\x00b"))).code == "VALIDATION_ERROR"


async def test_values_have_their_limit_together_with_those_set_before(
    studio: Studio, person: Person, project: str
) -> None:
    full = [variable(f"A{n}", "x" * MAX_VALUE_BYTES, "PREVIEW") for n in range(MAX_VALUES_BYTES // MAX_VALUE_BYTES)]
    await studio.set(person, project, *full)
    failure = await refused(studio, person, project, variable("B", "x", "PREVIEW"))
    assert failure.code == "VALIDATION_ERROR"
    assert failure.extensions["details"]["path"] == ["input", "variables"]
    await studio.set(person, project, variable("B", "x", "PRODUCTION"))
    await studio.set(person, project, variable("A0", "x" * (MAX_VALUE_BYTES - 1), "PREVIEW"), variable("B", "x"))
    await studio.set(person, project, variable("A1", None, "PREVIEW"), variable("C", "x" * MAX_VALUE_BYTES, "PREVIEW"))
    await studio.set(person, project, *full, replace=True)


async def test_number_of_variables_is_limited_together_with_those_set_before(
    studio: Studio, person: Person, project: str
) -> None:
    await studio.set(person, project, *(variable(f"A{n}", "x", "PREVIEW") for n in range(MAX_VARIABLES)))
    assert (await refused(studio, person, project, variable("B", "x", "PREVIEW"))).code == "VALIDATION_ERROR"
    await studio.set(person, project, variable("B", "x", "PRODUCTION"), variable("A0", "y", "PREVIEW"))
    await studio.set(person, project, variable("B", "x", "PREVIEW"), variable("A1", None, "PREVIEW"))


# -- what is kept


async def test_values_are_seen_nowhere_but_in_builds(
    studio: Studio, person: Person, project: str, api_server: ApiServer, settings_env: dict[str, str]
) -> None:
    secret = f"s3cret-{secrets.token_hex(12)}"
    answer = await studio.client.raw(
        "mutation ($input: SetEnvironmentVariablesInput!) { setEnvironmentVariables(input: $input) { project {"
        " environmentVariables { id name environment maskedValue createdAt updatedAt } } } }",
        {"input": {"projectId": project, "variables": [variable("TOKEN", secret)]}},
        token=person.token,
    )
    shown = answer.json()["data"]["setEnvironmentVariables"]["project"]["environmentVariables"]
    assert [(each["name"], each["environment"], each["maskedValue"]) for each in shown] == [
        ("TOKEN", "PREVIEW", "••••••••"),
        ("TOKEN", "PRODUCTION", "••••••••"),
    ]
    deployment = await studio.deployment(person, project)
    assert await studio.variables(deployment["id"]) == {"TOKEN": secret}
    # A refused call, whose error might carry what was given.
    failure = await refused(studio, person, project, variable("A-B", secret))
    assert secret not in json.dumps([answer.json(), deployment, failure.errors])
    tables = await studio.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    for table in tables:
        found = await studio.pool.fetch(
            f'SELECT 1 FROM "{table["tablename"]}" t WHERE t::text LIKE $1',
            f"%{secret}%",
        )
        assert found == [], table["tablename"]
    assert secret not in api_server.log.read_text()
    assert secret.encode() not in contents_of(Path(settings_env["DATA_DIR"]))


async def test_sealed_value_opens_in_its_own_row_only(studio: Studio, person: Person, project: str) -> None:
    await studio.set(person, project, variable("A", "same"), variable("B", "same"))
    found = await studio.pool.fetch(
        "SELECT id, sealed_value FROM environment_variables WHERE project_id = $1", uuid(project)
    )
    assert len({row["sealed_value"] for row in found}) == len(found) == 4
    box = sessions.secret_box()
    for row in found:
        for place in found:
            if place is row:
                assert box.open(row["sealed_value"], place=ENVIRONMENT_VALUE.place(row["id"])) == "same"
            else:
                with pytest.raises(Tampered):
                    box.open(row["sealed_value"], place=ENVIRONMENT_VALUE.place(place["id"]))
    first, second = [await studio.deployment(person, project) for _ in range(2)]
    sealed = await studio.pool.fetchval(
        "SELECT sealed_environment FROM deployments WHERE execution_id = $1", uuid(first["id"])
    )
    with pytest.raises(Tampered):
        box.open(sealed, place=DEPLOYMENT_ENVIRONMENT.place(uuid(second["id"])))


async def test_environments_have_values_of_their_own(studio: Studio, person: Person, project: str) -> None:
    await studio.set(
        person, project, variable("A", "live", "PRODUCTION"), variable("A", "draft", "PREVIEW"),
        variable("ONLY", "draft", "PREVIEW"), variable("BOTH", ""), variable("LINES", "one\ntwo 日本", "PRODUCTION"),
    )  # fmt: skip
    production = await studio.deployment(person, project)
    preview = await studio.deployment(person, project, environment="PREVIEW")
    assert await studio.variables(production["id"]) == {"A": "live", "BOTH": "", "LINES": "one\ntwo 日本"}
    assert await studio.variables(preview["id"]) == {"A": "draft", "ONLY": "draft", "BOTH": ""}


async def test_deployment_keeps_the_values_it_was_asked_for_with(studio: Studio, person: Person, project: str) -> None:
    await studio.set(person, project, variable("A", "old"), variable("GONE", "x"))
    before = await studio.deployment(person, project)
    await studio.set(person, project, variable("A", "new"), variable("GONE", None))
    after = await studio.deployment(person, project)
    assert await studio.variables(before["id"]) == {"A": "old", "GONE": "x"}
    assert await studio.variables(after["id"]) == {"A": "new"}


async def test_change_keeps_the_row_and_says_when(studio: Studio, person: Person, project: str) -> None:
    (before,) = (await studio.set(person, project, variable("A", "1", "PREVIEW")))["environmentVariables"]
    (after,) = (await studio.set(person, project, variable("A", "2", "PREVIEW")))["environmentVariables"]
    assert after == {**before, "updatedAt": after["updatedAt"]}
    assert after["updatedAt"] > before["updatedAt"] >= before["createdAt"]


async def test_null_removes_and_replace_removes_what_is_not_named(studio: Studio, person: Person, project: str) -> None:
    await studio.set(person, project, variable("A"), variable("B"))
    await studio.set(person, project, variable("A", None, "PREVIEW"), variable("NEVER", None))
    assert await names(studio, person, project) == [("A", "PRODUCTION"), ("B", "PREVIEW"), ("B", "PRODUCTION")]
    await studio.set(person, project)
    assert len(await names(studio, person, project)) == 3
    await studio.set(person, project, variable("C", "x", "PREVIEW"), variable("B", None, "PREVIEW"), replace=True)
    assert await names(studio, person, project) == [("C", "PREVIEW")]
    await studio.set(person, project, replace=True)
    assert await names(studio, person, project) == []
    assert await studio.variables((await studio.deployment(person, project))["id"]) == {}


async def test_changes_at_once_are_all_kept(studio: Studio, person: Person, project: str) -> None:
    await asyncio.gather(*(studio.set(person, project, variable(f"A{n}", "x"), variable("SAME")) for n in range(8)))
    wanted = {(name, of.value) for name in ("SAME", *(f"A{n}" for n in range(8))) for of in DeploymentEnvironment}
    assert set(await names(studio, person, project)) == wanted


async def test_trail_names_what_was_set_without_values(studio: Studio, person: Person, project: str) -> None:
    await studio.set(person, project, variable("GONE", "x", "PREVIEW"))
    await studio.set(person, project, variable("A", "the-value", "PREVIEW"), variable("GONE", None))
    details = await studio.pool.fetchval(
        """SELECT details::text FROM audit_events WHERE target_id = $1 AND action = 'setEnvironmentVariables'
           ORDER BY id DESC LIMIT 1""",
        uuid(project),
    )
    assert json.loads(details) == {"set": ["PREVIEW:A"], "removed": 1}


async def test_variables_go_with_their_project(studio: Studio, person: Person, project: str) -> None:
    await studio.set(person, project, variable("A"))
    await studio.run(person, DELETE, input={"id": project})
    count = "SELECT count(*) FROM environment_variables WHERE project_id = $1"
    assert await studio.pool.fetchval(count, uuid(project)) == 0
