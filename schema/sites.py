"""Sites: what a request under the sites' domain gets, from the files of one deployment.

Invariants: a host name is a site's or the API's, never both, and neither answers for the other; each answer comes from
exactly one deployment; nothing is looked for but in a manifest, so no path leads out of one; no answer sets a cookie.
Precedence: forced rules, files (as they are, then as Netlify finds them), rules, the page of a single-page application,
`404.html`. A file with a fingerprint in its name that the present deployment lacks is taken from those that were here
before: pages loaded before a move go on working. What rules mean is `models/site_rules.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Final
from urllib.parse import quote
from uuid import UUID

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters import metrics
from adapters.storage import ObjectNotFound, Storage, StorageUnavailable
from models.ids import Prefix, encode_id
from models.site_paths import is_fingerprinted, may_be_fingerprinted
from models.site_queries import SiteFile, SiteTarget
from models.site_rules import Match
from models.sites import PRODUCTION_ALIAS
from schema.middleware import HSTS
from schema.ranges import Unsatisfiable, read_range
from schema.site_answers import ASK_AGAIN, Headers, SiteAnswer
from schema.site_cache import Loaded, SiteCache, SitesUnavailable
from schema.site_requests import (
    BadPath,
    Coding,
    Host,
    HostKind,
    HostNames,
    accepted_codings,
    is_listed,
    is_navigation,
    read_path,
)
from settings import Settings

FOREVER: Final = b"public, max-age=31536000, immutable"  # RFC 8246
RETRY_SECONDS: Final = b"2"
_HOSTS: Final = 4_096
_PREPARED: Final = 2_000
_NOT_FOUND_PAGE: Final = "404.html"
_START_PAGE: Final = "index.html"

_PATH: Final = "/!$&'()*+,;=:@~-._"
_QUERY: Final = _PATH + "?%"
_NOT_IN_304: Final = frozenset({b"content-type", b"content-encoding", b"accept-ranges"})

_log = structlog.get_logger("switchyard.sites")
_StorageOf = Callable[[], Storage]


class SiteHosts:
    """The outermost application: requests for sites go to `sites`, all others to the API."""

    def __init__(self, app: ASGIApp, *, sites: Sites, settings: Settings) -> None:
        self._app = app
        self._sites = sites
        self._names = HostNames.of(settings)
        self._hosts: dict[bytes, Host] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on to whom its Host header names; one that names nobody, or several, is refused."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        values = [value for name, value in scope["headers"] if name == b"host"]
        host = self._read(values[0]) if len(values) == 1 else Host(HostKind.BAD if values else HostKind.API)
        if host.kind is HostKind.API:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif host.kind is HostKind.BAD:
            await SiteAnswer(scope, send).text(400, "The Host header names no host.")
        else:
            metrics.current().site_requests.inc()
            await self._sites.answer(host.label, scope, receive, send)

    def _read(self, value: bytes) -> Host:
        host = self._hosts.get(value)
        if host is None:
            host = self._names.read(value)
            if len(self._hosts) >= _HOSTS:
                self._hosts.clear()
            self._hosts[value] = host
        return host


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that answers a request, and whose it is."""

    deployment: bytes
    path: str
    file: SiteFile
    status: int = 200
    is_lasting: bool = False
    """Whether this path leads to this file whatever else the request says."""


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Where the visitor is sent."""

    location: str
    status: int = 301


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An answer but for its body: everything that does not depend on the request."""

    status: int
    headers: Headers
    etag: bytes
    object_key: str
    size: int
    coding: Coding


class Sites:
    """Answers for all sites of the installation."""

    def __init__(self, cache: SiteCache, *, storage: _StorageOf, strict_transport: bool) -> None:
        self._cache = cache
        self._storage = storage
        self._strict_transport = strict_transport

    async def answer(self, label: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request for the site that a label names."""
        answer = SiteAnswer(scope, send)
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            allow = [(b"allow", b"GET, HEAD, OPTIONS")]
            await (answer.empty(204, allow) if method == "OPTIONS" else answer.text(405, "Sites are read only.", allow))
            return
        try:
            await self._answer(label, answer, scope, receive)
        except BadPath:
            await answer.text(400, "This address is not well formed.")
        except (SitesUnavailable, StorageUnavailable, ObjectNotFound) as error:
            _log.warning("site_unavailable", label=label, path=scope["path"], error=repr(error.__cause__ or error))
            if not answer.is_started:
                retry = [(b"retry-after", RETRY_SECONDS), (b"cache-control", b"no-store")]
                await answer.text(503, "This site cannot be shown at the moment. Try again in a few seconds.", retry)
        except TimeoutError:
            # Too late for a status: the server cuts the connection of an answer that stays unfinished.
            _log.info("site_reader_stalled", label=label)

    async def _answer(self, label: str, answer: SiteAnswer, scope: Scope, receive: Receive) -> None:
        began = monotonic()
        headers = dict(scope["headers"])
        path = read_path(scope["raw_path"])
        target = self._cache.fresh_target(label) or await self._cache.target(label)
        loaded = None
        if target is not None:
            loaded = self._cache.loaded(target.deployment_id) or await self._cache.load(target.deployment_id)
            if loaded is None:  # removed after we asked for it
                target = await self._cache.target(label, asked_after=began)
                loaded = await self._cache.load(target.deployment_id) if target is not None else None
        if target is None or loaded is None:
            await answer.text(404, "There is no site at this address.")
            return
        is_hidden = target.alias != PRODUCTION_ALIAS or "--" in label
        codings = (Coding.IDENTITY,) if b"range" in headers else accepted_codings(headers.get(b"accept-encoding", b""))
        prepared = loaded.prepared.get((path, codings, is_hidden))
        if prepared is None:
            found = await self._find(label, target, loaded, path, scope, headers, began)
            if isinstance(found, _Elsewhere):
                await answer.moved(found.location, found.status)
                return
            if found is None:
                await answer.text(404, "There is no page at this address.", [(b"cache-control", ASK_AGAIN)])
                return
            prepared = self._prepare(found, loaded, path, codings, is_hidden=is_hidden)
            if found.is_lasting:
                if len(loaded.prepared) >= _PREPARED:
                    loaded.prepared.clear()
                loaded.prepared[path, codings, is_hidden] = prepared
        try:
            await self._send(prepared, headers, answer, receive)
        except ObjectNotFound:
            self._cache.forget(target.deployment_id)
            raise

    # -- what answers

    async def _find(
        self,
        label: str,
        target: SiteTarget,
        loaded: Loaded,
        path: str,
        scope: Scope,
        headers: dict[bytes, bytes],
        began: float,
    ) -> _Found | _Elsewhere | None:
        query = scope["query_string"].decode("latin-1")
        files, router = loaded.manifest.files, loaded.router
        if (forced := router.redirect(path, query, only_forced=True)) is not None:
            ruled = _ruled(forced, loaded, path, query)
            if ruled is not None:
                return ruled
        if (located := _locate(files, path)) is not None:
            return _Found(loaded.name, located, files[located], is_lasting=not router.has_forced)
        if (canonical := _canonical(files, path)) is not None:
            location = quote(canonical, safe=_PATH) + (f"?{quote(query, safe=_QUERY)}" if query else "")
            return _Elsewhere(location)
        if target.alias is not None and may_be_fingerprinted(path):
            other = await self._elsewhere_in_time(label, target, path, began)
            if other is not None:
                return other
        if (match := router.redirect(path, query)) is not None:
            ruled = _ruled(match, loaded, path, query)
            if ruled is not None:
                return ruled
        if loaded.manifest.rules.spa_fallback and _START_PAGE in files and is_navigation(path, headers):
            return _Found(loaded.name, _START_PAGE, files[_START_PAGE])
        if _NOT_FOUND_PAGE in files:
            return _Found(loaded.name, _NOT_FOUND_PAGE, files[_NOT_FOUND_PAGE], status=404)
        return None

    async def _elsewhere_in_time(self, label: str, target: SiteTarget, path: str, began: float) -> _Found | None:
        """A file of the deployment that came just now, of which we have not heard yet, or of one before."""
        name = path[1:]
        now = await self._cache.target(label, asked_after=began)
        if now is None:
            return None
        if now.deployment_id != target.deployment_id:
            loaded = await self._cache.load(now.deployment_id)
            if loaded is not None and (file := loaded.manifest.files.get(name)) is not None:
                return _Found(loaded.name, name, file)
        if not now.earlier:
            return None
        earlier = await self._cache.earlier_file(now, name)
        return None if earlier is None else _Found(_name_of(earlier[0]), name, earlier[1])

    # -- how it is sent

    def _prepare(
        self, found: _Found, loaded: Loaded, path: str, codings: tuple[Coding, ...], *, is_hidden: bool
    ) -> _Prepared:
        file = found.file
        sizes = {Coding.IDENTITY: file.size, Coding.BROTLI: file.brotli_size, Coding.GZIP: file.gzip_size}
        coding, size = next((coding, size) for coding in codings if (size := sizes[coding]) is not None)
        # Each form is a representation of its own, so it has a validator of its own (RFC 9110 §8.8.3.3).
        etag = f'"{file.sha256[:16].hex()}{coding.value.replace(".", "-")}"'.encode()
        values = {
            b"content-type": file.content_type.encode("latin-1"),
            b"cache-control": FOREVER if found.status == 200 and is_fingerprinted(found.path) else ASK_AGAIN,
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"strict-origin-when-cross-origin",
        }
        if self._strict_transport:
            values[b"strict-transport-security"] = HSTS.encode()
        if loaded.router.has_headers:
            values |= {name.encode(): value.encode() for name, value in loaded.router.headers(path).items()}
        values |= {
            b"vary": b"Accept-Encoding",
            b"accept-ranges": b"bytes",
            b"x-switchyard-deployment": found.deployment,
        }
        if found.status == 200:
            values[b"etag"] = etag
        if coding is not Coding.IDENTITY:
            values[b"content-encoding"] = coding.token
        if is_hidden:
            values[b"x-robots-tag"] = b"noindex"
        return _Prepared(found.status, list(values.items()), etag, file.object_key + coding.value, size, coding)

    async def _send(
        self, prepared: _Prepared, headers: dict[bytes, bytes], answer: SiteAnswer, receive: Receive
    ) -> None:
        status, start, end = prepared.status, 0, prepared.size
        sent = prepared.headers
        if status == 200:
            if (known := headers.get(b"if-none-match")) is not None and is_listed(known, prepared.etag):
                await answer.empty(304, [pair for pair in sent if pair[0] not in _NOT_IN_304])
                return
            asked = headers.get(b"range")
            if asked is not None and headers.get(b"if-range", prepared.etag) == prepared.etag:
                try:
                    wanted = read_range(asked, size=prepared.size)
                except Unsatisfiable:
                    await answer.text(
                        416, "The range lies outside the file.", [(b"content-range", b"bytes */%d" % prepared.size)]
                    )
                    return
                if wanted is not None:
                    status, (start, end) = 206, wanted
                    sent = [*sent, (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, prepared.size))]
        sent = [*sent, (b"content-length", b"%d" % (end - start))]
        if answer.is_head:
            await answer.empty(status, sent)
        elif self._cache.is_kept(prepared.size):
            body = self._cache.body(prepared.object_key)
            if body is None:
                body = await self._cache.load_body(prepared.object_key, prepared.size)
            await answer.whole(status, sent, body if end - start == len(body) else body[start:end])
        else:
            async with aclosing(self._storage().get(prepared.object_key, start=start, end=end)) as chunks:
                await answer.stream(status, sent, chunks, receive)


def _ruled(match: Match, loaded: Loaded, path: str, query: str) -> _Found | _Elsewhere | None:
    """What a rule makes of a request; None when it leads to nothing, or back to where the visitor is."""
    if match.rule.is_redirect:
        location = match.location(query)
        if location.partition("?")[0].partition("#")[0] == quote(path, safe=_PATH):
            return None
        return _Elsewhere(location, match.rule.status)
    files, goal = loaded.manifest.files, match.file_path()
    located = _locate(files, goal) or _locate(files, _canonical(files, goal))
    return None if located is None else _Found(loaded.name, located, files[located], status=match.rule.status)


def _locate(files: Mapping[str, SiteFile], path: str | None) -> str | None:
    """The file that a path shows: itself, the page of that name, or the start page of that folder."""
    if path is None:
        return None
    name = path[1:]
    candidates = [f"{name}{_START_PAGE}"] if path.endswith("/") else [name, f"{name}.html"]
    return next((candidate for candidate in candidates if candidate in files), None)


def _canonical(files: Mapping[str, SiteFile], path: str) -> str | None:
    """Where a page is that this path nearly names, so that links in it which are relative lead where they should."""
    if path.endswith("/"):
        return path[:-1] if f"{path[1:-1]}.html" in files else None
    return f"{path}/" if f"{path[1:]}/{_START_PAGE}" in files else None


def _name_of(deployment_id: UUID) -> bytes:
    return encode_id(Prefix.DEPLOYMENT, deployment_id).encode()
