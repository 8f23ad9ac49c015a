"""Checks of settings, for attrs fields, and of arguments. What is wrong raises ``InputError``."""

from typing import Any

from attrs import Attribute

from braze_export.errors import InputError


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
