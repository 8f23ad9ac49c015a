"""What an app answers when Braze, or the way to it, fails: a status and a sentence for each error.

The sentences are ours: nothing of Braze's answer, of the input or of the address is passed on.
"""

import logging
from math import ceil
from typing import Any, Final, cast

from attrs import frozen
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.websockets import WebSocketState

from braze_export.errors import (
    APIError,
    BrazeError,
    ClientClosedError,
    DeadlineExceededError,
    ExportInProgressError,
    ExportNotReadyError,
    InvalidIdentifierError,
    LimiterError,
    RateLimitError,
    RequestTimeoutError,
    TransportError,
)

_LONGEST: Final = 3600  # seconds: the longest of Braze's windows
_TRY_AGAIN_LATER: Final = 1013  # of a WebSocket
_INTERNAL_ERROR: Final = 1011
_log = logging.getLogger("braze_export")


class Problem(BaseModel):
    """The body of an answer to a request that could not be served.

    Attributes:
        detail: why, in one sentence.
    """

    detail: str


BRAZE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    502: {"model": Problem, "description": "Braze could not be reached, or did not do it"},
    503: {
        "model": Problem,
        "description": "Not now: the rate limit, say",
        "headers": {
            "Retry-After": {
                "description": "Seconds after which to try again",
                "schema": {"type": "integer", "minimum": 1},
            }
        },
    },
    504: {"model": Problem, "description": "Braze did not answer in time"},
}
"""What ``add_error_handlers`` answers for any call, for OpenAPI: ``responses=BRAZE_RESPONSES``."""


@frozen
class _Answer:
    status: int
    detail: str


# The first that fits counts: subclasses stand before their bases.
_ANSWERS: Final[tuple[tuple[type[BrazeError], _Answer], ...]] = (
    (ExportInProgressError, _Answer(409, "An export of this kind is being prepared already.")),
    (RateLimitError, _Answer(503, "The rate limit of Braze is used up for now.")),
    (LimiterError, _Answer(503, "The rate limit of Braze cannot be watched over just now.")),
    (ClientClosedError, _Answer(503, "The service is shutting down.")),
    (DeadlineExceededError, _Answer(504, "There was no answer of Braze in time.")),
    (RequestTimeoutError, _Answer(504, "There was no answer of Braze in time.")),
    (ExportNotReadyError, _Answer(504, "The export was not ready in time.")),
    (TransportError, _Answer(502, "Braze could not be reached.")),
    (APIError, _Answer(502, "Braze gave an answer that is of no use.")),
)
_LIMITED: Final = _Answer(503, "The rate limit of Braze leaves no room within the time given.")
# Of these, so that an app may have handlers of its own for the rest, and for subclasses.
_HANDLED: Final = (
    APIError,
    ClientClosedError,
    DeadlineExceededError,
    ExportNotReadyError,
    InvalidIdentifierError,
    LimiterError,
    TransportError,
)


def add_error_handlers(app: FastAPI) -> None:
    """Answer requests whose calls of Braze fail, in dependencies too, with what went wrong.

    ======================================================  ======  ====================
    Error                                                   Status
    ======================================================  ======  ====================
    ``InvalidIdentifierError``                              422     in FastAPI's own shape
    ``ExportInProgressError``                               409
    ``RateLimitError``                                      503     ``Retry-After``
    ``DeadlineExceededError`` because of the rate limit     503     ``Retry-After``
    ``LimiterError``, ``ClientClosedError``                 503     ``Retry-After: 1``
    ``DeadlineExceededError`` otherwise                     504
    ``RequestTimeoutError``, ``ExportNotReadyError``        504
    any other ``TransportError``                            502
    any other ``APIError``, such as 400, 401, 404, 5xx      502
    ======================================================  ======  ====================

    The body is ``{"detail": "..."}``. Any other ``InputError`` is a mistake of the app, and is
    left to it like the rest: 500. An unknown user is no error. Each answer is logged as a warning,
    by type, status and endpoint of Braze; 422 is not.

    A WebSocket is closed with code 1013 where the status would be 503, otherwise with 1011; with
    403 if it was not accepted yet. Once an answer has begun its status stands: the server cuts the
    connection and logs the error (``ndjson`` begins only when it has something to send).

    Handlers that the app has for one of these classes stay as they are; those for subclasses of
    them take precedence whenever they are added. Mounted apps need handlers of their own.
    """
    for kind in _HANDLED:
        if kind not in app.exception_handlers:
            app.add_exception_handler(kind, cast("Any", _handle))


async def _handle(connection: Request | WebSocket, error: BrazeError) -> JSONResponse | None:
    if isinstance(connection, WebSocket):
        await _close(connection, error)
        return None
    if isinstance(error, InvalidIdentifierError):
        # Its message describes the input without quoting it.
        item = {"type": "invalid_identifier", "loc": [], "msg": str(error)}
        return JSONResponse({"detail": [item]}, 422)
    answer = _answer(error)
    headers = {"Retry-After": str(_retry_after(error))} if answer.status == 503 else None
    return JSONResponse({"detail": answer.detail}, answer.status, headers)


async def _close(websocket: WebSocket, error: BrazeError) -> None:
    if isinstance(error, InvalidIdentifierError):
        code, reason = _INTERNAL_ERROR, "The identifier cannot be one."
    else:
        answer = _answer(error)
        code = _TRY_AGAIN_LATER if answer.status == 503 else _INTERNAL_ERROR
        reason = answer.detail
    if WebSocketState.DISCONNECTED not in {websocket.client_state, websocket.application_state}:
        await websocket.close(code, reason)


def _answer(error: BrazeError) -> _Answer:
    answer = next(answer for kind, answer in _ANSWERS if isinstance(error, kind))
    if isinstance(error, DeadlineExceededError) and error.retry_after is not None:
        answer = _LIMITED
    words = [type(error).__name__, str(getattr(error, "status", "") or "")]
    words.append(getattr(error, "endpoint", ""))
    _log.warning("%s: answered with %d", " ".join(filter(None, words)), answer.status)
    return answer


def _retry_after(error: BrazeError) -> int:
    """Return whole seconds: not less than asked for, and at least one."""
    asked = getattr(error, "retry_after", None) or 0.0
    return max(1, ceil(min(asked, _LONGEST)))
