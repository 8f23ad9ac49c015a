import asyncio
import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from braze_export.cli import job_view as views
from braze_export.cli.job_report import tell
from braze_export.cli.job_view import job_view
from braze_export.cli.screen import Screen
from braze_export.jobs.values import NOT_ASKED, JobProgress, JobReport, Moment
from braze_export.limiting.limits import PoolSnapshot

Printed = pytest.CaptureFixture[str]


def pool(**more: Any) -> PoolSnapshot:
    nothing = {"limit": 2500, "remaining": None, "resets_in": None, "waiting": 0, "in_flight": 0}
    return PoolSnapshot(**(nothing | {"sent": 0, "refused": 0, "seconds_waited": 0.0} | more))


def progress(**more: Any) -> JobProgress:
    usual: dict[str, Any] = {"phase": "exporting", "done": 120_000, "total": 1_000_000}
    usual |= {"rate": 10_000.0, "requests": 2400, "elapsed": 12.0, "seconds_left": 88.0}
    return JobProgress(**(usual | more))


def report(**more: Any) -> JobReport:
    usual: dict[str, Any] = {
        "complete": True,
        "source": "ids.csv",
        "output": "profiles.parquet",
        "unknown_file": Path("unknown.txt"),
        "failed_file": Path("failed.ndjson"),
        "total": 1_000_000,
        "done": 1_000_000,
        "profiles": 999_000,
        "unknown": 997,
        "failed": 0,
        "requests": 20_000,
        "seconds": 12.0,
    }
    return JobReport(**(usual | more))


SPENT = pool(remaining=0, resets_in=12.0, waiting=64)
STATES = {
    "counting": progress(phase="reading", done=0, total=None, requests=0, seconds_left=None),
    "again counting": progress(done=912_350, already=912_350, total=None, seconds_left=None),
    "running": progress(pool=pool(remaining=1204), failed=3, retries=2, rate_limited=1),
    "waiting": progress(pool=SPENT, repeated=12),
    "much": progress(
        done=99_999_999,
        total=100_000_000,
        already=99_000_000,
        rate=123_456.0,
        seconds_left=400_000.0,
        profiles=99_999_999,
        unknown=99_999_999,
        failed=99_999_999,
        repeated=99_999_999,
        requests=99_999_999,
        retries=99_999_999,
        rate_limited=99_999_999,
        pool=SPENT,
    ),
    "silent": progress(silent=40.0, trouble="ServerError 503", patience_left=860.0, already=7),
    "silent for long": progress(
        done=99_999_999,
        total=100_000_000,
        already=99_000_000,
        silent=400_000.0,
        trouble="RequestTimeoutError",
        patience_left=1_000_000.0,
        retries=99_999_999,
        pool=SPENT,
    ),
    "silent to the end": progress(silent=900.0, trouble="ConnectError", patience_left=0.0),
    "silent without end": progress(silent=40.0, trouble="A", patience_left=float("inf")),
    "silent for a moment": progress(silent=5.0, trouble="ServerError 503", patience_left=895.0),
    "writing": progress(phase="writing", written=0.459, seconds_left=None),
    "done": progress(phase="done", done=1_000_000, seconds_left=0.0, pool=SPENT),
    "nothing to do": progress(phase="done", done=0, total=0, rate=0.0),
}


def drawn(state: JobProgress, width: int, target: str = "the Parquet file") -> list[str]:
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(views._drawn(state, target, width))
    return captured.get().split("\n")[:-1]


@pytest.mark.parametrize("width", [40, 41, 60, 79, 80, 120, 200])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_the_live_view_is_four_lines_that_fit(state: JobProgress, width: int) -> None:
    lines = drawn(state, width)
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("state", "width", "told"),
    [
        ("counting", 40, ["counting the identifiers", "0 ids", "0 requests", "0 failed"]),
        ("again counting", 80, ["counting", "912,350 ids · 10,000/s · going on after 912,350"]),
        ("running", 80, ["12 %  1:28 left", "120,000/1,000,000 ids · 10,000/s"]),
        ("running", 80, ["", "", "limit ▕███▉    ▏ 1,204/2,500 · 2,400 requests · 2 again"]),
        ("running", 80, ["", "", "1 refused", "0 profiles · 0 unknown · 3 failed"]),
        ("waiting", 80, ["", "", "limit ▕        ▏ 0/2,500 · next window in 12 s · 2,400 req"]),
        ("waiting", 40, ["", "", "limit 0/2,500 · next window in 12 s", "0 failed"]),
        ("waiting", 80, ["", "", "", "12 repeated"]),
        ("much", 40, ["99 %  111:06:40 left", "99,999,999/100,000,000 ids", "", "99,999,999 f"]),
        (
            "silent",
            80,
            [
                "12 %  giving up in 14:20",
                "120,000/1,000,000 ids · nothing comes through for 40 s (ServerError 503)",
                "2,400 requests",
            ],
        ),
        ("silent", 120, ["", "for 40 s (ServerError 503) · going on after 7"]),
        ("silent", 60, ["giving up in 14:20", "nothing comes through for 40 s (ServerError 503)"]),
        ("silent", 40, ["giving up in 14:20", "nothing comes through for 40 s"]),
        ("silent for long", 40, ["giving up in 277:46:40", "nothing comes through for 111:06:40"]),
        ("silent for long", 80, ["", "111:06:40 (RequestTimeoutError)", "next window in 12 s"]),
        ("silent to the end", 80, ["12 %  giving up soon", "for 15:00 (ConnectError)"]),
        ("silent without end", 80, ["12 %  12 s", "for 40 s (A)"]),
        ("silent for a moment", 80, ["12 %  1:28 left", "120,000/1,000,000 ids · 10,000/s"]),
        ("writing", 80, ["writing the Parquet file 45 %", "120,000/1,000,000 ids"]),
        ("done", 80, ["100 %  12 s", "1,000,000/1,000,000 ids"]),
        ("nothing to do", 80, ["100 %  12 s", "0/0 ids"]),
    ],
)
def test_what_the_lines_say(state: str, width: int, told: list[str]) -> None:
    for line, text in zip(drawn(STATES[state], width), told, strict=False):
        assert text in line


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("state", ["silent", "silent for long", "silent to the end"])
def test_in_silence_there_is_neither_rate_nor_time_left(state: str, width: int) -> None:
    text = "\n".join(drawn(STATES[state], width))
    assert "/s" not in text
    assert "left" not in text


def test_a_narrow_terminal_is_told_what_matters_most() -> None:
    much = drawn(STATES["much"], 40)
    assert "failed" in much[3]
    assert "repeated" not in much[3]
    assert "going on" not in much[1]


def test_what_is_over_has_neither_rate_nor_limit() -> None:
    assert [line.rstrip() for line in drawn(STATES["done"], 80)][1:] == [
        "1,000,000/1,000,000 ids",
        "2,400 requests",
        "0 profiles · 0 unknown · 0 failed",
    ]


def test_the_bar_stands_still_while_the_time_left_changes() -> None:
    edges = {
        drawn(progress(seconds_left=left), 100)[0].index(" ")
        for left in (1.0, 88.0, 4000.0, 400_000.0)
    }
    assert len(edges) == 1


def test_what_is_written_is_named() -> None:
    assert "writing the table 45 %" in drawn(STATES["writing"], 80, "the table")[0]


def test_failures_are_marked() -> None:
    styles = [[str(part.style) for part in views._outcome(progress(failed=n))] for n in (0, 3)]
    assert styles == [["", "", ""], ["", "", "bold red"]]


@pytest.mark.parametrize(
    ("remaining", "of", "text"),
    [
        (0, 250, "▕        ▏"),
        (250, 250, "▕████████▏"),
        (999, 250, "▕████████▏"),
        (125, 250, "▕████    ▏"),
        (4, 250, "▕▏       ▏"),
        (0, 0, "▕        ▏"),
    ],
)
def test_the_gauge(remaining: int, of: int, text: str) -> None:
    assert views._gauge(remaining, of) == text


@pytest.mark.parametrize("width", ["40", "120"])
async def test_live_on_a_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setattr(views, "is_live", lambda *, stderr: True)
    monkeypatch.setattr("braze_export.cli.screen.is_live", lambda *, stderr: True)
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    before = asyncio.all_tasks()
    with job_view(Screen(), quiet=False, as_json=False) as view:
        for state in STATES.values():
            view.show(state)
        await asyncio.to_thread(view.report, report())  # it is told once the loop has ended
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("counting the identifiers") == 2
    assert "999,000" in err.rpartition("100 %")[2]  # the report stands below
    assert asyncio.all_tasks() == before


def plain(*states: JobProgress, capsys: Printed, **options: Any) -> list[str]:
    with job_view(Screen(), quiet=False, as_json=False, **options) as view:
        for state in states:
            view.show(state)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (
            progress(pool=pool(remaining=100), failed=3),
            (
                "[ 12.0 s] 120,000/1,000,000 ids, 10,000/s, 2,400 requests, limit 100/2,500, "
                "3 failed, 1:28 left"
            ),
        ),
        (
            progress(pool=SPENT, seconds_left=2.0, retries=1),
            (
                "[ 12.0 s] 120,000/1,000,000 ids, 10,000/s, 2,400 requests (1 again), "
                "limit 0/2,500, next window in 12 s, 12 s left"
            ),
        ),
        (
            progress(
                silent=40.0,
                trouble="ServerError 503",
                patience_left=860.0,
                pool=pool(remaining=2042),
                retries=132,
            ),
            (
                "[ 12.0 s] 120,000/1,000,000 ids, nothing comes through for 40 s "
                "(ServerError 503), giving up in 14:20, 2,400 requests (132 again), "
                "limit 2,042/2,500"
            ),
        ),
        (
            progress(silent=5.1, patience_left=0.2, pool=SPENT),
            (
                "[ 12.0 s] 120,000/1,000,000 ids, nothing comes through for 5 s, giving up soon, "
                "2,400 requests, limit 0/2,500, next window in 12 s"
            ),
        ),
        (
            progress(silent=6.0, trouble="ConnectError", patience_left=float("inf")),
            (
                "[ 12.0 s] 120,000/1,000,000 ids, nothing comes through for 6 s (ConnectError), "
                "2,400 requests"
            ),
        ),
        (
            STATES["silent for a moment"],
            "[ 12.0 s] 120,000/1,000,000 ids, 10,000/s, 2,400 requests, 1:28 left",
        ),
        (
            progress(phase="writing", written=0.5, silent=40.0, trouble="ServerError 503"),
            "[ 12.0 s] writing the Parquet file 50 %",
        ),
        (STATES["counting"], "[ 12.0 s] counting the identifiers"),
        (
            STATES["again counting"],
            (
                "[ 12.0 s] counting the identifiers, 912,350 ids, 10,000/s, 2,400 requests, "
                "going on after 912,350"
            ),
        ),
        (STATES["writing"], "[ 12.0 s] writing the Parquet file 45 %"),
        (STATES["done"], "[ 12.0 s] 1,000,000/1,000,000 ids, 2,400 requests"),
        (
            progress(seconds_left=float("inf")),
            "[ 12.0 s] 120,000/1,000,000 ids, 10,000/s, 2,400 requests",
        ),
    ],
)
def test_plain_lines(state: JobProgress, line: str, capsys: Printed) -> None:
    assert plain(state, capsys=capsys) == [line]


def test_plain_lines_come_ever_more_rarely(capsys: Printed) -> None:
    states = (progress(elapsed=n / 4, done=n) for n in range(4 * 13 * 3600))
    lines = plain(*states, capsys=capsys)
    assert 700 < len(lines) < 900
    assert lines[-1].startswith("[46799.8 s] ")


def test_a_new_phase_is_told_at_once(capsys: Printed) -> None:
    states = [
        progress(elapsed=100.0),
        progress(elapsed=100.5, done=1_000_000),
        progress(elapsed=101.0, phase="writing"),
        progress(elapsed=101.5, phase="writing", written=0.5),
        progress(elapsed=102.0, phase="done", done=1_000_000),
    ]
    assert [line[:20] for line in plain(*states, capsys=capsys, target="the table")] == [
        "[100.0 s] 120,000/1,",
        "[101.0 s] writing th",
        "[102.0 s] 1,000,000/",
    ]


def test_what_earlier_runs_did_is_told_once(capsys: Printed) -> None:
    states = (progress(elapsed=float(n), done=n, already=7) for n in range(20))
    lines = plain(*states, capsys=capsys)
    assert [("going on after 7" in line) for line in lines] == [True] + [False] * (len(lines) - 1)


def test_what_is_soon_over_is_not_worth_a_line(capsys: Printed) -> None:
    assert plain(progress(elapsed=0.9, phase="done"), capsys=capsys) == []


def test_no_line_comes_twice_and_the_last_state_is_told(capsys: Printed) -> None:
    state = progress(elapsed=20.0)
    assert len(plain(state, state, capsys=capsys)) == 1
    later = progress(elapsed=20.5, done=130_000)
    assert [line[:9] for line in plain(state, later, capsys=capsys)] == ["[ 20.0 s]", "[ 20.5 s]"]


def test_the_last_state_is_told_of_a_job_that_fails(capsys: Printed) -> None:
    def fail() -> None:
        with job_view(Screen(), quiet=False, as_json=False) as view:
            view.show(progress(elapsed=20.0))
            view.show(progress(elapsed=20.5, done=130_000))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "130,000/1,000,000" in capsys.readouterr().err


def test_silence(capsys: Printed) -> None:
    with job_view(Screen(), quiet=True, as_json=False) as view:
        for state in STATES.values():
            view.show(state)
        view.report(report(failed=3, complete=False))
    assert capsys.readouterr() == ("", "")


def as_json(*states: JobProgress, capsys: Printed, last: JobReport | None = None) -> list[Any]:
    with job_view(Screen(), quiet=True, as_json=True) as view:
        for state in states:
            view.show(state)
        if last is not None:
            view.report(last)
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]


def test_json_for_machines(capsys: Printed) -> None:
    assert as_json(progress(pool=SPENT, rate=1 / 3), capsys=capsys) == [
        {
            "event": "progress",
            "phase": "exporting",
            "done": 120_000,
            "total": 1_000_000,
            "profiles": 0,
            "unknown": 0,
            "failed": 0,
            "repeated": 0,
            "already": 0,
            "requests": 2400,
            "retries": 0,
            "rate_limited": 0,
            "elapsed": 12.0,
            "rate": 0.333,
            "seconds_left": 88.0,
            "written": 0.0,
            "pool": {
                "limit": 2500,
                "remaining": 0,
                "resets_in": 12.0,
                "waiting": 64,
                "in_flight": 0,
                "sent": 0,
                "refused": 0,
                "seconds_waited": 0.0,
            },
            "silent": 0.0,
            "trouble": "",
            "patience_left": None,
        }
    ]


def test_silence_in_json(capsys: Printed) -> None:
    (line,) = as_json(STATES["silent"], capsys=capsys)
    told = (line["silent"], line["trouble"], line["patience_left"])
    assert told == (40.0, "ServerError 503", 860.0)


def test_json_has_no_number_that_is_none(capsys: Printed) -> None:
    (line,) = as_json(progress(rate=float("nan"), seconds_left=float("inf")), capsys=capsys)
    assert (line["rate"], line["seconds_left"], line["pool"]) == (None, None, None)


def test_json_comes_once_a_second_and_whenever_the_phase_changes(capsys: Printed) -> None:
    states = [progress(elapsed=n / 4) for n in range(41)]
    states += [progress(elapsed=10.1, phase="writing"), progress(elapsed=10.2, phase="done")]
    lines = as_json(*states, capsys=capsys)
    assert [line["elapsed"] for line in lines] == [*range(11), 10.1, 10.2]


def test_the_last_line_of_json_is_the_report(capsys: Printed) -> None:
    moment = Moment(at=1.0, done=1, requests=1, rate_limited=0)
    last = report(
        course=(moment,),
        reasons={"[red]lost\nin two": 3},
        output="a\udcff.parquet",
        seconds_waited=float("nan"),
    )
    (line,) = as_json(capsys=capsys, last=last)
    assert line.pop("event") == "report"
    assert "course" not in line
    assert line["unknown_file"] == "unknown.txt"
    assert line["output"] == "a?.parquet"
    assert line["reasons"] == {"[red]lost\nin two": 3}
    assert line["seconds_waited"] is None
    assert line["complete"] is True


def test_a_reader_that_has_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    screen = Screen(out=Console(file=Gone()))
    with pytest.raises(BrokenPipeError), job_view(screen, quiet=False, as_json=True) as view:
        view.show(progress())


def told(capsys: Printed, **more: Any) -> str:
    tell(report(**more), Screen())
    out, err = capsys.readouterr()
    assert out == ""
    return "\n".join(line.rstrip() for line in err.splitlines())


def test_the_report_of_a_job_without_trouble(capsys: Printed) -> None:
    assert told(capsys).splitlines() == [
        "Identifiers  1,000,000",
        "Profiles     999,000",
        "Unknown      997",
        "Failed       0",
        "Requests     20,000",
        "Time         12 s, 83,333 identifiers/s",
        "Output       profiles.parquet",
        "Unknown in   unknown.txt",
    ]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"already": 400_000, "seconds": 6.0}, "1,000,000 (400,000 of them in earlier runs)"),
        ({"already": 400_000, "seconds": 6.0}, "6 s, 100,000 identifiers/s"),
        ({"seconds": 0.0}, "Time         0 s\n"),
        ({"seconds_waited": 65.0}, "waited 1:05 for the rate limit"),
        ({"retries": 3, "rate_limited": 2}, "20,000 (3 again, 2 refused by the rate limit)"),
        ({"repeated": 4, "blank": 5}, "Repeated     4\nBlank rows   5\n"),
        ({"failed": 3}, "Failed in    failed.ndjson"),
        ({"failed": 3}, "Warning: 3 identifiers failed. Run the same command with --retry-failed"),
        (
            {"failed": 3, "reasons": {NOT_ASKED: 3}},
            "Warning: 3 identifiers failed: what they are cannot be asked for. See failed.ndjson.",
        ),
        (
            {"failed": 3, "reasons": {NOT_ASKED: 2, "a": 1}},
            "failed. Run the same command with --retry-failed",
        ),
        ({"failed": 9, "reasons": {"a": 1, "b": 8}}, "Failed       9 (8: b; 1: a)\n"),
        (
            {"failed": 5, "reasons": dict.fromkeys("abcde", 1)},
            "Failed       5 (1: a; 1: b; 1: c; 2 more reasons)\n",
        ),
        (
            {"complete": False, "done": 912_350},
            "Run the same command again to go on after 912,350 of 1,000,000.",
        ),
        ({"complete": False, "done": 912_350}, "Identifiers  912,350 of 1,000,000\n"),
        ({"output": "[red]\x1b[2J\udcff"}, "[red]\\x1b[2J\\udcff"),
    ],
)
def test_what_the_report_tells(more: dict[str, Any], text: str, capsys: Printed) -> None:
    assert text in told(capsys, **more)


def test_files_are_named_once_they_have_their_names(capsys: Printed) -> None:
    text = told(capsys, complete=False, failed=3)
    assert not re.search("profiles.parquet|unknown.txt|Failed in", text)
