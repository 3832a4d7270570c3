"""Files that come with an operation: the GraphQL multipart request specification, streamed to disk.

A form brings `operations`, then `map`, then the files. Invariants: nothing of a file is taken before its caller is
known and the operation has passed its checks; a file is counted and hashed while it arrives, in pieces and never whole
in memory; a form is bounded as a whole, whatever it is made of; every place in `map` is a null of the type Upload in
the variables; the folder of a request goes with the request, however that ends. Whoever sends slower than
MIN_BYTES_PER_SECOND on the whole is refused, and nobody takes all places for forms.

Left out: what a file holds, and how large it may be for one field: those who take it look themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, Final, NewType
from uuid import UUID

import strawberry
from graphql import GraphQLInputObjectType, GraphQLList, GraphQLSchema, get_nullable_type, type_from_ast
from strawberry.types.scalar import ScalarDefinition

from errors import Forbidden, PayloadTooLarge, ServiceUnavailable, ValidationFailed
from schema.credentials import RawHeaders
from schema.documents import Operation
from schema.multipart import FormReader, PartHead, Piece
from schema.requests import OperationRequest, operation_request, read_json
from settings import Settings

MAX_FILES: Final = 5
SMALL_FILE_BYTES: Final = 10 * 2**20
"""What clients may send in a form; larger media go to storage by `createUpload`."""

FORMS_AT_ONCE: Final = 16
"""Of one process: together they take this often MAX_FILES files of disk."""

FORMS_OF_ONE_USER: Final = 4
"""Of them, so that one user who sends slowly does not keep everybody else from sending."""

MIN_BYTES_PER_SECOND: Final = 32_768
ABANDONED_SECONDS: Final = 86_400.0
PREFLIGHT_HEADERS: Final = ("X-Requested-With", "GraphQL-Preflight", "Apollo-Require-Preflight")
"""A page of another origin cannot send these without being asked for leave first, as it can send a form (Fetch §2.2.2).
"""

_WRITE_BYTES: Final = 512 * 2**10
_FRAME_BYTES: Final = 65_536
"""What a form may have besides its texts and files: heads of parts, delimiters, what stands before and after."""

_MAX_INDEX_DIGITS: Final = 6
_MAX_NAME_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file that came with the request; it is on disk as long as that lasts. `sha256` is lower-case hex.

    `filename` and `content_type` are the client's words: the name has no folders and nothing unprintable.
    """

    filename: str
    content_type: str
    size: int
    sha256: str
    path: Path = field(repr=False)

    def open(self) -> BinaryIO:
        """The content, for reading; it blocks, so use it in a thread."""
        return self.path.open("rb")


Upload = NewType("Upload", UploadedFile)
"""The scalar's type in inputs."""


def _read_upload(value: Any) -> Any:
    if not isinstance(value, UploadedFile):
        raise ValueError("Expected a file: send the operation as multipart/form-data.")
    return value


def _never_written(_: Any) -> Any:
    raise ValueError("files go in only")


SCALARS: Final[dict[object, ScalarDefinition]] = {
    Upload: strawberry.scalar(
        name="Upload",
        description="A file that is sent with the operation, as multipart/form-data: null in the variables, and its "
        "place named in `map`. Such requests need a session or a token and one of the headers "
        f"{', '.join(PREFLIGHT_HEADERS)}, with any value.",
        specified_by_url="https://github.com/jaydenseric/graphql-multipart-request-spec",
        serialize=_never_written,
        parse_value=_read_upload,
    )
}
"""For `StrawberryConfig(scalar_map=…)`, with those of `schema/scalars.py`."""


def refuse_without_preflight(headers: RawHeaders) -> None:
    """Raise Forbidden unless one of PREFLIGHT_HEADERS is there and not empty, cookies or none."""
    wanted = {name.lower().encode() for name in PREFLIGHT_HEADERS}
    if not any(name in wanted and value.strip() for name, value in headers):
        raise Forbidden(f"Send files with one of the headers {', '.join(PREFLIGHT_HEADERS)}: any page can send a form.")


class UploadDesk:
    """Takes in the forms of one process; the folder is made when it is needed."""

    def __init__(self, settings: Settings, schema: GraphQLSchema) -> None:
        self.max_file_bytes = max(SMALL_FILE_BYTES, settings.scan_max_megabytes * 2**20)
        self.max_text_bytes = settings.max_body_bytes
        self.max_form_bytes = MAX_FILES * self.max_file_bytes + 2 * self.max_text_bytes + _FRAME_BYTES
        self.patience_seconds = settings.body_timeout_seconds
        self._folder = (settings.data_dir / "uploads").absolute()
        self._schema = schema
        self._present: Counter[UUID | None] = Counter()

    @contextmanager
    def form(self, chunks: AsyncIterator[bytes], boundary: str, *, user_id: UUID | None) -> Iterator[UploadForm]:
        """One form of a user, with a folder that goes when the block is left.

        Raises ServiceUnavailable when there are many, of this user or in all.
        """
        if self._present[user_id] >= FORMS_OF_ONE_USER:
            raise ServiceUnavailable(
                f"{FORMS_OF_ONE_USER} of your forms arrive at the moment; send one after another.", retryAfterSeconds=2
            )
        if self._present.total() >= FORMS_AT_ONCE:
            raise ServiceUnavailable("Too many files arrive at the moment.", retryAfterSeconds=2)
        self._present[user_id] += 1
        folder = self._folder / f"{int(time.time())}-{token_hex(8)}"
        try:
            yield UploadForm(self, self._schema, chunks, boundary, folder)
        finally:
            self._present[user_id] -= 1
            if not self._present[user_id]:
                del self._present[user_id]
            shutil.rmtree(folder, ignore_errors=True)

    def make(self, folder: Path) -> None:
        """Make the folder of a form; removes what a killed process left behind long ago."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in self._folder.iterdir():
            begun = other.name.partition("-")[0]
            if begun.isdigit() and int(begun) < time.time() - ABANDONED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(mode=0o700)


class UploadForm:
    """A form as it arrives: `read` it once.

    Raises ValidationFailed, PayloadTooLarge, TimeoutError when it comes too slowly, and what its chunks raise.
    """

    def __init__(
        self, desk: UploadDesk, schema: GraphQLSchema, chunks: AsyncIterator[bytes], boundary: str, folder: Path
    ) -> None:
        self._desk = desk
        self._schema = schema
        self._folder = folder
        self._reader = FormReader(boundary, max_parts=2 + MAX_FILES)
        self._bodies = chunks
        self._pieces: list[Piece] = []
        self._received = 0
        self._begun = asyncio.get_running_loop().time()

    async def read(
        self, check: Callable[[OperationRequest], Awaitable[Operation]]
    ) -> tuple[Operation, OperationRequest]:
        """The operation, which `check` admits before any file is taken, with the files in its variables."""
        request = operation_request(read_json(await self._text("operations")))
        places = _read_map(read_json(await self._text("map")))
        operation = await check(request)
        for path in (path for paths in places.values() for path in paths):
            _check_place(self._schema, operation, request.variables, path)
        left = dict(places)
        while (piece := await self._next()) is not None:
            if not isinstance(piece, PartHead) or piece.name not in left:
                raise ValidationFailed("The form has a part that `map` does not name, or the same one twice.")
            received = await self._file(piece)
            for path in left.pop(piece.name):
                _place(request.variables, path, received)
        if left:
            raise ValidationFailed(f"The file {next(iter(left))!r} of `map` is missing.", path=["map"])
        return operation, request

    async def _text(self, name: str) -> bytes:
        head = await self._next()
        if not isinstance(head, PartHead) or head.name != name:
            raise ValidationFailed("A form has the parts `operations`, `map` and then the files, in this order.")
        content = bytearray()
        while isinstance(piece := await self._next(), bytes):
            content += piece
            if len(content) > self._desk.max_text_bytes:
                raise PayloadTooLarge(
                    f"`{name}` is larger than {self._desk.max_text_bytes} bytes.", maxBytes=self._desk.max_text_bytes
                )
        return bytes(content)

    async def _file(self, head: PartHead) -> UploadedFile:
        if not self._folder.exists():
            await asyncio.to_thread(self._desk.make, self._folder)
        path = self._folder / token_hex(8)
        digest = hashlib.sha256()
        size = 0
        waiting: list[bytes] = []
        waiting_bytes = 0

        def write() -> None:
            for chunk in waiting:
                digest.update(chunk)
            file.writelines(waiting)

        with await asyncio.to_thread(path.open, "xb") as file:
            while isinstance(piece := await self._next(), bytes):
                size += len(piece)
                if size > self._desk.max_file_bytes:
                    raise PayloadTooLarge(
                        f"A file in a form has at most {self._desk.max_file_bytes} bytes.",
                        maxBytes=self._desk.max_file_bytes,
                    )
                waiting.append(piece)
                waiting_bytes += len(piece)
                if waiting_bytes >= _WRITE_BYTES:
                    await asyncio.to_thread(write)
                    waiting, waiting_bytes = [], 0
            await asyncio.to_thread(write)
        return UploadedFile(
            filename=tidy_filename(head.filename or ""),
            content_type=(head.content_type or "application/octet-stream")[:_MAX_NAME_LENGTH],
            size=size,
            sha256=digest.hexdigest(),
            path=path,
        )

    async def _next(self) -> Piece | None:
        """The next piece; None when the form is over."""
        while not self._pieces:
            allowed = self._desk.patience_seconds + self._received / MIN_BYTES_PER_SECOND
            async with asyncio.timeout_at(self._begun + allowed):
                chunk = await anext(self._bodies, None)
            if chunk is None:
                self._reader.end()
                return None
            self._received += len(chunk)
            if self._received > self._desk.max_form_bytes:
                raise PayloadTooLarge(
                    f"A form has at most {self._desk.max_form_bytes} bytes.", maxBytes=self._desk.max_form_bytes
                )
            self._pieces = self._reader.feed(chunk)[::-1]
        return self._pieces.pop()


def tidy_filename(name: str) -> str:
    """A name without folders, control characters and marks that turn the reading direction; `file` for nothing."""
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    tidy = "".join(character for character in last if character.isprintable()).strip(" .")
    return tidy[:_MAX_NAME_LENGTH] or "file"


Place = tuple[str, ...]


def _read_map(value: Any) -> Mapping[str, list[Place]]:
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_FILES:
        raise ValidationFailed(f"`map` must name 1 to {MAX_FILES} files.", path=["map"])
    places: dict[str, list[Place]] = {}
    seen: set[Place] = set()
    for name, paths in value.items():
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
            raise ValidationFailed("`map` must lead from files to lists of places.", path=["map", name])
        places[name] = [tuple(path.split(".")) for path in paths]
        for place in places[name]:
            if place in seen or len(seen) >= MAX_FILES:
                raise ValidationFailed("`map` names a place twice, or too many of them.", path=["map", name])
            seen.add(place)
    return places


def _check_place(schema: GraphQLSchema, operation: Operation, variables: Mapping[str, Any], place: Place) -> None:
    """Refuse a place that is no null of the type Upload in the variables; raises ValidationFailed."""
    declared = {node.variable.name.value: node.type for node in operation.definition.variable_definitions or ()}
    if len(place) < 2 or place[0] != "variables" or place[1] not in declared:
        raise _no_place(place)
    kind: Any = type_from_ast(schema, declared[place[1]])
    found: Any = variables.get(place[1])
    for step in place[2:]:
        kind = get_nullable_type(kind)
        if isinstance(kind, GraphQLList) and isinstance(found, list) and _is_index(step, len(found)):
            kind, found = kind.of_type, found[int(step)]
        elif isinstance(kind, GraphQLInputObjectType) and isinstance(found, dict) and step in kind.fields:
            kind, found = kind.fields[step].type, found.get(step)
        else:
            raise _no_place(place)
    if getattr(get_nullable_type(kind), "name", None) != "Upload" or found is not None:
        raise _no_place(place)


def _is_index(step: str, length: int) -> bool:
    """Whether a step is the one way to write a place in a list; Python reads no number of thousands of digits."""
    return len(step) <= _MAX_INDEX_DIGITS and step.isdecimal() and int(step) < length and str(int(step)) == step


def _place(variables: dict[str, Any], place: Place, file: UploadedFile) -> None:
    target: Any = variables
    for step in place[1:-1]:
        target = target[int(step) if isinstance(target, list) else step]
    target[int(place[-1]) if isinstance(target, list) else place[-1]] = file


def _no_place(place: Place) -> ValidationFailed:
    return ValidationFailed(
        "A place in `map` must be a null of the type Upload in the variables.", path=["map", ".".join(place)[:200]]
    )
