import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from attrs import Factory, define, frozen
from hypothesis import given
from hypothesis import strategies as st

from braze_export import APIError, ClientClosedError, RetryPolicy, ServerError, TransportError
from braze_export.downloads.fetching import ObjectChangedError, Opened, changed, fetch
from braze_export.errors import BrazeError, ConnectError, ConnectionLostError, ExportExpiredError
from braze_export.models.results import DownloadStats
from tests import virtual

QUICK = RetryPolicy(max_attempts=3, base=0.001, cap=0.002)
WHOLE = bytes(range(100))
LOST = ConnectionLostError("the connection was lost")


@frozen
class Answer:
    """What a server does when it is asked.

    Attributes:
        chunks: sizes of the pieces that come, before the error, if there is one.
        error: how it ends.
        ranges: whether it begins where it was asked to.
        start: where it begins, whatever it was asked for.
        total: the length it tells.
        refuses: raised instead of an answer.
    """

    chunks: Sequence[int] = (1_000,)
    error: BaseException | None = None
    ranges: bool = True
    start: int | None = None
    total: int | None = 100
    version: str | None = '"1"'
    refuses: BaseException | None = None
    data: bytes = WHOLE


@define
class Scripted:
    """A source that follows a script; the last answer stays."""

    script: list[Answer]
    asked: list[tuple[int, str | None]] = Factory(list)
    open_now: int = 0
    name: str = "scripted"

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:
        self.asked.append((start, version))
        answer = self.script.pop(0) if self.script[1:] else self.script[0]
        if answer.refuses is not None:
            raise answer.refuses
        begin = start if answer.ranges else 0
        begin = begin if answer.start is None else answer.start
        self.open_now += 1
        try:
            async with aclosing(self._chunks(answer, begin)) as chunks:
                yield Opened(begin, answer.total, answer.version, chunks)
        finally:
            self.open_now -= 1

    async def _chunks(self, answer: Answer, at: int) -> AsyncGenerator[bytes, None]:
        for size in answer.chunks:
            yield answer.data[at : at + size]
            at += size
        if answer.error is not None:
            raise answer.error


async def fetched(
    *script: Answer, retry: RetryPolicy = QUICK
) -> tuple[bytes, Scripted, DownloadStats]:
    source, stats = Scripted(list(script)), DownloadStats()
    body = b"".join([chunk async for chunk in fetch(source, retry, stats)])
    assert source.open_now == 0
    assert stats.bytes_received == len(body)
    return body, source, stats


async def failed(
    *script: Answer, retry: RetryPolicy = QUICK
) -> tuple[bytes, BrazeError, Scripted, DownloadStats]:
    source, stats, got = Scripted(list(script)), DownloadStats(), b""
    with pytest.raises(BrazeError) as caught:
        async for chunk in fetch(source, retry, stats):
            got += chunk
    assert source.open_now == 0
    return got, caught.value, source, stats


async def test_at_one_go() -> None:
    body, source, stats = await fetched(Answer((30, 0, 70)))
    assert body == WHOLE
    assert source.asked == [(0, None)]
    assert stats == DownloadStats(bytes_total=100, bytes_received=100)


async def test_nothing_at_all() -> None:
    for total in (0, None):
        body, source, stats = await fetched(Answer((), total=total))
        assert (body, len(source.asked), stats.bytes_total) == (b"", 1, 0)


@pytest.mark.parametrize("ranges", [True, False])
async def test_taken_up_where_it_was_lost(ranges: bool) -> None:
    body, source, stats = await fetched(
        Answer((10, 20), LOST), Answer((10, 30, 20), LOST, ranges), Answer(ranges=ranges)
    )
    assert body == WHOLE
    assert source.asked == [(0, None), (30, '"1"'), (90 if ranges else 60, '"1"')]
    assert (stats.bytes_total, stats.resumed) == (100, 2)


@pytest.mark.parametrize("ranges", [True, False])
async def test_as_long_as_more_comes_it_goes_on(ranges: bool) -> None:
    script = [Answer((n,) if not ranges else (1,), LOST, ranges) for n in range(1, 100)]
    body, source, stats = await fetched(*script, Answer(ranges=ranges))
    assert body == WHOLE
    assert (len(source.asked), stats.resumed, stats.bytes_total) == (100, 99, 100)


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=30))
def test_however_it_breaks_each_byte_comes_once(parts: list[tuple[int, bool, bool]]) -> None:
    silent: dict[str, Any] = {"total": None, "version": None}
    script = [
        Answer((3, size), LOST, ranges, **({} if tells else silent))
        for size, ranges, tells in parts
    ]
    patient = RetryPolicy(max_attempts=100)
    body, _, stats = virtual.run(lambda: fetched(*script, Answer((7, 93)), retry=patient))
    assert body == WHOLE
    assert stats.bytes_total == 100


async def test_without_progress_it_gives_up() -> None:
    for answer in (Answer(refuses=LOST), Answer((), LOST), Answer((), total=100)):
        got, error, source, stats = await failed(Answer((10,), LOST), answer)
        assert isinstance(error, ConnectionLostError)
        assert got == WHOLE[:10]
        assert len(source.asked) == 3
        assert stats.resumed == 2


async def test_without_ranges_the_same_place_over_and_over_is_no_progress() -> None:
    got, error, source, _ = await failed(Answer((10,), LOST, ranges=False))
    assert error is LOST
    assert got == WHOLE[:10]
    assert len(source.asked) == 3


async def test_progress_is_counted_anew() -> None:
    broken = [Answer(refuses=LOST), Answer(refuses=LOST)]
    script = [part for n in range(9) for part in (Answer((10,), LOST), Answer((), LOST))]
    body, *_ = await fetched(*broken, *script, Answer())
    assert body == WHOLE


async def test_a_length_that_is_not_reached_is_a_loss() -> None:
    got, error, _, _ = await failed(Answer((60,)), Answer(()))
    assert got == WHOLE[:60]
    assert "60 of 100 bytes came" in str(error)
    body, *_ = await fetched(Answer((60,)), Answer())
    assert body == WHOLE


async def test_a_length_that_is_told_only_once_still_holds() -> None:
    script = [Answer((60,), LOST), Answer((20,), total=None), Answer(total=None)]
    body, source, stats = await fetched(*script)
    assert body == WHOLE
    assert [start for start, _ in source.asked] == [0, 60, 80]
    assert stats.bytes_total == 100


async def test_a_length_that_is_told_late() -> None:
    body, _, stats = await fetched(Answer((60,), LOST, total=None), Answer())
    assert body == WHOLE
    assert stats.bytes_total == 100


async def test_the_length_is_counted_once_though_nothing_came_at_first() -> None:
    body, _, stats = await fetched(Answer((), LOST), Answer((), LOST), Answer())
    assert body == WHOLE
    assert (stats.bytes_total, stats.resumed) == (100, 2)


async def test_a_loss_behind_the_last_byte_is_none() -> None:
    body, source, stats = await fetched(Answer((100,), LOST))
    assert body == WHOLE
    assert (len(source.asked), stats.resumed) == (1, 0)


async def test_more_than_the_length() -> None:
    _, error, _, _ = await failed(Answer(total=50), Answer(refuses=changed()))
    assert isinstance(error, ObjectChangedError)


@pytest.mark.parametrize("at", [0, 10])
async def test_a_part_that_begins_too_late_is_not_taken(at: int) -> None:
    skipped = Answer(start=at + 5)
    script = [Answer((10,), LOST), skipped] if at else [skipped]
    got, error, _, _ = await failed(*script)
    assert "skipped a part" in str(error)
    assert got == WHOLE[:at]
    body, *_ = await fetched(*script, Answer())
    assert body == WHOLE


async def test_a_part_that_begins_too_early_is_passed_over() -> None:
    for start in range(31):
        body, *_ = await fetched(Answer((30,), LOST), Answer((1,) * 100, start=start))
        assert body == WHOLE


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        {"version": '"2"'},
        {"version": 'W/"1"'},
        {"total": 99},
        {"total": 101, "version": None},
        {"total": None, "version": '"2"'},
    ],
)
async def test_another_object_is_never_joined(ranges: bool, other: dict[str, Any]) -> None:
    second = Answer(ranges=ranges, data=bytes(200), **other)
    got, error, source, _ = await failed(Answer((30,), LOST), second)
    assert isinstance(error, ObjectChangedError)
    assert got == WHOLE[:30]
    assert len(source.asked) == 2
    assert "Begin anew" in str(error)


async def test_what_was_known_is_not_forgotten() -> None:
    """The second answer names no version; the third another one than the first."""
    silent = Answer((10,), LOST, version=None, total=None)
    got, error, source, _ = await failed(Answer((10,), LOST), silent, Answer(version='"2"'))
    assert isinstance(error, ObjectChangedError)
    assert got == WHOLE[:20]
    assert source.asked[-1] == (20, '"1"')


async def test_another_object_before_the_first_byte_is_taken() -> None:
    other = Answer((7, 13), total=20, version='"2"')
    body, source, stats = await fetched(Answer((), LOST), other)
    assert body == WHOLE[:20]
    assert stats.bytes_total == 20
    # No condition on what nobody has seen anything of.
    assert source.asked == [(0, None), (0, None)]


@pytest.mark.parametrize(
    "error",
    [APIError("no", status=400), ExportExpiredError("over", status=403), ClientClosedError("no")],
)
@pytest.mark.parametrize("at", [0, 30])
async def test_what_is_no_passing_trouble_is_raised_at_once(error: BrazeError, at: int) -> None:
    refused = Answer(refuses=error)
    got, raised, source, _ = await failed(*([Answer((at,), LOST)] if at else []), refused)
    assert raised is error
    assert got == WHOLE[:at]
    assert len(source.asked) == (2 if at else 1)


async def test_passing_trouble_of_every_kind() -> None:
    busy = ServerError("busy", status=503)
    kinds: list[BrazeError] = [busy, ConnectError("no"), LOST, TransportError("x")]
    for error in kinds:
        script = [Answer(refuses=error), Answer((5,), error), Answer(refuses=error), Answer()]
        assert (await fetched(*script))[0] == WHOLE


def test_a_storage_that_asks_to_wait_is_waited_for() -> None:
    async def main() -> float:
        clock = asyncio.get_running_loop().time
        began = clock()
        busy = ServerError("busy", status=503)
        busy.retry_after = 90.0
        body, *_ = await fetched(Answer(refuses=busy), Answer())
        assert body == WHOLE
        return clock() - began

    assert 90 <= virtual.run(main) < 91


async def test_a_storage_that_asks_for_days_is_not() -> None:
    busy = ServerError("busy", status=503)
    busy.retry_after = 200_000.0
    _, error, source, _ = await failed(Answer(refuses=busy))
    assert error is busy
    assert len(source.asked) == 1


async def test_once_means_once() -> None:
    once = RetryPolicy(max_attempts=1)
    got, *_ = await failed(Answer((10,), LOST), retry=once)
    assert got == WHOLE[:10]


async def test_other_errors_are_left_alone() -> None:
    source = Scripted([Answer((10,), OSError("disk"))])
    with pytest.raises(OSError, match="disk"):
        _ = [chunk async for chunk in fetch(source, QUICK, DownloadStats())]
    assert source.open_now == 0


async def test_leaving_early_closes_the_object() -> None:
    source = Scripted([Answer((10, 90))])
    async with aclosing(fetch(source, QUICK, DownloadStats())) as chunks:
        assert await anext(chunks) == WHOLE[:10]
        assert source.open_now == 1
    assert source.open_now == 0


async def test_cancelling_closes_the_object() -> None:
    source = Scripted([Answer((10,), LOST), Answer(refuses=LOST)])
    slow = RetryPolicy(base=1e6, cap=1e6, max_seconds=1e9)

    async def take() -> None:
        async for _ in fetch(source, slow, DownloadStats()):
            pass

    task = asyncio.create_task(take())
    while not source.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.open_now == 0


async def test_the_log_tells_how_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "braze_export")
    await fetched(Answer((10,), LOST), Answer())
    assert "download: ConnectionLostError at byte 10" in caplog.text
