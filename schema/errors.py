"""What a client is told of a failure: one shape, one code, and nothing that is not meant for it.

Every error carries `extensions {code, statusCode, details, requestId}`. Expected errors (`SwitchyardError`) pass as
they are; an outage of the database becomes SERVICE_UNAVAILABLE; what GraphQL itself refuses becomes VALIDATION_ERROR;
everything else is INTERNAL_SERVER_ERROR, whose trace goes to the log under the request's id and never to the client.
Messages of refusals are not logged, because they quote the client's values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import structlog
from graphql import DocumentNode, GraphQLError
from strawberry.exceptions import StrawberryInputCoercionError

from errors import ErrorCode, ServiceUnavailable, SwitchyardError, ValidationFailed
from models.database import is_outage
from schema.literals import path_of

FormattedError = dict[str, Any]

_VARIABLE: Final = re.compile(r"Variable '\$(\w+)' has invalid (?:default )?value(?: at ((?:\.\w+|\[\d+\])+))?: ")
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
_log = structlog.get_logger("switchyard.graphql")


def shape_refusal(
    error: GraphQLError | SwitchyardError, *, request_id: str | None, document: DocumentNode | None = None
) -> FormattedError:
    """An error found before execution: the request is wrong, or the caller may not make it now."""
    if isinstance(error, SwitchyardError):
        return _formatted(error.message, error.extensions, request_id)
    cause = _cause(error)
    if isinstance(cause, SwitchyardError):
        return _formatted(cause.message, cause.extensions, request_id, error)
    return _formatted(error.message, ValidationFailed("", path=_path(error, document)).extensions, request_id, error)


def shape_failure(error: GraphQLError, *, request_id: str | None) -> FormattedError:
    """An error raised while a field was executed; logs it, with its trace if nobody expected it."""
    cause = _cause(error)
    if isinstance(cause, SwitchyardError):
        expected = cause
    elif _is_callers_fault(error, cause):
        expected = ValidationFailed(error.message, path=_path(error, None))
    elif is_outage(cause):
        _log.warning("dependency_away", path=error.path, error=repr(cause), request_id=request_id)
        return _formatted(*_outage(), request_id, error)
    else:
        return _formatted(*_fault(cause, error.path, request_id), request_id, error)
    _log.info("operation_refused", code=expected.code.value, path=error.path, request_id=request_id)
    return _formatted(expected.message, expected.extensions, request_id, error)


def shape_exception(error: Exception, *, request_id: str | None) -> FormattedError:
    """An exception that escaped outside of any field, from the source of a subscription for one."""
    if isinstance(error, GraphQLError):
        return shape_failure(error, request_id=request_id)
    if isinstance(error, SwitchyardError):
        _log.info("operation_refused", code=error.code.value, request_id=request_id)
        return _formatted(error.message, error.extensions, request_id)
    if is_outage(error):
        _log.warning("dependency_away", error=repr(error), request_id=request_id)
        return _formatted(*_outage(), request_id)
    return _formatted(*_fault(error, None, request_id), request_id)


def _outage() -> tuple[str, dict[str, Any]]:
    error = ServiceUnavailable("A service that we need does not answer; try again in a moment.")
    return error.message, error.extensions


def _fault(
    error: BaseException, path: Sequence[str | int] | None, request_id: str | None
) -> tuple[str, dict[str, Any]]:
    _log.error("operation_failed", path=path, request_id=request_id, exc_info=error)
    return "Something went wrong on our side.", {
        "code": ErrorCode.INTERNAL_SERVER_ERROR.value,
        "statusCode": 500,
        "details": {},
    }


def _formatted(
    message: str, extensions: dict[str, Any], request_id: str | None, error: GraphQLError | None = None
) -> FormattedError:
    formatted: FormattedError = {"message": message}
    if error is not None and error.locations:
        formatted["locations"] = [{"line": place.line, "column": place.column} for place in error.locations]
    if error is not None and error.path is not None:
        formatted["path"] = list(error.path)
    formatted["extensions"] = {**extensions, "requestId": request_id}
    return formatted


def _cause(error: GraphQLError) -> BaseException:
    """What was raised first: graphql-core wraps errors to give them a place, at times more than once."""
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    return cause


def _is_callers_fault(error: GraphQLError, cause: BaseException) -> bool:
    """Whether graphql-core refused an argument or the request, and did not fail on a value of ours.

    It raises GraphQLError for both, but only that of an argument knows its place in the document by itself.
    """
    if isinstance(cause, StrawberryInputCoercionError):
        return True
    return isinstance(cause, GraphQLError) and (bool(cause.nodes) if cause is not error else error.path is None)


def _path(error: GraphQLError, document: DocumentNode | None) -> list[str | int]:
    """Where in the input the fault is, as far as it can be known."""
    if match := _VARIABLE.match(error.message):
        steps = [name or int(index) for name, index in _STEP.findall(match[2] or "")]
        return [match[1], *steps]
    if document is not None and error.nodes:
        return path_of(document, error.nodes[0])
    return []
