"""Where a Dask worker finds what must not lie in a task graph: the API key, the URL of Redis."""

import os
import re
from collections.abc import Callable
from typing import Any, Final

from attrs import field, frozen

from braze_export.errors import InputError

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")  # no key and no URL looks like this


def _check_source(secret: "Secret", _: object, source: Any) -> None:
    # What was given is not in the message: it may be the secret itself.
    if not callable(source) and not (isinstance(source, str) and _VARIABLE.fullmatch(source)):
        raise InputError(
            f"{secret.what} must be the name of an environment variable of the workers, in "
            "capitals, or a function that returns it on the worker; never the secret itself, "
            "which would lie in the task graph"
        )


@frozen
class Secret:
    """Says where a worker finds a secret. Does not hold it.

    Attributes:
        what: it is.
        source: the name of an environment variable, or a function to call on the worker.
    """

    what: str
    source: str | Callable[[], str] = field(validator=_check_source)

    def value(self) -> str:
        """Return the secret. On the worker.

        Raises:
            InputError: the worker does not have it.
        """
        source = self.source
        found = os.environ.get(source) if isinstance(source, str) else source()
        if not isinstance(found, str) or not found:
            raise InputError(f"{self.what}: this worker gets nothing from {self.place}")
        return found

    @property
    def place(self) -> str:
        """Where the secret is, in words."""
        named = isinstance(self.source, str)
        return f"its environment variable {self.source}" if named else "the function given"
