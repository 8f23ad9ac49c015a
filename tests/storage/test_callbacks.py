"""A job, the receiver of its callback and a local Braze, all together."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from braze_export import (
    BrazeClient,
    ExportExpiredError,
    ExportJob,
    ExportNotReadyError,
    ExportSettings,
)
from braze_export.callbacks import Callback, CallbackReceiver
from braze_export.sandbox import Sandbox
from braze_export.settings import Polling

FIELDS = ["external_id"]
#: Without a callback nobody would look again within a test.
RARELY = ExportSettings(polling=Polling(base=600.0, cap=600.0))
OFTEN = ExportSettings(polling=Polling(base=0.02, cap=0.05))

Start = Callable[..., Coroutine[Any, Any, ExportJob]]


@pytest.fixture(autouse=True)
def _nothing_left(nothing_left: None) -> None:
    """Every test leaves no task behind."""


@pytest.fixture
async def receiver() -> AsyncIterator[CallbackReceiver]:
    async with CallbackReceiver() as receiver:
        yield receiver


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start an export of a new local Braze, with this callback."""
    async with AsyncExitStack() as stack:

        async def start(callback: Any, exports: ExportSettings, **options: Any) -> ExportJob:
            sandbox = await stack.enter_async_context(Sandbox(users=50, profile="small", **options))
            client = await stack.enter_async_context(
                BrazeClient(sandbox.api_key, sandbox.url, exports=exports)
            )
            return await client.users.export_segment(
                sandbox.segment_id(1), fields=FIELDS, callback_url=callback
            )

        yield start


async def post(callback: Callback, body: bytes) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(callback.url, data=body) as answer,
    ):
        return answer.status


async def test_braze_calls_when_it_is_ready(receiver: CallbackReceiver, start: Start) -> None:
    callback = receiver.expect()
    job = await start(callback, RARELY, export_seconds=0.2)
    began = time.monotonic()
    assert len([user async for user in job.profiles(timeout=10)]) == 50
    assert 0.1 < time.monotonic() - began < 5
    assert callback.received
    # What it posted was a hint only: the job goes to the link that it was given itself.
    assert (await callback.wait()).url == job.url
    await job.wait(timeout=0)  # again, for the callback has come


async def test_two_jobs_have_a_callback_each(receiver: CallbackReceiver, start: Start) -> None:
    soon = await start(receiver.expect(), RARELY, export_seconds=0.1)
    late = await start(receiver.expect(), RARELY, export_seconds=1000)
    waiting = asyncio.create_task(late.wait(timeout=0.5))
    await soon.wait(timeout=10)
    with pytest.raises(ExportNotReadyError):
        await waiting


async def test_the_archive_lags_behind_its_callback(
    receiver: CallbackReceiver, start: Start
) -> None:
    callback = receiver.expect()
    exports = ExportSettings(polling=Polling(base=0.2, cap=600.0))
    job = await start(callback, exports, export_seconds=0.5)
    assert await post(callback, b'{"success": true}') == 200  # too early
    seen: list[Any] = []
    await job.wait(timeout=10, on_progress=seen.append)
    assert len(seen) >= 3
    assert seen[1].elapsed < 0.2  # looked at once


async def test_whoever_says_that_it_failed(receiver: CallbackReceiver, start: Start) -> None:
    callback = receiver.expect()
    job = await start(callback, RARELY, export_seconds=1000)
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0.05)
    assert await post(callback, b'{"success": "perhaps"}') == 400
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await post(callback, b'{"success": false}') == 200
    async with asyncio.timeout(5):
        with pytest.raises(ExportExpiredError, match="Braze says that the export failed") as caught:
            await waiting
    assert caught.value.code == "AccessDenied"
    assert (job.url or "!") not in str(caught.value)


@pytest.mark.parametrize("close", ["callback", "receiver"])
async def test_after_the_receiver_is_gone_it_is_polled(
    close: str, receiver: CallbackReceiver, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    callback = receiver.expect()
    job = await start(callback, OFTEN, export_seconds=0.3)
    waiting = asyncio.create_task(job.wait(timeout=10))
    await asyncio.sleep(0.05)
    if close == "callback":
        callback.close()
    else:
        await receiver.aclose()
    await waiting
    ours = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert ours == [
        "waiting for an export: no callback (ClientClosedError), so it is polled",
    ]


async def test_a_callback_that_outlived_its_time(start: Start) -> None:
    async with CallbackReceiver(lifetime=0.05) as receiver:
        job = await start(receiver.expect(), OFTEN, export_seconds=0.3)
        await job.wait(timeout=10)
        assert len([user async for user in job.profiles()]) == 50


async def test_an_address_of_ones_own_is_polled(start: Start) -> None:
    job = await start("http://127.0.0.1:9/nobody", OFTEN, export_seconds=0.2)
    await job.wait(timeout=10)


async def test_closing_the_client_ends_the_waiting(
    receiver: CallbackReceiver, start: Start
) -> None:
    job = await start(receiver.expect(), RARELY, export_seconds=1000)
    waiting = asyncio.create_task(job.wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
