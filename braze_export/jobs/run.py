"""The work of a job between its input and its files: so many slices at once, each to its place."""

import asyncio
from collections import deque
from typing import Any, Final

from attrs import Factory, define, field

from braze_export.batching import Batch
from braze_export.jobs.accounting import Settler
from braze_export.jobs.halting import Halted, Halting
from braze_export.jobs.recorder import Recorder, Settled
from braze_export.jobs.slices import Slice, Source
from braze_export.jobs.verdicts import Judge
from braze_export.narrowing import Outcome

_GRACE: Final = 30.0  # seconds for requests under way, once the job is to stop


@define
class Run:
    """Asks for slices and has them recorded.

    Attributes:
        source: of the slices.
        settler: asks for one.
        recorder: writes what came.
        judge: says what a failure means.
        gate: stops the requests.
        concurrency: requests under way at once.
    """

    source: Source
    settler: Settler
    recorder: Recorder
    judge: Judge
    gate: Halting
    concurrency: int
    _again: deque[Slice] = field(init=False, default=Factory(deque))
    _halted: asyncio.Event = field(init=False, default=Factory(asyncio.Event))
    _failure: BaseException | None = field(init=False, default=None)

    @property
    def halted(self) -> bool:
        """Whether the run was stopped before its end."""
        return self._halted.is_set()

    def halt(self) -> None:
        """Send nothing more; what is under way is waited for, and recorded."""
        self._halted.set()
        self.gate.halt()

    async def all(self) -> None:
        """Ask for every slice.

        Raises:
            BrazeError: the job must end; what had come is recorded.
        """
        workers = [asyncio.create_task(self._work()) for _ in range(self.concurrency)]
        halted = asyncio.create_task(self._halted.wait())
        try:
            await self._until_done(workers, halted)
        finally:
            halted.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, halted, return_exceptions=True)
            await self.recorder.aclose()
        if self._failure is not None:
            raise self._failure
        if not self.halted:
            for settled in self.judge.aside:
                await self.recorder.write(settled)

    async def _until_done(
        self, workers: "list[asyncio.Task[None]]", halted: "asyncio.Task[bool]"
    ) -> None:
        everyone: asyncio.Future[Any] = asyncio.gather(*workers)
        try:
            await asyncio.wait([everyone, halted], return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                await asyncio.wait([everyone], timeout=_GRACE)
        finally:
            everyone.cancel()

    async def _work(self) -> None:
        try:
            while not self.halted and (piece := await self._next()) is not None:
                settled = await self._settled(piece)
                await self._place(settled)
        except Halted:
            pass
        except Exception as error:  # noqa: BLE001 - also what a source or a disk raises
            if self._failure is None:
                self._failure = error
            self.halt()

    async def _next(self) -> Slice | None:
        # While nothing comes through, others are tried: it may be the fault of these alone. Not
        # where others would have to wait for these.
        patient = self.judge.failing and len(self._again) < self.concurrency
        patient = patient and not self.recorder.ordered
        if self._again and not patient:
            return self._again.popleft()
        piece = await self.source.take()
        if piece is None and self._again:
            return self._again.popleft()
        return piece

    async def _settled(self, piece: Slice) -> Settled:
        if piece.batch is None:
            return Settled(piece, Outcome())
        await self._pause()
        return Settled(piece, await self._asked(piece.batch))

    async def _asked(self, batch: Batch) -> Outcome:
        if self.halted:
            raise Halted
        return await self.settler.outcome(batch)

    async def _pause(self) -> None:
        seconds = self.judge.pause(asyncio.get_running_loop().time())
        if seconds:
            try:
                await asyncio.wait_for(self._halted.wait(), seconds)
            except TimeoutError:
                return

    async def _place(self, settled: Settled) -> None:
        now = asyncio.get_running_loop().time()
        last = self.source.exhausted or self.recorder.ordered
        verdict = self.judge.verdict(settled, now, last=last)
        if verdict == "again":
            self._again.append(settled.piece)
            return
        if verdict == "record":
            while self.judge.aside:
                await self.recorder.write(self.judge.aside.pop())
            await self.recorder.write(settled)
