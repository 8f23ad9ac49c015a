"""What tests of look-ups share: a Braze in memory, a limiter that grants on command."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from attrs import Factory, define

from braze_export import (
    BrazeClient,
    ClientClosedError,
    Limits,
    LookupSettings,
    RetryPolicy,
    UserAlias,
)
from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.limiting.limits import Lane, PoolSnapshot
from braze_export.wire import Download, Request, Response, Streamed
from tests import virtual

T = TypeVar("T")

#: Tries without much waiting, and few of them.
QUICK = RetryPolicy(max_attempts=3, max_refusals=3, base=0.01, cap=0.01)
LATENCY = 0.1  # seconds, of the clock that jumps


def alias(n: int) -> UserAlias:
    return UserAlias(f"a{n}", "crm")


def profile(n: int | str) -> dict[str, Any]:
    """A user; ``u5`` is the fifth."""
    return {
        "external_id": f"u{n}",
        "user_aliases": [{"alias_name": f"a{n}", "alias_label": "crm"}],
        "braze_id": f"b{n}",
        "email": f"u{n}@users.example",
        "first_name": f"Ann {n}",
    }


def ok(users: list[Any], invalid: list[Any] | None = None, **more: Any) -> Response:
    body = {"message": "success", "users": users, **more}
    return Response(
        200, {}, json.dumps(body | ({"invalid_user_ids": invalid} if invalid else {})).encode()
    )


def names_in(body: Mapping[str, Any]) -> list[str]:
    """The identifiers of a request, an alias by its name."""
    kinds = ("braze_id", "device_id", "email_address", "phone")
    return [
        *body.get("external_ids", ()),
        *(a["alias_name"] for a in body.get("user_aliases", ())),
        *(body[kind] for kind in kinds if kind in body),
    ]


def answer(body: Mapping[str, Any]) -> Response:
    """Answer as Braze does: ``no…`` are unknown, ``bad…`` refused, ``gone…`` passed over."""
    names = names_in(body)
    if any(name.startswith("bad") for name in names):
        return Response(400, {}, b'{"message":"Bad request"}')
    wanted = body.get("fields_to_export")
    known = [name for name in names if not name.startswith(("no", "gone"))]
    users = [profile(name[1:].partition("@")[0]) for name in reversed(known)]
    told = [{k: v for k, v in user.items() if wanted is None or k in wanted} for user in users]
    return ok(told, [name for name in names if name.startswith("no")])


@define(eq=False)
class Braze:
    """A transport to a Braze in memory.

    Attributes:
        reply: what it answers; raises what is an error.
        latency: seconds until it does.
        bodies: of all requests.
        times: when they came.
        under_way: how many are not answered yet.
    """

    reply: Callable[[Mapping[str, Any]], Response | Exception] = answer
    latency: float = LATENCY
    bodies: list[Any] = Factory(list)
    times: list[float] = Factory(list)
    under_way: int = 0

    async def send(self, request: Request) -> Response:
        body = json.loads(request.body or b"{}")
        self.bodies.append(body)
        self.times.append(asyncio.get_running_loop().time())
        self.under_way += 1
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.under_way -= 1
        given = self.reply(body)
        if isinstance(given, Exception):
            raise given
        return given

    def stream(self, download: Download) -> AbstractAsyncContextManager[Streamed]:
        raise AssertionError("nothing is downloaded here")

    async def aclose(self) -> None:
        """Nothing to close."""

    @property
    def asked(self) -> list[list[str]]:
        """The identifiers of each request."""
        return [names_in(body) for body in self.bodies]


def first(*given: Response | Exception) -> Callable[[Mapping[str, Any]], Response | Exception]:
    """Answer with these first, then as Braze does."""
    rest = deque(given)
    return lambda body: rest.popleft() if rest else answer(body)


@define(eq=False)
class _Permit:
    gates: "Gates"
    used: bool = False

    def answered(self, window: RateWindow, *, refused: bool = False) -> None:
        self.unanswered(sent=True)

    def unanswered(self, *, sent: bool) -> None:
        assert not self.used, "a permit is used once"
        self.used = True
        self.gates.in_flight -= 1


@define(eq=False)
class Gates:
    """A limiter that grants on command.

    Attributes:
        shut: whether requests wait for ``grant``.
        known: what the snapshot says of every pool.
        in_flight: requests granted and not yet answered.
        granted: those let through so far, with their pool and lane.
    """

    limits: Limits = Factory(Limits)
    shut: bool = False
    known: PoolSnapshot | None = None
    in_flight: int = 0
    granted: list[tuple[Pool, Lane]] = Factory(list)
    waiting: "deque[asyncio.Future[None]]" = Factory(deque)

    async def start(self) -> None:
        """Nothing to begin."""

    async def acquire(self, pool: Pool, lane: Lane) -> _Permit:
        if self.shut:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            finally:
                if turn in self.waiting:
                    self.waiting.remove(turn)
        self.in_flight += 1
        self.granted.append((pool, lane))
        return _Permit(self)

    def grant(self, count: int = 1) -> None:
        for _ in range(count):
            turn = self.waiting.popleft()
            if not turn.done():  # else cancelled in this turn of the loop
                turn.set_result(None)

    def open(self) -> None:
        self.shut = False
        self.grant(len(self.waiting))

    def snapshot(self) -> dict[Pool, PoolSnapshot]:
        return dict.fromkeys(self.limits.by_pool(), self.known) if self.known else {}

    async def aclose(self) -> None:
        """Nothing to close."""


def known(*, remaining: int, resets_in: float | None, limit: int = 100) -> PoolSnapshot:
    """How a pool stands."""
    return PoolSnapshot(limit, remaining, resets_in, 0, 0, 0, 0, 0.0)


@define(eq=False)
class Stage:
    """A client of a Braze in memory, and what lets its requests through."""

    braze: Braze = Factory(Braze)
    gates: Gates = Factory(Gates)
    lookups: LookupSettings = Factory(LookupSettings)
    retry: RetryPolicy = QUICK
    limits: Limits | None = None  # instead of gates: the limiter of one process
    client: BrazeClient = Factory(
        lambda self: BrazeClient(
            "very-secret-key",
            "https://rest.example",
            transport=self.braze,
            limits=self.limits or self.gates,
            lookups=self.lookups,
            retry=self.retry,
        ),
        takes_self=True,
    )

    async def get(self, identifier: Any, **options: Any) -> Any:
        return await self.client.users.get(identifier, **({"fields": ["email"]} | options))

    def begin(self, identifier: Any, **options: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.get(identifier, **options))

    async def get_all(self, *identifiers: Any, **options: Any) -> list[Any]:
        """Look them up at once; errors are among the answers."""
        calls = (self.get(identifier, **options) for identifier in identifiers)
        return await asyncio.gather(*calls, return_exceptions=True)

    def check_task_count(self, count: int) -> None:
        assert len(self.client._scope._tasks) == count

    def check_nothing_left(self) -> None:
        lookup = self.client.users._lookup
        assert not lookup._sharing.requests
        assert all(not s.asked and s.open is None for s in lookup._shapes.values())
        assert self.gates.in_flight == 0
        assert not self.gates.waiting
        pools = self.client.limits.snapshot().values()
        assert not any(pool.in_flight or pool.waiting for pool in pools)
        assert not self.client._scope._tasks


def run(main: Callable[[Stage], Awaitable[T]], **options: Any) -> T:
    """Play on a clock that jumps; at the end nothing is left behind, and nothing went wrong."""

    async def whole() -> T:
        loop: Any = asyncio.get_running_loop()
        trouble: list[Any] = []  # where nobody awaits what raises: in callbacks
        loop.set_exception_handler(lambda _, what: trouble.append(what))
        stage = Stage(**options)
        result = await main(stage)
        await turns()
        stage.check_nothing_left()
        await stage.client.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(timer.cancelled() for timer in loop._scheduled)
        assert not trouble
        return result

    return virtual.run(whole)


async def turns(count: int = 10) -> None:
    """Let everything run that can without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


async def outcome(call: Awaitable[T]) -> T | BaseException:
    """What a call returns or raises."""
    return (await asyncio.gather(call, return_exceptions=True))[0]


def is_closed(answer: object) -> bool:
    return isinstance(answer, ClientClosedError) and str(answer).startswith("the client is closed")
