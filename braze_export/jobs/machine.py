"""Which start of the machine this is: what was written since, and not synced, ends with it."""

import time
from functools import lru_cache
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@lru_cache(1)
def start_of_machine() -> str:
    """Return a name of this start of the machine: another after each restart.

    Where the system has no such name, that of the moment at which its clock began. It may
    change without a restart, after which a little is done again.
    """
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"about {round((time.time() - time.monotonic()) / 60)} minutes"
