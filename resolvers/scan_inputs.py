"""What can be scanned: checked at once, so that nobody waits in a queue to be told no.

A file's type is what its content says: a PDF, a page, a Word document, or text; of plain text alone the name decides
what kind it is. Invariant: what is not of a type that somebody here can read is refused with the path of the input.
Looking into files is done in a thread and reads them piece by piece.
"""

from __future__ import annotations

import asyncio
import hashlib
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol
from uuid import UUID

from errors import PayloadTooLarge, ValidationFailed
from models.media import MediaKind
from models.permissions import Actor
from resolvers import access, media, sessions, texts
from tasks.scan.text_child import HTML, PDF
from tasks.scan.texts import CSV, MARKDOWN, PLAIN

DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
MAX_TEXT_BYTES: Final = 1_000_000
MAX_FILENAME_LENGTH: Final = 255
MAX_FOLDED_NAME: Final = 110
_HEAD_BYTES: Final = 1_024
_PIECE_BYTES: Final = 65_536
_BY_NAME: Final = {
    **dict.fromkeys((".md", ".markdown"), MARKDOWN),
    **dict.fromkeys((".csv", ".tsv"), CSV),
    **dict.fromkeys((".html", ".htm", ".xhtml"), HTML),
}
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NOT_READ: Final = "This is no text, Markdown, CSV, HTML or PDF file"


class Upload(Protocol):
    """A file that came with a request; it is on disk as long as that lasts."""

    @property
    def filename(self) -> str:
        """As the client calls it."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def sha256(self) -> str:
        """Its checksum, in lower-case hex."""

    @property
    def path(self) -> Path:
        """Where it is."""


@dataclass(frozen=True, slots=True)
class Input:
    """A document that may be scanned: its text, its medium, or the file to store."""

    document_key: str
    filename: str | None
    content_type: str
    size: int
    sha256: str
    text: str | None = None
    media_id: UUID | None = None
    path: Path | None = None


async def check(
    actor: Actor, *, text: str | None, media_id: str | None, upload: Upload | None, filename: str | None
) -> Input:
    """The input, if there is exactly one and it can be read.

    Raises ValidationFailed with the path, PayloadTooLarge, and what the gate of media raises.
    """
    given = [name for name, value in (("text", text), ("mediaId", media_id), ("upload", upload)) if value is not None]
    if len(given) != 1:
        path = ["input", given[1]] if given else ["input"]
        raise ValidationFailed("Give exactly one of `text`, `mediaId` and `upload`.", path=path)
    name = (
        None if filename is None else texts.line(filename, path=["input", "filename"], max_length=MAX_FILENAME_LENGTH)
    )
    if text is not None:
        return _text(text, name)
    if upload is not None:
        return await _file(upload, name)
    return await _medium(actor, media_id or "", name)


def document_key_of(filename: str) -> str:
    """What files of this name have in common: names that differ in case or writing are the same document."""
    folded = " ".join(unicodedata.normalize("NFKC", filename).casefold().split())
    if len(folded) > MAX_FOLDED_NAME:
        folded = hashlib.sha256(folded.encode()).hexdigest()
    return f"name:{folded}"


def _text(text: str, filename: str | None) -> Input:
    content = text.encode()
    if not text.strip():
        raise ValidationFailed("The text is empty.", path=["input", "text"])
    if len(content) > MAX_TEXT_BYTES:
        raise ValidationFailed(
            f"A text has at most {MAX_TEXT_BYTES:,} bytes; upload longer ones as a file.", path=["input", "text"]
        )
    digest = hashlib.sha256(content).hexdigest()
    key = f"text:{digest}" if filename is None else document_key_of(filename)
    return Input(key, filename, PLAIN, len(content), digest, text=text)


async def _medium(actor: Actor, media_id: str, filename: str | None) -> Input:
    try:
        row = await media.ready(actor, media_id, kinds=(MediaKind.PDF,))
    except ValidationFailed as error:
        raise ValidationFailed(error.message, path=["input", "mediaId"]) from None
    if row["owner_id"] != actor.user_id:
        # A scan is its maker's and tells of the document: an administrator's would carry it out of its owner's hands.
        raise access.missing()
    _check_size(row["size"], "mediaId")
    return Input(
        f"media:{row['id']}",
        filename or row["filename"],
        row["content_type"],
        row["size"],
        row["sha256"],
        media_id=row["id"],
    )


async def _file(upload: Upload, filename: str | None) -> Input:
    name = filename or _basename(upload.filename)
    if upload.size == 0:
        raise ValidationFailed("The file is empty.", path=["input", "upload"])
    _check_size(upload.size, "upload")
    content_type = await asyncio.to_thread(_look_into, upload.path, name)
    return Input(document_key_of(name), name, content_type, upload.size, upload.sha256, path=upload.path)


def _check_size(size: int, field: str) -> None:
    megabytes = sessions.settings().scan_max_megabytes
    if size > megabytes * 2**20:
        raise PayloadTooLarge(
            f"A file to scan has at most {megabytes} MiB.", path=["input", field], maxBytes=megabytes * 2**20
        )


def _basename(filename: str) -> str:
    """The last part of a name that a client sent, without what is not printable; never a path."""
    last = PurePosixPath(filename.replace("\\", "/")).name
    visible = "".join(each for each in unicodedata.normalize("NFC", last) if each.isprintable()).strip()
    return visible[:MAX_FILENAME_LENGTH] or "document"


def _look_into(path: Path, filename: str) -> str:
    """The type of a file by its content; raises ValidationFailed."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if b"%PDF-" in head:
        return PDF
    if head.startswith(b"PK\x03\x04"):
        return _word_document(path)
    if not head.startswith(_BYTE_ORDER_MARKS) and _holds_nul(path):
        raise ValidationFailed(f"{_NOT_READ}.", path=["input", "upload"])
    if _is_blank(path):
        raise ValidationFailed("The file holds no text.", path=["input", "upload"])
    beginning = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        return HTML
    return _BY_NAME.get(PurePosixPath(filename).suffix.lower(), PLAIN)


def _word_document(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            is_word = "word/document.xml" in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        is_word = False
    if not is_word:
        raise ValidationFailed(f"{_NOT_READ}.", path=["input", "upload"])
    if sessions.settings().ai_service_url is None:
        raise ValidationFailed("Word documents are not read here; save it as PDF.", path=["input", "upload"])
    return DOCX


def _holds_nul(path: Path) -> bool:
    with path.open("rb") as file:
        return any(b"\0" in piece for piece in iter(lambda: file.read(_PIECE_BYTES), b""))


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        return not any(
            piece.strip(b" \t\r\n\v\f\0\xff\xfe\xef\xbb\xbf") for piece in iter(lambda: file.read(_PIECE_BYTES), b"")
        )
