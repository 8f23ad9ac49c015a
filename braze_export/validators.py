"""Checks of settings, for attrs fields, and of arguments. What is wrong raises ``InputError``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from attrs import Attribute

from braze_export.errors import InputError

T = TypeVar("T")

Validator: TypeAlias = Callable[[object, "Attribute[Any]", object], None]


def above_zero(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Take finite numbers above zero."""
    if not (_is_number(value) and 0 < value < float("inf")):  # type: ignore[operator]
        raise InputError(f"{attribute.name} must be a number above zero, not {value!r}")


def zero_or_more(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Take numbers from zero up, infinity among them."""
    if not (_is_number(value) and value >= 0):  # type: ignore[operator]
        raise InputError(f"{attribute.name} must be a number of zero or more, not {value!r}")


def whole_above_zero(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Take whole numbers above zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{attribute.name} must be a whole number above zero, not {value!r}")


def share_of_one(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Take numbers from 0 up to but not including 1."""
    if not (_is_number(value) and 0 <= value < 1):  # type: ignore[operator]
        raise InputError(f"{attribute.name} must be a share from 0 to below 1, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def of_class(kind: type, *, optional: bool = False) -> Validator:
    """Return what takes objects of a class, and ``None`` where there need not be one."""

    def check(_: object, attribute: "Attribute[Any]", value: object) -> None:
        check_class(value, kind, attribute.name, optional=optional)

    return check


def check_class(value: object, kind: type, name: str, *, optional: bool = False) -> None:
    """Accept an object of a class, and ``None`` where there need not be one.

    Raises:
        InputError: it is something else.
    """
    if not (isinstance(value, kind) or (optional and value is None)):
        allowed = f"{kind.__name__}(...){' or None' if optional else ''}"
        raise InputError(f"{name} must be {allowed}, not {called(value)}")


def or_default(value: T | None, kind: type[T], name: str) -> T:
    """Return an argument; where it was left out, what its class is by default.

    Raises:
        InputError: it is of another class.
    """
    given = kind() if value is None else value
    check_class(given, kind, name)
    return given


def check_methods(value: object, kind: str, name: str, methods: tuple[str, ...]) -> None:
    """Accept an object of whatever class that has these methods.

    Raises:
        InputError: it lacks some, or it is a class itself.
    """
    wrong = f"{name} must have the methods of {kind}: "
    if isinstance(value, type):
        raise InputError(f"{wrong}{value.__name__} is a class, give an object of it")
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise InputError(f"{wrong}{type(value).__name__} lacks {', '.join(missing)}")


def check_hook(hook: object) -> None:
    """Accept what can be told of progress, or ``None``.

    Raises:
        InputError: it cannot be called.
    """
    if hook is not None and not callable(hook):
        raise InputError(f"on_progress must be a function, plain or async, not {called(hook)}")


def check_interval(seconds: object, name: str) -> None:
    """Accept seconds above zero, infinity for never.

    Raises:
        InputError: it is something else.
    """
    if not (_is_number(seconds) and seconds > 0):  # type: ignore[operator]
        raise InputError(f"{name} must be a number of seconds above zero, not {seconds!r}")


def as_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Return a path.

    Raises:
        InputError: it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{name} must be a str or a Path, not of type {type(path).__name__}")
    return Path(path)


def called(value: object) -> str:
    """Return what to call something that is wrong. Not its value, which may be a secret."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_timeout(timeout: float | None) -> None:
    """Accept seconds, from 0 on, or ``None``.

    Raises:
        InputError: it is neither.
    """
    if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
        raise InputError("timeout must be a number of seconds, 0 or more, or None")


def check_on_error(on_error: str) -> bool:
    """Return whether to keep going.

    Raises:
        InputError: neither ``"raise"`` nor ``"yield"``.
    """
    if on_error not in ("raise", "yield"):
        raise InputError(f'on_error must be "raise" or "yield", not {on_error!r}')
    return on_error == "yield"
