import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export.jobs.report.course import Course, Stretch, Use, stretches
from braze_export.jobs.report.page import report_page
from braze_export.jobs.report.scales import number, span, ticks, time_ticks
from braze_export.jobs.values import JobReport, Moment

MADE = datetime(2025, 3, 1, 13, 5, tzinfo=UTC)


def moment(at: float, done: int = 0, **more: Any) -> Moment:
    return Moment(**({"at": at, "done": done, "requests": done // 50, "rate_limited": 0} | more))


def report(**more: Any) -> JobReport:
    usual: dict[str, Any] = {
        "complete": True,
        "source": "ids.csv",
        "output": "profiles.ndjson",
        "unknown_file": Path("profiles.unknown.txt"),
        "failed_file": Path("profiles.failed.ndjson"),
        "total": 1000,
        "done": 1000,
        "profiles": 990,
        "unknown": 10,
        "failed": 0,
        "requests": 20,
        "seconds": 4.0,
    }
    return JobReport(**(usual | more))


def page(**more: Any) -> str:
    return report_page(report(**more), made_at=MADE)


class Reader(HTMLParser):
    """Reads a page as a browser does: its elements and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def bars(text: str, kind: str, size: str = "wide") -> list[ElementTree.Element]:
    found = (d for d in drawings(text) if d.get("class") == size)
    return [bar for drawing in found for bar in drawing.iter() if bar.get("class") == kind]


@pytest.mark.parametrize("seconds", [0.01, 5, 69, 71, 599, 3600, 47_000, 900_000])
def test_a_course_is_spaced_evenly_whatever_its_length(seconds: float) -> None:
    course = Course()
    for step in range(5001):
        course.note(moment(seconds * step / 5000, step))
    kept = course.moments
    assert len(kept) <= 600
    assert kept[0].done == 0
    assert kept[-1].done == 5000
    gaps = [b.done - a.done for a, b in pairwise(kept)][:-1]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    assert len(kept) >= 290 or seconds < 70


def test_in_a_long_run_moments_are_whole_minutes_apart() -> None:
    course = Course()
    for second in range(47_000):
        course.note(moment(second))
    assert {m.at % 60 for m in course.moments[:-1]} == {0}


def test_an_empty_course_and_one_of_a_moment() -> None:
    course = Course()
    assert not course.moments
    course.note(moment(3, 1))
    assert list(course.moments) == [moment(3, 1)]
    course.note(moment(3, 2))
    assert list(course.moments) == [moment(3, 1), moment(3, 2)]


TIMES = st.lists(st.integers(0, 10**9), max_size=700).map(lambda us: [n / 1000 for n in sorted(us)])


@given(times=TIMES)
@settings(max_examples=50, deadline=None)
def test_any_course_is_short_in_order_and_ends_with_the_last(times: list[float]) -> None:
    course = Course()
    for index, at in enumerate(times):
        course.note(moment(at, index))
    kept = course.moments
    assert len(kept) <= 600
    assert [m.done for m in kept] == sorted({m.done for m in kept})
    assert [m.done for m in kept[-1:]] == [len(times) - 1][: len(times)]


@given(times=TIMES, data=st.data())
@settings(max_examples=50, deadline=None)
def test_stretches_hold_all_that_came(times: list[float], data: st.DataObject) -> None:
    grown, moments = 0, []
    for at in times:
        grown += data.draw(st.integers(0, 1000))
        moments.append(moment(at, grown, requests=grown, rate_limited=grown // 2, waiting=1))
    run = stretches(moments)
    last = moments[-1] if moments and moments[-1].at > 0 else moment(0)
    assert len(run) <= 161
    assert all(a.end == b.begin for a, b in pairwise(run))
    assert sum(part.refused for part in run) == last.rate_limited
    for name in ("done", "requests"):
        total = sum(getattr(part, name) * (part.end - part.begin) for part in run)
        assert total == pytest.approx(getattr(last, name), rel=1e-6, abs=1e-6)


def test_bursts_stay_bursts() -> None:
    moments = []
    for second in range(1, 601):
        window, into = divmod(second, 60)
        sent = 250 * window + min(250, into * 50)
        moments.append(
            moment(second, sent * 50, limit=250, remaining=250 * (window + 1) - sent, waiting=9)
        )
    run = stretches(moments)
    assert {part.end - part.begin for part in run} == {5.0}
    fast, still = ([p for p in run if bool(p.done) == moving] for moving in (True, False))
    assert len(fast) == 10
    assert {part.done for part in fast} == {2500.0}
    assert all(part.begin % 60 == 0 for part in fast)
    assert run[1].use == Use(low=1, mean=1, high=1)
    assert run[0].use is not None
    assert attrs.astuple(run[0].use) == pytest.approx((0.2, 0.6, 1.0))
    assert {part.waiting for part in still} == {1}


def test_windows_that_are_looked_at_too_rarely_are_not_said_to_be_used() -> None:
    run = stretches([moment(60 * n, limit=250, remaining=250) for n in range(1, 100)])
    assert {part.use for part in run} == {None}


@pytest.mark.parametrize(
    ("end", "edges"),
    [(2.3, [0, 1, 2.3]), (2.6, [0, 1, 2, 2.6]), (0.4, [0, 0.4])],
)
def test_a_rest_at_the_end_is_no_splinter(end: float, edges: list[float]) -> None:
    times = [at for at in (1.0, 2.0) if at < end] + [end]
    run = stretches([moment(at) for at in times])
    assert [run[0].begin, *(part.end for part in run)] == edges


def test_of_two_moments_at_one_time_the_last_counts() -> None:
    assert stretches([moment(2, 10), moment(2, 30)]) == [
        Stretch(begin=0, end=2, done=15, requests=0, refused=0, waiting=0, use=None)
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.034, "0.034"), (2.5, "2.5"), (3.0, "3"), (12.4, "12"), (83_333, "83,333")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.52, "2.5 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min"),
        (65, "1 min 5 s"),
        (3599.9, "1 h"),
        (48_000, "13 h 20 min"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("highest", "most", "expected"),
    [
        (0, 5, [0, 1]),
        (1, 5, pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])),
        (250, 5, [0, 50, 100, 150, 200, 250]),
        (83_000, 5, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
    ],
)
def test_ticks_are_round(highest: float, most: int, expected: list[float]) -> None:
    assert ticks(highest, most) == expected


@given(highest=st.floats(1e-3, 1e9), most=st.integers(2, 8))
def test_ticks_are_few_and_reach_the_highest(highest: float, most: int) -> None:
    made = ticks(highest, most)
    assert 2 <= len(made) <= most + 1
    assert made[-1] >= highest * 0.99999


@pytest.mark.parametrize(
    ("end", "unit", "texts"),
    [
        (0.4, "seconds", ["0", "0.1", "0.2", "0.3", "0.4"]),
        (12, "seconds", ["0", "2", "4", "6", "8", "10", "12"]),
        (1150, "minutes", ["0", "5", "10", "15"]),
        (46_940, "hours", ["0", "3", "6", "9", "12"]),
        (10 * 86_400, "days", ["0", "2", "4", "6", "8", "10"]),
    ],
)
def test_the_time_axis_has_the_unit_that_fits(end: float, unit: str, texts: list[str]) -> None:
    name, made = time_ticks(end, 6)
    assert (name, [text for _, text in made]) == (unit, texts)


COURSES = {
    "none": (),
    "no time": (moment(0, 5),),
    "one moment": (moment(0.4, 300, limit=250, remaining=244),),
    "nothing done": tuple(moment(at, limit=250, remaining=0, waiting=3) for at in range(1, 50)),
    "nobody says": tuple(moment(at, at * 10, rate_limited=at // 9) for at in range(1, 600)),
    "no limit": (moment(5, 1, limit=0, remaining=0), moment(9, 2, limit=0, remaining=4)),
    "thirteen hours": tuple(
        moment(78 * n, 16_000 * n, limit=250, remaining=9, waiting=64) for n in range(1, 601)
    ),
}


@pytest.mark.parametrize("course", COURSES.values(), ids=COURSES.keys())
def test_any_course_makes_a_page_that_is_well_formed(course: tuple[Moment, ...]) -> None:
    text = page(course=course)
    charts = drawings(text)
    assert len(charts) == (4 if course and course[-1].at else 0)
    assert ("too short for charts" in text) == (not charts)
    assert not re.search(r"\b(nan|inf)\b", text.partition("<body>")[2], re.IGNORECASE)
    for chart in charts:
        width, height = map(float, chart.get("viewBox", "").split()[2:])
        for shape in chart.iter("rect"):
            x, y, wide, high = (float(shape.get(n, "")) for n in ("x", "y", "width", "height"))
            assert 0 <= x <= x + wide <= width
            assert 0 <= y <= y + high <= height
    assert len(text) < 300_000


def test_each_chart_is_told_in_words_too() -> None:
    course = (moment(1, 100, waiting=1), moment(2, 100, rate_limited=3))
    text = page(course=course)
    names = [value for name, value in Reader(text).attributes if name == "id"]
    assert len(names) == len(set(names)) == 8
    for chart in drawings(text):
        assert chart.get("role") == "img"
        title, description = chart[:2]
        assert (chart.get("aria-labelledby") or "").split() == [
            title.get("id"),
            description.get("id"),
        ]
    told = [chart[1].text for chart in drawings(text) if chart.get("class") == "wide"]
    assert told == [
        (
            "Bars of 1 s over 2 s: 50 a second on the average, 100 in the fastest bar, "
            "0 in the slowest."
        ),
        (
            "1 requests a second on the average, 2 at most. Requests waited for 50% of the time. "
            "3 refused by the rate limit."
        ),
    ]


def test_charts_say_what_is_under_the_pointer() -> None:
    text = page(course=(moment(1, 100), moment(2, 100, rate_limited=3, waiting=2)))
    said = [title.text for chart in drawings(text) for title in chart.iter("title")]
    assert "0 s to 1 s: 100 identifiers/s" in said
    assert "1 s to 2 s: 0 identifiers/s" in said
    assert "1 s to 2 s: 3 refused" in said
    assert "1 s to 2 s: requests waited for 100% of the time" in said


def test_the_use_of_windows_is_told_and_drawn_where_it_is_known() -> None:
    seen = [(0.5, 250), (1, 0), (2, 0), (5, 125), (6, 125)]
    course = [moment(at, 50, limit=250, remaining=left) for at, left in seen]
    text = page(course=(*course[:3], moment(3, 50), moment(4, 50), *course[3:]))
    chart = [drawing for drawing in drawings(text) if drawing.get("class") == "wide"][-1]
    said = [title.text or "" for title in chart.iter("title")]
    assert [words for words in said if "window used" in words] == [
        "0 s to 1 s: 50% of the window used, from 0% to 100%",
        "1 s to 2 s: 100% of the window used",
        "4 s to 5 s: 50% of the window used",
        "5 s to 6 s: 50% of the window used",
    ]
    (line,) = (path.get("d", "") for path in chart.iter("path") if path.get("class") == "use")
    assert re.sub(r"[\d. ]", "", line) == "MHLHMHLH"  # with a gap


def test_a_bar_is_as_high_as_its_rate() -> None:
    course = (moment(1, 100), moment(2, 150), moment(3, 150), moment(4, 151))
    heights = [float(bar.get("height", "")) for bar in bars(page(course=course), "done")]
    assert heights == [170, 85, 1.7]  # and none where nothing was done


def test_the_page_needs_nothing_and_runs_nothing() -> None:
    read = Reader(page(course=COURSES["thirteen hours"], reasons={"lost": 3}))
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "a"} & {*read.tags}
    assert not [n for n, _ in read.attributes if n in {"src", "href", "xlink:href", "srcset"}]
    assert not [n for n, _ in read.attributes if n.startswith("on")]
    assert "url(" not in page()
    assert "@import" not in page()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page()


HOSTILE = "<script>alert(1)</script>\"'&amp;\x00\u202e\udcff"


@pytest.mark.parametrize("name", ["source", "output", "unknown_file", "failed_file", "reasons"])
def test_text_from_elsewhere_stays_text(name: str) -> None:
    value: Any = {HOSTILE: 3} if name == "reasons" else HOSTILE
    text = page(**{name: Path("x" + HOSTILE) if name.endswith("_file") else value})
    read = Reader(text)
    assert "script" not in read.tags
    assert "<script>alert(1)</script>\"'&amp;\\x00\\u202e\\udcff" in read.text
    assert text.encode().decode() == text


def test_what_came_of_it() -> None:
    read = Reader(page(repeated=3, blank=4, retries=5, rate_limited=6, seconds_waited=65)).text
    assert "Complete: each of the 1,000 identifiers lies in one of the files." in read
    for row in (
        "Identifiers1,000 of 1,000",
        "Unknown to Braze10",
        "Repeated in the input3",
        "Blank rows4",
        "sent again5",
        "refused by the rate limit6",
        "waited for the rate limit1 min 5 s",
        "Identifiers a second250",
    ):
        assert row in read
    assert "Made 2025-03-01 13:05 UTC" in read


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (
            {"complete": False, "done": 912_350, "total": 1_000_000},
            (
                "Not complete: the same command or call, run again, goes on after 912,350 of "
                "1,000,000 identifiers."
            ),
        ),
        ({"failed": 3}, "one of the files. 3 of them failed."),
        ({"total": 0, "done": 0}, "Complete: the input holds no identifiers."),
        ({"already": 200}, "of earlier runs200"),
        ({"already": 200, "course": (moment(1, 1),)}, "The charts show this run"),
        ({"already": 200}, "Identifiers a second200"),
        ({"course": (moment(1, 1, limit=250), moment(2, 1, limit=2500))}, "250 to 2,500 requests"),
        ({"course": (moment(1, 1, limit=250),)}, "The limit: 250 requests a window."),
    ],
)
def test_what_is_told_when(more: dict[str, Any], text: str) -> None:
    assert text in Reader(page(**more)).text


def test_a_run_that_took_no_time_has_no_rate() -> None:
    assert "Identifiers a second" not in page(seconds=0.0)


def test_reasons_are_told_by_how_often_they_came() -> None:
    reasons = {f"reason {n:02}": n for n in range(1, 31)}
    read = Reader(page(failed=465, reasons=reasons)).text
    assert read.index("reason 30") < read.index("reason 11") < read.index("10 more reasons55")
    assert "reason 10" not in read


def test_the_time_on_the_page_names_its_zone() -> None:
    berlin = MADE.astimezone(timezone(timedelta(hours=1), "CET"))
    assert "Made 2025-03-01 14:05 CET" in report_page(report(), made_at=berlin)
    assert "Made 2025-03-01 13:05</p>" in report_page(report(), made_at=MADE.replace(tzinfo=None))
