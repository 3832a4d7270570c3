"""Projects through the API: whose they are, what is refused and how, that a repeat makes nothing twice, how they go."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from adapters import storage
from models.ids import Prefix, encode_id
from models.permissions import Actor
from resolvers import projects
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.deployments import make_live
from tests.harness.projects import (
    CREATE,
    CREATE_HOOK,
    DELETE,
    NODES,
    ONE,
    REPOSITORY,
    SET,
    UPDATE,
    Studio,
    new_slug,
    open_studio,
    uuid,
)
from tests.harness.wire import Wire

MAX_PROJECTS = 12
SETTINGS = {"MAX_PROJECTS_PER_USER": str(MAX_PROJECTS)}

LIST = """
query ($search: String, $orderBy: ProjectOrder, $first: Int, $after: String, $last: Int, $before: String) {
  it: projects(search: $search, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { node { id name slug owner { id } environmentVariables { name } deployHooks { name } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


@pytest_asyncio.fixture(scope="module")
async def studio(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Studio]:
    async with open_studio(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture
async def other(client: GraphQLClient) -> Person:
    return await new_user(client)


def commands_on(project_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything that can be asked of one project."""
    variable = {"name": "A", "value": "b"}
    return [
        (ONE, {"id": project_id}),
        (UPDATE, {"input": {"id": project_id, "name": "Mine"}}),
        (UPDATE, {"input": {"id": project_id}}),
        (DELETE, {"input": {"id": project_id}}),
        (SET, {"input": {"projectId": project_id, "variables": [variable]}}),
        (SET, {"input": {"projectId": project_id, "variables": [], "replace": True}}),
        (CREATE_HOOK, {"input": {"projectId": project_id, "name": "Mine"}}),
    ]


def path_of(failure: GraphQLFailure) -> Any:
    return failure.extensions["details"]["path"]


# -- who


async def test_nobody_sees_and_changes_nothing(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    new = {"name": "Website", "repository": REPOSITORY}
    for document, variables in [(LIST, {}), (CREATE, {"input": new}), *commands_on(project["id"])]:
        assert (await studio.refused(None, document, **variables)).code == "UNAUTHORIZED"
    assert await studio.run(None, NODES, ids=[project["id"]]) == [None]
    assert await projects.page(Actor(), limit=10) == []
    assert await projects.count(Actor(), search=None) == 0


async def test_projects_of_others_do_not_exist(studio: Studio, person: Person, other: Person) -> None:
    project = await studio.project(person)
    deployment = await studio.deployment(person, project["id"])
    answers = set()
    foreign_kind = encode_id(Prefix.JOB, uuid(project["id"]))
    ids = (project["id"], encode_id(Prefix.PROJECT, NOBODYS_ID), deployment["id"], foreign_kind, "nonsense", "")
    for id_ in (*ids, project["id"].upper(), f"{project['id']} "):
        for document, variables in commands_on(id_):
            failure = await studio.refused(other, document, **variables)
            answers.add((failure.errors[0]["message"], failure.code))
    assert [code for _, code in answers] == ["NOT_FOUND"]
    assert await studio.run(other, NODES, ids=[project["id"], foreign_kind, "nonsense"]) == [None] * 3
    assert (await studio.run(other, LIST))["totalCount"] == 0
    assert await studio.run(other, LIST, search=project["slug"]) == await studio.run(other, LIST)


async def test_administrators_see_and_change_projects_of_everybody(
    studio: Studio, person: Person, admin: Person
) -> None:
    project = await studio.project(person, name="Theirs")
    assert (await studio.run(admin, ONE, id=project["id"]))["owner"] == {"id": person.id}
    assert await studio.run(admin, NODES, ids=[project["id"]]) == [{"__typename": "Project", "id": project["id"]}]
    found = await studio.run(admin, LIST, search=project["slug"])
    assert [edge["node"]["id"] for edge in found["edges"]] == [project["id"]]
    changed = await studio.run(admin, UPDATE, input={"id": project["id"], "name": "Ours"})
    assert (changed["project"]["name"], changed["project"]["owner"]) == ("Ours", {"id": person.id})
    await studio.set(admin, project["id"], {"name": "A", "value": "b"})
    await studio.hook(admin, project["id"])
    assert await studio.run(admin, DELETE, input={"id": project["id"]}) == {"deletedId": project["id"]}
    trail = await studio.pool.fetch(
        "SELECT action, actor_id FROM audit_events WHERE target_id = $1 ORDER BY id", uuid(project["id"])
    )
    assert [(event["action"], event["actor_id"]) for event in trail] == [
        ("createProject", uuid(person.id)),
        ("updateProject", uuid(admin.id)),
        ("setEnvironmentVariables", uuid(admin.id)),
        ("createDeployHook", uuid(admin.id)),
        ("deleteProject", uuid(admin.id)),
    ]


# -- creating


@pytest.mark.parametrize(
    "repository",
    [
        *("https://me:secret@git.example.com/a/b", "https://token@github.com/a/b", "ssh://git@github.com/a/b"),
        *("git@github.com:a/b.git", "file:///etc/passwd", "/etc/passwd", "../up", "--upload-pack=touch", "-u/x"),
        *("ext::sh -c id", "http://git.example.com/a/b", "git://git.example.com/a/b", "https://git.example.com"),
        *("https://127.0.0.1/a/b", "https://[::1]/a/b", "https://169.254.169.254/latest", "https://localhost/a/b"),
        *("https://git.example.com/a/../b", "https://git.example.com/a?b", "https://git.example.com/a#b", "", " "),
        *("https://git.example.com/a%00b", "https://git.example.com/a\nb", "https://gït.example.com/a/b", "x" * 501),
    ],
)
async def test_repository_that_git_must_not_fetch_is_refused(studio: Studio, person: Person, repository: str) -> None:
    project = await studio.project(person)
    for document, fields in ((CREATE, {"name": "Website"}), (UPDATE, {"id": project["id"]})):
        failure = await studio.refused(person, document, input={**fields, "repository": repository})
        assert (failure.code, path_of(failure)) == ("VALIDATION_ERROR", ["input", "repository"])
        assert "secret" not in str(failure.errors)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("branch", branch) for branch in ("", "-x", "a..b", "a b", "a~1", "HEAD", "@", "a.lock", "/a", "a//b")),
        ("branch", "é" * 121),
        *(("rootDirectory", folder) for folder in ("..", "apps/../..", "a\\b", "a\nb", "x" * 256, "/../x")),
        *(("outputDirectory", folder) for folder in ("..", "dist/../../x", "a\u2028b")),
        *(("installCommand", command) for command in ("npm ci\nrm -rf /", "a\rb", "x" * 1_001, "a\x1b[0m")),
        *(("buildCommand", command) for command in ("make\nmake", "\ttab\tinside", "x" * 1_001)),
        *(("slug", slug) for slug in ("a--b", "-a", "a-", "Abc", "a_b", "a.b", "é", "", "x" * 41, "a\n", "xn--a")),
        *(("name", name) for name in ("", "  ", "x" * 121, "a\nb", "a\u202eb")),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_with_its_path(
    studio: Studio, person: Person, field: str, value: str
) -> None:
    fields = {"name": "Website", "repository": REPOSITORY, field: value}
    failure = await studio.refused(person, CREATE, input=fields)
    assert (failure.code, path_of(failure)) == ("VALIDATION_ERROR", ["input", field])


async def test_project_of_name_and_repository_alone_has_careful_defaults(
    studio: Studio, person: Person, api_server: ApiServer
) -> None:
    project = await studio.project(person, name="  My Shop  ", repository="Octo/Site.git")
    assert project == {
        **project, "name": "My Shop", "repository": "https://github.com/Octo/Site", "repositoryFullName": "Octo/Site",
        "branch": "main", "rootDirectory": ".", "framework": None, "installCommand": None, "buildCommand": None,
        "outputDirectory": None, "spaFallback": None, "autoDeploy": True, "previewDeployments": True,
        "supersede": "QUEUED", "installScripts": False, "buildNetwork": True, "submodules": False,
        "owner": {"id": person.id}, "environmentVariables": [], "deployHooks": [],
    }  # fmt: skip
    assert re.fullmatch(r"my-shop-[0-9a-f]{4}", project["slug"])
    assert project["url"] == f"http://{project['slug']}.localhost:{api_server.url.rpartition(':')[2]}"
    assert await studio.run(person, ONE, id=project["id"]) == project


async def test_project_keeps_what_it_is_given_in_one_spelling(studio: Studio, person: Person) -> None:
    given = {
        "slug": new_slug(), "branch": "release/2", "rootDirectory": " /apps//web/./ ", "installCommand": "",
        "buildCommand": " make site ", "outputDirectory": "./dist/", "spaFallback": False, "autoDeploy": False,
        "previewDeployments": False, "supersede": "NONE", "installScripts": True, "buildNetwork": False,
        "submodules": True,
    }  # fmt: skip
    project = await studio.project(person, **given)
    tidy = {"rootDirectory": "apps/web", "buildCommand": "make site", "outputDirectory": "dist"}
    assert project == {**project, **given, **tidy}


@pytest.mark.parametrize(
    "name", ["日本語", "Ελληνικά", "مرحبا", "🚀", "---", "x" * 120, "Ünïcode Näme", "a" * 35 + "-b"]
)
async def test_name_of_any_script_makes_a_slug(studio: Studio, person: Person, name: str) -> None:
    slugs = {(await studio.project(person, name=name))["slug"] for _ in range(2)}
    assert len(slugs) == 2
    for slug in slugs:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
        assert len(slug) <= 40


async def test_slug_that_is_taken_is_a_conflict_whoever_has_it(studio: Studio, person: Person, other: Person) -> None:
    project = await studio.project(person, slug=new_slug())
    for asker in (person, other):
        fields = {"name": "Website", "repository": REPOSITORY, "slug": project["slug"], "idempotencyKey": "k"}
        failure = await studio.refused(asker, CREATE, input=fields)
        assert (failure.code, path_of(failure)) == ("CONFLICT", ["input", "slug"])


async def test_two_at_once_with_one_slug_make_one_project(studio: Studio, person: Person, other: Person) -> None:
    slug = new_slug()
    calls = [studio.project(asker, slug=slug) for asker in (person, other) * 4]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(a.code or "" for a in answers if isinstance(a, GraphQLFailure)) == ["CONFLICT"] * 7
    assert await studio.pool.fetchval("SELECT count(*) FROM projects WHERE slug = $1", slug) == 1


async def test_limit_of_projects_holds_for_requests_at_once(
    studio: Studio, person: Person, other: Person, admin: Person
) -> None:
    calls = [studio.project(person) for _ in range(MAX_PROJECTS + 4)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, GraphQLFailure)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 4
    assert {failure.extensions["details"]["limit"] for failure in failures} == {MAX_PROJECTS}
    made = [answer for answer in answers if isinstance(answer, dict)]
    assert len(made) == MAX_PROJECTS
    await studio.project(other)
    await studio.run(admin, DELETE, input={"id": made[0]["id"]})
    await studio.project(person)


async def test_repeat_with_its_key_makes_one_project(studio: Studio, person: Person, other: Person) -> None:
    fields = {"name": "Website", "idempotencyKey": "k"}
    answers = await asyncio.gather(*(studio.project(person, **fields) for _ in range(6)))
    assert len({answer["id"] for answer in answers}) == 1
    assert (await studio.run(person, LIST))["totalCount"] == 1
    assert (await studio.project(other, **fields))["id"] != answers[0]["id"]
    for changes in ({"name": "Shop"}, {"repository": "octo/other"}, {"slug": new_slug()}, {"branch": "next"}):
        new = {"repository": REPOSITORY, **fields, **changes}
        assert (await studio.refused(person, CREATE, input=new)).code == "CONFLICT"
    for key in ("", "k" * 256):
        new = {"name": "Website", "repository": REPOSITORY, "idempotencyKey": key}
        assert path_of(await studio.refused(person, CREATE, input=new)) == ["input", "idempotencyKey"]


# -- changing


async def test_update_leaves_alone_what_is_left_out_and_tells_null_from_nothing(studio: Studio, person: Person) -> None:
    project = await studio.project(person, installCommand="npm ci", buildCommand="make", outputDirectory="out")

    async def change(**fields: Any) -> dict[str, Any]:
        answer = await studio.run(person, UPDATE, input={"id": project["id"], **fields})
        changed: dict[str, Any] = answer["project"]
        return changed

    assert await change() == project
    changed = await change(installCommand="", buildCommand=None)
    assert changed == {**project, "installCommand": "", "buildCommand": None, "updatedAt": changed["updatedAt"]}
    assert changed["updatedAt"] > project["updatedAt"]
    changed = await change(spaFallback=True, outputDirectory=None)
    assert (changed["spaFallback"], changed["outputDirectory"], changed["installCommand"]) == (True, None, "")
    changed = await change(spaFallback=None, supersede="ALL", branch="next", repository="octo/site")
    assert (changed["spaFallback"], changed["supersede"], changed["branch"]) == (None, "ALL", "next")
    assert changed["repositoryFullName"] == "octo/site"
    assert (await change(repository=REPOSITORY))["repositoryFullName"] is None
    assert changed["slug"] == project["slug"]


@pytest.mark.parametrize(
    "field",
    [
        *("name", "repository", "branch", "rootDirectory", "autoDeploy", "previewDeployments", "supersede"),
        *("installScripts", "buildNetwork", "submodules"),
    ],
)
async def test_what_every_project_has_cannot_be_null(studio: Studio, person: Person, field: str) -> None:
    project = await studio.project(person)
    failure = await studio.refused(person, UPDATE, input={"id": project["id"], field: None})
    assert failure.code == "VALIDATION_ERROR"


async def test_slug_cannot_be_changed(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    failure = await studio.refused(person, UPDATE, input={"id": project["id"], "slug": new_slug()})
    assert failure.code == "VALIDATION_ERROR"


async def test_changes_at_once_are_all_kept(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    changes: list[dict[str, Any]] = [{"name": "Shop"}, {"branch": "next"}, {"buildCommand": "make"}]
    await asyncio.gather(*(studio.run(person, UPDATE, input={"id": project["id"], **change}) for change in changes))
    found = await studio.run(person, ONE, id=project["id"])
    assert (found["name"], found["branch"], found["buildCommand"]) == ("Shop", "next", "make")


# -- deleting


async def test_project_with_a_deployment_that_is_not_done_stays(studio: Studio, person: Person, admin: Person) -> None:
    project = await studio.project(person)
    deployment = await studio.deployment(person, project["id"])
    for asker in (person, admin):
        assert (await studio.refused(asker, DELETE, input={"id": project["id"]})).code == "CONFLICT"
    hand = await studio.desk.claim(uuid(deployment["id"]))
    assert (await studio.refused(person, DELETE, input={"id": project["id"]})).code == "CONFLICT"
    await hand.finish()
    await studio.run(person, DELETE, input={"id": project["id"]})


async def test_project_goes_with_everything_it_had_and_nothing_else(studio: Studio, person: Person) -> None:
    project, kept = await studio.project(person), await studio.project(person)
    for each in (project, kept):
        await studio.set(person, each["id"], {"name": "A", "value": "b"})
        await studio.hook(person, each["id"])
        deployment = await studio.deployment(person, each["id"])
        hand = await studio.desk.claim(uuid(deployment["id"]))
        await hand.write("a line")
        await hand.finish()
        async with studio.pool.acquire() as connection:
            await make_live(connection, hand.id)
        await studio.desk.compact(hand.id)
    log_key = await studio.pool.fetchval(
        """SELECT log_object->>'key' FROM executions JOIN deployments ON id = execution_id
           WHERE project_id = $1""",
        uuid(project["id"]),
    )
    assert await storage.current().head(log_key) is not None
    assert await studio.run(person, DELETE, input={"id": project["id"]}) == {"deletedId": project["id"]}
    ids = [uuid(each["id"]) for each in (project, kept)]
    for table in ("environment_variables", "deploy_hooks", "deployments", "site_aliases"):
        left = await studio.pool.fetch(f"SELECT DISTINCT project_id FROM {table} WHERE project_id = ANY($1)", ids)
        assert [row["project_id"] for row in left] == [ids[1]], table
    owned = "SELECT count(*) FROM executions WHERE kind = 'DEPLOYMENT' AND owner_id = $1"
    assert await studio.pool.fetchval(owned, uuid(person.id)) == 1
    assert await storage.current().head(log_key) is None
    messages = await studio.pool.fetch("SELECT key, payload::text FROM outbox_messages WHERE topic = 'site.removal'")
    told = [(message["key"], message["payload"]) for message in messages if message["key"] == str(ids[0])]
    assert told == [(str(ids[0]), f'{{"projectId": "{ids[0]}"}}')]
    for document, variables in commands_on(project["id"]):
        assert (await studio.refused(person, document, **variables)).code == "NOT_FOUND"
    # Its address is free again.
    await studio.project(person, slug=project["slug"])


async def test_deployment_and_deletion_at_once_leave_both_or_neither(studio: Studio, person: Person) -> None:
    for _ in range(5):
        project = await studio.project(person)
        answers = await asyncio.gather(
            studio.deployment(person, project["id"]),
            studio.run(person, DELETE, input={"id": project["id"]}),
            return_exceptions=True,
        )
        failures = [answer.code for answer in answers if isinstance(answer, GraphQLFailure)]
        assert len(failures) == 1
        assert failures[0] in {"CONFLICT", "NOT_FOUND"}
        rows = await studio.pool.fetchval("SELECT count(*) FROM deployments WHERE project_id = $1", uuid(project["id"]))
        assert (rows == 1) is (failures == ["CONFLICT"])


async def test_variables_of_a_project_that_is_deleted_meanwhile_are_not_found(studio: Studio, person: Person) -> None:
    project = await studio.project(person)
    async with studio.pool.acquire() as connection, connection.transaction():
        await connection.execute("DELETE FROM projects WHERE id = $1", uuid(project["id"]))
        tasks = [
            asyncio.create_task(studio.set(person, project["id"], {"name": "A", "value": "b"})),
            asyncio.create_task(studio.hook(person, project["id"])),
            asyncio.create_task(studio.run(person, UPDATE, input={"id": project["id"], "name": "B"})),
            asyncio.create_task(studio.deployment(person, project["id"])),
            asyncio.create_task(studio.run(person, DELETE, input={"id": project["id"]})),
        ]
        await studio.until_waiting(len(tasks))
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answer.code for answer in answers if isinstance(answer, GraphQLFailure)] == ["NOT_FOUND"] * len(tasks)


# -- reading


async def test_list_is_searched_without_wildcards(studio: Studio, person: Person) -> None:
    await studio.project(person, name="100% organic_food")
    await studio.project(person, name="Organic", repository="octo/Shop-Front")
    for search, count in (
        ("100%", 1),
        ("%", 1),
        ("c_f", 1),
        ("ORGANIC", 2),
        ("octo/shop", 1),
        ("nothing", 0),
        (" ", 2),
    ):
        assert (await studio.run(person, LIST, search=search))["totalCount"] == count, search
    failure = await studio.refused(person, LIST, search="x" * 201)
    assert (failure.code, path_of(failure)) == ("VALIDATION_ERROR", ["search"])


@pytest.mark.parametrize("field", ["CREATED_AT", "NAME", "UPDATED_AT"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_pages_forwards_and_backwards_hold_all_once(
    studio: Studio, person: Person, field: str, direction: str
) -> None:
    names = ["b", "A", "c", "a", "B", "b", "C"]
    made = [await studio.project(person, name=name) for name in names]
    await studio.run(person, UPDATE, input={"id": made[0]["id"], "branch": "next"})
    order = {"field": field, "direction": direction}
    sort = {
        "CREATED_AT": lambda place: place,
        "NAME": lambda place: (names[place].lower(), place),
        "UPDATED_AT": lambda place: place if place else len(names),
    }[field]
    wanted = [made[place]["id"] for place in sorted(range(len(names)), key=sort, reverse=direction == "DESC")]

    async def pages(backwards: bool) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            bounds = {"last": 3, "before": cursor} if backwards else {"first": 3, "after": cursor}
            page = await studio.run(person, LIST, orderBy=order, **bounds)
            assert page["totalCount"] == len(names)
            ids = [edge["node"]["id"] for edge in page["edges"]]
            found = ids + found if backwards else found + ids
            if not page["pageInfo"]["hasPreviousPage" if backwards else "hasNextPage"]:
                return found
            cursor = page["pageInfo"]["startCursor" if backwards else "endCursor"]

    assert await pages(backwards=False) == wanted
    assert await pages(backwards=True) == wanted


async def test_list_of_projects_with_variables_and_hooks_costs_at_most_five_statements(
    studio: Studio, person: Person, api_server: ApiServer, settings_env: dict[str, str]
) -> None:
    for _ in range(MAX_PROJECTS):
        project = await studio.project(person)
        await studio.set(person, project["id"], {"name": "A", "value": "b"})
    async with Wire(settings_env["DATABASE_URL"]) as wire:
        api = await api_server.second(DATABASE_URL=wire.url)
        async with GraphQLClient(api.graphql_url) as counted:
            counts = []
            for _ in range(6):  # the first times also read the session and, on each connection, the types of columns
                before = wire.count
                answer = (await counted.run(LIST, {"first": 50}, token=person.token))["it"]
                counts.append(wire.count - before)
            assert len(answer["edges"]) == MAX_PROJECTS
            assert 1 <= counts[-1] <= 5
        assert await api.stop() == 0


async def test_a_slug_made_from_a_name_is_made_again_when_it_is_taken(
    studio: Studio, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = iter(["aaaa", "aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("resolvers.projects.secrets.token_hex", lambda _: next(ends))
    actor = Actor(user_id=uuid(person.id))

    made = [
        await projects.create(actor, name="Crowded", slug=None, given={"repository": REPOSITORY}, idempotency_key=None)
        for _ in range(2)
    ]

    assert [row["slug"] for row in made] == ["crowded-aaaa", "crowded-bbbb"]
