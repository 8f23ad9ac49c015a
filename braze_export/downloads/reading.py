"""Lines to records: the end of every way on which an export's archive is read."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from attrs import frozen

from braze_export.answers import decode_error
from braze_export.archives.lines import Block, Place
from braze_export.downloads.fetching import Source
from braze_export.downloads.unpacking import Broken, unpack_all
from braze_export.endpoints import Endpoint
from braze_export.errors import ArchiveError, DecodeError
from braze_export.models.results import BadRecord, DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings
from braze_export.tasks import TaskScope
from braze_export.turns import Turn

E = TypeVar("E", ArchiveError, DecodeError)


@frozen
class Reading:
    """How records are read.

    Attributes:
        decode: makes a record of a line.
        endpoint: for the errors.
        keep_going: yield what cannot be read instead of raising it.
        in_thread: decode beside the unpacking, for that takes little time; else in the loop, in
            short turns.
        settings: of fetching and unpacking.
        retry: says how often a lost connection is taken up again.
    """

    decode: Callable[[bytes], Any]
    endpoint: Endpoint
    keep_going: bool
    in_thread: bool
    settings: ExportSettings
    retry: RetryPolicy

    async def records(
        self, sources: AsyncGenerator[Source, None], stats: DownloadStats, scope: TaskScope
    ) -> AsyncGenerator[Any, None]:
        """Yield the records of all objects, and ``BadRecord`` with ``keep_going``.

        Raises:
            BrazeError: the first that cannot be read, once all that came before it was yielded.
        """
        turn = Turn()
        own = TaskScope("reading of the export", scope)
        try:
            async with aclosing(
                unpack_all(sources, self.settings, self.retry, stats, own, finish=self._finish)
            ) as batches:
                async for batch in batches:
                    blocks = [[self._broken(batch)]] if isinstance(batch, Broken) else batch
                    for records in blocks:
                        for record in records:
                            if turn.over:
                                await turn.give_way()
                            if type(record) is BadRecord:
                                stats.bad_records += 1
                                if not self.keep_going:
                                    raise record.error
                            elif record is None:
                                continue
                            else:
                                stats.users += 1
                            yield record
        finally:
            await own.aclose()

    def _finish(self, block: Block) -> Iterable[Any]:
        records = self._of(block)
        return list(records) if self.in_thread else records

    def _of(self, item: Block) -> Iterator[Any]:
        """Yield records, and ``None`` for lines without one: there may be very many of them."""
        if item.too_long is not None:
            longest = self.settings.archive_limits.max_line
            error = decode_error(
                f"the line has {item.too_long:,} bytes, more than the {longest:,} of max_line in "
                "ArchiveLimits",
                endpoint=self.endpoint,
                raw=item.lines[0],
            )
            yield _bad(error, item.start)
        else:
            for index, line in enumerate(item.lines):
                if not line or line.isspace():
                    yield None
                    continue
                try:
                    record = self.decode(line)
                except DecodeError as error:
                    yield _bad(error, item.place(index))
                    continue
                yield record

    def _broken(self, item: Broken) -> BadRecord:
        # A damaged file is one bad thing among others; the network is not.
        if not isinstance(item.error, ArchiveError):
            raise item.error
        return BadRecord(item.error.file or item.name, None, None, b"", _bare(item.error))


def _bad(error: DecodeError, place: Place) -> BadRecord:
    error.endpoint, error.status = "", 0  # no request went wrong
    error.file, error.line, error.offset = place.file, place.line, place.offset
    return BadRecord(place.file, place.line, place.offset, error.raw, _bare(error))


def _bare(error: E) -> E:
    """Return an error without its frames: they hold a megabyte of lines, and it may be kept."""
    error.__traceback__ = error.__context__ = None
    return error
