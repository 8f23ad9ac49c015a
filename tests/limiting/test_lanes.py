import asyncio

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from braze_export.limiting.lanes import Lanes
from braze_export.limiting.limits import Lane
from tests import virtual

LANES: dict[str, Lane] = {"i": "interactive", "b": "bulk"}

#: i, b: somebody joins this lane; a digit: somebody leaves; a dot: the next one's turn.
scripts = st.text("ib" * 3 + "." * 4 + "0123", max_size=80)


@frozen
class Turn:
    """Whose it was, and who waited."""

    lane: str
    waited: str


class Scene:
    """Lanes, and beside them a plain list for each."""

    def __init__(self) -> None:
        self.lanes: Lanes[int] = Lanes()
        self.waiting: dict[str, list[asyncio.Future[int]]] = {"i": [], "b": []}
        self.gone: list[asyncio.Future[int]] = []
        self.turns: list[Turn] = []

    def step(self, step: str) -> None:
        if step in self.waiting:
            self.waiting[step].append(self.lanes.join(LANES[step]))
        elif self.lanes and step == ".":
            self.next()
        elif self.lanes:
            self.leave(int(step))

    def leave(self, which: int) -> None:
        everyone = [(w, queue) for queue in self.waiting.values() for w in queue]
        waiter, queue = everyone[which % len(everyone)]
        waiter.cancel()
        queue.remove(waiter)
        self.gone.append(waiter)

    def next(self) -> None:
        number, waited = len(self.turns), "".join(k for k, v in self.waiting.items() if v)
        self.lanes.next(number)
        (lane,) = (k for k, v in self.waiting.items() if any(w.done() for w in v))
        assert self.waiting[lane].pop(0).result() == number  # first come, first served
        self.turns.append(Turn(lane, waited))

    def check(self) -> None:
        assert len(self.lanes) == sum(map(len, self.waiting.values()))
        for lane, queue in self.waiting.items():
            assert self.lanes.waiting(LANES[lane]) == len(queue)
            assert not any(waiter.done() for waiter in queue)
        assert all(waiter.cancelled() for waiter in self.gone)


def played(script: str) -> list[Turn]:
    async def main() -> list[Turn]:
        scene = Scene()
        for step in script:
            scene.step(step)
            scene.check()
        return scene.turns

    return virtual.run(main)


def order(script: str) -> str:
    return "".join(turn.lane for turn in played(script))


@given(scripts)
def test_turns_are_granted_in_order_and_only_to_those_who_wait(script: str) -> None:
    assert len(played(script)) <= script.count(".")  # the scene checks every step


@given(scripts)
def test_of_four_turns_while_bulk_work_waits_one_is_its_own(script: str) -> None:
    turns = played(script)
    for four in zip(turns, turns[1:], turns[2:], turns[3:], strict=False):
        assert "b" in [turn.lane for turn in four] or not all("b" in t.waited for t in four)


@given(scripts)
def test_bulk_work_goes_before_interactive_calls_only_after_three_of_them(script: str) -> None:
    turns = played(script)
    for number, turn in enumerate(turns):
        if turn.lane == "b" and "i" in turn.waited:
            assert number >= 3
            assert all(t == Turn("i", "ib") for t in turns[number - 3 : number])


@pytest.mark.parametrize(
    ("script", "turns"),
    [
        ("bbb...", "bbb"),
        ("iii...", "iii"),
        ("b" * 2 + "i" * 9 + "." * 11, "iiibiiibiii"),
        ("b" * 4 + "i" * 4 + "." * 8, "iiibibbb"),
        ("bi..", "ib"),
        ("biii....", "iiib"),
        ("biiii.....", "iiibi"),
        ("i.i.i.i.i.biiii.....", "iiiii" + "iiibi"),  # no bulk work waited at first
        ("biib...biiii......", "iib" + "iiibib"),  # its turn came early
        ("biii..2..", "iib"),  # the one whose turn it was left
        ("biiii...1.", "iiii"),  # so did the bulk work whose turn it was
    ],
)
def test_interactive_calls_come_first_but_for_every_fourth_turn(script: str, turns: str) -> None:
    assert order(script) == turns


def test_whoever_is_cancelled_gets_no_turn_even_in_the_same_moment() -> None:
    async def wait(lanes: Lanes[str]) -> str:
        return await lanes.join("bulk")

    async def main() -> tuple[int, str]:
        lanes: Lanes[str] = Lanes()
        first, second, third = [asyncio.create_task(wait(lanes)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()  # neither has had the time to notice
        waiting = len(lanes)
        lanes.next("a turn")
        return waiting, await third

    assert virtual.run(main) == (1, "a turn")
