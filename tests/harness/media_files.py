"""Files that people upload: sound ones of every type that is taken, and what is sent to break decoders."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from functools import cache
from typing import Any

import av
from PIL import Image, ImageDraw

IMAGE_TYPES = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/avif": "AVIF",
    "image/tiff": "TIFF",
}
_VIDEOS = {
    "video/mp4": ("mp4", "libx264"),
    "video/quicktime": ("mov", "libx264"),
    "video/webm": ("webm", "libvpx"),
}
SECRET_PLACE = "Calle Secreta 7"


@cache
def picture(
    content_type: str = "image/png", *, width: int = 640, height: int = 320, is_sideways: bool = False
) -> bytes:
    """A picture whose left half is red and right half blue; sideways ones say so in their EXIF, with a place."""
    image = Image.new("RGB", (width, height), "red")
    ImageDraw.Draw(image).rectangle((width // 2, 0, width, height), fill="blue")
    written = io.BytesIO()
    exif = Image.Exif()
    if is_sideways:
        exif[0x0112] = 6
        exif[0x010E] = SECRET_PLACE
    image.save(written, IMAGE_TYPES[content_type], exif=exif.tobytes() if is_sideways else b"")
    return written.getvalue()


@cache
def animation(frames: int, *, size: int = 8) -> bytes:
    """A GIF of so many frames, each of another colour."""
    images = [Image.new("RGB", (size, size), (number % 256, number // 256, 90)) for number in range(frames)]
    written = io.BytesIO()
    images[0].save(written, "GIF", save_all=True, append_images=images[1:])
    return written.getvalue()


@cache
def video(content_type: str = "video/mp4", *, seconds: int = 2) -> bytes:
    """A video of 160 by 96 that is black in its first tenth and white from then on."""
    container_format, codec = _VIDEOS[content_type]
    written = io.BytesIO()
    with av.open(written, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.time_base = Fraction(1, 10)
        for number in range(seconds * 10):
            image = Image.new("RGB", (160, 96), "black" if number < seconds else "white")
            frame: Any = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return written.getvalue()


@cache
def sound() -> bytes:
    """An MP4 in which nothing is to be seen."""
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1_024)
        frame.sample_rate = 44_100
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return written.getvalue()


def pdf(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalogue."""
    written = bytearray(b"%PDF-1.4\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(written))
        written += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(written)
    written += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    written += b"".join(b"%010d 00000 n \n" % place for place in places)
    written += b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(written)


def document(*, pages: int = 2, box: bytes = b"0 0 300 600", content: bytes = b"1 0 0 rg 0 0 300 600 re f") -> bytes:
    """A PDF with so many pages, all of them alike."""
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%b]>>" % (pages, b" ".join([b"4 0 R"] * pages)),
        _stream(content),
        b"<</Type/Page/Parent 2 0 R/MediaBox[%b]/Contents 3 0 R>>" % box,
    )


@cache
def locked_document() -> bytes:
    """A PDF that opens with a password only."""
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    written = io.BytesIO()
    canvas = Canvas(written, encrypt=StandardEncryption("secret", strength=128))
    canvas.drawString(72, 72, "locked")
    canvas.save()
    return written.getvalue()


@cache
def many_pages(count: int) -> bytes:
    """A PDF with so many page objects of their own, of few bytes each."""
    kids = b" ".join(b"%d 0 R" % number for number in range(3, 3 + count))
    pages = [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * count
    return pdf(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count %d/Kids[%b]>>" % (count, kids), *pages)


@cache
def flate_bomb(inflated_megabytes: int) -> bytes:
    """A PDF whose page is drawn by so much text, which is deflated twice."""
    text = b"0 0 m " * (2**20 // 6)
    squeezed = zlib.compressobj(9, wbits=-15)
    # A block that refers to nothing before it can be repeated.
    block = squeezed.compress(text) + squeezed.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(inflated_megabytes):
        check = zlib.adler32(text, check)
    once = b"\x78\xda" + block * inflated_megabytes + b"\x03\x00" + struct.pack(">I", check)
    twice = zlib.compress(once, 9)
    return document_of_stream(b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>" % len(twice), twice)


def tiny_bomb() -> bytes:
    """A PDF of some hundred bytes with a page of endless size, a stream of 2 GB and as many objects, it says."""
    return (
        b"%PDF-1.5\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
        b"2 0 obj\n<</Type/Pages/Count 1/Kids[3 0 R]>>\nendobj\n"
        b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 1e30 1e-30]/UserUnit 1e30/Contents 4 0 R>>\nendobj\n"
        b"4 0 obj\n<</Length 2147483647>>\nstream\nq 1e30 0 0 1e30 0 0 cm /X Do\nendstream\nendobj\n"
        b"trailer\n<</Size 2147483647/Root 1 0 R>>\n%%EOF\n"
    )


def document_of_stream(head: bytes, content: bytes) -> bytes:
    """A PDF of one page that is drawn by this stream."""
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
        head + b"\nstream\n" + content + b"\nendstream",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 3 0 R>>",
    )


@cache
def pixel_bomb(side: int = 30_000) -> bytes:
    """A PNG of `side` times `side` pixels in some hundred thousand bytes: 900 million pixels unless said otherwise."""
    squeezed = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(squeezed.compress(row) for _ in range(side)) + squeezed.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _stream(content: bytes) -> bytes:
    return b"<</Length %d>>\nstream\n%b\nendstream" % (len(content), content)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
