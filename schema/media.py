"""Media as clients see them: uploads in two steps or in one, lists, and addresses that expire.

What is allowed is decided in `resolvers/media.py` and at the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import strawberry

from adapters.storage import PresignedPut
from models import media_queries
from models.database import Row
from models.ids import Prefix, encode_id
from models.media import MediaKind, MediaStatus
from models.permissions import Permission
from models.users import Account, find_accounts
from resolvers import access, media, texts
from schema.context import Context
from schema.enums import publish
from schema.node import Node, register_node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.scalars import BigInt
from schema.uploads import Upload, UploadedFile
from schema.users import User

Info = strawberry.Info[Context, None]

publish(
    MediaStatus,
    "Where an upload stands.",
    PENDING="It was promised, and not completed yet.",
    READY="It was looked into and can be used.",
    REJECTED="It was not what it was announced as; `rejection` says why.",
)
publish(
    MediaKind,
    "What a file is, as its decoder found.",
    IMAGE="A picture: PNG, JPEG, GIF, WebP, AVIF or TIFF.",
    PDF="A PDF document.",
    VIDEO="A video: MP4, WebM or QuickTime.",
)

ExpiresIn = Annotated[
    int | None,
    strawberry.argument(description="For how many seconds: 60 to 604,800; an hour unless the installation says so."),
]


@strawberry.type(description="An uploaded file.")
class Media(Node):
    """A medium."""

    status: MediaStatus = strawberry.field(description="Where its upload stands.")
    filename: str = strawberry.field(description="As its uploader called it; the content decides what it is.")
    content_type: str = strawberry.field(description="Its media type, such as image/png.")
    size: BigInt = strawberry.field(description="Its bytes.")
    sha256: str = strawberry.field(description="Its SHA-256 checksum, in hexadecimal digits.")
    kind: MediaKind | None = strawberry.field(description="What it is; null unless it is READY.")
    width: int | None = strawberry.field(description="Pixels of a picture or video from left to right, upright.")
    height: int | None = strawberry.field(description="Pixels of a picture or video from top to bottom, upright.")
    pages: int | None = strawberry.field(description="Pages of a PDF.")
    duration_seconds: float | None = strawberry.field(
        description="How long a video lasts; null where its file does not say."
    )
    rejection: str | None = strawberry.field(description="Why it was refused; null unless it was.")
    created_at: datetime = strawberry.field(description="When the upload was begun.")
    completed_at: datetime | None = strawberry.field(description="When it was looked into; null before.")
    upload_until: datetime | None = strawberry.field(
        description="Until when it is to be sent; null once it was looked into."
    )
    row: strawberry.Private[Row]

    @strawberry.field(description="Who uploaded it.")
    async def owner(self, info: Info) -> User | None:
        """Loaded for all media of the answer at once."""
        account = await info.context.load(_load_owners, self.row["owner_id"])
        return None if account is None else User.seen_by(info.context.actor, account)

    @strawberry.field(
        description="An address of the file that expires; whoever has it needs nothing else. Null unless it is READY. "
        "Browsers show pictures and videos, and save everything else."
    )
    async def url(self, expires_in: ExpiresIn = None) -> str | None:
        """Signed for this answer."""
        return await media.link(self.row, expires_in=expires_in, is_thumbnail=False)

    @strawberry.field(
        description="An address of a WebP picture of at most 512 by 512 pixels: the picture, a PDF's first page, or a "
        "frame of the video. Null where there is none."
    )
    async def thumbnail_url(self, expires_in: ExpiresIn = None) -> str | None:
        """Signed for this answer."""
        return await media.link(self.row, expires_in=expires_in, is_thumbnail=True)


@strawberry.type(description="A header of an HTTP request.")
class UploadHeader:
    """A header."""

    name: str = strawberry.field(description="Its name.")
    value: str = strawberry.field(description="Its value.")


@strawberry.type(description="The HTTP request that sends a file: exactly these headers, and the file as its body.")
class UploadTarget:
    """Where to send a file."""

    url: str = strawberry.field(description="Where to. Good until `uploadUntil` of the medium, and for one file only.")
    method: str = strawberry.field(description="The method: PUT.")
    headers: list[UploadHeader] = strawberry.field(description="The headers to set.")


@strawberry.input(description="Which media; all given conditions must hold.")
class MediaFilter:
    """Conditions."""

    kind: MediaKind | None = strawberry.field(default=None, description="Of this kind.")
    status: MediaStatus | None = strawberry.field(default=None, description="Whose uploads stand so.")
    search: str | None = strawberry.field(
        default=None, description="With this text in the file's name, in any case; up to 200 characters."
    )


@strawberry.input(description="A file to be sent to storage.")
class CreateUploadInput:
    """An announcement."""

    filename: str = strawberry.field(description="Its name: 1 to 255 characters, without folders.")
    content_type: str = strawberry.field(
        description="What it is: image/png, image/jpeg, image/gif, image/webp, image/avif, image/tiff, "
        "application/pdf, video/mp4, video/webm or video/quicktime."
    )
    size: BigInt = strawberry.field(description="Its bytes, at most 100 MiB unless the installation says otherwise.")
    sha256: str = strawberry.field(description="Its SHA-256 checksum, in hexadecimal digits.")
    idempotency_key: str | None = strawberry.field(
        default=None, description="Repeat a call with its key, and it answers with the medium that the first call made."
    )


@strawberry.input(description="Which upload is done.")
class CompleteUploadInput:
    """An upload that was sent."""

    id: strawberry.ID = strawberry.field(description="The medium.")


@strawberry.input(description="A small file.")
class UploadMediaInput:
    """A file in the request."""

    file: Upload = strawberry.field(
        description="The file: at most 10 MiB, with its media type in its part of the form."
    )


@strawberry.input(description="Which medium goes.")
class DeleteMediaInput:
    """A medium to delete."""

    id: strawberry.ID = strawberry.field(description="The medium.")


@strawberry.type(description="A medium, and how to send its file.")
class CreateUploadPayload:
    """A promise."""

    media: Media = strawberry.field(description="The medium, which waits for its file.")
    upload: UploadTarget | None = strawberry.field(
        description="How to send it; null when a repeated call finds that it is not to be sent any more."
    )


@strawberry.type(description="A medium.")
class MediaPayload:
    """What uploads end with."""

    media: Media = strawberry.field(description="The medium as it is now.")


@strawberry.type(description="A medium that is gone.")
class DeleteMediaPayload:
    """A medium that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class MediaQuery:
    """What can be read of media."""

    @strawberry.field(
        description="Your media, newest first; those of all users for administrators.",
        extensions=[requires(Permission.MEDIA_READ)],
    )
    async def media(
        self,
        info: Info,
        filter: Annotated[MediaFilter | None, strawberry.argument(description="Which media.")] = None,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Media]:
        """One page of media, in one statement."""
        actor = info.context.actor
        wanted = filter or MediaFilter()
        search = texts.search(wanted.search)

        async def page(**bounds: Any) -> list[Row]:
            return await media.page(actor, kind=wanted.kind, status=wanted.status, search=search, **bounds)

        return await paginate(
            fetch=by_one_key(page),
            count=lambda: media.count(actor, kind=wanted.kind, status=wanted.status, search=search),
            first=first,
            after=after,
            last=last,
            before=before,
            node=media_of,
        )

    @strawberry.field(
        description="A medium. NOT_FOUND when there is none, or it is not yours.",
        extensions=[requires(Permission.MEDIA_READ)],
    )
    async def media_item(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The medium.")]
    ) -> Media | None:
        """One medium."""
        return media_of(await access.medium(info.context.actor, id, to=Permission.MEDIA_READ))


@strawberry.type
class MediaMutation:
    """What administrators do with media."""

    @strawberry.mutation(
        description="Announce a file of any size that is taken: answers with the request that sends it to storage. "
        "Send it, then call `completeUpload`. VALIDATION_ERROR for types that are not taken, PAYLOAD_TOO_LARGE, and "
        "CONFLICT when your media would take more than they may.",
        extensions=[requires(Permission.MEDIA_WRITE)],
    )
    async def create_upload(
        self, info: Info, input: Annotated[CreateUploadInput, strawberry.argument(description="The file.")]
    ) -> CreateUploadPayload:
        """A promise."""
        row, target = await media.create_upload(
            info.context.actor,
            filename=input.filename,
            content_type=input.content_type,
            size=input.size,
            sha256=input.sha256,
            idempotency_key=input.idempotency_key,
        )
        return CreateUploadPayload(media=media_of(row), upload=None if target is None else _target_of(target))

    @strawberry.mutation(
        description="Have a file that was sent looked into. VALIDATION_ERROR, and the medium REJECTED, when it is not "
        "what it was announced as; CONFLICT before it was sent; SERVICE_UNAVAILABLE when many wait. Again is fine.",
        extensions=[requires(Permission.MEDIA_WRITE)],
    )
    async def complete_upload(
        self, info: Info, input: Annotated[CompleteUploadInput, strawberry.argument(description="Which upload.")]
    ) -> MediaPayload:
        """A medium that can be used."""
        return MediaPayload(media=media_of(await media.complete_upload(info.context.actor, input.id)))

    @strawberry.mutation(
        description="Upload a small file with the request itself, as multipart/form-data; fails as `createUpload` and "
        "`completeUpload` do.",
        extensions=[requires(Permission.MEDIA_WRITE)],
    )
    async def upload_media(
        self, info: Info, input: Annotated[UploadMediaInput, strawberry.argument(description="The file.")]
    ) -> MediaPayload:
        """A medium that can be used."""
        file: UploadedFile = input.file
        row = await media.upload(
            info.context.actor,
            filename=file.filename,
            content_type=file.content_type,
            size=file.size,
            sha256=file.sha256,
            file=file.path,
        )
        return MediaPayload(media=media_of(row))

    @strawberry.mutation(
        description="Delete a medium and its file: products lose it, and what was read or found in it stays.",
        extensions=[requires(Permission.MEDIA_WRITE)],
    )
    async def delete_media(
        self, info: Info, input: Annotated[DeleteMediaInput, strawberry.argument(description="Which medium.")]
    ) -> DeleteMediaPayload:
        """The end of a medium."""
        await media.delete(info.context.actor, input.id)
        return DeleteMediaPayload(deleted_id=input.id)


def media_of(row: Row) -> Media:
    """The medium in a row with `models.media_queries.COLUMNS`."""
    return Media(
        id=strawberry.ID(encode_id(Prefix.MEDIA, row["id"])),
        status=MediaStatus(row["status"]),
        filename=row["filename"],
        content_type=row["content_type"],
        size=BigInt(row["size"]),
        sha256=row["sha256"],
        kind=None if row["kind"] is None else MediaKind(row["kind"]),
        width=row["width"],
        height=row["height"],
        pages=row["pages"],
        duration_seconds=row["duration_seconds"],
        rejection=row["rejection"],
        created_at=row["created_at"],
        completed_at=row["completed_at"],
        upload_until=row["upload_until"],
        row=row,
    )


def _target_of(target: PresignedPut) -> UploadTarget:
    headers = [UploadHeader(name=name, value=value) for name, value in target.headers.items()]
    return UploadTarget(url=target.url, method=target.method, headers=headers)


@register_node(Prefix.MEDIA)
async def _media_node(context: Context, media_id: UUID) -> Media | None:
    if not context.actor.may(Permission.MEDIA_READ):
        return None
    row = await context.load(_load_media, media_id)
    is_visible = row is not None and access.sees_work(context.actor, row["owner_id"], None)
    return media_of(row) if row is not None and is_visible else None


async def _load_media(_context: Context, media_ids: list[UUID]) -> Sequence[Row | None]:
    found = await media_queries.find(media_ids)
    return [found.get(media_id) for media_id in media_ids]


async def _load_owners(_context: Context, user_ids: list[UUID]) -> Sequence[Account | None]:
    found = await find_accounts(user_ids)
    return [found.get(user_id) for user_id in user_ids]
