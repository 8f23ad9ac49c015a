"""Puts the app together: the client's life, the routers, and what is answered to errors."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from braze_export import BrazeClient, ExportSettings, RetryPolicy
from braze_export.integrations.fastapi import (
    Braze,
    Readiness,
    add_error_handlers,
    braze_lifespan,
    readiness,
)
from braze_export.integrations.fastapi_callbacks import ExportCallbacks
from examples.fastapi_app import exports, users
from examples.fastapi_app.ids import malformed

_CALLBACKS = "/braze/callbacks"


def make_client(exports: ExportSettings | None = None) -> BrazeClient:
    """Make a client from the environment, for callers who are in a hurry.

    By default it would try six times, for some seconds: they would learn that time is over (504),
    and not that Braze is gone (502).

    Raises:
        InputError: the environment has no key or no address of Braze, or none that can be right.
    """
    return BrazeClient.from_env(retry=RetryPolicy(max_attempts=3, base=0.2), exports=exports)


def make_app(
    *, make: Callable[[], BrazeClient] = make_client, public_url: str | None = None
) -> FastAPI:
    """Make the app.

    Args:
        make: makes the client, at each start of the app.
        public_url: where Braze reaches this app, to say that an export is ready.

    Raises:
        InputError: ``public_url`` is no such address.
    """
    callbacks = None if public_url is None else ExportCallbacks(public_url.rstrip("/") + _CALLBACKS)
    lifespan = braze_lifespan(make, around=lambda _: exports.running(callbacks))
    app = FastAPI(title="Users", lifespan=lifespan)
    add_error_handlers(app)
    app.add_exception_handler(RequestValidationError, malformed)
    app.include_router(users.router)
    app.include_router(exports.router)
    if callbacks is not None:
        app.include_router(callbacks.router, prefix=_CALLBACKS)

    @app.get("/ready", tags=["operation"], summary="Can this instance serve?")
    async def ready(braze: Braze) -> Readiness:
        return readiness(braze)

    return app
