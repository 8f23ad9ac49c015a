"""Exports that Braze prepares in the background: of a segment, of the global control group.

Waiting for one, and reading what it gives. How they are started is told in ``exports``.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal, overload

from attrs import define, field
from typing_extensions import TypeVar

from braze_export.codec import decoder_for
from braze_export.downloads.buckets import Bucket, ObjectStore
from braze_export.downloads.fetching import Source
from braze_export.downloads.files import check_target, save
from braze_export.downloads.links import Link, NotReady
from braze_export.downloads.reading import Reading
from braze_export.endpoints import Endpoint
from braze_export.errors import ExportExpiredError, InputError
from braze_export.exporting.context import ExportContext
from braze_export.exporting.waiting import Callback, ExportState, states
from braze_export.models.profile import UserProfile
from braze_export.models.results import BadRecord, DownloadStats
from braze_export.tasks import tell
from braze_export.validators import as_path, check_hook, check_on_error, check_timeout

T = TypeVar("T", default=UserProfile)


@define(eq=False)
class ExportJob:
    """An export that Braze has accepted and is preparing.

    Attributes:
        object_prefix: ``<uuid>-<unix seconds>``, the folder of the export's files in the
            workspace's own cloud storage, where one is connected; ``None`` should Braze not
            say it.
        url: where the archive can be fetched once it is ready, for about four hours; ``None``
            where the workspace has its own storage. Whoever has it can read the profiles, so
            it is not part of the ``repr``.
        segment_id: of the segment exported, ``None`` for the control group.
        stats: counters of what was read, for progress. They add up if it is read again.
    """

    object_prefix: str | None
    url: str | None = field(repr=False)
    segment_id: str | None
    stats: DownloadStats = field(factory=DownloadStats, init=False, repr=False)
    _context: ExportContext = field(repr=False, kw_only=True)
    _endpoint: Endpoint = field(repr=False, kw_only=True)
    _callback: Callback | None = field(repr=False, kw_only=True)
    _age: Callable[[], float] = field(repr=False, kw_only=True)
    _buckets: list[Bucket] = field(factory=list, init=False, repr=False)

    async def wait(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - told apart from the link's life
        store: ObjectStore | None = None,
        on_progress: Callable[[ExportState], object] | None = None,
    ) -> None:
        """Wait until the export is ready.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment

        Braze says that an export is ready to the callback, if there is one, and otherwise not at
        all: the link is looked at again and again, with growing pauses (``Polling``).

        Args:
            timeout: seconds. Without, until the link's life is over (four hours).
            store: the workspace's own storage, for a job without a link. See
                ``braze_export.storage.read_export`` for when an export counts as whole there.
            on_progress: a function, plain or async, that is called with the state at each look.

        Raises:
            ExportNotReadyError: the timeout is over. The export goes on; wait again.
            ExportExpiredError: the link has run out, or nothing came of the export.
            InputError: a job without a link and without a store, or a wrong argument.
            TransportError, APIError: the storage does not answer, or refuses.
        """
        check_hook(on_progress)
        async with aclosing(self.states(timeout=timeout, store=store)) as found:
            async for state in found:
                await tell(on_progress, state)

    async def states(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - told apart from the link's life
        store: ObjectStore | None = None,
    ) -> AsyncGenerator[ExportState, None]:
        """Yield the state at each look, until the export is ready. Otherwise as ``wait``."""
        check_timeout(timeout)
        context = self._context
        bucket = self._place(store)
        steps = states(
            bucket.look if bucket else self._look,
            context.settings.polling,
            age=self._age,
            idle=bucket.idle if bucket else None,
            callback=self._callback,
            timeout=timeout,
        )

        async def step() -> ExportState | None:
            return await anext(steps, None)

        async with aclosing(steps):
            try:
                while (state := await context.caller.scope.run(step())) is not None:
                    if state.phase == "ready":
                        self._forget()
                    yield state
            except ExportExpiredError:
                self._forget()
                raise

    async def ended(self) -> bool:
        """Look once: is the archive there, or over and gone? Without a link, nobody can tell."""
        if self.url is None:
            return False
        try:
            return await self._look() is None
        except ExportExpiredError:
            return True

    @overload
    def profiles(
        self,
        into: type[T] = ...,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["raise"] = ...,
        timeout: float | None = None,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def profiles(
        self,
        into: type[T] = ...,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["yield"],
        timeout: float | None = None,
    ) -> AsyncGenerator[T | BadRecord, None]: ...

    def profiles(
        self,
        into: type[Any] = UserProfile,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["raise", "yield"] = "raise",
        timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Wait for the export, fetch it, and yield its profiles.

        The archive is unpacked while it is being fetched, in threads, and never held whole. It is
        fetched as fast as it comes, however slow you are; what is ahead is kept on disk. From a
        link profiles come in the archive's order, from several files in a store in any.

        Args:
            into: as for ``users.export_ids``.
            store: an obstore store of the workspace's own bucket. A job with a link needs none,
                and takes the link.
            on_error: ``"raise"`` the first line that is no profile; ``"yield"`` a ``BadRecord``
                for it, and for a damaged file, and go on.
            timeout: seconds to wait until the export is ready. See ``wait``.

        Raises:
            InputError: an argument that makes no sense, at once.
            ArchiveError: there is no archive, or one that is damaged, cut off or hostile.
            DecodeError: a line is no profile; ``file``, ``line`` and ``offset`` tell which.
            ExportNotReadyError, ExportExpiredError, TransportError, APIError: as ``wait``.
        """
        return self._read(into, store, on_error, timeout)

    @overload
    def raw(
        self,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["raise"] = ...,
        timeout: float | None = None,
    ) -> AsyncGenerator[bytes, None]: ...

    @overload
    def raw(
        self,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["yield"],
        timeout: float | None = None,
    ) -> AsyncGenerator[bytes | BadRecord, None]: ...

    def raw(
        self,
        *,
        store: ObjectStore | None = None,
        on_error: Literal["raise", "yield"] = "raise",
        timeout: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Yield each user's JSON as Braze wrote it, without decoding it. See ``profiles``."""
        return self._read(bytes, store, on_error, timeout)

    async def download(
        self,
        path: str | Path,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends the waiting, not the download
    ) -> Path:
        """Wait for the export, and save its archive as it is, a ZIP or GZIP file.

        The file has another name, ending in ``.partial``, until it is whole. Read it with
        ``braze_export.read_archive``.

        Args:
            path: of the file. One that is there is replaced.
            timeout: seconds to wait until the export is ready. See ``wait``.

        Returns:
            The path.

        Raises:
            InputError: nothing can be written there, or the job has no link.
            ExportNotReadyError, ExportExpiredError, TransportError, APIError: as ``wait``.
        """
        target = as_path(path)
        context = self._context
        link = self._link()
        check_timeout(timeout)
        await asyncio.to_thread(check_target, target)  # before all the waiting
        await self.wait(timeout=timeout)
        await context.caller.scope.run(save(link, target, context.caller.retry, self.stats))
        return target

    def _read(
        self, into: type, store: ObjectStore | None, on_error: str, timeout: float | None
    ) -> AsyncGenerator[Any, None]:
        reading = Reading(
            decode=decoder_for(into, self._endpoint, checked=False),
            in_thread=into is bytes,
            endpoint=self._endpoint,
            keep_going=check_on_error(on_error),
            settings=self._context.settings,
            retry=self._context.caller.retry,
        )
        check_timeout(timeout)
        self._place(store)
        sources = self._sources(store, timeout)
        return reading.records(sources, self.stats, self._context.caller.scope)

    async def _sources(
        self,
        store: ObjectStore | None,
        timeout: float | None,  # noqa: ASYNC109 - see ``wait``
    ) -> AsyncGenerator[Source, None]:
        await self.wait(timeout=timeout, store=store)
        bucket = self._place(store)
        if bucket is None:
            yield self._link()
            return
        async for found in bucket.sources():
            yield found

    async def _look(self, _called: bool = False) -> NotReady | None:
        return await self._link().probe()

    def _link(self) -> Link:
        if self.url is None:
            raise InputError(
                "this export has no link: the workspace writes to its own storage. Read it with "
                "profiles(store=...) or raw(store=...), with an obstore store of the bucket"
            )
        return self._context.link(self.url)

    def _place(self, store: ObjectStore | None) -> Bucket | None:
        """Return the export's place in a store, ``None`` if there is a link: that is enough.

        The same each time, for it knows what it saw.
        """
        if store is None or self.url is not None:
            self._link()
            return None
        for bucket in self._buckets:
            if bucket.store is store:
                return bucket
        if self.object_prefix is None:
            raise InputError("Braze gave no object_prefix, so its files cannot be told from others")
        period = self._context.settings.quiet_period
        bucket = Bucket(store, self.segment_id, self.object_prefix, quiet_period=period)
        self._buckets.append(bucket)
        return bucket

    def _forget(self) -> None:
        self._context.running.discard(lambda job: job is self)
