"""Preferences through the API: everybody's own, changed in part, written down."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from models.ids import decode_id
from models.notifications import Preferences, Theme
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure

ALL = "theme emailNotifications deploymentSuccess deploymentFailure jobNotifications updatedAt"
READ = f"{{ preferences {{ {ALL} }} }}"
UPDATE = (
    f"mutation ($input: UpdatePreferencesInput!) {{ updatePreferences(input: $input) {{ preferences {{ {ALL} }} }} }}"
)
DEFAULTS = {
    "theme": "SYSTEM",
    "emailNotifications": True,
    "deploymentSuccess": True,
    "deploymentFailure": True,
    "jobNotifications": True,
}


@pytest.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


async def read(client: GraphQLClient, person: Person) -> dict[str, Any]:
    found: dict[str, Any] = (await client.run(READ, token=person.token))["preferences"]
    return found


async def update(client: GraphQLClient, person: Person, **changes: Any) -> dict[str, Any]:
    answer = await client.run(UPDATE, {"input": changes}, token=person.token)
    found: dict[str, Any] = answer["updatePreferences"]["preferences"]
    return found


async def stored(db: asyncpg.Connection, person: Person) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await db.fetch(
        "SELECT * FROM preferences WHERE user_id = $1", decode_id(person.id)[1]
    )
    return found


async def test_strangers_have_no_preferences(client: GraphQLClient) -> None:
    for document, variables in ((READ, None), (UPDATE, {"input": {"theme": "DARK"}})):
        with pytest.raises(GraphQLFailure) as refused:
            await client.run(document, variables)
        assert refused.value.code == "UNAUTHORIZED"


async def test_who_never_chose_has_the_defaults_and_no_row(
    client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    assert await read(client, person) == {**DEFAULTS, "updatedAt": None}
    assert await update(client, person) == {**DEFAULTS, "updatedAt": None}, "a change of nothing"
    assert await stored(db, person) == []
    model = Preferences(user_id=decode_id(person.id)[1])
    assert (model.theme, model.email_notifications) == (Theme.SYSTEM, True)


async def test_a_change_of_some_leaves_the_others(client: GraphQLClient, person: Person) -> None:
    first = await update(client, person, theme="DARK", deploymentSuccess=False)
    assert {**first, "updatedAt": None} == {
        **DEFAULTS, "theme": "DARK", "deploymentSuccess": False, "updatedAt": None,
    }  # fmt: skip
    second = await update(client, person, emailNotifications=False)
    assert {**second, "updatedAt": None} == {**first, "emailNotifications": False, "updatedAt": None}
    assert second["updatedAt"] > first["updatedAt"]
    assert await read(client, person) == second
    back = await update(client, person, emailNotifications=True, theme="SYSTEM", deploymentSuccess=True)
    assert {**back, "updatedAt": None} == {**DEFAULTS, "updatedAt": None}


async def test_changes_at_once_all_hold(client: GraphQLClient, person: Person, db: asyncpg.Connection) -> None:
    changes: list[dict[str, Any]] = [
        {"theme": "LIGHT"},
        {"emailNotifications": False},
        {"deploymentSuccess": False},
        {"deploymentFailure": False},
        {"jobNotifications": False},
    ]
    await asyncio.gather(*(update(client, person, **change) for change in changes))
    expected: dict[str, Any] = {name: value for change in changes for name, value in change.items()}
    assert {**await read(client, person), "updatedAt": None} == {**expected, "updatedAt": None}
    assert len(await stored(db, person)) == 1


async def test_everybody_has_their_own(
    client: GraphQLClient, person: Person, admin: Person, db: asyncpg.Connection
) -> None:
    other = await new_user(client)
    await update(client, person, theme="DARK")
    for somebody in (other, admin):
        assert (await read(client, somebody))["theme"] == "SYSTEM"
        await update(client, somebody, jobNotifications=False)
    assert (await read(client, person))["jobNotifications"] is True


@pytest.mark.parametrize(
    "changes", [{"theme": "PINK"}, {"theme": None}, {"emailNotifications": None}, {"jobNotifications": "yes"}, {"x": 1}]
)
async def test_what_is_no_choice_changes_nothing(
    changes: dict[str, Any], client: GraphQLClient, person: Person, db: asyncpg.Connection
) -> None:
    with pytest.raises(GraphQLFailure) as refused:
        await update(client, person, deploymentSuccess=False, **changes)
    assert refused.value.code == "VALIDATION_ERROR"
    assert await stored(db, person) == []


async def test_a_change_is_written_down(client: GraphQLClient, person: Person, db: asyncpg.Connection) -> None:
    await update(client, person, theme="DARK", jobNotifications=False)
    (event,) = await db.fetch(
        "SELECT * FROM audit_events WHERE action = 'updatePreferences' AND actor_id = $1", decode_id(person.id)[1]
    )
    assert event["details"] == '{"changed": {"theme": "DARK", "job_notifications": false}}'
    assert (event["target_type"], event["target_id"]) == ("user", decode_id(person.id)[1])
