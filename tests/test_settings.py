"""The settings of waiting and reading: bounds, and the pauses that come of them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export.errors import InputError
from braze_export.settings import ExportSettings, LookupSettings, Polling, ProfileCache

NAN = float("nan")
INFINITY = float("inf")


def middle() -> float:
    return 0.5


def test_pauses_grow_by_half_up_to_the_cap() -> None:
    polling = Polling(base=2.0, cap=10.0)
    pauses = [polling.pause(number, middle) for number in range(1, 7)]
    assert pauses == pytest.approx([2.0, 3.0, 4.5, 6.75, 10.0, 10.0])


@given(
    number=st.integers(1, 10**9),
    rng=st.floats(0, 1, exclude_max=True),
    base=st.floats(1e-6, 1e6),
    cap=st.floats(1e-6, 1e6),
)
def test_a_pause_is_off_by_a_fifth_at_most(
    number: int, rng: float, base: float, cap: float
) -> None:
    polling = Polling(base=base, cap=cap)
    pause, straight = polling.pause(number, lambda: rng), polling.pause(number, middle)
    assert 0 < straight <= cap * 1.0001
    assert 0.7999 * straight <= pause <= 1.2001 * straight


def test_pauses_are_random() -> None:
    assert len({Polling().pause(1) for _ in range(20)}) > 1


@pytest.mark.parametrize("name", ["base", "cap", "lifetime"])
@pytest.mark.parametrize("value", [0, -1, NAN, INFINITY, "1", None, True])
def test_what_no_polling_can_be(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        Polling(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", 0),
        ("concurrency", 1.5),
        ("concurrency", True),
        ("quiet_period", -1),
        ("quiet_period", NAN),
        ("quiet_period", "60"),
        ("spool_memory", 0),
        ("spool_memory", None),
    ],
)
def test_what_no_setting_can_be(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        ExportSettings(**{name: value})


def test_what_settings_can_be() -> None:
    assert ExportSettings(quiet_period=INFINITY).quiet_period == INFINITY
    assert ExportSettings(quiet_period=0).quiet_period == 0
    assert ExportSettings().spool_directory is None
    assert ExportSettings(spool_directory="/var/tmp").spool_directory == Path("/var/tmp")


@pytest.mark.parametrize(
    ("settings", "name", "value", "said"),
    [
        (ExportSettings, "polling", 5, "Polling(...), not int"),
        (ExportSettings, "polling", None, "Polling(...), not NoneType"),
        (ExportSettings, "polling", Polling, "Polling(...), not the class Polling"),
        (ExportSettings, "archive_limits", 10**9, "ArchiveLimits(...), not int"),
        (ExportSettings, "archive_limits", Polling(), "ArchiveLimits(...), not Polling"),
        (ExportSettings, "spool_directory", 5, "a str or a Path, not of type int"),
        (LookupSettings, "cache", True, "ProfileCache(...) or None, not bool"),
        (LookupSettings, "cache", ProfileCache, "ProfileCache(...) or None, not the class Pr"),
    ],
)
def test_settings_of_another_class(settings: type, name: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        settings(**{name: value})
    assert str(caught.value).startswith(f"{name} must be {said}")


def test_settings_within_settings() -> None:
    assert ExportSettings(polling=Polling(base=2)).polling.base == 2
    assert LookupSettings(cache=None).cache is None
    assert LookupSettings(cache=ProfileCache()).cache == ProfileCache()
