"""Inside the process of a local Braze that obeys lines of JSON on its standard input."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from braze_export.sandbox import Sandbox


async def obeying(sandbox: Sandbox, obey: Callable[[Any], None]) -> None:
    """Tell where the sandbox is, and let each line be obeyed, until there are no more."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(obey, json.loads(line))
        loop.call_soon_threadsafe(ended.set)

    tell({"url": sandbox.url, "api_key": sandbox.api_key})
    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()


def tell(answer: Any) -> None:
    """Answer with a line of JSON."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
