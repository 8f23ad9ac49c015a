"""What an answer means: the error that it stands for, and what it says of the rate limit.

Pure: no ``async``, no HTTP library, no clock. Whatever a header or body holds, reading it
never fails; what makes no sense counts as absent.
"""

from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from attrs import frozen

from braze_export._json import dumps, loads
from braze_export.endpoints import Endpoint
from braze_export.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    ExportInProgressError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnsupportedMediaTypeError,
)
from braze_export.wire import Request, Response

_MESSAGE_LIMIT = 300  # characters of an error page that are worth keeping
_LATEST_EPOCH = 100_000_000_000  # above this a reset is in milliseconds: as seconds, year 5138
_LONGEST_DELTA = 86_400  # seconds: a smaller reset counts from now; as a moment it was in 1970


@frozen
class RateWindow:
    """What an answer's headers say of the rate limit, in the server's own time.

    https://www.braze.com/docs/api/api_limits#monitoring-your-rate-limits

    Attributes:
        limit: requests allowed per window.
        remaining: requests left in this window.
        reset: when the next window begins, in seconds since the epoch on the server's clock;
            ``None`` where the headers do not say, or name a time that is past.
        clock: the server's clock when it answered: its ``Date``, which leaves out the fraction
            of the second, else this machine's time.
        dated: whether ``clock`` is the server's own.
        pause: seconds to wait before the next request, where a refusal asks for it.
    """

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None
    clock: float = 0.0
    dated: bool = False
    pause: float | None = None

    @property
    def resets_in(self) -> float | None:
        """Seconds until the next window; up to a second too long, never too short."""
        return None if self.reset is None else self.reset - self.clock


def read_rate_window(headers: Mapping[str, str], *, now: float) -> RateWindow:
    """Read the ``X-RateLimit-*`` headers; whatever makes no sense counts as absent.

    The reset is documented in seconds since the epoch; milliseconds, a date, and seconds from
    now are understood as well.

    Args:
        headers: with names in lower case.
        now: this machine's time, for an answer without a ``Date``.
    """
    date = _http_date(headers.get("date"))
    clock = now if date is None else date
    reset = _moment(headers.get("x-ratelimit-reset"), clock)
    return RateWindow(
        limit=_whole(headers.get("x-ratelimit-limit")) or None,
        remaining=_whole(headers.get("x-ratelimit-remaining")),
        reset=reset if reset is not None and reset > clock else None,
        clock=clock,
        dated=date is not None,
    )


def _moment(text: str | None, clock: float) -> float | None:
    number = _number(text)
    if number is None:
        return _http_date(text)
    if number > _LATEST_EPOCH:
        return number / 1000
    return clock + number if number <= _LONGEST_DELTA < clock else number


def read_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a number, or a date; ``None`` if neither.

    Braze documents no such header, but a proxy on the way may send it.
    """
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    moment = _http_date(text)
    if moment is None:
        return None
    server_now = _http_date(headers.get("date"))
    return max(0.0, moment - (now if server_now is None else server_now))


def check(request: Request, response: Response, *, now: float) -> None:
    """Return if the answer is a success, else raise the ``APIError`` that it stands for.

    https://www.braze.com/docs/api/errors

    Args:
        request: what was asked.
        response: what came.
        now: this machine's time, in seconds since the epoch.
    """
    if not 200 <= response.status < 300:
        raise _failure(request, response, now)


def _failure(request: Request, response: Response, now: float) -> APIError:
    message, errors = read_error(response, request.key.redact)
    endpoint = request.endpoint
    kind, hint = _kind_of(response, endpoint, message)
    error = kind(
        message,
        status=response.status,
        errors=errors,
        endpoint=endpoint.label,
        hint=hint,
    )
    if isinstance(error, RateLimitError | ServerError):
        waits = [read_retry_after(response.headers, now=now)]
        window = read_rate_window(response.headers, now=now)
        if kind is RateLimitError and not window.remaining:  # else another limit refused it
            waits.append(window.resets_in)
        error.retry_after = max((wait for wait in waits if wait is not None), default=None)
    return error


def read_error(response: Response, redact: Callable[[str], str]) -> tuple[str, list[str]]:
    """Return an answer's message and further messages, from whichever of Braze's shapes it has.

    Args:
        response: what came.
        redact: takes out of a text what must not be shown.
    """
    try:
        body = loads(response.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = _text(response.body.decode("utf-8", "replace"), redact)
        readable = text.isprintable() and not text.startswith("<")
        return (text if text and readable else "(no readable message)"), []
    message = body.get("message") or body.get("error") or ""
    return _line(message, redact) or "(no message)", read_messages(body.get("errors"), redact)


def read_messages(errors: Any, redact: Callable[[str], str] = str) -> list[str]:
    """Return an ``errors`` array as texts. Its items are strings, or objects with ``message``."""
    if errors is None:
        return []
    items = errors if isinstance(errors, list) else [errors]
    return [_line(i.get("message", i) if isinstance(i, dict) else i, redact) for i in items]


def is_in_progress(response: Response, message: str) -> bool:
    """Tell the 429 of an export that already runs from the 429 of the rate limit.

    Undocumented: a spent rate limit says ``remaining: 0``, the other has requests left.
    """
    text = message.lower()
    if "in progress" in text or "already" in text:
        return True
    remaining = _whole(response.headers.get("x-ratelimit-remaining"))
    return remaining is None or remaining > 0


def _kind_of(response: Response, endpoint: Endpoint, message: str) -> tuple[type[APIError], str]:
    status = response.status
    if status == 429:
        if endpoint.starts_export and is_in_progress(response, message):
            return ExportInProgressError, (
                "An export of this segment is already running (or 100 of the company are): wait "
                f"until it ends, or cancel it first. {endpoint.docs}"
            )
        return RateLimitError, (
            "The workspace's requests for this window are used up, perhaps by others: try again "
            "after its reset"
        )
    if status >= 500:
        return ServerError, "Braze, or something on the way, has a problem: try again later"
    kinds: dict[int, tuple[type[APIError], str]] = {
        400: (BadRequestError, f"See {endpoint.docs}"),
        401: (
            AuthenticationError,
            (
                "Check that the key is whole and unquoted, and that base_url is the REST "
                "endpoint of the key's own instance"
            ),
        ),
        403: (
            PermissionDeniedError,
            (
                f"The key needs the permission {endpoint.permission}; permissions cannot be "
                "added to a key, so make a new one in the dashboard"
            ),
        ),
        404: (NotFoundError, f"Check base_url and the ids asked for. {endpoint.docs}"),
        413: (PayloadTooLargeError, "Braze takes bodies of up to 4 MB"),
        415: (UnsupportedMediaTypeError, "Something on the way changes the request's headers"),
    }
    if 300 <= status < 400:
        return APIError, "Redirects are not followed, so that the key stays with its host"
    return kinds.get(status, (APIError, f"See {endpoint.docs}"))


def _text(value: Any, redact: Callable[[str], str]) -> str:
    try:
        text = value if isinstance(value, str) else dumps(value).decode()
    except RecursionError:
        text = "(nested too deeply)"
    printable = text.encode("utf-8", "replace").decode()  # no lone surrogates
    # Cut last: half a key is not found.
    return redact(printable.strip())[:_MESSAGE_LIMIT]


def _line(value: Any, redact: Callable[[str], str]) -> str:
    """Return a message as one line that forges none in a log, and steers no terminal."""
    return "".join(c if c.isprintable() else " " for c in _text(value, redact))


def _number(text: str | None) -> float | None:
    """Return a header's number: finite and not negative, else nothing."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


@lru_cache(16)  # many answers come in the same second
def _http_date(text: str | None) -> float | None:
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter from a year of twenty digits
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def decode_error(
    message: str, *, endpoint: Endpoint, raw: bytes = b"", status: int = 200
) -> DecodeError:
    """Make the error of a body that cannot be read, with the bytes kept out of its text."""
    hint = f"See {endpoint.docs}"
    error = DecodeError(message, status=status, endpoint=endpoint.label, hint=hint)
    error.raw = raw
    return error
