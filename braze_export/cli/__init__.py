"""The command line, ``braze-export``: what a person types, on top of the client.

It needs the extra ``cli``. Nothing here decides how Braze is talked to; that is the client's.

The rooms, upper ones importing lower ones only:

    app                            the group of all commands, and its help
    ids, segments, demo, sandbox   one command (or group of commands) each
    connection, progress, failures key and endpoint; how far it is; errors into exit codes
    reading, writing, tables, chart  identifiers in, lines and tables out
    screen                         the two consoles, and text made safe for them
"""

import sys
from collections.abc import Sequence

_EXTRA = frozenset({"click", "rich", "rich_click"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``braze-export`` and exit with its code."""
    try:
        _run(arguments)
    except KeyboardInterrupt:  # while it was still starting
        sys.exit(130)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        # Only here, so that the package without the extra can say what is missing.
        from braze_export.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write('The command line needs: pip install "braze-export[cli]"\n')
        sys.exit(2)
    app.main(arguments, prog_name="braze-export")
