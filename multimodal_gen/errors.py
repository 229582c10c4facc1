"""All errors that users can meet.

MultimodalGenError
├── InvalidRequest      the caller's mistake: names the field, its value and what is allowed
├── InvalidCheckpoint   the model on disk can't be used: says what was found and what is missing
├── Unauthorized        no API key, or a wrong one
├── Forbidden           not allowed for this API key, or for a page of this origin
├── ModelNotFound       no model of that name is served
├── NotFound            no such job or file, or it belongs to another user
├── Expired             it existed, and was deleted by age or to free space
├── Conflict            the idempotency key was already used for another request
├── QueueFull           the queue is full: says when to retry
├── DeadlineExceeded    not finished, or can't be finished, before the request's deadline
├── Cancelled           cancelled by a client
├── OutOfMemory         the request does not fit on the device even alone
├── GenerationFailed    this request failed; others in its batch did not
├── ProtocolError       a message that violates the wire protocol
├── StorageUnavailable  the ledger or the data folder can't be written to now: says when to retry
├── StorageFull         no space is left for jobs and results
├── EngineNotReady      still loading, or stopping
└── EngineDied          a rank died, stopped responding, or failed inside collective work
"""

from __future__ import annotations

from typing import Any


class MultimodalGenError(Exception):
    """Base of all errors raised here. `code` is stable and sent on the wire and over HTTP."""

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.field: str | None = None
        self.retry_after_s: float | None = None
        self.siblings: list[Any] = []
        """For a list of prompts: one entry per prompt, a result or the error in its place."""

    def __str__(self) -> str:
        return self.message


class InvalidRequest(MultimodalGenError):
    """A field of a request, or of the server's arguments, has a disallowed value."""

    code = "invalid_value"

    def __init__(self, field: str, value: object, allowed: str) -> None:
        shown = _shown(value)
        if len(shown) > 120:
            shown = shown[:100] + f"… ({len(shown)} characters)"
        super().__init__(f"{field}={shown}: {allowed}")
        self.field = field


def _shown(value: object) -> str:
    """A value in one line, without what it holds if that is a file or an array."""
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if (shape := getattr(value, "shape", None)) is not None and hasattr(value, "dtype"):
        return f"<{type(value).__name__} of {value.dtype}, shape {tuple(shape)}>"
    try:
        return " ".join(repr(value).split("\n"))
    except ValueError:  # an integer of more digits than Python prints
        return f"a {type(value).__name__} that is too large to show"


class InvalidCheckpoint(MultimodalGenError):
    code = "invalid_checkpoint"


class Unauthorized(MultimodalGenError):
    code = "invalid_api_key"


class Forbidden(MultimodalGenError):
    code = "forbidden"


class ModelNotFound(MultimodalGenError):
    code = "model_not_found"


class NotFound(MultimodalGenError):
    code = "not_found"


class Expired(MultimodalGenError):
    code = "expired"


class Conflict(MultimodalGenError):
    code = "idempotency_conflict"


class QueueFull(MultimodalGenError):
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(MultimodalGenError):
    code = "deadline_exceeded"


class Cancelled(MultimodalGenError):
    code = "cancelled"


class OutOfMemory(MultimodalGenError):
    code = "out_of_memory"


class GenerationFailed(MultimodalGenError):
    code = "generation_failed"


def not_finite(place: str) -> GenerationFailed:
    """Error for a request whose numbers became NaN or infinite at `place`, such as `decoding`."""
    return GenerationFailed(
        f"the result is not finite (NaN or infinite) from {place}: the checkpoint may be damaged, "
        "or need another --dtype (bfloat16, float32), or the settings are too extreme for it"
    )


class ProtocolError(MultimodalGenError):
    code = "protocol_error"


class StorageUnavailable(MultimodalGenError):
    code = "storage_unavailable"


class StorageFull(MultimodalGenError):
    code = "storage_full"


class EngineNotReady(MultimodalGenError):
    code = "engine_not_ready"


class EngineDied(MultimodalGenError):
    code = "engine_died"


HTTP_STATUS: dict[type[MultimodalGenError], int] = {
    InvalidRequest: 400,
    InvalidCheckpoint: 500,
    Unauthorized: 401,
    Forbidden: 403,
    ModelNotFound: 404,
    NotFound: 404,
    Expired: 410,
    Conflict: 409,
    QueueFull: 429,
    DeadlineExceeded: 408,
    Cancelled: 499,
    OutOfMemory: 507,
    GenerationFailed: 500,
    ProtocolError: 400,
    StorageUnavailable: 503,
    StorageFull: 507,
    EngineNotReady: 503,
    EngineDied: 503,
    MultimodalGenError: 500,
}
"""HTTP status per error class, in the order of the tree above."""

_BY_CODE = {kind.code: kind for kind in HTTP_STATUS}


def from_wire(
    code: str, message: str, field: str | None, retry_after_s: float | None
) -> MultimodalGenError:
    """Rebuild an error that another process sent; an unknown code gives the base class."""
    kind = _BY_CODE.get(code, MultimodalGenError)
    error = kind.__new__(kind)
    MultimodalGenError.__init__(error, message)
    error.field = field
    error.retry_after_s = retry_after_s
    return error
