"""Pictures, documents and videos of products: which, in what order, and what they show.

Invariant: only media that were looked into and found sound belong to a product. Whoever sees a product sees its media,
whoever uploaded them: links are made here, for what the caller has let through the gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from adapters import storage
from errors import Conflict, ValidationFailed
from models import database, media_queries, product_queries
from models.audit import AuditEvent
from models.database import Row
from models.ids import Prefix
from models.media import MediaStatus
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, sessions, texts

MAX_MEDIA: Final = 20
MAX_ALT_LENGTH: Final = 255


async def replace(actor: Actor, product_id: str, items: Sequence[tuple[str, str]]) -> Row:
    """Give a product these media, as id and description, in this order, and no others; returns the product.

    Raises ValidationFailed with the path, NotFound for a medium that is not there, Conflict for one that is not ready.
    """
    row = await access.product(actor, product_id, to=Permission.PRODUCT_WRITE)
    if len(items) > MAX_MEDIA:
        raise ValidationFailed(f"A product has at most {MAX_MEDIA} media.", path=["input", "items"])
    media = [
        (access.uuid_of(media_id, Prefix.MEDIA), _alt(alt, ["input", "items", place, "alt"]))
        for place, (media_id, alt) in enumerate(items)
    ]
    if len({media_id for media_id, _ in media}) < len(media):
        raise ValidationFailed("Each medium can be there once.", path=["input", "items"])
    async with unit_of_work():
        await product_queries.lock_writes()
        if await product_queries.lock(row["id"]) is None:
            raise access.missing()
        await _refuse_unready([media_id for media_id, _ in media])
        await product_queries.set_media(row["id"], media)
        await AuditEvent.record(
            actor,
            "setProductMedia",
            target_type="product",
            target_id=row["id"],
            details={"media": [str(media_id) for media_id, _ in media]},
        )
        return (await product_queries.find([row["id"]]))[row["id"]]


async def of_products(product_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """The media of products, each in its place; the caller has let its reader see the products."""
    found: dict[UUID, list[Row]] = {product_id: [] for product_id in product_ids}
    for row in await product_queries.media(product_ids):
        found[row["product_id"]].append(row)
    return found


async def url(row: Row) -> str:
    """A link to a medium that expires."""
    return await storage.current().presigned_get(
        media_queries.object_key(row["media_id"]),
        expires_seconds=sessions.settings().download_url_seconds,
        filename=row["filename"],
        content_type=row["content_type"],
        inline=True,
    )


def _alt(alt: str, path: list[Any]) -> str:
    return texts.line(alt, path=path, max_length=MAX_ALT_LENGTH) if alt.strip() else ""


async def _refuse_unready(media_ids: Sequence[UUID]) -> None:
    """See that media are there and ready, and keep them there until the transaction ends."""
    found = {
        row["id"]: row["status"]
        for row in await database.rows(
            "SELECT id, status FROM media WHERE id = ANY($1::uuid[]) ORDER BY id FOR KEY SHARE", list(media_ids)
        )
    }
    if found.keys() < set(media_ids):
        raise access.missing()
    for place, media_id in enumerate(media_ids):
        if found[media_id] != MediaStatus.READY.value:
            raise Conflict(
                "The medium is not ready.", path=["input", "items", place, "mediaId"], status=found[media_id]
            )
