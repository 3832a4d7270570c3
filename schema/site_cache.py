"""What the process remembers of sites, so that most requests ask nobody: where labels lead, manifests, small files.

Invariants: where a label leads was asked no longer ago than FRESH_SECONDS, or the database is away; an event makes it
be asked at once. A question that began before an event or before a request never answers for what came after. Manifests
and contents never change under their keys, so they only have to be forgotten: each store is bounded and drops what was
used longest ago. What many ask for at once is fetched once; a visitor who leaves does not end the fetching for others.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import structlog

from adapters import metrics
from adapters.cancellation import end
from adapters.events import Hub
from adapters.storage import Storage, StorageUnavailable
from errors import ServiceUnavailable
from models import site_queries
from models.database import is_outage
from models.events import SiteChanged
from models.ids import Prefix, encode_id
from models.site_paths import read_label
from models.site_queries import Manifest, SiteFile, SiteTarget
from models.site_rules import Router

FRESH_SECONDS: Final = 1.0
LOOKUP_SECONDS: Final = 5.0
STALE_LOOKUP_SECONDS: Final = 1.0
"""How long to wait for the database while there is an older answer to give."""

LABELS: Final = 10_000
MANIFEST_ENTRIES: Final = 100_000
"""Files and rules of all remembered manifests together: some 40 MiB. The last used one stays, whatever its size."""

EARLIER_ANSWERS: Final = 4_096
EARLIER_SECONDS: Final = 5.0
SMALL_BODY_BYTES: Final = 256 * 2**10
"""Larger files are streamed, so that a request holds no more than this, whatever is asked for."""

BODY_SECONDS: Final = 10.0
_FETCHES_AT_ONCE: Final = 16
_QUERIES_AT_ONCE: Final = 4

_log = structlog.get_logger("switchyard.sites")
_T = TypeVar("_T")


class SitesUnavailable(Exception):
    """Database or storage do not answer, and nothing is remembered."""


@dataclass(slots=True)
class Loaded:
    """A manifest, ready to be served from. `prepared` holds answers that were put together before."""

    manifest: Manifest
    router: Router
    name: bytes
    prepared: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """How much room it takes, in entries."""
        return len(self.manifest.files) + len(self.manifest.rules.redirects) + len(self.manifest.rules.headers) + 1


@dataclass(slots=True)
class _Known:
    """Where a label leads, and when that was asked."""

    target: SiteTarget | None
    asked_at: float
    spared_until: float = -math.inf
    """While the database is away it is not asked again before this."""


@dataclass(slots=True)
class _Question:
    """A lookup under way."""

    task: asyncio.Task[SiteTarget | None]
    asked_at: float


class SiteCache:
    """The memory of one process. Use it inside `opened`."""

    def __init__(self, *, storage: Callable[[], Storage], body_bytes: int) -> None:
        self._storage = storage
        self._labels: OrderedDict[str, _Known] = OrderedDict()
        self._questions: dict[str, _Question] = {}
        self._changed_at = -math.inf
        self._manifests: OrderedDict[UUID, Loaded] = OrderedDict()
        self._manifest_entries = 0
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._body_bytes = 0
        self._max_body_bytes = body_bytes
        self._earlier: OrderedDict[Hashable, tuple[float, tuple[UUID, SiteFile] | None]] = OrderedDict()
        self._manifest_fetches: _Fetches[UUID, Loaded | None] = _Fetches(_QUERIES_AT_ONCE)
        self._body_fetches: _Fetches[str, bytes] = _Fetches(_FETCHES_AT_ONCE)
        self._queries = asyncio.Semaphore(_QUERIES_AT_ONCE)

    @asynccontextmanager
    async def opened(self, hub: Hub) -> AsyncIterator[None]:
        """Hear of changes for as long as the context lasts; nothing is fetched any more when it ends."""
        with hub.listen(SiteChanged, self.note_change):
            try:
                yield
            finally:
                questions = [question.task for question in self._questions.values()]
                await end(*questions, *self._manifest_fetches.tasks(), *self._body_fetches.tasks())

    def note_change(self, event: SiteChanged) -> None:
        """Ask anew for whatever leads to this project."""
        self._changed_at = monotonic()
        for known in self._labels.values():
            if known.target is None or known.target.project_id == event.project_id:
                known.asked_at = -math.inf

    # -- labels

    def fresh_target(self, label: str) -> SiteTarget | None:
        """Where a label leads if that was asked just now; None also when it has to be asked."""
        known = self._labels.get(label)
        return known.target if known is not None and known.asked_at > monotonic() - FRESH_SECONDS else None

    async def target(self, label: str, *, asked_after: float | None = None) -> SiteTarget | None:
        """Where a label leads, None when nowhere; `asked_after` (monotonic) refuses answers to older questions.

        With the database away an older answer holds. Raises SitesUnavailable when there is none.
        """
        known = self._labels.get(label)
        needed = monotonic() - FRESH_SECONDS if asked_after is None else asked_after
        if known is not None and (known.asked_at >= needed or known.spared_until > monotonic()):
            return known.target
        needed = max(needed, self._changed_at)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS if known is None else STALE_LOOKUP_SECONDS):
                return await self._ask(label, needed)
        except Exception as error:
            if not (isinstance(error, ServiceUnavailable) or is_outage(error)):
                raise
            if known is None:
                raise SitesUnavailable from error
            _log.warning("site_label_not_checked", label=label, error=repr(error))
            known.spared_until = monotonic() + FRESH_SECONDS
            return known.target

    async def _ask(self, label: str, needed: float) -> SiteTarget | None:
        while True:
            question = self._questions.get(label)
            if question is None:
                task = asyncio.create_task(self._look_up(label, monotonic()), name=f"site {label}")
                task.add_done_callback(_heed)
                question = self._questions[label] = _Question(task, monotonic())
            try:
                target = await asyncio.shield(question.task)
            except Exception:
                if question.asked_at >= needed:
                    raise
                continue
            if question.asked_at >= needed:
                return target

    async def _look_up(self, label: str, asked_at: float) -> SiteTarget | None:
        try:
            reading = read_label(label)
            async with self._queries:
                target = None if reading is None else await site_queries.site_of_label(reading)
            # What changed while we asked may not be in the answer: it serves who asked, and nobody after that.
            self._labels[label] = _Known(target, asked_at if asked_at > self._changed_at else -math.inf)
            self._labels.move_to_end(label)
            while len(self._labels) > LABELS:
                self._labels.popitem(last=False)
            return target
        finally:
            del self._questions[label]

    # -- manifests

    def loaded(self, deployment_id: UUID) -> Loaded | None:
        """What a deployment serves, if it is remembered."""
        found = self._manifests.get(deployment_id)
        if found is not None:
            self._manifests.move_to_end(deployment_id)
        return found

    async def load(self, deployment_id: UUID) -> Loaded | None:
        """What a deployment serves, None when it is gone. Raises SitesUnavailable."""
        return self.loaded(deployment_id) or await _available(
            self._manifest_fetches.get(deployment_id, lambda: self._load(deployment_id)), LOOKUP_SECONDS
        )

    def forget(self, deployment_id: UUID) -> None:
        """Drop a manifest: content that it names is gone."""
        found = self._manifests.pop(deployment_id, None)
        if found is not None:
            self._manifest_entries -= found.weight

    async def _load(self, deployment_id: UUID) -> Loaded | None:
        manifest = await site_queries.manifest(deployment_id)
        if manifest is None:
            return None
        loaded = Loaded(manifest, Router(manifest.rules), encode_id(Prefix.DEPLOYMENT, deployment_id).encode())
        self._manifests[deployment_id] = loaded
        self._manifest_entries += loaded.weight
        while self._manifest_entries > MANIFEST_ENTRIES and len(self._manifests) > 1:
            self.forget(next(iter(self._manifests)))
        return loaded

    async def earlier_file(self, target: SiteTarget, path: str) -> tuple[UUID, SiteFile] | None:
        """The file that the latest of the earlier deployments has under this path. Raises SitesUnavailable."""
        key = (target.deployment_id, target.earlier, path)
        known = self._earlier.get(key)
        if known is not None and known[0] > monotonic():
            return known[1]

        async def ask() -> tuple[UUID, SiteFile] | None:
            async with self._queries:
                return await site_queries.earlier_file(target.earlier, path)

        found = await _available(ask(), LOOKUP_SECONDS)
        self._earlier[key] = (monotonic() + EARLIER_SECONDS, found)
        self._earlier.move_to_end(key)
        while len(self._earlier) > EARLIER_ANSWERS:
            self._earlier.popitem(last=False)
        return found

    # -- contents

    def is_kept(self, size: int) -> bool:
        """Whether content of this size is held in memory rather than streamed."""
        return size <= min(SMALL_BODY_BYTES, self._max_body_bytes)

    def body(self, object_key: str) -> bytes | None:
        """Content that is remembered."""
        found = self._bodies.get(object_key)
        if found is not None:
            self._bodies.move_to_end(object_key)
            metrics.current().count_lookup("site_files", True)
        return found

    async def load_body(self, object_key: str, size: int) -> bytes:
        """Small content, whole. Raises SitesUnavailable, and ObjectNotFound when it is gone."""
        found = self.body(object_key)
        if found is None:
            metrics.current().count_lookup("site_files", False)
            fetch = self._body_fetches.get(object_key, lambda: self._read(object_key, size))
            found = await _available(fetch, BODY_SECONDS)
        return found

    async def _read(self, object_key: str, size: int) -> bytes:
        gathered = bytearray()
        async with asyncio.timeout(BODY_SECONDS), aclosing(self._storage().get(object_key)) as chunks:
            async for chunk in chunks:
                gathered += chunk
        if len(gathered) != size:
            raise StorageUnavailable("The content of this file is not as long as its row says.")
        body = bytes(gathered)
        self._bodies[object_key] = body
        self._body_bytes += size
        while self._body_bytes > self._max_body_bytes:
            self._body_bytes -= len(self._bodies.popitem(last=False)[1])
        return body


_Key = TypeVar("_Key", bound=Hashable)


class _Fetches(Generic[_Key, _T]):
    """Fetches under way, one per key and a bounded number at once; they belong to the cache, not to who waits."""

    def __init__(self, at_once: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._running: dict[_Key, asyncio.Task[_T]] = {}

    async def get(self, key: _Key, fetch: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `fetch`, or of the one that runs for this key already."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._run(key, fetch))
            task.add_done_callback(_heed)
        return await asyncio.shield(task)

    def tasks(self) -> list[asyncio.Task[_T]]:
        """What runs now."""
        return list(self._running.values())

    async def _run(self, key: _Key, fetch: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with self._places:
                return await fetch()
        finally:
            del self._running[key]


def _heed(task: asyncio.Task[Any]) -> None:
    # Everybody who waited may have left: then nobody is told of a failure, which is no failure of ours.
    if not task.cancelled():
        task.exception()


async def _available(work: Awaitable[_T], timeout_seconds: float) -> _T:
    """The result of a question to database or storage; raises SitesUnavailable in place of their outages."""
    try:
        async with asyncio.timeout(timeout_seconds):
            return await work
    except Exception as error:
        if isinstance(error, ServiceUnavailable) or is_outage(error):
            raise SitesUnavailable from error
        raise
