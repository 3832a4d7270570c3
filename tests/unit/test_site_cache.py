"""What a process remembers of sites is bounded, fetched once, and never older than it may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from adapters import events, storage
from adapters.storage import ObjectNotFound, Storage, StorageUnavailable
from models.events import SiteChanged
from schema import site_cache
from schema.site_answers import SiteAnswer
from schema.site_cache import SMALL_BODY_BYTES, SiteCache, SitesUnavailable
from schema.site_requests import Host, HostKind, HostNames
from tests.harness.sites import SiteDesk, open_site_desk
from tests.harness.waiting import eventually


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteDesk]:
    async with open_site_desk(settings_env, tmp_path_factory.mktemp("outputs")) as opened:
        yield opened


class CountingStorage:
    """The real storage; counts what is read, and holds reading back while `gate` is closed."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self.reads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get(self, key: str, **options: Any) -> AsyncGenerator[bytes, None]:
        self.reads.append(key)
        await self.gate.wait()
        async for chunk in self._inner.get(key, **options):
            yield chunk


@asynccontextmanager
async def opened_cache(*, body_bytes: int = 2**20) -> AsyncIterator[tuple[SiteCache, CountingStorage]]:
    counting = CountingStorage(storage.current())
    cache = SiteCache(storage=lambda: counting, body_bytes=body_bytes)
    async with cache.opened(events.hub()):
        yield cache, counting


# -- contents


async def test_bodies_take_no_more_room_than_they_may(desk: SiteDesk) -> None:
    for number in range(6):
        await storage.current().put(f"bodies/{number}", bytes(400), content_type="text/plain")
    async with opened_cache(body_bytes=1_000) as (cache, counting):
        for number in (0, 1, 0, 2, 3):
            await cache.load_body(f"bodies/{number}", 400)
        assert counting.reads == [f"bodies/{number}" for number in (0, 1, 2, 3)]
        assert [number for number in range(6) if cache.body(f"bodies/{number}")] == [2, 3]
        assert not cache.is_kept(1_001)
    assert not SiteCache(storage=storage.current, body_bytes=2**30).is_kept(SMALL_BODY_BYTES + 1)
    assert not SiteCache(storage=storage.current, body_bytes=0).is_kept(1)


async def test_what_many_want_is_read_once_and_survives_who_leaves(desk: SiteDesk) -> None:
    await storage.current().put("once", b"content", content_type="text/plain")
    async with opened_cache() as (cache, counting):
        counting.gate.clear()
        waiting = [asyncio.create_task(cache.load_body("once", 7)) for _ in range(10)]
        await eventually(lambda: counting.reads)
        waiting[0].cancel()
        counting.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [b"content"] * 9
    assert counting.reads == ["once"]


async def test_content_that_is_missing_or_cut_short_is_not_remembered(desk: SiteDesk) -> None:
    await storage.current().put("short", b"content", content_type="text/plain")
    async with opened_cache() as (cache, _):
        with pytest.raises(ObjectNotFound):
            await cache.load_body("missing", 7)
        with pytest.raises(SitesUnavailable):
            await cache.load_body("short", 8)
        assert cache.body("short") is None


async def test_manifests_are_bounded_by_what_they_hold(desk: SiteDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_cache, "MANIFEST_ENTRIES", 10)
    project = await desk.project()
    deployments = [
        await desk.deploy(project, {f"{number}.txt": "x" for number in range(count)}) for count in (3, 3, 3, 40)
    ]
    async with opened_cache() as (cache, _):
        for deployment in deployments[:2]:
            assert await cache.load(deployment.id) is not None
        assert cache.loaded(deployments[0].id) is not None  # used last
        await cache.load(deployments[2].id)
        assert [cache.loaded(deployment.id) is not None for deployment in deployments[:3]] == [True, False, True]
        await cache.load(deployments[3].id)
        assert [cache.loaded(deployment.id) is not None for deployment in deployments] == [False, False, False, True]


# -- labels


async def test_a_question_begun_before_a_change_does_not_answer_after_it(desk: SiteDesk) -> None:
    project = await desk.project()
    first = await desk.deploy(project, {"index.html": "1"})
    second = await desk.deploy(project, {"index.html": "2"}, alias=None)
    async with opened_cache() as (cache, _), desk.pool.acquire() as connection:
        await cache.target(project.slug)
        cache.note_change(SiteChanged(project.id))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE site_aliases IN ACCESS EXCLUSIVE MODE")
        before = asyncio.create_task(cache.target(project.slug))  # its question waits for the lock
        await eventually(lambda: _waiters(desk))
        began = monotonic()
        after = asyncio.create_task(cache.target(project.slug, asked_after=began))
        await connection.execute(
            "UPDATE site_aliases SET deployment_id = $2 WHERE project_id = $1", project.id, second.id
        )
        cache.note_change(SiteChanged(project.id))
        await transaction.commit()
        assert {(await before).deployment_id} <= {first.id, second.id}  # type: ignore[union-attr] # it leads somewhere
        found = await after
        assert found is not None
        assert found.deployment_id == second.id
        assert cache.fresh_target(project.slug) == found  # the later question's answer is kept


async def _waiters(desk: SiteDesk) -> bool:
    return bool(
        await desk.pool.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'site_aliases'::regclass"
        )
    )


async def test_the_answer_to_a_question_overtaken_by_a_change_is_not_kept(desk: SiteDesk) -> None:
    project = await desk.project()
    await desk.deploy(project, {"index.html": "1"})
    async with opened_cache() as (cache, _), desk.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE site_aliases IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(cache.target(project.slug))
            await eventually(lambda: _waiters(desk))
            cache.note_change(SiteChanged(project.id))
        assert await asking is not None
        assert cache.fresh_target(project.slug) is None


async def test_labels_are_bounded(desk: SiteDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_cache, "LABELS", 3)
    projects = [await desk.project() for _ in range(5)]
    for project in projects:
        await desk.deploy(project, {"index.html": "x"})
    async with opened_cache() as (cache, _):
        for project in projects:
            await cache.target(project.slug)
        assert [cache.fresh_target(project.slug) is not None for project in projects] == [False] * 2 + [True] * 3


# -- who answers for a name


@pytest.mark.parametrize(
    ("host", "kind", "label"),
    [
        (b"api.example.com", HostKind.API, ""),
        (b"API.Example.com:443", HostKind.API, ""),
        (b"shop.example.com", HostKind.SITE, "shop"),
        (b"a.b.example.com", HostKind.SITE, "a.b"),
        (b"example.com", HostKind.SITE, ""),
        (b"example.com.", HostKind.SITE, ""),
        (b"10.0.0.7:8000", HostKind.API, ""),
        (b"[::1]:8000", HostKind.API, ""),
        (b"notexample.com", HostKind.API, ""),
        (b"shop.example.com.evil.test", HostKind.API, ""),
        (b"a@shop.example.com", HostKind.BAD, ""),
    ],
)
def test_in_production_the_sites_domain_is_the_sites_alone(host: bytes, kind: HostKind, label: str) -> None:
    names = HostNames(api="api.example.com", sites="example.com", is_production=True)
    assert names.read(host) == Host(kind, label)


# -- streams that stand still


async def never() -> Any:
    await asyncio.Event().wait()


async def chunks(count: int, *, then_stall: bool = False) -> AsyncGenerator[bytes, None]:
    for _ in range(count):
        yield b"x"
    if then_stall:
        await asyncio.Event().wait()


async def test_a_client_that_takes_nothing_is_left() -> None:
    sent: list[Any] = []

    async def stalling(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    answer = SiteAnswer({"method": "GET", "path": "/"}, stalling, stalled_seconds=0.05)
    with pytest.raises(TimeoutError):
        await answer.stream(200, [], chunks(10), never)
    assert len(sent) == 3


async def test_a_store_that_stands_still_is_left() -> None:
    sent: list[Any] = []

    async def taking(message: Any) -> None:
        sent.append(message)

    answer = SiteAnswer({"method": "GET", "path": "/"}, taking, stalled_seconds=0.05)
    with pytest.raises(TimeoutError):
        await answer.stream(200, [], chunks(2, then_stall=True), never)
    assert answer.is_started
    untouched = SiteAnswer({"method": "GET", "path": "/"}, taking, stalled_seconds=0.05)
    with pytest.raises(StorageUnavailable):
        await untouched.stream(200, [], chunks(0, then_stall=True), never)
    assert not untouched.is_started


async def test_reading_ends_when_the_client_leaves() -> None:
    given = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal given
        while True:
            given += 1
            await asyncio.sleep(0)
            yield b"x"

    async def left() -> Any:
        return {"type": "http.disconnect"}

    async def taking(message: Any) -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(2):
        await SiteAnswer({"method": "GET", "path": "/"}, taking).stream(200, [], endless(), left)
    assert given < 10
