"""Where benchmarks of crawls run: a site whose pages are made on the fly, and a job that reads all of it."""

from __future__ import annotations

import threading
import time
from typing import Any, Final, Self
from uuid import UUID

from models.ids import Prefix, decode_id, encode_id, new_id
from tests.bench.place import Place
from tests.sites.server import Answer, Asked, SiteServer

LINKS_PER_LIST: Final = 50
SETTINGS: Final = {
    "CRAWL_START_DELAY_SECONDS": "0.01",
    "CRAWL_TARGET_CONCURRENCY": "8",
    "CRAWL_PAGES_PER_DAY": "100000000",
    "WORKER_BUILD_SLOTS": "0",
    "WORKER_SCAN_SLOTS": "0",
    "WORKER_OCR_SLOTS": "0",
}
CONFIG: Final = {
    "detailLinks": {"css": "a.detail"},
    "nextPage": {"css": "a[rel=next]"},
    "maxListPages": 100_000,
    "fields": [{"name": "name", "css": "h1", "required": True}, {"name": "price", "css": ".price"}],
}
_CREATE = "mutation ($input: CreateJobInput!) { createJob(input: $input) { run { id } } }"


class LinkedSite:
    """Lists of links to detail pages with one item each; knows when its pages were served."""

    def __init__(self, details: int) -> None:
        self.details = details
        self._lock = threading.Lock()
        self._server = SiteServer(self._answer)
        self.forget()

    def forget(self) -> None:
        """Count from nothing."""
        self.served, self._first, self._last = 0, 0.0, 0.0

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return self._server.url

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a place that may crawl it."""
        return {**SETTINGS, "CRAWL_ALLOWED_HOSTS": self._server.allowed_host}

    def pages_per_second(self) -> float:
        """From the first page to the last."""
        return (self.served - 1) / (self._last - self._first)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._server.__exit__(*failure)

    def _answer(self, asked: Asked) -> Answer:
        if asked.target == "/robots.txt":
            return Answer("User-agent: *\nAllow: /\n")
        with self._lock:
            self.served += 1
            self._last = time.monotonic()
            self._first = self._first or self._last
        if asked.target.startswith("/d/"):
            return Answer(f"<html><body><h1>Thing {asked.target[3:]}</h1><p class=price>19.00</p></body></html>")
        page = int(asked.target.removeprefix("/?page=").removeprefix("/") or 0)
        numbers = range(page * LINKS_PER_LIST, min(self.details, (page + 1) * LINKS_PER_LIST))
        links = "".join(f'<p><a class="detail" href="/d/{number}">Thing</a></p>' for number in numbers)
        more = f'<a rel="next" href="/?page={page + 1}">next</a>' if numbers and numbers[-1] + 1 < self.details else ""
        return Answer(f"<html><body>{links}{more}</body></html>")


async def start_crawl(place: Place, site: LinkedSite) -> UUID:
    """Queue a run that reads all of the site."""
    tool = new_id()
    await place.db.execute(
        """INSERT INTO tools (id, slug, name, category, description, states, spider, input_schema, is_active,
               created_at, updated_at)
           VALUES ($1, $2, 'Bench', 'bench', '', '[]', 'catalogue', '{"type": "object"}', true, now(), now())""",
        tool,
        f"bench-{tool.hex[-12:]}",
    )
    given = {"name": "Bench", "startUrls": [f"{site.url}/"], "config": CONFIG, "run": True}
    data = await place.client.run(
        _CREATE, {"input": {"toolId": encode_id(Prefix.TOOL, tool), **given}}, token=place.person.token
    )
    return decode_id(data["createJob"]["run"]["id"])[1]
