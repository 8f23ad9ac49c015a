"""What makes a job this job and no other, and whether there is one to go on with."""

from collections.abc import Mapping
from typing import Any, Final

from braze_export.errors import JobChangedError, JobError
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.places import Places
from braze_export.jobs.staging import Staged

_WORDS: Final = {
    "fingerprint": "the content of the input",
    "format": "the format of the input",
    "column": "the column of the input",
    "encoding": "the encoding of the input",
    "delimiter": "the delimiter of the input",
    "kind": "the kind of the identifiers",
    "endpoint": "the endpoint of Braze",
    "output": "the form of the output",
    "custom_attributes": "the form of custom attributes",
}


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words what of a job is not what it was. Pure."""
    found = []
    for name in sorted({*was, *now}):
        before, after = was.get(name), now.get(name)
        if before == after:
            continue
        what = _WORDS.get(name, name)
        found.append(
            f"{what} has changed"
            if name == "fingerprint"
            else f"{what} was {_shown(before)}, now {_shown(after)}"
        )
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "not given" if value is None else str(value)


def record_to_go_on_with(
    journal: Journal,
    places: Places,
    definition: Mapping[str, Any],
    *,
    fresh: bool,
    retry_failed: bool,
) -> Record | None:
    """Return where the job is to go on, ``None`` where it is to begin.

    Raises:
        JobChangedError: the journal is of another job, or its files are not what they were.
        JobError: ``retry_failed``, and no job is finished.
    """
    if fresh:
        return None  # whatever is in the journal, and be it damaged
    was = journal.definition
    last = next(journal.records(), None)
    if was is None or last is None:
        if retry_failed:
            raise JobError(f"there is no finished job of {places.shown}: run it first")
        return None
    if last.stage == "finished" and not retry_failed:
        return None
    if retry_failed and last.stage != "finished" and not last.round:
        raise JobError(
            f"the job of {places.shown} is not finished: run it without retry_failed first"
        )
    ignored = {"fingerprint"} if retry_failed else set()
    changed = differences(_without(was, ignored), _without(definition, ignored))
    if changed:
        job = "a job" if last.stage == "finished" else "an unfinished job"
        raise JobChangedError(
            f"{places.folder} holds {job} that is not this one: {'; '.join(changed)}. "
            "Give what was given then, name another output, or start over (fresh), which drops "
            f"what came for {last.done:,} identifiers"
        )
    if last.stage == "exporting":
        return _still_there(journal, places)
    return last


def _without(definition: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in definition.items() if name not in names}


def _still_there(journal: Journal, places: Places) -> Record:
    """Return the latest record whose files hold what it says."""
    for record in journal.records():
        files = ((Staged(places.staged(name)), length) for name, length in record.files.items())
        if all(file.holds(length) for file, length in files):
            return record
    raise JobChangedError(
        f"the files in {places.folder} do not hold what its journal says: they were changed or "
        "removed. Put them back, or start over (fresh)"
    )
