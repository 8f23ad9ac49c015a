"""The tables and what they say against us, as Markdown, in their place in ``RESULTS.md``."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.peers.cells import Outcome
from benchmarks.peers.figures import Figures
from benchmarks.peers.works import Work

RESULTS: Final = Path(__file__).parents[1] / "RESULTS.md"
_BEGIN, _END = "<!-- peers: measured, do not edit -->", "<!-- peers: end -->"
_OURS = "braze_export"
_HEAD: Final = (
    "", "answered", "unknown", "raised", "lost", "429", "seconds", "of perfect", "requests",
    "connections", "CPU s", "peak MB",
)  # fmt: skip
#: What is compared where every identifier was accounted for: less is better.
_MEASURES: Final[dict[str, tuple[Callable[[Outcome], float], str]]] = {
    "answers of 429": (lambda o: o.counts.refused, ".0f"),
    "seconds": (lambda o: o.seconds, ".2f"),
    "requests": (lambda o: o.counts.requests, ".0f"),
    "connections": (lambda o: o.counts.connections, ".0f"),
    "processor seconds": (lambda o: o.cpu, ".2f"),
    "peak MB": (lambda o: o.peak_mb, ".0f"),
}


def write(figures: Figures) -> None:
    """Put the tables into their place; what stands around them stays."""
    text = RESULTS.read_text("utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise RuntimeError(f"{RESULTS} has no place for the tables: {_BEGIN} … {_END}")
    RESULTS.write_text(f"{before}{begin}\n\n{rendered(figures)}\n{end}{after}", "utf-8")


def rendered(figures: Figures) -> str:
    """Return all tables."""
    load = f"{figures.load[0]:.1f} before and {figures.load[1]:.1f} after"
    parts = [f"Measured on {figures.when}: {figures.minutes:.0f} minutes, load average {load}.\n"]
    for work, outcomes in figures.works():
        best = figures.perfect(work, outcomes[0])
        parts += [
            f"### {work.name}\n",
            f"The perfect scheduler takes {best:.2f} s.\n",
            _line(_HEAD),
            _line(["---", *["---:"] * (len(_HEAD) - 1)]),
            *(_row(figures, work, outcome) for outcome in outcomes),
            "",
            *_remarks(outcomes),
        ]
    return "\n".join(parts)


def _row(figures: Figures, work: Work, outcome: Outcome) -> str:
    counts, ratio = outcome.counts, f"{figures.ratio(work, outcome):.2f}"
    seconds = f"{outcome.seconds:.2f}"
    return _line(
        [
            outcome.side,
            f"{outcome.answered:,}",
            f"{outcome.unknown:,}",
            f"{sum(outcome.raised.values()):,}",
            f"{outcome.lost:,}",
            str(counts.refused),
            f"ended at {work.patience:.0f}" if outcome.ended else seconds,
            # Half of the work in half of the time is no merit.
            ratio if outcome.whole else "-",
            str(counts.requests),
            str(counts.connections),
            f"{outcome.cpu:.2f}",
            f"{outcome.peak_mb:.0f}",
        ]
    )


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _remarks(outcomes: list[Outcome]) -> list[str]:
    """Say which errors stand in the column, and who was better than we are, in what."""
    raised = [
        f"{outcome.side}: " + ", ".join(f"{n:,} by {name}" for name, n in outcome.raised.items())
        for outcome in outcomes
        if outcome.raised
    ]
    remarks = [f"Identifiers raised: {'; '.join(raised)}.\n"] if raised else []
    better = [text for name in _MEASURES if (text := _better(name, outcomes))]
    said = "; ".join(better) if better else "in nothing"
    return [*remarks, f"Better than ours, among those that answered everything: {said}.\n"]


def _better(name: str, outcomes: list[Outcome]) -> str:
    measure, form = _MEASURES[name]
    whole = [outcome for outcome in outcomes if outcome.whole]
    ours = [outcome for outcome in whole if outcome.side.startswith(_OURS)]
    if not ours:
        return f"{name}: ours did not answer everything"
    # As it reads in the table: what is equal there is equal here.
    best = min(float(format(measure(outcome), form)) for outcome in ours)
    others = [
        f"{outcome.side} ({figure:{form}})"
        for outcome in whole
        if outcome not in ours and (figure := float(format(measure(outcome), form))) < best
    ]
    return f"{name} (ours {best:{form}}): {', '.join(others)}" if others else ""
