"""Decoders in their child: what every type yields, and what is sent to exhaust, break or fool them."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapters.decoding import inspection
from adapters.decoding.inspection import Decoders, Inspected, Rejected
from errors import ServiceUnavailable
from models.media import MediaKind
from tests.harness import media_files

MAX_PIXELS = 4_000_000


@pytest.fixture
async def decoders() -> Decoders:
    return Decoders(places=2, memory_bytes=512 * 2**20, max_pixels=MAX_PIXELS)


async def look(decoders: Decoders, folder: Path, content: bytes, content_type: str) -> Inspected:
    path = folder / "file"
    path.write_bytes(content)
    return await decoders.inspect(path, content_type=content_type)


@pytest.mark.parametrize("content_type", media_files.IMAGE_TYPES)
async def test_pictures(decoders: Decoders, tmp_path: Path, content_type: str) -> None:
    found = await look(decoders, tmp_path, media_files.picture(content_type), content_type)
    assert (found.kind, found.width, found.height, found.pages) == (MediaKind.IMAGE, 640, 320, None)
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail), formats=["WEBP"]) as thumbnail:
        assert thumbnail.size == (512, 256)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
async def test_pictures_of_every_mode_have_a_thumbnail(decoders: Decoders, tmp_path: Path, mode: str) -> None:
    written = io.BytesIO()
    Image.new(mode, (40, 30)).save(written, "TIFF")
    found = await look(decoders, tmp_path, written.getvalue(), "image/tiff")
    assert found.thumbnail is not None


@pytest.mark.parametrize("content_type", ["video/mp4", "video/webm", "video/quicktime"])
async def test_videos_show_a_frame_after_their_beginning(decoders: Decoders, tmp_path: Path, content_type: str) -> None:
    found = await look(decoders, tmp_path, media_files.video(content_type), content_type)
    assert (found.kind, found.width, found.height, found.duration_seconds) == (MediaKind.VIDEO, 160, 96, 2.0)
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail)) as thumbnail:
        brightness: Any = thumbnail.convert("L").getpixel((80, 48))
    assert brightness > 200


async def test_documents_show_their_first_page(decoders: Decoders, tmp_path: Path) -> None:
    found = await look(decoders, tmp_path, media_files.document(pages=3), "application/pdf")
    assert (found.kind, found.width, found.pages) == (MediaKind.PDF, None, 3)
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail)) as thumbnail:
        assert thumbnail.size == (256, 512)


@pytest.mark.parametrize("box", [b"0 0 1000000 1000000", b"0 0 1e30 1e-30", b"0 0 0 0", b"0 0 14400 1"])
async def test_pages_of_any_size_are_small_pictures(decoders: Decoders, tmp_path: Path, box: bytes) -> None:
    found = await look(decoders, tmp_path, media_files.document(box=box), "application/pdf")
    if found.thumbnail is not None:
        with Image.open(io.BytesIO(found.thumbnail)) as thumbnail:
            assert max(thumbnail.size) <= 512


@pytest.mark.parametrize(
    ("content_type", "make", "told"),
    [
        ("image/png", lambda: b"", "no PNG"),
        ("image/png", lambda: b"<html>", "no PNG"),
        ("image/jpeg", lambda: media_files.picture("image/png"), "no JPEG"),
        ("image/jpeg", lambda: media_files.picture("image/jpeg")[:-200], "no JPEG"),
        ("image/gif", lambda: media_files.animation(50)[:-60], "no GIF"),
        ("image/tiff", lambda: media_files.picture("image/tiff")[:-200], "no TIFF"),
        ("image/gif", lambda: media_files.animation(1_001), "1,000 frames"),
        ("image/gif", lambda: media_files.animation(30, size=1_000), "in all"),
        ("image/png", lambda: media_files.pixel_bomb(2_001), "pixels"),
        ("image/png", media_files.pixel_bomb, "pixels"),
        ("application/pdf", lambda: b"%PDF-1.7\n", "broken"),
        ("application/pdf", lambda: b"\n" + media_files.document(), "no PDF"),
        ("application/pdf", lambda: media_files.document(pages=0), "broken"),
        ("application/pdf", lambda: media_files.flate_bomb(700), "memory"),
        ("application/pdf", lambda: media_files.many_pages(200_000), "200,000"),
        ("application/pdf", media_files.locked_document, "password"),
        ("video/mp4", lambda: media_files.video("video/quicktime"), "no MP4"),
        ("video/quicktime", lambda: media_files.video("video/mp4"), "no QuickTime"),
        ("video/mp4", lambda: media_files.video("video/mp4")[:-100], "cut off"),
        ("video/webm", lambda: media_files.video("video/mp4"), "no WebM"),
        ("video/webm", lambda: media_files.video("video/webm").replace(b"webm", b"matr"), "no WebM"),
        ("video/mp4", media_files.sound, "no moving picture"),
        ("video/mp4", lambda: b"\0\0\0\x10ftypisom\0\0\0\0", "broken"),
        ("video/quicktime", lambda: b"#EXTM3U\nfile:///etc/passwd\n", "broken"),
    ],
)
async def test_what_is_refused(decoders: Decoders, tmp_path: Path, content_type: str, make: Any, told: str) -> None:
    with pytest.raises(Rejected, match=told):
        await look(decoders, tmp_path, make(), content_type)


async def test_a_tiny_bomb_is_harmless(decoders: Decoders, tmp_path: Path) -> None:
    found = await look(decoders, tmp_path, media_files.tiny_bomb(), "application/pdf")
    assert found.pages == 1


async def test_a_broken_installation_is_no_fault_of_the_file(
    decoders: Decoders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ServiceUnavailable):
        await decoders.inspect(tmp_path / "nothing", content_type="image/png")
    monkeypatch.setattr(inspection, "_CHECKOUT", tmp_path)
    with pytest.raises(ServiceUnavailable):
        await look(decoders, tmp_path, media_files.picture(), "image/png")


async def test_few_files_are_looked_into_and_few_wait(tmp_path: Path) -> None:
    decoders = Decoders(places=1, memory_bytes=512 * 2**20, max_pixels=MAX_PIXELS)
    answers = await asyncio.gather(
        *(look(decoders, tmp_path, media_files.picture(), "image/png") for _ in range(8)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [Inspected] * 5 + [ServiceUnavailable] * 3
    assert (await look(decoders, tmp_path, media_files.picture(), "image/png")).width == 640
