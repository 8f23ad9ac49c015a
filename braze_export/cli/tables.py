"""Tables for people, and values in their cells."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from braze_export.cli.screen import printable

_LONGEST: Final = 60  # characters of a nested value: the whole of it is in NDJSON


def cell(value: Any) -> Text:
    """Return a value as it stands in a table; nothing for ``None``."""
    return Text(printable(_written(value)))


def _written(value: Any) -> str:
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = value.isoformat(sep=" ", timespec="seconds")
        case list() | tuple() if all(isinstance(item, str) for item in value):
            text = ", ".join(value)
        case list() | tuple() | dict():
            text = json.dumps(value, ensure_ascii=False)
            text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        case _:
            text = str(value)
    return text


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """Return a table.

    Args:
        columns: their names.
        rows: their values.
        right: columns of numbers.
        whole: columns that are never broken, so that what is in them can be copied.
    """
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(
            name,
            overflow="fold",
            justify="right" if name in right else "left",
            no_wrap=name in whole,
        )
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def pairs(values: Mapping[str, Any]) -> Table:
    """Return a table of names and their values."""
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in values.items():
        made.add_row(name, cell(value))
    return made
