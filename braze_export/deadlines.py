"""Deadlines: until when the calls of a block must be done, seen by all that it awaits.

A deadline belongs to whoever asked, an HTTP request say, not to the client. So it travels with the
context, which ``asyncio`` tasks inherit, and needs no parameter on the way.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from braze_export.errors import DeadlineExceededError, InputError

T = TypeVar("T")

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


def left() -> float | None:
    """Return the seconds until the deadline, or ``None`` without one."""
    ends = _ends.get()
    return None if ends is None else ends - asyncio.get_running_loop().time()


def lift() -> None:
    """Forget the deadline in this task, which works for others than the one that began it."""
    _ends.set(None)


def check_wait(seconds: float) -> None:
    """Do nothing if there is time to wait for the rate limit.

    Raises:
        DeadlineExceededError: the deadline is over sooner.
    """
    time_left = left()
    if time_left is not None and seconds > time_left:
        raise DeadlineExceededError(
            f"the rate limit lets no request through for {seconds:.1f} s, and the deadline is in "
            f"{max(0.0, time_left):.1f} s: nothing was sent",
            retry_after=seconds,
        )


async def kept(work: Awaitable[T]) -> T:
    """Return what the work gives, within the deadline.

    Raises:
        DeadlineExceededError: the deadline was over first; the work is cancelled.
    """
    timeout = asyncio.timeout_at(_ends.get())
    try:
        async with timeout:
            return await work
    except TimeoutError:
        if not timeout.expired():
            raise  # an error of the work's own
        raise DeadlineExceededError("the deadline was over before Braze had answered") from None
