import sys
from typing import Any

import attrs
import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from braze_export import InputError, UserProfile
from braze_export.jobs.tables.schema import schema

NAMES = [a.name for a in attrs.fields(UserProfile)]


def test_columns_are_those_of_a_profile_in_its_order_and_extra() -> None:
    assert schema(None, "json").names == [*NAMES, "extra"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("external_id", pa.string()),
        ("created_at", pa.timestamp("us", "UTC")),
        ("uninstalled_at", pa.timestamp("us", "UTC")),
        ("dob", pa.date32()),
        ("random_bucket", pa.int64()),
        ("total_revenue", pa.float64()),
        ("last_coordinates", pa.list_(pa.float64())),
        ("cards_clicked", pa.list_(pa.struct([("name", pa.string())]))),
        ("extra", pa.string()),
    ],
)
def test_types_are_those_of_the_facts(name: str, kind: Any) -> None:
    assert schema(None, "json").field(name).type == kind


def test_nested_types_mirror_the_records() -> None:
    campaigns = schema(None, "json").field("campaigns_received").type.value_type
    assert campaigns.field("engaged").type == pa.map_(pa.string(), pa.bool_())
    assert campaigns.field("last_received").type == pa.timestamp("us", "UTC")
    steps = schema(None, "json").field("canvases_received").type.value_type.field("steps_received")
    assert steps.type.value_type.names == ["name", "api_canvas_step_id", "last_received"]


def test_custom_attributes_are_text_or_a_map_of_texts() -> None:
    assert schema(None, "json").field("custom_attributes").type == pa.string()
    text = pa.string()
    assert schema(None, "map").field("custom_attributes").type == pa.map_(text, text)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (("email",), ["external_id", "email", "extra"]),
        (("email", "external_id"), ["external_id", "email", "extra"]),
        (("no_such_field",), ["external_id", "extra"]),
        (
            ("push_subscribe",),
            ["external_id", "push_subscribe", "push_opted_in_at", "push_unsubscribed_at", "extra"],
        ),
        (("apps", "created_at"), ["created_at", "external_id", "apps", "extra"]),
    ],
)
def test_fields_choose_the_columns_with_what_comes_along(
    fields: tuple[str, ...], names: list[str]
) -> None:
    assert schema(fields, "json").names == names


def test_another_way_for_custom_attributes_is_refused() -> None:
    with pytest.raises(InputError, match="allowed are 'json' and 'map'"):
        schema(None, "xml")  # type: ignore[arg-type]


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "braze-export\[parquet\]"'):
        schema(None, "json")
