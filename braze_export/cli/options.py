"""What options of several commands have in common."""

from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from click import get_current_context
from click.core import ParameterSource

from braze_export.cli.writing import STANDARD, is_special


def names(given: Sequence[str]) -> Sequence[str] | None:
    """Return names that were given with commas between, or the option repeated."""
    split = [name.strip() for part in given for name in part.split(",")]
    return [name for name in split if name] or None


def is_given(option: str) -> bool:
    """Say whether an option of the command that runs was given, be it as its default is."""
    return get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


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
