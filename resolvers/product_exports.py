"""Products to a file: a link that leads to all that fit some conditions, written while it is read.

Invariant: memory does not grow with the number of products, which are read page by page in the order of their making; a
product that changes meanwhile is there once, as it was when its page was read. The conditions travel in the link.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import AsyncGenerator
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Final

import orjson

from errors import NotFound, ValidationFailed
from models import database, product_search
from models.audit import AuditEvent
from models.database import Row
from models.permissions import Actor, Permission
from models.product_search import ProductConditions, ProductOrderField
from models.transaction import unit_of_work
from resolvers import access, product_csv, products

PAGE: Final = 500
MAX_TOKEN_LENGTH: Final = 480
_MAX_CONDITIONS_BYTES: Final = 65_536


async def start(actor: Actor, wanted: ProductConditions) -> str:
    """The conditions as text for a link; raises ValidationFailed when they are too long for one."""
    access.allow(actor, Permission.PRODUCT_WRITE)
    visible = products.visible(actor, wanted)
    if visible is None:
        raise access.missing()
    token = write_token(visible)
    async with unit_of_work():
        given = sorted(name for name, value in asdict(visible).items() if value not in (None, ()))
        await AuditEvent.record(actor, "exportProducts", target_type="product_export", details={"conditions": given})
    return token


def write_token(wanted: ProductConditions) -> str:
    """Conditions as text of letters, digits, `-` and `_`; raises ValidationFailed when it is too long."""
    given = {name: value for name, value in asdict(wanted).items() if value not in (None, ())}
    packed = zlib.compress(orjson.dumps(given, default=str), level=9)
    token = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    if len(token) > MAX_TOKEN_LENGTH:
        raise ValidationFailed("These conditions are too long for a link.", path=["input", "filter"])
    return token


def read_token(token: str) -> ProductConditions:
    """The conditions that `write_token` wrote; raises NotFound for anything else."""
    try:
        packed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        given = orjson.loads(zlib.decompressobj().decompress(packed, _MAX_CONDITIONS_BYTES))
    except (ValueError, binascii.Error, zlib.error):
        raise NotFound("This export does not exist.") from None
    for name, kind in (("price_min", Decimal), ("price_max", Decimal), ("updated_after", datetime.fromisoformat)):
        if name in given:
            given[name] = kind(given[name])
    if "categories" in given:
        given["categories"] = tuple(given["categories"])
    given["attributes"] = tuple((name, value) for name, value in given.get("attributes", ()))
    return ProductConditions(**given)


async def read(wanted: ProductConditions) -> AsyncGenerator[bytes, None]:
    """The file, piece by piece; the header is always there."""
    rows = await _page(wanted, None)
    yield product_csv.written([_readable(row) for row in rows], header=True)
    while len(rows) == PAGE:
        rows = await _page(wanted, rows[-1])
        yield product_csv.written([_readable(row) for row in rows], header=False)


async def _page(wanted: ProductConditions, last: Row | None) -> list[Row]:
    return await product_search.page(
        wanted,
        order=ProductOrderField.CREATED,
        descending=False,
        after=None if last is None else (last["id"],),
        limit=PAGE,
    )


def _readable(row: Row) -> Row:
    return {**row, "attributes": database.from_json(row["attributes"])}
