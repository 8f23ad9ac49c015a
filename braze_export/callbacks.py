"""A receiver of the POST that says an export is ready, for scripts: socket, addresses, reading.

Braze documents little of it (no content type, no signature, no sender's address for certain, no
second try, nothing of a failed export), so a callback is a hint, no proof: keep polling beside it.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import codecs
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define, field, frozen
from yarl import URL

from braze_export._json import loads
from braze_export.errors import ClientClosedError, DecodeError, InputError, RequestTimeoutError
from braze_export.validators import above_zero

_MAX_BODY: Final = 64 * 1024  # bytes; what Braze documents has some 200
_PATIENCE: Final = 30.0  # seconds for a request's head, and again for its body
_NO_BASE: Final = (  # does not show the URL: it may hold a password
    "public_url must be where Braze reaches this receiver: an http or https URL with a host, "
    "without user name, query and fragment, such as https://me.example.com/braze"
)
_Came = asyncio.Future["CallbackResult"]
_log = logging.getLogger("braze_export")
# Not logged is what no HTTP server can read: it is the sender's fault, and may quote a path.
_http_log = logging.getLogger("braze_export.callbacks")
_http_log.addFilter(lambda r: not (r.exc_info and isinstance(r.exc_info[1], HttpProcessingError)))
# Not decompressed: a small body may become a large one.
_OPTIONS: dict[str, Any] = {"auto_decompress": False, "keepalive_timeout": _PATIENCE}
_OPTIONS |= {"access_log": None, "logger": _http_log}


@frozen
class CallbackResult:
    """What was posted.

    Attributes:
        success: what Braze says of the export.
        url: where the archive is, unless it went to the workspace's own storage. It shows personal
            data to anyone who has it, and whoever posted chose it: check it before following it.
    """

    success: bool
    url: str | None = field(default=None, repr=False)


def parse(body: bytes) -> CallbackResult:
    """Read the body of a callback: JSON, also without the braces, as Braze's page prints it.

    Raises:
        DecodeError: it is not what Braze documents. The message quotes nothing of it.
    """
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    try:
        data = loads(b"{%b}" % text if text.startswith(b'"') else text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise DecodeError("the body must be a JSON object", status=400)
    success, url = data.get("success"), data.get("url")
    if not (isinstance(success, bool) or success in ("true", "false")):
        raise DecodeError('"success" must be true or false', status=400)
    if not (url is None or isinstance(url, str)):
        raise DecodeError('"url" must be a string, null or left out', status=400)
    return CallbackResult(success in (True, "true"), url or None)


@frozen(eq=False, repr=False)
class Callback:
    """One job's callback, from ``CallbackReceiver.expect``: give its ``url`` to Braze."""

    url: str  # shown in no log and no repr: whoever knows it can make the job look finished
    _came: _Came
    _deadline: float  # by the loop's clock
    _forget: Callable[[], object]

    @property
    def received(self) -> bool:
        """Whether it has come, with success or without."""
        return self._came.done() and not self._came.cancelled()

    async def wait(self) -> CallbackResult:
        """Wait until it has come, at most for its lifetime; in any number of tasks, again too.

        Raises:
            ClientClosedError: this callback, or its receiver, was closed before it came.
            RequestTimeoutError: it did not come within its lifetime.
        """
        left = self._deadline - asyncio.get_running_loop().time()
        await asyncio.wait([self._came], timeout=left)
        if not self._came.done():
            raise RequestTimeoutError("no callback came in its lifetime: look for the files")
        if self._came.cancelled():
            raise ClientClosedError("the callback receiver is closed, or this callback was")
        return self._came.result()

    def close(self) -> None:
        """Forget it: later posts get 404, and ``wait()`` raises unless it has come already."""
        self._forget()
        self._came.cancel()


@define(kw_only=True, eq=False)
class CallbackReceiver:
    """Listens for the callbacks of exports, each on an address of its own.

    A post counts because of its path, 256 random bits, and of nothing else: Braze signs nothing,
    and does not say whether callbacks come from the addresses that it lists for webhooks. The first
    valid body counts. Nothing that holds a path is logged.

    Args:
        public_url: where Braze reaches this receiver, through a proxy or tunnel, best by https. Its
            path goes before every callback's; the proxy may strip it or not. Default: the address
            it listens on, of use on this machine only.
        host: the address to listen on.
        port: the port to listen on; 0 takes any free one.
        lifetime: seconds until a callback is forgotten.

    Raises:
        InputError: one of them cannot be right.
    """

    public_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    lifetime: float = field(default=4 * 3600.0, validator=above_zero)
    local_url: str = field(init=False, default="")  # http://host:port, while it listens there
    _open: dict[str, tuple[float, _Came]] = field(init=False, factory=dict, repr=False)
    _http: web.Server | None = field(init=False, default=None, repr=False)
    _listener: asyncio.Server | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the options."""
        if self.public_url is not None and not _is_base(self.public_url):
            raise InputError(_NO_BASE)
        if not isinstance(self.host, str) or not self.host.strip():
            raise InputError("host must be an address of this machine, such as 127.0.0.1")
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise InputError(f"port must be a whole number from 0 to 65535, not {self.port!r}")

    def expect(self) -> Callback:
        """Make a callback for one job; a ``ClientClosedError`` if the receiver does not listen."""
        if not self.local_url:
            raise ClientClosedError("the callback receiver is closed, or was not started")
        self._forget_expired()
        loop, token = asyncio.get_running_loop(), secrets.token_urlsafe(32)
        deadline, came = self._open[token] = loop.time() + self.lifetime, loop.create_future()
        url = str(URL(self.public_url or self.local_url) / token)
        return Callback(url, came, deadline, lambda: self._open.pop(token, None))

    async def start(self) -> Self:
        """Listen; an ``InputError`` if that cannot be done on this host and port."""
        if self._http is not None:
            raise RuntimeError("the callback receiver is started already")
        self._http = web.Server(self._handle, handler_cancellation=True, **_OPTIONS)
        create = asyncio.get_running_loop().create_server
        try:  # in two steps, so that being cancelled leaves no socket behind
            self._listener = await create(self._http, self.host, self.port, start_serving=False)
            await self._listener.start_serving()
            host, port, *_ = self._listener.sockets[0].getsockname()
            self.local_url = str(URL.build(scheme="http", host=host, port=port))
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot listen on {self.host}:{self.port}, {error}: give an address of this "
                "machine and a free port, or port 0 for any"
            ) from error
        finally:
            if not self.local_url:
                await self.aclose()
        return self

    __aenter__ = start

    async def aclose(self) -> None:
        """Stop listening, close the connections, end all waiting. Closing twice does nothing."""
        listener, http, self._listener, self._http = self._listener, self._http, None, None
        self.local_url = ""
        for _, came in self._open.values():
            came.cancel()
        self._open.clear()
        if listener is not None:
            listener.close()
        if http is not None:
            http.pre_shutdown()
            await http.shutdown(0.01)  # seconds left to answers on their way
            await asyncio.sleep(0)  # what was cut off ends in the loop's next turn

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _forget_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        self._open = {token: known for token, known in self._open.items() if known[0] > now}

    def _find(self, request: web.BaseRequest) -> _Came:
        self._forget_expired()
        prefix = URL(self.public_url or "").path.rstrip("/") + "/"
        token = request.path.removeprefix(prefix).removeprefix("/")
        # The time of this look-up tells nothing: texts are compared once their secret hashes agree.
        if token not in self._open:
            raise DecodeError("there is no such callback", status=404)
        if request.method != "POST":
            raise DecodeError("only POST is allowed", status=405)
        return self._open[token][1]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        status, message = 200, "success"
        try:
            self._find(request)
            result = parse(await _read(request))
            came = self._find(request)  # unless it was closed meanwhile
            if not came.done():  # the first one counts
                came.set_result(result)
                _log.info("callback received")
        except DecodeError as error:
            status, message = error.status, error.message
        answer = web.json_response({"message": message}, status=status, headers={"Allow": "POST"})
        answer.force_close()  # one request a connection: there is nothing more to come
        return answer


def _is_base(text: str) -> bool:
    try:
        url = URL(text)
    except (TypeError, ValueError):
        return False
    bare = url.user is None and url.password is None and not re.search(r"[\s?#\\]", text)
    return bare and url.scheme in {"http", "https"} and bool(url.host and url.explicit_port != 0)


async def _read(request: web.BaseRequest) -> bytes:
    try:
        async with asyncio.timeout(_PATIENCE):
            await request.content.readexactly(_MAX_BODY + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    except TimeoutError:
        raise DecodeError("the body did not come in time", status=408) from None
    except web.RequestPayloadError:
        raise DecodeError("the body cannot be read", status=400) from None
    raise DecodeError(f"the body is over {_MAX_BODY} bytes", status=413)
