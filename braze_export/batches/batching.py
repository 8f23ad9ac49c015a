"""Identifiers into requests: up to 50 external ids and aliases each, every other kind alone.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeAlias, cast

from attrs import frozen

from braze_export.errors import InputError
from braze_export.identifiers import SINGLE_KINDS, Identifier, UserAlias, check_identifier
from braze_export.models.results import ExportStats, FailedBatch, InvalidUserId

#: External ids and aliases of one request, added up: Braze's error names both together.
BATCH_SIZE = 50

_ITEMS_PER_TURN = 1000

Identifiers: TypeAlias = Iterable[Identifier] | AsyncIterable[Identifier]


@frozen
class Batch:
    """The identifiers of one request, in the order in which they were read."""

    identifiers: tuple[Identifier, ...]

    def payload(self) -> dict[str, Any]:
        """Return the part of the request's body that names the users."""
        first = self.identifiers[0]
        key = SINGLE_KINDS.get(type(first))
        if key is not None:
            return {key: cast("Any", first).value}
        external_ids = [i for i in self.identifiers if isinstance(i, str)]
        aliases = [i for i in self.identifiers if isinstance(i, UserAlias)]
        body: dict[str, Any] = {}
        if external_ids:
            body["external_ids"] = external_ids
        if aliases:
            body["user_aliases"] = [
                {"alias_name": a.alias_name, "alias_label": a.alias_label} for a in aliases
            ]
        return body

    def halves(self) -> tuple["Batch", "Batch"]:
        """Split a batch of two or more."""
        middle = len(self.identifiers) // 2
        return Batch(self.identifiers[:middle]), Batch(self.identifiers[middle:])

    def invalid(self, sent: list[Any]) -> list[InvalidUserId]:
        """Name our identifiers for the entries of ``invalid_user_ids``.

        Braze documents strings. How it writes an alias is not documented: its name, its label
        and name, or an object are understood. What resembles none of ours is given as it came.
        """
        if not sent:
            return []
        if len(self.identifiers) == 1:
            return [InvalidUserId(self.identifiers[0])]
        names = self._names()
        return [InvalidUserId(_named(entry, names)) for entry in sent]

    def _names(self) -> "dict[Any, deque[Identifier]]":
        """Return every way to write each identifier; external ids come before aliases."""
        names: dict[Any, deque[Identifier]] = {}
        for identifier in sorted(self.identifiers, key=lambda i: isinstance(i, UserAlias)):
            for written in _ways_to_write(identifier):
                names.setdefault(written, deque()).append(identifier)
        return names


def _ways_to_write(identifier: Identifier) -> tuple[Any, ...]:
    if not isinstance(identifier, UserAlias):
        return (identifier,)
    name, label = identifier.alias_name, identifier.alias_label
    return (name, f"{label}:{name}", f"{name}:{label}", (name, label))


def _named(entry: Any, names: "dict[Any, deque[Identifier]]") -> Identifier:
    candidates = names.get(_key(entry))
    if not candidates:
        return _text(entry)
    if len(candidates) > 1:  # the same text for several: each of them once
        return candidates.popleft()
    return candidates[0]


def _key(entry: Any) -> Any:
    if isinstance(entry, dict):
        name = entry.get("alias_name") or entry.get("external_id")
        label = entry.get("alias_label")
        return (_text(name), _text(label)) if label else _text(name)
    return _text(entry)


def _text(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return "(nested too deeply)"


async def batches(
    identifiers: Identifiers,
    *,
    window: int,
    keep_going: bool,
    stats: ExportStats,
    size: int = BATCH_SIZE,
) -> AsyncGenerator[Batch | FailedBatch, None]:
    """Yield the requests to make, reading no further than the next one needs.

    Args:
        identifiers: what the caller passed.
        window: an identifier that is among this many read last is asked for once.
        keep_going: yield an item that is no identifier as ``FailedBatch``, instead of raising.
        stats: counts what is read.
        size: identifiers of one request.

    Raises:
        InputError: an item is no identifier; the message names its position.
    """
    recent = _Recent(window)
    waiting: list[Identifier] = []
    position = -1
    async with aclosing(_each(identifiers)) as items:
        async for item in items:
            position += 1
            try:
                identifier = check_identifier(item, position)
            except InputError as error:
                if not keep_going:
                    raise
                yield FailedBatch((item,), error)
                continue
            if not recent.is_new(identifier):
                stats.duplicates += 1
                continue
            stats.identifiers += 1
            if type(identifier) in SINGLE_KINDS:
                yield Batch((identifier,))
                continue
            waiting.append(identifier)
            if len(waiting) == size:
                yield Batch(tuple(waiting))
                waiting.clear()
    if waiting:
        yield Batch(tuple(waiting))


class _Recent:
    """Remembers the identifiers read last, and no more of them than it is told."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: deque[Identifier] = deque()
        self._seen: set[Identifier] = set()

    def is_new(self, identifier: Identifier) -> bool:
        if identifier in self._seen:
            return False
        self._seen.add(identifier)
        self._order.append(identifier)
        if len(self._order) > self._size:
            self._seen.discard(self._order.popleft())
        return True


async def _each(identifiers: Identifiers) -> AsyncGenerator[Identifier, None]:
    """Yield every item. An async generator, which may hold a cursor, is closed at the end."""
    if not isinstance(identifiers, AsyncIterable):
        for number, item in enumerate(identifiers):
            await _give_way(number)
            yield item
        return
    number = 0
    async with AsyncExitStack() as stack:
        if isinstance(identifiers, AsyncGenerator):
            await stack.enter_async_context(aclosing(identifiers))
        async for item in identifiers:
            await _give_way(number)
            yield item
            number += 1


async def _give_way(number: int) -> None:
    """Now and then, as a long run of duplicates must not hold the loop."""
    if number % _ITEMS_PER_TURN == _ITEMS_PER_TURN - 1:
        await asyncio.sleep(0)


def check_iterable(identifiers: object) -> None:
    """Look at what the caller passed, without reading from it.

    Raises:
        InputError: it is nothing that identifiers can be read from.
    """
    if isinstance(identifiers, str | bytes | bytearray | dict):
        raise InputError(
            "identifiers must be a list or another iterable of identifiers, not a single "
            f"{type(identifiers).__name__}: write [identifier] for one"
        )
    if not isinstance(identifiers, Iterable | AsyncIterable):
        raise InputError(
            "identifiers must be an iterable or async iterable of identifiers, not "
            f"{type(identifiers).__name__}"
        )


async def check_all(identifiers: Identifiers) -> None:
    """Check every item of what is held in memory anyway, so that a bad one deep inside is found.

    Raises:
        InputError: an item is no identifier; the message names its position.
    """
    if isinstance(identifiers, list | tuple | set | frozenset):
        await read_all(identifiers)


async def read_all(identifiers: Iterable[Identifier]) -> list[Identifier]:
    """Return every item, read and checked before the first is asked for.

    Raises:
        InputError: an item is no identifier; the message names its position.
    """
    checked = []
    for position, item in enumerate(identifiers):
        await _give_way(position)
        checked.append(check_identifier(item, position))
    return checked
