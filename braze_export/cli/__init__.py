"""The command line, ``braze-export``: what a person types, on top of the client.

It needs the extra ``cli``. Nothing here decides how Braze is talked to; that is the client's.

The rooms, upper ones importing lower ones only:

    app                              the group of all commands, and its help
    ids, segment, segments, demo, sandbox  one command (or a few) each
    ids_stream, ids_job              its two ways: profiles as they come; a job that can be killed
    dry_run                          what an export by identifiers would take
    job_view, job_report, job_words  how far a job is, and what came of it
    stopping                         Ctrl-C and SIGTERM while a job runs
    export_run                       the run of an export that Braze prepares
    exporting, records               the loops over an export: every item to its place
    resuming, stores                 an export taken up again; the workspace's own storage
    connection, readings, progress   key and endpoint; how far it is, and how that is shown
    failures                         errors into a line and an exit code
    reading, writing, tables, chart  identifiers in, lines and tables out
    options, help, screen, signals   what every command has: lists, help, consoles, SIGTERM
"""

import gc
import sys
from collections.abc import Sequence

from braze_export.cli.signals import INTERRUPTED, terminated_as_interrupted

_EXTRA = frozenset({"click", "rich", "rich_click"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``braze-export`` and exit with its code."""
    with terminated_as_interrupted():
        try:
            _run(arguments)
        except KeyboardInterrupt:  # while it was still starting
            sys.exit(INTERRUPTED)


def _run(arguments: Sequence[str] | None) -> None:
    gc.disable()  # a fifth of the time to start goes into looking for garbage, and there is none
    try:
        # Only here, so that the package without the extra can say what is missing.
        from braze_export.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write('The command line needs: pip install "braze-export[cli]"\n')
        sys.exit(2)
    finally:
        gc.enable()
    app.main(arguments, prog_name="braze-export")
