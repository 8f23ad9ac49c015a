"""Modules that take long to import, loaded when they are first used.

Every worker reads all files of tests, and runs but some of them.
"""

from importlib import import_module
from typing import Any

from attrs import frozen


@frozen
class Lazily:
    """Stands for a module."""

    _name: str

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # who looks for tests asks for such
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)
