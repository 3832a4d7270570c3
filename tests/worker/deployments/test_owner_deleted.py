"""The end of an account while its deployment is being built: the build stops, and its worker removes what is left."""

from __future__ import annotations

from pathlib import Path

import asyncpg

from models.ids import decode_id
from tests.factories import new_user
from tests.harness.deploying import Deploying
from tests.harness.git_remote import APPS
from tests.harness.waiting import eventually

DELETE_ACCOUNT = "mutation Delete($input: DeleteAccountInput!) { deleteAccount(input: $input) { ok } }"
ENDLESS = "mkdir out && echo begun && sleep 300"


async def test_an_owner_deleted_under_a_running_build_leaves_nothing_and_others_their_site(
    deploying: Deploying, db: asyncpg.Connection
) -> None:
    neighbours = await deploying.site(APPS / "plain")
    await deploying.deployed(neighbours)
    deploying.owner = leaving = await new_user(deploying.client)
    same = await deploying.site(APPS / "plain")
    await deploying.deployed(same)
    building = await deploying.site({"package.json": '{"name": "x"}'}, buildCommand=ENDLESS)
    deployment = await deploying.deploy(building)
    await deploying.until_line(deployment, "begun")
    await deploying.run(DELETE_ACCOUNT, input={"password": leaving.password})
    user_id, execution_id = decode_id(leaving.id)[1], decode_id(deployment)[1]
    assert await db.fetchval("SELECT cancel_requested_at IS NOT NULL FROM executions WHERE id = $1", execution_id)

    async def is_gone() -> bool:
        return await db.fetchval("SELECT 1 FROM users WHERE id = $1", user_id) is None

    await eventually(is_gone, 40)
    assert await db.fetchval("SELECT 1 FROM executions WHERE owner_id = $1", user_id) is None
    left = [str(decode_id(site.id)[1]) for site in (same, building)]
    assert [key for key in deploying.stored_files() if any(project in key for project in left)] == []
    objects = Path(deploying.programs.environment["DATA_DIR"]) / "files" / "objects"
    assert not any(str(execution_id) in record.read_text() for record in objects.rglob("*.json"))
    assert (await deploying.get(same.url)).status_code == 404
    assert (await deploying.get(neighbours.url)).status_code == 200
