"""Many records as one streamed answer, a JSON value in each line (NDJSON)."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from anyio import CancelScope
from attrs import define, field
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from braze_export.errors import ClientClosedError, InputError
from braze_export.tasks import cancel

_PIECE: Final = 64 * 1024  # bytes that are sent at once, or a line more
_LINGER: Final = 0.002  # seconds that a line waits for others


def ndjson(lines: AsyncIterable[bytes]) -> "NdjsonResponse":
    """Return an answer that streams JSON values, one a line, as they come.

        @app.post("/users/export")
        async def export(ids: list[str], braze: Braze) -> Response:
            return ndjson(braze.users.export_ids(ids, fields=["email"]).raw())

    Lines leave together, up to some 64 KB, and none waits for others for longer than 2 ms. When
    the client does not read, the source is not read further; when it hangs up, the source is
    closed, which ends the requests to Braze. It is closed in any case.

    The answer begins with the first line. So an error before it is answered as any other (see
    ``add_error_handlers``); a later one cuts the answer off, after what had come, so that the
    client can tell (the transfer is incomplete).

    Args:
        lines: such as ``raw()`` of an export; each JSON, with or without a newline at its end.
    """
    return NdjsonResponse(lines)


class NdjsonResponse(StreamingResponse):
    """The answer that ``ndjson`` returns; as ``response_class=`` it tells OpenAPI of its kind."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterable[bytes], status_code: int = 200) -> None:
        super().__init__(lines, status_code)
        self._pieces = _Pieces(lines)
        self._failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client hangs up first; raise what the source has raised."""
        async with self._pieces.coming():
            await super().__call__(scope, receive, send)
        # Only here: within, an error that is an OSError would be taken for the client's leaving.
        if self._failure is not None:
            raise self._failure

    async def stream_response(self, send: Send) -> None:
        """Send what comes; the head with the first of it."""
        pieces = self._pieces
        piece = await pieces.next()
        if not piece and self._has_failed():
            return
        head = {"type": "http.response.start", "status": self.status_code}
        await send({**head, "headers": self.raw_headers})
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await pieces.next()
        if not self._has_failed():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _has_failed(self) -> bool:
        self._failure = self._pieces.failure
        if self._failure is not None:
            self.background = None  # is run after whole answers only
        return self._failure is not None


@define(eq=False)
class _Pieces:
    """Gathers lines in a task beside that which sends them.

    Attributes:
        source: gives the lines.
        failure: why it ended before its end.
    """

    source: AsyncIterable[bytes]
    failure: Exception | None = field(init=False, default=None)
    _lines: list[bytes] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _ended: bool = field(init=False, default=False)
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)
    _due: asyncio.Event = field(init=False, factory=asyncio.Event)
    _room: asyncio.Event = field(init=False, factory=asyncio.Event)

    @asynccontextmanager
    async def coming(self) -> AsyncIterator[None]:
        """Read the source within the block; it is closed when the block is left."""
        task = asyncio.create_task(self._read())
        try:
            yield
        finally:
            self._stop_timer()
            with CancelScope(shield=True):  # also where the whole request is cancelled
                await cancel(task)

    async def next(self) -> bytes:
        """Return the lines that have come, when they are due, or nothing at the end."""
        await self._due.wait()
        if not self._ended:
            self._due.clear()
        self._stop_timer()
        piece = b"".join(self._lines)
        self._lines, self._size = [], 0
        self._room.set()
        return piece

    async def _read(self) -> None:
        try:
            await self._gather(aiter(self.source))
        except Exception as error:  # noqa: BLE001 - raised by the answer
            self.failure = error
        except asyncio.CancelledError:  # not by us only: a part is no whole answer
            self.failure = ClientClosedError("the source of the lines was cancelled")
            raise
        finally:
            self._ended = True
            self._due.set()

    async def _gather(self, lines: AsyncIterator[bytes]) -> None:
        try:
            async for line in lines:
                self._add(line)
                if self._size >= _PIECE:
                    self._due.set()
                    self._room.clear()
                    await self._room.wait()
        finally:
            close = getattr(lines, "aclose", None)  # of generators
            if close is not None:
                await close()

    def _add(self, line: bytes) -> None:
        if not isinstance(line, bytes):
            raise InputError(
                f"ndjson takes lines as bytes, such as those of raw(), not {type(line).__name__}"
            )
        if b"\n" in line:  # in JSON it is nothing but space
            line = line.strip().replace(b"\n", b" ")
        if not self._lines:
            self._timer = asyncio.get_running_loop().call_later(_LINGER, self._due.set)
        self._lines += (line, b"\n")
        self._size += len(line) + 1

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
