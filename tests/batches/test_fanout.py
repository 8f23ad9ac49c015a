import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import ClientClosedError
from braze_export.batches.fanout import fan_out
from braze_export.tasks import TaskScope
from tests import virtual


class Source:
    """Units 0, 1, 2, ... that knows how far it was read, and whether it was closed."""

    def __init__(self, count: int, pause: float = 0.0, fail_at: int | None = None) -> None:
        self.count, self.pause, self.fail_at = count, pause, fail_at
        self.read = 0
        self.closed = False

    async def units(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                if self.pause:
                    await asyncio.sleep(self.pause)
                if number == self.fail_at:
                    raise LookupError(number)
                self.read += 1
                yield number
        finally:
            self.closed = True


def fan(source: Source, work: Any, scope: TaskScope, **options: Any) -> AsyncGenerator[Any, None]:
    defaults: dict[str, Any] = {"concurrency": 4, "ordered": False, "stopped": lambda: False}
    return fan_out(source.units(), work, scope=scope, **(defaults | options))


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


@given(
    delays=st.lists(st.floats(0, 10), max_size=30),
    concurrency=st.integers(1, 8),
    ordered=st.booleans(),
)
def test_every_unit_is_worked_on_once_and_never_too_many_at_once(
    delays: list[float], concurrency: int, ordered: bool
) -> None:
    async def main() -> None:
        source = Source(len(delays))
        busy = most = 0

        async def work(number: int) -> int:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(delays[number])
            busy -= 1
            return number

        results = [
            r
            async for r in fan(source, work, TaskScope(), concurrency=concurrency, ordered=ordered)
        ]
        assert sorted(results) == list(range(len(delays)))
        assert not ordered or results == sorted(results)
        assert most <= concurrency
        assert source.closed

    virtual.run(main)


def test_results_come_as_they_complete() -> None:
    async def main() -> list[int]:
        async def work(number: int) -> int:
            await asyncio.sleep(10 - number)
            return number

        return [r async for r in fan(Source(4), work, TaskScope())]

    assert virtual.run(main) == [3, 2, 1, 0]


def test_a_slow_source_does_not_hold_back_results_that_are_there() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        return [loop.time() - began async for _ in fan(Source(3, pause=60), double, TaskScope())]

    assert virtual.run(main) == [pytest.approx(60), pytest.approx(120), pytest.approx(180)]


def test_a_slow_consumer_slows_the_reading_down() -> None:
    async def main() -> None:
        source = Source(1000)
        async with aclosing(fan(source, double, TaskScope(), concurrency=3)) as results:
            taken = 0
            async for _ in results:
                taken += 1
                await asyncio.sleep(100)
                assert source.read <= taken + 4
                if taken == 20:
                    break

    virtual.run(main)


@pytest.mark.parametrize("ordered", [False, True])
def test_leaving_early_ends_the_work_and_closes_the_source(ordered: bool) -> None:
    async def main() -> None:
        source = Source(1000, pause=0.1)
        scope = TaskScope()
        begun = ended = 0

        async def work(number: int) -> int:
            nonlocal begun, ended
            begun += 1
            try:
                await asyncio.sleep(1 if number == 0 else 3600)
            finally:
                ended += 1
            return number

        async with aclosing(fan(source, work, scope, ordered=ordered)) as results:
            async for _ in results:
                await asyncio.sleep(1)
                break
        assert source.closed
        assert ended == begun == 4
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


def test_a_loop_left_without_closing_is_cleaned_up_all_the_same() -> None:
    async def main() -> None:
        source = Source(1000)
        async for _ in fan(source, double, TaskScope()):
            break
        await asyncio.sleep(1)
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


def test_cancelling_the_consumer_ends_everything() -> None:
    async def main() -> None:
        source = Source(1000)

        async def work(number: int) -> int:
            await asyncio.sleep(3600)
            return number

        async def consume() -> None:
            async for _ in fan(source, work, TaskScope()):
                raise AssertionError

        task = asyncio.create_task(consume())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


@pytest.mark.parametrize("ordered", [False, True])
def test_what_was_done_before_an_error_is_yielded_before_it_is_raised(ordered: bool) -> None:
    async def main() -> None:
        async def work(number: int) -> int:
            await asyncio.sleep({0: 1, 1: 5, 2: 2, 3: 1}.get(number, 3600))
            if number == 1:
                raise KeyError(number)
            return number

        seen: list[int] = []
        with pytest.raises(KeyError):
            async for result in fan(Source(100), work, TaskScope(), ordered=ordered):
                await asyncio.sleep(7)  # all but the sleepers end while the first is consumed
                seen.append(result)
        assert sorted(seen) == [0, 2, 3]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


def test_an_error_of_the_source_is_raised_after_what_was_done() -> None:
    async def main() -> None:
        seen: list[int] = []
        with pytest.raises(LookupError):
            async for result in fan(Source(10, fail_at=3), double, TaskScope()):
                seen.append(result)
                await asyncio.sleep(1)
        assert sorted(seen) == [0, 2, 4]

    virtual.run(main)


def test_once_stopped_no_further_unit_is_read() -> None:
    async def main() -> None:
        source = Source(1000)
        seen: list[int] = []
        stop = False
        results = fan(source, double, TaskScope(), concurrency=2, stopped=lambda: stop)
        async for result in results:
            seen.append(result)
            stop = len(seen) >= 5
            await asyncio.sleep(1)
        assert source.read <= 9
        assert len(seen) <= 9
        assert source.closed

    virtual.run(main)


def test_closing_the_scope_fails_the_iteration_with_our_error() -> None:
    async def main() -> None:
        scope = TaskScope()

        async def work(number: int) -> int:
            await asyncio.sleep(3600)
            return number

        async def consume() -> None:
            async for _ in fan(Source(10), work, scope):
                raise AssertionError

        task = asyncio.create_task(consume())
        await asyncio.sleep(1)
        await scope.aclose()
        with pytest.raises(ClientClosedError):
            await task

    virtual.run(main)


def test_closing_the_scope_between_two_results_fails_the_next_one() -> None:
    async def main() -> None:
        scope = TaskScope()
        results = fan(Source(10), double, scope, concurrency=1)
        assert await anext(results) == 0
        await scope.aclose()
        with pytest.raises(ClientClosedError):
            await anext(results)

    virtual.run(main)


def test_a_closed_scope_takes_no_task() -> None:
    async def main() -> None:
        scope = TaskScope()
        await scope.aclose()
        assert scope.closed
        with pytest.raises(ClientClosedError):
            scope.spawn(double(1))

    virtual.run(main)


def test_an_empty_source_yields_nothing() -> None:
    async def main() -> list[int]:
        return [r async for r in fan(Source(0), double, TaskScope())]

    assert virtual.run(main) == []


def test_a_task_cancelled_from_outside_cancels_the_iteration() -> None:
    async def main() -> None:
        async def work(number: int) -> int:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)
            return number

        results: AsyncIterator[Any] = fan(Source(1), work, TaskScope())
        with pytest.raises(asyncio.CancelledError):
            await anext(results)

    virtual.run(main)


def test_stopped_in_order_yields_what_is_done_behind_one_that_is_not() -> None:
    async def main() -> list[int]:
        async def work(number: int) -> int:
            await asyncio.sleep(3600 if number == 1 else 1)
            return number

        stop = False
        seen: list[int] = []
        results = fan(Source(100), work, TaskScope(), ordered=True, stopped=lambda: stop)
        async for result in results:
            seen.append(result)
            stop = True
            await asyncio.sleep(10)
        return seen

    assert virtual.run(main) == [0, 2, 3]


def test_a_source_that_fails_does_not_end_the_work_under_way() -> None:
    async def main() -> list[int]:
        async def work(number: int) -> int:
            await asyncio.sleep(100)
            return number

        seen: list[int] = []
        with pytest.raises(LookupError):
            async for result in fan(Source(10, fail_at=3), work, TaskScope()):
                seen.append(result)  # noqa: PERF401 - kept when the iteration raises
        return seen

    assert sorted(virtual.run(main)) == [0, 1, 2]


def test_the_source_is_read_and_closed_in_one_task() -> None:
    tasks = set()

    async def units() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                tasks.add(asyncio.current_task())
                await asyncio.sleep(0)
                yield number
        finally:
            tasks.add(asyncio.current_task())

    async def main() -> None:
        options: dict[str, Any] = {"concurrency": 2, "ordered": False, "stopped": lambda: False}
        async with aclosing(fan_out(units(), double, scope=TaskScope(), **options)) as results:
            async for result in results:
                if result == 10:
                    break

    virtual.run(main)
    assert len(tasks) == 1


def test_a_timeout_in_the_source_fires() -> None:
    async def units() -> AsyncGenerator[int, None]:
        async with asyncio.timeout(5):
            yield 1
            await asyncio.sleep(3600)

    async def main() -> None:
        options: dict[str, Any] = {"concurrency": 2, "ordered": False, "stopped": lambda: False}
        with pytest.raises(TimeoutError):
            async for _ in fan_out(units(), double, scope=TaskScope(), **options):
                pass

    virtual.run(main)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="from Python 3.12 on")
@pytest.mark.parametrize("ordered", [False, True])
def test_eager_tasks_do_as_well(ordered: bool) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]

        async def at_once(number: int) -> int:
            return number

        return [r async for r in fan(Source(50), at_once, TaskScope(), ordered=ordered)]

    assert sorted(virtual.run(main)) == list(range(50))


def test_a_scope_within_a_scope_ends_with_it() -> None:
    async def main() -> None:
        outer = TaskScope()
        inner = TaskScope("export", outer)
        task = inner.spawn(asyncio.sleep(3600))
        await outer.aclose()
        assert task.cancelled()
        assert inner.closed
        with pytest.raises(ClientClosedError, match="client"):
            inner.check_open()

    virtual.run(main)


def test_a_scope_within_leaves_the_one_around_it_open() -> None:
    async def main() -> None:
        outer = TaskScope()
        inner = TaskScope("export", outer)
        other = outer.spawn(asyncio.sleep(1, "done"))
        await inner.aclose()
        with pytest.raises(ClientClosedError, match="export"):
            inner.check_open()
        assert await other == "done"

    virtual.run(main)


def test_what_runs_in_a_scope_ends_with_our_error_when_it_is_closed() -> None:
    async def main() -> None:
        scope = TaskScope()
        caller = asyncio.create_task(scope.run(asyncio.sleep(3600)))
        await asyncio.sleep(1)
        await scope.aclose()
        with pytest.raises(ClientClosedError):
            await caller
        with pytest.raises(ClientClosedError):
            await scope.run(asyncio.sleep(1))

    virtual.run(main)


def test_cancelling_who_waits_cancels_what_runs_in_the_scope() -> None:
    async def main() -> None:
        scope = TaskScope()
        caller = asyncio.create_task(scope.run(asyncio.sleep(3600)))
        await asyncio.sleep(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


def test_a_task_of_the_scope_may_close_it() -> None:
    async def main() -> None:
        scope = TaskScope()

        async def close() -> str:
            await scope.aclose()
            return "closed"

        assert await scope.spawn(close()) == "closed"

    virtual.run(main)
