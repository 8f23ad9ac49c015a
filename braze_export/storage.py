"""Reading an export that lies somewhere already: in the workspace's own storage, or in a file.

The stores are obstore's (``pip install "braze-export[storage]"``), or whatever has the three
methods of ``ObjectStore``.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal, overload

from typing_extensions import TypeVar

from braze_export.archives.archive import ArchiveLimits
from braze_export.codec import decoder_for
from braze_export.downloads.buckets import Bucket, ObjectStore, newest
from braze_export.downloads.fetching import Source
from braze_export.downloads.files import LocalFile
from braze_export.downloads.reading import Reading
from braze_export.endpoints import EXPORT_SEGMENT
from braze_export.errors import NotFoundError
from braze_export.exporting.waiting import states
from braze_export.identifiers import check_name, check_prefix
from braze_export.models.profile import UserProfile
from braze_export.models.results import BadRecord, DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings
from braze_export.tasks import TaskScope
from braze_export.validators import as_path, check_on_error, or_default

__all__ = ["ObjectStore", "read_archive", "read_export"]

T = TypeVar("T", default=UserProfile)


@overload
def read_export(
    store: ObjectStore,
    segment_id: str,
    *,
    object_prefix: str | None = None,
    folder: str | None = None,
    into: type[T] = ...,
    on_error: Literal["raise"] = ...,
    timeout: float | None = None,
    settings: ExportSettings | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[T, None]: ...


@overload
def read_export(
    store: ObjectStore,
    segment_id: str,
    *,
    object_prefix: str | None = None,
    folder: str | None = None,
    into: type[T] = ...,
    on_error: Literal["yield"],
    timeout: float | None = None,
    settings: ExportSettings | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[T | BadRecord, None]: ...


def read_export(
    store: ObjectStore,
    segment_id: str,
    *,
    object_prefix: str | None = None,
    folder: str | None = None,
    into: type[Any] = UserProfile,
    on_error: Literal["raise", "yield"] = "raise",
    timeout: float | None = None,
    settings: ExportSettings | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[Any, None]:
    """Yield the profiles of a segment's export in the workspace's own storage.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment

    When all files of an export are there is documented nowhere. It counts as whole once its
    newest file is 15 minutes old (or ``settings.quiet_period``, if that is longer), or once nothing
    has changed for ``settings.quiet_period`` seconds. Files of dashboard exports, which are CSV,
    are passed over. Several files are read at once, so that profiles come in no particular order.

    Args:
        store: an obstore store of the bucket.
        segment_id: the segment's API identifier; for the global control group its own.
        object_prefix: of the export, as ``ExportJob.object_prefix`` tells; ``None`` for the
            newest one that is there.
        folder: the folder configured in Braze, before ``segment-export``; ``None``: it is looked
            for, at the top of the bucket and one level down.
        into: as for ``users.export_ids``; ``bytes`` for each user's JSON as Braze wrote it.
        on_error: ``"raise"`` the first line that is no profile; ``"yield"`` a ``BadRecord`` for it,
            and for a damaged file, and go on.
        timeout: seconds to wait for the files.
        settings: how to wait and to read.
        stats: counters to be kept up, for progress.

    Raises:
        InputError: an argument that makes no sense, at once.
        NotFoundError: there is no export of this segment, where no ``object_prefix`` is given.
        ExportNotReadyError: the timeout is over.
        ExportExpiredError: no file came in ``settings.polling.lifetime``.
        ArchiveError, DecodeError: a file, or a line, cannot be read.
        TransportError, APIError: the store does not answer, or refuses.
    """
    check_name(segment_id, "segment_id")
    reading = reading_of(into, on_error, or_default(settings, ExportSettings, "settings"))
    if object_prefix is not None:
        check_prefix(check_name(object_prefix, "object_prefix"))
    place = (store, segment_id, object_prefix, folder)
    return _records(place, reading, timeout, or_default(stats, DownloadStats, "stats"))


@overload
def read_archive(
    path: str | Path,
    into: type[T] = ...,
    *,
    on_error: Literal["raise"] = ...,
    limits: ArchiveLimits | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[T, None]: ...


@overload
def read_archive(
    path: str | Path,
    into: type[T] = ...,
    *,
    on_error: Literal["yield"],
    limits: ArchiveLimits | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[T | BadRecord, None]: ...


def read_archive(
    path: str | Path,
    into: type[Any] = UserProfile,
    *,
    on_error: Literal["raise", "yield"] = "raise",
    limits: ArchiveLimits | None = None,
    stats: DownloadStats | None = None,
) -> AsyncGenerator[Any, None]:
    """Yield the profiles of an archive that lies in a file, as ``ExportJob.download`` leaves it.

    Args:
        path: a ZIP or GZIP file, or one of JSON lines.
        into: as for ``users.export_ids``.
        on_error: ``"raise"`` the first line that is no profile; ``"yield"`` a ``BadRecord`` for it
            and go on.
        limits: what the archive may unpack to.
        stats: counters to be kept up, for progress.

    Raises:
        InputError: the file cannot be read.
        ArchiveError: there is no archive, or one that is damaged, cut off or hostile.
        DecodeError: a line is no profile; ``file``, ``line`` and ``offset`` tell which.
    """
    file = LocalFile(as_path(path))

    async def source() -> AsyncGenerator[Source, None]:
        yield file

    archive_limits = or_default(limits, ArchiveLimits, "limits")
    settings = ExportSettings(archive_limits=archive_limits, concurrency=1)
    reading = reading_of(into, on_error, settings)
    stats = or_default(stats, DownloadStats, "stats")
    return reading.records(source(), stats, TaskScope("reading"))


def reading_of(into: type, on_error: str, settings: ExportSettings) -> Reading:
    """Return how an export is read into records. For integrations.

    Raises:
        InputError: ``into`` or ``on_error`` makes no sense.
    """
    return Reading(
        decode=decoder_for(into, EXPORT_SEGMENT, checked=False),
        in_thread=into is bytes,
        endpoint=EXPORT_SEGMENT,
        keep_going=check_on_error(on_error),
        settings=settings,
        retry=RetryPolicy(),
    )


async def _records(
    place: tuple[ObjectStore, str, str | None, str | None],
    reading: Reading,
    timeout: float | None,  # noqa: ASYNC109 - it ends the waiting, not the reading
    stats: DownloadStats,
) -> AsyncGenerator[Any, None]:
    scope = TaskScope("reading")
    try:
        bucket = await whole(place, reading.settings, timeout)
        async with aclosing(reading.records(bucket.sources(), stats, scope)) as records:
            async for record in records:
                yield record
    finally:
        await scope.aclose()


async def whole(
    place: tuple[ObjectStore, str, str | None, str | None],
    settings: ExportSettings,
    timeout: float | None,  # noqa: ASYNC109 - handed on, where it is told apart from failures
) -> Bucket:
    """Return where an export is, once all of its files are there. For integrations.

    Args:
        place: store, segment, object prefix and folder, as for ``read_export``.
        settings: how to wait.
        timeout: seconds to wait for the files.

    Raises:
        BrazeError: as ``read_export`` says.
    """
    store, segment_id, prefix, folder = place
    prefix = prefix or await newest(store, segment_id, folder)
    if prefix is None:
        raise NotFoundError(
            "the storage holds no export of this segment",
            status=404,
            hint="Check the bucket, the folder and the segment id",
        )
    bucket = Bucket(store, segment_id, prefix, folder, settings.quiet_period)
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = states(
        bucket.look,
        settings.polling,
        age=lambda: loop.time() - began,
        idle=bucket.idle,
        timeout=timeout,
    )
    async with aclosing(waiting):
        async for _ in waiting:
            pass
    return bucket
