"""Exports that a real worker makes: asked for, downloaded and read back; refused, stopped, killed, kept and swept."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psutil
import pytest
import pytest_asyncio
from openpyxl import load_workbook
from pyarrow import parquet
from redis.asyncio import Redis

from adapters import storage
from models import item_export_queries
from models.database import to_json
from models.ids import Prefix, encode_id, new_id
from models.item_filters import EVERYTHING
from tasks.account_purge import purge
from tasks.export.upkeep import sweep_once
from tasks.outbox import NotYet
from tests.conftest import Programs, WorkerFactory
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, subscribe
from tests.harness.executions import uuid_of
from tests.harness.exports import (
    ASK,
    CANCEL,
    DELETE,
    DELETE_JOB,
    ITEMS,
    LIST,
    ONE,
    Office,
    download,
    open_office,
    uuid_in,
)
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually, leftover_processes

SETTINGS = {
    "WORKER_CRAWL_SLOTS": "0",
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "0",
    "WORKER_OCR_SLOTS": "0",
    "WORKER_EXPORT_SLOTS": "4",
    "MAX_EXPORTS_PER_USER": "4",
    "MAX_QUEUED_PER_USER": "3",
    "EXPORT_MAX_MEGABYTES": "64",
}
MANY = 30_000
HOMES: list[dict[str, Any]] = [
    {"title": "Piso Ñ", "price": "199900.00", "address": {"city": "Sevilla", "zip": "41001"}, "tags": ["new", "sun"]},
    {"title": '=HYPERLINK("x")', "price": 250000, "address": {"city": "Cádiz"}, "sizes": [{"m": 40}, {"m": 55}]},
    {"title": "Casa", "price": None, "address": {"city": "sevilla la nueva"}, "rooms": 3},
    {"title": "日本", "price": 99.5, "tags": []},
]


@pytest_asyncio.fixture(scope="module")
async def office(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[Office]:
    async with open_office(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(scope="module")
async def run(office: Office, person: Person) -> str:
    """A run with four homes."""
    return await office.crawled(person, HOMES)


@pytest_asyncio.fixture(scope="module")
async def long_run(office: Office, person: Person) -> str:
    """A run with so many items that a workbook of them takes seconds."""
    run_id = await office.crawled(person, [])
    await office.pool.execute(
        """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
           SELECT $1, $1, n::text, 'https://a.example/', jsonb_build_object('n', n, 'title', repeat('home ', 20),
               'a', n, 'b', n, 'c', n, 'd', n, 'e', n), now()
           FROM generate_series(1, $2::int) n""",
        uuid_in(run_id),
        MANY,
    )
    await office.pool.execute("UPDATE job_runs SET items_scraped = $2 WHERE execution_id = $1", uuid_in(run_id), MANY)
    return run_id


@pytest_asyncio.fixture(scope="module")
async def worker(programs: Programs) -> Program:
    started = programs.start([CLI, "worker"], kind="worker")
    await started.wait_event("worker_started")
    return started


async def at_work(office: Office, person: Person, export_id: str, stage: str = "WRITING") -> None:
    async def is_so() -> bool:
        return bool((await office.run(person, ONE, id=export_id))["stage"] == stage)

    await eventually(is_so, 30, what=f"{export_id} {stage}")


def writers(worker: Program) -> list[psutil.Process]:
    """The processes below a worker that write exports."""
    return [
        each
        for each in psutil.Process(worker.pid).children(recursive=True)
        if each.is_running() and "tasks.export.writer" in each.cmdline() and each.cmdline()[0] != ""
    ]


# -- without a worker: what may be asked, and what becomes of it


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"fields": []}, ["fields"]),
        ({"fields": ["a", "a"]}, ["fields", 1]),
        ({"fields": ["a."]}, ["fields", 0]),
        ({"fields": [f"f{number}" for number in range(501)]}, ["fields"]),
        ({"omit": ["x" * 201]}, ["omit", 0]),
        ({"rename": [{"from": "a", "to": ""}]}, ["rename", 0, "to"]),
        ({"rename": [{"from": "a", "to": "c"}, {"from": "b", "to": "c"}]}, ["rename", 1, "to"]),
        ({"rename": [{"from": "a", "to": "c"}, {"from": "a", "to": "d"}]}, ["rename", 1, "from"]),
        ({"fields": ["a", "b"], "rename": [{"from": "a", "to": "b"}]}, ["rename", 0, "to"]),
        ({"unwind": ""}, ["unwind"]),
        ({"separator": "____", "flatten": True}, ["separator"]),
        ({"separator": "_"}, ["separator"]),
        ({"limit": 0}, ["limit"]),
        ({"filter": {"where": [{"field": "a"}] * 21}}, ["filter", "where"]),
        ({"filter": {"where": [{"field": "a", "op": "IN", "value": 5}]}}, ["filter", "where", 0, "value"]),
        ({"filter": {"search": "x" * 201}}, ["filter", "search"]),
        ({"idempotencyKey": ""}, ["idempotencyKey"]),
    ],
    ids=lambda each: str(each)[:40],
)
async def test_options_that_do_not_fit_are_refused_with_their_place(
    office: Office, person: Person, run: str, fields: dict[str, Any], path: list[str | int]
) -> None:
    failure = await office.refused(person, ASK, input={"runId": run, "format": "JSONL", **fields})
    assert (failure.code, failure.extensions["details"]["path"]) == ("VALIDATION_ERROR", ["input", *path])


async def test_others_and_nobody_make_stop_and_see_nothing(
    office: Office, client: GraphQLClient, person: Person, run: str
) -> None:
    other = await new_user(client)
    export = await office.ask(person, run)
    for document, fields in ((CANCEL, {"id": export["id"]}), (DELETE, {"id": export["id"]})):
        assert (await office.refused(other, document, input=fields)).code == "NOT_FOUND"
    assert (await office.refused(other, ASK, input={"runId": run, "format": "CSV"})).code == "NOT_FOUND"
    assert (await office.refused(None, ASK, input={"runId": run, "format": "CSV"})).code == "UNAUTHORIZED"
    missing = encode_id(Prefix.RUN, NOBODYS_ID)
    assert (await office.refused(person, ASK, input={"runId": missing, "format": "CSV"})).code == "NOT_FOUND"
    assert (await office.run(other, LIST, filter={"runId": run}))["edges"] == []
    assert (await office.run(person, CANCEL, input={"id": export["id"]}))["export"]["status"] == "CANCELLED"
    await office.run(person, DELETE, input={"id": export["id"]})
    assert (await office.refused(person, ONE, id=export["id"])).code == "NOT_FOUND"


async def test_a_repeated_call_finds_its_export_and_an_administrators_is_the_owners(
    office: Office, client: GraphQLClient, admin: Person
) -> None:
    owner = await new_user(client)
    run_id = await office.crawled(owner, HOMES)
    asked = [office.ask(owner, run_id, idempotencyKey="once", limit=1) for _ in range(3)]
    first, *others = [each["id"] for each in await asyncio.gather(*asked)]
    assert others == [first, first]
    again = {"runId": run_id, "format": "JSONL", "idempotencyKey": "once", "limit": 2}
    assert (await office.refused(owner, ASK, input=again)).code == "CONFLICT"
    by_admin = await office.ask(admin, run_id, "CSV")
    assert by_admin["requestedBy"]["id"] == admin.id
    assert (await office.run(owner, ONE, id=by_admin["id"]))["format"] == "CSV"
    await office.ask(owner, run_id)
    refusal = await office.refused(owner, ASK, input={"runId": run_id, "format": "CSV"})
    assert refusal.code == "RATE_LIMIT_EXCEEDED"
    listed = await office.run(owner, LIST, filter={"runId": run_id, "formats": ["JSONL"], "statuses": ["QUEUED"]})
    assert (listed["totalCount"], listed["edges"][0]["node"]["run"]["id"]) == (2, run_id)
    for edge in (await office.run(owner, LIST, filter={"runId": run_id}))["edges"]:
        await office.run(owner, CANCEL, input={"id": edge["node"]["id"]})


async def test_items_of_a_run_are_filtered_page_by_page(office: Office, person: Person, run: str) -> None:
    async def titles(where: list[dict[str, Any]] | None = None, **page: Any) -> list[str]:
        filter = {"where": where or [], **page.pop("filter", {})}
        found = (await office.run(person, ITEMS, id=run, filter=filter, **page))["items"]
        assert found["totalCount"] >= len(found["edges"])
        return [edge["node"]["data"]["title"] for edge in found["edges"]]

    cheap = [{"field": "price", "op": "LT", "value": 200000}]
    assert await titles(cheap) == ["Piso Ñ", "日本"]
    assert await titles(cheap, last=1) == ["日本"]
    assert await titles([{"field": "price", "op": "EQ", "value": 199900}]) == ["Piso Ñ"]
    assert await titles([{"field": "price", "value": None}]) == ["Casa"]
    assert await titles([{"field": "address.city", "op": "STARTS_WITH", "value": "SEV"}]) == ["Piso Ñ", "Casa"]
    assert await titles([{"field": "tags", "op": "CONTAINS", "value": "sun"}]) == ["Piso Ñ"]
    assert await titles(filter={"search": "hyperlink"}) == ['=HYPERLINK("x")']
    assert await titles(filter={"scrapedTo": "2020-01-01T00:00:00Z"}) == []
    bad = await office.refused(person, ITEMS, id=run, filter={"where": [{"field": "a", "op": "LT"}]})
    assert bad.extensions["details"]["path"][-4:] == ["filter", "where", 0, "value"]


# -- with a worker: killed, stopped, broken


async def test_a_killed_worker_leaves_one_file_and_no_orphan(
    office: Office, person: Person, worker_factory: WorkerFactory, long_run: str, settings_env: dict[str, str]
) -> None:
    first = worker_factory()
    export = await office.ask(person, long_run, "XLSX")
    await at_work(office, person, export["id"])
    lost = f"exports/{uuid_in(export['id'])}/1/left-behind"
    await storage.current().put(lost, b"half of it", content_type="text/plain")
    await sweep_once(office.pool, storage.current())
    assert lost in await office.objects(), "its attempt may still be writing"
    first.kill()
    worker_factory()
    ended = await office.ended(person, export["id"])
    assert (ended["status"], ended["attempt"], ended["rowCount"]) == ("SUCCEEDED", 2, MANY)
    await sweep_once(office.pool, storage.current())
    mine = [key for key in await office.objects() if str(uuid_in(export["id"])) in key]
    assert mine == [f"exports/{uuid_in(export['id'])}/2/{ended['filename']}"]
    assert hashlib.sha256(await download(ended)).hexdigest() == ended["sha256"]
    folder = Path(settings_env["DATA_DIR"]) / "exports"
    assert [each.name for each in folder.iterdir()] == [], "working copies go, a killed worker's too"
    await office.run(person, DELETE, input={"id": export["id"]})
    assert not [key for key in await office.objects() if str(uuid_in(export["id"])) in key]


async def test_a_request_to_stop_ends_the_writer_within_seconds(
    office: Office, person: Person, worker: Program, long_run: str
) -> None:
    export = await office.ask(person, long_run, "XLSX")
    await at_work(office, person, export["id"])
    with pytest.raises(GraphQLFailure, match="CONFLICT"):
        await office.run(person, DELETE, input={"id": export["id"]})
    await office.run(person, CANCEL, input={"id": export["id"]})
    ended = await office.ended(person, export["id"], within=5)
    assert (ended["status"], ended["downloadUrl"], ended["rowCount"]) == ("CANCELLED", None, None)
    await eventually(lambda: leftover_processes("tasks.export.writer") == {}, 5)
    assert not [key for key in await office.objects() if str(uuid_in(export["id"])) in key]


async def test_a_writer_that_is_killed_fails_its_export_alone(
    office: Office, person: Person, worker: Program, run: str, long_run: str
) -> None:
    export = await office.ask(person, long_run, "XLSX")
    await at_work(office, person, export["id"])
    for process in writers(worker):
        process.kill()
    ended = await office.ended(person, export["id"])
    assert (ended["status"], ended["failure"]["code"]) == ("FAILED", "OUT_OF_MEMORY")
    assert len((await office.made(person, run)).splitlines()) == 4


async def test_a_file_that_is_too_large_fails_and_leaves_nothing(
    office: Office, person: Person, worker: Program
) -> None:
    run_id = await office.crawled(person, [{"text": "x" * 2**20, "list": list(range(100))}])
    failure = await office.failed(person, run_id, "CSV", unwind="list")
    assert failure["code"] == "OUTPUT_TOO_LARGE"
    assert "larger than exports may be" in failure["message"]


async def test_two_columns_of_one_name_and_too_many_columns_fail(
    office: Office, person: Person, worker: Program, run: str
) -> None:
    failure = await office.failed(person, run, "CSV", rename=[{"from": "title", "to": "price"}])
    assert (failure["code"], failure["retryable"]) == ("INVALID_INPUT", False)
    assert "'price'" in failure["message"]
    wide = await office.crawled(person, [{f"c{number}": 1 for number in range(10_000)}])
    failure = await office.failed(person, wide, "XLSX")
    assert (failure["code"], failure["stage"]) == ("OUTPUT_TOO_LARGE", "READING")
    table = await office.made(person, wide, "CSV", fields=["c9999", "c0"])
    assert table.decode("utf-8-sig") == '"c9999","c0"\r\n1,1\r\n'


# -- with a worker: what is made


async def test_every_format_has_all_values(office: Office, person: Person, worker: Program, run: str) -> None:
    lines = (await office.made(person, run)).splitlines()
    assert [orjson.loads(line) for line in lines] == HOMES
    columns = ["address.city", "address.zip", "price", "rooms", "sizes", "tags", "title"]
    text = (await office.made(person, run, "CSV")).decode("utf-8-sig")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == columns
    assert rows[1] == ["Cádiz", "", "250000", "", '[{"m":40},{"m":55}]', "", '\'=HYPERLINK("x")']
    assert [row[2] for row in rows] == ["199900.00", "250000", "", "99.5"]
    book = load_workbook(io.BytesIO(await office.made(person, run, "XLSX")))
    header, *rows = book.worksheets[0].iter_rows(values_only=True)
    assert (list(header), rows[1][-1]) == (columns, '=HYPERLINK("x")')
    assert book.worksheets[0]["G3"].data_type == "s"
    table = parquet.read_table(io.BytesIO(await office.made(person, run, "PARQUET")))
    assert table.column_names == columns
    assert table.column("price").to_pylist() == ["199900.00", "250000", None, "99.5"]
    assert table.column("tags").to_pylist() == [["new", "sun"], None, None, []]


async def test_all_options_work_together(office: Office, person: Person, worker: Program, run: str) -> None:
    export = await office.ask(
        person,
        run,
        "CSV",
        fields=["title", "sizes", "address"],
        omit=["address.zip"],
        rename=[{"from": "sizes.m", "to": "squareMetres"}],
        unwind="sizes",
        separator="_",
        filter={"where": [{"field": "address.city", "op": "EXISTS", "value": True}]},
        limit=3,
    )
    ended = await office.ended(person, export["id"])
    assert (ended["status"], ended["rowCount"], ended["progress"]) == ("SUCCEEDED", 3, 100)
    content = await download(ended)
    assert (ended["size"], ended["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert content.decode("utf-8-sig").splitlines() == [
        '"title","sizes","address_city","squareMetres"',
        '"Piso Ñ","","Sevilla",""',
        '"\'=HYPERLINK(""x"")","","Cádiz",40',
        '"\'=HYPERLINK(""x"")","","Cádiz",55',
    ]
    assert ended["options"]["separator"] == "_"
    assert any("3 rows of" in line for line in await office.messages(person, export["id"]))


async def test_an_empty_result_has_the_columns_that_the_spider_is_asked_for(
    office: Office, person: Person, worker: Program
) -> None:
    run_id = await office.crawled(person, HOMES)
    await office.pool.execute(
        "UPDATE job_runs SET input = $2::jsonb WHERE execution_id = $1",
        uuid_in(run_id),
        to_json(
            {
                "startUrls": ["https://a.example/"],
                "fields": [{"name": "title", "css": "h1"}, {"name": "cost", "css": "b"}],
            }
        ),
    )
    nothing = {"where": [{"field": "title", "value": "nothing has this"}]}
    table = (await office.made(person, run_id, "CSV", filter=nothing)).decode("utf-8-sig")
    assert table.startswith('"url","title","cost"')
    assert table.count("\n") == 1
    assert await office.made(person, run_id, "JSONL", filter=nothing) == b""


async def test_a_run_has_the_items_of_those_it_went_on_from_and_not_of_its_successor(
    office: Office, person: Person, worker: Program
) -> None:
    first = await office.crawled(person, [{"n": 1}])
    for _ in range(2):
        later = await office.desk.queued(person, dataset=uuid_in(first))
        number = await office.pool.fetchval("SELECT count(*) FROM items WHERE dataset_id = $1", uuid_in(first))
        await office.pool.execute(
            """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
               VALUES ($1, $2, $3::text, '', jsonb_build_object('n', $4::int), now())""",
            uuid_in(first), later, str(later), number + 1,
        )  # fmt: skip
        if number == 1:
            second = encode_id(Prefix.RUN, later)
    assert (await office.made(person, second)).splitlines() == [b'{"n":1}', b'{"n":2}'], "also while it waits"
    assert (await office.made(person, first)).splitlines() == [b'{"n":1}']


async def test_what_is_found_after_an_export_began_is_not_in_it(office: Office, person: Person) -> None:
    run_id = await office.crawled(person, [{"n": 1}, {"n": 2}])
    export = await office.ask(person, run_id)
    plan = await item_export_queries.plan(office.pool, uuid_in(export["id"]))
    assert plan is not None
    await office.pool.execute(
        """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
           VALUES ($1, $1, 'late', '', '{"n": 3}', now())""",
        uuid_in(run_id),
    )
    bounds = {"dataset_id": plan["dataset_id"], "run_id": plan["run_id"], "last": plan["last_item"]}
    page = await item_export_queries.items(office.pool, after=0, filter=EVERYTHING, **bounds)
    assert page["lines"] == b'{"n": 1}\n{"n": 2}'
    page = await item_export_queries.items(office.pool, after=page["last_id"], filter=EVERYTHING, **bounds)
    assert (page["looked_at"], page["lines"]) == (0, None), "the export ends although the run goes on"


async def test_items_larger_than_a_page_go_one_by_one(office: Office, person: Person, worker: Program) -> None:
    items = [{"n": number, "text": "y" * (3 * 2**20 if number % 3 == 0 else 10)} for number in range(12)]
    content = await office.made(person, await office.crawled(person, items))
    assert [orjson.loads(line)["n"] for line in content.splitlines()] == list(range(12))


async def test_a_lost_redis_delays_nothing_for_long(
    office: Office, person: Person, worker: Program, run: str, settings_env: dict[str, str]
) -> None:
    export = await office.ask(person, run)
    async with Redis.from_url(settings_env["REDIS_URL"]) as redis:
        async for key in redis.scan_iter(f"{settings_env['REDIS_NAMESPACE']}*"):
            await redis.delete(key)
    assert (await office.ended(person, export["id"], within=15))["status"] == "SUCCEEDED"


async def test_a_subscriber_sees_the_export_to_its_end(
    office: Office, person: Person, worker: Program, run: str, graphql_ws_url: str
) -> None:
    export = await office.ask(person, run, "PARQUET")
    document = "subscription ($id: ID!) { execution(id: $id) { __typename status ... on ItemExport { rowCount } } }"
    async with subscribe(graphql_ws_url, document, {"id": export["id"]}, token=person.token) as stream:
        states = [each["execution"] async for each in stream]
    assert states[-1] == {"__typename": "ItemExport", "status": "SUCCEEDED", "rowCount": 4}


# -- with a worker: kept and removed


async def test_a_file_is_kept_for_its_days_and_the_export_stays(
    office: Office, person: Person, worker: Program, run: str
) -> None:
    kept = await office.ended(person, (await office.ask(person, run))["id"])
    old = await office.ended(person, (await office.ask(person, run))["id"])
    days = await office.pool.fetchval(
        "SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM item_exports WHERE execution_id = $1",
        uuid_in(kept["id"]),
    )
    assert days == 7
    await office.pool.execute(
        "UPDATE item_exports SET expires_at = now() - interval '1 second' WHERE execution_id = $1", uuid_in(old["id"])
    )
    await sweep_once(office.pool, storage.current())
    found = await office.run(person, ONE, id=old["id"])
    assert (found["status"], found["downloadUrl"], found["rowCount"]) == ("SUCCEEDED", None, 4)
    held = " ".join(await office.objects())
    assert str(uuid_in(kept["id"])) in held
    assert str(uuid_in(old["id"])) not in held


async def test_deleting_a_job_waits_for_its_exports_and_takes_them_along(
    office: Office, client: GraphQLClient, worker: Program
) -> None:
    owner = await new_user(client)
    job = await office.desk.job(owner)
    run_id = await office.crawled(owner, HOMES, job=job)
    made = await office.ended(owner, (await office.ask(owner, run_id))["id"])
    waiting = encode_id(Prefix.EXPORT, await _held_export(office, owner, run_id))
    job_id = encode_id(Prefix.JOB, job)
    assert (await office.refused(owner, DELETE_JOB, input={"id": job_id})).code == "CONFLICT"
    await office.pool.execute(
        "UPDATE executions SET status = 'CANCELLED', finished_at = now() WHERE id = $1", uuid_in(waiting)
    )
    await office.run(owner, DELETE_JOB, input={"id": job_id})
    left = await office.pool.fetchval("SELECT count(*) FROM executions WHERE owner_id = $1", uuid_of(owner))
    assert left == 0
    await eventually(lambda: _gone(office, made["id"]), 5)


async def _held_export(office: Office, owner: Person, run_id: str) -> UUID:
    """An export that waits for a worker of another kind."""
    held = new_id()
    await office.pool.execute(
        """INSERT INTO executions (id, kind, owner_id, status, progress, attempt, lost_workers, max_attempts,
               timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
           VALUES ($1, 'HELD', $2, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0)""",
        held,
        uuid_of(owner),
    )
    await office.pool.execute(
        """INSERT INTO item_exports (execution_id, run_id, format, options, filename, content_type)
           VALUES ($1, $2, 'CSV', '{}', 'a.csv', 'text/csv')""",
        held,
        uuid_in(run_id),
    )
    return held


async def _gone(office: Office, export_id: str) -> bool:
    return not [key for key in await office.objects() if str(uuid_in(export_id)) in key]


async def test_an_account_goes_with_its_exports(office: Office, client: GraphQLClient, worker: Program) -> None:
    owner = await new_user(client)
    made = await office.ended(owner, (await office.ask(owner, await office.crawled(owner, HOMES)))["id"])
    stray = f"exports/{uuid_in(made['id'])}/9/stray"
    await storage.current().put(stray, b"x", content_type="text/plain")
    await office.pool.execute("UPDATE users SET is_active = false, deleted_at = now() WHERE id = $1", uuid_of(owner))
    for _ in range(20):
        try:
            await purge(storage.current(), office.pool, {"userId": str(uuid_of(owner))})
            break
        except NotYet:
            continue
    assert await _gone(office, made["id"])
    assert (
        await office.pool.fetchval("SELECT count(*) FROM item_exports WHERE execution_id = $1", uuid_in(made["id"]))
        == 0
    )
