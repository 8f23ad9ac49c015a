"""Giving way: work that never waits must not hold the event loop."""

import asyncio
from typing import Final

_TURN: Final = 0.001  # seconds of work after which other tasks get their turn


class Turn:
    """Lets other tasks run now and then while records are decoded one after another."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()

    @property
    def over(self) -> bool:
        """Whether the turn has lasted long enough."""
        return self._clock() - self._since > _TURN

    async def give_way(self) -> None:
        """Let the others run, and begin another turn."""
        await asyncio.sleep(0)
        self._since = self._clock()
