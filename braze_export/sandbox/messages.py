"""The values that pass between the rooms: a request, an answer, a refusal.

https://www.braze.com/docs/api/errors/
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from braze_export.sandbox.windows import Rate

# Documented: "4 MB". Undocumented: whether that is 4,000,000 or 4 * 2**20 bytes. This is the
# smaller one: a client that keeps to it is right both ways.
MAX_BODY: Final = 4_000_000

BAD_SYNTAX: Final = "Error while parsing request body. Please check your syntax."

encode = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True)
class Request:
    """A request as it came in; ``headers`` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    json: Any = None
    readable: bool = True
    too_large: bool = False


@attrs.frozen(kw_only=True)
class Answer:
    """What an endpoint makes of a request."""

    body: bytes
    identifiers: int = 0


@attrs.frozen(kw_only=True)
class FilePart:
    """So many bytes of a file, as the body of an answer; it is read as it is sent."""

    path: Path
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the part. Blocks."""
        # Opened anew each time, so that no file is left open when a client goes.
        with self.path.open("rb") as file:
            file.seek(self.start + offset)
            return file.read(size)


@attrs.frozen(kw_only=True)
class Reply:
    """A whole answer, before it becomes bytes on a socket.

    ``rate`` is None where no limit holds; ``headers`` replace those that every answer has.
    """

    status: int
    body: bytes | FilePart
    rate: Rate | None = None
    identifiers: int = 0
    headers: Mapping[str, str] = attrs.field(factory=dict)


class Refusal(Exception):  # noqa: N818 - not a failure of ours: it is an answer
    """A request that Braze would not serve: status, message, and perhaps further messages."""

    def __init__(self, status: int, message: str, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors

    @property
    def body(self) -> bytes:
        """The documented shape of a fatal error."""
        return encode({"message": self.message} | ({"errors": self.errors} if self.errors else {}))


class SyntaxRefusal(Refusal):
    """A body that is not JSON: the one error whose text stands under ``error``."""

    def __init__(self) -> None:
        super().__init__(400, BAD_SYNTAX)

    @property
    def body(self) -> bytes:
        """The documented shape: singular ``error``, no ``message``."""
        return encode({"error": self.message})


def bad_request(message: str = "Bad Request", errors: Sequence[str] = ()) -> Refusal:
    """Refuse with 400."""
    return Refusal(400, message, errors)


def decode(body: bytes) -> tuple[Any, bool]:
    """Return the JSON of a request body, and whether it was readable."""
    try:
        return msgspec.json.decode(body), True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, False
