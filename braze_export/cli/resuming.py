"""An export taken up again: where it is, as a user gives it, and the command that goes on with it.

The link gives the profiles to whoever has it. It can be kept out of the arguments, which every
process of the machine can read.
"""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import rich_click as click
from click.core import ParameterSource

from braze_export.cli.writing import STANDARD

_LONGEST: Final = 64 * 1024  # characters: more is something else than a link

# What is for Braze, which is not asked again.
_OF_THE_START: Final = frozenset(
    {
        *("fields", "custom_attributes", "if_running", "output_format", "callback_url"),
        *("wait", "resume_from", "endpoint", "api_key_file"),
    }
)
_SOME_STORE: Final = "s3://BUCKET"


def place_of(given: str) -> str:
    """Return the link or object prefix that ``--resume-from`` means.

    Args:
        given: the link or prefix itself; ``-`` or ``@FILE``: where to read it, as it is or as the
            line of JSON that ``--no-wait`` prints.

    Raises:
        UsageError: there is none.
    """
    if given != STANDARD and not given.startswith("@"):
        return given.strip()
    try:
        text = _read(given).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8"
        raise click.UsageError(f"--resume-from {given} cannot be read ({reason}).") from None
    place = _of_json(text) if text.startswith("{") else text
    if not place or not place.isprintable() or len(place) >= _LONGEST:
        raise click.UsageError(
            f"--resume-from {given} gives neither a link nor an object prefix, alone or as the "
            "line that --no-wait prints."
        )
    return place


def _read(given: str) -> str:
    if given == STANDARD:
        return sys.stdin.readline(_LONGEST) if sys.stdin else ""
    with Path(given[1:]).open(encoding="utf-8-sig") as file:
        return file.read(_LONGEST)


def _of_json(text: str) -> str:
    try:
        told = json.loads(text)
    except ValueError:
        return ""
    return str(told.get("url") or told.get("object_prefix") or "")


def command_to_go_on(context: click.Context, place: str, *, store_missing: bool = False) -> str:
    """Return the command that takes the export up, with the options that were given.

    Args:
        context: of the command that ends.
        place: the link or object prefix, or where to read it.
        store_missing: name a storage, for the user to fill in.
    """
    arguments, options = _given(context)
    words = [context.command_path, *map(shlex.quote, arguments)]
    words += ["--resume-from", shlex.quote(place), *map(shlex.quote, options)]
    return " ".join([*words, "--store", _SOME_STORE] if store_missing else words)


def _given(context: click.Context) -> tuple[list[str], list[str]]:
    arguments: list[str] = []
    options: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in _OF_THE_START or source is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            arguments.append(value)
        else:
            options += _words(parameter, value)
    return arguments, options


def _words(option: click.Parameter, value: Any) -> Iterator[str]:
    word = option.opts[-1]
    if isinstance(option, click.Option) and (option.is_flag or option.count):
        yield from [word] * int(value)
    else:
        yield from (word, str(value).removesuffix(".0") if isinstance(value, float) else str(value))
