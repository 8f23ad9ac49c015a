from datetime import UTC, date, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given

from braze_export.models.lenient import structure_leniently
from braze_export.models.profile import (
    Activity,
    App,
    CampaignReceived,
    CanvasReceived,
    Device,
    PushToken,
    UserProfile,
)
from braze_export.models.segments import Segment, SegmentDetails, SegmentSize
from tests.payloads import objects, profiles

NOON = datetime(2021, 6, 28, 12, tzinfo=UTC)
CEST = datetime.fromisoformat("2021-06-28T14:00:00+02:00")


@pytest.mark.parametrize(
    ("cls", "data", "made", "misfits"),
    [
        (Device, {}, Device(), set()),
        (Device, {"model": None, "new": 1}, Device(), set()),
        (Device, {"model": 5}, Device(model="5"), set()),
        (Device, {"model": 1.5}, Device(model="1.5"), set()),
        (Device, {"model": True, "os": "iOS"}, Device(os="iOS"), {"model"}),
        (Device, {"model": ["x"]}, Device(), {"model"}),
        (Device, {"ad_tracking_enabled": "true"}, Device(ad_tracking_enabled=True), set()),
        (Device, {"ad_tracking_enabled": 0}, Device(ad_tracking_enabled=False), set()),
        (Device, {"ad_tracking_enabled": "?"}, Device(), {"ad_tracking_enabled"}),
        (PushToken, {"notifications_enabled": None}, PushToken(), set()),
        (App, {"sessions": "1129"}, App(sessions=1129), set()),
        (App, {"sessions": 1129.0}, App(sessions=1129), set()),
        (App, {"sessions": 1.5}, App(), {"sessions"}),
        (App, {"sessions": True}, App(), {"sessions"}),
        (App, {"sessions": 2**70}, App(sessions=2**70), set()),
        (App, {"sessions": "null"}, App(), set()),
        (Activity, {"first": "2021-06-28T12:00:00Z"}, Activity(first=NOON), set()),
        (Activity, {"first": "2021-06-28T14:00:00+02:00"}, Activity(first=CEST), set()),
        (Activity, {"first": "2021-06-28 12:00:00 UTC"}, Activity(first=NOON), set()),
        (Activity, {"first": "2021-06-28T12:00:00"}, Activity(first=NOON), set()),
        (Activity, {"first": "soon"}, Activity(), {"first"}),
        (Activity, {"first": True}, Activity(), {"first"}),
        (Activity, {"first": 10**400}, Activity(), {"first"}),
        (
            CampaignReceived,
            {"engaged": {"a": True, "b": None, "c": "?"}},
            CampaignReceived(engaged={"a": True, "b": None}),
            {"engaged"},
        ),
        (CampaignReceived, {"engaged": ["a"]}, CampaignReceived(), {"engaged"}),
        (CanvasReceived, {"steps_received": {}}, CanvasReceived(), {"steps_received"}),
        (CanvasReceived, {"steps_received": [1]}, CanvasReceived(), {"steps_received"}),
        (Segment, {"id": 5, "tags": ["a", 1, None]}, Segment(id="5", tags=("a", "1")), {"tags"}),
        (Segment, {"tags": None}, Segment(), set()),
        (Segment, {"tags": "a"}, Segment(), {"tags"}),
        (
            SegmentDetails,
            {"created_at": "2021-06-28 12:00:00 UTC"},
            SegmentDetails(created_at=NOON),
            set(),
        ),
        (SegmentDetails, {"created_at": 5}, SegmentDetails(), {"created_at"}),
        (SegmentDetails, {"teams": None}, SegmentDetails(), set()),
        (
            SegmentSize,
            {"time": "2018-06-26", "size": "7"},
            SegmentSize(time=date(2018, 6, 26), size=7),
            set(),
        ),
        (SegmentSize, {"time": "26.6.2018"}, SegmentSize(), {"time"}),
        (
            UserProfile,
            {"last_coordinates": [1, "2.5"]},
            UserProfile(last_coordinates=(1.0, 2.5)),
            set(),
        ),
        (
            UserProfile,
            {"last_coordinates": [10**400, 1]},
            UserProfile(last_coordinates=(1.0,)),
            {"last_coordinates"},
        ),
        (
            UserProfile,
            {"custom_attributes": {"a": None}},
            UserProfile(custom_attributes={"a": None}),
            set(),
        ),
        (UserProfile, {"custom_attributes": [1]}, UserProfile(), {"custom_attributes"}),
        (UserProfile, {"total_revenue": "65.5"}, UserProfile(total_revenue=65.5), set()),
        (UserProfile, {"_raw": 1, "_misfits": 2}, UserProfile(), set()),
    ],
)
def test_what_fits_is_kept_and_what_does_not_is_named(
    cls: type[Any], data: dict[str, Any], made: Any, misfits: set[str]
) -> None:
    found, odd = structure_leniently(cls, data)
    assert found == made
    assert repr(found) == repr(made)  # 1 is not True, and 1.0 is not 1
    assert odd == misfits


@given(profiles)
def test_the_keys_named_were_sent_and_are_ours(data: dict[str, Any]) -> None:
    made, misfits = structure_leniently(UserProfile, data)
    assert type(made) is UserProfile
    assert misfits <= data.keys() & {a.name for a in attrs.fields(UserProfile)}


@given(objects(SegmentDetails))
def test_what_was_kept_fits_when_it_comes_again(data: dict[str, Any]) -> None:
    made, _ = structure_leniently(SegmentDetails, data)
    shown = attrs.asdict(made)
    again = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in shown.items()}
    again = {k: list(v) if isinstance(v, tuple) else v for k, v in again.items()}
    assert structure_leniently(SegmentDetails, again) == (made, frozenset())
