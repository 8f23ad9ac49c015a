"""Deadlines: until when the calls of a block must be done, seen by all that it awaits.

A deadline belongs to whoever asked, an HTTP request say, not to the client. So it travels with the
context, which ``asyncio`` tasks inherit, and needs no parameter on the way.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final

from braze_export.errors import DeadlineExceededError, InputError

#: By the clock of the running event loop.
_ends: Final[ContextVar[float | None]] = ContextVar("braze_export_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give the calls of Braze within the block so many seconds, all together.

    A call that surely cannot be done by then, because the rate limit makes it wait for longer,
    fails at once with ``DeadlineExceededError``; one that would be tried again too late fails at
    once with the error it met. Any other fails when the time is over::

        with deadline(2.0):
            user = await braze.users.get("u1", fields=["email"])

    An earlier deadline around it stays in force. Downloads of exports are no calls of Braze.

    Args:
        seconds: from now on.

    Raises:
        InputError: ``seconds`` is no number above zero.
        RuntimeError: no event loop is running.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError(f"a deadline must be a number of seconds above zero, not {seconds!r}")
    before = _ends.get()
    ours = asyncio.get_running_loop().time() + seconds
    _ends.set(ours if before is None else min(ours, before))
    try:
        yield
    finally:
        _ends.set(before)  # no token: the end may run in another context than the beginning


def ends() -> float | None:
    """Return when the deadline is over, by the loop's clock, or ``None`` without one."""
    return _ends.get()


def left() -> float | None:
    """Return the seconds until the deadline, or ``None`` without one."""
    until = _ends.get()
    return None if until is None else until - asyncio.get_running_loop().time()


def over_in(seconds: float) -> bool:
    """Say whether the deadline will be over in so many seconds."""
    time_left = left()
    return time_left is not None and time_left < seconds


def lift() -> None:
    """Forget the deadline in this task, which works for others than the one that began it."""
    _ends.set(None)


def check_wait(seconds: float) -> None:
    """Do nothing if there is time to wait for the rate limit.

    Raises:
        DeadlineExceededError: the deadline is over sooner, or already.
    """
    if over_in(0.0):
        raise _over()
    if over_in(seconds):
        raise too_late(seconds)


def too_late(seconds: float) -> DeadlineExceededError:
    """Return the error of a call that would have to wait for so long."""
    return DeadlineExceededError(
        f"the rate limit lets no request through for {seconds:.1f} s, longer than the deadline",
        retry_after=seconds,
    )


@asynccontextmanager
async def kept() -> AsyncIterator[None]:
    """Cancel the block when the deadline is over.

    Raises:
        DeadlineExceededError: it was.
    """
    until = _ends.get()
    if until is None:
        yield
        return
    timeout = asyncio.timeout_at(until)
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise  # an error of the block's own
        raise _over() from None


def _over() -> DeadlineExceededError:
    return DeadlineExceededError("the deadline was over before Braze had answered")
