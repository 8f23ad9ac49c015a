"""Single look-ups that share requests: which leave together, and when."""

import asyncio
import sys
from itertools import pairwise
from typing import Any

import pytest

from braze_export import (
    BrazeClient,
    BrazeId,
    DeviceId,
    EmailAddress,
    InputError,
    Limits,
    LookupSettings,
    PhoneNumber,
    UserAlias,
    deadline,
)
from tests.lookups.stage import LATENCY, Braze, Gates, Stage, alias, known, run, turns

# --- which leave together


def test_look_ups_at_the_same_time_share_a_request() -> None:
    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "u2", "u3")
        assert [user.email for user in found] == [f"u{n}@users.example" for n in (1, 2, 3)]
        assert stage.braze.asked == [["u1", "u2", "u3"]]
        assert stage.gates.granted == [("ids", "interactive")]

    run(main)


@pytest.mark.parametrize(("count", "sizes"), [(50, [50]), (51, [50, 1]), (120, [50, 50, 20])])
def test_a_request_holds_fifty(count: int, sizes: list[int]) -> None:
    async def main(stage: Stage) -> None:
        found = await stage.get_all(*(f"u{n}" for n in range(count)))
        assert [user.email for user in found] == [f"u{n}@users.example" for n in range(count)]
        assert [len(asked) for asked in stage.braze.asked] == sizes

    run(main)


def test_the_order_of_fields_does_not_matter_and_other_fields_go_apart() -> None:
    async def main(stage: Stage) -> None:
        await asyncio.gather(
            stage.get("u1", fields=["email", "first_name"]),
            stage.get("u2", fields=["first_name", "email"]),
            stage.get("u3", fields=["email"]),
            stage.get("u4", fields=["email", "first_name"]),
            stage.get("u5", fields=None),
        )
        assert stage.braze.asked == [["u1", "u2", "u4"], ["u3"], ["u5"]]
        asked = [body.get("fields_to_export") for body in stage.braze.bodies]
        assert asked == [["email", "first_name", "external_id"], ["email"], None]

    run(main)


def test_fields_decide_which_limit_a_request_counts_against() -> None:
    async def main(stage: Stage) -> None:
        for fields in (["email"], ["email", "campaigns_received"], ["canvases_received"], None):
            await stage.get("u1", fields=fields)
        pools = [pool for pool, _ in stage.gates.granted]
        assert pools == ["ids_fast", "ids", "ids", "ids"]

    run(main, gates=Gates(Limits.new_workspace()))


def test_external_ids_and_aliases_share_a_request_and_every_other_kind_is_alone() -> None:
    singles = [
        BrazeId("b3"),
        DeviceId("d4"),
        EmailAddress("u5@users.example"),
        PhoneNumber("+1555"),
    ]

    async def main(stage: Stage) -> None:
        await stage.get_all("u1", *singles, alias(2), EmailAddress("u6@users.example"), "u7")
        bodies = stage.braze.bodies
        assert max(stage.braze.asked, key=len) == ["u1", "u7", "a2"]
        assert len(bodies) == 6
        lone = [body for body in bodies if "external_ids" not in body]
        assert all(body["fields_to_export"] == ["email"] for body in lone)

    run(main)


def test_a_text_is_not_an_alias_nor_an_address_of_the_same_text() -> None:
    same = "nobody"

    async def main(stage: Stage) -> None:
        ids = [same, UserAlias(same, "crm"), EmailAddress(same), DeviceId(same), BrazeId(same)]
        assert await stage.get_all(*ids) == [None] * 5
        assert len(stage.braze.bodies) == 4

    run(main)


def test_the_same_user_is_asked_for_once_whatever_the_answers_are_put_into() -> None:
    async def main(stage: Stage) -> None:
        kinds: list[Any] = [dict, bytes, dict]
        typed, *others = await asyncio.gather(
            stage.get("u1"), *(stage.get("u1", into=kind) for kind in kinds)
        )
        assert stage.braze.asked == [["u1"]]
        assert typed.email == others[0]["email"] == "u1@users.example"
        assert others[1] == b'{"email": "u1@users.example"}'
        assert others[0] == others[2]
        others[0]["email"] = "mine"
        assert others[2]["email"] == "u1@users.example"

    run(main)


def test_who_asks_while_the_request_is_under_way_waits_for_it() -> None:
    async def main(stage: Stage) -> None:
        one = stage.begin("u1")
        await asyncio.sleep(LATENCY / 2)
        assert stage.braze.under_way == 1
        two = stage.begin("u1", into=dict)
        assert (await one).email == (await two)["email"]
        assert stage.braze.asked == [["u1"]]
        await stage.get("u1")  # nothing is kept
        assert stage.braze.asked == [["u1"], ["u1"]]

    run(main)


# --- when they leave


def test_a_request_goes_on_filling_while_the_limit_makes_it_wait() -> None:
    async def main(stage: Stage) -> None:
        calls = []
        for n in range(30):
            calls.append(stage.begin(f"u{n}"))
            await asyncio.sleep(1)
        assert stage.braze.bodies == []
        assert len(stage.gates.waiting) == 1
        stage.gates.grant()
        await turns()
        calls.append(stage.begin("u99"))  # sealed
        await asyncio.sleep(0.01)
        stage.gates.grant()
        await asyncio.gather(*calls)
        assert stage.braze.asked == [[f"u{n}" for n in range(30)], ["u99"]]

    run(main, gates=Gates(shut=True))


def test_a_full_request_waits_for_its_turn_as_well_and_the_next_one_fills() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(70)]
        await asyncio.sleep(1)
        assert len(stage.gates.waiting) == 2
        calls += [stage.begin(f"u{n}") for n in range(60, 90)]
        await asyncio.sleep(1)
        stage.gates.grant(2)
        await asyncio.gather(*calls)
        assert stage.braze.asked == [
            [f"u{n}" for n in range(50)],
            [f"u{n}" for n in range(50, 90)],
        ]

    run(main, gates=Gates(shut=True))


def test_a_lone_look_up_does_not_linger() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            await stage.get("u1")
        assert [time - began for time in stage.braze.times] == pytest.approx(
            [0, LATENCY, 2 * LATENCY], abs=1e-4
        )

    run(main, lookups=LookupSettings(linger=30.0))


def test_it_lingers_for_others_while_another_is_under_way() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        calls = [stage.begin("u1")]
        for n in (2, 3, 4):
            await asyncio.sleep(0.01)
            calls.append(stage.begin(f"u{n}"))
        await asyncio.gather(*calls)
        assert stage.braze.asked == [["u1"], ["u2", "u3", "u4"]]
        assert stage.braze.times[1] - began == pytest.approx(0.06, abs=1e-3)

    run(main, lookups=LookupSettings(linger=0.05))


def test_lingering_ends_when_the_request_is_full() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        calls = [stage.begin("u0")]
        await asyncio.sleep(0.01)
        calls += [stage.begin(f"u{n}") for n in range(1, 51)]
        await asyncio.gather(*calls)
        assert [len(asked) for asked in stage.braze.asked] == [1, 50]
        assert stage.braze.times[1] - began == pytest.approx(0.01, abs=1e-3)

    run(main, lookups=LookupSettings(linger=30.0))


def test_one_that_goes_alone_does_not_linger_for_others() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        calls = [stage.begin("u1")]
        await asyncio.sleep(0.01)
        calls.append(stage.begin(EmailAddress("u2@users.example")))
        await asyncio.gather(*calls)
        assert stage.braze.times[1] - began == pytest.approx(0.01, abs=1e-3)

    run(main, lookups=LookupSettings(linger=30.0))


def test_without_linger_nobody_waits() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1")]
        await asyncio.sleep(0.01)
        calls.append(stage.begin("u2"))
        await asyncio.sleep(0.01)
        assert stage.braze.asked == [["u1"], ["u2"]]
        await asyncio.gather(*calls)

    run(main, lookups=LookupSettings(linger=0.0))


@pytest.mark.parametrize(
    ("remaining", "resets_in", "gap"),
    [
        (51, 5.1, 0.0),  # more than half is left
        (50, 5.0, 0.1),  # what is left is spread over the rest of the window
        (10, 2.0, 0.2),
        (2, 60.0, 0.25),  # never longer
        (0, 60.0, 0.0),  # the limit itself makes it wait
        (10, None, 0.0),  # over what time it is to be spread is not known
    ],
)
def test_requests_leave_evenly_once_half_of_the_window_is_spent(
    remaining: int, resets_in: float | None, gap: float
) -> None:
    gates = Gates(known=known(remaining=remaining, resets_in=resets_in))

    async def main(stage: Stage) -> None:
        await stage.get_all("u1", "u11")  # the first on an idle client leave at once
        for n in range(2, 6):
            await stage.get_all(f"u{n}", f"u1{n}")
        times = stage.braze.times
        gaps = [b - a for a, b in pairwise(times)]
        assert gaps == pytest.approx([max(gap, 0.001)] * 4, abs=1e-4)

    braze = Braze(latency=0.001)
    run(main, braze=braze, gates=gates, lookups=LookupSettings(linger=0.0))


def test_a_look_up_on_its_own_is_not_held_up_however_little_is_left() -> None:
    async def main(stage: Stage) -> None:
        for n in range(5):
            await stage.get(f"u{n}")
        gaps = [b - a for a, b in pairwise(stage.braze.times)]
        assert gaps == pytest.approx([LATENCY] * 4, abs=1e-4)

    run(main, gates=Gates(known=known(remaining=2, resets_in=60.0)))


def test_whoever_is_in_a_hurry_is_not_held_up_beyond_half_of_his_time() -> None:
    async def main(stage: Stage) -> None:
        await stage.get_all("u0", "u10")
        began = asyncio.get_running_loop().time()
        patient = stage.begin("u1")
        await asyncio.sleep(0.01)
        with deadline(0.25):
            found = await stage.get("u2")
        assert found.email == "u2@users.example"
        assert stage.braze.times[-1] - began == pytest.approx(0.01 + 0.125, abs=0.01)
        await patient

    gates = Gates(known=known(remaining=2, resets_in=60.0))
    run(main, gates=gates, lookups=LookupSettings(pace=10.0))


def test_whoever_is_in_a_hurry_does_not_let_the_request_he_joins_fill_for_long() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        calls = [stage.begin("u1")]
        await asyncio.sleep(0.01)
        calls.append(stage.begin("u2"))
        await asyncio.sleep(0.01)
        with deadline(0.4):
            calls.append(stage.begin("u3"))
        await asyncio.gather(*calls)
        assert stage.braze.asked == [["u1"], ["u2", "u3"]]
        assert stage.braze.times[1] - began == pytest.approx(0.02 + 0.2, abs=1e-3)

    run(main, lookups=LookupSettings(linger=30.0))


def test_whoever_is_in_a_hurry_joins_a_full_request_that_waits_for_the_limit() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(50)]
        await turns()
        assert len(stage.gates.waiting) == 1  # full before its time to fill was over
        with deadline(0.25):
            hurried = stage.begin("u9")
        await turns()
        stage.gates.open()
        assert (await hurried).email == "u9@users.example"
        await asyncio.gather(*calls)
        assert len(stage.braze.bodies) == 1

    run(main, gates=Gates(shut=True), lookups=LookupSettings(linger=1.0))


def test_paced_requests_take_in_all_that_comes_meanwhile_and_leave_when_full() -> None:
    async def main(stage: Stage) -> None:
        began = asyncio.get_running_loop().time()
        calls = [stage.begin("u0")]
        for n in range(1, 5):
            await asyncio.sleep(0.04)
            calls.append(stage.begin(f"u{n}"))
        await asyncio.sleep(0.04)
        assert stage.braze.asked == [["u0"], ["u1", "u2", "u3", "u4"]]
        assert stage.braze.times[1] - began == pytest.approx(0.2, abs=1e-3)
        calls += [stage.begin(f"u{n}") for n in range(100, 150)]
        await asyncio.sleep(0.01)
        assert len(stage.braze.asked[2]) == 50
        await asyncio.gather(*calls)

    run(main, gates=Gates(known=known(remaining=10, resets_in=2.0)))


def test_sets_of_fields_are_not_remembered_without_end() -> None:
    async def main(stage: Stage) -> None:
        for n in range(100):
            assert (await stage.get("u1", fields=["email", f"attribute {n}"])).email
        assert len(stage.client.users._lookup._shapes) == 64
        calls = [stage.begin("u1", fields=[f"other {n}"]) for n in range(100)]
        await turns()
        assert len(stage.client.users._lookup._shapes) == 100  # none that somebody waits for
        await asyncio.gather(*calls)

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are not eager before 3.12")
def test_look_ups_share_requests_where_tasks_are_eager() -> None:
    async def main(stage: Stage) -> None:
        factory: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)
        assert [user.email[:2] for user in await stage.get_all("u1", "u2")] == ["u1", "u2"]
        assert (await stage.get("u3")).email == "u3@users.example"
        assert stage.braze.asked == [["u1", "u2"], ["u3"]]

    run(main)


# --- one event loop


def test_another_event_loop_beside_is_told_so_and_one_after_it_begins_anew() -> None:
    braze = Braze(latency=0.001)
    client = BrazeClient("very-secret-key", "https://rest.example", transport=braze, limits=Gates())

    async def look_up() -> Any:
        return await client.users.get("u1", fields=["email"])

    async def beside() -> None:
        await look_up()
        with pytest.raises(InputError, match="one event loop"):
            await asyncio.to_thread(asyncio.run, look_up())

    async def left_under_way() -> None:
        call = asyncio.create_task(look_up())
        await turns()
        asyncio.get_running_loop().stop()
        await call

    asyncio.run(beside())
    loop = asyncio.new_event_loop()
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(left_under_way())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert asyncio.run(look_up()).email == "u1@users.example"
