"""Waiting until an export is ready: when to look again, and when to give up.

Braze never says that an export has failed. All there is: a link that does not give anything
yet, and perhaps a callback when it does.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Literal, Protocol

from attrs import frozen

from braze_export.downloads.links import NotReady, expired
from braze_export.errors import ExportNotReadyError, ServerError, TransportError
from braze_export.settings import Polling
from braze_export.tasks import cancel

_MOST_FAILURES: Final = 10  # in a row, of looking
_LOOK: Final = 5.0  # seconds that a look gets in any case
_HAIR: Final = 0.001  # seconds: a timer may go off that little too early
_log = logging.getLogger("braze_export")


@frozen
class ExportState:
    """How far an export is.

    Attributes:
        phase: ``preparing``, or ``ready``, which is the last.
        elapsed: seconds since it was started, as far as is known.
        looks: how often was looked so far.
        code: what the storage said, such as ``AccessDenied``, or ``None``.
        next_look: seconds until the next look, ``None`` when ready.
    """

    phase: Literal["preparing", "ready"]
    elapsed: float
    looks: int
    code: str | None = None
    next_look: float | None = None


class Callback(Protocol):
    """Where Braze says that an export is ready.

    ``braze_export.callbacks.CallbackReceiver.expect()`` makes one.
    """

    @property
    def url(self) -> str:
        """Given to Braze: unguessable, and of this job alone."""
        ...

    async def wait(self) -> object:
        """Return when Braze has called."""
        ...


async def states(
    look: Callable[[bool], Awaitable[NotReady | None]],
    polling: Polling,
    *,
    age: Callable[[], float],
    idle: Callable[[], float] | None = None,
    callback: Callback | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it is told apart from the link's life
) -> AsyncGenerator[ExportState, None]:
    """Yield a state for each look, until the export is ready.

    A callback shortens the waiting; should it never come, looking goes on all the same.

    Args:
        look: says whether the export is ready; is told whether the callback said so.
        polling: how often.
        age: seconds since the export was started.
        idle: seconds since it last gave a sign of life, where that can be told; else ``age``.
        callback: where Braze says that it is ready.
        timeout: seconds from now on; a look that is under way by then gets five more at most.

    Raises:
        ExportNotReadyError: the timeout is over. The export may yet become ready.
        ExportExpiredError: the link's life is over.
        TransportError, APIError: looking failed ten times in a row, or is refused.
    """
    loop = asyncio.get_running_loop()
    end = None if timeout is None else loop.time() + timeout
    call = _Call(callback)
    looks, pauses, failures = 0, 0, 0
    try:
        while True:
            looks, pauses = looks + 1, pauses + 1
            code, asked = None, 0.0
            try:
                async with asyncio.timeout(_left(end)):
                    found = await look(call.came)
            except (TransportError, ServerError) as error:
                failures += 1
                if failures == _MOST_FAILURES:
                    error.attempts = failures
                    raise
                asked = getattr(error, "retry_after", None) or 0.0
                _log.info("waiting for an export: %s", type(error).__name__)
            except TimeoutError:
                raise _too_late(timeout or 0.0) from None
            else:
                failures = 0
                if found is None:
                    yield ExportState("ready", age(), looks)
                    return
                code = found.code
                if call.said_failed:
                    raise expired("Braze says that the export failed", found.status, code)
                if (idle or age)() > polling.lifetime:
                    raise expired("the export did not become ready", found.status, code)
            pause = max(polling.pause(pauses), min(asked, polling.cap))
            if timeout is not None and end is not None and loop.time() + pause > end:
                pause = end - loop.time()
                if pause <= _HAIR:
                    raise _too_late(timeout)
            yield ExportState("preparing", age(), looks, code, pause)
            if await call.within(pause):
                pauses = 0  # the archive may lag a little behind: look often again
    finally:
        await call.forget()


class _Call:
    """Waits for the callback beside everything else."""

    def __init__(self, callback: Callback | None) -> None:
        self.came = False
        self.said_failed = False
        self._waiting = None if callback is None else asyncio.create_task(_answer(callback))

    async def within(self, seconds: float) -> bool:
        """Sleep, but not longer than until the call; say whether it came just now."""
        if self._waiting is None:
            await asyncio.sleep(seconds)
            return False
        await asyncio.wait([self._waiting], timeout=seconds)
        if not self._waiting.done():
            return False
        done, self._waiting = self._waiting, None
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            reason = "cancelled" if error is None else type(error).__name__
            _log.warning("waiting for an export: no callback (%s), so it is polled", reason)
            return False
        self.said_failed = done.result() is False
        self.came = not self.said_failed
        return True

    async def forget(self) -> None:
        if self._waiting is not None:
            await cancel(self._waiting)


async def _answer(callback: Callback) -> object:
    return getattr(await callback.wait(), "success", True)


def _left(end: float | None) -> float | None:
    """Return the seconds that a look may take."""
    return None if end is None else max(_LOOK, end - asyncio.get_running_loop().time())


def _too_late(timeout: float) -> ExportNotReadyError:
    return ExportNotReadyError(
        f"the export was not ready within {timeout:g} seconds. It may yet become so: wait for "
        "it again, or give it longer (Braze takes an hour or more for millions of users)"
    )
