"""What the worker and a crawler process say to each other: JSON lines, one message per line, over two pipes.

Both sides import this module, so a name or a default exists once; it knows nothing of Scrapy or of the database.

The worker owns the frontier (which requests exist, which are leased, which are done); the crawler owns nothing that
would be missed if it died. Hence the one rule everything else follows from: **whatever a page produced travels in one
message**, which the worker stores in one transaction together with the acknowledgement of the request.

Worker → crawler
    start     once, first; see `Start`
    requests  {requests: [LeasedRequest]}: never more in all than the crawler has asked for with `want`
    idle      nothing is waiting and nothing is leased: finish
    stop      {reason}: finish the pages being fetched, take no new ones, close with that reason

Crawler → worker
    ready     {version}: the pipes are open
    seed      {requests: [NewRequest]}: where the crawl begins; not sent when `Start.resume`
    want      {count}: room for so many more requests
    page      {requestId, url, fingerprint, status, bytes, milliseconds, items, rejected, requests, errors, complete,
              hosts}
    failed    {requestId, url, reason, detail, status, redirectedFrom, hosts}: the request ended without a page
    log       {level, message, time, stage}
    stats     counters of this process (not of earlier attempts), every second and at the end
    closed    {reason, detail, path, hosts}: always last; a process that ends without it was lost

Notes for the worker:
- `items` are `{key, data}`. The key is derived from the page that answered (after redirects), the callback and the
  position, so unique (run, key) with "on conflict do nothing" gives every item exactly once, whatever is repeated.
- `rejected` are `{key, data, faults}`: items that do not fit the spider's output for this input.
- `hosts` is what hosts were asked for since the last message that had it, by host: counts under the names of
  `counters.HostCount` and `counters.Drop`.
- `complete: false` means that the item limit cut the page short: store the items, leave the request unacknowledged.
- A request that is leased and neither answered by `page` nor by `failed` goes back to waiting when the process ends.
- Closing the crawler's standard input makes it die at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar

import orjson

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Dataclass = TypeVar("_Dataclass", bound="DataclassInstance")

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 8 * 2**20
"""No line is longer, in either direction; a page that produced more is reported as OUTPUT_TOO_LARGE."""


class ProtocolError(Exception):
    """A line is not a message of this protocol."""


class MessageType(StrEnum):
    """Every message's `type`."""

    START = "start"
    REQUESTS = "requests"
    IDLE = "idle"
    STOP = "stop"
    READY = "ready"
    SEED = "seed"
    WANT = "want"
    PAGE = "page"
    FAILED = "failed"
    LOG = "log"
    STATS = "stats"
    CLOSED = "closed"


class FailureReason(StrEnum):
    """Why a request ended without a page."""

    ROBOTS = "ROBOTS"
    """robots.txt disallows it, or robots.txt itself answered 5xx (RFC 9309 §2.3.1.4)."""
    BLOCKED_URL = "BLOCKED_URL"
    """The address guard refused it: the URL, a redirect's target or what its name resolves to."""
    OFF_SITE = "OFF_SITE"
    """A redirect left the hosts that the input allows."""
    HTTP_STATUS = "HTTP_STATUS"
    """The server answered, but not with 2xx, retries included."""
    TIMEOUT = "TIMEOUT"
    DNS = "DNS"
    CONNECTION = "CONNECTION"
    TLS = "TLS"
    REDIRECTS = "REDIRECTS"
    """Too many redirects, or a loop of them."""
    TOO_LARGE = "TOO_LARGE"
    """The response is larger than the download limit, compressed or not."""
    UNSUPPORTED_CONTENT = "UNSUPPORTED_CONTENT"
    """Not text: nothing to select from."""
    OUTPUT_TOO_LARGE = "OUTPUT_TOO_LARGE"
    """What the page produced does not fit into one message."""
    INTERNAL = "INTERNAL"


class CloseReason(StrEnum):
    """Why a crawl ended. `stop` may give any other word, which is echoed (TIME_LIMIT, STOPPED_BY_USER, …)."""

    FINISHED = "FINISHED"
    STOPPED = "STOPPED"
    PAGE_LIMIT = "PAGE_LIMIT"
    ITEM_LIMIT = "ITEM_LIMIT"
    BYTE_LIMIT = "BYTE_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    START_ERROR = "START_ERROR"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one run, earlier attempts included (see `Totals`); None means no bound."""

    max_pages: int | None = None
    max_items: int | None = None
    max_depth: int | None = None
    max_bytes: int | None = None
    memory_megabytes: int | None = None
    page_seconds: float = 5.0
    """Longest extraction of one page; bounds regular expressions that never end."""


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """How politely to fetch. The delays are Scrapy's AutoThrottle's, per host."""

    concurrency: int = 16
    concurrency_per_host: int = 8
    start_delay_seconds: float = 0.5
    min_delay_seconds: float = 0.0
    max_delay_seconds: float = 30.0
    target_concurrency: float = 2.0
    retries: int = 3
    max_retry_after_seconds: float = 120.0
    """A server that asks for a longer pause gets none: the request fails with its status."""
    timeout_seconds: float = 30.0
    max_response_bytes: int = 20 * 2**20


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What earlier attempts of the run already brought; counts towards the limits.

    `items` are those of acknowledged requests: a page that the item limit cut short is read again and counts then.
    """

    pages: int = 0
    items: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first message: everything a crawler needs to know. It holds no credentials."""

    run: str
    spider: str
    input: Mapping[str, Any]
    user_agent: str
    allowed_hosts: Sequence[str] = ()
    """host:port pairs that may be fetched although their address is not public."""
    ports: Sequence[int] = (80, 443)
    limits: Limits = field(default_factory=Limits)
    throttle: Throttle = field(default_factory=Throttle)
    totals: Totals = field(default_factory=Totals)
    obey_robots: bool = True
    resume: bool = False

    def to_message(self) -> dict[str, Any]:
        """The message to send."""
        return {"type": MessageType.START.value, "version": PROTOCOL_VERSION, **_to_json(self)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Read a `start` message; raises ProtocolError when it is not one of this version."""
        if message.get("type") != MessageType.START or message.get("version") != PROTOCOL_VERSION:
            raise ProtocolError(f"the first message must be start, version {PROTOCOL_VERSION}")
        return _from_json(
            cls,
            {
                **message,
                "limits": _from_json(Limits, message.get("limits", {})),
                "throttle": _from_json(Throttle, message.get("throttle", {})),
                "totals": _from_json(Totals, message.get("totals", {})),
            },
        )


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """A request that a page led to; the worker adds it to the frontier unless its fingerprint is known."""

    url: str
    fingerprint: str
    callback: str
    depth: int = 0
    method: str = "GET"
    priority: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        """Its JSON form, an element of `requests`."""
        return _to_json(self)


@dataclass(frozen=True, kw_only=True)
class LeasedRequest:
    """A request handed to the crawler; `id` is the worker's and comes back in `page` or `failed`."""

    id: str
    url: str
    callback: str
    depth: int = 0
    method: str = "GET"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_message(self) -> dict[str, Any]:
        """Its JSON form, an element of `requests`."""
        return _to_json(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Read an element of a `requests` message; raises ProtocolError on a faulty one."""
        return _from_json(cls, message)


def encode(message: Mapping[str, Any]) -> bytes:
    """One line; raises ProtocolError when it cannot be JSON or is longer than MAX_LINE_BYTES."""
    try:
        line = orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        raise ProtocolError(f"not JSON: {error}") from error
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"a message of {len(line):,} bytes is longer than {MAX_LINE_BYTES:,}")
    return line


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line; raises ProtocolError when there is none."""
    try:
        message = orjson.loads(line)
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("a message is an object with a type")
    return message


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _to_json(value: DataclassInstance) -> dict[str, Any]:
    """Field names become camelCase; nested dataclasses too, free-form dictionaries stay as they are."""
    return {
        _camel(each.name): _to_json(item) if is_dataclass(item) and not isinstance(item, type) else item
        for each in fields(value)
        for item in (getattr(value, each.name),)
    }


def _from_json(cls: type[_Dataclass], message: Mapping[str, Any]) -> _Dataclass:
    """The reverse for one level; unknown keys are left alone, so that a newer worker may say more."""
    known = {each.name: message[_camel(each.name)] for each in fields(cls) if _camel(each.name) in message}
    try:
        return cls(**known)
    except TypeError as error:
        raise ProtocolError(f"{cls.__name__}: {error}") from None
