"""What the server saw: counters for the demo and benchmarks, a log for tests."""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from braze_export.sandbox.faults import Fault

OTHER = "other"


@attrs.frozen
class Counters:
    """A snapshot of what was served.

    Attributes:
        requests: how many requests came in.
        identifiers: how many identifiers were looked up.
        rate_limited: how many answers had status 429, for whatever reason.
        paths: the same by path of the endpoint; downloads together as ``/exports/``, unknown
            paths as ``other``.
    """

    requests: int = 0
    identifiers: int = 0
    rate_limited: int = 0
    paths: Mapping[str, "Counters"] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class RequestRecord:
    """A request as the server saw it, without its ``Authorization``.

    ``status`` is the one that was decided on; with a ``fault`` that drops the connection the
    client may never have seen it. ``body`` is decoded JSON, or None. ``authorized`` tells
    whether there was an ``Authorization``, right or wrong.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    status: int
    authorized: bool
    fault: Fault | None = None


@attrs.define
class _Row:
    requests: int = 0
    identifiers: int = 0
    rate_limited: int = 0

    def snapshot(self) -> Counters:
        return Counters(self.requests, self.identifiers, self.rate_limited)


class Tally:
    """Adds up requests by path."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._rows = {path: _Row() for path in (*paths, OTHER)}
        self._all = _Row()

    def add(self, path: str, *, status: int, identifiers: int) -> None:
        """Count one request. Unknown paths share a row: they must not grow the memory."""
        for row in (self._all, self._rows.get(path, self._rows[OTHER])):
            row.requests += 1
            row.identifiers += identifiers
            row.rate_limited += status == 429

    def counters(self) -> Counters:
        """Return the sums so far."""
        paths = {path: row.snapshot() for path, row in self._rows.items() if row.requests}
        return attrs.evolve(self._all.snapshot(), paths=paths)
