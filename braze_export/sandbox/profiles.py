"""Users as JSON bytes, fast: a few templates, cut where users differ.

A benchmark against the sandbox must measure the client. So each profile is encoded once, with
slots in it; to make the n-th user is to put that user's values between ready pieces of bytes.
"""

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import attrs

from braze_export.sandbox import samples
from braze_export.sandbox.people import SLOTS, People
from braze_export.sandbox.scatter import Hash

TEMPLATES_PER_SHAPE = 32

# Plans are kept per template and set of fields: 512 of 20 KB are 10 MB at the very most.
_PLANS = 512

_SLOT = re.compile(rb'"<<(\w+)>>"')

# Undocumented: these keys are in no list of fields; in samples they come with these fields.
_COMPANIONS = {
    "push_opted_in_at": "push_subscribe",
    "push_unsubscribed_at": "push_subscribe",
    "email_opted_in_at": "email_subscribe",
    "email_unsubscribed_at": "email_subscribe",
}

# Of ten users in a workspace of mixed sizes.
_MIXTURE = ("small", "small", *["typical"] * 7, "full")


@attrs.frozen
class Plan:
    """A template cut at its slots: literals stand at even places, values go to odd ones."""

    pieces: list[bytes]
    slots: Sequence[int]

    def fill(self, row: Sequence[bytes]) -> list[bytes]:
        """Return the pieces of the user with these values."""
        pieces = self.pieces.copy()
        pieces[1::2] = [row[slot] for slot in self.slots]
        return pieces


class Profiles:
    """Turns numbers of users into their JSON."""

    def __init__(self, people: People, profile: str, seed: int) -> None:
        self._people = people
        self._shapes = _MIXTURE if profile == "mixed" else (profile,)
        self._seed = seed
        self._hash = Hash(f"{seed} templates")
        # Caches of the instance, not of the class: they must die with the sandbox.
        self._template = lru_cache(maxsize=None)(self._make_template)
        self._plan = lru_cache(maxsize=_PLANS)(self._make_plan)

    def users(self, numbers: Iterable[int], fields: frozenset[str] | None) -> list[bytes]:
        """Return the pieces of a JSON array; ``fields`` selects top-level keys, None all.

        Undocumented: unknown names of fields. They are ignored here.
        """
        parts: list[bytes] = []
        for n in numbers:
            parts.append(b"," if parts else b"[")
            parts += self._user(n, fields, None)
        return [*parts, b"]"] if parts else [b"[]"]

    def lines(
        self, numbers: Iterable[int], fields: frozenset[str], attributes: frozenset[str]
    ) -> bytes:
        """Return one JSON object per line; may be called from any thread.

        Without ``custom_attributes`` among the fields, ``attributes`` are those that are wanted.
        """
        named = None if "custom_attributes" in fields else attributes
        parts: list[bytes] = []
        for n in numbers:
            parts += self._user(n, fields, named)
            parts.append(b"\n")
        return b"".join(parts)

    def _user(
        self, n: int, fields: frozenset[str] | None, attributes: frozenset[str] | None
    ) -> list[bytes]:
        rest, number = divmod(self._hash(n), TEMPLATES_PER_SHAPE)
        plan = self._plan(self._shapes[rest % len(self._shapes)], number, fields, attributes)
        return plan.fill(self._people.row(n))

    def _make_template(self, shape: str, number: int) -> list[tuple[str, bytes]]:
        profile = samples.profile(shape, number, self._seed)
        return [(key, _encoded(key, value, number)) for key, value in profile.items()]

    def _make_plan(
        self,
        shape: str,
        number: int,
        fields: frozenset[str] | None,
        attributes: frozenset[str] | None,
    ) -> Plan:
        members = []
        for key, encoded in self._template(shape, number):
            if fields is None or _COMPANIONS.get(key, key) in fields:
                members.append(encoded[1:-1])
            elif attributes and key == "custom_attributes":
                held = json.loads(encoded)[key]
                wanted = {name: held[name] for name in held if name in attributes}
                # What is empty is absent, as everywhere.
                members += [_encoded(key, wanted, number)[1:-1]] if wanted else []
        pieces = _SLOT.split(b"{" + b",".join(members) + b"}")
        return Plan(pieces, [SLOTS.index(name.decode()) for name in pieces[1::2]])


def _encoded(key: str, value: Any, number: int) -> bytes:
    # Both ways to write non-ASCII text are JSON; the standard library's encoder, because
    # msgspec refuses integers beyond 64 bits.
    escape = number % 4 == 0
    return json.dumps({key: value}, ensure_ascii=escape, separators=(",", ":")).encode()
