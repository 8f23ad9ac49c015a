import json
from typing import Any

import pytest

from braze_export.cli import screen, segments
from braze_export.cli.chart import chart
from braze_export.sandbox import Fault, Sandbox


def test_list(braze: Sandbox, run: Any) -> None:
    ran = run("segments", "list")
    assert ran.code == 0
    assert ran.lines[0].split() == ["id", "name", "analytics", "tags"]
    assert len(ran.lines) == 2 + 120
    assert ran.lines[2].split()[0] == braze.segment_id(1)
    assert ran.err == "120 segments\n"
    newest = run("segments", "list", "--sort", "desc")
    assert newest.lines[2].split()[0] == braze.segment_id(120)


def test_ids_stay_whole_where_there_is_little_room(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "_PIPE_WIDTH", 60)
    lines = run("segments", "list").lines
    assert max(map(len, lines)) <= 60
    begun = {line.split()[0] for line in lines if not line.startswith(" ")}
    assert begun >= {braze.segment_id(n) for n in range(1, 121)}


def test_list_as_json(braze: Sandbox, run: Any) -> None:
    ran = run("segments", "list", "--json")
    rows = [json.loads(line) for line in ran.lines]
    assert [row["id"] for row in rows] == [braze.segment_id(n) for n in range(1, 121)]
    assert ran.err == ""


def test_details(braze: Sandbox, run: Any) -> None:
    ran = run("segments", "details", braze.segment_id(3))
    assert ran.lines[0].split(maxsplit=1) == ["name", "VIP 3 "] or "VIP 3" in ran.lines[0]
    assert "tag one, täg 2" in ran.out
    assert json.loads(run("segments", "details", braze.segment_id(3), "--json").out)["tags"] == [
        "tag one",
        "täg 2",
    ]


def test_an_unknown_segment(braze: Sandbox, run: Any) -> None:
    ran = run("segments", "details", "nothing")
    assert ran.code == 1
    assert ran.err.startswith("Error: GET /segments/details: 400 Invalid segment_id. See https://")


def test_series(braze: Sandbox, run: Any) -> None:
    ran = run("segments", "series", braze.segment_id(1), "--days", "5", "--ending-at", "2026-01-31")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.lines[2:]] == [
        *("2026-01-27", "2026-01-28", "2026-01-29", "2026-01-30", "2026-01-31"),
    ]
    offset = "2026-01-31T23:30:00-05:00"
    ran = run("segments", "series", braze.segment_id(1), "--ending-at", offset, "--json")
    rows = [json.loads(line) for line in ran.lines]
    assert len(rows) == 30
    assert rows[-1]["time"] == "2026-02-01"


def test_plot(braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("segments", "series", braze.segment_id(1), "--days", "5")
    assert "┤" in run(*arguments, "--plot").out
    monkeypatch.setattr(segments, "is_live", lambda *, stderr: True)
    assert "┤" in run(*arguments).out
    assert "┤" not in run(*arguments, "--no-plot").out
    braze.inject(Fault(body={"data": [{"time": "2026-01-01"}]}))
    ran = run(*arguments, "--plot")
    assert ran.lines[-1].split() == ["2026-01-01"]


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([1], ["1 ┤", "1 ┤▁▁▁▁"]),
        ([0, 15], ["15 ┤    ████", " 0 ┤▁▁▁▁████"]),
        ([0, 7, 15], ["15 ┤        ████", " 0 ┤▁▁▁▁████████"]),
    ],
)
def test_chart(values: list[int], lines: list[str]) -> None:
    assert chart(values, width=40, height=2) == lines


def test_a_chart_of_more_than_fits() -> None:
    lines = chart(list(range(1000)), width=30, height=4)
    assert len(lines) == 4
    assert max(map(len, lines)) <= 30
    assert lines[0].endswith("▆▇")
    assert chart([1, 2], width=1)  # too narrow for anything
