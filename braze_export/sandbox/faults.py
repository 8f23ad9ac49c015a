"""Faults: ways in which an answer can go wrong, and the queue that decides which one does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs
from attrs import validators

from braze_export.sandbox.messages import encode

Informational: TypeAlias = Literal[100, 102, 103]
Drop: TypeAlias = Literal["before", "headers", "body", "after"]

_at_least_0: Any = validators.ge(0)  # of any number type


@attrs.frozen(kw_only=True)
class Fault:
    """One way to spoil an answer; all attributes combine freely.

    With ``status`` or ``body`` the request is not processed at all, as when a proxy in front of
    Braze answers; it counts against the window all the same, unless the status is 429. Without
    them the request is processed, and only its answer is spoilt.

    Attributes:
        status: the status to answer with (200 when only ``body`` is given).
        body: the body to answer with: bytes as they are, anything else as JSON; by default
            a ``message`` that names the status. A 429 says ``x-ratelimit-remaining: 0``.
        headers: headers to add or replace; None removes one.
        delay: seconds to wait before the answer, on top of the latency.
        drop: when to close the connection: ``before`` any byte, in the middle of the ``headers``
            or of the ``body``, or ``after`` a whole answer that promised keep-alive.
        truncate: how many bytes to keep of the body; its length is declared accordingly.
        cut: how many bytes to send of the body, though its whole length was declared; then the
            connection is closed.
        garbage: replace the body by as many random bytes.
        slow: bytes per second to trickle the answer at.
        clock_skew: seconds to add to ``Date`` and ``x-ratelimit-reset``.
        content_encoding: a ``content-encoding`` to claim, whatever the body is.
        reset: where the connection is closed, do so with a TCP reset: what the client has not
            read by then is lost.
        informational: statuses of informational answers to send before the answer.
    """

    status: int | None = attrs.field(
        default=None, validator=validators.optional([validators.ge(200), validators.lt(600)])
    )
    body: Any = None
    headers: Mapping[str, str | None] = attrs.field(factory=dict)
    delay: float = attrs.field(default=0.0, validator=_at_least_0)
    drop: Drop | None = attrs.field(
        default=None, validator=validators.in_((None, "before", "headers", "body", "after"))
    )
    truncate: int | None = attrs.field(default=None, validator=validators.optional(_at_least_0))
    cut: int | None = attrs.field(default=None, validator=validators.optional(_at_least_0))
    garbage: bool = False
    slow: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    clock_skew: float = 0.0
    content_encoding: str | None = None
    reset: bool = False
    informational: Sequence[Informational] = attrs.field(
        default=(), validator=validators.deep_iterable(validators.in_((100, 102, 103)))
    )

    @property
    def replaces(self) -> bool:
        """Whether the answer of the workspace is not wanted."""
        return self.status is not None or self.body is not None

    @property
    def disconnects(self) -> bool:
        """Whether the connection ends with the answer."""
        return self.drop is not None or self.cut is not None

    def portion(self, length: int) -> int:
        """How much to send of a body of this length."""
        allowed = length if self.cut is None else min(length, self.cut)
        if self.drop == "headers":
            return 0
        return min(allowed, length // 2) if self.drop == "body" else allowed

    def encoded_body(self, phrase: str) -> bytes:
        """The body as bytes; ``phrase`` names the status."""
        body = {"message": phrase} if self.body is None else self.body
        return body if isinstance(body, bytes) else encode(body)


@attrs.define
class _Entry:
    fault: Fault
    times: int
    path: str | None
    after: int


class FaultQueue:
    """Hands out the injected faults, then those of the source."""

    def __init__(self, source: Callable[[int, str], Fault | None] | None) -> None:
        self._source = source
        self._entries: list[_Entry] = []
        self._asked = 0

    def add(self, fault: Fault, *, times: int, path: str | None, after: int) -> None:
        """Spoil ``times`` requests (to ``path``), ``after`` so many that match.

        A path that ends in a slash stands for all that begin with it.
        """
        if times < 1 or after < 0:
            raise ValueError("times must be at least 1 and after at least 0")
        self._entries.append(_Entry(fault, times, path, after))

    def take(self, path: str) -> Fault | None:
        """Return the fault for the next request, if any."""
        self._asked += 1
        due = [entry for entry in self._entries if _matches(entry, path) and _is_due(entry)]
        if due:
            first = due[0]
            first.times -= 1
            if not first.times:
                self._entries.remove(first)
            return first.fault
        return self._source(self._asked, path) if self._source else None


def _matches(entry: _Entry, path: str) -> bool:
    wanted = entry.path
    return wanted is None or wanted == path or (wanted.endswith("/") and path.startswith(wanted))


def _is_due(entry: _Entry) -> bool:
    # Every matching request counts towards ``after``, also one that another fault spoils.
    entry.after -= 1
    return entry.after < 0
