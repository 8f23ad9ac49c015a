"""Both ways to a table give the same rows, and nothing that Braze sends is lost or raises."""

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braze_export import UserProfile
from braze_export.codec import decode_profile
from braze_export.jobs.tables import arrow as arrow_room
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.misfits import exactly, rows_of
from braze_export.jobs.values import CustomAttributes
from braze_export.models.profile import AliasRecord
from tests.payloads import USERS, encode, profiles, sample

MODES: tuple[CustomAttributes, ...] = ("json", "map")
NAMES = {a.name for a in attrs.fields(UserProfile)}

#: JSON that is odd in ways that encoders of JSON are not.
ODD_LINES = [
    b'{"email":"\\ud800"}',
    b'{"custom_attributes":{"a":"\\ud800","\\udfff":1},"email":"a"}',
    b'{"devices":[{"model":"\\ud800","os":"iOS"}]}',
    b'{"email":"\xff"}',
    b'{"email":"\xed\xa0\x80"}',
    b'{"custom_attributes":{"a":"\xed\xa0\x80"}}',
    b'{"custom_attributes":{"a":"\xff"}}',
    b'{"custom_attributes":{"a\xff":1},"email":"a"}',
    b'{"new":"\xff"}',
    b'{"n\xffw":1}',
    b'{"email":"a","email":"b"}',
    b'{"email":"a","email":5}',
    b'{"custom_attributes":{"a":1,"a":2}}',
    b'{"new":1,"new":2}',
    b'{"devices":[{"model":"a","model":"b"}]}',
    b'{"total_revenue":9007199254740991}',
    b'{"total_revenue":9007199254740993}',
    b'{"total_revenue":1e400}',
    b'{"total_revenue":-0.0}',
    b'{"total_revenue":18014398509481984}',
    b'{"total_revenue":1e308}',
    b'{"random_bucket":9223372036854775807}',
    b'{"random_bucket":9223372036854775808}',
    b'{"random_bucket":18446744073709551616}',
    b'{"random_bucket":1.0}',
    b'{"random_bucket":1e3}',
    b'{"apps":[{"sessions":99999999999999999999,"name":"a"}]}',
    b'{"apps":[{"sessions":"007"}]}',
    b'{"apps":[{"sessions":"-7"}]}',
    b'{"apps":[{"sessions":  "7"},{"sessions":8}]}',
    b'{"custom_attributes":{"sessions":"7"},"sessions":"8","apps":[{"sessions":"9"}]}',
    b'{"custom_attributes":{"x\\"sessions":"7"},"apps":[{"sessions":"9","x\\"sessions":"1"}]}',
    b'{"custom_attributes":{"big":%b}}' % (b"9" * 5000),
    b'{"new":%b,"email":"a"}' % (b"9" * 5000),
    b'{"email":%b,"phone":"1"}' % (b"9" * 5000),
    b'{"custom_attributes":{"deep":%b}}' % (b"[" * 3000 + b"]" * 3000),
    b'{"custom_attributes":{"deep":%b}}' % (b"[" * 100 + b"]" * 100),
    b'{ "custom_attributes" :  { "a" :\t1 } , "email" : "a" } \r',
    b'{"email":\r"a"}',
    b'{"custom_attributes":null,"devices":null,"email":null}',
    b'{"custom_attributes":{},"devices":[],"last_coordinates":[]}',
    b'{"custom_attributes":[1],"devices":{},"user_aliases":{"a":"b"}}',
    b'{"custom_attributes":"{","email":"a"}',
    b'{"devices":[null]}',
    b'{"devices":[{},{"model":null}]}',
    b'{"last_coordinates":[1,null]}',
    b'{"last_coordinates":[1,2.5]}',
    b'{"last_coordinates":[1,"2.5"]}',
    b'{"campaigns_received":[null,{"engaged":{"a":true}}]}',
    b'{"campaigns_received":[{"engaged":{"a":true,"b":null}},{"engaged":{}},{}]}',
    b'{"campaigns_received":[{"engaged":{"a":"true"},"multiple_converted":{"b":false}}]}',
    b'{"campaigns_received":[{"engaged":{"a":true,"a":false}}],"new":1}',
    b'{"campaigns_received":[{"engaged":[]}],"new":1}',
    b'{"campaigns_received":{}}',
    b'{"canvases_received":[{"steps_received":[]},{"steps_received":[{"name":"a"}]},{}]}',
    b'{"canvases_received":[{"steps_received":[null]}]}',
    b'{"dob":"1980-02-30"}',
    b'{"dob":"0000-01-01"}',
    b'{"dob":"0001-01-01"}',
    b'{"dob":"9999-12-31"}',
    b'{"dob":""}',
    b'{"dob":5}',
    b'{"created_at":"0000-01-01T00:00:00Z"}',
    b'{"created_at":"0001-01-01T00:00:00+02:00"}',
    b'{"created_at":"9999-12-31T23:59:59-02:00"}',
    b'{"created_at":"2020-07-10T23:59:60Z"}',
    b'{"created_at":"2020-07-10T24:00:00Z"}',
    b'{"created_at":"2020-07-10 UTC"}',
    b'{"created_at":"2020-07-10Z"}',
    b'{"created_at":"2020-07-10+00:00"}',
    b'{"created_at":"2020-07-10T10:00Z UTC"}',
    b'{"created_at":"2020-07-10T10:00:00.1234567Z"}',
    b'{"created_at":"2020-07-10T10:00:00.5"}',
    b'{"created_at":""}',
    b'{"created_at":1593561600}',
    b'{"purchases":[{"first":"0000-01-01T00:00:00Z","name":"a"}]}',
    b'{"purchases":[{"first":"0001-01-01T00:00:00+02:00"}]}',
    b'{"purchases":[{"first":"2020-07-10 10:00:00 UTC","last":"2020-07-10T10:00:00+02:00"}]}',
    b'{"purchases":[{"first":1593561600,"last":"1593561600","count":"3"}]}',
    b'{"email":5,"gender":true,"phone":1.50}',
    b'{"email":"","new":"\\u2028\\n"}',
    '{"email":"\u2028\u2029\x85","new\u2028":"\u2028"}'.encode(),
    b'{"email":"a\\u0000b\\/\\ud83d\\ude00"}',
    b'{"_raw":1,"_misfits":2,"extra":3,"raw":4,"":5}',
    b'{"push_opted_in_at":"2020-01-26T22:45:53.953Z"}',
    b"{}",
    b'{"a":1}{"b":2}',
    b"[1]",
    b"5",
    b"null",
    b"{",
    b"\xff",
    b'{"email":NaN}',
    b'{"total_revenue":NaN}',
    b'{"email":"a",}',
    b'{"email":"a\x01"}',
    b'\xef\xbb\xbf{"email":"a"}',
]  # fmt: skip

odd = st.sampled_from(ODD_LINES)
lines_of_profiles = profiles.map(encode)
samples = st.sampled_from([json.dumps(json.loads(sample(name))).encode() for name in USERS])
blocks = st.lists(st.one_of(lines_of_profiles, lines_of_profiles, samples, odd), max_size=12)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def table(*lines: bytes, mode: CustomAttributes = "json") -> pa.Table:
    return tables_of(mode).table(b"\n".join(lines))


@cache
def tables_of(mode: CustomAttributes) -> Tables:
    return Tables(None, mode)


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None)
@given(lines=blocks)
@example(lines=ODD_LINES)
def test_both_ways_give_the_same_rows(mode: CustomAttributes, lines: list[bytes]) -> None:
    made = table(*lines, mode=mode)
    made.validate(full=True)
    slow = rows_of(lines, made.schema)
    assert repr(rows(made)) == repr(rows(slow))  # 1 is not True, and nan is nan


@pytest.mark.parametrize("line", ODD_LINES, ids=lambda line: repr(line[:50]))
def test_an_odd_line_reads_the_same_alone(line: bytes) -> None:
    for mode in MODES:
        made = table(line, mode=mode)
        assert repr(rows(made)) == repr(rows(rows_of([line], made.schema)))


@settings(deadline=None)
@given(profiles)
def test_every_key_sent_is_in_its_column_or_in_extra(data: dict[str, Any]) -> None:
    line = encode(data)
    (row,) = rows(table(line))
    profile = decode_profile(line)
    extra = json.loads(row["extra"] or "{}")
    assert profile.extra.items() <= extra.items()
    for name in NAMES - {"custom_attributes"} - extra.keys():
        assert plain(row[name]) == plain(getattr(profile, name)), name
    if "custom_attributes" not in extra:
        assert json.loads(row["custom_attributes"] or "{}") == profile.custom_attributes
    # What is in extra beyond that is what a column cannot hold.
    for name in extra.keys() - profile.extra.keys():
        assert plain(row[name]) != plain(getattr(profile, name))


def plain(value: Any) -> Any:
    """A value so that a cell and an attribute compare: nothing, empty and absent are one."""
    if isinstance(value, AliasRecord) or attrs.has(type(value)):
        value = {a.name: getattr(value, a.name) for a in attrs.fields(type(value))}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in NAMES or plain(v)} or None
    if isinstance(value, list | tuple):
        pairs = bool(value) and all(isinstance(v, tuple) for v in value)
        return plain(dict(value)) if pairs else [plain(v) for v in value] or None
    return repr(value) if isinstance(value, float) and math.isnan(value) else value


def refuses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the lines that go the slow way."""
    slow: list[int] = []

    def counted(lines: list[bytes], schema: Any) -> pa.Table:
        slow.append(len(lines))
        return rows_of(lines, schema)

    monkeypatch.setattr(arrow_room, "rows_of", counted)
    return slow


@pytest.mark.parametrize("name", USERS)
def test_samples_go_the_fast_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = refuses(monkeypatch)
    line = json.dumps(json.loads(sample(name))).encode()
    (row,) = rows(table(line))
    assert slow == []
    assert row["extra"] is None
    assert row["custom_attributes"] is None or row["custom_attributes"].encode() in line


def test_sessions_as_text_go_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = refuses(monkeypatch)
    tables = Tables()
    line = b'{"apps":[{"sessions":"7"},{"sessions":8}],"custom_attributes":{"sessions":"7"}}\n'
    for _ in range(3):
        (row,) = rows(tables.table(line))
        assert [app["sessions"] for app in row["apps"]] == [7, 8]
        assert row["custom_attributes"] == '{"sessions":"7"}'
    assert slow == []


def test_unknown_keys_go_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = refuses(monkeypatch)
    (row,) = rows(table(b'{"new": [1, 2.50],"email":"a","x":null,"custom_attributes":{"a":1}}'))
    assert row["extra"] == '{"new":[1, 2.50],"x":null}'
    assert (row["email"], row["custom_attributes"]) == ("a", '{"a":1}')
    assert slow == []


def test_only_misfits_go_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = refuses(monkeypatch)
    lines = [b'{"external_id":"%d"}' % n for n in range(1000)]
    lines[17] = b'{"external_id":"17","gender":true}'  # seen by its type
    lines[900] = b'{"external_id":"900","dob":"1980-02-30"}'  # seen by Arrow alone
    found = rows(table(*lines))
    assert sorted(slow) == [1, 1]
    assert [row["external_id"] for row in found] == [str(n) for n in range(1000)]
    assert {n: r["extra"] for n, r in enumerate(found) if r["extra"]} == {
        17: '{"gender":true}',
        900: '{"dob":"1980-02-30"}',
    }


def test_values_have_the_types_of_their_columns() -> None:
    (row,) = rows(
        table(json.dumps(json.loads(sample("user_superset_all_known_fields.json"))).encode())
    )
    assert row["created_at"] == datetime(2020, 7, 10, 15, tzinfo=UTC)
    assert row["dob"] == date(1980, 12, 21)
    assert row["total_revenue"] == 65.0
    assert row["apps"][0]["sessions"] == 1129
    assert dict(row["campaigns_received"][0]["engaged"])["opened_email"] is True
    canvas = row["canvases_received"][0]
    assert canvas["last_entered"].utcoffset() == timedelta(0)
    assert canvas["steps_received"][0]["name"] == "Step"


def test_custom_attributes_as_a_map_hold_each_value_as_braze_wrote_it() -> None:
    line = b'{"custom_attributes":{"a": 1.50,"b":"x\\u00e4","c":null,"d":{"e": [1]}}}'
    (row,) = rows(table(line, mode="map"))
    assert row["custom_attributes"] == [
        ("a", "1.50"),
        ("b", '"x\\u00e4"'),
        ("c", "null"),
        ("d", '{"e": [1]}'),
    ]


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        (b'{"email":true}', '{"email":true}'),
        (b'{"email":"\\ud800"}', '{"email":"\\ud800"}'),
        (b'{"user_aliases":{"a": 1}}', '{"user_aliases":{"a": 1}}'),
        (b'{"apps":[{"sessions":1.50},{"name":"a"}]}', '{"apps":[{"sessions":1.50},{"name":"a"}]}'),
        (b'{"total_revenue":9007199254740993}', '{"total_revenue":9007199254740993}'),
        (b'{"custom_attributes":[1]}', '{"custom_attributes":[1]}'),
        (b'{"new":%b}' % (b"9" * 5000), '{"new":%s}' % ("9" * 5000)),
        (b"[1]", '{"unreadable":"[1]"}'),
        (b'{"a"', '{"unreadable":"{\\"a\\""}'),
        (b"\xff", '{"unreadable":"\ufffd"}'),
        (b'{"email":"a"}', None),
        (b"{}", None),
    ],
)
def test_extra_holds_what_has_no_place(line: bytes, extra: str | None) -> None:
    assert rows(table(line))[0]["extra"] == extra


def test_of_a_value_that_does_not_fit_the_column_has_what_does() -> None:
    (row,) = rows(table(b'{"apps":[{"sessions":1.5,"name":"a"}],"devices":[5],"purchases":"x"}'))
    assert (row["apps"][0]["name"], row["apps"][0]["sessions"]) == ("a", None)
    assert (row["devices"], row["purchases"]) == ([], None)


@settings(deadline=None)
@given(blocks)
def test_the_schema_is_the_same_whatever_the_lines(lines: list[bytes]) -> None:
    tables = Tables(("email", "custom_attributes"))
    made = tables.table(b"\n".join(lines))
    assert made.schema.equals(tables.schema, check_metadata=True)
    assert made.num_rows == len(lines)


def test_keys_that_were_not_asked_for_are_in_extra() -> None:
    line = b'{"email":"a","country":"US","custom_attributes":{"a":1},"campaigns_received":[]}'
    (row,) = rows(Tables(("email",)).table(line))
    assert row == {
        "external_id": None,
        "email": "a",
        "extra": '{"country":"US","custom_attributes":{"a":1},"campaigns_received":[]}',
    }


@pytest.mark.parametrize("lines", [b"", b"\n", b"\n \r\n\n"])
def test_lines_with_nothing_in_them_are_no_rows(lines: bytes) -> None:
    assert Tables().table(lines).num_rows == 0


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_rows_are_in_the_order_of_the_lines(end: bytes) -> None:
    lines = b"\n".join(b'{"external_id":"%d"}' % n for n in range(70_000)) + end  # over 1 MB
    assert Tables().table(lines)["external_id"].to_pylist() == [str(n) for n in range(70_000)]


def test_a_line_may_be_longer_than_what_the_reader_takes_at_once() -> None:
    long = b'{"email":"%b"}' % (b"x" * 3_000_000)
    made = table(b"{}", long, b"{}")
    assert [len(row["email"] or "") for row in rows(made)] == [0, 3_000_000, 0]


@settings(deadline=None)
@given(profiles)
def test_what_is_taken_for_exact_is_no_misfit(data: dict[str, Any]) -> None:
    line = encode(data)
    if exactly(tables_of("json").schema)(line):
        assert not decode_profile(line).extra.keys() & NAMES - {"dob"} - moments_of(line)


def moments_of(line: bytes) -> set[str]:
    """Names of values with dates that may not exist: only looked at by their form."""
    return set(re.findall(r"\w+_at|purchases|custom_events|apps|c\w+_received", line.decode()))


def test_nothing_imports_pandas(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = (
        "import sys; from braze_export.jobs.tables.arrow import Tables\n"
        't = Tables(None, \'map\').table(b\'{"email":"a","x":1,"custom_attributes":{"a":1}}\')\n'
        't = Tables().table(b\'{"canvases_received":[{}],"campaigns_received":[{}]}\')\n'
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
