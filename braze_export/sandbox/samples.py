"""What users look like: profiles of three sizes, made from a seed.

The fields and their oddities are those of the samples on
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier/
and https://www.braze.com/docs/api/objects_filters/user_attributes_object/ . Undocumented, and
therefore varied: ``sessions`` as text or integer; unknown ``gender`` as "nil", null or absent;
latitude first in ``last_coordinates``; time zones by their Rails names; three forms of
timestamps; absent and null fields.

A value of the form ``<<name>>`` is a slot: it is filled in for each user.
"""

import random
from collections.abc import Callable
from typing import Any, Final

import attrs

Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class Shape:
    """How many of everything a profile has."""

    attributes: int = 0
    events: int = 0
    purchases: int = 0
    devices: int = 1
    campaigns: int = 0
    canvases: int = 0
    optional: bool = True


SHAPES: Final = {
    "small": Shape(optional=False),
    "typical": Shape(attributes=10, events=3, purchases=1, campaigns=1),
    "full": Shape(attributes=80, events=40, purchases=20, devices=3, campaigns=14, canvases=8),
}

_NAMES = (
    ("Alex", "Smith"),
    ("Zoë", "Müller"),
    ("Łucja", "Wiśniewska"),
    ("さくら", "田中"),
    ("José", "O'Neill"),
    ("Анна", "Ким"),
    ('Jo "Bo"', "back\\slash"),
    ("🦊", "line\u2028break"),
)
_PLACES = (
    ("Chicago", "US", "en", "Eastern Time (US & Canada)", 41.84157636433568, -87.83520818508256),
    ("Zürich", "CH", "de", "Bern", 47.376886, 8.541694),
    ("Łódź", "PL", "pl", "Warsaw", 51.759445, 19.457216),
    ("東京", "JP", "ja", "Asia/Tokyo", 35.6895, 139.69171),
    ("São Paulo", "BR", "pt", "America/Sao_Paulo", -23.5475, -46.63611),
)
_GENDERS = ("F", "M", "O", "N", "P", "nil", None)
_ATTRIBUTION = ("campaign", "source", "adgroup", "ad")
_ABSENT = ((), ("gender",), (), ("last_coordinates", "dob"), ("total_revenue", "language"))
_PLATFORMS = ("Android", "iOS", "Web")
_ENGAGEMENTS = ("opened_email", "opened_push", "clicked_email", "clicked_triggered_in_app_message")
_TEXTS = ("plain", "naïve café", "два слова", "漢字", "tab\tand\nline", "para\u2029graph", "")


def profile(size: str, number: int, seed: int) -> Json:
    """Make the template ``number`` of a size, its fields in the order of the documentation."""
    dice = random.Random(f"{seed} {size} {number}")
    shape = SHAPES[size]
    made = _identity(dice)
    if shape.optional:
        made |= _personal(dice, number) | _subscriptions(dice, number)
        made["custom_attributes"] = _attributes(dice, shape.attributes)
    made |= _history(dice, shape, number)
    # Braze sends as little as possible: what is empty is absent.
    return {key: value for key, value in made.items() if value not in ([], {})}


def _identity(dice: random.Random) -> Json:
    return {
        "created_at": _time(dice, "{} {}.{} UTC"),
        "external_id": "<<external_id>>",
        "user_aliases": [{"alias_name": "<<alias_name>>", "alias_label": "amplitude_id"}],
        "braze_id": "<<braze_id>>",
        "random_bucket": "<<random_bucket>>",
        "email": "<<email>>",
        "phone": "<<phone>>",
    }


def _personal(dice: random.Random, number: int) -> Json:
    first, last = _NAMES[number % len(_NAMES)]
    city, country, language, zone, latitude, longitude = dice.choice(_PLACES)
    revenue = dice.randrange(10_000)
    made: Json = {
        "first_name": first,
        "last_name": last if number % 6 else None,
        "dob": f"19{dice.randrange(40, 100)}-12-21",
        "home_city": city if number % 5 else None,
        "country": country,
        "language": language,
        "time_zone": zone,
        "last_coordinates": [latitude, longitude],
        "gender": _GENDERS[number % len(_GENDERS)],
        "total_revenue": revenue if number % 2 else revenue + 0.99,
    }
    if number % 4 == 0:
        made |= {f"attributed_{part}": f"braze_test_{part}_072219" for part in _ATTRIBUTION}
    if number % 8 == 3:
        made["uninstalled_at"] = _zulu(dice)
    for key in _ABSENT[number % len(_ABSENT)]:
        del made[key]
    return made


def _subscriptions(dice: random.Random, number: int) -> Json:
    states = ("opted_in", "subscribed", "unsubscribed")
    push, email = states[number % 3], states[number // 3 % 3]
    made = {"push_subscribe": push, "email_subscribe": email}
    for kind, state in (("push", push), ("email", email)):
        if state != "subscribed":
            made[f"{kind}_{state}_at"] = _zulu(dice)
    return made


def _attributes(dice: random.Random, count: int) -> Json:
    made: Json = {
        "loyaltyId": _uuid(dice),
        "loyaltyPoints": "321",
        "ledger": 2**63 + dice.getrandbits(40),
        "score": dice.random(),
        "is_vip": dice.random() < 0.5,
        "nothing": None,
        "motto": "one\u2028two " + dice.choice(_TEXTS),
        "nested": {"k": 1, "list": [{"deep": True}, None, -0.5]},
        "when": _zulu(dice),
        "tags": ["a", "b", "ß"],
    }
    makers: tuple[Callable[[], Any], ...] = (
        lambda: dice.choice(_TEXTS),
        lambda: dice.randrange(-(10**9), 10**9),
        lambda: round(dice.uniform(-1e6, 1e6), 3),
        lambda: dice.random() < 0.5,
        lambda: _zulu(dice),
    )
    more = count - len(made)
    return made | {f"attribute_{n}": makers[n % len(makers)]() for n in range(more)}


def _history(dice: random.Random, shape: Shape, number: int) -> Json:
    return {
        "custom_events": [_counted(dice, f"Event {n}") for n in range(shape.events)],
        "purchases": [_counted(dice, f"item_{40_000 + n}") for n in range(shape.purchases)],
        "devices": [_device(dice, n) for n in range(shape.devices)],
        "push_tokens": [_token(dice, n) for n in range(shape.devices) if shape.optional],
        "apps": [_app(dice, n, number) for n in range(shape.devices) if shape.optional],
        "campaigns_received": [_campaign(dice, n) for n in range(shape.campaigns)],
        "canvases_received": [_canvas(dice, n) for n in range(shape.canvases)],
        "cards_clicked": [{"name": "Loyalty Promo"}] * (shape.canvases > 0),
    }


def _counted(dice: random.Random, name: str) -> Json:
    first, last = sorted((_zulu(dice), _zulu(dice)))
    return {"name": name, "first": first, "last": last, "count": dice.randrange(1, 99)}


def _device(dice: random.Random, n: int) -> Json:
    # The first device is the one that the user can be found by.
    made: Json = {
        "model": ("Pixel XL", "iPhone 12", "Chrome")[n % 3],
        "os": ("Android (Q)", "iOS 15.4", "Linux")[n % 3],
        "carrier": "Verizon" if n else None,
        "device_id": _uuid(dice) if n else "<<device_id>>",
        "ad_tracking_enabled": not n % 2,
    }
    return made | ({"idfv": _uuid(dice).upper(), "google_ad_id": None} if n % 3 == 1 else {})


def _token(dice: random.Random, n: int) -> Json:
    return {
        "app": "MovieCanon",
        "platform": _PLATFORMS[n % 3],
        "token": f"{dice.getrandbits(256):064x}",
        "device_id": _uuid(dice) if n else "<<device_id>>",
        "notifications_enabled": dice.random() < 0.5,
        "provisionally_opted_in": False if n % 3 == 1 else None,
    }


def _app(dice: random.Random, n: int, number: int) -> Json:
    sessions = dice.randrange(5_000)
    first, last = sorted((_zulu(dice), _zulu(dice)))
    return {
        "name": "MovieCannon",
        "platform": _PLATFORMS[n % 3],
        "version": "3.29.0",
        "sessions": str(sessions) if number % 2 else sessions,
        "first_used": first,
        "last_used": last,
    }


def _campaign(dice: random.Random, n: int) -> Json:
    made: Json = {
        "name": f"Campaign {n}",
        "api_campaign_id": _uuid(dice),
        "last_received": _zulu(dice),
        "engaged": {key: True for key in _ENGAGEMENTS if dice.random() < 0.5},
        "converted": n % 2 == 0,
    }
    if n % 2:
        return made
    return made | {
        "multiple_converted": {"Primary Conversion Event - A": True},
        "in_control": False,
        "variation_name": "Variant 1",
        "variation_api_id": _uuid(dice),
    }


def _canvas(dice: random.Random, n: int) -> Json:
    steps = [
        {"name": f"Step {s}", "api_canvas_step_id": _uuid(dice), "last_received": _zulu(dice)}
        for s in range(3)
    ]
    return {
        "name": f"Canvas {n}  4/21/21",
        "api_canvas_id": _uuid(dice),
        "last_received_message": _zulu(dice),
        "last_entered": _time(dice, "{}T{}.{}+00:00"),
        "variation_name": "Variant 1",
        "in_control": False,
        "last_entered_control_at": None,
        "last_exited": _zulu(dice),
        "steps_received": steps,
    }


def _uuid(dice: random.Random) -> str:
    digits = f"{dice.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _zulu(dice: random.Random) -> str:
    return _time(dice, "{}T{}.{}Z")


def _time(dice: random.Random, form: str) -> str:
    """Make a timestamp in one of the three forms that the samples of Braze show."""
    date = f"202{dice.randrange(6)}-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}"
    time = f"{dice.randrange(24):02}:{dice.randrange(60):02}:{dice.randrange(60):02}"
    return form.format(date, time, f"{dice.randrange(1000):03}")
