"""A job's input as slices: the identifiers of one request each, always the same ones.

A slice is known by its number, so the input is to give the same slices each time it is read;
those that were written by an earlier run are passed over.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterator
from itertools import chain
from typing import Final

from attrs import Factory, define, field, frozen

from braze_export.batches.batching import Batch
from braze_export.jobs.kinds import Kind
from braze_export.jobs.reading.inputs import Reader
from braze_export.jobs.values import Unusable

_AHEAD: Final = 5_000  # identifiers made ready at once
_MANY: Final = 1_000  # unusable items, for which no identifier is waited any longer


@frozen
class Slice:
    """What is asked for in one request.

    Attributes:
        number: its place among the slices, from 0.
        batch: the identifiers, ``None`` where there is nothing but unusable ones.
        unusable: what stood between them and cannot be asked for.
    """

    number: int
    batch: Batch | None
    unusable: tuple[Unusable, ...] = ()


def slices(
    blocks: Iterator[list[str | Unusable]],
    kind: Kind,
    without_repeats: Callable[[list[str]], list[str]],
) -> Iterator[Slice]:
    """Yield the slices of an input: the same ones, however it is cut into blocks. Pure.

    Args:
        blocks: what is read.
        kind: what it is.
        without_repeats: drops what was there before.
    """
    size, number = kind.together, 0
    texts: list[str] = []
    unusable: list[Unusable] = []
    for good, bad in chain.from_iterable(map(_runs, blocks)):
        texts += without_repeats(good)
        whole = len(texts) // size * size
        for at in range(0, whole, size):
            batch = Batch(tuple(map(kind.make, texts[at : at + size])))
            yield Slice(number, batch, tuple(unusable))
            number += 1
            unusable.clear()
        del texts[:whole]
        if bad is not None:
            unusable.append(bad)
        if len(unusable) == _MANY:
            yield Slice(number, None, tuple(unusable))
            number += 1
            unusable.clear()
    if texts or unusable:
        last = Batch(tuple(map(kind.make, texts))) if texts else None
        yield Slice(number, last, tuple(unusable))


def _runs(block: list[str | Unusable]) -> Iterator[tuple[list[str], Unusable | None]]:
    """Yield what can be asked for, up to each item that cannot, and that item."""
    run: list[str] = []
    if Unusable not in map(type, block):
        yield block, None  # type: ignore[misc] # no other kind is in it
        return
    for item in block:
        if isinstance(item, str):
            run.append(item)
        else:
            yield run, item
            run = []
    yield run, None


def _sorted(block: list[str | Unusable]) -> tuple[list[str], list[Unusable]]:
    bad = [item for item in block if type(item) is Unusable]
    if not bad:
        return block, []  # type: ignore[return-value] # no other kind is in it
    return [item for item in block if isinstance(item, str)], bad


@define
class Count:
    """How many identifiers an input holds, while they are counted.

    Attributes:
        usable: repeated ones included.
        unusable: that cannot be asked for.
    """

    usable: int = 0
    unusable: int = 0


def counted(
    reader: Reader, count: Count, add: Callable[[list[str]], None], stopped: Callable[[], bool]
) -> None:
    """Read an input to its end. Blocks: for a thread."""
    for block in reader.blocks():
        good, bad = _sorted(block)
        add(good)
        count.usable += len(good)
        count.unusable += len(bad)
        if stopped():
            return


@define
class Source:
    """Hands out slices to whoever asks; reads in a thread.

    Attributes:
        slices: all of them.
        watermark: those below it are passed over,
        beyond: and these.
        known: of those passed over, an identifier.
    """

    _slices: Iterator[Slice]
    _watermark: int
    _beyond: Container[int]
    _ready: deque[Slice] = field(init=False, default=Factory(deque))
    _turn: asyncio.Lock = field(init=False, default=Factory(asyncio.Lock))
    _ended: bool = field(init=False, default=False)
    _error: Exception | None = field(init=False, default=None)
    known: Batch | None = field(init=False, default=None)

    @property
    def exhausted(self) -> bool:
        """Whether every slice was handed out."""
        return self._ended and not self._ready

    async def take(self) -> Slice | None:
        """Return the next slice, ``None`` after the last.

        Raises:
            InputError: the input cannot be read to its end.
        """
        while not self._ready and not self._ended:
            async with self._turn:
                if not self._ready and not self._ended:
                    self._ready.extend(await asyncio.to_thread(self._read))
        if not self._ready and self._error is not None:
            raise self._error
        return self._ready.popleft() if self._ready else None

    def _read(self) -> list[Slice]:
        taken: list[Slice] = []
        size = 0
        try:
            for piece in self._slices:
                if piece.number < self._watermark or piece.number in self._beyond:
                    if piece.batch:
                        self.known = Batch(piece.batch.identifiers[:1])
                    continue
                taken.append(piece)
                size += len(piece.batch.identifiers) if piece.batch else 1
                if size >= _AHEAD:
                    return taken
        except Exception as error:  # noqa: BLE001 - raised after what was read is handed out
            self._error = error
        self._ended = True
        return taken
