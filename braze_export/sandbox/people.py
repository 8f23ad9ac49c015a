"""Who the users are: all identifiers of the n-th user, and the way back, by computing alone.

No table is held, so a billion users cost no more memory than ten.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from braze_export.sandbox.scatter import (
    UUID_BITS,
    Hash,
    Scatter,
    hex_number,
    uuid_number,
    uuid_text,
)

ALIAS_LABEL: Final = "amplitude_id"

# The values that differ from user to user, in the order in which ``People.row`` makes them.
SLOTS: Final = (
    "external_id",
    "alias_name",
    "braze_id",
    "email",
    "phone",
    "device_id",
    "random_bucket",
)

# Longer digits than any number of users: refused before they become an integer.
_MAX_DIGITS = 24
_PHONE_BASE = 2_000_000_000
_BUCKETS = 10_000  # random_bucket is 0 to 9999


@attrs.frozen
class Alias:
    """A name by which a user is known elsewhere, and the label that says where.

    https://www.braze.com/docs/api/objects_filters/user_alias_object/
    """

    name: str
    label: str


@attrs.frozen(kw_only=True)
class Person:
    """Everything by which the n-th user can be asked for.

    E-mail addresses are not unique in Braze: every tenth user has that of the user before, so
    one address gives two users. Every seventh phone number is not in E.164 form, as numbers
    stay the way they were imported.
    """

    external_id: str
    braze_id: str
    alias: Alias
    email: str
    phone: str
    device_id: str


class People:
    """The users of one workspace, numbered from 1."""

    def __init__(self, users: int, seed: int) -> None:
        self._users = users
        self._braze_ids = Scatter(96, f"{seed} braze_id")
        self._device_ids = Scatter(UUID_BITS, f"{seed} device_id")
        self._buckets = Hash(f"{seed} random_bucket")

    def external_ids(self, count: int | None) -> Iterator[str]:
        """Yield ``u1``, ``u2``, ...; all, or the first ``count``."""
        last = self._users if count is None else min(count, self._users)
        return (f"u{n}" for n in range(1, last + 1))

    def person(self, n: int) -> Person:
        """Return the n-th user."""
        if not 1 <= n <= self._users:
            raise LookupError(f"there are users 1 to {self._users}, not {n}")
        external_id, name, braze_id, email, phone, device_id = (
            value.decode().strip('"') for value in self.row(n)[:6]
        )
        return Person(
            external_id=external_id,
            braze_id=braze_id,
            alias=Alias(name, ALIAS_LABEL),
            email=email,
            phone=phone,
            device_id=device_id,
        )

    def by_external_id(self, value: str) -> tuple[int, ...]:
        """Find the user with this external id."""
        return self._known(_number(value, "u"))

    def by_alias(self, alias: Alias) -> tuple[int, ...]:
        """Find the user with this alias: name and label."""
        return self._known(_number(alias.name, "user_") if alias.label == ALIAS_LABEL else 0)

    def by_braze_id(self, value: str) -> tuple[int, ...]:
        """Find the user with this Braze id."""
        return self._checked(self._braze_ids.back(hex_number(value)), "braze_id", value)

    def by_device_id(self, value: str) -> tuple[int, ...]:
        """Find the user of this device."""
        n = self._device_ids.back(uuid_number(value))
        return self._checked(n, "device_id", value)

    def by_email(self, value: str) -> tuple[int, ...]:
        """Find all users with this address, which may be two."""
        n = _number(value.removesuffix("@example.com"), "user")
        return self._checked(n, "email", value) + self._checked(n + 1, "email", value)

    def by_phone(self, value: str) -> tuple[int, ...]:
        """Find the user with this number, written as it was imported."""
        n = _number(value.removeprefix("+1"), "") - _PHONE_BASE
        return self._checked(n, "phone", value)

    def row(self, n: int) -> tuple[bytes, ...]:
        """Return the values of ``SLOTS`` for user ``n`` as JSON: all that is made per user."""
        return (
            b'"u%d"' % n,
            b'"user_%d"' % n,
            b'"%024x"' % self._braze_ids.forth(n),
            b'"user%d@example.com"' % (n if n % 10 else n - 1),
            b'"%s%d"' % (b"+1" if n % 7 else b"", _PHONE_BASE + n),
            b'"%s"' % uuid_text(self._device_ids.forth(n)),
            b"%d" % (self._buckets(n) % _BUCKETS),
        )

    def _known(self, n: int) -> tuple[int, ...]:
        return (n,) if 1 <= n <= self._users else ()

    def _checked(self, n: int, kind: str, value: str) -> tuple[int, ...]:
        # The way back is lenient; the way forth decides.
        return tuple(n for n in self._known(n) if getattr(self.person(n), kind) == value)


def _number(text: str, prefix: str) -> int:
    """Read the number behind ``prefix``; 0, which is nobody, unless it is written plainly."""
    digits = text.removeprefix(prefix)
    plain = text.startswith(prefix) and digits.isascii() and digits.isdigit()
    return int(digits) if plain and digits[0] != "0" and len(digits) <= _MAX_DIGITS else 0
