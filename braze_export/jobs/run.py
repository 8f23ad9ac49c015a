"""The work of a job between its input and its files: so many slices at once, each to its place."""

import asyncio
from collections import deque
from itertools import islice
from typing import Final

from attrs import Factory, define, field

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import BrazeError
from braze_export.jobs.accounting import Settler
from braze_export.jobs.halting import Halted, Halting
from braze_export.jobs.recorder import Recorder, Settled
from braze_export.jobs.slices import Slice, Source
from braze_export.jobs.verdicts import Judge, Verdict

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
    _known: Batch | None = field(init=False, default=None)  # somebody whom Braze has answered for
    _probing: asyncio.Lock = field(init=False, default=Factory(asyncio.Lock))
    _busy: int = field(init=False, default=0)  # workers that may yet have something recorded
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
            if not self.halted:
                await self._record(self.judge.aside)
        finally:
            halted.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, halted, return_exceptions=True)
            await self.recorder.aclose()
        if self._failure is not None:
            raise self._failure

    async def _until_done(
        self, workers: "list[asyncio.Task[None]]", halted: "asyncio.Task[bool]"
    ) -> None:
        everyone = asyncio.create_task(asyncio.wait(workers))
        try:
            await asyncio.wait([everyone, halted], return_when=asyncio.FIRST_COMPLETED)
            if not everyone.done():
                await asyncio.wait([everyone], timeout=_GRACE)
        finally:
            everyone.cancel()

    async def _work(self) -> None:
        self._busy += 1
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
        finally:
            self._rest()

    def _rest(self) -> None:
        """Note that a worker brings nothing more for now; the last one ends the waiting in vain."""
        self._busy -= 1
        if self.halted and not self._busy:
            self.recorder.release()

    async def _next(self) -> Slice | None:
        # While nothing comes through, others are tried: it may be the fault of these alone. Not
        # where others would have to wait for these.
        if self._again and not (self.judge.failing and self._others):
            return self._again.popleft()
        piece = await self.source.take()
        if piece is None and self._again:
            return self._again.popleft()
        return piece

    @property
    def _others(self) -> bool:
        """Whether there are slices that may be tried instead of those that failed."""
        room = len(self._again) < self.concurrency and not self.recorder.ordered
        return room and not self.source.exhausted

    async def _settled(self, piece: Slice) -> Settled:
        if piece.batch is None:
            return Settled(piece, Outcome())
        await self._pause()
        self.judge.begun(piece.number, asyncio.get_running_loop().time())
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
        verdict = self._verdict(settled)
        if verdict == "again":
            self._again.append(settled.piece)
            if not (self._others and self.judge.answered):
                await self._probe(settled.outcome.failed[-1].error)
        elif verdict == "record":
            due, self.judge.aside = [*self.judge.aside, settled], []
            await self._record(due)

    def _verdict(self, settled: Settled) -> Verdict:
        if settled.piece.batch is not None:
            self._known = _answered_for(settled) or self._known
            return self.judge.verdict(settled, asyncio.get_running_loop().time())
        # Nobody was asked, so that there is nothing to judge.
        if self.judge.accepted or not self.recorder.ordered:
            return "record"
        self.judge.aside.append(settled)  # those before may be there, and it must not wait for them
        return "aside"

    async def _record(self, due: list[Settled]) -> None:
        """Have slices recorded, together: in order one may have to wait for another."""
        writing = [self.recorder.write(settled) for settled in due]
        self._rest()
        try:
            await (writing[0] if len(writing) == 1 else asyncio.gather(*writing))
        finally:
            self._busy += 1

    async def _probe(self, error: BrazeError) -> None:
        """Ask for somebody asked for before: is it these slices, or the way to Braze?

        Raises:
            BrazeError: the error given: nothing has come through in this run.
        """
        if self._probing.locked():
            return
        async with self._probing:
            known, asked_at = self._known or self.source.known, asyncio.get_running_loop().time()
            outcome = None if known is None else await self.settler.ask(known)
        self.judge.probed(outcome, error, asked_at)


def _answered_for(settled: Settled) -> Batch | None:
    """Return somebody of a slice for whom Braze had an answer."""
    batch, outcome = settled.piece.batch, settled.outcome
    if batch is None or not (outcome.users or outcome.invalid):
        return None
    failed = {identifier for failure in outcome.failed for identifier in failure.identifiers}
    answered = (identifier for identifier in batch.identifiers if identifier not in failed)
    return Batch(tuple(islice(answered, 1))) if len(failed) < len(batch.identifiers) else None
