import dataclasses
import enum
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError, UserProfile
from braze_export.models import profile as records
from braze_export.structuring import field_names, structurer_for, why
from tests import postponed
from tests.payloads import objects, values

T = TypeVar("T")
Email = NewType("Email", str)
ABSENT = object()


class Gender(enum.StrEnum):
    FEMALE = "F"


class Older(str, enum.Enum):  # noqa: UP042 - as people wrote them before StrEnum
    FEMALE = "F"


class Plain(enum.Enum):
    FEMALE = "F"


class Bucket(enum.IntEnum):
    SEVEN = 7


def upper(text: str) -> str:
    return text.upper()


class Unknown:
    pass


class Typed(TypedDict):
    a: int


class Pair(NamedTuple):
    a: float
    b: float


@attrs.frozen
class Box(Generic[T]):
    value: T


@attrs.frozen
class Item:
    name: str
    count: int = 0
    children: "list[Item]" = attrs.Factory(list)


def filled(kind: Any, value: Any = ABSENT) -> Any:
    """What becomes of one field of a class."""
    into = attrs.make_class("Into", {"field": attrs.field(type=kind)})
    data = {} if value is ABSENT else {"field": value}
    return structurer_for(into)(data).field


def complaint(make: Callable[[], Any]) -> str:
    with pytest.raises((ValueError, TypeError, ExceptionGroup)) as caught:
        make()
    return why(caught.value)


NOON = datetime(2021, 6, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (str, "x", "x"),
        (str, "", ""),
        (str, "a\u2028\ud83d", "a\u2028\ud83d"),
        (Email, "x", "x"),
        (bool, True, True),
        (int, 5, 5),
        (int, "5", 5),
        (int, 5.0, 5),
        (int, 2**70, 2**70),
        (int, str(2**70), 2**70),
        (float, 1.5, 1.5),
        (float, 5, 5.0),
        (float, "1.5", 1.5),
        (Decimal, 1.5, Decimal("1.5")),
        (Decimal, "1.50", Decimal("1.50")),
        (Decimal, 7, Decimal(7)),
        (datetime, "2021-06-28T12:00:00.000Z", NOON),
        (datetime, "2021-06-28T12:00:00.000+00:00", NOON),
        (datetime, "2021-06-28 12:00:00.000 UTC", NOON),
        (date, "1980-12-21", date(1980, 12, 21)),
        (Gender, "F", Gender.FEMALE),
        (Older, "F", Older.FEMALE),
        (Plain, "F", Plain.FEMALE),
        (Bucket, 7, Bucket.SEVEN),
        (Literal["F", "M"], "M", "M"),
        (Any, [1, None], [1, None]),
        (list[str], ["a", "b"], ["a", "b"]),
        (list[list[int]], [[1], ["2"]], [[1], [2]]),
        (list, [1, "a"], [1, "a"]),
        (set[str], ["a", "a"], {"a"}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (tuple[str, ...], ["a"], ("a",)),
        (tuple[float, float], [1, "2"], (1.0, 2.0)),
        (Pair, [1, 2], Pair(1.0, 2.0)),
        (dict[str, int], {"a": "1"}, {"a": 1}),
        (dict, {"a": [1]}, {"a": [1]}),
        (Typed, {"a": "1"}, {"a": 1}),
        (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
        (Item, {"name": "a", "new": 1}, Item("a")),
        (list[Item], [{"name": "a", "children": [{"name": "b"}]}], [Item("a", 0, [Item("b")])]),
        (Box[int], {"value": "7"}, Box(7)),
        (Box[list[str]], {"value": ["a"]}, Box(["a"])),
        (postponed.User, {"external_id": "u1"}, postponed.User("u1", None, [])),
        (records.Device, {"model": "Pixel", "new": 1}, records.Device(model="Pixel")),
        (str | int | None, 5, 5),
        (str | int | None, "5", "5"),
        (str | list[str], "a", "a"),
        (str | list[str], ["a"], ["a"]),
    ],
)
def test_values_of_a_type(kind: Any, value: Any, expected: Any) -> None:
    found = filled(kind, value)
    assert found == expected
    assert type(found) is type(expected)
    nullable = filled(Optional[kind], value)  # noqa: UP045 - made from a variable
    assert nullable == expected
    assert type(nullable) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, 5),
        (str, True),
        (str, ["a"]),
        (Email, 5),
        (bool, 1),
        (bool, "true"),
        (int, True),
        (int, 1.5),
        (int, "1.5"),
        (int, "secret"),
        (int, []),
        (int, "9" * 5000),
        (float, True),
        (float, "secret"),
        (float, {}),
        (float, 10**400),
        (Decimal, "secret"),
        (Decimal, True),
        (datetime, 5),
        (datetime, "secret"),
        (datetime, "2021-13-01T00:00:00Z"),
        (date, 5),
        (date, "secret"),
        (date, "1980-12-21T00:00:00Z"),
        (Gender, "secret"),
        (Gender, 5),
        (Older, "secret"),
        (Plain, "secret"),
        (Bucket, 8),
        (Literal["F", "M"], "secret"),
        (list[str], "secret"),
        (list[str], {"secret": 1}),
        (list[str], ["a", 5]),
        (list[str], [None]),
        (list[list[str]], ["secret"]),
        (list, "secret"),
        (list, {"secret": 1}),
        (set[str], "secret"),
        (frozenset[str], "secret"),
        (tuple[str, ...], "secret"),
        (tuple[float, float], [1]),
        (tuple[float, float], [1, 2, 3]),
        (Sequence[str], "secret"),
        (dict[str, int], {"a": "secret"}),
        (dict[str, int], ["secret"]),
        (dict, ["secret"]),
        (dict, []),
        (dict, "secret"),
        (Mapping[str, int], []),
        (Typed, {"a": "secret"}),
        (Item, "secret"),
        (Item, ["secret"]),
        (Item, {"count": 5}),
        (Item, {"name": "a", "children": [{"name": 5}]}),
        (Box[int], {"value": "secret"}),
        (records.Device, {"model": ["secret"]}),
        (str | int, ["secret"]),
        (str | list[str], 5),
    ],
)
def test_values_of_another_type_are_refused_without_being_shown(kind: Any, value: Any) -> None:
    for asked in (kind, Optional[kind]):  # noqa: UP045 - made from a variable
        said = complaint(partial(filled, asked, value))
        assert " @ profile.field" in said
        assert "secret" not in said
        assert len(said) < 300


@pytest.mark.parametrize(
    ("kind", "empty"),
    [
        (list, []),
        (list[str], []),
        (Sequence[str], ()),
        (set[str], set()),
        (frozenset[str], frozenset()),
        (tuple[str, ...], ()),
        (dict, {}),
        (dict[str, int], {}),
        (Mapping[str, int], {}),
        (str | None, None),
        (Optional[int], None),  # noqa: UP045 - both spellings
        (list[str] | None, None),
        (Item | None, None),
        (Any, None),
        (None, None),
    ],
)
def test_absent_means_null_or_empty(kind: Any, empty: Any) -> None:
    for found in (filled(kind), filled(kind, None)):
        assert found == empty
        assert type(found) is type(empty)


@pytest.mark.parametrize(
    "kind", [str, bool, int, float, Decimal, datetime, date, Gender, Plain, Item]
)
def test_what_can_be_neither_null_nor_empty_must_be_there(kind: Any) -> None:
    for value in (ABSENT, None):
        assert complaint(partial(filled, kind, value)) == "required field missing @ profile.field"


def test_defaults_stand_in_for_what_is_absent_or_null() -> None:
    @attrs.define
    class WithDefaults:
        email: str = "nobody"
        sessions: int = 7
        tags: list[str] = attrs.Factory(lambda: ["default"])
        phone: str | None = "none"

    structure = structurer_for(WithDefaults)
    assert structure({}) == WithDefaults()
    sent = dict.fromkeys(["email", "sessions", "tags", "phone"])
    assert structure(sent) == WithDefaults(phone=None)
    assert structure({"tags": []}) == WithDefaults(tags=[])


def test_kinds_of_classes() -> None:
    @attrs.define(slots=False)
    class Open:
        email: str

    @attrs.frozen(kw_only=True)
    class Frozen(Open):
        sessions: int

    @dataclasses.dataclass
    class Data:
        email: str
        tags: list[str] = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(slots=True, kw_only=True)
    class Slotted(Data):
        sessions: int

    @attrs.define
    class Converted:
        email: str = attrs.field(converter=upper)

    data = {"email": "a", "sessions": "3", "new": 1}
    assert structurer_for(Open)(data) == Open("a")
    assert structurer_for(Frozen)(data) == Frozen(email="a", sessions=3)
    assert structurer_for(Data)(data) == Data("a")
    assert structurer_for(Slotted)(data) == Slotted(email="a", sessions=3)
    unannotated: Any = attrs.make_class("Unannotated", ["email"])
    assert structurer_for(unannotated)({"email": [1]}) == unannotated([1])
    assert structurer_for(unannotated)({}) == unannotated(None)
    assert structurer_for(Converted)(data) == Converted("A")


def test_annotations_may_be_text() -> None:
    data = {
        "external_id": "u1",
        "created_at": "2021-06-28 12:00:00.000 UTC",
        "devices": [{"model": "Pixel"}],
    }
    devices = [postponed.Device("Pixel", None)]
    assert structurer_for(postponed.User)(data) == postponed.User("u1", NOON, devices)
    assert structurer_for(postponed.Person)(data) == postponed.Person("u1", tuple(devices))
    assert structurer_for(postponed.Person)({"external_id": "u1"}) == postponed.Person("u1", ())


def test_fields_that_init_does_not_take_are_left_alone() -> None:
    @attrs.define
    class Computed:
        email: str
        domain: str = attrs.field(init=False, default="?")
        _seen: bool = False

    @dataclasses.dataclass
    class Data:
        email: str
        domain: str = dataclasses.field(init=False, default="?")

    for cls in (Computed, Data):
        assert field_names(cls) == ("email",)
        made: Any = structurer_for(cls)({"email": "a", "domain": "b"})
        assert (made.email, made.domain) == ("a", "?")


def test_the_names_to_ask_for() -> None:
    assert field_names(postponed.User) == ("external_id", "created_at", "devices")
    assert field_names(postponed.Person) == ("external_id", "devices", "first_name")
    assert field_names(records.AliasRecord) == ("alias_name", "alias_label")


@pytest.mark.parametrize(
    "into",
    [
        None, 5, "User", [], {}, str, int, list, object, type, Unknown, Typed, Pair, Gender,
        dict[str, int], Box[int], Item | None, Item("a"), lambda: None, TypeVar("X"),
    ],
)  # fmt: skip
def test_what_is_no_class_to_be_filled(into: Any) -> None:
    for make in (field_names, structurer_for):
        with pytest.raises(InputError, match=r"into=.*allowed are attrs classes, dataclasses"):
            make(into)


def test_a_class_without_fields_asks_for_nothing() -> None:
    @attrs.define
    class Nothing:
        _private: str = ""

    with pytest.raises(InputError, match="into=Nothing has no fields"):
        field_names(Nothing)


@pytest.mark.parametrize("kind", [Unknown, list[Unknown], dict[str, Unknown], "NoSuchName"])
def test_types_that_are_not_known_are_found_before_anything_is_sent(kind: Any) -> None:
    with pytest.raises(InputError, match="into=Into cannot be filled"):
        filled(kind)


def test_classes_that_cannot_be_told_apart_are_found_before_anything_is_sent() -> None:
    one = attrs.make_class("One", {"name": attrs.field(type=str)})
    other = attrs.make_class("Other", {"name": attrs.field(type=str)})
    with pytest.raises(InputError, match="into=Into cannot be filled"):
        filled(Union[one, other])  # noqa: UP007 - of classes made here


def refuse(error: Exception) -> Callable[..., None]:
    def check(*given_values: Any) -> None:
        error.args = tuple(repr(value) for value in given_values)
        raise error

    return check


@pytest.mark.parametrize(
    "error", [ValueError(), TypeError(), KeyError(), RuntimeError(), AttributeError(), IndexError()]
)
def test_what_a_class_says_of_its_values_is_not_shown(error: Exception) -> None:
    @attrs.define
    class Validated:
        email: str = attrs.field(validator=refuse(error))

    @attrs.define
    class Checked:
        email: str

        def __attrs_post_init__(self) -> None:
            refuse(error)(self.email)

    @dataclasses.dataclass
    class Data:
        email: str

        def __post_init__(self) -> None:
            refuse(error)(self.email)

    @attrs.define
    class Outer:
        inner: list[Data]

    data = {"email": "secret@example.com", "inner": [{"email": "secret@example.com"}]}
    for into, where in ((Validated, ""), (Checked, ""), (Data, ""), (Outer, ".inner[0]")):
        said = complaint(partial(structurer_for(into), data))
        assert said == f"{type(error).__name__} when it was made @ profile{where}"


def test_only_some_of_many_reasons_are_told() -> None:
    into = attrs.make_class("Into", {f"f{n}": attrs.field(type=int) for n in range(10)})
    said = complaint(lambda: structurer_for(into)({}))
    assert said.count("required field missing") == 3
    assert said.endswith("; and 7 more")
    assert complaint(lambda: structurer_for(Item)({})) == "required field missing @ profile.name"


def test_the_outermost_value_must_be_an_object() -> None:
    assert complaint(lambda: structurer_for(Item)([])) == "not an object"  # type: ignore[arg-type]


def test_nesting_as_deep_as_json_may_be() -> None:
    data: dict[str, Any] = {"name": "a"}
    for _ in range(400):
        data = {"name": "a", "children": [data]}
    try:
        made = structurer_for(Item)(data)
    except (ValueError, TypeError, RecursionError, ExceptionGroup) as error:
        assert len(why(error)) < 5000
    else:
        assert made.name == "a"


@given(objects(UserProfile) | st.dictionaries(st.text(), values))
def test_any_object_fills_a_class_or_gives_reasons(data: dict[str, Any]) -> None:
    @attrs.frozen
    class Into:
        external_id: str | None
        random_bucket: int | None
        total_revenue: float | None
        dob: date | None
        created_at: datetime | None
        custom_attributes: dict[str, Any]
        devices: list[records.Device]
        last_coordinates: tuple[float, ...]

    try:
        made = structurer_for(Into)(data)
    except (ValueError, TypeError, ExceptionGroup) as error:
        assert " @ profile" in why(error)
        return
    assert made.external_id is None or type(made.external_id) is str
    assert made.random_bucket is None or type(made.random_bucket) is int
    assert made.total_revenue is None or type(made.total_revenue) is float
    assert made.created_at is None or made.created_at.utcoffset() is not None
    assert made.custom_attributes == (data.get("custom_attributes") or {})
    assert all(type(item) is records.Device for item in made.devices)


def test_the_reasons_of_an_error_are_traced_to_its_cause() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        filled(int, "x")
    assert "invalid literal" in "".join(traceback.format_exception(caught.value))
