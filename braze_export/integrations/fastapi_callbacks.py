"""Braze's callbacks within a FastAPI app: a router that takes them and wakes the waiting job.

Needs the extra ``fastapi``: ``pip install "braze-export[fastapi]"``::

    callbacks = ExportCallbacks("https://shop.example.com/braze/callbacks")

    @asynccontextmanager
    async def lifespan(app):
        async with callbacks:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(callbacks.router, prefix="/braze/callbacks")

    job = await braze.users.export_segment(id, fields=["email"], callback_url=callbacks.expect())
    await job.wait()

With several workers, give ``through=RedisCallbacks(...)``: Braze calls any of them.
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, Protocol, Self, runtime_checkable

from attrs import define, field
from yarl import URL

from braze_export.callbacks import (
    MAX_BODY,
    PATIENCE,
    Callback,
    CallbackResult,
    Expected,
    check_base,
    name_of,
    parse,
)
from braze_export.errors import ClientClosedError, DecodeError, InputError, TransportError
from braze_export.validators import above_zero

try:
    from fastapi import APIRouter, Request
    from fastapi.responses import JSONResponse
    from starlette.requests import ClientDisconnect
except ImportError as missing:
    raise ImportError(
        'braze_export.integrations.fastapi_callbacks needs: pip install "braze-export[fastapi]"'
    ) from missing

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits
_METHODS: Final = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
_AGAIN: Final = {"Retry-After": "5"}  # seconds


@runtime_checkable
class Between(Protocol):
    """Tells the processes of an app what came to one of them. ``RedisCallbacks`` is one.

    Names are hashes, from which nobody gets a token.
    """

    async def start(self) -> None:
        """Begin; what is amiss is logged, not raised."""
        ...

    def expect(self, name: str, seconds: float) -> None:
        """Have this callback taken by every process, from about now on."""
        ...

    def watch(
        self, name: str, deadline: float, came: Callable[[bool], object]
    ) -> AbstractContextManager[None]:
        """Within the block, see whether it came to any process, and tell ``came``."""
        ...

    def forget(self, name: str) -> None:
        """Have it taken by no process any more."""
        ...

    async def knows(self, name: str) -> bool:
        """Whether any process expects it; a ``TransportError`` if that cannot be said."""
        ...

    async def settle(self, name: str, success: bool) -> bool | None:
        """Note what came, and return what came first, ``None`` if it is not expected.

        Raises:
            TransportError: that cannot be done now.
        """
        ...

    async def aclose(self) -> None:
        """End what it has under way."""
        ...


@define(eq=False)
class ExportCallbacks:
    """Takes the callbacks of exports within an app, each on a path of its own.

    A post counts because of its path, 256 random bits, and of nothing else. The first valid body
    counts, and repeating it is answered alike. It is a signal only: what it says of a link is
    dropped, for the job has its own. The router's path is not in the app's OpenAPI: it is a matter
    between Braze and the app. Nothing that holds a token is logged, and the server's access log
    shows none either.

    It may be made before any event loop runs. Use it as an async context manager in the app's
    lifespan, or call ``aclose()`` at the end; afterwards it may be entered again.

    Args:
        public_url: where Braze reaches the router, its prefix included, best by https.
        lifetime: seconds until a callback is forgotten.
        through: joins the processes of the app; by default there is but this one.

    Attributes:
        router: include it in the app, under a prefix.

    Raises:
        InputError: one of them cannot be right.
    """

    public_url: str
    lifetime: float = field(default=4 * 3600.0, validator=above_zero, kw_only=True)
    through: Between | None = field(default=None, kw_only=True)
    router: APIRouter = field(init=False, repr=False, factory=APIRouter)
    _expected: Expected = field(init=False, repr=False)
    _closed: bool = field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Check the options, and make the route."""
        check_base(self.public_url)
        if isinstance(self.through, type) or not isinstance(self.through, Between | None):
            raise InputError(f"through must be RedisCallbacks(...), not {type(self.through)}")
        self._expected = Expected(self.lifetime)
        # Of every method, and with slashes: what the framework itself refuses, or leads elsewhere,
        # shows its path in the server's log.
        self.router.add_api_route(
            "/{token:path}",
            self._receive,
            methods=_METHODS,
            response_model=None,
            include_in_schema=False,
        )

    def expect(self, *, token: str | None = None) -> Callback:
        """Make a callback for one job, within the event loop.

        Args:
            token: that of a callback which an earlier process expected, to go on with it: what
                Braze posted meanwhile to another process, by ``through``, is not lost.

        Raises:
            ClientClosedError: ``aclose()`` was called.
            InputError: the token is none.
        """
        if self._closed:
            raise ClientClosedError("the export callbacks are closed: enter them again")
        token = secrets.token_urlsafe(32) if token is None else _checked(token)
        name = name_of(token)
        deadline, came = self._expected.add(name)
        watch: Callable[[], AbstractContextManager[object]] = nullcontext
        if self.through is not None:
            self.through.expect(name, self.lifetime)
            watch = partial(self.through.watch, name, deadline, partial(self._heard, name))
        url = str(URL(self.public_url) / token)
        return Callback(url, token, came, deadline, partial(self._forget, name), watch)

    async def start(self) -> Self:
        """Begin, or begin again after ``aclose()``."""
        if self.through is not None:
            await self.through.start()
        self._closed = False
        return self

    __aenter__ = start

    async def aclose(self) -> None:
        """End all waiting. Other processes go on, and may go on with what was expected here."""
        self._closed = True
        self._expected.close()
        if self.through is not None:
            await self.through.aclose()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _heard(self, name: str, success: bool) -> None:
        if self._expected.knows(name):
            self._expected.settle(name, CallbackResult(success))

    def _forget(self, name: str) -> None:
        self._expected.forget(name)
        if self.through is not None and not self._closed:
            self.through.forget(name)

    async def _receive(self, request: Request, token: str) -> JSONResponse:
        # Servers write their access log from this when the answer begins.
        request.scope["path"] = request.scope["path"].removesuffix(token) + "..."
        if request.method != "POST":
            return JSONResponse({"message": "only POST"}, 405, {"Allow": "POST"})
        try:
            await self._take(name_of(token), request)
        except DecodeError as error:
            return JSONResponse({"message": error.message}, error.status)
        except TransportError:
            return JSONResponse({"message": "not now: try again"}, 503, _AGAIN)
        return JSONResponse({"message": "success"})

    async def _take(self, name: str, request: Request) -> None:
        if self._closed:
            raise TransportError("the export callbacks are closed")
        if not await self._known_elsewhere(name):
            self._expected.check(name)
        result = parse(await _read(request))
        await self._settle(name, CallbackResult(result.success))

    async def _known_elsewhere(self, name: str) -> bool:
        if self.through is None or self._expected.knows(name):
            return False  # what is expected here is taken also while Redis is gone
        return await self.through.knows(name)

    async def _settle(self, name: str, result: CallbackResult) -> None:
        first = None
        try:
            if self.through is not None:
                first = await self.through.settle(name, result.success)
        except TransportError:
            self._heard(name, result.success)  # whoever waits here is woken all the same
            raise
        if first is None:
            self._expected.settle(name, result)  # by this process alone, or not at all
        else:
            self._heard(name, first)


def _checked(token: str) -> str:
    """Return a token that may be one of ours.

    Raises:
        InputError: it cannot be.
    """
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InputError("token must be that of a callback: 43 letters, digits, - and _")
    return token


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY:
                    raise DecodeError(f"the body is over {MAX_BODY} bytes", status=413)
    except TimeoutError:
        raise DecodeError("the body did not come in time", status=408) from None
    except ClientDisconnect:
        raise DecodeError("the body cannot be read", status=400) from None
    return bytes(body)
