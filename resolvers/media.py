"""Media: what others may do with them. A medium is its uploader's; administrators see all."""

from __future__ import annotations

from collections.abc import Collection

from errors import Conflict, ValidationFailed
from models import media_queries
from models.database import Row
from models.ids import Prefix
from models.media import MediaKind, MediaStatus
from models.permissions import Actor, Permission
from resolvers import access


async def ready(actor: Actor, media_id: str, *, kinds: Collection[MediaKind]) -> Row:
    """A medium that the actor may see, that was checked, and that is one of these kinds.

    Raises NotFound, Conflict while it is not READY, ValidationFailed for another kind.
    """
    key = access.uuid_of(media_id, Prefix.MEDIA)
    row = (await media_queries.find([key])).get(key)
    if row is None or not access.sees_work(actor, row["owner_id"], None):
        raise access.missing()
    access.allow(actor, Permission.MEDIA_READ)
    if row["status"] != MediaStatus.READY:
        raise Conflict("This medium is not ready: its upload was not completed, or refused.", status=row["status"])
    if row["kind"] not in kinds:
        told = ", ".join(sorted(kind.value for kind in kinds))
        raise ValidationFailed(f"This takes media of these kinds only: {told}.", kind=row["kind"])
    return row
