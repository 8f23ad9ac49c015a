"""The kinds of identifiers that a job's input may hold, by the names that people type."""

from collections.abc import Callable, Iterable
from typing import Final

from attrs import field, frozen

from braze_export.batches.batching import BATCH_SIZE
from braze_export.errors import InputError
from braze_export.identifiers import (
    BrazeId,
    DeviceId,
    EmailAddress,
    Identifier,
    PhoneNumber,
    UserAlias,
)
from braze_export.models.fields import check_fields

_KINDS: Final[dict[str, Callable[[str], Identifier]]] = {
    "external_id": str,
    "braze_id": BrazeId,
    "device_id": DeviceId,
    "email": EmailAddress,
    "phone": PhoneNumber,
}


@frozen
class Kind:
    """What the identifiers of an input are.

    Attributes:
        name: ``external_id``, ``braze_id``, ``device_id``, ``email``, ``phone`` or ``alias``.
        label: of aliases.
    """

    name: str
    label: str | None = None
    make: Callable[[str], Identifier] = field(init=False, repr=False, eq=False)

    @make.default
    def _make(self) -> Callable[[str], Identifier]:
        label = self.label
        return _KINDS[self.name] if label is None else lambda name: UserAlias(name, label)

    @property
    def together(self) -> int:
        """How many of them go into one request."""
        return BATCH_SIZE if self.name in {"external_id", "alias"} else 1

    @property
    def needs(self) -> str | None:
        """The field of a profile that tells whose it is, where several come in one answer."""
        return {"external_id": "external_id", "alias": "user_aliases"}.get(self.name)

    def fields(self, fields: Iterable[str] | None, *, stacklevel: int) -> tuple[str, ...] | None:
        """Return what is asked for: always the field that tells whose a profile is.

        Args:
            fields: what somebody wants; ``None`` for everything.
            stacklevel: as for ``check_fields``, for which this is the caller.

        Raises:
            InputError: they cannot be sent.
        """
        if fields is None:
            return None
        names, needed = check_fields(fields, stacklevel=stacklevel), self.needs
        return names if needed is None or needed in names else (needed, *names)

    def __str__(self) -> str:
        return self.name if self.label is None else f"{self.name}:{self.label}"


def parse_kind(word: str) -> Kind:
    """Return the kind of that name; ``alias:LABEL`` for aliases of a label.

    Raises:
        InputError: there is no such kind.
    """
    if word in _KINDS:
        return Kind(word)
    name, _, label = word.partition(":")
    if name != "alias" or not label.strip():
        known = ", ".join(_KINDS)
        raise InputError(f"{word!r} is no kind of identifier: allowed are {known}, alias:LABEL")
    return Kind("alias", label)


def as_text(identifier: Identifier) -> str:
    """Return an identifier as it was read."""
    if isinstance(identifier, str):
        return identifier
    return identifier.alias_name if isinstance(identifier, UserAlias) else identifier.value
