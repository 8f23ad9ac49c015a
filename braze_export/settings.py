"""How exports are waited for and read, and how single look-ups share requests."""

import random
from collections.abc import Callable
from pathlib import Path

from attrs import field, frozen

from braze_export.archives.archive import ArchiveLimits
from braze_export.validators import (
    above_zero,
    as_path,
    of_class,
    whole_above_zero,
    zero_or_more,
)


@frozen
class Polling:
    """How often to look whether an export is ready. All in seconds.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment: an export of
    20 million users may take an hour or more.

    Attributes:
        base: the first pause. Each one is half as long again as the one before, give or take a
            fifth at random.
        cap: the longest pause, give or take that fifth.
        lifetime: how long a link lives from the start of the export on. What has not come by
            then never will.
    """

    base: float = field(default=1.0, validator=above_zero)
    cap: float = field(default=60.0, validator=above_zero)
    lifetime: float = field(default=4 * 3600.0, validator=above_zero)

    def pause(self, number: int, rng: Callable[[], float] = random.random) -> float:
        """Return how long to wait after the ``number``-th look, from 1."""
        return min(self.cap, self.base * 1.5 ** min(number - 1, 100)) * (0.8 + 0.4 * rng())


def _path(directory: str | Path | None) -> Path | None:
    return None if directory is None else as_path(directory, "spool_directory")


@frozen
class ExportSettings:
    """How the exports of segments and of the control group are waited for and read.

    Attributes:
        polling: how often to look whether an export is ready.
        archive_limits: what an archive may unpack to.
        concurrency: files of the workspace's own storage that are read at once.
        quiet_period: seconds without a new file after which an export to the workspace's own
            storage counts as whole, where no callback says so; infinity: the callback has to.
        spool_memory: bytes of a download kept in memory where it is ahead of its reader, for
            each file that is read.
        spool_directory: where what is further ahead is kept; ``None`` for the system's own place
            for temporary files.
    """

    polling: Polling = field(factory=Polling, validator=of_class(Polling))
    archive_limits: ArchiveLimits = field(factory=ArchiveLimits, validator=of_class(ArchiveLimits))
    concurrency: int = field(default=4, validator=whole_above_zero)
    quiet_period: float = field(default=60.0, validator=zero_or_more)
    spool_memory: int = field(default=8 * 1024 * 1024, validator=whole_above_zero)
    spool_directory: Path | None = field(default=None, converter=_path)


@frozen
class ProfileCache:
    """Answers of look-ups that are kept, those that a user is unknown among them.

    Attributes:
        max_profiles: answers kept at most; the one not used for longest makes room.
        seconds: for which an answer is given again.
    """

    max_profiles: int = field(default=10_000, validator=whole_above_zero)
    seconds: float = field(default=60.0, validator=above_zero)


@frozen
class LookupSettings:
    """How the calls of ``users.get`` and ``users.get_many`` share requests.

    Attributes:
        linger: seconds that a look-up waits at most for others to join it, while other look-ups
            are under way; one on its own leaves at once.
        pace: seconds between two requests at most, once half of a window is spent: so that what
            is left lasts until the next one, they leave evenly, each with all look-ups that came.
            A look-up on its own, or in a hurry by its ``deadline``, is not held up. 0 for never.
        cache: what is kept of the answers; ``None`` for nothing. Needs the extra ``cache``.
    """

    linger: float = field(default=0.002, validator=zero_or_more)
    pace: float = field(default=0.25, validator=zero_or_more)
    cache: ProfileCache | None = field(
        default=None, validator=of_class(ProfileCache, optional=True)
    )
