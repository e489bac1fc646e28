"""What can go wrong, as exceptions. Each carries the server's own words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .types import Job


class KapokError(Exception):
    """The base of everything this package raises on purpose."""


class Unreachable(KapokError):
    """No server answered: the address is wrong, or nothing runs there."""


class WaitTimeout(KapokError):
    """The wait is over and the job is not. The job goes on."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(KapokError):
    """The job ended without success: it failed, was cancelled, or ran out of time."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class ApiError(KapokError):
    """The server refused. Its subclasses say what a caller could do about it."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: The HTTP status.
        self.status = status
        #: The server's word for the kind of error, for programs.
        self.code = code
        #: The field of the request it is about.
        self.param = param
        #: For ``kapok explain``.
        self.request_id = request_id
        #: Seconds after which it is worth another try.
        self.retry_after = retry_after

    def __str__(self) -> str:
        told = f"{self.message} (status {self.status}"
        return f"{told}, request {self.request_id})" if self.request_id else f"{told})"


class InvalidRequest(ApiError):
    """400, 413, 422: the request itself is wrong; the message names the field."""


class Denied(ApiError):
    """401, 403: the key is missing, wrong, or does not open this."""


class NotFound(ApiError):
    """404: no such job or model."""


class Conflict(ApiError):
    """409: the thing is not in a state that allows this."""


class Busy(ApiError):
    """429, 503: not now; see ``retry_after``."""


class Timeout(ApiError):
    """408, 504: the deadline passed."""


class ServerError(ApiError):
    """Any other status."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Denied,
    403: Denied,
    404: NotFound,
    408: Timeout,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    429: Busy,
    503: Busy,
    504: Timeout,
}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _field(error: Any, name: str) -> str | None:
    value = error.get(name) if isinstance(error, dict) else None
    return value if isinstance(value, str) else None


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The exception for a refusal, whichever protocol's form it has."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    # OpenAI's form has an object, the Open Inference Protocol's a string.
    error = document.get("error") if isinstance(document, dict) else None
    message = error if isinstance(error, str) else _field(error, "message")
    if not message:
        message = body.decode("utf-8", "replace").strip()[:500] or "the server gave no reason"
    kind = _BY_STATUS.get(status, ServerError)
    return kind(
        message,
        status=status,
        code=_field(error, "code") or _field(error, "type"),
        param=_field(error, "param"),
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
    )
