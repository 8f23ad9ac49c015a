"""Waiting for an export, on a clock that jumps: hours pass in no time."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from attrs import Factory, define

from braze_export.callbacks import CallbackResult
from braze_export.downloads.links import NotReady
from braze_export.errors import (
    APIError,
    ClientClosedError,
    ConnectError,
    ExportExpiredError,
    ExportNotReadyError,
    RequestTimeoutError,
    ServerError,
)
from braze_export.exporting.waiting import ExportState, states
from braze_export.settings import Polling
from tests import virtual

HOUR = 3600.0
NOT_READY = NotReady(403, "AccessDenied")


@define
class Export:
    """An export that is ready after some seconds; ``errors`` come of the first looks."""

    ready: float = float("inf")
    errors: list[Exception] = Factory(list)
    takes: float = 0.0
    polling: Polling = Factory(Polling)
    callback: Any = None
    looks: list[float] = Factory(list)
    told: list[bool] = Factory(list)
    began: float = Factory(lambda: asyncio.get_running_loop().time())

    def age(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    async def look(self, called: bool) -> NotReady | None:
        self.looks.append(self.age())
        self.told.append(called)
        await asyncio.sleep(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        return None if self.age() >= self.ready else NOT_READY

    def states(self, timeout: float | None = None) -> AsyncGenerator[ExportState, None]:
        return states(
            self.look, self.polling, age=self.age, callback=self.callback, timeout=timeout
        )

    async def wait(self, timeout: float | None = None) -> list[ExportState]:  # noqa: ASYNC109
        async with aclosing(self.states(timeout)) as found:
            return [state async for state in found]


@define
class Callback:
    """Comes after some seconds, with whatever it gives or raises."""

    after: float = float("inf")
    gives: Any = None
    url: str = "https://me.example.com/secret"
    ended: list[str] = Factory(list)

    async def wait(self) -> object:
        try:
            await (asyncio.sleep(self.after) if self.after < HOUR * 24 else asyncio.Event().wait())
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("came")
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives


def run(main: Callable[[], Any]) -> Any:
    """Run on the virtual clock; nothing may be left behind."""

    async def checked() -> Any:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return virtual.run(checked)


# --- polling


def test_one_that_is_ready_at_once() -> None:
    async def main() -> None:
        export = Export(ready=0)
        [state] = await export.wait(timeout=0)
        assert (state.phase, state.looks, state.next_look, state.code) == ("ready", 1, None, None)

    run(main)


def test_every_look_is_told() -> None:
    async def main() -> None:
        export = Export(ready=30)
        found = await export.wait()
        assert [state.phase for state in found] == ["preparing"] * (len(found) - 1) + ["ready"]
        assert [state.looks for state in found] == list(range(1, len(export.looks) + 1))
        assert {state.code for state in found[:-1]} == {"AccessDenied"}
        # The pauses told are the pauses made.
        for state, since, until in zip(found, export.looks, export.looks[1:], strict=False):
            assert state.elapsed == pytest.approx(since, abs=1e-3)
            assert state.next_look == pytest.approx(until - since, abs=1e-3)

    run(main)


def test_pauses_grow_by_half_and_are_capped() -> None:
    async def main() -> None:
        export = Export(ready=HOUR, polling=Polling(base=1.0, cap=60.0))
        await export.wait()
        pauses = [b - a for a, b in zip(export.looks, export.looks[1:], strict=False)]
        for number, pause in enumerate(pauses):
            straight = min(60.0, 1.5**number)
            assert 0.8 * straight - 1e-3 <= pause <= 1.2 * straight + 1e-3
        assert len(set(pauses)) == len(pauses)
        assert len(pauses) < 90

    run(main)


@pytest.mark.parametrize("timeout", [0.0, 1.0, 100.0, 5000.0])
def test_the_timeout_is_exact(timeout: float) -> None:
    async def main() -> None:
        export = Export()
        with pytest.raises(ExportNotReadyError, match=f"within {timeout:g} seconds") as caught:
            await export.wait(timeout)
        assert isinstance(caught.value, TimeoutError)
        # The last look is at the very end, and it is one.
        assert export.age() == pytest.approx(timeout, abs=1e-3)
        assert export.looks[-1] == pytest.approx(timeout, abs=1e-3)
        assert len([look for look in export.looks if look > timeout - 1e-3]) == 1

    run(main)


def test_a_hair_before_the_end_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep

    async def too_short(seconds: float) -> None:
        await sleep(seconds - 1e-4)

    async def main() -> None:
        export = Export(polling=Polling(base=1.0))
        with pytest.raises(ExportNotReadyError):
            await export.wait(timeout=0.5)
        assert len(export.looks) == 2

    monkeypatch.setattr(asyncio, "sleep", too_short)
    run(main)


def test_a_look_under_way_gets_five_seconds_more() -> None:
    async def main() -> None:
        quick = Export(ready=0, takes=4)
        assert [state.phase for state in await quick.wait(timeout=0)] == ["ready"]
        for timeout, ends in ((0, 5), (3, 5), (10, 10)):
            slow = Export(takes=20)
            with pytest.raises(ExportNotReadyError):
                await slow.wait(timeout=timeout)
            assert slow.age() == pytest.approx(ends, abs=1e-3)

    run(main)


def test_waiting_can_be_taken_up_again() -> None:
    async def main() -> None:
        export = Export(ready=100)
        with pytest.raises(ExportNotReadyError):
            await export.wait(timeout=50)
        assert (await export.wait(timeout=60))[-1].phase == "ready"

    run(main)


def test_after_the_lifetime_nothing_comes() -> None:
    async def main() -> None:
        export = Export(polling=Polling(lifetime=HOUR, cap=60))
        with pytest.raises(ExportExpiredError, match="did not become ready") as caught:
            await export.wait()
        assert HOUR < export.age() < HOUR + 73
        assert (caught.value.code, caught.value.status) == ("AccessDenied", 403)
        # One that is ready in the end is ready, however late.
        late = Export(ready=HOUR + 1, polling=Polling(base=HOUR, cap=2 * HOUR, lifetime=HOUR))
        late.began -= HOUR + 2
        assert (await late.wait())[-1].phase == "ready"

    run(main)


# --- errors


def test_errors_in_between_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "braze_export")

    async def main() -> None:
        errors: list[Exception] = [ConnectError("https://secret"), ServerError("busy", status=503)]
        export = Export(ready=20, errors=errors)
        found = await export.wait()
        assert [state.code for state in found[:3]] == [None, None, "AccessDenied"]
        assert found[-1].phase == "ready"

    run(main)
    assert [record.message for record in caplog.records] == [
        "waiting for an export: ConnectError",
        "waiting for an export: ServerError",
    ]


def test_ten_errors_in_a_row_are_too_many() -> None:
    async def main() -> None:
        export = Export(errors=[ConnectError("no network") for _ in range(10)])
        with pytest.raises(ConnectError, match=r"no network \(tried 10 times\)"):
            await export.wait()
        assert len(export.looks) == 10

    run(main)


def test_errors_are_counted_in_a_row_only() -> None:
    async def main() -> None:
        export = Export(polling=Polling(base=1, cap=1))
        script = ([ConnectError("no network")] * 9 + [None]) * 3

        async def look(_: bool) -> NotReady | None:
            if not script:
                return None
            error = script.pop(0)
            if error is not None:
                raise error
            return NOT_READY

        found = [s async for s in states(look, export.polling, age=export.age)]
        assert len(found) == 31

    run(main)


def test_the_timeout_holds_while_looking_fails() -> None:
    async def main() -> None:
        export = Export(errors=[ConnectError("no network") for _ in range(10)])
        with pytest.raises(ExportNotReadyError):
            await export.wait(timeout=5)
        assert export.age() == pytest.approx(5, abs=1e-3)

    run(main)


def test_a_busy_storage_says_when_to_look_again() -> None:
    async def main() -> None:
        busy, for_ever = ServerError("busy", status=503), ServerError("busy", status=503)
        busy.retry_after, for_ever.retry_after = 20.0, 1e9
        export = Export(ready=21, errors=[busy, for_ever], polling=Polling(base=1, cap=30))
        found = await export.wait()
        assert [s.next_look for s in found[:2]] == [20.0, 30.0]

    run(main)


@pytest.mark.parametrize(
    "error", [APIError("refused", status=400), ClientClosedError("closed"), ZeroDivisionError()]
)
def test_other_errors_end_it_at_once(error: Exception) -> None:
    async def main() -> None:
        export = Export(errors=[error], callback=Callback())
        with pytest.raises(type(error)):
            await export.wait()
        assert len(export.looks) == 1

    run(main)


# --- callbacks


def test_a_callback_shortens_the_waiting() -> None:
    async def main() -> None:
        callback = Callback(1000, CallbackResult(success=True))
        export = Export(ready=1000, callback=callback)
        found = await export.wait()
        assert found[-1].elapsed == pytest.approx(1000, abs=1e-3)
        assert export.told == [False] * (len(found) - 1) + [True]

    run(main)


def test_after_a_callback_it_is_looked_at_often_again() -> None:
    async def main() -> None:
        callback = Callback(1000, CallbackResult(success=True))
        export = Export(ready=1005, callback=callback, polling=Polling(base=1, cap=300))
        found = await export.wait()
        assert 1005 <= found[-1].elapsed < 1010
        since = [look - 1000 for look in export.looks if look >= 1000]
        assert since[0] == pytest.approx(0, abs=1e-3)
        assert since[1] < 1.3

    run(main)


def test_a_callback_that_came_before() -> None:
    async def main() -> None:
        callback = Callback(0, CallbackResult(success=True))
        export = Export(ready=0.5, callback=callback)
        await export.wait()
        assert export.told[:2] == [False, True]
        assert export.looks[1] < 0.01

    run(main)


def test_a_callback_that_never_comes() -> None:
    async def main() -> None:
        callback = Callback()
        export = Export(ready=500, callback=callback)
        assert (await export.wait())[-1].elapsed < 700
        assert not any(export.told)
        assert callback.ended == ["cancelled"]

    run(main)


def test_without_any_word_of_success_it_is_one() -> None:
    async def main() -> None:
        export = Export(ready=10, callback=Callback(10, gives="whatever"))
        await export.wait()
        assert export.told[-1]

    run(main)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ClientClosedError("https://secret"), "ClientClosedError"),
        (RequestTimeoutError("https://secret"), "RequestTimeoutError"),
        (ZeroDivisionError("https://secret"), "ZeroDivisionError"),
        (asyncio.CancelledError("https://secret"), "cancelled"),
    ],
)
def test_when_a_callback_fails_polling_goes_on(
    error: BaseException, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        export = Export(ready=500, callback=Callback(50, error))
        assert (await export.wait())[-1].phase == "ready"
        assert not any(export.told)

    run(main)
    [said] = [record.message for record in caplog.records]
    assert said == f"waiting for an export: no callback ({name}), so it is polled"


def test_braze_says_that_it_failed() -> None:
    async def main() -> None:
        export = Export(callback=Callback(100, CallbackResult(success=False)))
        with pytest.raises(ExportExpiredError, match="Braze says that the export failed"):
            await export.wait()
        assert export.age() == pytest.approx(100, abs=1e-3)
        assert not any(export.told)  # what is there is not said to be whole

    run(main)


def test_what_is_there_counts_more_than_what_is_said() -> None:
    async def main() -> None:
        export = Export(ready=100, callback=Callback(100, CallbackResult(success=False)))
        assert (await export.wait())[-1].phase == "ready"

    run(main)


def test_a_callback_within_the_last_pause() -> None:
    async def main() -> None:
        callback = Callback(9, CallbackResult(success=True))
        export = Export(ready=9.5, callback=callback, polling=Polling(base=8, cap=8))
        # Looks at about 8, at 9, and at 10, when the timeout is over.
        assert (await export.wait(timeout=10))[-1].elapsed == pytest.approx(10, abs=1e-3)

    run(main)


# --- left early


def test_leaving_early_leaves_nothing_behind() -> None:
    async def main() -> None:
        callback = Callback()
        async with aclosing(Export(callback=callback).states()) as found:
            async for _ in found:
                break
            await asyncio.sleep(0)
        assert callback.ended in ([], ["cancelled"])
        never_begun = Export(callback=Callback()).states()
        await never_begun.aclose()

    run(main)


def test_being_cancelled_leaves_nothing_behind() -> None:
    async def main() -> None:
        callback = Callback()
        task = asyncio.create_task(Export(callback=callback).wait())
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert callback.ended == ["cancelled"]

    run(main)
