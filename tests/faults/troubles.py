"""The faults, a line each: what is done to an answer, and what has to come of it.

What calls of Braze's API raise, and what comes of the same at the link of an export: when it is
looked at, when its archive is read, and when it is saved as it is.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from braze_export import (
    APIError,
    ArchiveError,
    AuthenticationError,
    BadRequestError,
    BrazeError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    ExportExpiredError,
    ExportInProgressError,
    ExportNotReadyError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
    UnsupportedMediaTypeError,
)
from braze_export.endpoints import EXPORT_IDS
from braze_export.sandbox import Fault
from tests.faults import places
from tests.faults.clockwork import EPOCH
from tests.faults.operations import Operation
from tests.faults.places import Place
from tests.faults.world import KEY, LOOKS, TRIES

Raised: TypeAlias = type[BrazeError] | None
#: By transport, where they differ.
Raises: TypeAlias = Raised | Mapping[str, Raised]
Spoilt: TypeAlias = Literal["no", "text", "content", "users", "errors"]


@frozen
class Trouble:
    """A fault, and what it comes to if it does not pass.

    Attributes:
        fault: of an answer; ``None`` for a place.
        place: where no answer comes from.
        calls: what calls raise.
        look: what is raised where a link is looked at.
        read: where its archive is read.
        save: where its archive is saved.
        sent: whether the request may have arrived, where no answer comes.
        spoilt: what is wrong with the body: it is no JSON (``text``), it lacks what is needed
            (``content``), its users cannot be read (``users``), or errors are told of instead of
            them (``errors``).
        long: what asks to wait for longer than anybody does: the limit's reset, of which only
            calls know, or ``Retry-After``.
        calls_only: whether it is nothing for links.
        poisons: whether something of it is left on the connection for the next request.
        in_progress: what starts an export takes it for one that is running.
        status: the error's, and what it says, where that is known.
        message: what Braze says.
        errors: what it says besides.
    """

    fault: Fault | None = None
    place: Place | None = None
    calls: Raises = None
    look: Raises = None
    read: Raises = None
    save: Raises = None
    sent: bool = True
    spoilt: Spoilt = "no"
    long: Literal["no", "reset", "retry-after"] = "no"
    calls_only: bool = False
    poisons: bool = False
    in_progress: bool = False
    status: int | None = None
    message: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def stands_in(self) -> bool:
        """Whether other records come than there are."""
        return self.fault is not None and self.fault.replaces

    def raises(self, operation: Operation, transport: str) -> Raised:
        """Return what an operation raises."""
        found = self._raises(operation)
        kind = found.get(transport) if isinstance(found, Mapping) else found
        return None if kind is DecodeError and self._is_fine(operation) else kind

    def _raises(self, operation: Operation) -> Raises:
        if operation.of_links:
            return {"look": self.look, "archive": self.read}.get(operation.reads, self.save)
        if self.in_progress and operation.endpoint.starts_export:
            return ExportInProgressError
        return self.calls

    def _is_fine(self, operation: Operation) -> bool:
        """Say whether an operation takes the body as it is."""
        takes: dict[Spoilt, set[str]] = {
            "content": {"object", "anything"},
            "users": {"slices", "anything"},
            "errors": {"records", "slices", "object", "anything"},
            "text": {"anything"},
        }
        return operation.reads in takes.get(self.spoilt, ())

    def is_tried_again(self, operation: Operation, transport: str) -> bool:
        """Say whether the same may work another time."""
        kind = self.raises(operation, transport)
        if kind is None:
            return False
        if operation.reads == "look":
            return issubclass(kind, TransportError | ServerError | ExportNotReadyError)
        if self.long == "retry-after" or (self.long == "reset" and not operation.of_links):
            return False
        if operation.endpoint.starts_export:
            return kind is RateLimitError or not self.sent
        if kind is DecodeError:
            # A user that cannot be read is found when the request is long over.
            users = self.spoilt in {"users", "errors"} and operation.endpoint is EXPORT_IDS
            return not (users or operation.of_links)
        return issubclass(kind, TransportError | ServerError | RateLimitError)

    def tries(self, operation: Operation, transport: str) -> int:
        """Return how often one request is tried, at most, where it never works."""
        if not self.is_tried_again(operation, transport):
            return 1
        looks = operation.reads == "look" or (self.place is not None and operation.of_links)
        return LOOKS if looks else TRIES


def _all(kind: type[BrazeError], fault: Fault | None = None, **more: Any) -> Trouble:
    """Return what is the same everywhere."""
    everywhere: Any = dict.fromkeys(("calls", "look", "read", "save"), kind)
    return Trouble(fault, **(everywhere | more))


def _lost(**fault: Any) -> Trouble:
    return _all(ConnectionLostError, Fault(**fault))


def _lost_in_the_body(**fault: Any) -> Trouble:
    """Return what does not disturb who looks at a link: that takes no more than the headers."""
    return evolve(_lost(**fault), look=None)


def _late(**fault: Any) -> Trouble:
    return _all(RequestTimeoutError, Fault(**fault))


def _place(place: Place, kind: type[BrazeError] = ConnectError, *, sent: bool = False) -> Trouble:
    return _all(kind, place=place, sent=sent)


def _body(body: Any, spoilt: Spoilt = "text", read: Raised = ArchiveError, **fault: Any) -> Trouble:
    """Return an answer of status 200 that is not what it should be.

    At a link an object is a line of an archive that is not packed: of an odd profile.
    """
    calls = None if spoilt == "no" else DecodeError
    return Trouble(Fault(status=200, body=body, **fault), calls=calls, read=read, spoilt=spoilt)


def _unharmed(**fault: Any) -> Trouble:
    return Trouble(Fault(**fault))


def _limited(headers: dict[str, str | None], **more: Any) -> Trouble:
    fault = Fault(status=429, headers=headers)
    busy: Any = {"look": ServerError, "read": ServerError, "save": ServerError}
    return Trouble(fault, calls=RateLimitError, status=429, **(busy | more))


# --- no connection, or none of the right kind

PLACES = {
    "unknown name": _place(places.unknown),
    "refused": _place(places.refused),
    "untrusted certificate": _place(places.served(certificate="of_a_stranger")),
    "certificate of another host": _place(places.served(certificate="of_another")),
    "expired certificate": _place(places.served(certificate="expired")),
    "https where http is spoken": _place(places.served(says=b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "silence where https is spoken": _place(places.served(), RequestTimeoutError),
    "http where https is spoken": _place(
        places.served("http", certificate="good"), ConnectionLostError, sent=True
    ),
    "no http at all": _place(
        places.served("http", says=b"220 ready for mail\r\n"), ConnectionLostError, sent=True
    ),
}

# --- the connection breaks, or is slow

_BREAKS_OFF = b'400\r\n{"message":"success","users":['

CONNECTIONS = {
    "closed before": _lost(drop="before"),
    "closed in the headers": _lost(drop="headers"),
    "closed after the headers": _lost_in_the_body(cut=0),
    "closed in the body": _lost_in_the_body(drop="body"),
    "closed after": _unharmed(drop="after"),
    "reset before": _lost(drop="before", reset=True),
    "reset in the headers": _lost(drop="headers", reset=True),
    "reset after the headers": _lost_in_the_body(cut=0, reset=True),
    "reset in the body": _lost_in_the_body(drop="body", reset=True),
    "silence": _late(delay=1000.0),
    # What comes from a link takes the time that it takes, as long as something comes.
    "a byte a second": evolve(_late(slow=1.0), calls_only=True),
}

# --- the body is not what it should be

_TRUNCATED = Trouble(Fault(truncate=17), calls=DecodeError, read=ArchiveError, spoilt="text")
_LATIN = '{"message":"success","users":[{"external_id":"u1","first_name":"Renée"}]}'
_SUCCESS: dict[str, Any] = {
    "message": "success", "users": [], "segments": [], "data": [], "url": "http://127.0.0.1:1/x",
}  # fmt: skip
_NO_GZIP: Any = {"content_encoding": "gzip"}
_CHUNKED: Any = {"headers": {"content-length": None, "transfer-encoding": "chunked"}}

BODIES = {
    "truncated": _TRUNCATED,
    "garbage": Trouble(
        Fault(garbage=True), calls=DecodeError, read=ArchiveError, spoilt="text"
    ),
    "empty": _body(b"", read=None),  # an export of nobody
    "html": _body(b"<html><body>Sign in to the network</body></html>"),
    "no object": _body([1, 2], read=DecodeError),
    "null": _body(b"null"),
    "fatal though it is a success": _body(
        {"message": "Invalid Request", "errors": ["odd"]}, "content", read=None
    ),
    "fatal in objects": _body(
        {"message": "Invalid Request", "errors": [{"id": "x", "message": "odd"}]}, "content",
        read=None,
    ),
    "not fatal": _body(_SUCCESS | {"errors": ["odd", {"message": "odder"}]}, "errors", read=None),
    "latin-1": evolve(_body(_LATIN.encode("latin-1"), "users"), calls_only=True),
    "utf-16": _body(json.dumps(_SUCCESS).encode("utf-16")),
    "utf-8 with a mark": _body(b"\xef\xbb\xbf" + json.dumps(_SUCCESS).encode(), "no", read=None),
    "length too large": evolve(
        _lost(headers={"content-length": "99999"}, cut=10**9), calls_only=True
    ),
    "length too small": Trouble(
        Fault(headers={"content-length": "9"}),
        calls={"aiohttp": ConnectionLostError, "httpx": DecodeError},
        read=ArchiveError, spoilt="text", poisons=True,
    ),
    "length that is none": _lost(headers={"content-length": "many"}),
    "gzip that is none": evolve(_lost(**_NO_GZIP), look=None, read=None, save=None),
    "gzip that breaks off": _body(gzip.compress(json.dumps(_SUCCESS).encode())[:40], **_NO_GZIP),
    "br that is none": Trouble(
        Fault(content_encoding="br"), calls={"aiohttp": ConnectionLostError, "httpx": DecodeError},
    ),
    "chunks that break off": evolve(
        _lost(status=200, body=_BREAKS_OFF, **_CHUNKED), calls_only=True
    ),
    "chunks that are none": evolve(
        _lost(status=200, body=b"{}{}\r\n", **_CHUNKED), calls_only=True
    ),
    "no length": _unharmed(headers={"content-length": None}),
    "continue": _unharmed(informational=(100,)),
    "early hints": _unharmed(informational=(103, 103, 100)),
}  # fmt: skip

# --- statuses

_KINDS: dict[int, type[APIError]] = {
    301: APIError,
    307: APIError,
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: APIError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
    599: ServerError,
}
_OBJECTS = [{"id": "x", "message": "odd", "parameters": []}, "odder"]
_SAYS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "json": ({"message": f"Refused, {KEY}"}, "Refused, ***", ()),
    "error": ({"error": "Error while parsing"}, "Error while parsing", ()),
    "objects": ({"message": "Invalid Request", "errors": _OBJECTS}, "Invalid Request",
                ("odd", "odder")),
    "empty": (b"", "(no readable message)", ()),
    "binary": (b"\x00\xff\xfe\x80PK", "(no readable message)", ()),
}  # fmt: skip


def _of_links(status: int) -> tuple[Raised, Raised]:
    """Return what a status raises where a link is looked at, and where it is read."""
    if status in {403, 404}:
        return ExportNotReadyError, ExportExpiredError
    kind = ServerError if status == 429 or status >= 500 else APIError
    return kind, kind


def _statuses() -> Iterator[tuple[str, Trouble]]:
    for status, kind in _KINDS.items():
        look, read = _of_links(status)
        for name, (body, message, errors) in _SAYS.items():
            yield f"{status} {name}", Trouble(
                Fault(status=status, body=body), calls=kind, look=look, read=read, save=read,
                status=status, message=message, errors=errors,
            )  # fmt: skip
    yield "204", Trouble(
        Fault(status=204), calls=DecodeError, look=APIError, read=APIError, save=APIError,
        spoilt="text",
    )  # fmt: skip


# --- refused by the limit

_SILENT: Final[dict[str, str | None]] = {
    f"x-ratelimit-{name}": None for name in ("limit", "remaining", "reset")
}
_DATE: Final = "Fri, 15 Jan 2027 08:01:00 GMT"  # a minute after the epoch of the tests
_FAR: Final = str(int(EPOCH) + 10**8)  # three years

LIMITED = {
    "429 without headers": _limited(_SILENT, in_progress=True),
    "429 though some are left": _limited({"x-ratelimit-remaining": "7"}, in_progress=True),
    "429, reset in the past": _limited({"x-ratelimit-reset": str(int(EPOCH) - 900)}),
    "429, reset far away": _limited({"x-ratelimit-reset": _FAR}, long="reset"),
    "429, reset in milliseconds": _limited({"x-ratelimit-reset": str(int(EPOCH + 60) * 1000)}),
    "429, reset as a date": _limited({"x-ratelimit-reset": _DATE}),
    "429, reset from now on": _limited({"x-ratelimit-reset": "30"}),
    "429, reset is nonsense": _limited({"x-ratelimit-reset": "soon"}),
    "429, come again in a while": _limited({"retry-after": "3"}),
    "429, come again at a date": _limited({"retry-after": _DATE}),
    "429, come again sometime": _limited({"retry-after": "sometime"}),
    "429, come again next year": _limited({"retry-after": "31536000"}, long="retry-after"),
}

# --- clocks

CLOCKS = {
    "a server days behind": _unharmed(clock_skew=-5 * 86_400.0),
    "a server days ahead": _unharmed(clock_skew=5 * 86_400.0),
    "no date": _unharmed(headers={"date": None}),
    "a date that is none": _unharmed(headers={"date": "today"}),
    "no rate": _unharmed(headers=_SILENT),
    "a rate that is none": _unharmed(headers=dict.fromkeys(_SILENT, "many")),
}

TROUBLES: dict[str, Trouble] = {
    **PLACES, **CONNECTIONS, **BODIES, **dict(_statuses()), **LIMITED, **CLOCKS,
}  # fmt: skip
