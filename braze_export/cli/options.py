"""What options of several commands have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from braze_export.cli.writing import STANDARD, is_special

#: What such a file holds is known to everybody, and it is no NDJSON.
_NO_LINES: Final = frozenset({
    ".parquet", ".csv", ".tsv", ".xlsx", ".xls", ".gz", ".zst", ".zip", ".bz2", ".xz", ".db",
})  # fmt: skip


def names(given: Sequence[str]) -> Sequence[str] | None:
    """Return names that were given with commas between, or the option repeated."""
    split = [name.strip() for part in given for name in part.split(",")]
    return [name for name in split if name] or None


def is_given(option: str) -> bool:
    """Say whether an option of the command that runs was given, be it as its default is."""
    return get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def check_fields(fields: Sequence[str] | None, *, needed: bool) -> None:
    """Refuse ``--fields`` that names none, and to leave it out where it is needed.

    Args:
        fields: what is asked for; ``None`` for everything.
        needed: whether the workspace is one that does not give everything.

    Raises:
        UsageError: it is so.
    """
    if fields is None and is_given("fields"):
        raise click.UsageError("--fields names none: leave it out for all fields.")
    if fields is None and needed:
        raise click.UsageError("New workspaces must name fields: give --fields.")


def check_lines(path: str | None, hint: str = "") -> None:
    """Refuse a file whose name promises something else than the lines that are written.

    Args:
        path: of the file; ``-`` and ``None`` are none.
        hint: how to get what the name promises.

    Raises:
        UsageError: its name ends so.
    """
    ending = "" if path is None or is_special(Path(path)) else Path(path).suffix.lower()
    if ending in _NO_LINES:
        raise click.UsageError(
            f"{path}: what is written are lines of JSON, so name it .ndjson, not {ending}.{hint}"
        )


def check_different(read: Sequence[str | None], written: Sequence[str | None], what: str) -> None:
    """Refuse files that would be written over, or into each other.

    Args:
        read: files that are read; ``-`` and ``None`` are none.
        written: files that are written; one may be standard output.
        what: the names of the options, for the message.

    Raises:
        UsageError: two of them are the same.
    """
    paths = [Path(path) for path in (*read, *written) if path is not None and path != STANDARD]
    places = [path.resolve() for path in paths if not is_special(path)]
    if len(set(places)) < len(places) or list(written).count(STANDARD) > 1:
        raise click.UsageError(f"{what} must be different files.")
