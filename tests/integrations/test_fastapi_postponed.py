"""Endpoints in a module whose annotations are text until FastAPI asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from starlette.websockets import WebSocket

from braze_export.deadlines import left
from braze_export.integrations.fastapi import (
    Braze,
    Readiness,
    braze_lifespan,
    braze_of,
    ndjson,
    readiness,
    within,
)
from tests.integrations.fastapi_apps import asking, running, talk, unconnected

TwoSeconds = Annotated[None, Depends(within(2.0))]


async def address(braze: Braze) -> str:
    return braze.base_url


async def test_postponed_annotations() -> None:
    app = FastAPI(lifespan=braze_lifespan(unconnected))

    @app.get("/")
    async def index(
        request: Request, braze: Braze, url: Annotated[str, Depends(address)], limit: TwoSeconds
    ) -> list[bool]:
        return [braze is braze_of(request), url == braze.base_url, left() is not None]

    @app.get("/ready")
    async def ready(braze: Braze) -> Readiness:
        return readiness(braze)

    @app.websocket("/ws")
    async def answer(websocket: WebSocket, braze: Braze) -> None:
        await websocket.accept()
        await websocket.close(reason=str(braze is braze_of(websocket)))

    async with asking(app) as client:
        assert (await client.get("/")).json() == [True, True, True]
        assert (await client.get("/ready")).json()["ready"] is True
    async with running(app) as with_state:
        sent = await talk(with_state, "/ws")
    assert sent[-1]["reason"] == "True"


async def lines() -> AsyncIterator[bytes]:
    yield b"{}"


async def test_postponed_annotations_of_a_streamed_answer() -> None:
    app = FastAPI()

    @app.get("/")
    async def index() -> Response:
        return ndjson(lines())

    async with asking(app) as client:
        assert (await client.get("/")).content == b"{}\n"
