"""Ctrl-C and SIGTERM while a job runs: first it ends in good order, then at once."""

import asyncio
import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from attrs import define, field

from braze_export.cli.screen import Screen
from braze_export.cli.signals import INTERRUPTED, TERMINATED


@define
class Stopping:
    """Takes the signals.

    Attributes:
        screen: is told.
        stop: set by the first signal.
        code: to exit with, by the last one.
    """

    screen: Screen
    stop: asyncio.Event = field(factory=asyncio.Event)
    code: int = INTERRUPTED

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the task that enters this runs; a second one cancels it."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        taken = {}
        for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
            before = signal.getsignal(number)
            if before == signal.SIG_IGN:  # as in a job of the background
                continue
            with suppress(NotImplementedError, ValueError, RuntimeError):  # no such thing there
                loop.add_signal_handler(number, functools.partial(self._on, task, code))
                taken[number] = before
        try:
            yield
        finally:
            for number, before in taken.items():
                loop.remove_signal_handler(number)
                signal.signal(number, before or signal.SIG_DFL)

    def tell_end(self) -> None:
        """Say that it was ended at once."""
        self.screen.say("Interrupted. Run the same command again to go on.")

    def _on(self, task: "asyncio.Task[Any]", code: int) -> None:
        self.code = code
        if self.stop.is_set():
            task.cancel()
            return
        self.stop.set()
        self.screen.say("Finishing what is under way. Once more ends it at once.")
