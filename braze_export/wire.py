"""What crosses the seam to an HTTP library: frozen values, and the transport's protocol.

No ``async`` code, no HTTP library.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, NoReturn, Protocol

from attrs import field, frozen

from braze_export.endpoints import Endpoint
from braze_export.errors import InputError
from braze_export.validators import above_zero

#: What to do where no whole answer came, for the errors of every transport.
UNREACHABLE: Final = "Check base_url and the network"
BROKEN: Final = "Check the network, and try again"


class ApiKey:
    """A REST API key that does not show itself: not in ``repr``, ``str``, pickles or logs."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Take the key.

        Raises:
            InputError: it is empty, quoted, or holds what no key holds.
        """
        if not isinstance(value, str) or not value.strip():
            raise InputError("api_key is empty: give the REST API key of your Braze workspace")
        if value[0] in "'\"" or value[-1] in "'\"":
            raise InputError("api_key is in quotes: Braze answers 401 to that, give it bare")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise InputError(
                "api_key holds a space, a line break or another character that no key has: "
                "was it read from a file with its last line break?"
            )
        self._value = value

    def __repr__(self) -> str:
        return "ApiKey('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled: make the client anew where it is needed")

    def bearer(self) -> str:
        """Return the value of the ``Authorization`` header."""
        return f"Bearer {self._value}"

    def redact(self, text: str) -> str:
        """Return the text without the key, should a server have echoed it."""
        return text.replace(self._value, "***")


@frozen
class Timeouts:
    """How long to wait, in seconds, for each part of one request.

    Attributes:
        connect: for a connection, TLS included.
        read: between two pieces of the answer.
        total: for the whole request. Not used for downloads.
    """

    connect: float = field(default=10.0, validator=above_zero)
    read: float = field(default=60.0, validator=above_zero)
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

    Raises, from all of it: ``TransportError`` and nothing else of the HTTP library's.
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
