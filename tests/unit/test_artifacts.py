"""From a hostile output folder to storage: nothing outside is read, nothing travels twice, races lose nothing.

The database and the storage are real; the folders hold what a build can put into them.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import brotli
import pytest
import pytest_asyncio

from adapters import storage
from adapters.storage import ChecksumMismatch, Storage, StorageUnavailable
from errors import Conflict
from models import site_queries
from models.executions import FailureCode
from tasks.build import uploads
from tasks.build.artifacts import (
    MAX_DEPTH,
    Artifact,
    ArtifactError,
    OutputMissing,
    OutputRefused,
    OutputTooLarge,
    collect,
)
from tasks.build.content_types import content_type_of, is_compressible
from tests.harness.sites import SiteDesk, SiteProject, open_site_desk, write_files

TEXT = "<p>hello</p>" * 200


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    write_files(folder, {"index.html": "<h1>home</h1>"})
    return folder


async def collected(output: Path, *, max_bytes: int = 2**20, max_files: int = 50) -> Artifact:
    before = _open_descriptors()
    try:
        return await collect(output, max_bytes=max_bytes, max_files=max_files)
    finally:
        assert _open_descriptors() == before


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def paths(artifact: Artifact) -> list[str]:
    return [file.path for file in artifact.files]


# -- what is collected


async def test_files_are_found_with_their_hashes_and_types(output: Path) -> None:
    write_files(output / "a", {"b/ö.css": "x", "c.bin": b"\0"})
    artifact = await collected(output)
    assert [(file.path, file.size, file.content_type) for file in artifact.files] == [
        ("a/b/ö.css", 1, "text/css; charset=utf-8"),
        ("a/c.bin", 1, "application/octet-stream"),
        ("index.html", 13, "text/html; charset=utf-8"),
    ]
    assert artifact.files[0].sha256 == hashlib.sha256(b"x").digest()
    assert artifact.size == 15
    assert artifact.notices == ()


async def test_rules_are_read_and_not_served(output: Path) -> None:
    (output / "_redirects").write_text("\ufeff/a /b\nnope /x\n")
    (output / "_headers").write_text("/*\n  X-A: 1\n  Set-Cookie: a=b\n")
    artifact = await collected(output)
    assert paths(artifact) == ["index.html"]
    assert [rule.pattern for rule in artifact.redirects] == ["/a"]
    assert [rule.headers for rule in artifact.headers] == [(("X-A", "1"),)]
    assert [(problem.file, problem.line) for problem in artifact.problems] == [("_redirects", 2), ("_headers", 3)]
    assert any("_redirects, line 2" in notice for notice in artifact.notices)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"/a /b\n" * 200_000])
async def test_rules_that_are_no_text_or_too_long_are_told_and_not_read(output: Path, content: bytes) -> None:
    (output / "_redirects").write_bytes(content)
    artifact = await collected(output, max_bytes=2**22)
    assert artifact.redirects == ()
    assert "is not read" in artifact.problems[0].reason


async def test_private_names_are_left_out_and_told(output: Path) -> None:
    files = [".env", ".git/config", "node_modules/x/index.js", "a/.env.production", "a/.DS_Store", ".well-known/x"]
    for path in files:
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_text("secret")
    artifact = await collected(output)
    assert paths(artifact) == [".well-known/x", "index.html"]
    (notice,) = artifact.notices
    for name in (".env", "node_modules", "a/.env.production", "a/.DS_Store"):
        assert name in notice
    assert ".git" not in notice, "every checkout has it"


async def test_a_site_without_a_start_page_is_told(output: Path) -> None:
    (output / "index.html").rename(output / "main.html")
    assert "no index.html" in (await collected(output)).notices[0]


# -- links and things that are no files


async def test_a_link_inside_stands_for_its_goal(output: Path) -> None:
    write_files(output / "a", {"real.js": "x"})
    (output / "link.js").symlink_to("a/real.js")
    (output / "a/again.js").symlink_to("../link.js")
    artifact = await collected(output)
    assert paths(artifact) == ["a/again.js", "a/real.js", "index.html", "link.js"]
    assert len({file.sha256 for file in artifact.files}) == 2
    assert {file.source for file in artifact.files if file.path != "index.html"} == {output / "a/real.js"}


@pytest.mark.parametrize(
    "target",
    [
        *("/etc/passwd", "../outside.txt", "a/../../outside.txt", "..", ".", "a", "missing", "self", "loop", ".env"),
        *("a/away/x", "/proc/self/environ", "index.html/"),
    ],
)
async def test_a_link_that_leads_elsewhere_is_refused(
    output: Path, target: str, request: pytest.FixtureRequest
) -> None:
    (output.parent / "outside.txt").write_text("secret")
    (output / ".env").write_text("secret")
    (output / "a").mkdir()
    (output / "loop").symlink_to("self")
    name = "self" if target != "index.html/" else "other"
    (output / name).symlink_to(target)
    if name == "other":
        (output / "loop").unlink()
        # Normalised it is the file itself: that is fine, and nothing else is read.
        assert "other" in paths(await collected(output))
        return
    with pytest.raises(OutputRefused, match="self"):
        await collected(output)


async def test_a_folder_that_is_a_link_is_not_entered(output: Path) -> None:
    outside = output.parent / "outside"
    write_files(outside, {"secret.txt": "secret"})
    (output / "docs").symlink_to(outside)
    with pytest.raises(OutputRefused, match="docs \\(a link that leads out"):
        await collected(output)
    (output / "docs").unlink()
    (output / "docs").symlink_to("../outside/secret.txt")
    with pytest.raises(OutputRefused):
        await collected(output)


async def test_an_output_that_is_a_link_is_missing(output: Path) -> None:
    (output.parent / "link").symlink_to(output)
    for path in (output.parent / "link", output / "nothing", output / "index.html"):
        with pytest.raises(OutputMissing, match="output directory"):
            await collected(path)


async def test_pipes_sockets_and_devices_are_refused(output: Path) -> None:
    os.mkfifo(output / "pipe")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/s")
        os.rename(f"{short}/s", output / "socket")
        with pytest.raises(OutputRefused) as refusal:
            await collected(output)
    assert "pipe (not a file: a pipe)" in str(refusal.value)
    assert "socket (not a file: a socket)" in str(refusal.value)
    assert refusal.value.code is FailureCode.INVALID_INPUT


@pytest.mark.parametrize("name", [b"a\nb.html", b"\xff.html", b"a\\b.html", b"\x7f", b"a" * 250 + b"/x"])
async def test_names_that_no_address_has_are_refused(output: Path, name: bytes) -> None:
    full = os.fsencode(output) + b"/" + b"/".join([name] if b"/" not in name else [b"a" * 250] * 5 + [b"x"])
    os.makedirs(os.path.dirname(full), exist_ok=True)
    os.close(os.open(full, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(OutputRefused) as refusal:
        await collected(output)
    assert str(refusal.value).isprintable()


async def test_only_the_first_faults_are_listed(output: Path) -> None:
    for number in range(20):
        (output / f"link{number:02}").symlink_to("/etc/passwd")
    with pytest.raises(OutputRefused, match=r"link00.*link04.*and 15 more"):
        await collected(output)


# -- bounds


async def test_too_many_files_are_refused(output: Path) -> None:
    write_files(output / "a", {f"{number}": "x" for number in range(10)})
    assert len((await collected(output, max_files=11)).files) == 11
    with pytest.raises(OutputTooLarge, match="more than 10 files") as refusal:
        await collected(output, max_files=10)
    assert refusal.value.code is FailureCode.OUTPUT_TOO_LARGE


async def test_too_many_bytes_are_refused_before_they_are_read(output: Path) -> None:
    with (output / "sparse").open("wb") as file:
        file.truncate(2**41)
    async with asyncio.timeout(5):
        with pytest.raises(OutputTooLarge, match="larger than 1 MB"):
            await collected(output)


async def test_links_count_as_what_they_lead_to(output: Path) -> None:
    (output / "big").write_bytes(bytes(1_000))
    for number in range(5):
        (output / f"link{number}").symlink_to("big")
    with pytest.raises(OutputTooLarge):
        await collected(output, max_bytes=5_000)
    with pytest.raises(OutputTooLarge):
        await collected(output, max_files=6)


async def test_empty_folders_without_end_are_refused(output: Path) -> None:
    for number in range(300):
        (output / f"d{number}").mkdir()
    assert len((await collected(output, max_files=5)).files) == 1
    for number in range(10_100):
        (output / "d0" / f"{number}").mkdir()
    with pytest.raises(OutputTooLarge):
        await collected(output, max_files=5)


async def test_folders_too_deep_are_refused(output: Path) -> None:
    (output / "/".join("d" * (MAX_DEPTH + 1))).mkdir(parents=True)
    with pytest.raises(OutputRefused, match="deep"):
        await collected(output)


@pytest.mark.parametrize("leftover", [None, ".env", "_redirects"])
async def test_an_empty_output_is_missing(output: Path, leftover: str | None) -> None:
    (output / "index.html").unlink()
    if leftover:
        (output / leftover).write_text("/a /b")
    with pytest.raises(OutputMissing, match="empty") as refusal:
        await collected(output)
    assert refusal.value.code is FailureCode.OUTPUT_MISSING
    assert isinstance(refusal.value, ArtifactError)


async def test_cancelling_waits_until_nobody_reads(output: Path) -> None:
    (output / "large").write_bytes(bytes(2**26))
    before = _open_descriptors()
    task = asyncio.create_task(collect(output, max_bytes=2**30, max_files=10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _open_descriptors() == before


def test_types_come_from_our_table() -> None:
    assert content_type_of("a/b.MJS") == "text/javascript; charset=utf-8"
    assert content_type_of("a.svg") == "image/svg+xml; charset=utf-8"
    assert content_type_of("a.wasm") == "application/wasm"
    assert content_type_of("js") == content_type_of("a.unknown") == "application/octet-stream"
    assert content_type_of(".well-known/apple-app-site-association") == "application/json"
    assert is_compressible("image/svg+xml; charset=utf-8")
    assert not is_compressible("image/png")


# -- into storage


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteDesk]:
    async with open_site_desk(settings_env, tmp_path_factory.mktemp("outputs")) as opened:
        yield opened


async def keys(project: SiteProject) -> list[str]:
    return [found.key async for found in storage.current().list(f"sites/{project.id}/")]


async def read(key: str) -> bytes:
    return b"".join([chunk async for chunk in storage.current().get(key)])


async def blobs(desk: SiteDesk, project: SiteProject) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await desk.pool.fetch(
        "SELECT * FROM site_blobs WHERE project_id = $1 ORDER BY size", project.id
    )
    return found


async def send(desk: SiteDesk, project: SiteProject, artifact: Artifact, **replaced: Any) -> uploads.Uploaded:
    arguments = {"project_id": project.id, "storage": storage.current(), "pool": desk.pool, **replaced}
    return await uploads.upload(artifact, **arguments)


async def expire(desk: SiteDesk, project: SiteProject) -> None:
    await desk.pool.execute(
        "UPDATE site_blobs SET reserved_until = now() - interval '1 s' WHERE project_id = $1", project.id
    )


async def sweep(desk: SiteDesk, project: SiteProject) -> int:
    return await uploads.collect_garbage(desk.pool, storage.current(), project.id)


async def test_content_is_stored_with_smaller_forms(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"a.html": TEXT, "b.html": TEXT, "c.png": bytes(5_000), "d.html": "short"})
    uploaded = await send(desk, project, artifact)
    assert (uploaded.uploaded_files, uploaded.uploaded_bytes) == (3, len(TEXT) + 5_000 + 5)
    short, page, image = await blobs(desk, project)
    assert await read(page["object_key"]) == TEXT.encode()
    assert brotli.decompress(await read(page["object_key"] + ".br")) == TEXT.encode()
    assert gzip.decompress(await read(page["object_key"] + ".gz")) == TEXT.encode()
    assert len(await read(page["object_key"] + ".br")) == page["brotli_size"]
    assert len(await read(page["object_key"] + ".gz")) == page["gzip_size"]
    assert short["brotli_size"] is short["gzip_size"] is image["brotli_size"] is image["gzip_size"] is None
    assert len(await keys(project)) == 5


async def test_text_that_does_not_shrink_is_stored_as_it_is(desk: SiteDesk) -> None:
    project = await desk.project()
    await send(desk, project, await desk.artifact({"a.txt": os.urandom(4_000)}))
    ((row,), stored) = (await blobs(desk, project), await keys(project))
    assert (row["brotli_size"], row["gzip_size"], stored) == (None, None, [row["object_key"]])


async def test_what_is_there_does_not_travel_again(desk: SiteDesk) -> None:
    project, other = await desk.project(), await desk.project()
    first = await desk.deploy(project, {"index.html": "1", "app.js": TEXT})
    second = await desk.deploy(project, {"index.html": "2", "renamed.js": TEXT})
    assert first.uploaded is not None
    assert second.uploaded is not None
    assert second.uploaded.uploaded_bytes == 1
    assert set(first.uploaded.blob_ids.values()) & set(second.uploaded.blob_ids.values())
    elsewhere = await desk.deploy(other, {"index.html": "2", "app.js": TEXT})
    assert elsewhere.uploaded is not None
    assert elsewhere.uploaded.uploaded_bytes == 1 + len(TEXT)  # whether another project has it is nobody's business


async def test_recording_again_changes_nothing(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"index.html": "1", "a/b.js": "2"})
    uploaded, deployment = await send(desk, project, artifact), await desk.running(project)
    for _ in range(2):
        async with desk.pool.acquire() as connection, connection.transaction():
            await uploads.record(connection, deployment.id, artifact, uploaded)
    found = await desk.pool.fetch(
        "SELECT path FROM deployment_files WHERE deployment_id = $1 ORDER BY path", deployment.id
    )
    assert [row["path"] for row in found] == ["a/b.js", "index.html"]


@pytest.mark.parametrize("size", [10, len(TEXT)])
async def test_a_file_that_changed_since_is_not_stored(desk: SiteDesk, size: int) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"index.html": TEXT[:size]})
    artifact.files[0].source.write_bytes(b"x" * size)
    with pytest.raises(ChecksumMismatch):
        await send(desk, project, artifact)
    assert (await keys(project), await blobs(desk, project)) == ([], [])


class _Failing:
    """Storage that refuses the file of one key's ending, once."""

    def __init__(self, inner: Storage, fails_at: int) -> None:
        self._inner = inner
        self._left = fails_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put_file(self, *arguments: Any, **keywords: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            raise StorageUnavailable("The file store does not answer.")
        return await self._inner.put_file(*arguments, **keywords)


async def test_an_upload_that_fails_leaves_nothing_behind_and_can_be_repeated(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({f"{number}.txt": TEXT + str(number) for number in range(12)})
    with pytest.raises(StorageUnavailable):
        await send(desk, project, artifact, storage=_Failing(storage.current(), 7))
    assert (await keys(project), await blobs(desk, project)) == ([], [])
    await send(desk, project, artifact)
    assert len(await blobs(desk, project)) == 12


async def test_of_two_builds_with_the_same_content_one_copy_stays(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({f"{number}.txt": TEXT + str(number) for number in range(30)})
    first, second = await asyncio.gather(send(desk, project, artifact), send(desk, project, artifact))
    assert first.blob_ids == second.blob_ids
    rows = await blobs(desk, project)
    assert sorted(await keys(project)) == sorted(row["object_key"] + end for row in rows for end in ("", ".br", ".gz"))


# -- garbage


async def test_content_that_nobody_uses_goes_with_its_objects(desk: SiteDesk) -> None:
    project = await desk.project()
    kept = await desk.deploy(project, {"index.html": "1", "app.js": TEXT})
    gone = await desk.deploy(project, {"index.html": "2", "app.js": TEXT, "old.js": TEXT + "old"}, alias=None)
    await desk.remove(gone)
    assert await sweep(desk, project) == 0  # reserved still
    await expire(desk, project)
    assert await sweep(desk, project) == 2
    assert kept.uploaded is not None
    assert {row["id"] for row in await blobs(desk, project)} == set(kept.uploaded.blob_ids.values())
    assert len(await keys(project)) == 4
    assert await sweep(desk, project) == 0


async def test_a_sweep_without_a_project_finds_garbage_too(desk: SiteDesk) -> None:
    project = await desk.project()
    await send(desk, project, await desk.artifact({"a.txt": "unused"}))
    await expire(desk, project)
    assert await uploads.sweep_blobs(desk.pool, storage.current()) >= 1
    assert (await keys(project), await blobs(desk, project)) == ([], [])


async def test_what_a_build_has_just_reserved_is_not_swept(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"a.txt": "content"})
    await send(desk, project, artifact)
    await expire(desk, project)
    async with desk.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        reserved = await site_queries.reserve(connection, project.id, [artifact.files[0].sha256])
        assert len(reserved) == 1
        assert await sweep(desk, project) == 0  # not committed yet: the row is locked and passed over
        await transaction.commit()
    assert await sweep(desk, project) == 0
    assert len(await keys(project)) == 1


async def test_what_is_being_swept_is_uploaded_anew(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"a.txt": TEXT})
    first = await send(desk, project, artifact)
    await expire(desk, project)
    async with desk.pool.acquire() as connection:
        (found,) = await site_queries.condemn(connection, project.id, limit=10)
    # A sweeper that is killed or slow here has deleted nothing yet.
    second = await send(desk, project, artifact)
    assert first.blob_ids != second.blob_ids
    assert second.uploaded_files == 1
    (row,) = await blobs(desk, project)
    assert row["object_key"] not in found.object_keys
    # Now the slow sweeper goes on.
    await storage.current().delete(found.object_keys)
    async with desk.pool.acquire() as connection:
        assert await site_queries.forget(connection, [found.id]) == 0
    assert await read(row["object_key"]) == TEXT.encode()


async def test_a_sweep_that_was_killed_is_ended_by_the_next(desk: SiteDesk) -> None:
    project = await desk.project()
    await send(desk, project, await desk.artifact({"a.txt": TEXT}))
    await expire(desk, project)
    async with desk.pool.acquire() as connection:
        await site_queries.condemn(connection, project.id, limit=10)
    assert await sweep(desk, project) == 1
    assert (await keys(project), await blobs(desk, project)) == ([], [])


async def test_condemned_content_is_neither_reserved_nor_taken_over(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"a.txt": "content"})
    await send(desk, project, artifact)
    await expire(desk, project)
    sha256 = artifact.files[0].sha256
    async with desk.pool.acquire() as connection:
        await site_queries.condemn(connection, project.id, limit=10)
        assert await site_queries.reserve(connection, project.id, [sha256]) == {}
        blob = site_queries.NewBlob(sha256, 7, "k", None, None)
        assert await site_queries.insert_blobs(connection, project.id, [blob]) == {}


async def test_content_condemned_while_it_is_sent_is_a_conflict(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"a.txt": "content"})

    class Condemning(_Failing):
        async def put_file(self, *arguments: Any, **keywords: Any) -> Any:
            stored = await self._inner.put_file(*arguments, **keywords)
            other = await desk.artifact({"a.txt": "content"})
            await send(desk, project, other)
            await expire(desk, project)
            async with desk.pool.acquire() as connection:
                await site_queries.condemn(connection, project.id, limit=10)
            return stored

    with pytest.raises(Conflict):
        await send(desk, project, artifact, storage=Condemning(storage.current(), 0))
    (row,) = await blobs(desk, project)
    assert await keys(project) == [row["object_key"]]  # the condemned one; ours was taken back
    assert (await send(desk, project, artifact)).uploaded_files == 1


async def test_files_recorded_too_late_are_refused_rather_than_lost(desk: SiteDesk) -> None:
    project = await desk.project()
    artifact = await desk.artifact({"index.html": "content"})
    uploaded, deployment = await send(desk, project, artifact), await desk.running(project)
    await expire(desk, project)
    await sweep(desk, project)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with desk.pool.acquire() as connection, connection.transaction():
            await uploads.record(connection, deployment.id, artifact, uploaded)


async def test_garbage_collection_beside_builds_loses_nothing(desk: SiteDesk) -> None:
    project = await desk.project()
    files = {f"{number}.txt": f"content {number}" for number in range(20)}

    async def build() -> None:
        for _ in range(6):
            deployment = await desk.deploy(project, files, alias=None)
            await desk.remove(deployment)

    async def collector() -> None:
        while not done.is_set():
            await desk.pool.execute(
                """UPDATE site_blobs b SET reserved_until = now() - interval '1 s' WHERE project_id = $1 AND id % 2 = 0
                   AND reserved_until < now() + interval '7195 s' AND reserved_until > '-infinity'""",
                project.id,
            )
            await sweep(desk, project)

    done = asyncio.Event()
    collecting = asyncio.create_task(collector())
    try:
        await asyncio.gather(build(), build())
        last = await desk.deploy(project, files)
    finally:
        done.set()
        await collecting
    rows = await desk.pool.fetch(
        """SELECT f.path, b.object_key FROM deployment_files f JOIN site_blobs b ON b.id = f.blob_id
           WHERE f.deployment_id = $1""",
        last.id,
    )
    assert {row["path"]: (await read(row["object_key"])).decode() for row in rows} == files


async def test_a_project_takes_its_objects_along(desk: SiteDesk) -> None:
    project, other = await desk.project(), await desk.project()
    for each in (project, other):
        await desk.deploy(each, {"index.html": TEXT})
    assert await uploads.remove_objects(storage.current(), project.id) == 3
    assert await keys(project) == []
    assert len(await keys(other)) == 3
