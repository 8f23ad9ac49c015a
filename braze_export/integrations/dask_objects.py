"""An object of an export in a bucket to its profiles: what a Dask worker does, in one task."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from attrs import Attribute, field, frozen

from braze_export.downloads.buckets import StoredObject
from braze_export.downloads.fetching import Source
from braze_export.errors import InputError
from braze_export.integrations.dask_frames import Rows, frame, run
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.values import CustomAttributes
from braze_export.models.results import BadRecord, DownloadStats
from braze_export.settings import ExportSettings
from braze_export.storage import ObjectStore, reading_of, whole
from braze_export.tasks import TaskScope

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

StoreSource: TypeAlias = str | Callable[[], ObjectStore]
"""The URL of a bucket, or a function that makes a store of it."""

_log = logging.getLogger("braze_export")


def _check_source(_: object, attribute: "Attribute[Any]", source: object) -> None:
    # What was given is not in the message: a store shows little of itself, a URL all of it.
    if isinstance(source, str):
        parts = urlsplit(source)
        if not parts.scheme or parts.password or parts.query:
            raise InputError(
                "the URL of a store must be like s3://bucket/folder, without password and query: "
                "workers take the credentials from their environment"
            )
    elif not callable(source):
        raise InputError(
            f"{attribute.name} must be a URL, or a function that makes the store on each worker, "
            f"not {type(source).__name__}: a store would take its credentials into the task graph"
        )


@frozen
class Storage:
    """Says how a worker opens the bucket. Holds no credentials.

    Attributes:
        store: the URL, or a function.
    """

    store: StoreSource = field(validator=_check_source)

    def open(self) -> ObjectStore:
        """Return the store.

        Raises:
            InputError: obstore is not installed, or makes no store of the URL.
        """
        if not isinstance(self.store, str):
            return self.store()
        try:
            from obstore.store import from_url  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InputError('a store needs: pip install "braze-export[storage]"') from error
        try:
            return cast("ObjectStore", from_url(self.store))
        except Exception as error:  # noqa: BLE001 - whatever obstore raises
            kind = type(error).__name__
        # Not its text, nor as the cause: it may hold what stands in the environment.
        raise InputError(
            f"no store can be made of the URL ({kind}): check it, and the variables of its "
            "credentials, such as AWS_ACCESS_KEY_ID and AWS_REGION"
        )


@frozen
class Listed:
    """An object as the listing showed it, without the store.

    Attributes:
        path: in the store.
        size: in bytes.
        version: its ETag.
        last_modified: when.
    """

    path: str
    size: int
    version: str | None
    last_modified: datetime


@frozen(kw_only=True)
class ObjectReader:
    """Reads objects. Lies in the task graph.

    Attributes:
        storage: opens the bucket.
        fields: that the export holds; ``None`` for everything.
        custom_attributes: how they are held in a column.
        skip: leave out what cannot be read, instead of raising it.
        settings: how to read.
    """

    storage: Storage
    fields: tuple[str, ...] | None
    custom_attributes: CustomAttributes
    skip: bool
    settings: ExportSettings

    def read(self, listed: Listed, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """Return the profiles of an object. On the worker.

        Args:
            listed: the object.
            columns: those that are wanted; ``None`` for all.

        Raises:
            BrazeError: it cannot be fetched, or not be read.
        """
        table = run(self._table(listed))
        return frame(table if columns is None else table.select(list(columns)))

    async def _table(self, listed: Listed) -> Any:
        rows = Rows(Tables(self.fields, self.custom_attributes))
        source = StoredObject(
            self.storage.open(), listed.path, listed.size, listed.version, listed.last_modified
        )
        reading = reading_of(bytes, "yield" if self.skip else "raise", self.settings)
        stats, scope = DownloadStats(), TaskScope("reading")
        try:
            async with aclosing(reading.records(_only(source), stats, scope)) as records:
                async for record in records:
                    if not isinstance(record, BadRecord):
                        await rows.add(record + b"\n")
        finally:
            await scope.aclose()
        if stats.bad_records:
            _log.warning("%s: %d lines or files left out", source.name, stats.bad_records)
        return await rows.table()


async def _only(source: Source) -> AsyncGenerator[Source, None]:
    yield source


def listed(
    storage: Storage,
    place: tuple[str, str | None, str | None],
    settings: ExportSettings,
    timeout: float | None,
) -> list[Listed]:
    """Return the objects of an export, once they are all there. Blocks until then.

    Args:
        storage: opens the bucket.
        place: segment, object prefix and folder.
        settings: how to wait.
        timeout: seconds to wait for them.

    Raises:
        BrazeError: as ``braze_export.storage.read_export`` says.
    """

    async def look() -> list[Listed]:
        bucket = await whole((storage.open(), *place), settings, timeout)
        return [Listed(o.path, o.size, o.version, o.last_modified) for o in bucket.objects]

    return run(look())


OnError: TypeAlias = Literal["raise", "skip"]
"""What to do with lines and files that cannot be read."""
