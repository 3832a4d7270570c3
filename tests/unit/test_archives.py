"""Archives: what is packed is what is there, and nothing that an archive says leads out of its folder."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from adapters.sandbox import archives
from adapters.sandbox.archives import (
    ArchiveLimits,
    ArchiveRefused,
    ArchiveTooLarge,
    PackedFolder,
    pack,
    packed_bytes,
    unpack,
)

LIMITS = ArchiveLimits(content_bytes=10_000_000, members=1_000)
OWNER = 1_000


async def packed(*folders: PackedFolder) -> bytes:
    async with aclosing(pack(folders, owner=OWNER)) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]


def member(name: str, *, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> Callable[..., None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))

    return add


def archive_of(*members: Callable[..., None], form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        member(".", kind=tarfile.DIRTYPE)(archive)
        for add in members:
            add(archive)
    return buffer.getvalue()


async def test_links_leading_out_are_packed_as_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the worker")
    source = tmp_path / "source"
    source.mkdir()
    (source / "stolen").symlink_to(tmp_path / "secret")
    (source / "folder").symlink_to(tmp_path)

    data = await packed(PackedFolder(source, "source"))

    assert b"of the worker" not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {info.name: info.type for info in archive} == {
            "source": tarfile.DIRTYPE,
            "source/stolen": tarfile.SYMTYPE,
            "source/folder": tarfile.SYMTYPE,
        }


async def test_sockets_and_pipes_are_left_out_and_nothing_waits_for_a_writer(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "pipe")

    with tarfile.open(fileobj=io.BytesIO(await packed(PackedFolder(source, "s")))) as archive:
        assert archive.getnames() == ["s"]


async def test_packing_comes_back_the_same_and_has_the_announced_length(tmp_path: Path) -> None:
    source = tmp_path / "source"
    deep = source / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "long name ä").write_bytes(b"x" * 1_000_000)
    (source / "empty").touch()
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o4755)
    (source / "link").symlink_to("run.sh")
    (source / os.fsdecode(b"not-utf8-\xff")).write_text("odd")
    folders = [PackedFolder(source, "source"), PackedFolder(source, "again")]

    data = await packed(*folders)

    assert await packed_bytes(folders, owner=OWNER) == len(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {(info.uid, info.gid, info.uname) for info in archive} == {(OWNER, OWNER, "")}
        assert not any(info.mode & 0o7000 for info in archive.getmembers())
    command = ["tar", "-xf", "-", "-C", str(tmp_path), "again"]
    listing = await asyncio.to_thread(subprocess.run, command, input=data, capture_output=True, check=True)
    assert not listing.stderr
    assert (tmp_path / "again/run.sh").stat().st_mode & 0o7777 == 0o755
    assert await unpack(pieces(await packed(folders[0]), 777), tmp_path / "out", LIMITS, strip=1)
    for copy in (tmp_path / "again", tmp_path / "out"):
        assert (copy / deep.relative_to(source) / "long name ä").stat().st_size == 1_000_000
        assert (copy / os.fsdecode(b"not-utf8-\xff")).read_text() == "odd"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("piece_bytes", [1, 511, 100_000])
async def test_every_format_is_unpacked_however_it_is_cut(tmp_path: Path, form: int, piece_bytes: int) -> None:
    long_name = "d" * 90 + "/" + "f" * 90
    data = archive_of(
        member("app.js", content=b"a" * 700),
        member(long_name, content=b"long", mode=0o755),
        member("link", kind=tarfile.SYMTYPE, linkname="app.js"),
        member("hard", kind=tarfile.LNKTYPE, linkname="./app.js"),
        form=form,
    )

    assert await unpack(pieces(data, piece_bytes), tmp_path / "out", LIMITS)

    assert (tmp_path / "out/app.js").read_bytes() == b"a" * 700
    assert (tmp_path / "out" / long_name).read_bytes() == b"long"
    assert os.access(tmp_path / "out" / long_name, os.X_OK)
    assert os.readlink(tmp_path / "out/link") == "app.js"
    assert (tmp_path / "out/hard").samefile(tmp_path / "out/app.js")


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/passwd", content=b"x")],
        [member("../outside", content=b"x")],
        [member("a/../../outside", content=b"x")],
        [member("link", kind=tarfile.SYMTYPE, linkname=".."), member("link/outside", content=b"x")],
        [member("link", kind=tarfile.SYMTYPE, linkname="outside"), member("link", content=b"x")],
        [member("hard", kind=tarfile.LNKTYPE, linkname="../outside")],
        [member("link", kind=tarfile.SYMTYPE, linkname=".."), member("h", kind=tarfile.LNKTYPE, linkname="link/o")],
        [member("device", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [member("disk", kind=tarfile.BLKTYPE)],
        [member("a", content=b"x"), member("a", content=b"y")],
        [member("a", content=b"x"), member("a/b", content=b"y")],
        [member("/".join("d" * 300))],
    ],
    ids=lambda members: "",
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_what_could_lead_out_is_refused(tmp_path: Path, members: list[Callable[..., None]], form: int) -> None:
    with pytest.raises(ArchiveRefused):
        await unpack(pieces(archive_of(*members, form=form)), tmp_path / "out", LIMITS)

    assert os.listdir(tmp_path) == ["out"]


async def test_a_file_larger_than_allowed_is_refused_before_it_is_written(tmp_path: Path) -> None:
    data = archive_of(member("small", content=b"x" * 600), member("large", content=b"x" * 600))

    with pytest.raises(ArchiveTooLarge):
        await unpack(pieces(data), tmp_path / "out", ArchiveLimits(content_bytes=1_000))

    assert not (tmp_path / "out/large").exists()


async def test_too_many_members_are_refused(tmp_path: Path) -> None:
    data = archive_of(*(member(f"f{number}") for number in range(20)))

    with pytest.raises(ArchiveTooLarge):
        await unpack(pieces(data), tmp_path / "out", ArchiveLimits(content_bytes=1_000, members=10))


async def test_an_extended_header_of_any_length_is_not_read(tmp_path: Path) -> None:
    data = bytearray(archive_of(member("n" * 200, content=b"x")))
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    data[512:1024] = header.tobuf(tarfile.GNU_FORMAT)

    with pytest.raises(ArchiveRefused, match="too long"):
        await unpack(pieces(bytes(data)), tmp_path / "out", LIMITS)


@pytest.mark.parametrize("cut", [0, 300, 1_100, 1_536])
async def test_a_cut_archive_is_no_folder(tmp_path: Path, cut: int) -> None:
    data = archive_of(member("a", content=b"x" * 512))

    with pytest.raises(ArchiveRefused, match="too early"):
        await unpack(pieces(data[:cut]), tmp_path / "out", LIMITS)


async def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive_of(member("a", content=b"x")))
    data[600] ^= 1

    with pytest.raises(ArchiveRefused, match="damaged"):
        await unpack(pieces(bytes(data)), tmp_path / "out", LIMITS)


async def test_endless_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    data = archive_of() + bytes(2_000_000)

    with pytest.raises(ArchiveRefused, match="goes on"):
        await unpack(pieces(data), tmp_path / "out", LIMITS)


async def test_a_link_or_a_file_in_place_of_the_folder_is_no_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member("dist", kind=tarfile.SYMTYPE, linkname="/etc")(archive)

    assert not await unpack(pieces(buffer.getvalue()), tmp_path / "out", LIMITS, strip=1)
    assert not (tmp_path / "out").exists()


async def test_cancelling_waits_for_the_thread(tmp_path: Path) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(5)
        ended.set()

    task = asyncio.create_task(archives.in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
