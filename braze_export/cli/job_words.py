"""How far a bulk job is, in words: what the views of a job share."""

import math
from typing import Final

from braze_export.cli.progress import duration
from braze_export.cli.screen import count
from braze_export.jobs.values import JobProgress
from braze_export.limiting.limits import PoolSnapshot

_WORTH_A_WORD: Final = 5.0  # seconds of silence


def share(progress: JobProgress) -> float | None:
    """Return how much is done, from 0 to 1; ``None`` where it cannot be told."""
    if progress.phase == "writing":
        return min(1.0, max(0.0, progress.written))
    if progress.total is None:
        return None
    return min(1.0, progress.done / progress.total) if progress.total else 1.0


def ids(progress: JobProgress) -> str:
    """Say how many are done."""
    of = "" if progress.total is None else f"/{progress.total:,}"
    return f"{progress.done:,}{of} ids"


def going_on(progress: JobProgress) -> str:
    """Say what earlier runs have done."""
    return f"going on after {progress.already:,}"


def limit(pool: PoolSnapshot) -> str:
    """Say how many requests of the window are left."""
    return f"{pool.remaining:,}/{pool.limit:,}"


def writing(progress: JobProgress, target: str) -> str:
    """Say how far the writing is."""
    return f"writing {target} {math.floor(100 * (share(progress) or 0.0))} %"


def next_window(progress: JobProgress) -> float | None:
    """Return the seconds until requests go on, if all that is left of the limit is to wait."""
    over = progress.pool is None or progress.phase == "done"
    return None if over or progress.pool is None else progress.pool.next_window


def is_silent(progress: JobProgress) -> bool:
    """Say whether nothing comes through, for longer than a moment."""
    return progress.phase == "exporting" and progress.silent > _WORTH_A_WORD


def silence(progress: JobProgress) -> str:
    """Say for how long nothing comes through."""
    return f"nothing comes through for {duration(progress.silent)}"


def silence_and_why(progress: JobProgress) -> str:
    """Say for how long nothing comes through, and why."""
    return silence(progress) + (f" ({progress.trouble})" if progress.trouble else "")


def giving_up(progress: JobProgress) -> str:
    """Say when the job ends if nothing comes; blank where it cannot be told."""
    left = progress.patience_left
    if left is None or not math.isfinite(left):
        return ""
    return f"giving up in {duration(left)}" if round(left) else "giving up soon"


def seconds_left(progress: JobProgress) -> float | None:
    """Return the seconds to go; ``None`` where they cannot be told."""
    left, window = progress.seconds_left, next_window(progress)
    if left is None or not math.isfinite(left) or progress.phase == "done":
        return None
    if is_silent(progress):
        return None  # it would say how long ago something came
    # While everything waits the rate still says what it was before.
    return left if window is None else max(left, window)


def plain(progress: JobProgress, target: str) -> list[str]:
    """Say in words how far a job is, the parts of a line."""
    if progress.phase == "writing":
        return [writing(progress, target)]
    parts = ["counting the identifiers"] if progress.total is None else []
    over = progress.phase == "done"  # then nothing is told of what comes next
    if progress.total is not None or progress.done:
        parts.append(ids(progress))
        parts += [] if over else _pace(progress)
    again = f" ({progress.retries:,} again)" if progress.retries else ""
    if progress.requests:
        parts.append(f"{count(progress.requests, 'request')}{again}")
    pool, window, left = progress.pool, next_window(progress), seconds_left(progress)
    if pool is not None and pool.remaining is not None and not over:
        parts.append(f"limit {limit(pool)}")
    if window is not None:
        parts.append(f"next window in {duration(window)}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return parts + ([] if left is None else [f"{duration(left)} left"])


def _pace(progress: JobProgress) -> list[str]:
    if is_silent(progress):
        return [part for part in (silence_and_why(progress), giving_up(progress)) if part]
    return [f"{progress.rate:,.0f}/s"]
