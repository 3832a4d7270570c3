"""From an exception of Scrapy, Twisted or our own middleware to the reason that the worker stores."""

from __future__ import annotations

from OpenSSL.SSL import Error as TlsError
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    NotSupported,
    ResponseDataLossError,
    UnsupportedURLSchemeError,
)
from scrapy.spidermiddlewares.httperror import HttpError
from service_identity import VerificationError
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.web.client import ResponseFailed

from tasks.crawl.crawler.protocol import FailureReason


class Refused(IgnoreRequest):
    """Our own middleware will not fetch this; a kind of IgnoreRequest, so that nothing retries or logs it."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Stopping(IgnoreRequest):
    """The crawl stops before this was fetched: it goes back to the worker, unanswered."""


_REASONS: tuple[tuple[type[BaseException], FailureReason], ...] = (
    (DownloadTimeoutError, FailureReason.TIMEOUT),
    (ConnectTimeoutError, FailureReason.TIMEOUT),
    (TimeoutError, FailureReason.TIMEOUT),
    (CannotResolveHostError, FailureReason.DNS),
    (DNSLookupError, FailureReason.DNS),
    (DownloadCancelledError, FailureReason.TOO_LARGE),
    (DownloadConnectionRefusedError, FailureReason.CONNECTION),
    (DownloadFailedError, FailureReason.CONNECTION),
    (ResponseDataLossError, FailureReason.CONNECTION),
    (ConnectError, FailureReason.CONNECTION),
    (ConnectionLost, FailureReason.CONNECTION),
    (OSError, FailureReason.CONNECTION),
    (NotSupported, FailureReason.UNSUPPORTED_CONTENT),
    (UnsupportedURLSchemeError, FailureReason.UNSUPPORTED_CONTENT),
)


def explain(error: BaseException) -> tuple[FailureReason, str, int | None]:
    """The reason, a sentence for people, and the HTTP status if there was one."""
    if isinstance(error, Refused):
        return error.reason, error.detail, None
    if isinstance(error, HttpError):
        return FailureReason.HTTP_STATUS, f"The server answered {error.response.status}.", error.response.status
    if isinstance(error, IgnoreRequest):
        # Scrapy's own: the redirect and decompression middlewares tell theirs apart only by the text.
        too_large = "DOWNLOAD_MAXSIZE" in str(error)
        return (FailureReason.TOO_LARGE if too_large else FailureReason.REDIRECTS), str(error), None
    if _is_tls(error):
        return FailureReason.TLS, _sentence(error), None
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason, _sentence(error), None
    return FailureReason.INTERNAL, _sentence(error), None


def _is_tls(error: BaseException) -> bool:
    cause = error.__cause__
    failures = cause.reasons if isinstance(cause, ResponseFailed) else ()
    return any(isinstance(failure.value, (TlsError, VerificationError)) for failure in failures)


def _sentence(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__
