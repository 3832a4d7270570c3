"""Operations at work: queries and mutations to their result, subscriptions to a stream of encoded results.

graphql-core's executor runs on the schema that Strawberry built; permissions, arguments and `Info` live in its
resolvers and behave as ever. Left out are Strawberry's view and schema extensions, which cost more per request than
the operation does (docs/decisions/0007). Invariants: a wait has a deadline; an exception leaves as a shaped error; a
subscription's source is closed before its stream ends, whatever ended it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import orjson
import strawberry
import structlog
from graphql import GraphQLList, GraphQLObjectType, GraphQLOutputType, GraphQLResolveInfo, OperationType, Undefined
from graphql.execution import ExecutionResult, create_source_event_stream
from graphql.execution.collect_fields import FieldDetailsList
from graphql.execution.executor import Executor, default_field_resolver, default_type_resolver
from graphql.execution.values import VariableValues, get_variable_values
from graphql.pyutils import Path
from strawberry.execution import optimized_is_awaitable

from adapters import metrics
from errors import ServiceUnavailable, SwitchyardError, ValidationFailed
from models.permissions import Actor
from resolvers.streams import SharedEvent
from schema.context import Context
from schema.documents import Operation, OperationCache, RequestRefused
from schema.errors import FormattedError, shape_exception, shape_failure, shape_refusal
from schema.guards import refuse_costly
from schema.plans import SEQUENCES, Plan, Plans, plan_of
from schema.requests import OperationRequest
from settings import Settings

QUERY_SECONDS: Final = 10.0
MUTATION_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 5.0
"""How long the source of a subscription may take to clean up."""

_LEFT: Final = "CANCELLED"
"""The code of an operation whose client did not wait for its end."""

_MAX_VARIABLE_ERRORS: Final = 20
_NO_VARIABLES: Final = VariableValues({}, {})
_log = structlog.get_logger("switchyard.graphql")


Count = Callable[[Actor, int], Awaitable[None]]
"""Charges an operation of so many nodes to whoever asks; raises SwitchyardError when that is too much."""

Reading = Callable[[Actor], AbstractAsyncContextManager[None]]
"""Entered to read a document that is new; charges whoever sent it if it is refused."""


class Frame(NamedTuple):
    """One encoded result of a subscription, and the last sequence in it for clients that resume."""

    payload: bytes
    last_sequence: int | None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long an operation may run; its database statements end earlier (models/database.py)."""

    query_seconds: float = QUERY_SECONDS
    mutation_seconds: float = MUTATION_SECONDS


class Operations:
    """The schema at work. One per process."""

    def __init__(
        self,
        schema: strawberry.Schema,
        settings: Settings,
        deadlines: Deadlines | None = None,
        *,
        count: Count | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.cache = OperationCache(schema, settings)
        self.deadlines = deadlines or Deadlines()
        self._schema = self.cache.schema
        self._count = count
        self._reading: Reading = reading or _unpaid
        self._reader = asyncio.Lock()

    def prepare(self, request: OperationRequest, *, request_id: str | None) -> Operation:
        """The operation that a request names, at once; raises RequestRefused."""
        return self.cache.get(request.query, request.operation_name, request_id=request_id)

    async def read(self, request: OperationRequest, context: Context) -> Operation:
        """The same, for requests as they come; raises RequestRefused, also when too many were refused before.

        Reading a document takes the loop for itself for some milliseconds. So new ones are read one after the other,
        however many come at once, and the loop turns in between.
        """
        try:
            return await self._read(request, context)
        except RequestRefused as refused:
            metrics.current().count_operation(metrics.OTHER, "unknown", refused.code, None)
            raise

    async def _read(self, request: OperationRequest, context: Context) -> Operation:
        is_known = self.cache.knows(request.query)
        metrics.current().count_lookup("documents", is_known)
        if not is_known:
            try:
                async with self._reading(context.actor), self._reader:
                    await asyncio.sleep(0)
                    return self.prepare(request, request_id=context.request_id)
            except SwitchyardError as error:
                raise RequestRefused.because_of(error, context.request_id) from None
        return self.prepare(request, request_id=context.request_id)

    async def execute(self, operation: Operation, variables: dict[str, Any], context: Context) -> bytes:
        """Run a query or a mutation and encode its result, `data` and the errors of fields.

        Raises RequestRefused when variables or cost are wrong, when its user asked too often, and when the deadline
        passes.
        """
        started = time.perf_counter()
        code = _LEFT
        try:
            executor = await self._admit(operation, variables, context)
            is_mutation = operation.kind is OperationType.MUTATION
            seconds = self.deadlines.mutation_seconds if is_mutation else self.deadlines.query_seconds
            payload = await self._run(executor, context, seconds)
            code = _code_of(payload)
            return encode(payload, context.request_id)
        except RequestRefused as refused:
            code = refused.code
            raise
        finally:
            metrics.current().count_operation(operation.root, operation.kind.value, code, time.perf_counter() - started)

    async def subscribe(
        self, operation: Operation, variables: dict[str, Any], context: Context
    ) -> AsyncGenerator[Frame, None]:
        """Run a subscription; raises RequestRefused when it cannot start, and when its source fails later.

        Results of a `SharedEvent` are executed and encoded once for all that may see the same. The loaders of the
        context are fresh for every event. Close the generator to end the subscription.
        """
        try:
            executor = await self._admit(operation, variables, context)
            source = await self._open_source(executor, context)
        except RequestRefused as refused:
            metrics.current().count_operation(operation.root, operation.kind.value, refused.code, None)
            raise
        counted = metrics.current()
        counted.count_operation(operation.root, operation.kind.value, "OK", None)
        shown, sent = counted.subscriptions.labels(operation.root), counted.deliveries.labels(operation.root)
        shared_key = None
        context.state.open_subscriptions += 1
        shown.inc()
        try:
            async for event in source:
                context.forget_loaded()
                if type(event) is SharedEvent:
                    if shared_key is None:
                        shared_key = _shared_key(operation, variables)
                    payload = await self._encode_shared(executor, context, event, shared_key)
                    event = event.value
                else:
                    payload = encode(
                        await self._run(
                            executor.build_per_event_executor(event), context, self.deadlines.query_seconds
                        ),
                        context.request_id,
                    )
                sent.inc()
                yield Frame(payload, getattr(event, "last_sequence", None))
        except RequestRefused:
            raise
        except Exception as error:  # noqa: BLE001 - the edge where exceptions become errors of the contract
            raise RequestRefused([shape_exception(error, request_id=context.request_id)]) from None
        finally:
            context.state.open_subscriptions -= 1
            shown.dec()
            await _close(source)

    async def _admit(self, operation: Operation, variables: dict[str, Any], context: Context) -> Executor[Any]:
        """What runs the operation, once it is right and counted; a subscription counts when it starts."""
        executor = self._executor(operation, variables, context)
        if self._count is not None:
            try:
                await self._count(context.actor, context.cost)
            except SwitchyardError as error:
                raise RequestRefused.because_of(error, context.request_id) from None
        return executor

    def _executor(self, operation: Operation, variables: dict[str, Any], context: Context) -> Executor[Any]:
        values = self._variable_values(operation, variables, context)
        context.cost = operation.cost.of(values.coerced)
        try:
            refuse_costly(context.cost, self.cache.limits)
        except ValidationFailed as error:
            raise RequestRefused.because_of(error, context.request_id) from None
        return PlannedExecutor(
            self._schema,
            operation.fragment_definitions,
            operation.fragments,
            None,
            context,
            operation.definition,
            values,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            is_awaitable=cast(Any, optimized_is_awaitable),
            hide_suggestions=self.cache.hides_suggestions,
            plans=operation.plans,
        )

    def _variable_values(self, operation: Operation, variables: dict[str, Any], context: Context) -> VariableValues:
        definitions = operation.definition.variable_definitions
        if not definitions:
            return _NO_VARIABLES
        values = get_variable_values(
            self._schema,
            definitions,
            variables,
            max_errors=_MAX_VARIABLE_ERRORS,
            hide_suggestions=self.cache.hides_suggestions,
        )
        if isinstance(values, list):
            errors = [shape_refusal(error, request_id=context.request_id) for error in values]
            raise RequestRefused.before_execution(errors, context.request_id)
        return values

    async def _run(self, executor: Executor[Any], context: Context, seconds: float) -> dict[str, Any]:
        """The result as JSON-like data; raises RequestRefused when it takes too long or the executor itself fails."""
        try:
            result: Any = executor.execute_operation()
            if not isinstance(result, ExecutionResult):
                async with asyncio.timeout(seconds):
                    result = await result
        except TimeoutError:
            raise _late(f"The operation took longer than {seconds:g} seconds and was given up.", context) from None
        except Exception as error:  # noqa: BLE001 - the edge where exceptions become errors of the contract
            raise RequestRefused([shape_exception(error, request_id=context.request_id)]) from None
        if result.errors is None:
            return {"data": result.data}
        errors = [shape_failure(error, request_id=context.request_id) for error in result.errors]
        return {"errors": errors, "data": result.data}

    async def _open_source(self, executor: Executor[Any], context: Context) -> Any:
        try:
            source: Any = create_source_event_stream(executor)
            if optimized_is_awaitable(source):
                async with asyncio.timeout(self.deadlines.query_seconds):
                    source = await source
        except TimeoutError:
            raise _late("The subscription took too long to start.", context) from None
        if isinstance(source, ExecutionResult):
            raise RequestRefused([shape_failure(error, request_id=context.request_id) for error in source.errors or ()])
        return source

    async def _encode_shared(
        self, executor: Executor[Any], context: Context, event: SharedEvent, shared_key: tuple[Operation, bytes]
    ) -> bytes:
        """The encoded result of an event, made by the first that asks; the others wait for it.

        Results with errors are not shared: they carry the id of one request, and the next may well succeed.
        """
        key = (*shared_key, event.audience)
        while not isinstance(found := event.encodings.get(key), bytes):
            if found is None:
                break
            await found.wait()
        else:
            return found
        done = event.encodings[key] = asyncio.Event()
        try:
            payload = await self._run(
                executor.build_per_event_executor(event.value), context, self.deadlines.query_seconds
            )
            encoded = encode(payload, context.request_id)
            if "errors" not in payload:
                event.encodings[key] = encoded
        finally:
            # Without a result, also when this subscriber was cancelled, one of those who wait takes over.
            if event.encodings[key] is done:
                del event.encodings[key]
            done.set()
        return encoded


class PlannedExecutor(Executor[Any]):
    """graphql-core's executor, which completes by plan what can be completed so."""

    def __init__(self, *arguments: Any, plans: Plans, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._plans = plans
        self._known = plans.variant(self.variable_values.coerced)

    def complete_object_value(
        self,
        return_type: GraphQLObjectType,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        """By plan; a selection is compiled when it is met for the second time."""
        plan = plan_of(self, self._plans, self._known, return_type, field_details_list, at_once=False)
        if plan is not None:
            data = self._try(plan, result)
            if data is not Undefined:
                return self._completed(plan, data, return_type, result, path) if plan.rest else data
        return super().complete_object_value(return_type, field_details_list, info, path, result, position_context)

    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> Any:
        """By plan, if the items are plain throughout."""
        if type(result) in SEQUENCES:
            plan = plan_of(self, self._plans, self._known, return_type, field_details_list, at_once=len(result) > 1)
            if plan is not None:
                data = self._try(plan, result)
                if data is not Undefined:
                    return data
        return super().complete_list_value(return_type, field_details_list, info, path, result, position_context)

    def _try(self, plan: Plan, value: Any) -> Any:
        """The value completed, or Undefined."""
        try:
            data = plan.run(value)
        except Exception:  # noqa: BLE001 - nothing is lost: graphql-core meets the same fault and reports it
            self._plans.given_up += 1
            return Undefined
        self._plans.completed += 1
        return data

    def _completed(self, plan: Plan, data: dict[str, Any], type_: GraphQLObjectType, source: Any, path: Path) -> Any:
        """The data with the fields that the plan left out, now or to be awaited."""
        rest: Any = self.execute_fields(type_, source, path, plan.rest, None)
        if not self.is_awaitable(rest):
            data.update(rest)
            return data

        async def complete() -> dict[str, Any]:
            data.update(await rest)
            return data

        return complete()


def _code_of(payload: dict[str, Any]) -> str:
    errors = payload.get("errors")
    return "OK" if not errors else str(errors[0]["extensions"]["code"])


def encode(payload: dict[str, Any], request_id: str | None) -> bytes:
    """JSON bytes of a result; a value that JSON cannot hold is a fault of ours and answers for the whole result."""
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        return encode_errors([shape_exception(error, request_id=request_id)])


def encode_errors(errors: list[FormattedError]) -> bytes:
    """JSON bytes of a result without data."""
    return orjson.dumps({"errors": errors}, default=str)


def _unpaid(_: Actor) -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _late(message: str, context: Context) -> RequestRefused:
    _log.warning("operation_late", request_id=context.request_id)
    return RequestRefused([shape_refusal(ServiceUnavailable(message), request_id=context.request_id)])


def _shared_key(operation: Operation, variables: dict[str, Any]) -> tuple[Operation, bytes]:
    """What the answer to a shared event depends on, beside the event and its audience."""
    used = {name: variables[name] for name in operation.shared_variables if name in variables}
    return operation, orjson.dumps(used, option=orjson.OPT_SORT_KEYS)


async def _close(source: Any) -> None:
    """Let the source of a subscription clean up; whoever ends a stream is not stopped by a source that cannot."""
    aclose = getattr(source, "aclose", None)
    if aclose is None:
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await aclose()
    except Exception as error:  # noqa: BLE001 - the edge where exceptions become lines in the log
        _log.error("subscription_not_closed", exc_info=error)
