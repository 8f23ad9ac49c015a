"""Starting the exports that Braze prepares in the background, and taking up those started before.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from braze_export.downloads.buckets import started_at
from braze_export.endpoints import EXPORT_SEGMENT, Endpoint
from braze_export.exporting.context import ExportContext
from braze_export.exporting.job import ExportJob
from braze_export.exporting.starting import IfRunning, read_started, start_when_free
from braze_export.exporting.waiting import Callback
from braze_export.identifiers import check_name, check_prefix


async def start_export(
    context: ExportContext,
    endpoint: Endpoint,
    body: dict[str, Any],
    *,
    segment_id: str | None = None,
    callback: Callback | None = None,
    if_running: IfRunning = "raise",
) -> ExportJob:
    """Start an export, and return its job.

    Raises:
        ExportInProgressError: the segment is being exported, or too many are.
        TransportError: no whole answer came. The export may have been started all the same.
        APIError: Braze refuses.
    """
    clock = asyncio.get_running_loop().time

    async def start() -> ExportJob:
        started = await context.caller.call(endpoint, read_started, content=body)
        began = clock()
        return ExportJob(
            started.object_prefix,
            started.url,
            segment_id,
            context=context,
            endpoint=endpoint,
            callback=callback,
            age=lambda: clock() - began,
        )

    attempts = start_when_free(
        lambda: context.running.start(start), if_running, context.settings.polling
    )
    job = await context.caller.scope.run(attempts)
    if job.url is None:
        # Nobody can see it end without the store, and it must not be in the way of others.
        context.running.discard(lambda other: other is job)
    return job


def resume_export(context: ExportContext, link_or_prefix: str, segment_id: str | None) -> ExportJob:
    """Return the job of an export that was started before.

    Raises:
        InputError: it is neither a link nor an object prefix.
    """
    text = check_name(link_or_prefix, "the link or object prefix")
    if segment_id is not None:
        check_name(segment_id, "segment_id")
    url = context.link(text).url if "://" in text else None
    if url is None:
        check_prefix(text)
    clock = context.caller.wall_clock
    began = started_at(urlsplit(url).path if url else text)
    since = clock() if began is None else began
    return ExportJob(
        None if url else text,
        url,
        segment_id,
        context=context,
        endpoint=EXPORT_SEGMENT,
        callback=None,
        age=lambda: clock() - since,
    )
