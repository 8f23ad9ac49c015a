"""What fuzzing has found, each in the fewest bytes; and that the harnesses take their own seeds."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from braze_export import BrazeError, DecodeError, InputError, UserAlias
from braze_export.answers import read_messages
from braze_export.archives.archive import ArchiveLimits, Unpacker
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.callbacks import check_base
from braze_export.codec import decoder_for, identity, split_ids_answer
from braze_export.downloads.links import check_link, redirected
from braze_export.endpoints import EXPORT_IDS
from braze_export.instances import resolve_base_url
from braze_export.jobs.accounting import passed_over
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input
from braze_export.lookups.whose import aliases, external_ids, sort
from tests.archives.making import Member, cut, zip_of
from tests.fuzz.__main__ import GROUPS
from tests.fuzz.drawing import Draw, with_text

HALF = b'"first_name":"\\ud83d"'  # of an emoji, which msgspec refuses wherever it stands


@pytest.fixture(params=GROUPS)
def harness(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"tests.fuzz.{request.param}")


def test_a_harness_takes_its_own_seeds(harness: ModuleType) -> None:
    seeds = list(harness.seeds())
    assert 10 < len(seeds) < 200
    assert max(map(len, seeds)) <= harness.LONGEST
    assert all(harness.WORDS)  # the fuzzer takes no empty ones
    for seed in seeds:
        harness.try_one(seed)
        harness.try_one(seed[: len(seed) // 2])


def test_choices_are_drawn_from_the_bytes_in_turn() -> None:
    draw = Draw(b"\x07\x01\x01\x02" + with_text("é") + b"rest")
    assert (draw.number(9), draw.yes(), draw.number(999)) == (7, True, 513)
    assert (draw.text(), draw.empty, draw.rest(), draw.empty) == ("é", False, b"rest", True)
    assert (draw.number(9), draw.one_of("ab"), draw.text(), draw.rest()) == (0, "a", "", b"")


# Archives


def lines_of(pieces: list[bytes]) -> list[bytes]:
    unpacker = Unpacker("export", ArchiveLimits())
    blocks = [block for piece in pieces for block in unpacker.feed(piece)]
    return [line for block in (*blocks, *unpacker.close()) for line in block.lines]


def test_a_zip64_archive_may_be_empty() -> None:
    data = zip_of(zip64=True)
    assert lines_of([data]) == lines_of(cut(data, range(len(data)))) == []


def test_what_follows_an_archive_is_left_alone_wherever_it_is_cut() -> None:
    archive = zip_of(Member(data=b"{}\n"))
    data = archive + b"junk" + archive
    for place in range(len(archive), len(data)):
        assert lines_of([data[:place], data[place:]]) == [b"{}"]


def test_an_archive_right_behind_another_is_read_wherever_it_is_cut() -> None:
    archive = zip_of(Member(data=b"{}\n"))
    for place in range(1, 2 * len(archive)):
        assert lines_of(cut(archive + archive, [place])) == [b"{}", b"{}"]


# Half an emoji in one place hides nothing in another


@pytest.mark.parametrize("users", [b"", b'"users":null,'])
def test_an_answer_without_users_may_hold_half_an_emoji(users: bytes) -> None:
    body = b'{%b"invalid_user_ids":["u1"],%b}' % (users, HALF)
    answer = split_ids_answer(body, EXPORT_IDS)
    assert (answer.users, answer.invalid_user_ids) == ([], ["u1"])


def test_an_answer_with_half_an_emoji_and_nothing_else_is_none() -> None:
    with pytest.raises(DecodeError):
        split_ids_answer(b"{%b}" % HALF, EXPORT_IDS)


@pytest.mark.parametrize(
    ("named", "names"),
    [
        (b'"external_id":"u1"', ("u1",)),
        (b'"braze_id":"b1"', ("b1",)),
        (b'"external_id":5', ()),
        (b'"external_id":"\\ud83d"', ()),
    ],
)
def test_a_profile_with_half_an_emoji_has_an_identity(named: bytes, names: tuple[str, ...]) -> None:
    assert identity(b"{%b,%b}" % (named, HALF)) == names


def test_a_profile_with_half_an_emoji_tells_whose_it_is() -> None:
    user = msgspec.Raw(
        b'{"external_id":"u1","user_aliases":[{"alias_name":"n","alias_label":"l"}],%b}' % HALF
    )
    assert external_ids(user) == {"u1"}
    assert aliases(user) == {UserAlias("n", "l")}
    found = sort(Batch(("u1", "u2")), Outcome(users=[user]))
    assert (dict(found.found), found.silent, found.strangers) == ({"u1": user}, ("u2",), 0)


def test_a_job_passes_nobody_over_for_half_an_emoji() -> None:
    user = msgspec.Raw(b'{"external_id":"u1",%b}' % HALF)
    assert passed_over(Batch(("u1", "u2")), Outcome(users=[user])) == ("u2",)


def nested() -> list[object]:
    entry: list[object] = []
    for _ in range(100_000):  # whatever the limit of this interpreter is
        entry = [entry]
    return entry


def test_messages_nested_deeper_than_python_can_write_are_not_shown() -> None:
    assert read_messages([nested(), {"message": nested()}, "b"]) == [
        "(nested too deeply)",
        "(nested too deeply)",
        "b",
    ]


def test_names_nested_deeper_than_python_can_show_are_of_strangers() -> None:
    entry = nested()
    for sent in (entry, {"external_id": entry}, {"alias_name": "u1", "alias_label": entry}):
        (named,) = Batch(("u1", "u2")).invalid([sent])
        assert named.identifier == "(nested too deeply)"


# What Braze sends where nobody would ask for it


@pytest.mark.parametrize("blank", [b'" "', b'"\\ud83d"'])
def test_an_alias_that_cannot_be_asked_for_is_nobodys(blank: bytes) -> None:
    sent = b'{"user_aliases":[{"alias_name":%b,"alias_label":"l"},{"alias_name":"n",' % blank
    user = msgspec.Raw(sent + b'"alias_label":"l"}]}')
    assert aliases(user) == {UserAlias("n", "l")}


@pytest.mark.parametrize("space", [b"\x0b", b"\x0c", b"\x1c"])
def test_what_is_white_space_to_python_alone_makes_no_row(space: bytes) -> None:
    for into in (bytes, dict):
        with pytest.raises(DecodeError):
            decoder_for(into, EXPORT_IDS, checked=False)(b"{}" + space)
    assert decoder_for(bytes, EXPORT_IDS, checked=False)(b" \t{}\r\n") == b"{}"


# Inputs


@pytest.mark.parametrize("column", ['a"b', "a\\b", "a\nb", 'x.a"b', 'a"b.x'])
def test_a_key_of_ndjson_may_be_any_text(column: str, tmp_path: Path) -> None:
    path = tmp_path / "ids.ndjson"
    path.write_bytes(msgspec.json.encode({column: "u1"}) + b"\n")
    reader = open_input(Input(path=path, column=column), "external_id")
    assert list(reader.blocks()) == [["u1"]]
    reader.close()


def test_a_key_that_is_no_unicode_is_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "ids.ndjson"
    path.write_bytes(b'{"id":"u1"}\n')
    reader = open_input(Input(path=path, column="\udcff"), "external_id")
    with pytest.raises(InputError, match="has no column"):
        list(reader.blocks())
    reader.close()


@pytest.mark.parametrize("told", [0, 5, 7])
def test_a_parquet_file_of_other_rows_than_it_says_is_damaged(told: int, tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c", "d", "e", "f"]}), path)
    before, rows, after = path.read_bytes().rpartition(b"\x16\x0c\x19\x1c")
    assert rows
    path.write_bytes(before + b"\x16%c\x19\x1c" % (2 * told) + after)
    reader = open_input(Input(path=path), "external_id")
    with pytest.raises(InputError, match="damaged"):
        list(reader.blocks())
    assert 0 <= reader.read_bytes <= path.stat().st_size
    reader.close()


@pytest.mark.parametrize(
    "host", ["a[::1]", "[::1]a", "a[::1]b.example.com", "[::1]a:443", "[::1][::1]"]
)
def test_addresses_with_brackets_within_a_host_are_refused(host: str) -> None:
    url = f"https://{host}/x"
    for check in (resolve_base_url, check_link):
        with pytest.raises(InputError, match="is no URL"):
            check(url)
    with pytest.raises(BrazeError, match="redirects to where profiles must not be fetched"):
        redirected("https://storage.example.com/a", url)


def test_an_address_that_no_library_can_read_is_none_for_callbacks() -> None:
    with pytest.raises(InputError, match="public_url"):
        check_base("https://a[::1]@/")


@pytest.mark.parametrize("host", ["[2001:db8::1]", "[2001:db8::1]:8443", "[::1]:"])
def test_addresses_in_brackets_are_taken(host: str) -> None:
    url = f"https://{host}/x"
    assert resolve_base_url(url) == check_link(url) == url
