"""Products: made, changed and deleted by administrators, read by everybody as long as they are active.

Invariants: slug, SKU and EAN name one product each; every price that a product ever had is in its history; a change
that names a version meets exactly that version. Whoever changes products waits for whoever else does, so that what was
checked stays true and nobody deadlocks; stock is adjusted in one statement and waits for its own product only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from errors import Conflict, Unauthorized, ValidationFailed
from models import database, product_keys, product_queries, product_search
from models.audit import AuditEvent
from models.database import Row
from models.idempotency import once
from models.ids import new_id
from models.permissions import Actor, Permission
from models.product_search import ProductConditions, ProductOrderField
from models.products import PriceSource
from models.transaction import unit_of_work
from resolvers import access, product_rules, texts
from resolvers.product_rules import Path

INPUT: Final[Path] = ("input",)
MAX_REASON_LENGTH: Final = 255
MAX_FILTER_CATEGORIES: Final = 50
MAX_FILTER_ATTRIBUTES: Final = 10
MAX_FILTER_TEXT_LENGTH: Final = 255
_KEYS: Final = {"slug": "slug", "sku_key": "sku", "ean": "ean"}
_TAKEN: Final = {
    "slug": "Another product has this slug.",
    "sku_key": "Another product has this SKU.",
    "ean": "Another product has this EAN.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductDraft:
    """A product to be; the slug is made from the name where it is left out."""

    name: str
    slug: str | None = None
    sku: str | None = None
    ean: str | None = None
    description: str = ""
    price: Decimal | None = None
    currency: str | None = None
    unit: str | None = None
    stock: Decimal | None = None
    category: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_active: bool = True

    def columns(self) -> dict[str, Any]:
        """The columns by their names, the slug only when there is one."""
        given = {part.name: getattr(self, part.name) for part in fields(self)}
        if self.slug is None:
            del given["slug"]
        return given


async def create(
    actor: Actor, draft: ProductDraft, *, source: PriceSource = PriceSource.MANUAL, idempotency_key: str | None = None
) -> UUID:
    """Make a product and return its id; in a unit of work of its own, or as a part of the current one.

    Raises ValidationFailed with the path of what does not fit, Conflict with the path of the key that is taken.
    """
    access.allow(actor, Permission.PRODUCT_WRITE)
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    columns = {**product_queries.EMPTY, **product_rules.checked(draft.columns()), "id": new_id()}
    product_rules.complete(columns)
    request = {name: value for name, value in columns.items() if name != "id"}

    async def make() -> None:
        await product_queries.lock_writes()
        if columns["slug"] is None:
            columns["slug"] = await _free_slug(columns["name"], columns["id"])
        await _refuse_taken(columns)
        await product_queries.insert([columns])
        if columns["price"] is not None:
            await product_queries.add_prices([columns], source=source, changed_by=actor.user_id)
        await _record(actor, "createProduct", columns["id"], name=columns["name"], source=source.value)

    async with unit_of_work():
        return await once(
            actor.user_id, "createProduct", idempotency_key, request=request, target_id=columns["id"], make=make
        )


async def change(
    actor: Actor,
    product_id: UUID,
    changes: Mapping[str, Any],
    *,
    source: PriceSource = PriceSource.MANUAL,
    expected_version: int | None = None,
    action: str = "updateProduct",
    reason: str | None = None,
) -> Row:
    """Change columns of a product, by their names, and return it; changes that change nothing leave no trace.

    A product that loses its price loses its currency. Raises as `create`; NotFound; Conflict when `expected_version` is
    not the current one.
    """
    access.allow(actor, Permission.PRODUCT_WRITE)
    given = product_rules.checked(changes)
    async with unit_of_work():
        await product_queries.lock_writes()
        row = await product_queries.lock(product_id)
        if row is None:
            raise access.missing()
        if expected_version is not None and expected_version != row["version"]:
            raise Conflict(
                "The product has been changed since; look at it again.",
                path=["input", "expectedVersion"],
                version=row["version"],
            )
        before = columns_of(row)
        after = merged(before, given)
        changed = sorted(name for name in after if after[name] != before[name])
        if not changed:
            return row
        product_rules.complete(after)
        await _refuse_taken({name: after[name] for name in (*_KEYS, "id")})
        await product_queries.update([after])
        if {"price", "currency"} & set(changed):
            await product_queries.add_prices([after], source=source, changed_by=actor.user_id)
        why = {} if reason is None else {"reason": reason}
        await _record(actor, action, product_id, changed=[name for name in changed if name != "sku_key"], **why)
        return (await product_queries.find([product_id]))[product_id]


async def delete(actor: Actor, product_id: str) -> None:
    """Remove a product with its price history; media stay."""
    row = await access.product(actor, product_id, to=Permission.PRODUCT_WRITE)
    async with unit_of_work():
        await product_queries.lock_writes()
        if not await product_queries.delete(row["id"]):
            raise access.missing()
        await _record(actor, "deleteProduct", row["id"], name=row["name"], slug=row["slug"])


async def set_stock(actor: Actor, product_id: str, stock: Decimal, *, reason: str | None) -> Row:
    """Say how much of a product there is, after counting it."""
    row = await access.product(actor, product_id, to=Permission.PRODUCT_WRITE)
    return await change(actor, row["id"], {"stock": stock}, action="setStock", reason=_reason(reason))


async def adjust_stock(
    actor: Actor, product_id: str, by: Decimal, *, reason: str | None, idempotency_key: str | None
) -> Row:
    """Add to a stock, or take from it, whatever others do to it at the same time.

    Raises Conflict when there is not so much, or the stock is not counted.
    """
    row = await access.product(actor, product_id, to=Permission.PRODUCT_WRITE)
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    most = product_rules.MAX_STOCK
    step = product_rules.amount(by, decimals=product_rules.STOCK_DECIMALS, least=-most, most=most, path=["input", "by"])
    why = _reason(reason)

    async def make() -> None:
        left = await product_queries.adjust_stock(row["id"], step, most=most)
        if left is None:
            raise await _why_not(row["id"])
        details = {} if why is None else {"reason": why}
        await _record(actor, "adjustStock", row["id"], by=str(step), stock=str(left), **details)

    request = {"id": row["id"], "by": step, "reason": why}
    async with unit_of_work():
        await once(actor.user_id, "adjustStock", idempotency_key, request=request, target_id=row["id"], make=make)
    return await _existing(row["id"])


async def find(actor: Actor, product_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the products that an actor may see, in one statement."""
    found = await product_queries.find(product_ids)
    return {key: row for key, row in found.items() if access.sees_product(actor, is_active=row["is_active"])}


async def sources(actor: Actor, product_ids: Sequence[UUID]) -> dict[UUID, list[Row]]:
    """Where crawls have found products; nowhere for those who may not change products: it is no part of a catalogue."""
    found: dict[UUID, list[Row]] = {product_id: [] for product_id in product_ids}
    if actor.may(Permission.PRODUCT_WRITE):
        for row in await product_queries.sources(product_ids):
            found[row["product_id"]].append(row)
    return found


async def find_slug(actor: Actor, slug: str) -> Row:
    """The product with a slug; raises NotFound, as the gate does."""
    row = await product_queries.find_slug(slug)
    if row is None or not access.sees_product(actor, is_active=row["is_active"]):
        raise access.missing()
    return row


def visible(actor: Actor, wanted: ProductConditions) -> ProductConditions | None:
    """The conditions, checked, as far as an actor may see; None when they ask for nothing but what is hidden.

    Raises ValidationFailed with the path in the arguments of a list.
    """
    if len(wanted.categories or ()) > MAX_FILTER_CATEGORIES:
        raise ValidationFailed(f"At most {MAX_FILTER_CATEGORIES} categories.", path=["filter", "categories"])
    if len(wanted.attributes) > MAX_FILTER_ATTRIBUTES:
        raise ValidationFailed(f"At most {MAX_FILTER_ATTRIBUTES} attributes.", path=["filter", "attributes"])
    for place, pair in enumerate(wanted.attributes):
        if any(len(text) > MAX_FILTER_TEXT_LENGTH for text in pair):
            raise ValidationFailed(
                f"This takes at most {MAX_FILTER_TEXT_LENGTH} characters.", path=["filter", "attributes", place]
            )
    for name, bound in (("priceMin", wanted.price_min), ("priceMax", wanted.price_max)):
        if bound is not None:
            product_rules.amount(
                bound, decimals=product_rules.PRICE_DECIMALS, most=product_rules.MAX_PRICE, path=["filter", name]
            )
    currency = wanted.currency and wanted.currency.strip().upper()
    wanted = replace(wanted, search=texts.search(wanted.search), currency=currency)
    if actor.is_admin:
        return wanted
    return None if wanted.is_active is False else replace(wanted, is_active=True)


async def page(wanted: ProductConditions, *, order: ProductOrderField, descending: bool, **bounds: Any) -> list[Row]:
    """A page of products; `wanted` as `visible` gave it, `bounds` as `models.product_search.page` takes them."""
    return await product_search.page(wanted, order=order, descending=descending, **bounds)


def columns_of(row: Row) -> dict[str, Any]:
    """The columns of a row that can be written, and its id."""
    return {name: row[name] for name in ("id", *product_queries.EMPTY)} | {
        "attributes": database.from_json(row["attributes"])
    }


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A product's columns after checked changes; without a price there is no currency that would be left over."""
    after = {**before, **changes}
    if after["price"] is None and "currency" not in changes:
        after["currency"] = None
    return after


async def _free_slug(name: str, product_id: UUID) -> str:
    stem = product_keys.slug_of(name)
    numbered = [stem, *(f"{stem}-{number}" for number in range(2, 10))]
    taken = {row["slug"] for row in await product_queries.holders(slugs=numbered)}
    # A name that very many share is told apart by the id, whose end is random.
    return next((slug for slug in numbered if slug not in taken), f"{stem}-{product_id.hex[-8:]}")


async def _refuse_taken(columns: Mapping[str, Any]) -> None:
    """Raise Conflict with the path of the first key that another product has; call it after `lock_writes`."""
    wanted = {key: [columns[key]] if columns[key] is not None else [] for key in _KEYS}
    found = await product_queries.holders(slugs=wanted["slug"], sku_keys=wanted["sku_key"], eans=wanted["ean"])
    for key, public_name in _KEYS.items():
        if any(row["id"] != columns["id"] and row[key] in wanted[key] for row in found):
            raise Conflict(_TAKEN[key], path=["input", public_name])


async def _why_not(product_id: UUID) -> Exception:
    row = (await product_queries.find([product_id])).get(product_id)
    if row is None:
        return access.missing()
    if row["stock"] is None:
        return Conflict("The stock of this product is not counted; set it first.", path=["input", "by"])
    return Conflict(
        "The stock cannot become that: it is not negative, and has a limit.",
        path=["input", "by"],
        stock=str(row["stock"]),
        maximum=str(product_rules.MAX_STOCK),
    )


async def _existing(product_id: UUID) -> Row:
    row = (await product_queries.find([product_id])).get(product_id)
    if row is None:
        raise access.missing()
    return row


def _reason(reason: str | None) -> str | None:
    return None if reason is None else texts.line(reason, path=["input", "reason"], max_length=MAX_REASON_LENGTH)


async def _record(actor: Actor, action: str, product_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="product", target_id=product_id, details=details)
