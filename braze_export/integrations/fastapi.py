"""A client in a FastAPI app: its life cycle, how endpoints get it, and how long they may take.

Needs the extra ``fastapi``: ``pip install "braze-export[fastapi]"``. Everything public is here; the
rooms ``fastapi_*`` beside this one hold what of it is long::

    app = FastAPI(lifespan=braze_lifespan())
    add_error_handlers(app)

    @app.get("/users/{user_id}", dependencies=[Depends(within(2.0))])
    async def email(user_id: str, braze: Braze) -> str | None: ...
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Annotated, Any, Final, TypeAlias

from attrs import field, frozen

from braze_export.client import BrazeClient
from braze_export.deadlines import deadline
from braze_export.errors import InputError
from braze_export.validators import above_zero

try:
    from fastapi import Depends, FastAPI
    from fastapi.requests import HTTPConnection

    from braze_export.integrations.fastapi_errors import (
        BRAZE_RESPONSES,
        Problem,
        add_error_handlers,
    )
    from braze_export.integrations.fastapi_readiness import PoolReadiness, Readiness, readiness
    from braze_export.integrations.fastapi_streaming import NdjsonResponse, ndjson
except ImportError as missing:
    raise ImportError(
        'braze_export.integrations.fastapi needs: pip install "braze-export[fastapi]"'
    ) from missing

__all__ = [
    "BRAZE_RESPONSES",
    "Braze",
    "NdjsonResponse",
    "PoolReadiness",
    "Problem",
    "Readiness",
    "add_error_handlers",
    "braze_lifespan",
    "braze_of",
    "braze_state",
    "get_braze",
    "ndjson",
    "readiness",
    "within",
]

OwnLifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]

_KEY: Final = "braze_export"  # in the state of the lifespan, and of the app
_NO_CLIENT: Final = (
    "this app has no open client of Braze: make it with FastAPI(lifespan=braze_lifespan()), or add "
    "braze_state(client) to what your own lifespan yields. Of an app and those mounted in it, only "
    "the outermost one's lifespan is run; TestClient runs it only as a context manager, "
    "httpx.ASGITransport never"
)


def braze_lifespan(
    make: Callable[[], AbstractAsyncContextManager[BrazeClient]] = BrazeClient.from_env,
    *,
    around: OwnLifespan | None = None,
) -> Lifespan:
    """Return a lifespan that opens one client for the app, and closes it at the end.

        app = FastAPI(lifespan=braze_lifespan(around=own_lifespan))

    Apps mounted in this one have the client too. Each worker process opens its own.

    Args:
        make: makes the client, once for each start of the app: a function that returns one, or
            one with ``@asynccontextmanager`` that yields an open one, where something else, such
            as a session, is to be opened before it and closed after it.
        around: the app's own lifespan. It begins when the client is open, may use it by
            ``braze_of(app)``, and ends before the client is closed. Its state is kept.

    Raises:
        InputError: at the start of the app, if the client cannot be made: the key is missing, say.
        LimiterError: at the start of the app.
    """

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with make() as braze:
            with _shown(app, braze):
                if around is None:
                    yield braze_state(braze)
                    return
                async with around(app) as own:
                    yield {**(own or {}), **braze_state(braze)}

    return lifespan


def braze_state(braze: BrazeClient) -> dict[str, Any]:
    """Return what a lifespan written by hand yields, for endpoints to find the client.

    ::

        @asynccontextmanager
        async def lifespan(app):
            async with BrazeClient.from_env() as braze, open_database() as database:
                yield {"database": database, **braze_state(braze)}
    """
    return {_KEY: braze}


def braze_of(where: FastAPI | HTTPConnection) -> BrazeClient:
    """Return the app's client.

    Args:
        where: the app itself, in a lifespan within ``braze_lifespan``; or a request or WebSocket,
            in middleware, say.

    Raises:
        InputError: there is none: the lifespan is not installed, or was not run.
    """
    if isinstance(where, HTTPConnection):
        state = where.scope.get("state") or {}
        # In the app's state if a test has run the lifespan by hand, without a server.
        braze = state.get(_KEY) or _shown_by(where.scope.get("app"))
    else:
        braze = _shown_by(where)
    if braze is None:
        raise InputError(_NO_CLIENT)
    return braze  # type: ignore[no-any-return]  # states are untyped


async def get_braze(connection: HTTPConnection) -> BrazeClient:
    """Return the app's client: the dependency, and the key of ``app.dependency_overrides``.

    Raises:
        InputError: there is none: the lifespan is not installed, or was not run.
    """
    return braze_of(connection)


Braze = Annotated[BrazeClient, Depends(get_braze)]
"""The app's client, as a parameter of an endpoint, of HTTP or WebSocket, or of a dependency."""


@frozen
class _Within:
    """A dependency, equal to others of as many seconds, so that FastAPI runs it once."""

    seconds: float = field(validator=above_zero)

    async def __call__(self) -> AsyncGenerator[None, None]:
        with deadline(self.seconds):
            yield


def within(seconds: float) -> Callable[[], AsyncGenerator[None, None]]:
    """Return a dependency that gives the calls of Braze for one HTTP request so many seconds.

        @app.get("/users/{user_id}", dependencies=[Depends(within(2.0))])

    It is ``braze_export.deadline``, for an endpoint, a router or the app; the shortest counts. It
    begins when the request's body has come, and holds for the dependencies after it, the endpoint
    and the tasks these start, and, from FastAPI 0.118 on, until a streamed answer and the
    background tasks have ended; before, until the endpoint has returned. So endpoints that stream
    for longer had better have none.

    Args:
        seconds: above zero.

    Raises:
        InputError: they are not.
    """
    return _Within(seconds)


@contextmanager
def _shown(app: Any, braze: BrazeClient) -> Iterator[None]:
    """Let the app's own lifespan find the client, for which no request's state is there yet."""
    state = getattr(app, "state", None)
    if state is None:  # a bare router
        yield
        return
    setattr(state, _KEY, braze)
    try:
        yield
    finally:
        if getattr(state, _KEY, None) is braze:  # not of another run of the same app
            delattr(state, _KEY)


def _shown_by(app: Any) -> Any:
    return getattr(getattr(app, "state", None), _KEY, None)
