"""A rate-limited server in virtual time, and work that goes through a limiter to it."""

import asyncio
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from attrs import Factory, define

from braze_export.answers import RateWindow
from braze_export.limiting.limits import Lane, Limiter
from tests import virtual


@define
class Server:
    """Windows fixed on its own clock, which differs from the loop's by ``skew`` seconds."""

    limit: int
    period: int
    skew: float = 0.0
    latency: tuple[float, float] = (0.002, 0.004)  # seconds on the way, there and back again
    headers: bool = True
    dice: random.Random = Factory(lambda: random.Random(7))
    window: int = -1
    used: int = 0
    refused: int = 0
    served: list[float] = Factory(list)  # loop times

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.skew

    def turn(self) -> None:
        window = math.floor(self.now() / self.period)
        if window != self.window:
            self.window, self.used = window, 0

    def take(self, requests: int = 1) -> bool:
        """Count requests, unless there is no room for them."""
        self.turn()
        if self.used + requests > self.limit:
            return False
        self.used += requests
        return True

    async def ask(self) -> tuple[RateWindow, bool]:
        """Serve one request: what the answer says, and whether it was refused."""
        await asyncio.sleep(self.dice.uniform(*self.latency))
        refused = not self.take()
        self.refused += refused
        if not refused:
            self.served.append(asyncio.get_running_loop().time())
        told = RateWindow(clock=math.floor(self.now()), dated=True)
        if self.headers:
            told = RateWindow(
                limit=self.limit,
                remaining=max(0, self.limit - self.used),
                reset=(self.window + 1) * self.period,
                clock=math.floor(self.now()),
                dated=True,
            )
        await asyncio.sleep(self.dice.uniform(*self.latency))
        return told, refused


async def work(
    limiter: Limiter, server: Server, requests: int, *, concurrency: int = 32, lane: Lane = "bulk"
) -> None:
    """Send so many requests, each until it is served."""
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            refused = True
            while refused:
                permit = await limiter.acquire("ids", lane)
                told, refused = await server.ask()
                permit.answered(told, refused=refused)

    await asyncio.gather(*(worker() for _ in range(min(concurrency, requests))))


def perfect(requests: int, server: Server, *, phase: float, used: int = 0) -> float:
    """Return when the last request can leave at best, for a start so late in a window."""
    beyond = requests - (server.limit - used)
    if beyond <= 0:
        return 0.0
    return math.ceil(beyond / server.limit) * server.period - phase


def asking_first(
    requests: int, server: Server, *, concurrency: int, phase: float, used: int = 0, lost: int = 0
) -> float:
    """Return when the last answer is here at best, for a start so late in a window.

    Of one who knows all of the server, but must have a first answer before the second request,
    and for whom every request takes as long as any can.

    Args:
        requests: how many.
        server: the setting.
        concurrency: how many may be under way.
        phase: seconds of the window that are over.
        used: requests of it that others have used.
        lost: requests of each of the first two windows that are not made use of.
    """
    way = server.latency[1]
    taken = Counter({0: used + lost, 1: lost})
    free, last = [0.0], 0.0
    for number in range(requests):
        arrives = heapq.heappop(free) + way
        window = math.floor((arrives + phase) / server.period + 1e-9)
        while taken[window] >= server.limit:
            window += 1
        arrives = max(arrives, window * server.period - phase)
        taken[window] += 1
        last = max(last, arrives + way)
        if number == 0:
            free = [arrives + way] * concurrency
        else:
            heapq.heappush(free, arrives + way)
    return last


async def company(server: Server, share: float, *, at_once: bool) -> None:
    """Take such a share of each window: as it begins, or evenly."""
    each = int(server.limit * share)
    pause = 0.004 if at_once else server.period / (each + 1)
    while True:
        begins = math.floor(server.now() / server.period) * server.period
        for number in range(1, each + 1):
            await asyncio.sleep(max(0.0, begins + number * pause - server.now()))
            server.take()
        await asyncio.sleep(begins + server.period - server.now())


def busiest(times: Sequence[float], period: float) -> int:
    """Return the most of these times that lie within any one period."""
    first = most = 0
    for last, moment in enumerate(times):
        while times[first] <= moment - period:
            first += 1
        most = max(most, last - first + 1)
    return most


def timed(
    server: Server, main: Callable[[], "asyncio.Future[None] | object"], *, phase: float = 0.0
) -> float:
    """Run at a phase of the server's window; return the seconds until all was served."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep((phase - server.now()) % server.period)
        began = loop.time()
        await main()  # type: ignore[misc]
        return loop.time() - began

    return virtual.run(run)
