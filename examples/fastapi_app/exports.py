"""Exports of segments: started by one request, ready minutes later, read by another."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any, Final, Literal

from attrs import Factory, define
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel

from braze_export import BadRequestError, BrazeError, NotFoundError
from braze_export.exporting.job import ExportJob
from braze_export.integrations.fastapi import (
    BRAZE_RESPONSES,
    Braze,
    NdjsonResponse,
    Problem,
    ndjson,
    within,
)
from braze_export.integrations.fastapi_callbacks import ExportCallbacks
from examples.fastapi_app.ids import Id
from examples.fastapi_app.users import FIELDS

_KEPT: Final = 5 * 3600.0  # seconds: the links to archives live for four hours
_log = logging.getLogger(__name__)
router = APIRouter(tags=["exports"])


class Export(BaseModel):
    """An export that was started here."""

    id: str
    segment_id: str
    state: Literal["preparing", "ready", "failed"] = "preparing"


@define(eq=False)
class _Started:
    export: Export
    job: ExportJob
    waiting: asyncio.Task[None]


@define(eq=False)
class _Exports:
    """Those of this process. For several, keep ``job.url``: ``users.resume_export`` takes it."""

    callbacks: ExportCallbacks | None
    started: dict[str, _Started] = Factory(dict)

    def keep(self, segment_id: str, job: ExportJob) -> Export:
        """Have it waited for, under an id that nobody can guess."""
        export = Export(id=secrets.token_urlsafe(16), segment_id=segment_id)
        waiting = asyncio.create_task(_wait(export, job))
        self.started[export.id] = _Started(export, job, waiting)
        asyncio.get_running_loop().call_later(_KEPT, self.started.pop, export.id, None)
        return export


async def _wait(export: Export, job: ExportJob) -> None:
    try:
        await job.wait()  # Braze's callback wakes it
    except BrazeError as error:
        _log.warning("an export failed: %s", type(error).__name__)
        export.state = "failed"
    else:
        export.state = "ready"


@asynccontextmanager
async def running(callbacks: ExportCallbacks | None) -> AsyncIterator[dict[str, Any]]:
    """Part of the app's lifespan: what waits for exports ends with it."""
    exports = _Exports(callbacks)
    async with callbacks or nullcontext():
        try:
            yield {"exports": exports}
        finally:
            tasks = [started.waiting for started in exports.started.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _known(export_id: str, request: Request) -> _Started:
    started: _Started | None = request.state.exports.started.get(export_id)
    if started is None:
        raise HTTPException(404, "There is no such export.")
    return started


_Known = Annotated[_Started, Depends(_known)]


def _says(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": description}}


_UNKNOWN = _says(404, "There is no such export")


@router.post(
    "/segments/{segment_id}/export",
    status_code=202,
    summary="Start the export of a segment",
    dependencies=[Depends(within(10.0))],
    responses=BRAZE_RESPONSES | _says(404, "No such segment") | _says(409, "It is under way"),
)
async def start(segment_id: Id, braze: Braze, request: Request, response: Response) -> Export:
    """Return at once. Braze takes seconds, or an hour, to prepare an export."""
    exports: _Exports = request.state.exports
    callback = exports.callbacks.expect() if exports.callbacks else None
    try:
        job = await braze.users.export_segment(segment_id, fields=FIELDS, callback_url=callback)
    except (BadRequestError, NotFoundError):
        raise HTTPException(404, "Braze knows no such segment.") from None
    export = exports.keep(segment_id, job)
    response.headers["Location"] = f"/exports/{export.id}"
    return export


@router.get("/exports/{export_id}", summary="See how far an export is", responses=_UNKNOWN)
async def see(started: _Known) -> Export:
    """Return its state."""
    return started.export


@router.get(
    "/exports/{export_id}/users",
    summary="Read an export",
    response_class=NdjsonResponse,
    responses=BRAZE_RESPONSES | _UNKNOWN | _says(409, "It is not ready"),
)
async def read(started: _Known) -> Response:
    """Stream a line for each user of the segment. It can be read again, for four hours."""
    if started.export.state != "ready":
        raise HTTPException(409, f"The export is not ready: {started.export.state}.")
    return ndjson(started.job.raw())
