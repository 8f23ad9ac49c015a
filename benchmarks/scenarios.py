"""Scenarios of rate limits, what came of them, and what a perfect scheduler makes of them.

It knows everything. Of N requests it sends what the first window has left at once, and what each
later window holds the moment it turns. With ``events`` the moments at which requests become
available, and how many, it is done at

    moment of the first event by which N requests were available
    + time that the requests sent from then on take without any limit

For what others have left nobody can know before a first answer.
"""

from collections.abc import Callable, Iterator
from itertools import count

from attrs import frozen

from benchmarks.chart import Bar
from benchmarks.limited import Report, Setting
from benchmarks.table import Row
from braze_export import Limits
from braze_export.limiting.governor import LocalLimiter
from braze_export.limiting.limits import Limiter


@frozen
class Scenario:
    """One row of the table.

    Attributes:
        name: says what happens.
        setting: of the server.
        multiple: requests, in limits.
        phase: share of the window that is over at the start.
        used: share of the window that others have used by then.
        change: seconds after the start, and the share of the limit that it changes to.
        slowest: times the perfect scheduler's time.
        refusals: share of the requests that may be refused; requests, where above one.
        limiter: made of the limits set.
    """

    name: str
    setting: Setting
    multiple: float = 4
    phase: float = 0.0
    used: float = 0.0
    change: tuple[float, float] | None = None
    slowest: float | None = 1.05
    refusals: float = 0.0
    limiter: Callable[[Limits], Limiter] = LocalLimiter

    @property
    def requests(self) -> int:
        """How many requests are to be made."""
        return int(self.multiple * self.setting.limit)


@frozen
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    seconds: float
    perfect: float
    report: Report

    @property
    def ratio(self) -> float:
        """Time against the perfect scheduler's."""
        return self.seconds / self.perfect

    def rows(self) -> list[Row]:
        """Return the figures, with their bounds."""
        scenario, setting = self.scenario, self.scenario.setting
        label = f"{scenario.name}, {scenario.requests} requests, {setting.limit}/{setting.period} s"
        allowed = scenario.refusals
        allowed = allowed if allowed >= 1 else allowed * scenario.requests
        bound = None if scenario.slowest is None else allowed
        rows = [
            Row(f"{label}: refused", self.report.refused, bound, "answers"),
            Row(f"{label}: {self.seconds:.2f} s of {self.perfect:.2f}", self.ratio,
                scenario.slowest, "times"),
        ]  # fmt: skip
        if not setting.headers:
            busiest = self.report.busiest(setting.period)
            rows.append(Row(f"{label}: busiest window", busiest, setting.limit, "requests"))
        return rows

    def bar(self) -> Bar:
        """Return it for the chart."""
        scenario, setting = self.scenario, self.scenario.setting
        return Bar(
            f"{scenario.name}, {scenario.requests} at {setting.limit}/{setting.period} s",
            self.ratio,
            self.report.refused,
            scenario.requests,
            scenario.slowest,
            all(row.kept for row in self.rows()),
        )


def perfect(
    events: Iterator[tuple[float, int]], requests: int, service: Callable[[int], float]
) -> float:
    """Return the perfect scheduler's time."""
    available = 0
    for moment, more in events:
        if available + more >= requests:
            return moment + service(requests - available)
        available += more
    raise AssertionError("the windows never end")


def windows(scenario: Scenario, began: float, report: Report) -> Iterator[tuple[float, int]]:
    """Yield when requests become available after the start, and how many."""
    setting = scenario.setting
    limit, at = setting.limit, began
    number = int(began // setting.period)
    taken = int(limit * scenario.used)
    for window in count(number):
        turn = (window + 1) * setting.period
        yield at - began, max(0, limit - taken - report.others.get(window, 0))
        if scenario.change and at <= began + scenario.change[0] < turn:
            changed = int(setting.limit * scenario.change[1])
            if changed > limit:
                yield scenario.change[0], changed - limit
            limit = changed
        at, taken = turn, 0
