"""A local Braze whose limit is a scenario: other users, another clock, a limit that changes.

Run as a process of its own, it takes one line of JSON after the other: ``use`` so many requests,
as others would; ``change`` the limit; ``report`` what was seen; ``forget`` it.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from attrs import Factory, asdict, define, frozen

from benchmarks.scene import obeying, tell
from braze_export.sandbox import Fault, Sandbox
from braze_export.sandbox.windows import Window

_NO_HEADERS = Fault(
    headers={f"x-ratelimit-{name}": None for name in ("limit", "remaining", "reset")}
)


@frozen
class Setting:
    """How the server behaves.

    Attributes:
        limit: requests per window.
        period: seconds.
        skew: seconds that its clock is ahead.
        headers: whether answers tell of the limit.
        others: share of each window that others take, and how: ``burst`` or ``even``.
    """

    limit: int
    period: int
    skew: float = 0.0
    headers: bool = True
    others: float = 0.0
    manner: str = "burst"


@frozen
class Report:
    """What the server saw: times of granted requests on its clock, and the refusals."""

    granted: list[float] = Factory(list)
    refused: int = 0
    others: dict[int, int] = Factory(dict)  # number of the window to requests of others

    def busiest(self, period: float) -> int:
        """Return the most requests that came in any time as long as a window."""
        most = first = 0
        for last, moment in enumerate(self.granted):
            while self.granted[first] <= moment - period:
                first += 1
            most = max(most, last - first + 1)
        return most


@define
class LimitedServer:
    """The process, as seen from outside."""

    setting: Setting
    process: "subprocess.Popen[str]"
    url: str
    api_key: str

    def now(self) -> float:
        """Return the time on the server's clock."""
        return time.time() + self.setting.skew

    def say(self, **command: Any) -> Any:
        """Give a command, and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def report(self) -> Report:
        """Ask what it saw."""
        told = self.say(do="report")
        others = {int(window): count for window, count in told["others"].items()}
        return Report(told["granted"], told["refused"], others)


@contextmanager
def limited(setting: Setting) -> Iterator[LimitedServer]:
    """Start the process."""
    command = [sys.executable, "-m", "benchmarks.limited", json.dumps(asdict(setting))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield LimitedServer(setting, process, said["url"], said["api_key"])
        finally:
            process.stdin.close()
            process.wait(10)


@define
class _Scene:
    """The process, from inside."""

    setting: Setting
    sandbox: Sandbox
    arrivals: list[float] = Factory(list)
    others: Counter[int] = Factory(Counter)

    @classmethod
    def of(cls, setting: Setting) -> Self:
        def clock() -> float:
            return time.time() + setting.skew

        arrivals: list[float] = []

        def seen(_number: int, _path: str) -> Fault | None:
            arrivals.append(clock())
            return None if setting.headers else _NO_HEADERS

        sandbox = Sandbox(
            users=200_000,
            profile="small",
            ids_window=Window(setting.limit, setting.period),
            clock=clock,
            faults=seen,
            log_size=1_000_000,
        )
        return cls(setting, sandbox, arrivals)

    async def run(self) -> None:
        async with self.sandbox as sandbox:
            company = asyncio.create_task(self._company())
            await obeying(sandbox, self._obey)
            company.cancel()

    def _obey(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "use":
                tell(self.sandbox.use_up(command["requests"]))
            case "change":
                self.sandbox.change_limit(Window(command["limit"], self.setting.period))
                tell(None)
            case "forget":
                self.arrivals.clear()
                self.sandbox.log.clear()
                self.others.clear()
                tell(None)
            case "report":
                served = zip(self.arrivals, self.sandbox.log, strict=True)
                granted = [moment for moment, record in served if record.status != 429]
                refused = len(self.arrivals) - len(granted)
                tell({"granted": granted, "refused": refused, "others": self.others})

    async def _company(self) -> None:
        """Take what others take of each window."""
        setting = self.setting
        share = int(setting.limit * setting.others)
        pause = 0.004 if setting.manner == "burst" else setting.period / (share + 1)
        while share:
            window = int(self.sandbox.clock() // setting.period)
            begins = window * setting.period
            for number in range(1, share + 1):
                await asyncio.sleep(begins + number * pause - self.sandbox.clock())
                self.others[window] += self.sandbox.use_up(1)
            await asyncio.sleep(begins + setting.period - self.sandbox.clock())


if __name__ == "__main__":
    asyncio.run(_Scene.of(Setting(**json.loads(sys.argv[1]))).run())
