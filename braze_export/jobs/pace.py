"""How fast something goes of late, and how long it will take."""

from collections import deque
from typing import Final, Protocol

from attrs import define, field

_WINDOW: Final = 30.0  # seconds that the rate is measured over


class Countable(Protocol):
    """Something of which a part is done."""

    @property
    def done(self) -> int:
        """How much is done."""
        ...

    @property
    def total(self) -> int | None:
        """Of how much, ``None`` while nobody knows."""
        ...


@define
class Pace:
    """The rate of late: what the rate limit grants now, not what its first burst let through."""

    _marks: deque[tuple[float, int]] = field(factory=deque)

    def mark(self, now: float, done: int) -> None:
        """Note how much is done by now."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Done per second."""
        (began, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - began) if now > began else 0.0

    def left(self, reading: Countable) -> float | None:
        """Return the seconds to go, if they can be told."""
        if reading.total is None or reading.done >= reading.total or not self.rate:
            return None
        return (reading.total - reading.done) / self.rate
