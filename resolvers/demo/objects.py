"""Objects that rows of the demo name: files of sites, output files, the price list. Storing them again is fine."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from adapters import storage
from models import database, demo, media_queries
from resolvers.demo import price_list, site_content
from tasks.build import uploads
from tasks.build.artifacts import collect
from tasks.crawl import outputs
from tasks.crawl.spiders import output_columns

_MAX_BYTES: Final = 2**20


async def store(pool: asyncpg.Pool) -> None:
    """Store what rows of the demo name and is not there yet; again is fine."""
    for media_id in await demo.media():
        await storage.current().put(
            media_queries.object_key(media_id), price_list.pdf(), content_type=price_list.CONTENT_TYPE
        )
    for row in await demo.built_deployments():
        await _store_site(pool, row)
    for row in await demo.runs_without_files():
        await _store_files(pool, row)


async def _store_site(pool: asyncpg.Pool, row: Mapping[str, Any]) -> None:
    files = site_content.files_of(
        row["repository"], number=row["number"], branch=row["branch"], commit=row["commit_hash"]
    )
    with tempfile.TemporaryDirectory(prefix="switchyard-demo-") as folder:
        await asyncio.to_thread(_write_files, Path(folder), files)
        artifact = await collect(Path(folder), max_bytes=_MAX_BYTES, max_files=len(files))
        uploaded = await uploads.upload(artifact, project_id=row["project_id"], storage=storage.current(), pool=pool)
    async with pool.acquire() as connection, connection.transaction():
        await uploads.record(connection, row["id"], artifact, uploaded)


def _write_files(folder: Path, files: site_content.Files) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


async def _store_files(pool: asyncpg.Pool, row: Mapping[str, Any]) -> None:
    async def pages() -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        yield await demo.items_of(row["id"])

    columns = output_columns(row["spider"], database.from_json(row["input"]))
    files = await outputs.make_files(storage.current(), pages(), run_id=row["id"], attempt=1, first_columns=columns)
    async with pool.acquire() as connection, connection.transaction():
        await outputs.record(connection, row["id"], files)
