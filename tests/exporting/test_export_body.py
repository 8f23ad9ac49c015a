import warnings
from typing import Any

import pytest

from braze_export import ExportField, InputError, UnknownFieldWarning
from braze_export.exporting.body import group_body, segment_body


def body(**more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "segment_id": "s",
        "fields": ["email"],
        "custom_attributes": None,
        "callback_url": None,
        "output_format": None,
    }
    return segment_body(**(options | more))


def test_only_what_was_given_is_sent() -> None:
    assert body() == {"segment_id": "s", "fields_to_export": ("email",)}
    assert group_body(["email"], None, None) == {"fields_to_export": ("email",)}


def test_everything_that_can_be_sent() -> None:
    found = body(
        fields=iter([ExportField.EMAIL, "email", "push_opted_in_at"]),
        custom_attributes=iter(["a", "b", "a"]),
        callback_url="https://example.com/done?x=1",
        output_format="gzip",
    )
    assert found == {
        "segment_id": "s",
        "fields_to_export": ("email", "push_subscribe"),
        "custom_attributes_to_export": ["a", "b"],
        "callback_endpoint": "https://example.com/done?x=1",
        "output_format": "gzip",
    }
    group = group_body(["email"], "http://10.0.0.1/done", "zip")
    assert group["callback_endpoint"] == "http://10.0.0.1/done"
    assert group["output_format"] == "zip"


def test_500_custom_attributes_are_taken() -> None:
    names = [str(n) for n in range(500)]
    assert body(custom_attributes=names * 2)["custom_attributes_to_export"] == names


BAD: list[tuple[dict[str, Any], str]] = [
    ({"segment_id": ""}, "segment_id must be a string that is not empty, not an empty or blank"),
    ({"segment_id": "  "}, "segment_id must be a string that is not empty"),
    ({"segment_id": None}, "segment_id must be a string that is not empty, not None"),
    ({"segment_id": 5}, "segment_id must be a string that is not empty, not of type int"),
    ({"segment_id": "\ud800"}, "segment_id .* not a string that is not valid Unicode"),
    ({"fields": "email"}, r"fields must be a list of names: write \['email'\]"),
    ({"fields": None}, "fields must be a list of names, not of type NoneType"),
    ({"fields": []}, "fields is empty: name at least one field"),
    ({"fields": ["email", 5]}, "a name in fields must be a string .* not of type int"),
    ({"custom_attributes": "a"}, r"custom_attributes must be a list of names: write \['a'\]"),
    ({"custom_attributes": 5}, "custom_attributes must be a list of names, not of type int"),
    ({"custom_attributes": [""]}, "a name in custom_attributes must be a string"),
    ({"custom_attributes": ["a", None]}, "a name in custom_attributes .* not None"),
    ({"custom_attributes": [str(n) for n in range(501)]}, "501 names: Braze takes at most 500"),
    ({"output_format": "rar"}, 'output_format must be "zip" or "gzip", not \'rar\''),
    ({"output_format": ""}, 'output_format must be "zip" or "gzip"'),
    ({"output_format": ["zip"]}, r'output_format must be "zip" or "gzip", not \[\'zip\'\]'),
    *(
        ({"callback_url": url}, "callback_url must be a URL that starts with https:// or http://")
        for url in (
            "", "x", "example.com/done", "ftp://example.com", "https://", "https:///x", "https:x",
            "https://[::1/x", "https://a/\n", 5, b"https://a", True,
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_be_sent(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        body(**options)
    assert caught.value.__cause__ is None
    if not options.keys() & {"segment_id", "custom_attributes"}:
        given = {"fields": ["email"], "callback_url": None, "output_format": None} | options
        with pytest.raises(InputError, match=message):
            group_body(**given)


def test_the_callback_shows_in_no_message() -> None:
    with pytest.raises(InputError) as caught:
        body(callback_url="ftp://example.com/t0ken")
    assert "t0ken" not in str(caught.value)


def test_a_misspelt_field_is_warned_of() -> None:
    with pytest.warns(UnknownFieldWarning, match="did you mean 'email'"):
        body(fields=["emial"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body(fields=["something_else_entirely"])
