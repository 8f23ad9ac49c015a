"""What Braze does by itself when an export ends: objects into own storage, the callback.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment/
https://www.braze.com/docs/partners/data_and_analytics/cloud_storage/
"""

import asyncio
import io
import logging
import secrets
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import attrs

from braze_export.sandbox.archives import Archives
from braze_export.sandbox.exports import Export
from braze_export.sandbox.messages import encode
from braze_export.sandbox.people import People
from braze_export.sandbox.settings import Settings, is_loopback

_log = logging.getLogger(__name__)

# Undocumented: how long Braze waits for the one who is called back, and whether it tries again.
_CALLBACK_SECONDS = aiohttp.ClientTimeout(total=10)

# A decoy needs no more rows.
_CSV_ROWS = 1_000


@attrs.frozen
class CallbackRecord:
    """A callback that was tried; ``status`` is None when there was no answer, or no call."""

    url: str
    status: int | None


class Deliveries:
    """The tasks of exports that go somewhere when they end; they wait in real time."""

    def __init__(
        self, settings: Settings, archives: Archives, record: Callable[[CallbackRecord], None]
    ) -> None:
        self._settings = settings
        self._archives = archives
        self._record = record
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, export: Export) -> None:
        """See to an export that has just started."""
        if export.callback or self._settings.storage is not None:
            task = asyncio.create_task(self._deliver(export, self._settings.export_seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop all that is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _deliver(self, export: Export, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if export.cancelled:
            return
        try:
            if self._settings.storage is not None:
                await self._upload(export)
            else:
                await self._archives.get(export)
        except Exception:  # noqa: BLE001 - a storage raises what it likes
            # Undocumented: what is called back when an export fails. Here nothing.
            _log.exception("an export could not be delivered")
            return
        if export.callback:
            self._record(CallbackRecord(export.callback, await self._call_back(export)))

    async def _upload(self, export: Export) -> None:
        storage: Any = self._settings.storage
        folder = f"{day_folder(self._settings, export.segment_id)}/{export.prefix}"
        for users in self._archives.objects(export):
            data = await self._archives.make_object(export, users)
            await storage.put_async(f"{folder}/{secrets.token_hex(16)}{export.suffix}", data)

    async def _call_back(self, export: Export) -> int | None:
        # Documented: "success" and, without own storage, "url". Undocumented: the rest.
        body = {"success": True} | ({"url": export.link} if export.link else {})
        headers = {"content-type": "application/json"}
        try:
            host = urlsplit(export.callback).hostname or ""
            if not self._settings.allow_remote and not is_loopback(host):
                return None
            async with (
                aiohttp.ClientSession(timeout=_CALLBACK_SECONDS) as session,
                # A redirect might lead away from this machine.
                session.post(
                    export.callback, data=encode(body), headers=headers, allow_redirects=False
                ) as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


async def upload_csv(settings: Settings, segment_id: str, users: range, people: People) -> str:
    """Put into own storage what an export by hand leaves there, and return its key.

    https://www.braze.com/docs/user_guide/data/distribution/export_braze_data/export_data_to_csv/
    """
    storage = settings.storage
    if storage is None:
        raise RuntimeError("the sandbox has no storage")
    data = await asyncio.to_thread(_csv_archive, users[:_CSV_ROWS], people)
    key = f"{day_folder(settings, segment_id)}/users-{secrets.token_hex(8)}.zip"
    await storage.put_async(key, data)
    return key


def day_folder(settings: Settings, segment_id: str) -> str:
    """Return where the objects of a segment go today: Braze's day, here that of UTC."""
    today = datetime.fromtimestamp(settings.clock(), UTC).date().isoformat()
    folder = settings.storage_folder.strip("/")
    return "/".join(part for part in (folder, "segment-export", segment_id, today) if part)


def _csv_archive(users: range, people: People) -> bytes:
    file = io.BytesIO()
    rows = (people.person(n) for n in users)
    lines = ["user_id,email", *(f"{row.external_id},{row.email}" for row in rows)]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.csv", "\r\n".join([*lines, ""]))
    return file.getvalue()
