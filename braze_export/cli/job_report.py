"""What came of a bulk job: a table for people; and a job as JSON for machines."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import attrs
from attrs import frozen

from braze_export.cli.progress import duration
from braze_export.cli.screen import Screen, count
from braze_export.cli.tables import pairs
from braze_export.jobs.values import NOT_ASKED, JobProgress, JobReport

_MOST_REASONS: Final = 3
_WORTH_A_WORD: Final = 1.0  # seconds of waiting


def tell(report: JobReport, screen: Screen) -> None:
    """Print what came of a job, and how to go on where something is left to do."""
    screen.err.print(pairs(_rows(report)))
    if report.failed:
        screen.warn(_what_failed(report))
    if not report.complete:
        after = f" after {report.done:,} of {report.total:,}" if report.done else ""
        screen.warn(f"Not complete. Run the same command again to go on{after}.")


def _what_failed(report: JobReport) -> str:
    failed = f"{count(report.failed, 'identifier')} failed"
    hopeless = report.reasons.get(NOT_ASKED, 0)
    if hopeless == report.failed:
        return f"{failed}: what they are cannot be asked for. See {_short(report.failed_file)}."
    return f"{failed}. Run the same command with --retry-failed for these alone."


def _rows(report: JobReport) -> dict[str, str]:
    rows = {
        "Identifiers": _identifiers(report),
        "Profiles": f"{report.profiles:,}",
        "Unknown": f"{report.unknown:,}",
        "Failed": _failed(report),
        "Repeated": f"{report.repeated:,}" if report.repeated else "",
        "Blank rows": f"{report.blank:,}" if report.blank else "",
        "Requests": _requests(report),
        "Time": _time(report),
        # Before the end they have not got their names.
        "Output": _short(report.output) if report.complete else "",
        "Unknown in": _short(report.unknown_file) if report.complete and report.unknown else "",
        "Failed in": _short(report.failed_file) if report.complete and report.failed else "",
    }
    return {name: text for name, text in rows.items() if text}


def _short(place: str | Path) -> str:
    """Return a path below the current directory as it is seen from there; all else as it is."""
    with suppress(ValueError, OSError):  # it is elsewhere, or no path; there is no such directory
        return str(Path(place).relative_to(Path.cwd()))
    return str(place)


def _identifiers(report: JobReport) -> str:
    of = f"{report.done:,}" if report.complete else f"{report.done:,} of {report.total:,}"
    return of + (f" ({report.already:,} of them in earlier runs)" if report.already else "")


def _failed(report: JobReport) -> str:
    ordered = sorted(report.reasons.items(), key=lambda item: (-item[1], item[0]))
    reasons = [f"{times:,}: {reason}" for reason, times in ordered[:_MOST_REASONS]]
    if (more := len(ordered) - _MOST_REASONS) > 0:
        reasons.append(count(more, "more reason"))
    told = f" ({'; '.join(reasons)})" if reasons else ""
    return f"{report.failed:,}{told}"


def _requests(report: JobReport) -> str:
    parts = []
    if report.retries:
        parts.append(f"{report.retries:,} again")
    if report.rate_limited:
        parts.append(f"{report.rate_limited:,} refused by the rate limit")
    return f"{report.requests:,}" + (f" ({', '.join(parts)})" if parts else "")


def _time(report: JobReport) -> str:
    parts = [duration(report.seconds)]
    if report.seconds > 0:
        parts.append(f"{(report.done - report.already) / report.seconds:,.0f} identifiers/s")
    if report.seconds_waited > _WORTH_A_WORD:
        parts.append(f"waited {duration(report.seconds_waited)} for the rate limit")
    return ", ".join(parts)


@frozen
class JsonLines:
    """Writes objects to standard output, each as a line that is there at once."""

    screen: Screen

    def write(self, value: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        # The console's own printing would break lines and take brackets for markup.
        file = self.screen.out.file
        file.write(json.dumps(_plain(value), allow_nan=False) + "\n")
        file.flush()

    def write_report(self, report: JobReport) -> None:
        """Write the last line: the report without its course."""
        fields = attrs.asdict(report, filter=lambda field, _: field.name != "course")
        self.write({"event": "report"} | fields)


def progress_object(progress: JobProgress) -> dict[str, Any]:
    """Return progress as it stands in a line of JSON."""
    return {"event": "progress"} | attrs.asdict(progress)


def _plain(value: Any) -> Any:
    """Return a value in JSON's own kinds; numbers that it has not are null."""
    match value:
        case float():
            return round(value, 3) if math.isfinite(value) else None
        case str() | Path():
            return str(value).encode(errors="replace").decode()  # paths may be no valid text
        case Mapping():
            return {_plain(key): _plain(item) for key, item in value.items()}
        case _:
            return value
