"""Starting exports: trying again while one runs, and keeping count, on a clock that jumps."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import Factory, define

from braze_export.endpoints import EXPORT_SEGMENT
from braze_export.errors import (
    APIError,
    BrazeError,
    ConnectError,
    DecodeError,
    ExportInProgressError,
    InputError,
    ServerError,
)
from braze_export.exporting.starting import (
    MOST_RUNNING,
    Running,
    Started,
    check_if_running,
    read_started,
    start_when_free,
)
from braze_export.settings import Polling
from tests import virtual

HOUR = 3600.0


@define(eq=False)
class Job:
    over: bool = False
    error: Exception | None = None
    takes: float = 0.0
    asked: int = 0

    async def ended(self) -> bool:
        self.asked += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.over


@define
class Starter:
    """Fails with these errors first, then starts jobs."""

    errors: list[BaseException] = Factory(list)
    takes: float = 0.0
    tries: list[float] = Factory(list)

    async def __call__(self) -> Job:
        self.tries.append(now())
        await asyncio.sleep(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        return Job()


def now() -> float:
    return asyncio.get_running_loop().time()


def start(job: Job) -> Callable[[], Awaitable[Job]]:
    async def started() -> Job:
        return job

    return started


async def full(running: Running, **options: Any) -> list[Job]:
    jobs = [Job(**options) for _ in range(MOST_RUNNING)]
    for job in jobs:
        await running.start(start(job))
    return jobs


# --- the answer


@pytest.mark.parametrize(
    ("answer", "started"),
    [
        ({"object_prefix": "a-1", "url": "https://x/"}, Started("a-1", "https://x/")),
        ({"object_prefix": "a-1", "url": None}, Started("a-1", None)),
        ({"object_prefix": "a-1"}, Started("a-1", None)),
        ({"url": "https://x/", "object_prefix": 5}, Started(None, "https://x/")),
        ({"url": "", "object_prefix": "a-1"}, Started("a-1", None)),
    ],
)
def test_what_braze_answers(answer: Any, started: Started) -> None:
    assert read_started(json.dumps(answer).encode(), EXPORT_SEGMENT) == started


@pytest.mark.parametrize("body", [b"{}", b'{"url": null}', b'{"object_prefix": ""}', b"[]", b"<"])
def test_an_answer_that_says_nothing(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        read_started(body, EXPORT_SEGMENT)
    assert caught.value.raw == body


def test_two_ways_to_go_about_a_running_export() -> None:
    check_if_running("raise")
    check_if_running("wait")
    with pytest.raises(InputError, match="if_running"):
        check_if_running("skip")


# --- trying again


def test_it_is_raised_at_once() -> None:
    async def main() -> None:
        starter = Starter([ExportInProgressError("busy", status=429)])
        # Also with pauses that no clock can tell from none.
        with pytest.raises(ExportInProgressError, match="busy") as caught:
            await start_when_free(starter, "raise", Polling(base=1e-300))
        assert (len(starter.tries), caught.value.attempts) == (1, 1)

    virtual.run(main)


def test_it_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "braze_export")

    async def main() -> None:
        starter = Starter([ExportInProgressError("busy", status=429) for _ in range(12)])
        assert isinstance(await start_when_free(starter, "wait", Polling()), Job)
        pauses = [b - a for a, b in zip(starter.tries, starter.tries[1:], strict=False)]
        for number, pause in enumerate(pauses):
            straight = min(60.0, 1.5**number)
            assert 0.8 * straight - 1e-3 <= pause <= 1.2 * straight + 1e-3

    virtual.run(main)
    assert len(caplog.records) == 12


def test_it_is_given_up_when_a_link_would_have_run_out() -> None:
    async def main() -> None:
        errors: list[BaseException] = [ExportInProgressError("busy") for _ in range(1000)]
        starter, began = Starter(errors), now()
        with pytest.raises(ExportInProgressError) as caught:
            await start_when_free(starter, "wait", Polling(lifetime=HOUR))
        assert HOUR - 73 < now() - began <= HOUR
        assert caught.value.attempts == len(starter.tries)

    virtual.run(main)


def test_braze_may_say_when_to_come_again() -> None:
    async def main() -> None:
        busy = ExportInProgressError("busy")
        busy.retry_after = 100.0
        starter, began = Starter([busy]), now()
        await start_when_free(starter, "wait", Polling())
        assert now() - began == pytest.approx(100, abs=1e-3)
        busy.retry_after = 1e9
        with pytest.raises(ExportInProgressError):
            await start_when_free(Starter([busy]), "wait", Polling())

    virtual.run(main)


@pytest.mark.parametrize("error", [APIError("no", status=400), ConnectError("no"), KeyError("no")])
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    async def main() -> None:
        starter = Starter([error])
        with pytest.raises(type(error)):
            await start_when_free(starter, "wait", Polling())
        assert len(starter.tries) == 1

    virtual.run(main)


# --- keeping count


def test_no_more_than_braze_runs() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running)
        one_more = Starter()
        with pytest.raises(ExportInProgressError, match="100 exports of this client") as caught:
            await running.start(one_more)
        assert 'if_running="wait"' in str(caught.value)
        assert one_more.tries == []
        assert [job.asked for job in jobs] == [1] * MOST_RUNNING
        running.discard(lambda job: job is jobs[0])
        await running.start(one_more)

    virtual.run(main)


def test_nobody_is_asked_while_there_is_room() -> None:
    async def main() -> None:
        running = Running(HOUR)
        assert not any(job.asked for job in await full(running))

    virtual.run(main)


def test_jobs_that_have_ended_make_room() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running)
        jobs[3].over = True
        await running.start(Starter())
        assert [job.asked for job in jobs] == [1] * 4 + [0] * 96
        with pytest.raises(ExportInProgressError):
            await running.start(Starter())

    virtual.run(main)


def test_jobs_are_over_after_their_lifetime() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running)
        await asyncio.sleep(HOUR + 1)
        await running.start(Starter())
        assert not any(job.asked for job in jobs)

    virtual.run(main)


@pytest.mark.parametrize("error", [APIError("no", status=400), ServerError("no"), InputError("no")])
def test_a_job_of_which_nobody_can_tell_breaks_no_start(error: BrazeError) -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running, error=error)
        with pytest.raises(ExportInProgressError):
            await running.start(Starter())
        assert all(job.asked for job in jobs)
        jobs[-1].error, jobs[-1].over = None, True
        await running.start(Starter())

    virtual.run(main)


def test_without_a_network_not_all_jobs_are_asked() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running, error=ConnectError("no network"), takes=10.0)
        with pytest.raises(ExportInProgressError):
            await running.start(Starter())
        assert sum(job.asked for job in jobs) == 1

    virtual.run(main)


def test_starts_at_the_same_time_count() -> None:
    async def main() -> None:
        running = Running(HOUR)
        starter = Starter(takes=5.0)
        starts = [asyncio.create_task(running.start(starter)) for _ in range(150)]
        done = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(isinstance(one, Job) for one in done) == MOST_RUNNING
        assert sum(isinstance(one, ExportInProgressError) for one in done) == 50
        assert len(starter.tries) == MOST_RUNNING

    virtual.run(main)


def test_starts_at_the_same_time_at_the_cap() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running, takes=1.0)
        for job in jobs[:3]:
            job.over = True
        starter = Starter(takes=5.0)
        done = await asyncio.gather(
            *(running.start(starter) for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(one, Job) for one in done) == 3
        assert len(starter.tries) == 3

    virtual.run(main)


def test_a_job_discarded_while_it_is_asked() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running, takes=1.0)
        jobs[0].over = True
        begun = asyncio.create_task(running.start(Starter()))
        await asyncio.sleep(0.5)
        running.discard(lambda job: job is jobs[0])
        assert isinstance(await begun, Job)
        with pytest.raises(ExportInProgressError):
            await running.start(Starter())

    virtual.run(main)


@pytest.mark.parametrize("error", [APIError("no"), ConnectError("no"), asyncio.CancelledError()])
def test_a_failed_start_frees_its_place(error: BaseException) -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running)
        running.discard(lambda job: job is jobs[0])
        with pytest.raises(type(error)):
            await running.start(Starter([error]))
        await running.start(Starter())

    virtual.run(main)


def test_a_start_waits_for_a_place() -> None:
    async def main() -> None:
        running = Running(HOUR)
        jobs = await full(running)
        starter = Starter()
        begun = asyncio.create_task(
            start_when_free(lambda: running.start(starter), "wait", Polling())
        )
        await asyncio.sleep(100)
        jobs[50].over = True
        await begun
        assert len(starter.tries) == 1

    virtual.run(main)
