"""One harness under the fuzzer, in a process of its own: ``python -m tests.fuzz.running``.

A finding does not end the run: the first input of each kind is kept, with its traceback. What
hangs or takes too much memory does end it, by the fuzzer's own hand.
"""

import re
import signal
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = re.compile(r"braze_export/|tests/fuzz/")
_SLOWEST = 10.0  # seconds of the processor for one input: others may slow the machine down
_STUCK = 3600  # seconds by the clock, where no Python code runs that could be interrupted
_MEMORY = 1500  # megabytes of the whole process


class Findings:
    """Inputs that made a harness fail, one for each place where it did."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: set[tuple[str, ...]] = set()
        place.mkdir(parents=True, exist_ok=True)

    def keep(self, data: bytes, error: Exception) -> None:
        """Write down an input and its traceback, if it is the first of its kind."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{f.filename}:{f.lineno}" for f in frames if _OURS.search(f.filename)][-2:]
        kind = (type(error).__name__, *(ours if len(frames) < 100 else ours[:1]))
        if kind in self._known:
            return
        self._known.add(kind)
        number = len(self._known)
        told = "".join(traceback.format_exception(error, limit=-12))
        (self._place / f"{number}.bin").write_bytes(data)
        (self._place / f"{number}.txt").write_text(told, "utf-8", "backslashreplace")
        sys.stderr.write(f"FINDING {number} {kind}\n")


def run(group: str, seconds: int, place: Path) -> None:
    """Fuzz one group, and end the process.

    Args:
        group: the name of the harness.
        seconds: how long.
        place: where inputs that reach new code, and findings, are kept.
    """
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["braze_export"]):
        harness = import_module(f"tests.fuzz.{group}")
    findings = Findings(place / "findings")

    signal.signal(signal.SIGVTALRM, _too_slow)

    def try_one(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, _SLOWEST)
        try:
            harness.try_one(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings.keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    atheris.Setup([sys.argv[0], *_options(harness, seconds, place)], try_one)
    atheris.Fuzz()


class TooSlowError(Exception):
    """An input takes too long. Of no kind that a reader would take for a damaged file."""


def _too_slow(*_: object) -> None:
    raise TooSlowError


def _options(harness: ModuleType, seconds: int, place: Path) -> list[str]:
    corpus, words = place / "corpus", place / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.seeds()):
        (corpus / f"seed{number}").write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in harness.WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    return [
        f"-max_total_time={seconds}",
        f"-max_len={harness.LONGEST}",
        f"-timeout={_STUCK}",
        f"-rss_limit_mb={_MEMORY}",
        f"-dict={words}",
        f"-artifact_prefix={place / 'findings'}/",
        f"-report_slow_units={_STUCK}",
        "-print_final_stats=1",
        str(corpus),
    ]


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
