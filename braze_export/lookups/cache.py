"""Answers of look-ups that are kept for a while."""

import asyncio
from typing import Any, Protocol, TypeAlias

import msgspec
from attrs import frozen

from braze_export.errors import InputError
from braze_export.identifiers import Identifier
from braze_export.settings import ProfileCache

_Key: TypeAlias = frozenset[str] | None


@frozen
class Known:
    """A user's JSON, or ``None`` for somebody whom Braze does not know."""

    user: bytes | None


class Cache(Protocol):
    """Keeps answers by the fields that were asked for, and the identifier."""

    def get(self, key: _Key, identifier: Identifier) -> Known | None:
        """Return what is known."""
        ...

    def put(self, key: _Key, identifier: Identifier, user: bytes | msgspec.Raw | None) -> None:
        """Keep an answer."""
        ...


class _Nothing:
    def get(self, key: _Key, identifier: Identifier) -> Known | None:
        """Return nothing."""

    def put(self, key: _Key, identifier: Identifier, user: bytes | msgspec.Raw | None) -> None:
        """Keep nothing."""


class _Answers:
    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def get(self, key: _Key, identifier: Identifier) -> Known | None:
        found: Known | None = self._kept.get((key, identifier))
        return found

    def put(self, key: _Key, identifier: Identifier, user: bytes | msgspec.Raw | None) -> None:
        # A copy: the slice of an answer would keep all of it.
        self._kept[key, identifier] = Known(None if user is None else bytes(user))


def open_cache(settings: ProfileCache | None) -> Cache:
    """Return a cache, or what keeps nothing.

    Raises:
        InputError: the extra is not installed.
    """
    if settings is None:
        return _Nothing()
    try:
        from cachetools import TTLCache  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError(
            'a cache needs the extra: python -m pip install "braze-export[cache]"'
        ) from None
    return _Answers(TTLCache(settings.max_profiles, settings.seconds, timer=_now))


def _now() -> float:
    return asyncio.get_running_loop().time()
