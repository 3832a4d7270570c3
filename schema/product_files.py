"""Products from files and to files: `importProducts` and `exportProducts`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import strawberry

from models.permissions import Permission
from resolvers import product_exports, product_imports
from resolvers.product_csv import CsvDelimiter, DecimalMark
from resolvers.product_imports import OnConflict
from schema import product_downloads
from schema.context import Context
from schema.enums import publish
from schema.permissions import requires
from schema.products import ProductFilter, conditions_of
from schema.uploads import Upload

Info = strawberry.Info[Context, None]


class ProductFileFormat(StrEnum):
    """What products can be written as."""

    CSV = "CSV"


publish(ProductFileFormat, "What products can be written as.", CSV="Comma-separated values in UTF-8 (RFC 4180).")
publish(
    OnConflict,
    "What to do with a line whose product is there already.",
    UPDATE="Change the product: the columns that the file has, an empty cell taking the value away.",
    SKIP="Leave the product as it is.",
    FAIL="Count it as an error.",
)
publish(
    CsvDelimiter,
    "What parts the cells of a line.",
    AUTO="What the first line has most of.",
    COMMA="A comma.",
    SEMICOLON="A semicolon.",
    TAB="A tab.",
)
publish(
    DecimalMark,
    "What parts a number's fraction.",
    AUTO="What the numbers of the file show; where they show nothing, a comma if semicolons part the cells.",
    POINT="A point; commas may part thousands.",
    COMMA="A comma; points may part thousands.",
)


@strawberry.input(description="A file of products.")
class ImportProductsInput:
    """A file and how to read it."""

    file: Upload = strawberry.field(
        description="CSV of up to 10 MiB and 50,000 lines, in UTF-8 or Latin-1. The first line names columns, in "
        "English or Spanish: name, slug, sku, ean, description, price, currency, unit, stock, category, attributes "
        "(JSON), active."
    )
    dry_run: bool = strawberry.field(default=False, description="Only say what would happen.")
    on_conflict: OnConflict = strawberry.field(
        default=OnConflict.UPDATE, description="What to do where a product has the line's SKU, EAN or slug already."
    )
    delimiter: CsvDelimiter = strawberry.field(default=CsvDelimiter.AUTO, description="What parts the cells.")
    decimal_mark: DecimalMark = strawberry.field(default=DecimalMark.AUTO, description="What parts fractions.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Up to 255 characters. Repeat a call with its key and the same file, and it answers with what the "
        "first call did, and does nothing more.",
    )


@strawberry.type(description="What is wrong with a line of a file.")
class ProductLineError:
    """A line that does not fit."""

    line: int = strawberry.field(description="The line, counted from 1, as editors show it.")
    path: list[str] = strawberry.field(description="The column, in our words; empty when it is about the whole line.")
    message: str = strawberry.field(description="What is wrong.")


@strawberry.type(description="What an import did; of a dry run, what it would do.")
class ImportProductsPayload:
    """An import."""

    imported: bool = strawberry.field(
        description="Whether it was done: not of a dry run, and not when a line has an error, for a file is imported "
        "as a whole."
    )
    created: int = strawberry.field(description="Lines that made a product.")
    updated: int = strawberry.field(description="Lines that changed a product.")
    unchanged: int = strawberry.field(description="Lines that say what is there already.")
    skipped: int = strawberry.field(description="Lines left out because their product is there.")
    error_count: int = strawberry.field(description="Lines with an error.")
    errors: list[ProductLineError] = strawberry.field(description="The errors of the first 100 of these lines.")
    ignored_columns: list[str] = strawberry.field(description="Columns of the file that name nothing of a product.")


@strawberry.input(description="Which products go to a file.")
class ExportProductsInput:
    """Conditions and a format."""

    search: str | None = strawberry.field(default=None, description="As in `products`.")
    filter: ProductFilter | None = strawberry.field(default=None, description="As in `products`.")
    format: ProductFileFormat = strawberry.field(default=ProductFileFormat.CSV, description="What they are written as.")


@strawberry.type(description="A file of products, written when it is downloaded.")
class ExportProductsPayload:
    """A link."""

    url: str = strawberry.field(description="Where the file is. Whoever has the link may download it.")
    expires_at: datetime = strawberry.field(description="Until when the link works.")


@strawberry.type
class ProductFilesMutation:
    """What administrators do with files of products."""

    @strawberry.mutation(
        description="Add and change products from a file, all of it or, when a line has an error, nothing. The lines' "
        "errors are in the answer; a file that is none of products at all is a VALIDATION_ERROR.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def import_products(
        self, info: Info, input: Annotated[ImportProductsInput, strawberry.argument(description="The file.")]
    ) -> ImportProductsPayload:
        """An import."""
        done = await product_imports.run(
            info.context.actor,
            input.file.path,
            sha256=input.file.sha256,
            is_dry=input.dry_run,
            on_conflict=input.on_conflict,
            delimiter=input.delimiter,
            decimal_mark=input.decimal_mark,
            idempotency_key=input.idempotency_key,
        )
        return ImportProductsPayload(
            imported=done.is_kept,
            created=done.created,
            updated=done.updated,
            unchanged=done.unchanged,
            skipped=done.skipped,
            error_count=done.error_count,
            errors=[ProductLineError(line=e.line, path=list(e.path), message=e.message) for e in done.errors],
            ignored_columns=list(done.unknown_columns),
        )

    @strawberry.mutation(
        description="Make a link to a file of products, inactive ones too. What it says can be imported again.",
        extensions=[requires(Permission.PRODUCT_WRITE)],
    )
    async def export_products(
        self, info: Info, input: Annotated[ExportProductsInput, strawberry.argument(description="Which products.")]
    ) -> ExportProductsPayload:
        """A link; the file is written when it is read."""
        settings = info.context.settings
        token = await product_exports.start(info.context.actor, conditions_of(input.search, input.filter))
        return ExportProductsPayload(
            url=product_downloads.link(token, settings),
            expires_at=datetime.now(UTC) + timedelta(seconds=settings.download_url_seconds),
        )
