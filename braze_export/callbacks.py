"""The POST that says an export is ready: addresses, reading, and a receiver of it for scripts.

Braze documents little of it (no content type, no signature, no sender's address for certain, no
second try, nothing of a failed export), so a callback is a hint, no proof: keep polling beside it.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import codecs
import hashlib
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from attrs import define, field, frozen
from yarl import URL

from braze_export._json import loads
from braze_export.errors import ClientClosedError, DecodeError, InputError, RequestTimeoutError
from braze_export.tasks import stop_listening
from braze_export.validators import above_zero

MAX_BODY: Final = 64 * 1024  # bytes; what Braze documents has some 200
PATIENCE: Final = 30.0  # seconds for a request's head, and again for its body
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
_OPTIONS: dict[str, Any] = {"auto_decompress": False, "keepalive_timeout": PATIENCE}
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
    """One job's callback, from an ``expect()``: give its ``url`` to Braze."""

    url: str  # shown in no log and no repr: whoever knows it can make the job look finished
    token: str  # its secret part, by which an app can expect it again after a restart
    _came: _Came
    _deadline: float  # by the loop's clock
    _forget: Callable[[], object]
    _watch: Callable[[], AbstractContextManager[object]] = nullcontext  # entered while one waits

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
        if not self._came.done():
            with self._watch():
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


@define(eq=False, repr=False)
class Expected:
    """The callbacks that this process expects, by the hashes of their tokens.

    So neither the time of a look-up nor whatever else keeps such a name tells of a token.
    """

    lifetime: float  # seconds until one is forgotten
    _open: dict[str, tuple[float, _Came]] = field(init=False, factory=dict)  # oldest first

    def __len__(self) -> int:
        return len(self._open)

    def add(self, name: str) -> tuple[float, _Came]:
        """Expect one, maybe again, from now on; return its deadline and its result."""
        loop = asyncio.get_running_loop()
        came = self._open.pop(name)[1] if self.knows(name) else loop.create_future()
        self._open[name] = loop.time() + self.lifetime, came
        return self._open[name]

    def knows(self, name: str) -> bool:
        """Whether it is expected, or came within its lifetime."""
        now = asyncio.get_running_loop().time()
        while self._open and next(iter(self._open.values()))[0] <= now:
            del self._open[next(iter(self._open))]
        return name in self._open

    def check(self, name: str) -> None:
        """Do nothing for one that is known, else raise a ``DecodeError`` of status 404."""
        if not self.knows(name):
            raise DecodeError("there is no such callback", status=404)

    def settle(self, name: str, result: CallbackResult) -> None:
        """Take a result, of which the first one counts; raises as ``check``."""
        self.check(name)  # it may have been closed while its body came
        came = self._open[name][1]
        if not came.done():
            came.set_result(result)
            _log.info("callback received")

    def forget(self, name: str) -> None:
        """Expect this one no more."""
        self._open.pop(name, None)

    def close(self) -> None:
        """Expect none any more: whoever waits is told."""
        for _, came in self._open.values():
            came.cancel()
        self._open.clear()


def name_of(token: str) -> str:
    """Return what a token is known by: its hash, from which nobody gets the token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def check_base(public_url: str) -> None:
    """Do nothing for a URL that callbacks may lie under, else raise an ``InputError``."""
    try:
        url, odd = URL(public_url), re.search(r"[\s?#\\]", public_url)
        fits = url.scheme in {"http", "https"} and bool(url.host and url.explicit_port != 0)
        fits = fits and odd is None and url.user is None and url.password is None
    except (TypeError, ValueError, IndexError):  # the last: yarl, of brackets before an @
        fits = False
    if not fits:
        raise InputError(_NO_BASE)


@define(kw_only=True, eq=False)
class CallbackReceiver:
    """Listens for the callbacks of exports, each on an address of its own.

    A post counts because of its path, 256 random bits, and of nothing else: Braze signs nothing,
    and does not say whether callbacks come from the addresses that it lists for webhooks. The first
    valid body counts. Nothing that holds a path is logged.

    Args:
        public_url: where Braze reaches this receiver, through a proxy or tunnel, best by https. Its
            path goes before every callback's; the proxy may strip it. Default: ``local_url``.
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
    _open: Expected = field(init=False, repr=False)
    _http: web.Server | None = field(init=False, default=None, repr=False)
    _listener: asyncio.Server | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the options."""
        if self.public_url is not None:
            check_base(self.public_url)
        if not isinstance(self.host, str) or not self.host.strip():
            raise InputError("host must be an address of this machine, such as 127.0.0.1")
        if type(self.port) is not int or not 0 <= self.port <= 65535:
            raise InputError(f"port must be a whole number from 0 to 65535, not {self.port!r}")
        self._open = Expected(self.lifetime)

    def expect(self) -> Callback:
        """Make a callback for one job; a ``ClientClosedError`` if the receiver does not listen."""
        if not self.local_url:
            raise ClientClosedError("the callback receiver is closed, or was not started")
        name = name_of(token := secrets.token_urlsafe(32))
        deadline, came = self._open.add(name)
        url = str(URL(self.public_url or self.local_url) / token)
        return Callback(url, token, came, deadline, lambda: self._open.forget(name))

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
        self._open.close()
        if listener is not None:
            await stop_listening(listener)
        if http is not None:
            http.pre_shutdown()
            await http.shutdown(0.01)  # seconds left to answers on their way
            await asyncio.sleep(0)  # what was cut off ends in the loop's next turn

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take(self, request: web.BaseRequest) -> None:
        prefix = URL(self.public_url or "").path.rstrip("/") + "/"
        name = name_of(request.path.removeprefix(prefix).removeprefix("/"))
        self._open.check(name)
        if request.method != "POST":
            raise DecodeError("only POST is allowed", status=405)
        self._open.settle(name, parse(await _read(request)))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        status, message = 200, "success"
        try:
            await self._take(request)
        except DecodeError as error:
            status, message = error.status, error.message
        answer = web.json_response({"message": message}, status=status, headers={"Allow": "POST"})
        answer.force_close()  # one request a connection: there is nothing more to come
        return answer


async def _read(request: web.BaseRequest) -> bytes:
    try:
        async with asyncio.timeout(PATIENCE):
            await request.content.readexactly(MAX_BODY + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    except TimeoutError:
        raise DecodeError("the body did not come in time", status=408) from None
    except web.RequestPayloadError:
        raise DecodeError("the body cannot be read", status=400) from None
    raise DecodeError(f"the body is over {MAX_BODY} bytes", status=413)
