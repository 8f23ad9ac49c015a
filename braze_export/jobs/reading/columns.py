"""Which column of an input holds the identifiers: the one that is named, or one that must be it."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from braze_export.errors import InputError

_SHOWN: Final = 20  # columns that a message lists
_NAME_LENGTH: Final = 60  # characters of each: what is taken for a name may be anything
#: Names that tell that a column holds identifiers of a kind. In small letters.
_USUAL: Final = {
    "external_id": ("external_id", "external_user_id", "externalid"),
    "email": ("email", "email_address", "e-mail"),
    "phone": ("phone", "phone_number"),
    "braze_id": ("braze_id", "appboy_id"),
    "device_id": ("device_id",),
    "alias": ("alias_name", "alias"),
}


def choose(names: Sequence[str], column: str | None, kind: str, path: Path) -> str:
    """Return the name of the column.

    Args:
        names: of all columns.
        column: what the caller named.
        kind: of the identifiers: a column that is called so need not be named.
        path: of the file, for messages.

    Raises:
        InputError: there is no such column, or several and none is named.
    """
    if column is not None:
        if column not in names:
            raise no_such(names, column, path)
        return column
    if len(names) == 1:
        return names[0]
    usual = _USUAL.get(kind, (kind,))
    called = [name for name in names if name.strip().lower() in usual]
    if len(called) == 1:
        return called[0]
    raise InputError(
        f"{path} has {len(names)} columns: name the one that holds the identifiers. "
        f"They are {listed(names)}"
    )


def no_such(names: Sequence[str], column: str, path: Path) -> InputError:
    """Return the error that says that there is no such column."""
    near = get_close_matches(column.lower(), [name.lower() for name in names], n=1)
    meant = next((repr(name[:_NAME_LENGTH]) for name in names if name.lower() in near), "")
    hint = f" Did you mean {meant}?" if meant else ""
    return InputError(f"{path} has no column {column!r}: its columns are {listed(names)}.{hint}")


def listed(names: Sequence[str]) -> str:
    """Return the names, 20 at most, as a message shows them."""
    shown = ", ".join(repr(name[:_NAME_LENGTH]) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (shown or "none") + more
