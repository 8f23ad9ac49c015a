"""Text of Braze's, and of whoever wrote into a profile, steers no terminal."""

import json
from typing import Any

import pytest

from braze_export.cli.screen import printable_json
from braze_export.sandbox import Fault, Sandbox
from tests.cli.conftest import point_to, serving

# Clears the screen, in seven bits and in eight; rings; turns the text round; ends the line.
HOSTILE = "a\x1b[2J\x9b2J\x07\u202e\u2066\r\nb\u2028\x7f"


def steering(text: str) -> set[str]:
    return {c for c in text.replace("\n", "") if not c.isprintable()}


@pytest.mark.parametrize("text", [HOSTILE, "plain Zoë 🦊", "\u200e\u061c", "\U000e0001", ""])
def test_json_means_the_same_and_steers_nothing(text: str) -> None:
    written = printable_json(json.dumps({text: [text]}, ensure_ascii=False))
    assert json.loads(written) == {text: [text]}
    assert steering(written) <= {"\U000e0001"}  # a tag, which is shown as nothing


def spoilt(sandbox: Sandbox) -> None:
    listed = {"segments": [{"id": HOSTILE, "name": HOSTILE, "tags": [HOSTILE]}]}
    details = {"message": "success", "name": HOSTILE, "description": HOSTILE, "tags": [HOSTILE]}
    user = {"external_id": "u1", "first_name": HOSTILE, "custom_attributes": {HOSTILE: HOSTILE}}
    sandbox.inject(Fault(body=listed), times=99, path="/segments/list")
    sandbox.inject(Fault(body=details), times=99, path="/segments/details")
    sandbox.inject(Fault(body={"users": [user]}), times=99, path="/users/export/ids")


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        ("segments", "list"),
        ("segments", "list", "--json"),
        ("segments", "details", "s"),
        ("segments", "details", "s", "--json"),
        ("ids", "u1", "--format", "table"),
    ],
    ids=" ".join,
)
def test_nothing_of_an_answer_steers_the_terminal(
    command: tuple[str, ...], seen: bool, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(users=1) as sandbox:
        spoilt(sandbox)
        point_to(sandbox, monkeypatch)
        monkeypatch.setattr("sys.stdout.isatty", lambda: seen)
        monkeypatch.setenv("NO_COLOR", "1")
        ran = run(*command)
    assert ran.code == 0
    assert "2J" in ran.out
    assert steering(ran.out + ran.err) <= {"\x1b"}
    assert "\x1b[2J" not in ran.out + ran.err  # the table's own letters may be bold


@pytest.mark.parametrize("seen", [True, False])
def test_profiles_on_a_terminal_are_the_same_json(
    seen: bool, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(users=1) as sandbox:
        spoilt(sandbox)
        point_to(sandbox, monkeypatch)
        monkeypatch.setattr("sys.stdout.isatty", lambda: seen)
        ran = run("ids", "u1")
    (row,) = map(json.loads, ran.lines)
    assert row["custom_attributes"] == {HOSTILE: HOSTILE}
    assert bool(steering(ran.out)) == (not seen)  # a file gets what Braze sent


def test_a_message_of_braze_steers_no_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(users=1) as sandbox:
        sandbox.inject(Fault(status=400, body={"message": HOSTILE, "errors": [HOSTILE]}), times=99)
        point_to(sandbox, monkeypatch)
        ran = run("segments", "details", "s", "-vv")
    assert ran.code == 1
    assert "2J" in ran.err
    assert steering(ran.out + ran.err) == set()
