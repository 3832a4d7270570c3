"""Executions as clients see them: the interface that every kind implements, its log, and the streams.

A kind registers how its rows become its type; nothing here knows one. Rights are the resolvers' matter.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import strawberry

from errors import ValidationFailed
from models import execution_rows, logs
from models.database import Row
from models.executions import ExecutionStatus, FailureCode
from models.logs import LogLevel
from models.permissions import Permission, Role
from models.users import Account
from resolvers import access, executions
from resolvers import logs as log_reading
from schema import log_downloads
from schema.context import Context
from schema.enums import publish
from schema.node import Node
from schema.pagination import After, Before, Connection, First, Last, by_one_key, paginate
from schema.permissions import requires
from schema.scalars import BigInt
from schema.users import User

Info = strawberry.Info[Context, None]
Builder = Callable[[Row, Context], "Execution"]
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

BY_SEQUENCE: Final = (("sequence", int),)
MAX_LOG_PAGE: Final = 1_000
MAX_SEARCH_CHARACTERS: Final = 200
_MAX_SEQUENCE: Final = 2**31 - 1
_builders: dict[str, Builder] = {}


publish(
    ExecutionStatus,
    "Where an execution stands. The last three are final and never change.",
    QUEUED="Waits for a worker.",
    RUNNING="A worker has it.",
    SUCCEEDED="Done.",
    FAILED="Ended by a fault; `failure` says which.",
    CANCELLED="Stopped on request; nothing of it runs any more.",
)
publish(
    FailureCode,
    "Why an execution failed. Expect new values.",
    TIMED_OUT="Its time limit was reached, counted from the start of the work.",
    WORKER_LOST="Its workers were lost as often as is allowed.",
    OUT_OF_MEMORY="It used more memory than its limit.",
    CLONE_FAILED="The source could not be fetched.",
    INSTALL_FAILED="Dependencies could not be installed.",
    COMMAND_FAILED="A command ended with an error; see `exitCode`.",
    OUTPUT_MISSING="It did not make the output that was expected.",
    OUTPUT_TOO_LARGE="It made more output than its limit.",
    LOG_LIMIT_EXCEEDED="It wrote more log than its limit.",
    UPLOAD_FAILED="Its output could not be stored.",
    SERVICE_UNAVAILABLE="A service it needs did not answer.",
    INVALID_INPUT="Its input cannot be worked with.",
    BLOCKED_URL="The address guard refused what it should fetch.",
    START_ERROR="It could not start.",
    INTERNAL="A fault of Switchyard's own.",
)
publish(
    LogLevel,
    "How serious a log line is.",
    DEBUG="Details.",
    INFO="What happens.",
    WARNING="Deserves a look.",
    ERROR="A fault.",
)


@strawberry.type(description="Why and where an execution failed.")
class Failure:
    """A failure."""

    code: FailureCode = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people.")
    stage: str | None = strawberry.field(description="The stage in which it happened.")
    exit_code: int | None = strawberry.field(description="Of the command that failed.")
    signal: int | None = strawberry.field(description="Number of the signal that ended the command.")
    retryable: bool = strawberry.field(description="Whether the same input may succeed later.")


@strawberry.type(description="One change of status or stage; the history only grows.")
class StatusChange:
    """A line of the history."""

    at: datetime = strawberry.field(description="When.")
    status: ExecutionStatus = strawberry.field(description="The status from then on.")
    stage: str | None = strawberry.field(description="The stage from then on.")
    attempt: int = strawberry.field(description="The attempt, from 1; 0 before the first.")


@strawberry.type(description="One line of a log.")
class LogLine:
    """A line; in answers `models.logs.Line` stands in for it, as the fields have the same names."""

    sequence: int = strawberry.field(description="1, 2, 3 … within the execution, without gap or repetition.")
    timestamp: datetime = strawberry.field(description="When it was written, to the millisecond.")
    level: LogLevel = strawberry.field(description="How serious it is.")
    message: str = strawberry.field(description="The text, at most 8 KiB; longer lines are split.")
    stage: str | None = strawberry.field(description="The stage that wrote it.")
    is_continuation: bool = strawberry.field(description="Whether it goes on with the line before, which was too long.")


@strawberry.type(description="Consecutive log lines, oldest first.")
class LogBatch:
    """A batch; in answers `resolvers.feeds.LogPage` stands in for it."""

    lines: list[LogLine] = strawberry.field(description="The lines; none in a last batch that only says complete.")
    last_sequence: int = strawberry.field(description="The number to resume behind, as `afterSequence`.")
    complete: bool = strawberry.field(description="Whether the log has ended; the stream completes after it.")


@strawberry.interface(description="Work that waits in a queue, runs in a worker and ends in exactly one final status.")
class Execution(Node):
    """What all kinds have in common."""

    status: ExecutionStatus = strawberry.field(description="Where it stands.")
    stage: str | None = strawberry.field(description="What it is doing; each kind has its own stages.")
    progress: int = strawberry.field(description="0 to 100; never goes back within an attempt.")
    attempt: int = strawberry.field(description="How often a worker has begun it.")
    queued_at: datetime = strawberry.field(description="When it was asked for.")
    started_at: datetime | None = strawberry.field(description="When the first attempt began.")
    finished_at: datetime | None = strawberry.field(description="When it became final.")
    cancel_requested_at: datetime | None = strawberry.field(description="When somebody asked it to stop.")
    requested_by: User | None = strawberry.field(description="Who asked for it; null once the account is gone.")
    log_removed_at: datetime | None = strawberry.field(
        description="When its log was removed because it was older than logs are kept here; null while it is there."
    )
    cpu_seconds: float | None = strawberry.field(
        description="Seconds of processors that its processes took, over all attempts but those whose worker was lost; "
        "known at the end of an attempt, null while nothing was measured."
    )
    peak_memory_bytes: BigInt | None = strawberry.field(
        description="Most memory that the largest one of its processes had at once (its resident set); null while "
        "nothing was measured, and where the work is done inside the worker."
    )
    row: strawberry.Private[Row]

    @strawberry.field(description="Why it failed; null unless FAILED.")
    def failure(self) -> Failure | None:
        """From the row."""
        row = self.row
        if row["failure_code"] is None:
            return None
        return Failure(
            code=FailureCode(row["failure_code"]),
            message=row["failure_message"] or "",
            stage=row["failure_stage"],
            exit_code=row["failure_exit_code"],
            signal=row["failure_signal"],
            retryable=row["failure_retryable"],
        )

    @strawberry.field(description="Seconds from the start to the end, or until now; null before the start.")
    def duration_seconds(self) -> float | None:
        """From the row."""
        if self.started_at is None:
            return None
        end = self.finished_at or datetime.now(self.started_at.tzinfo)
        return max(0.0, (end - self.started_at).total_seconds())

    @strawberry.field(description="Every change of status and stage, oldest first; at most 1,000.")
    async def history(self) -> list[StatusChange]:
        """From the history table."""
        return [
            StatusChange(
                at=row["at"], status=ExecutionStatus(row["status"]), stage=row["stage"], attempt=row["attempt"]
            )
            for row in await execution_rows.history(self.row["id"])
        ]

    @strawberry.field(
        description="A link that downloads the log so far as text; it expires, an hour from now unless set otherwise."
    )
    def log_url(self, info: Info) -> str:
        """Signed for whoever asked."""
        return log_downloads.link(self.row["id"], info.context.settings)

    @strawberry.field(description="The log, oldest line first; up to 1,000 lines a page, 20 when nothing is said.")
    async def logs(
        self,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        level: Annotated[
            LogLevel | None, strawberry.argument(description="Only lines at least as serious as this.")
        ] = None,
        search: Annotated[
            str | None,
            strawberry.argument(description="Only lines that contain this text, in any case; 200 characters."),
        ] = None,
    ) -> Connection[LogLine]:
        """One page of lines."""
        if search is not None and len(search) > MAX_SEARCH_CHARACTERS:
            raise ValidationFailed(f"A search has at most {MAX_SEARCH_CHARACTERS} characters.", path=["search"])
        execution_id = self.row["id"]
        state = await logs.state(execution_id)
        if state is None:
            raise access.missing()

        read = partial(log_reading.read_page, execution_id, state, level=level, search=search)

        async def count() -> int:
            return state.last_sequence

        is_whole = level is None and not search
        return await paginate(
            fetch=by_one_key(read),
            count=count if is_whole else None,
            first=first,
            after=after,
            last=last,
            before=before,
            key=BY_SEQUENCE,
            max_page=MAX_LOG_PAGE,
        )


@strawberry.input(description="Which executions to follow.")
class ExecutionFilter:
    """Conditions; all given ones must hold."""

    statuses: list[ExecutionStatus] | None = strawberry.field(
        default=None, description="Only changes into one of these."
    )


@strawberry.type
class ExecutionsSubscription:
    """Streams of executions and their logs."""

    @strawberry.subscription(
        description="The log of an execution: what is stored behind `afterSequence`, then every line as it comes. "
        "Completes by itself after the last line of a final execution. Reconnect with the last `lastSequence` seen "
        "and nothing is missed or repeated, whichever server answers.",
        extensions=[requires(Permission.EXECUTION_READ)],
    )
    async def logs(
        self,
        info: Info,
        execution_id: Annotated[strawberry.ID, strawberry.argument(description="The execution, of any kind.")],
        after_sequence: Annotated[
            int, strawberry.argument(description="The last line already seen; 0 for the whole log.")
        ] = 0,
    ) -> AsyncGenerator[LogBatch, None]:
        """Pages of lines."""
        if not 0 <= after_sequence <= _MAX_SEQUENCE:
            raise ValidationFailed("`afterSequence` must not be negative.", path=["afterSequence"])
        context = info.context
        uuid = access.execution_uuid(execution_id)
        await access.visible_execution(context.actor, uuid, to=Permission.EXECUTION_READ)
        source = executions.follow_log(lambda: context.actor, uuid, after_sequence=after_sequence)
        async with aclosing(source) as events:
            async for event in events:
                yield event  # type: ignore[misc] # the executor unwraps a SharedEvent

    @strawberry.subscription(
        description="An execution: its state now, then every change; completes at its final status. Changes that come "
        "faster than they can be sent become one.",
        extensions=[requires(Permission.EXECUTION_READ)],
    )
    async def execution(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="The execution, of any kind.")],
    ) -> AsyncGenerator[Execution, None]:
        """States."""
        context = info.context
        uuid = access.execution_uuid(id)
        await access.visible_execution(context.actor, uuid, to=Permission.EXECUTION_READ)
        source = executions.follow(lambda: context.actor, uuid, make=lambda row: build(row, context))
        async with aclosing(source) as events:
            async for event in events:
                yield event  # type: ignore[misc] # the executor unwraps a SharedEvent

    @strawberry.subscription(
        description="All of your executions (administrators: everybody's): those that wait or run, then every change "
        "of any. Does not complete.",
        extensions=[requires(Permission.EXECUTION_READ)],
    )
    async def executions(
        self,
        info: Info,
        filter: Annotated[ExecutionFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> AsyncGenerator[Execution, None]:
        """States of many."""
        context = info.context
        statuses = frozenset(status.value for status in (filter.statuses or ())) if filter else frozenset()
        source = executions.follow_all(
            lambda: context.actor,
            wanted=lambda row: not statuses or row["status"] in statuses,
            make=lambda row: build(row, context),
        )
        async with aclosing(source) as events:
            async for event in events:
                yield event  # type: ignore[misc] # the executor unwraps a SharedEvent


def register_kind(kind: str) -> Callable[[AnyBuilder], AnyBuilder]:
    """Decorate what turns a row of a kind into its type."""

    def register(builder: AnyBuilder) -> AnyBuilder:
        _builders[kind] = builder
        return builder

    return register


def build(row: Row, context: Context) -> Execution:
    """The execution of a row, as its kind's type."""
    return _builders[row["kind"]](row, context)


def common(row: Row, context: Context) -> dict[str, Any]:
    """The fields that all kinds share, but the id."""
    return {
        "status": ExecutionStatus(row["status"]),
        "stage": row["stage"],
        "progress": row["progress"],
        "attempt": row["attempt"],
        "queued_at": row["queued_at"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "cancel_requested_at": row["cancel_requested_at"],
        "requested_by": _requester(row, context),
        "log_removed_at": row["log_removed_at"],
        "cpu_seconds": None if row["cpu_milliseconds"] is None else row["cpu_milliseconds"] / 1_000,
        "peak_memory_bytes": row["peak_memory_bytes"],
        "row": row,
    }


def _requester(row: Row, context: Context) -> User | None:
    if row["requester_id"] is None:
        return None
    account = Account(
        id=row["requester_id"],
        email=row["requester_email"],
        username=row["requester_username"],
        name=row["requester_name"],
        role=Role(row["requester_role"]),
        created_at=row["requester_created_at"],
    )
    return User.seen_by(context.actor, account)
