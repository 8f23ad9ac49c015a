"""SIGTERM, which ends a program as Ctrl-C does: told, and with nothing half done left behind."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# 128 and the signal's number, as shells have it.
INTERRUPTED: Final = 130
TERMINATED: Final = 143


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does, and exit with 143 instead of 130 then."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are for the main thread
        return
    terminated = False

    def interrupt(_number: int, frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True
        # That of the event loop, while one runs: it ends the tasks in good order.
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # Ctrl-C is ignored, as in a job of the background
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except SystemExit as end:
        if terminated and end.code == INTERRUPTED:
            raise SystemExit(TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
