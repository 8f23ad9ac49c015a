"""Starting the exports that Braze prepares in the background, and keeping count of them.

Braze runs one export of a segment at a time, and 100 of a company.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from attrs import Factory, define, frozen

from braze_export import deadlines
from braze_export.answers import decode_error
from braze_export.codec import decode_object
from braze_export.endpoints import Endpoint
from braze_export.errors import (
    BrazeError,
    ExportInProgressError,
    InputError,
    TransportError,
)
from braze_export.settings import Polling

J = TypeVar("J", bound="Job")

IfRunning: TypeAlias = Literal["raise", "wait"]

MOST_RUNNING: Final = 100
_log = logging.getLogger("braze_export")


@frozen
class Started:
    """What Braze says of an export that it has accepted."""

    object_prefix: str | None
    url: str | None


def read_started(body: bytes, endpoint: Endpoint) -> Started:
    """Return what Braze answers to the start of an export.

    Raises:
        DecodeError: the answer says neither where nor under which name it will be.
    """
    answer = decode_object(body, endpoint)
    found = [answer.get(key) for key in ("object_prefix", "url")]
    prefix, url = (value if isinstance(value, str) and value else None for value in found)
    if prefix is None and url is None:
        raise decode_error(
            "the answer has neither object_prefix nor url", endpoint=endpoint, raw=body
        )
    return Started(prefix, url)


class Job(Protocol):
    """An export that was started."""

    async def ended(self) -> bool:
        """Look whether it has come to its end.

        Raises:
            BrazeError: that cannot be told.
        """
        ...


@define
class Running:
    """The exports that a client has started and not yet seen the end of.

    Attributes:
        lifetime: seconds after which an export is over in any case.
    """

    lifetime: float
    _since: dict[Job, float] = Factory(dict)
    _being_started: int = 0

    def discard(self, over: Callable[[Any], bool]) -> None:
        """Forget the jobs of which it is known that they have ended."""
        for job in [job for job in self._since if over(job)]:
            del self._since[job]

    async def start(self, start: Callable[[], Awaitable[J]]) -> J:
        """Start one more, and count it.

        Raises:
            ExportInProgressError: as many are running as Braze allows.
        """
        clock = asyncio.get_running_loop().time
        await self._make_room(clock() - self.lifetime)
        self._being_started += 1
        try:
            job = await start()
        finally:
            self._being_started -= 1
        self._since[job] = clock()
        return job

    async def _make_room(self, oldest: float) -> None:
        self.discard(lambda job: self._since[job] < oldest)
        for job in list(self._since):
            if self._count < MOST_RUNNING:
                return
            try:
                # Nobody may have asked for it, though it ended long ago.
                ended = await job.ended()
            except TransportError:
                break  # the others would have to wait for the network as well
            except BrazeError:
                continue
            if ended:
                self._since.pop(job, None)
        if self._count >= MOST_RUNNING:
            raise ExportInProgressError(
                f"{MOST_RUNNING} exports of this client are running",
                hint="Braze runs no more at once: wait until some have ended, or pass "
                'if_running="wait"',
            )

    @property
    def _count(self) -> int:
        return len(self._since) + self._being_started


async def start_when_free(
    start: Callable[[], Awaitable[J]], if_running: IfRunning, polling: Polling
) -> J:
    """Start an export: at once, or as soon as nothing stands in its way.

    Raises:
        ExportInProgressError: the segment is being exported, or too many are; with ``"wait"``
            not before a link's life is over.
        BrazeError: it could not be started.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + polling.lifetime
    for attempt in count(1):
        try:
            return await start()
        except ExportInProgressError as error:
            error.attempts = attempt
            pause = max(polling.pause(attempt), error.retry_after or 0.0)
            if if_running == "raise" or clock() + pause > end or deadlines.over_in(pause):
                raise
            _log.info("start of an export: one is running, next try in %.1f s", pause)
        await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def check_if_running(if_running: str) -> None:
    """Accept the two ways to go about an export that runs already.

    Raises:
        InputError: it is neither.
    """
    if if_running not in ("raise", "wait"):
        raise InputError(f'if_running must be "raise" or "wait", not {if_running!r}')
