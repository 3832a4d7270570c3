"""Documents that are read, as clients see them: an execution with its pages, their text and words, and search.

Commands are in `schema/ocr_commands.py`, what a candidate shows is in `schema/candidates.py`. Words come only where
they are asked for: a page has hundreds, and the guard counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from models import candidate_queries, ocr_job_queries
from models.candidate_queries import CandidateOrder
from models.database import Row, from_json
from models.documents import KIND, TextSource
from models.execution_rows import Condition, in_statuses
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.permissions import Permission
from resolvers import access, candidates, document_search, ocr_jobs, texts
from schema.candidates import KEYS as CANDIDATE_KEYS
from schema.candidates import CandidateFilter, ProductCandidate, candidate_of, conditions_of
from schema.context import Context
from schema.enums import publish
from schema.executions import Execution, common, register_kind
from schema.media import Media
from schema.node import Node, load_node, register_node
from schema.pagination import DEFAULT_PAGE, After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires

Info = strawberry.Info[Context, None]
BY_NUMBER: Final = (("number", int),)
BY_RANK: Final = (("-rank", float), ("-id", UUID))
MAX_HITS: Final = 50
MAX_PAGE_WORDS: Final = 20_000
MAX_TEXT_CHARACTERS: Final = 1_000_000

publish(
    TextSource,
    "Where the text of a page is from.",
    TEXT_LAYER="The document has it as text.",
    OCR="It was recognised in the picture of the page.",
)


@strawberry.type(description="A word of a page and its place, in parts of the upright page from its top left corner.")
class PageWord:
    """A word."""

    text: str = strawberry.field(description="The word.")
    left: float = strawberry.field(description="0 to 1.")
    top: float = strawberry.field(description="0 to 1.")
    right: float = strawberry.field(description="0 to 1.")
    bottom: float = strawberry.field(description="0 to 1.")
    confidence: float | None = strawberry.field(description="0 to 100; null in a text layer.")


@strawberry.type(description="A page that was read.")
class DocumentPage(Node):
    """A page."""

    number: int = strawberry.field(description="From 1.")
    source: TextSource = strawberry.field(description="Where the text is from.")
    width: float = strawberry.field(
        description="Of the upright page: points (1/72 inch) in a PDF, pixels in a picture."
    )
    height: float = strawberry.field(description="As `width`.")
    rotation: float = strawberry.field(
        description="By how many degrees the sheet lay turned clockwise, -180 to 180. Words and sizes are of the page "
        "turned back by it."
    )
    confidence: float | None = strawberry.field(
        description="0 to 100: how sure the words are on average; null in a text layer and on a page without words."
    )
    text: str = strawberry.field(description="The text, row by row; at most 200,000 characters.")
    key: strawberry.Private[UUID]

    @strawberry.field(description="The words with their places, row by row. A page has at most 20,000.")
    async def words(
        self,
        info: Info,
        first: Annotated[
            int | None,
            strawberry.argument(description="How many, behind `skip`: 20 when nothing is said; each counts as a node."),
        ] = None,
        skip: Annotated[int, strawberry.argument(description="How many to leave out from the start.")] = 0,
    ) -> list[PageWord]:
        """Loaded for all pages of the answer at once."""
        size = texts.within(DEFAULT_PAGE if first is None else first, 1, MAX_PAGE_WORDS, path=["first"])
        start = texts.within(skip, 0, MAX_PAGE_WORDS, path=["skip"])
        found: list[list[Any]] = await info.context.load(_load_words, self.key)
        return [
            PageWord(text=text, left=left, top=top, right=right, bottom=bottom, confidence=confidence)
            for text, left, top, right, bottom, confidence in found[start : start + size]
        ]


@strawberry.type(description="A document that is read, page by page.")
class OcrJob(Execution, Node):
    """A reading of a medium."""

    filename: str = strawberry.field(description="The medium's, which stays when the medium goes.")
    languages: list[str] = strawberry.field(description="Languages that it is read in, by their code.")
    force_ocr: bool = strawberry.field(description="Whether text layers are passed over.")
    default_currency: str | None = strawberry.field(description="Currency of prices that name none.")
    batch_id: str | None = strawberry.field(description="The batch that it was asked for with; no object of its own.")
    page_count: int | None = strawberry.field(description="Pages of the document; null until it was opened.")
    pages_read: int = strawberry.field(description="Pages that were read; the log says why others were not.")
    confidence: float | None = strawberry.field(
        description="0 to 100: the mean of recognised pages, by their words; null where nothing was recognised, as in "
        "text layers, and until the end."
    )
    candidate_count: int = strawberry.field(description="Products that may be in it; 0 until the end.")
    engine: str | None = strawberry.field(description="What recognised the text; null where nothing was recognised.")

    @strawberry.field(description="The medium; null once it is gone.")
    async def media(self, info: Info) -> Media | None:
        """Through its own gate, loaded for all documents of the answer at once."""
        key = self.row["ocr_media_id"]
        found: Media | None = None if key is None else await load_node(info.context, encode_id(Prefix.MEDIA, key))
        return found

    @strawberry.field(description="The pages that were read, in their order.")
    async def pages(
        self, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> Connection[DocumentPage]:
        """One page of pages."""
        pages_read = self.pages_read

        async def count() -> int:
            return pages_read

        return await paginate(
            fetch=by_one_key(partial(ocr_job_queries.pages, self.row["id"])),
            count=count,
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_NUMBER,
            node=page_of,
        )

    @strawberry.field(
        description="The whole text, with a form feed between pages: at most the first 1,000,000 characters."
    )
    async def text(self, info: Info) -> str:
        """Loaded for all documents of the answer at once."""
        found: str = await info.context.load(_load_texts, self.row["id"])
        return found

    @strawberry.field(description="Products that may be in it; there are none until it was read to its end.")
    async def candidates(
        self,
        filter: Annotated[CandidateFilter | None, strawberry.argument(description="Which ones.")] = None,
        order_by: Annotated[
            CandidateOrder, strawberry.argument(description="How they are sorted.")
        ] = CandidateOrder.POSITION,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[ProductCandidate]:
        """One page of candidates."""
        job_id, wanted = self.row["id"], conditions_of(filter)

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> Sequence[Row]:
            return await candidates.page(
                job_id, wanted, order=order_by, after=after_key, before=before_key, backwards=backwards, limit=limit
            )

        return await paginate(
            fetch=fetch,
            count=partial(candidate_queries.count, job_id, wanted),
            first=first,
            after=after,
            last=last,
            before=before,
            key=CANDIDATE_KEYS[order_by],
            node=candidate_of,
        )


@strawberry.type(description="A piece of a snippet.")
class SnippetPart:
    """A piece; in answers `resolvers.document_search.Part` stands in for it."""

    text: str = strawberry.field(description="The text.")
    is_match: bool = strawberry.field(description="Whether it is what was looked for.")


@strawberry.type(description="A page that a search found.")
class DocumentHit:
    """A hit."""

    number: int = strawberry.field(description="The page's number.")
    rank: float = strawberry.field(description="How well it fits; comparable within one search only.")
    page_key: strawberry.Private[UUID]
    job_key: strawberry.Private[UUID]
    query: strawberry.Private[str]

    @strawberry.field(description="The document.")
    async def job(self, info: Info) -> OcrJob | None:
        """Loaded for all hits of the answer at once."""
        row = await info.context.load(_load_jobs, self.job_key)
        return None if row is None else ocr_job_of(row, info.context)

    @strawberry.field(description="The page.")
    async def page(self, info: Info) -> DocumentPage | None:
        """Loaded for all hits of the answer at once."""
        row = await info.context.load(_load_pages, self.page_key)
        return None if row is None else page_of(row)

    @strawberry.field(description="Some words around what was found; the parts join to one line of plain text.")
    async def snippet(self, info: Info) -> list[SnippetPart]:
        """Cut from the page's text."""
        text: str = await info.context.load(_load_page_texts, self.page_key)
        return document_search.snippet(text, self.query)  # type: ignore[return-value] # same names


@strawberry.input(description="Which documents.")
class OcrJobFilter:
    """Conditions; all given ones must hold."""

    status: list[ExecutionStatus] | None = strawberry.field(default=None, description="In one of these.")
    media_id: strawberry.ID | None = strawberry.field(default=None, description="Readings of this medium.")
    batch_id: str | None = strawberry.field(default=None, description="Asked for with this batch.")
    search: str | None = strawberry.field(
        default=None, description="With this text in the file's name, in any case; `documents` searches what was read."
    )


@strawberry.type
class OcrJobsQuery:
    """What can be read of documents."""

    @strawberry.field(
        description="Documents of yours that are or were read (administrators: everybody's), newest first.",
        extensions=[requires(Permission.DOCUMENT_READ)],
    )
    async def ocr_jobs(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: Annotated[OcrJobFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[OcrJob]:
        """One page."""
        context = info.context
        conditions = _conditions(filter)
        if conditions is None:
            conditions = [ocr_job_queries.in_batch(UUID(int=0))]  # a batch that nobody has
        return await paginate(
            fetch=by_one_key(partial(ocr_jobs.page, context.actor, conditions=conditions)),
            count=partial(ocr_jobs.count, context.actor, conditions=conditions),
            first=first,
            after=after,
            last=last,
            before=before,
            node=lambda row: ocr_job_of(row, context),
        )

    @strawberry.field(
        description="One document that is or was read; NOT_FOUND when there is none that you may see.",
        extensions=[requires(Permission.DOCUMENT_READ)],
    )
    async def ocr_job(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")]
    ) -> OcrJob | None:
        """One reading."""
        return ocr_job_of(await access.ocr_job(info.context.actor, id, to=Permission.DOCUMENT_READ), info.context)

    @strawberry.field(
        description="Pages of your documents (administrators: everybody's) that have these words, best first. "
        '`"exact phrase"`, `or` and `-not` work as in search engines; case and accents do not matter.',
        extensions=[requires(Permission.DOCUMENT_READ)],
    )
    async def documents(
        self,
        info: Info,
        search: Annotated[str, strawberry.argument(description="What to look for; at most 200 characters.")],
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[DocumentHit]:
        """One page of hits."""
        actor = info.context.actor
        query = document_search.checked(search)

        async def fetch(limit: int, after_key: Any, before_key: Any, backwards: bool) -> Sequence[Row]:
            return await document_search.page(
                actor, query, limit=limit, after=after_key, before=before_key, backwards=backwards
            )

        return await paginate(
            fetch=fetch,
            count=partial(document_search.count, actor, query),
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_RANK,
            node=lambda row: DocumentHit(
                number=row["number"], rank=row["rank"], page_key=row["id"], job_key=row["job_id"], query=query
            ),
            max_page=MAX_HITS,
        )

    @strawberry.field(
        description="Languages that documents can be read in, by the code that `enqueueOcr` takes.",
        extensions=[requires(Permission.DOCUMENT_READ)],
    )
    async def ocr_languages(self) -> list[str]:
        """What is installed."""
        return list(await ocr_jobs.languages())


@register_kind(KIND)
def ocr_job_of(row: Row, context: Context) -> OcrJob:
    """The reading in a row of `models.execution_rows`."""
    return OcrJob(
        id=strawberry.ID(encode_id(Prefix.OCR_JOB, row["id"])),
        filename=row["ocr_filename"],
        languages=from_json(row["ocr_languages"]),
        force_ocr=row["force_ocr"],
        default_currency=row["default_currency"],
        batch_id=None if row["batch_id"] is None else str(row["batch_id"]),
        page_count=row["page_count"],
        pages_read=row["pages_read"],
        confidence=row["ocr_confidence"],
        candidate_count=row["candidate_count"],
        engine=row["ocr_engine"],
        **common(row, context),
    )


def page_of(row: Row) -> DocumentPage:
    """The page in a row of `models.ocr_job_queries`."""
    return DocumentPage(
        id=strawberry.ID(encode_id(Prefix.DOCUMENT_PAGE, row["id"])),
        number=row["number"],
        source=TextSource(row["source"]),
        width=row["width"],
        height=row["height"],
        rotation=row["rotation"],
        confidence=row["confidence"],
        text=row["text"],
        key=row["id"],
    )


async def load_ocr_job(context: Context, job_id: UUID) -> OcrJob:
    """A reading that the viewer may see; raises NotFound."""
    return ocr_job_of(await access.visible_execution(context.actor, job_id, to=Permission.DOCUMENT_READ), context)


async def load_ocr_jobs(context: Context, job_ids: Sequence[UUID]) -> list[OcrJob]:
    """Those of the readings that the viewer may see, in this order."""
    found = await ocr_jobs.find(context.actor, job_ids)
    return [ocr_job_of(found[job_id], context) for job_id in job_ids if job_id in found]


@register_node(Prefix.OCR_JOB)
async def _ocr_job_node(context: Context, job_id: UUID) -> OcrJob | None:
    if not context.actor.may(Permission.DOCUMENT_READ):
        return None
    row = await context.load(_load_jobs, job_id)
    return None if row is None else ocr_job_of(row, context)


@register_node(Prefix.DOCUMENT_PAGE)
async def _page_node(context: Context, page_id: UUID) -> DocumentPage | None:
    if not context.actor.may(Permission.DOCUMENT_READ):
        return None
    row = await context.load(_load_pages, page_id)
    return None if row is None else page_of(row)


async def _load_jobs(context: Context, job_ids: list[UUID]) -> Sequence[Row | None]:
    found = await ocr_jobs.find(context.actor, job_ids)
    return [found.get(job_id) for job_id in job_ids]


async def _load_pages(context: Context, page_ids: list[UUID]) -> Sequence[Row | None]:
    found = await ocr_jobs.find_pages(context.actor, page_ids)
    return [found.get(page_id) for page_id in page_ids]


async def _load_words(_context: Context, page_ids: list[UUID]) -> Sequence[list[list[Any]]]:
    found = await ocr_job_queries.words(page_ids)
    return [found.get(page_id, []) for page_id in page_ids]


async def _load_page_texts(_context: Context, page_ids: list[UUID]) -> Sequence[str]:
    found = await document_search.page_texts(page_ids)
    return [found.get(page_id, "") for page_id in page_ids]


async def _load_texts(_context: Context, job_ids: list[UUID]) -> Sequence[str]:
    found = await ocr_job_queries.text(job_ids, characters=MAX_TEXT_CHARACTERS)
    return [found.get(job_id, "") for job_id in job_ids]


def _conditions(filter: OcrJobFilter | None) -> list[Condition] | None:
    """The conditions of a filter; None when nothing can meet them."""
    if filter is None:
        return []
    search = texts.search(filter.search)
    found = [
        filter.status and in_statuses([status.value for status in filter.status]),
        filter.media_id and ocr_job_queries.with_medium(access.uuid_of(filter.media_id, Prefix.MEDIA)),
        search and ocr_job_queries.named(search),
    ]
    if filter.batch_id is not None:
        try:
            found.append(ocr_job_queries.in_batch(UUID(filter.batch_id)))
        except ValueError:
            return None
    return [condition for condition in found if condition]
