"""What came of a job as one HTML page: it needs nothing beside it, and runs nothing.

All text is escaped: names of files and reasons come from elsewhere.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Final

from braze_export.jobs.report.charts import NARROW, WIDE, Format, rate_limit, throughput
from braze_export.jobs.report.course import Stretch, stretches
from braze_export.jobs.report.scales import number, span
from braze_export.jobs.values import JobReport

_MOST_REASONS: Final = 20

# Even if some text got through unescaped, nothing of it would run or be fetched.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)

_LIGHT: Final = """
--page: #fff; --ink: #1c2430; --soft: #5b6675; --rule: #dfe3e8; --done: #3568d4;
--sent: #5b7f95; --use: #0f766e; --range: #0f766e40; --waiting: #d99a1c; --refused: #c42b2b;
--good: #17703b; --good-back: #e6f4ea; --open: #8a4b00; --open-back: #fdf0da;"""

_DARK: Final = """
--page: #14181e; --ink: #e6e9ee; --soft: #9aa5b3; --rule: #2e3641; --done: #6c9bf5;
--sent: #8fb0c4; --use: #3fc2b4; --range: #3fc2b440; --waiting: #e0a93a; --refused: #ff7b72;
--good: #7ddc9c; --good-back: #173322; --open: #ffc46b; --open-back: #3a2a10;"""

_STYLE: Final = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 860px; margin: 0 auto; padding: 32px 20px 48px; }}
h1 {{ font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 18px; margin: 36px 0 8px; break-after: avoid; }}
p {{ margin: 8px 0; overflow-wrap: anywhere; }}
.soft {{ color: var(--soft); font-size: 14px; }}
.outcome {{ padding: 12px 16px; border-radius: 8px; margin: 20px 0; }}
.good {{ background: var(--good-back); color: var(--good); }}
.open {{ background: var(--open-back); color: var(--open); }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; vertical-align: top; font-weight: normal; padding: 5px 12px 5px 0;
  border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }}
th {{ color: var(--soft); width: 250px; overflow-wrap: normal; }}
th.part {{ padding-left: 18px; }}
thead th, .count {{ width: auto; white-space: nowrap; }}
.count {{ text-align: right; padding-right: 0; padding-left: 12px; }}
tr {{ break-inside: avoid; }}
figure {{ margin: 0; break-inside: avoid; }}
figcaption span {{ display: inline-block; }}
figcaption {{ font-size: 14px; color: var(--soft); }}
.key {{ display: inline-block; margin-right: 18px; }}
.key::before {{ content: ""; display: inline-block; width: 12px; height: 12px; margin-right: 6px;
  border-radius: 2px; vertical-align: -1px; background: var(--it); }}
.key.line::before {{ width: 20px; height: 0; border-top: 2px var(--how) var(--it); border-radius: 0;
  background: none; vertical-align: 4px; }}
.key.dot::before {{ border-radius: 50%; width: 8px; height: 8px; }}
svg {{ display: block; width: 100%; height: auto; }}
svg.narrow {{ display: none; }}
svg text {{ font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--soft); font-variant-numeric: tabular-nums; }}
.grid {{ stroke: var(--rule); }}
.axis {{ stroke: var(--soft); fill: none; }}
.level {{ stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }}
.use {{ stroke: var(--use); stroke-width: 1.5; fill: none; pointer-events: none; }}
.area {{ fill: transparent; }}
g:hover > .area {{ fill: var(--rule); }}
rect.done {{ fill: var(--done); }}
rect.sent {{ fill: var(--sent); }}
rect.range {{ fill: var(--range); shape-rendering: crispEdges; }}
rect.waiting {{ fill: var(--waiting); shape-rendering: crispEdges; }}
circle.refused {{ fill: var(--refused); }}
@media screen and (max-width: 560px) {{
  main {{ padding: 20px 14px 32px; }}
  h1 {{ font-size: 22px; }}
  th {{ width: 42%; }}
  svg.wide {{ display: none; }}
  svg.narrow {{ display: block; }}
}}
@media print {{
  * {{ -webkit-print-color-adjust: exact; print-color-adjust: exact; }}
  body {{ font-size: 13px; }}
  main {{ padding: 0; }}
}}
"""


def report_page(report: JobReport, *, made_at: datetime) -> str:
    """Return the report as a page that can be kept, mailed and printed.

    Args:
        report: what came of the job.
        made_at: when the page is made, to stand on it.
    """
    source = _text(report.source)
    body = [
        f"<h1>Export of {source}</h1>",
        f'<p class="soft">Made {_text(made_at.strftime("%Y-%m-%d %H:%M %Z").strip())}</p>',
        _outcome(report),
        _facts(_summary(report)),
        *_charts(report),
        *_reasons(report),
        "<h2>Files</h2>",
        _facts(_files(report)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Export of {source}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Return text that is nothing but text: no markup, nothing that steers or cannot be encoded."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return escape(text)


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values; a name that begins small is a part of that above it."""
    lines = []
    for name, value in rows:
        part = ' class="part"' if name[0].islower() else ""
        lines.append(f'<tr><th scope="row"{part}>{_text(name)}</th><td>{_text(value)}</td></tr>')
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def _outcome(report: JobReport) -> str:
    if report.complete and not report.total:
        return '<p class="outcome good">Complete: the input holds no identifiers.</p>'
    if report.complete:
        text = f"Complete: each of the {report.total:,} identifiers lies in one of the files."
        if report.failed:
            text += f" {report.failed:,} of them failed."
        return f'<p class="outcome {"open" if report.failed else "good"}">{_text(text)}</p>'
    text = (
        "Not complete: the same command or call, run again, goes on after "
        f"{report.done:,} of {report.total:,} identifiers."
    )
    return f'<p class="outcome open">{_text(text)}</p>'


def _summary(report: JobReport) -> list[tuple[str, str]]:
    own, waited = report.done - report.already, report.seconds_waited
    rows = [
        ("Identifiers", f"{report.done:,} of {report.total:,}"),
        ("of earlier runs", f"{report.already:,}" if report.already else ""),
        ("Profiles", f"{report.profiles:,}"),
        ("Unknown to Braze", f"{report.unknown:,}"),
        ("Failed", f"{report.failed:,}"),
        ("Repeated in the input", f"{report.repeated:,}" if report.repeated else ""),
        ("Blank rows", f"{report.blank:,}" if report.blank else ""),
        ("Requests", f"{report.requests:,}"),
        ("sent again", f"{report.retries:,}" if report.retries else ""),
        ("refused by the rate limit", f"{report.rate_limited:,}" if report.rate_limited else ""),
        ("Time", span(report.seconds)),
        ("waited for the rate limit", span(waited) if waited > 0 else ""),
        ("Identifiers a second", number(own / report.seconds) if report.seconds > 0 else ""),
    ]
    return [row for row in rows if row[1]]


def _files(report: JobReport) -> list[tuple[str, str]]:
    return [
        ("Profiles", report.output),
        ("Unknown identifiers", str(report.unknown_file)),
        ("Failed identifiers", str(report.failed_file)),
    ]


def _charts(report: JobReport) -> list[str]:
    run = stretches(report.course)
    if not run:
        return ['<p class="soft">The run was too short for charts.</p>']
    parts = []
    if report.already:
        parts.append('<p class="soft">The charts show this run, not those before it.</p>')
    keys = [_key("done", "identifiers a second"), _key("ink", "mean of the run", "line dashed")]
    parts += ["<h2>Throughput</h2>", _figure(run, throughput, keys)]
    keys = [_key("sent", "requests a second")]
    if any(part.use for part in run):
        keys.append(_key("use", "used share of the window (shaded: least to most)", "line solid"))
    if any(part.waiting for part in run):
        keys.append(_key("waiting", "requests waited"))
    if any(part.refused for part in run):
        keys.append(_key("refused", "refused (429)", "dot"))
    parts += ["<h2>Rate limit</h2>", _window(report), _figure(run, rate_limit, keys)]
    return parts


def _window(report: JobReport) -> str:
    limits = {moment.limit for moment in report.course if moment.limit is not None}
    if not limits:
        return ""
    told = " to ".join(f"{limit:,}" for limit in sorted({min(limits), max(limits)}))
    return f'<p class="soft">The limit: {told} requests a window.</p>'


def _figure(
    run: Sequence[Stretch], chart: Callable[[Sequence[Stretch], Format], str], keys: list[str]
) -> str:
    each = _text(f"each bar: {span(run[0].end - run[0].begin)}")
    legend = "".join((*keys, f"<span>{each}</span>"))
    return (
        f"<figure>{chart(run, WIDE)}{chart(run, NARROW)}<figcaption>{legend}</figcaption></figure>"
    )


def _key(colour: str, text: str, kind: str = "") -> str:
    shape, _, how = kind.partition(" ")
    style = f"--it: var(--{colour})" + (f"; --how: {how}" if how else "")
    return f'<span class="key {shape}" style="{style}">{_text(text)}</span>'


def _reasons(report: JobReport) -> list[str]:
    if not report.reasons:
        return []
    ordered = sorted(report.reasons.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        f'<tr><td>{_text(reason)}</td><td class="count">{times:,}</td></tr>'
        for reason, times in ordered[:_MOST_REASONS]
    ]
    if more := ordered[_MOST_REASONS:]:
        rest = f"{len(more):,} more reasons"
        times = sum(times for _, times in more)
        rows.append(f'<tr><td>{rest}</td><td class="count">{times:,}</td></tr>')
    head = '<tr><th scope="col">Reason</th><th scope="col" class="count">Identifiers</th></tr>'
    return [
        "<h2>Why identifiers failed in this run</h2>",
        f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>",
    ]
