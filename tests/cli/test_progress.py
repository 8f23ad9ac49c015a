import asyncio
import os
from typing import Any

import pytest

from braze_export import ExportStats
from braze_export.cli import progress
from braze_export.cli.progress import Progress, duration
from braze_export.cli.reading import Arguments, Lines
from braze_export.cli.readings import IdsReading as Reading
from braze_export.cli.screen import Screen
from braze_export.jobs.pace import Pace
from braze_export.limiting.limits import PoolSnapshot
from tests.virtual import run


def reading(done: int, total: int | None, **more: Any) -> Reading:
    return Reading(
        **({"done": done, "total": total, "exact": True, "requests": 1, "again": 0} | more)
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_pace_is_that_of_late() -> None:
    pace = Pace()
    pace.mark(0, 0)
    assert pace.rate == 0
    assert pace.left(reading(0, 10)) is None
    pace.mark(1, 10_000)  # the first burst
    for second in range(2, 100):
        pace.mark(second, 10_000 + 100 * second)
    assert pace.rate == 100
    assert pace.left(reading(20_000, 21_000)) == 10
    assert pace.left(reading(21_000, 21_000)) is None
    assert pace.left(reading(20_000, None)) is None


def test_a_pace_that_is_rarely_read() -> None:
    pace = Pace()
    for minute in range(5):
        pace.mark(60 * minute, 600 * minute)
    assert pace.rate == 10


def test_a_reading_never_says_more_than_was_asked_for() -> None:
    stats = ExportStats(identifiers=3, users=5, duplicates=2, requests=4, retries=1)
    assert Reading.of(stats, None) == reading(5, None, requests=4, again=1)


def pool(**more: Any) -> PoolSnapshot:
    nothing = {"limit": 250, "remaining": None, "resets_in": None, "waiting": 0, "in_flight": 0}
    return PoolSnapshot(**(nothing | {"sent": 0, "refused": 0, "seconds_waited": 0.0} | more))


@pytest.mark.parametrize(
    ("standing", "told"),
    [
        (None, []),
        (pool(), []),
        (pool(remaining=12, resets_in=30), ["limit 12/250"]),
        (pool(remaining=12, resets_in=30, waiting=5), ["limit 12/250"]),
        (pool(remaining=0, resets_in=30), ["limit 0/250"]),
        (pool(remaining=0, waiting=5), ["limit 0/250"]),
        (pool(remaining=0, resets_in=34.3, waiting=5), ["limit 0/250", "next window in 34 s"]),
        (pool(limit=2500, remaining=1999), ["limit 1,999/2,500"]),
        (pool(resets_in=2, waiting=1), ["next window in 2 s"]),  # refused, and nothing said
    ],
)
def test_how_the_rate_limit_stands(standing: PoolSnapshot | None, told: list[str]) -> None:
    pace = Pace()
    pace.mark(0, 0)
    assert reading(0, 10, pool=standing).parts(pace, narrow=False)[3:] == told
    assert reading(0, 10, pool=standing).parts(pace, narrow=True) == ["0/10 ids", "0/s"]


def test_no_end_before_the_next_window() -> None:
    pace = Pace()
    pace.mark(0, 0)
    pace.mark(1, 100)
    spent = pool(remaining=0, resets_in=34, waiting=1)
    assert reading(100, 200, pool=spent).parts(pace, narrow=True)[-1] == "34 s left"
    assert reading(100, 5000, pool=spent).parts(pace, narrow=True)[-1] == "49 s left"
    assert reading(100, 200, pool=pool(remaining=1)).parts(pace, narrow=True)[-1] == "1 s left"


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (100, "aaaa · bbbb · cccc · dddd · eeee"),
        (32, "aaaa · bbbb · cccc · dddd · eeee"),
        (31, "aaaa · bbbb · dddd · eeee"),
        (24, "aaaa · bbbb · eeee"),
        (5, "aaaa · bbbb · eeee"),
    ],
)
def test_what_does_not_fit_is_left_out(room: int, text: str) -> None:
    assert progress._fitting(["aaaa", "bbbb", "cccc", "dddd", "eeee"], room) == text


def shown(monkeypatch: pytest.MonkeyPatch, seconds: float, **options: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        total = options.pop("total", 1000)

        def read() -> Reading:
            return reading(round(10 * (loop.time() - began)), total, again=2, exact=False)

        async with Progress(Screen(), read, **options):
            await asyncio.sleep(seconds)

    run(main)


def test_plain_lines_come_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 60)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[  1.0 s] 10/~1,000 ids, 10/s, 1 request (2 again), 1:39 left"
    assert 10 < len(lines) < 35
    assert lines[-1].startswith("[ 60.0 s] 600/")


def test_what_is_soon_over_is_not_worth_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 0.9)
    assert capsys.readouterr().err == ""


def test_no_line_comes_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 1.001)
    assert capsys.readouterr().err.count("\n") == 1


def test_silence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown(monkeypatch, 600, shown=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("width", "total"), [("100", 1000), ("40", 1000), ("100", None)])
def test_live(
    width: str,
    total: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "is_live", lambda *, stderr: True)
    monkeypatch.setattr("braze_export.cli.screen.is_live", lambda *, stderr: True)
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown(monkeypatch, 2, total=total)
    text = capsys.readouterr().err
    assert ("request" in text) == (width == "100")
    assert ("left" in text) == (total is not None)
    assert max(map(len, text.splitlines())) > 20


async def lines_of(source: Any) -> list[str]:
    return [line async for line in source]


async def test_the_total_of_a_file_is_guessed_until_it_is_known(tmp_path: Any) -> None:
    path = tmp_path / "ids"
    await asyncio.to_thread(path.write_bytes, b"u10\n" * 100 + b"\n")
    descriptor = os.open(path, os.O_RDONLY)
    source = Lines("ids", descriptor, 401)
    assert source.total() is None
    stream = source.__aiter__()
    await anext(stream)
    assert source.total() == 100
    assert not bool(source.exact)
    assert len(await lines_of(stream)) == 99
    assert source.total() == 100
    assert source.exact
    os.close(descriptor)


async def test_the_total_of_arguments() -> None:
    source = Arguments(("a", "b"))
    assert source.total() == 2
    assert await lines_of(source) == ["a", "b"]
