"""What crosses the seam to an HTTP library: frozen values, and the transport's protocol.

No HTTP library, and nothing that waits but for the pieces of a body.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NoReturn, Protocol, TypeVar

from attrs import field, frozen

from braze_export.endpoints import Endpoint
from braze_export.errors import DecodeError, InputError
from braze_export.validators import above_zero, check_methods

E = TypeVar("E", bound=BaseException)

#: What to do where no whole answer came, for the errors of every transport.
UNREACHABLE: Final = "Check base_url and the network"
BROKEN: Final = "Check the network, and try again"

#: Bytes of an answer, decompressed: fifty profiles of 5 MB each, where 20 KB is a full one.
MAX_ANSWER: Final = 256 * 1024 * 1024
#: Asked for, and taken. A few bytes of others, or of several at once, may become gigabytes in one
#: piece, before anybody could stop it.
_ENCODINGS: Final = ("gzip", "deflate")


#: What is commonly given in place of the transport that takes it.
_BARE: Final = {
    "aiohttp.ClientSession": ("AiohttpTransport", "session"),
    "httpx.AsyncClient": ("HttpxTransport", "client"),
    "httpx.Client": ("HttpxTransport", "client"),
}


class _Hidden(str):
    """Text to be sent that its ``repr`` does not show: HTTP libraries keep it in their locals."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class ApiKey:
    """A REST API key that does not show itself: not in ``repr``, ``str``, pickles or logs."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Take the key.

        Raises:
            InputError: it is empty, quoted, or holds what no key holds.
        """
        wrong = _wrong_with(value)
        if wrong:
            del value  # a key with a line break is a key: no traceback with locals may show it
            raise InputError(wrong)
        self._value = value

    def __repr__(self) -> str:
        return "ApiKey('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled: make the client anew where it is needed")

    def bearer(self) -> str:
        """Return the value of the ``Authorization`` header."""
        return _Hidden(f"Bearer {self._value}")

    def redact(self, text: str) -> str:
        """Return the text without the key, should a server have echoed it."""
        return text.replace(self._value, "***")


def _wrong_with(key: object) -> str:
    """Say what is wrong with a key; nothing, if nothing is."""
    if not isinstance(key, str) or not key.strip():
        return "api_key is empty: give the REST API key of your Braze workspace"
    if key[0] in "'\"" or key[-1] in "'\"":
        return "api_key is in quotes: Braze answers 401 to that, give it bare"
    if not key.isascii() or not key.isprintable() or " " in key:
        return (
            "api_key holds a space, a line break or another character that no key has: "
            "was it read from a file with its last line break?"
        )
    return ""


@frozen
class Timeouts:
    """How long to wait, in seconds, for each part of one request.

    Attributes:
        connect: for a connection, TLS included.
        read: between two pieces of the answer.
        total: for the whole request. Not used for downloads.
    """

    connect: float = field(default=10.0, validator=above_zero)
    read: float = field(default=30.0, validator=above_zero)
    total: float = field(default=180.0, validator=above_zero)


@frozen
class Request:
    """A request as a transport sends it. ``url`` is complete and encoded."""

    endpoint: Endpoint
    url: str
    key: ApiKey
    user_agent: str
    timeouts: Timeouts
    body: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Every header to send, the key's among them: not to be logged."""
        headers = {
            "Authorization": self.key.bearer(),
            "Accept": "application/json",
            "Accept-Encoding": ", ".join(_ENCODINGS),
            "User-Agent": self.user_agent,
        }
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        return headers


@frozen
class Response:
    """An answer whose whole body has come, decompressed. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@frozen
class Download:
    """A GET of something that is not Braze's API: it has no key, and must never have one.

    Attributes:
        url: complete and encoded. Whoever has it can read the profiles behind it.
        headers: every header to send.
        timeouts: ``total`` does not hold here: a download takes what it takes.
        label: what errors call it.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str]
    timeouts: Timeouts
    label: str


@frozen
class Streamed:
    """An answer whose body is still coming. Header names are in lower case.

    Attributes:
        chunks: the body as it is on the wire, not decompressed.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    chunks: AsyncGenerator[bytes, None] = field(repr=False)


class Transport(Protocol):
    """Moves bytes, decides nothing.

    Raises, from all of it: ``TransportError`` and nothing else of the HTTP library's; and
    ``DecodeError`` where an answer is not taken (``check_encoding``, ``gathered``).
    Redirects are not followed: the key must not reach another host.
    """

    async def send(self, request: Request) -> Response:
        """Send one request and return its answer, whatever its status."""
        ...

    def stream(self, download: Download) -> AbstractAsyncContextManager[Streamed]:
        """Send a GET, and give its answer as it comes; leaving the block ends it."""
        ...

    async def aclose(self) -> None:
        """Close what the transport has opened itself."""
        ...


def check_transport(transport: object) -> None:
    """Accept an object of whatever class that has the methods of ``Transport``.

    Raises:
        InputError: it has not, or it is what a transport is made of.
    """
    # By their names: the libraries are imported by the transports only.
    bases = {f"{b.__module__.partition('.')[0]}.{b.__name__}" for b in type(transport).__mro__}
    for bare, (taker, what) in _BARE.items():
        if bare in bases:
            raise InputError(f"transport must be {taker}({what}), not the {what} itself")
    check_methods(transport, "Transport", "transport", ("send", "stream", "aclose"))


def check_encoding(headers: Mapping[str, str], endpoint: Endpoint) -> None:
    """Accept an answer whose body is decompressed piece by piece.

    Args:
        headers: with names in lower case.
        endpoint: for the error.

    Raises:
        DecodeError: it is packed otherwise, or more than once.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in {"", "identity", *_ENCODINGS}:
        raise DecodeError(
            f"the body is packed in a way that was not asked for: only {' and '.join(_ENCODINGS)} "
            "are taken",
            endpoint=endpoint.label,
            hint="Something on the way changes what Braze answers",
        )


async def gathered(pieces: AsyncIterable[bytes], endpoint: Endpoint) -> bytes:
    """Return the whole of a body that comes in pieces, decompressed.

    Raises:
        DecodeError: it is larger than any answer of Braze: a bomb, say.
    """
    taken: list[bytes] = []
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > MAX_ANSWER:
            raise DecodeError(
                f"the body is over {MAX_ANSWER:,} bytes",
                endpoint=endpoint.label,
                hint="Ask for fewer fields",
            )
        taken.append(piece)
    return b"".join(taken)


def causes(error: BaseException, outer: BaseException | None = None) -> Iterator[BaseException]:
    """Yield an error and those behind it, up to the one that was being handled already."""
    behind: BaseException | None = error
    while behind is not None and behind is not outer:
        yield behind
        behind = behind.__cause__ or behind.__context__


def without_frames(error: E, outer: BaseException | None = None) -> E:
    """Return an error without the frames that it went through.

    Their locals hold whole answers; those of an HTTP library the headers with the key, or the
    link, and there are logs with locals.

    Args:
        error: and those behind it, whose frames are dropped.
        outer: what the caller was handling already: from there on, frames are its own.
    """
    for behind in causes(error, outer):
        behind.__traceback__ = None
    return error
