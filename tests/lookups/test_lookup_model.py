"""Random joins, leaves, grants and answers: each caller gets one right answer, nothing is left."""

import asyncio
import json
from typing import Any

from attrs import Factory, define
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export import BadRequestError, BrazeId, DecodeError, LookupSettings, ServerError
from braze_export.identifiers import Identifier
from braze_export.settings import ProfileCache
from braze_export.wire import Request, Response
from tests.lookups.stage import Braze, Gates, Stage, alias, names_in, run, turns

SHAPES = (["email"], ["first_name", "email"])
TROUBLE = {
    "500": (Response(500, {}, b"{}"), ServerError),
    "garbage": (Response(200, {}, b'{"users": ['), DecodeError),
}


def person(n: int) -> Identifier:
    """Of every ten: one refused, one unknown, one passed over, an alias, one that goes alone."""
    kinds: dict[int, Identifier] = {
        5: alias(n),
        6: BrazeId(f"b{n}"),
        7: f"bad{n}",
        8: f"no{n}",
        9: f"gone{n}",
    }
    return kinds.get(n % 10, f"u{n}")


@define(eq=False)
class Strict(Braze):
    """Looks at what comes: no request is too large, nobody is asked for twice at once."""

    moods: list[str] = Factory(list)
    asked_now: set[tuple[frozenset[str], str]] = Factory(set)

    async def send(self, request: Request) -> Response:
        body = json.loads(request.body or b"{}")
        names = names_in(body)
        assert 1 <= len(names) <= 50
        assert len(set(names)) == len(names)
        shape = frozenset(body["fields_to_export"]) - {"external_id", "user_aliases"}
        asking = {(shape, name) for name in names}
        assert not asking & self.asked_now
        self.asked_now |= asking
        try:
            sound = await super().send(request)
        finally:
            self.asked_now -= asking
        mood = self.moods.pop() if self.moods else "well"
        return TROUBLE[mood][0] if mood in TROUBLE else sound


numbers = st.integers(0, 119)
steps = st.one_of(
    st.tuples(
        st.just("join"), numbers, st.integers(1, 60), st.sampled_from(SHAPES), st.sampled_from("td")
    ),
    st.tuples(st.just("leave"), st.integers(0, 500), st.integers(1, 60)),
    st.tuples(st.just("grant"), st.integers(1, 3)),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.005, 0.03, 0.1, 0.5])),
)
moods = st.lists(st.sampled_from(["well", "well", *TROUBLE]), max_size=12)


@define(eq=False)
class Play:
    """Does the steps, and knows what each caller is to get."""

    stage: Stage
    calls: list[tuple[Identifier, list[str], asyncio.Task[Any]]] = Factory(list)
    gone: set[asyncio.Task[Any]] = Factory(set)

    def join(self, start: int, count: int, fields: list[str], into: str) -> None:
        for n in range(start, start + count):
            options = {"into": dict} if into == "d" else {}
            identifier = person(n % 120)
            call = self.stage.begin(identifier, fields=fields, **options)
            self.calls.append((identifier, fields, call))

    def leave(self, start: int, count: int) -> None:
        for _, _, call in self.calls[start : start + count]:
            if call.cancel():
                self.gone.add(call)

    async def do(self, kind: str, *args: Any) -> None:
        gates = self.stage.gates
        if kind == "grant":
            gates.grant(min(args[0], len(gates.waiting)))
        elif kind == "sleep":
            await asyncio.sleep(args[0])
        else:
            getattr(self, kind)(*args)

    async def end(self, *, troubled: bool) -> None:
        self.stage.gates.open()
        tasks = [call for _, _, call in self.calls]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for (identifier, fields, call), given_ in zip(self.calls, answers, strict=True):
            if call in self.gone and isinstance(given_, asyncio.CancelledError):
                continue
            if troubled and isinstance(given_, ServerError | DecodeError):
                assert given_.identifiers == (identifier,)
                continue
            check(identifier, fields, given_)


def check(identifier: Identifier, fields: list[str], found: Any) -> None:
    """The one right answer."""
    name = identifier if isinstance(identifier, str) else ""
    if name.startswith("bad"):
        assert isinstance(found, BadRequestError)
        assert found.identifiers == (identifier,)
    elif name.startswith(("no", "gone")):
        assert found is None
    else:
        number = "".join(c for c in repr(identifier) if c.isdigit())
        expected = {"email": f"u{number}@users.example", "first_name": f"Ann {number}"}
        told = found if isinstance(found, dict) else {f: getattr(found, f) for f in fields}
        assert told == {f: expected[f] for f in fields}


@settings(deadline=None)  # a story may be long, and the machine slow
@given(
    script=st.lists(steps, max_size=30),
    moods=moods,
    linger=st.sampled_from([0.0, 0.01]),
    kept=st.sampled_from([None, ProfileCache(20, 1.0)]),
)
def test_each_caller_gets_one_right_answer_and_nothing_is_left(
    script: list[Any], moods: list[str], linger: float, kept: ProfileCache | None
) -> None:
    async def main(stage: Stage) -> None:
        for fields in SHAPES:  # from here on it is known that Braze takes them
            await stage.get("u1", fields=fields)
        assert isinstance(stage.braze, Strict)
        stage.braze.moods = list(moods)
        stage.gates.shut = True
        play = Play(stage)
        for step in script:
            await play.do(*step)
        await play.end(troubled=any(mood in TROUBLE for mood in moods))
        await asyncio.sleep(10)
        await turns()

    run(main, braze=Strict(), gates=Gates(), lookups=LookupSettings(linger=linger, cache=kept))
