"""The works, as values, and how long the perfect scheduler would take for each."""

from collections.abc import Callable
from typing import Final

from attrs import frozen

from benchmarks.peers.server import Manner, Trouble

ASKED: Final = 10_000
BATCHES: Final = ASKED // 50
OPEN: Final = (100_000_000, 3600)
#: What a caller takes for the limit where the work has none: the documented one.
DOCUMENTED: Final = (2500, 60)


@frozen
class Work:
    """Something that every side is to do.

    Attributes:
        name: says what it is, in the head of its table.
        limit: requests per window, and the seconds of a window; ``None``: none.
        trouble: what goes wrong.
        unknown: identifiers that are nobody's, one in ten; otherwise none.
        rounds: how often each side does it; the run of median time counts.
        apart: seconds between the starts of two sides that work at the same time, because both
            mostly wait; ``None``: one after the other.
        patience: seconds after which a side is ended.
        hurried: whether this library is also tried with a shorter timeout.
    """

    name: str
    limit: tuple[int, int] | None = None
    trouble: Trouble = "none"
    unknown: bool = False
    rounds: int = 1
    apart: float | None = None
    patience: float = 60.0
    hurried: bool = False

    @property
    def manner(self) -> Manner:
        """How the server is to behave."""
        return Manner(*(self.limit or OPEN), self.trouble)

    @property
    def asked(self) -> tuple[int, int]:
        """How many identifiers there are, and how many of them are nobody's."""
        return ASKED, ASKED // 10 if self.unknown else 0

    @property
    def last(self) -> int:
        """How many requests the perfect scheduler is left with when the last window begins."""
        return BATCHES if self.limit is None else (BATCHES - 1) % self.limit[0] + 1

    def perfect(self, began: float, service: Callable[[int], float]) -> float:
        """Return the perfect scheduler's seconds, for a start ``began`` seconds into a window.

        It sends what a window holds the moment that it begins, and asks nothing twice.

        Args:
            began: seconds that the first window was old.
            service: the seconds that so many requests take without any limit.
        """
        windows = 0 if self.limit is None else (BATCHES - 1) // self.limit[0]
        waited = windows * self.limit[1] - began if self.limit and windows else 0.0
        return waited + service(self.last)


WORKS: Final = [
    Work("No limit", rounds=3),
    Work("One in ten unknown", unknown=True),
    Work("A 500 for one request in 50", trouble="errors"),
    Work("50 requests per 3 s", (50, 3)),
    Work("25 requests per second: a 429 that resets within 1 s", (25, 1)),
    Work("100 requests per 30 s: a 429 that resets in 30 s", (100, 30), apart=5.0),
    Work("One request is never answered", trouble="hang", apart=6.0, patience=75.0, hurried=True),
]
