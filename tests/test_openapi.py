"""Records as pydantic types: read, written and described, alone, in models and in FastAPI."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any

import attrs
import httpx
import pytest
from fastapi import Body, FastAPI
from hypothesis import given
from pydantic import BaseModel, TypeAdapter, ValidationError

from braze_export import UserProfile
from braze_export.codec import decode_profile
from braze_export.models import profile as of_profile
from braze_export.models import segments as of_segments
from braze_export.models.lenient import structure_leniently
from braze_export.models.record import Record
from tests.payloads import USERS, encode, profiles, sample

RECORDS = [
    kind
    for room in (of_profile, of_segments)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]
NESTED = {k.__name__ for k in RECORDS} - {"Segment", "SegmentDetails", "SegmentSize"}
WHEN = datetime(2021, 6, 28, 17, 2, 43, 32000, tzinfo=UTC)
ADAPTER = TypeAdapter(UserProfile)
ALLOWED = (
    "Input should be an instance of {}, or an object that holds nothing but what JSON can hold"
)
SUPERSET = sample("user_superset_all_known_fields.json")

#: A record, and the JSON that is written of it.
WRITTEN: list[tuple[Record, str]] = [
    (of_profile.Device(), "{}"),
    (of_profile.Device(model="Pixel", ad_tracking_enabled=False),
     '{"model":"Pixel","ad_tracking_enabled":false}'),
    (of_profile.Activity(first=WHEN, count=0), '{"first":"2021-06-28T17:02:43.032000Z","count":0}'),
    (of_profile.CampaignReceived(engaged={"opened_email": None}),
     '{"engaged":{"opened_email":null}}'),
    (of_profile.CanvasReceived(steps_received=(of_profile.CanvasStep(name="a"),)),
     '{"steps_received":[{"name":"a"}]}'),
    (of_profile.CardClicked(name="half \ud83d"), '{"name":"half ?"}'),
    (of_segments.Segment(id="1", tags=("a", "b")), '{"id":"1","tags":["a","b"]}'),
    (of_segments.SegmentDetails(created_at=WHEN), '{"created_at":"2021-06-28T17:02:43.032000Z"}'),
    (of_segments.SegmentSize(time=date(2024, 2, 29), size=7), '{"time":"2024-02-29","size":7}'),
    (UserProfile(), "{}"),
    (UserProfile(email="a@b.c", dob=date(1980, 12, 21), last_coordinates=(1.5, -2.0)),
     '{"email":"a@b.c","dob":"1980-12-21","last_coordinates":[1.5,-2.0]}'),
]  # fmt: skip

#: What Braze sends of a user, and what is written of it where that is something else.
SENT: list[tuple[bytes, bytes | None]] = [
    (b'{"external_id":"a"}', None),
    (b'{"custom_attributes":{"a":null,"b":[{}]}}', None),
    (b'{"total_revenue":65,"new":{"deep":[1,null]}}', None),
    (b'{"devices":[{"model":"a","new":1},{"new":null}]}', None),
    (b'{"canvases_received":[{"name":"a","steps_received":[{"name":"b","new":[1]}]}]}', None),
    (b'{"email":["odd"],"devices":[{"model":"a","carrier":[]},7]}', None),
    (b'{"devices":{"model":"a"}}', None),
    (b'{"_raw":"x","_misfits":["email"],"extra":{"raw":1}}', None),
    (b'{"new":1%s}' % (b"0" * 400), None),
    (b'{"email":null,"devices":[],"new":null}', b'{"new":null}'),
    (b'{"apps":[{"sessions":"12","name":null}]}', b'{"apps":[{"sessions":12}]}'),
    (b'{"created_at":"2020-07-10 15:00:00.000 UTC"}', b'{"created_at":"2020-07-10T15:00:00Z"}'),
    (b'{"apps":[{"first_used":"2020-07-10 15:00:00.000 UTC","new":1}]}',
     b'{"apps":[{"first_used":"2020-07-10T15:00:00Z","new":1}]}'),
    (b'{"email":"half \\ud83d","new":{"\\ud83d":1}}', b'{"email":"half ?","new":{"?":1}}'),
    (b'{"email":"a","new":1e999}', b'{"email":"a","new":null}'),
    (b'{"total_revenue":"nan"}', b'{"total_revenue":null}'),
    (b'{"email":"a","new":1%s}' % (b"0" * 5000), b'{"email":"a"}'),  # more than Python holds
]  # fmt: skip


def api() -> FastAPI:
    app = FastAPI()
    found = decode_profile(SUPERSET)

    @app.get("/one")
    async def one() -> UserProfile:
        return found

    @app.get("/perhaps")
    async def perhaps() -> UserProfile | None:
        return None

    @app.get("/several")
    async def several() -> list[UserProfile]:
        return [found, UserProfile(external_id="b")]

    @app.get("/without", response_model_exclude={"email", "devices"})
    async def without() -> UserProfile:
        return found

    @app.get("/plain", response_model=UserProfile)
    async def plain() -> Any:
        return {"external_id": "c", "country": None, "new": 1}

    @app.get("/owned")
    async def owned() -> Owned:
        return Owned(label="x", user=found, sizes={"a": of_segments.SegmentSize(size=1)})

    @app.get("/segments")
    async def segments() -> list[of_segments.Segment] | of_segments.SegmentDetails:
        return of_segments.SegmentDetails(name="all", updated_at=WHEN)

    return app


class Owned(BaseModel):
    label: str
    user: UserProfile | None = None
    sizes: dict[str, of_segments.SegmentSize] = {}


async def get(path: str, app: FastAPI | None = None) -> Any:
    transport = httpx.ASGITransport(app=app or api())
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        return answer.json()


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


# --- reading


@pytest.mark.parametrize("kind", RECORDS)
def test_an_instance_passes_as_it_is(kind: type[Record]) -> None:
    record = kind()
    for strict in (False, True):
        assert TypeAdapter(kind).validate_python(record, strict=strict) is record


@pytest.mark.parametrize("kind", RECORDS)
def test_an_object_is_read_as_the_client_reads_it(kind: type[Record]) -> None:
    data = {a.name: "12" for a in attrs.fields(kind)} | {"unknown": 1}
    expected, _ = structure_leniently(kind, data)
    assert TypeAdapter(kind).validate_python(data) == expected
    assert TypeAdapter(kind).validate_json(json.dumps(data)) == expected
    assert TypeAdapter(kind).validate_json(json.dumps(data), strict=True) == expected


@given(profiles)
def test_a_profile_is_read_from_a_dictionary_with_what_has_no_place(data: dict[str, Any]) -> None:
    read = ADAPTER.validate_python(data)
    sent = decode_profile(read.raw)
    assert (repr(read), read.extra) == (repr(sent), sent.extra)
    assert json.loads(read.raw) == json.loads(encode(data))


@pytest.mark.parametrize("data", [None, 1, "a", [], [{}], b"{}", of_profile.Device()], ids=repr)
def test_what_is_no_object_is_one_error_that_says_what_is_allowed(data: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(data)
    (error,) = caught.value.errors()
    assert error["type"] == "record_type"
    assert error["msg"] == ALLOWED.format("UserProfile")


@pytest.mark.parametrize("value", [object(), {1, object()}, UserProfile, lambda: None])
@pytest.mark.parametrize("kind", [UserProfile, of_profile.Device])
def test_what_json_cannot_hold_is_one_error_that_quotes_nothing(kind: Any, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python({"email": "a@b.c", "model": value})
    (error,) = caught.value.errors(include_input=False)
    assert error["msg"] == ALLOWED.format(kind.__name__)


def test_where_pydantic_is_strict_python_passes_an_instance() -> None:
    with pytest.raises(ValidationError, match="instance of UserProfile"):
        ADAPTER.validate_python({"email": "a@b.c"}, strict=True)


# --- writing


@pytest.mark.parametrize(("record", "expected"), WRITTEN)
def test_what_is_written_of_a_record(record: Record, expected: str) -> None:
    adapter = TypeAdapter(type(record))
    assert adapter.dump_json(record).decode() == expected
    assert adapter.dump_python(record, mode="json") == json.loads(expected)


def test_every_kind_of_record_is_among_the_examples() -> None:
    tried = {type(record).__name__ for record, _ in WRITTEN}
    within = {"AliasRecord", "PushToken", "App", "CanvasStep"}  # in the sample below
    assert tried | within == {kind.__name__ for kind in RECORDS}


@pytest.mark.parametrize(("sent", "expected"), SENT, ids=lambda raw: str(raw)[:60])
def test_what_braze_sends_is_written_with_its_unknown_keys(
    sent: bytes, expected: bytes | None
) -> None:
    profile = decode_profile(sent)
    written = ADAPTER.dump_json(profile)
    assert json.loads(written) == json.loads(expected or sent)
    assert ADAPTER.dump_python(profile, mode="json") == json.loads(written)


@given(profiles)
def test_what_is_written_is_json_and_read_again_the_same_profile(data: dict[str, Any]) -> None:
    profile = decode_profile(encode(data))
    written = json.loads(ADAPTER.dump_json(profile), parse_constant=pytest.fail)
    assert written.keys() >= profile.extra.keys()
    # Halves of characters and numbers out of range are no JSON; they have examples above.
    if "\\ud" not in json.dumps(data) and "nan" not in repr(profile):
        again = ADAPTER.validate_python(written)
        assert (again, again.extra) == (profile, profile.extra)


@pytest.mark.parametrize("name", USERS)
def test_python_keeps_moments_and_nothing_is_lost(name: str) -> None:
    profile = decode_profile(sample(name))
    plain = ADAPTER.dump_python(profile)
    shown = {a.name for a in attrs.fields(UserProfile)} & plain.keys()
    assert {n: plain[n] for n in shown if not isinstance(plain[n], list | tuple)} == {
        n: getattr(profile, n) for n in shown if not isinstance(plain[n], list | tuple)
    }
    assert ADAPTER.validate_python(plain) == profile


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"include": {"email"}}, {"email": "a"}),
        ({"exclude": {"email", "new"}}, {"devices": [{"model": "b", "os": "c"}]}),
        ({"exclude": {"email": True, "new": True, "devices": {"__all__": {"os"}}}},
         {"devices": [{"model": "b"}]}),
        ({"exclude": set()}, None),
    ],
)  # fmt: skip
def test_what_is_excluded_is_not_written(choice: Any, expected: Any) -> None:
    sent = {"email": "a", "devices": [{"model": "b", "os": "c"}], "new": 1}
    profile = decode_profile(encode(sent))
    assert json.loads(ADAPTER.dump_json(profile, **choice)) == (expected or sent)
    assert ADAPTER.dump_python(profile, mode="json", **choice) == (expected or sent)


# --- describing


@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize("kind", RECORDS)
def test_every_record_is_described(kind: type[Record], mode: Any) -> None:
    schema = TypeAdapter(kind).json_schema(mode=mode)
    components = schema.pop("$defs", {})
    mine = components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    assert mine["title"] == kind.__name__
    assert kind.__doc__
    assert mine["description"].startswith(kind.__doc__.split("\n")[0])
    assert (mine["type"], "required" in mine) == ("object", False)
    assert list(mine["properties"]) == [a.name for a in attrs.fields(kind)]
    assert mine.get("additionalProperties", False) is (kind is UserProfile)
    null_allowed = [{"type": "null"} in p.get("anyOf", ()) for p in mine["properties"].values()]
    assert set(null_allowed) == {mode == "validation"}
    assert {r.rpartition("/")[2] for r in references([schema, components])} <= components.keys()


def test_properties_have_their_types_and_formats() -> None:
    schema = ADAPTER.json_schema(mode="serialization")
    found = {
        name: {key: value for key, value in kind.items() if key != "title"}
        for name, kind in (
            schema["properties"] if "properties" in schema else schema["$defs"]["UserProfile"]
        ).items()
    }
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    assert found["email"] == text
    assert found["created_at"] == found["uninstalled_at"] == moment
    assert found["dob"] == {"type": "string", "format": "date"}
    assert found["random_bucket"] == {"type": "integer"}
    assert found["total_revenue"] == {"anyOf": [{"type": "integer"}, {"type": "number"}]}
    assert found["last_coordinates"] == {"type": "array", "items": {"type": "number"}}
    assert found["custom_attributes"]["type"] == "object"
    assert found["devices"] == {"type": "array", "items": {"$ref": "#/$defs/Device"}}
    assert schema["$defs"]["Activity"]["properties"]["first"] | {"title": ""} == moment | {
        "title": ""
    }


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_braze_s_samples_are_what_is_described(name: str, mode: Any) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = ADAPTER.json_schema(mode=mode)
    jsonschema.Draft202012Validator.check_schema(schema)
    written = ADAPTER.dump_python(decode_profile(sample(name)), mode="json")
    jsonschema.validate(written, schema, cls=jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written | {"email": 1}, schema)


# --- in FastAPI, and in models


def test_a_model_may_hold_records() -> None:
    data = {"label": "x", "user": {"email": "a", "new": 1}, "sizes": {"all": {"size": "3"}}}
    owned = Owned.model_validate(data)
    assert isinstance(owned.user, UserProfile)
    assert (owned.user.email, owned.user.extra) == ("a", {"new": 1})
    assert owned.sizes == {"all": of_segments.SegmentSize(size=3)}
    assert json.loads(owned.model_dump_json()) == data | {"sizes": {"all": {"size": 3}}}
    assert Owned.model_validate_json(owned.model_dump_json()) == owned
    assert Owned(label="y").model_dump() == {"label": "y", "user": None, "sizes": {}}
    assert "UserProfile" in Owned.model_json_schema()["$defs"]


def test_what_is_no_record_is_written_as_it_is() -> None:
    several: TypeAdapter[Any] = TypeAdapter(UserProfile | list[str] | None)
    one: TypeAdapter[Any] = TypeAdapter(UserProfile)
    for value in (["a"], None):
        assert several.dump_python(value) == one.dump_python(value) == value


EVERYTHING = ADAPTER.dump_python(decode_profile(SUPERSET), mode="json")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/one", EVERYTHING),
        ("/perhaps", None),
        ("/several", [EVERYTHING, {"external_id": "b"}]),
        ("/without", {k: v for k, v in EVERYTHING.items() if k not in {"email", "devices"}}),
        ("/plain", {"external_id": "c", "new": 1}),
        ("/owned", {"label": "x", "user": EVERYTHING, "sizes": {"a": {"size": 1}}}),
        ("/segments", {"name": "all", "updated_at": "2021-06-28T17:02:43.032000Z"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_fastapi_answers_with_records(path: str, expected: Any) -> None:
    assert await get(path) == expected


async def test_openapi_shows_every_record_as_a_component() -> None:
    schema = await get("/openapi.json")
    components = schema["components"]["schemas"]
    others = {"Owned", "Segment", "SegmentDetails", "SegmentSize"}
    assert components.keys() == NESTED | others
    answers = {
        path: of["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for path, of in schema["paths"].items()
    }
    user = {"$ref": "#/components/schemas/UserProfile"}
    assert answers["/one"] == answers["/plain"] == user
    assert answers["/perhaps"]["anyOf"] == [user, {"type": "null"}]
    assert answers["/several"]["items"] == user
    assert "$defs" not in json.dumps(schema)
    known = {f"#/components/schemas/{name}" for name in components}
    assert set(references(schema)) <= known
    assert {"#/components/schemas/CanvasStep", "#/components/schemas/Device"} <= known


async def test_what_is_read_is_described_apart_from_what_is_written() -> None:
    app = FastAPI()

    @app.post("/echo")
    async def echo(user: Annotated[UserProfile, Body()]) -> UserProfile:
        return user

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.post("/echo", json={"email": "a", "phone": None, "new": [1]})
        refused = await http.post("/echo", json=[])
    assert answer.json() == {"email": "a", "new": [1]}
    assert refused.status_code == 422
    components = app.openapi()["components"]["schemas"]
    email = {"type": "string", "title": "Email"}
    assert components["UserProfile-Output"]["properties"]["email"] == email
    assert {"type": "null"} in components["UserProfile-Input"]["properties"]["email"]["anyOf"]
    known = {f"#/components/schemas/{name}" for name in components}
    assert set(references(app.openapi())) <= known


def test_nothing_of_pydantic_is_imported_with_the_package() -> None:
    code = "import sys, braze_export; print([m for m in sys.modules if 'pydantic' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
