"""The local Braze with one fault built in, as a process of its own.

It takes one line of JSON after the other: ``begin`` starts the window, the faults and the counts
anew; ``report`` tells what was seen since. Until the first ``begin`` there is no limit, so that it
can be warmed up.
"""

import asyncio
import json
import math
import sys
import time
from typing import Literal, TypeAlias

from attrs import Factory, define, frozen

from benchmarks.peers.counts import Counts
from benchmarks.scene import obeying, tell
from braze_export.sandbox import Fault, Sandbox
from braze_export.sandbox.windows import Window

Trouble: TypeAlias = Literal["none", "errors", "hang"]

USERS = 12_000
#: Seconds before each answer: little for an answer that came over the internet.
LATENCY = 0.02
_ONE_IN = 50  # requests get a 500
_HANGS = 20  # the number of the request that is never answered
_FOR_EVER = 3600.0
_OPEN = Window(10**8, 7200)


@frozen
class Manner:
    """How the server behaves.

    Attributes:
        limit: requests per window.
        period: seconds.
        trouble: what goes wrong.
    """

    limit: int
    period: int
    trouble: Trouble


@define
class _Scene:
    """The process, from inside.

    Attributes:
        began: the second, counted from the epoch, in which the first window begins.
        number: of the request.
    """

    manner: Manner
    began: int = 0
    number: int = 0
    before: Counts = Factory(lambda: Counts(0, 0, 0))
    sandbox: Sandbox = Factory(lambda self: self.made(), takes_self=True)

    def made(self) -> Sandbox:
        """Return the local Braze. Its clock starts when a work does, as its windows then do."""
        return Sandbox(
            users=USERS,
            profile="typical",
            latency=LATENCY,
            ids_window=_OPEN,
            clock=lambda: time.time() - self.began,
            faults=self.fault,
            log_size=0,
        )

    def fault(self, _number: int, _path: str) -> Fault:
        """Return what goes wrong with the next request; its headers show the time as it is."""
        if not self.began:  # it is being warmed up
            return Fault()
        self.number += 1
        if self.manner.trouble == "errors" and self.number % _ONE_IN == 0:
            return Fault(status=500, clock_skew=self.began)
        hangs = self.manner.trouble == "hang" and self.number == _HANGS
        return Fault(delay=_FOR_EVER if hangs else 0.0, clock_skew=self.began)

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with self.sandbox as sandbox:
            await obeying(sandbox, self._obey)

    def _obey(self, command: str) -> None:
        if command == "begin":
            self.before = self._seen()
            self.began, self.number = math.floor(time.time()), 0
            # Another period than before: nothing is used of it.
            self.sandbox.change_limit(Window(self.manner.limit, self.manner.period))
            tell(None)
        else:
            seen, before = self._seen(), self.before
            tell(
                [
                    seen.requests - before.requests,
                    seen.refused - before.refused,
                    seen.connections - before.connections,
                ]
            )

    def _seen(self) -> Counts:
        counters = self.sandbox.counters
        return Counts(counters.requests, counters.rate_limited, self.sandbox.connections_made)


if __name__ == "__main__":
    asyncio.run(_Scene(Manner(**json.loads(sys.argv[1]))).run())
