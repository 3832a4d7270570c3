"""The tree of expected errors: everything a client may be told, one class per code of the contract.

    SwitchyardError
    ├── Unauthorized          401  who are you?
    ├── Forbidden             403  you may see this, not do that
    ├── NotFound              404  no such thing, or not yours
    ├── ValidationFailed      400  the input is wrong; `path` says where
    ├── Conflict              409  right input, wrong moment
    ├── PayloadTooLarge       413
    ├── RateLimitExceeded     429  `retryAfterSeconds` says when
    └── ServiceUnavailable    503  something we need does not answer

Anything else that escapes is a fault of ours and reaches clients only as INTERNAL_SERVER_ERROR.
The module imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar


class ErrorCode(StrEnum):
    """The closed set of `extensions.code` values."""

    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    CONFLICT = "CONFLICT"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INTERNAL_SERVER_ERROR = "INTERNAL_SERVER_ERROR"


class SwitchyardError(Exception):
    """An expected failure: `message` is for people, `details` for programs.

    graphql-core copies `extensions` of a raised exception into the answer by itself.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_SERVER_ERROR
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details

    @property
    def extensions(self) -> dict[str, Any]:
        """What the client sees beside the message."""
        return {"code": self.code.value, "statusCode": self.status, "details": dict(self.details)}


class Unauthorized(SwitchyardError):
    """No credentials, or credentials that no longer hold."""

    code = ErrorCode.UNAUTHORIZED
    status = 401


class Forbidden(SwitchyardError):
    """The caller may see the thing but may not do this to it."""

    code = ErrorCode.FORBIDDEN
    status = 403


class NotFound(SwitchyardError):
    """No such thing, or none that the caller may know of: the two look the same."""

    code = ErrorCode.NOT_FOUND
    status = 404


class ValidationFailed(SwitchyardError):
    """The input breaks a rule; `path` leads to the faulty value inside the operation's input."""

    code = ErrorCode.VALIDATION_ERROR
    status = 400

    def __init__(self, message: str, *, path: Sequence[str | int] = (), **details: Any) -> None:
        super().__init__(message, path=list(path), **details)


class Conflict(SwitchyardError):
    """The input is right but the state of things does not allow it now."""

    code = ErrorCode.CONFLICT
    status = 409


class PayloadTooLarge(SwitchyardError):
    """More bytes than the limit allows."""

    code = ErrorCode.PAYLOAD_TOO_LARGE
    status = 413


class RateLimitExceeded(SwitchyardError):
    """Too often; the same call will be accepted after `retryAfterSeconds`."""

    code = ErrorCode.RATE_LIMIT_EXCEEDED
    status = 429

    def __init__(self, message: str, *, retry_after_seconds: float, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_seconds = retry_after_seconds

    @property
    def extensions(self) -> dict[str, Any]:
        """The common shape and `retryAfterSeconds`."""
        return {**super().extensions, "retryAfterSeconds": self.retry_after_seconds}


class ServiceUnavailable(SwitchyardError):
    """A service we depend on does not answer, or we are too busy; try again later."""

    code = ErrorCode.SERVICE_UNAVAILABLE
    status = 503
