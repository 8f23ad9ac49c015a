"""Which column of an input holds the identifiers: the one that is named, or one that must be it."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from braze_export.errors import InputError

_SHOWN: Final = 20  # columns that a message lists
#: What is taken for names may be a row of data, where a file has no header.
_NAME: Final = re.compile(r"[A-Za-z_][\w .-]{0,60}")
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
        f"{_told('They are', names)}"
    )


def no_such(names: Sequence[str], column: str, path: Path) -> InputError:
    """Return the error that says that there is no such column."""
    fit = _fit(names)
    near = get_close_matches(column.lower(), [name.lower() for name in fit], n=1)
    meant = next((repr(name) for name in fit if name.lower() in near), "")
    hint = f" Did you mean {meant}?" if meant else ""
    return InputError(f"{path} has no column {column!r}: {_told('its columns are', names)}.{hint}")


def _told(what: str, names: Sequence[str]) -> str:
    """Return the names, 20 at most, as a message shows them; none if it may be data."""
    shown = _fit(names)[:_SHOWN]
    if names and not shown:
        return f"{what} {len(names)} and look like data, not like names"
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{what} {', '.join(map(repr, shown)) or 'none'}{more}"


def _fit(names: Sequence[str]) -> list[str]:
    """Return those that look like names of columns; none where some look like data."""
    if any("@" in name or name.strip().isdigit() for name in names):
        return []
    fit = [name for name in names if _NAME.fullmatch(name)]
    return fit if 2 * len(fit) >= len(names) else []
