from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.models.timestamps import parse_moment, parse_timestamp

ZONES = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda gap: timezone(timedelta(minutes=gap // timedelta(minutes=1)))
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-06-28T17:02:43.032Z", datetime(2021, 6, 28, 17, 2, 43, 32_000, UTC)),
        ("2021-07-07T20:45:24.000+00:00", datetime(2021, 7, 7, 20, 45, 24, 0, UTC)),
        ("2020-07-10 15:00:00.000 UTC", datetime(2020, 7, 10, 15, 0, 0, 0, UTC)),
        ("2021-07-07T20:45:24.000+02:00", datetime(2021, 7, 7, 18, 45, 24, 0, UTC)),
        ("2021-07-07T20:45:24", datetime(2021, 7, 7, 20, 45, 24, 0, UTC)),
        ("2018-06-27T10:00:00Z", datetime(2018, 6, 27, 10, 0, 0, 0, UTC)),
        ("2018-06-27", datetime(2018, 6, 27, 0, 0, 0, 0, UTC)),
    ],
)
def test_the_forms_of_a_moment(text: str, expected: datetime) -> None:
    found = parse_timestamp(text)
    assert found == expected
    assert found.tzinfo is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        " UTC",
        "UTC",
        "5",
        "1624899763",
        "2021-13-01T00:00:00Z",
        "2021-06-28T17:02:43 PST",
        "2021-02-30 UTC",
        "\ud83d",
    ],
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|must be in|out of range"):
        parse_timestamp(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_is_read_in_every_form(when: datetime) -> None:
    iso = when.isoformat()
    for text in (iso, iso.replace("+00:00", "Z"), iso.replace("T", " ").replace("+00:00", " UTC")):
        assert parse_timestamp(text) == when


@given(st.text(st.characters()))
def test_any_text_gives_an_aware_moment_or_a_value_error(text: str) -> None:
    try:
        found = parse_timestamp(text)
    except ValueError:
        return
    assert found.utcoffset() is not None


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=ZONES))  # noqa: DTZ001
def test_a_moment_with_a_zone_is_taken_in_utc(when: datetime) -> None:
    for given_as in (when, when.isoformat()):
        found = parse_moment(given_as, "ending_at")
        assert found == when
        assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("soon", "is no ISO 8601 time"),
        ("", "is no ISO 8601 time"),
        ("2026-01-31", "has no time zone"),
        ("2026-01-31T00:00:00", "has no time zone"),
        (datetime(2026, 1, 31), "has no time zone"),  # noqa: DTZ001
        (date(2026, 1, 31), "is of type date"),
        (5, "is of type int"),
        (None, "is of type NoneType"),
        (b"2026-01-31T00:00:00Z", "is of type bytes"),
    ],
)
def test_what_is_no_moment_to_end_at(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"ending_at.*{said}.*allowed are"):
        parse_moment(value, "ending_at")


@pytest.mark.parametrize(
    "value",
    [datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "9999-12-31T23:59:59-01:00"],
)
def test_a_moment_that_utc_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="ending_at"):
        parse_moment(value, "ending_at")
