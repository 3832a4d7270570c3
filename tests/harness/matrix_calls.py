"""Callers and calls of the authorization matrix: who asks, what is answered, and what was changed by asking.

Answers are compared without what differs from call to call: the request's id and the id that was asked for. A
fingerprint covers all tables and all keys in Redis that are queued work; what is noted of every call is left out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from redis.asyncio import Redis

from tests.harness.client import GraphQLClient, StreamClosed, bearer, open_socket
from tests.harness.matrix_documents import RootField, SentFile

CONCURRENCY: Final = 8
REFUSALS: Final = frozenset({"UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND"})

_NOTED: Final[Mapping[str, tuple[str, ...]]] = {
    "access_tokens": ("last_used_at", "last_used_ip"),
    "sessions": ("last_used_at",),
}
"""Columns that any call may touch."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks; `token` None is nobody."""

    name: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A field asked by a caller. `about` says what is tried, `probe` is the id that the answer is compared without."""

    caller: Caller
    field: RootField
    variables: Mapping[str, Any]
    about: str = ""
    probe: str | None = None
    selection: str = ""

    @property
    def document(self) -> str:
        """The operation."""
        return self.field.document(self.variables.keys(), self.selection)

    def __str__(self) -> str:
        return f"{self.field.key} as {self.caller.name}{f' ({self.about})' if self.about else ''}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the codes of errors, `it`, and all of it as text that can be compared."""

    codes: frozenset[str]
    it: Any
    text: str

    @property
    def is_refused(self) -> bool:
        """Whether somebody was told to stay out."""
        return bool(self.codes & REFUSALS)

    def __str__(self) -> str:
        return self.text[:300]


async def ask(client: GraphQLClient, call: Call) -> Answer:
    """Make a call: queries and mutations over HTTP, subscriptions on a WebSocket up to their first message."""
    if call.field.root == "Subscription":
        return await _first_message(client, call)
    files: list[tuple[str, SentFile]] = []
    variables = _without_files("variables", dict(call.variables), files)
    if files:
        return _answer(await _send_form(client, call, variables, files), call)
    answer = await client.raw(call.document, variables, token=call.caller.token)
    return _answer(answer.json(), call)


def _without_files(path: str, value: Any, files: list[tuple[str, SentFile]]) -> Any:
    """The value with null in the place of each file, which is added to `files` with its path."""
    if isinstance(value, SentFile):
        files.append((path, value))
        return None
    if isinstance(value, Mapping):
        return {key: _without_files(f"{path}.{key}", each, files) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_files(f"{path}.{place}", each, files) for place, each in enumerate(value)]
    return value


async def _send_form(
    client: GraphQLClient, call: Call, variables: Mapping[str, Any], files: Sequence[tuple[str, SentFile]]
) -> dict[str, Any]:
    """The answer to an operation with files."""
    places = {str(number): [path] for number, (path, _) in enumerate(files)}
    operations = {"query": call.document, "variables": variables}
    parts: list[tuple[str, Any]] = [("operations", (None, json.dumps(operations))), ("map", (None, json.dumps(places)))]
    parts += [(str(number), (file.name, file.content, file.content_type)) for number, (_, file) in enumerate(files)]
    headers = {**bearer(call.caller.token), "GraphQL-Preflight": "1"}
    answer: dict[str, Any] = (await client.http.post(client.url, files=parts, headers=headers)).json()
    return answer


async def ask_all(client: GraphQLClient, calls: Sequence[Call]) -> list[Answer]:
    """Make calls, a few at a time; their answers in order."""
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(call: Call) -> Answer:
        async with places:
            return await ask(client, call)

    return list(await asyncio.gather(*(one(call) for call in calls)))


async def _first_message(client: GraphQLClient, call: Call) -> Answer:
    """The first event or error of a subscription; a socket that is refused is UNAUTHORIZED."""
    try:
        async with open_socket(client.url.replace("http", "ws", 1), token=call.caller.token) as socket:
            await socket.start(call.document, call.variables)
            message = await socket.receive()
    except StreamClosed as closed:
        code = "UNAUTHORIZED" if closed.code == 4401 else f"CLOSED_{closed.code}"
        return Answer(frozenset({code}), None, code)
    match message["type"]:
        case "next":
            return _answer(message["payload"], call)
        case "error":
            return _answer({"data": None, "errors": message["payload"]}, call)
        case other:
            raise AssertionError(f"{call}: {other}")


def _answer(body: dict[str, Any], call: Call) -> Answer:
    errors = body.get("errors") or []
    for error in errors:
        error.get("extensions", {}).pop("requestId", None)
    text = json.dumps(body, sort_keys=True)
    if call.probe:
        text = text.replace(json.dumps(call.probe), '"<id>"').replace(call.probe, "<id>")
    codes = frozenset(str(error.get("extensions", {}).get("code")) for error in errors)
    return Answer(codes, (body.get("data") or {}).get("it"), text)


# -- what asking has changed


class Witness:
    """Looks at everything that a call can change."""

    def __init__(self, client: GraphQLClient, db: asyncpg.Pool, redis: Redis, namespace: str) -> None:
        self.client = client
        self._db = db
        self._redis = redis
        self._namespace = namespace

    async def refused(self, calls: Sequence[Call]) -> list[Answer]:
        """The answers to calls that change and queue nothing; AssertionError that names those which do."""
        before = await self._state()
        answers = await ask_all(self.client, calls)
        after = await self._state()
        if after == before:
            return answers
        changed = sorted(key for key in after if after[key] != before.get(key))
        # What can be done once only is not done again by asking again: then whoever was let in is suspected.
        let_in = [f"{call} was let in" for call, answer in zip(calls, answers, strict=True) if not answer.is_refused]
        guilty = []
        for call in calls:
            before = await self._state()
            await ask(self.client, call)
            after = await self._state()
            if after != before:
                guilty.append(f"{call} changed {sorted(key for key in after if after[key] != before.get(key))}")
        raise AssertionError(
            f"{changed} changed, where nothing was to:\n" + "\n".join(guilty or let_in or map(str, calls))
        )

    async def _state(self) -> dict[str, Any]:
        async with self._db.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            tables = [
                each["relname"]
                for each in await connection.fetch(
                    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                )
                if each["relname"] != "processes"  # heartbeats, which come by themselves
            ]
            query = " UNION ALL ".join(_hash_of(table) for table in sorted(tables))
            rows: dict[str, Any] = {each["name"]: each["state"] for each in await connection.fetch(query)}
        return {**rows, "redis": await self._queued()}

    async def _queued(self) -> dict[str, Any]:
        """Every key but those of limits, and what waits in queues; no worker runs, so nothing leaves them."""
        keys = [key async for key in self._redis.scan_iter(match=f"*{self._namespace}*", count=1_000)]
        kept = sorted(key for key in keys if b":limit" not in key)
        queues = [key for key in kept if b":queue:" in key]
        return {"keys": kept, "queues": [await self._redis.zrange(key, 0, -1) for key in queues]}


def _hash_of(table: str) -> str:
    """The state of a table in one text. Of the audit trail only acts that succeeded count: refusals may be in it."""
    noted = "".join(f" - '{column}'" for column in _NOTED.get(table, ()))
    where = "WHERE outcome = 'success'" if table == "audit_events" else ""
    return (
        f"SELECT '{table}' AS name, count(*) || coalesce(md5(string_agg(row, '' ORDER BY row)), '') AS state"
        f' FROM (SELECT md5((to_jsonb(t){noted})::text) AS row FROM "{table}" t {where}) rows'
    )


def strangers(answers: Iterable[tuple[Call, Answer]], expected: frozenset[str]) -> list[str]:
    """Calls that were not refused with one of these codes and nothing else."""
    return [
        f"{call}: {answer}" for call, answer in answers if not answer.codes or not answer.codes <= expected or answer.it
    ]
