"""Imports run downward only. The table is the one of docs/architecture.md, edge by edge."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import braze_export

PACKAGE = Path(braze_export.__file__).parent
DOCS = PACKAGE.parent / "docs" / "architecture.md"

#: Room to the rooms that it may import. Floors: a room imports from floors below its own only.
FLOORS: list[list[str]] = [
    ["archives.inflate", "_json", "_version", "errors", "archives.lines", "turns"],
    ["validators", "archives.unzip", "deadlines"],
    ["identifiers", "instances", "endpoints", "tasks", "models.timestamps", "archives.archive",
     "limiting.server_clock", "limiting.window"],
    ["callbacks", "models.lenient"],
    ["models.pydantic_types"],
    ["models.fields", "models.record", "settings", "wire"],
    ["models.profile", "models.segments", "models.results", "answers", "exporting.body"],
    ["structuring", "batches.batching", "limiting.limits", "limiting.ledger", "retry"],
    ["transports.aiohttp", "transports.httpx", "downloads.fetching", "limiting.lanes",
     "batches.estimates", "observing"],
    ["codec", "batches.fanout", "caller", "downloads.links", "downloads.files",
     "downloads.spool", "limiting.governor"],
    ["batches.narrowing", "downloads.buckets", "exporting.starting", "downloads.unpacking",
     "exporting.waiting", "lookups.cache"],
    ["batches.ids_export", "exporting.context", "downloads.reading", "lookups.shared_request",
     "lookups.whose"],
    ["lookups.sharing"],
    ["lookups.lookup"],
    ["exporting.job", "storage"],
    ["exporting.exports"],
    ["resources.user_exports", "resources.segments"],
    ["resources.users"],
    ["client"],
    ["jobs.accounting", "jobs.halting", "jobs.kinds", "jobs.machine", "jobs.pace",
     "jobs.reading.columns", "jobs.reading.compression", "jobs.reading.repeats",
     "jobs.report.scales", "jobs.staging", "jobs.values"],
    ["jobs.journal", "jobs.places", "jobs.reading.text", "jobs.report.course",
     "jobs.tables.schema"],
    ["jobs.definition", "jobs.reading.csv", "jobs.reading.lines", "jobs.reading.ndjson",
     "jobs.reading.parquet", "jobs.report.charts", "jobs.tables.arrays", "jobs.tables.misfits",
     "jobs.watching"],
    ["jobs.reading.inputs", "jobs.report.page", "jobs.tables.arrow"],
    ["jobs.slices", "jobs.spooling", "jobs.tables.parquet"],
    ["jobs.recorder", "jobs.tables.loading"],
    ["jobs.finishing", "jobs.verdicts"],
    ["jobs.order", "jobs.run"],
    ["jobs.beginning"],
    ["jobs.exporting"],
    ["jobs.job"],
]  # fmt: skip
APART = ("sandbox", "cli", "integrations")
FOLDERS = ("archives", "batches", "downloads", "exporting", "limiting", "lookups")
PACKAGES = {"", "models", "resources", "transports", *FOLDERS} | {
    f"jobs{part}" for part in ("", ".reading", ".report", ".tables")
}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


@cache
def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "braze_export":  # from braze_export import room
                found.update(f"braze_export.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    prefix = "braze_export."
    return {m.removeprefix(prefix) for m in found if m.startswith(prefix)}


FILES = {room(p): p for p in PACKAGE.rglob("*.py")}
CORE = {name: path for name, path in FILES.items() if name.split(".")[0] not in APART}
EDGES = {(name, target) for name, path in CORE.items() for target in imports(path)}


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def test_every_room_has_its_floor() -> None:
    assert sorted(CORE.keys() - PACKAGES) == sorted(r for rooms in FLOORS for r in rooms)


@pytest.mark.parametrize("edge", sorted(e for e in EDGES if e[0] not in PACKAGES), ids="->".join)
def test_imports_run_downward(edge: tuple[str, str]) -> None:
    assert floor(edge[1]) < floor(edge[0])


def test_no_folder_imports_from_one_that_imports_from_it() -> None:
    places = [tuple(name.partition(".")[0] for name in edge) for edge in EDGES if all(edge)]
    sorter = TopologicalSorter[str]()
    for place, target in places:
        if place != target:
            sorter.add(place, target)
    assert len([*sorter.static_order()]) > 20  # a circle raises


def test_the_packages_themselves_import_nothing_but_the_root() -> None:
    fronts = {"", "jobs"}  # which say what is public
    assert {e for e in EDGES if e[0] in PACKAGES - fronts} == set()


def test_the_root_imports_no_extra() -> None:
    targets = {target for name, target in EDGES if name == ""}
    assert not targets & {"transports.httpx", "callbacks", *APART}


def test_the_sandbox_is_an_independent_witness() -> None:
    for name, path in FILES.items():
        if name.split(".")[0] == "sandbox":
            assert all(t.split(".")[0] == "sandbox" for t in imports(path)), name


def test_nothing_imports_the_command_line() -> None:
    for name, path in FILES.items():
        if name.split(".")[0] != "cli":
            assert not any(t.split(".")[0] == "cli" for t in imports(path)), name


def test_the_core_imports_no_integration_and_nothing_that_they_need() -> None:
    for name, path in CORE.items():
        assert not any(t.split(".")[0] == "integrations" for t in imports(path)), name
        uses = re.compile(r"^\s*(import|from) (opentelemetry|redis)\b", re.MULTILINE)
        assert not uses.search(path.read_text("utf-8")), name


def test_only_the_transports_and_the_receiver_import_an_http_library() -> None:
    for name, path in CORE.items():
        source = path.read_text("utf-8")
        uses = re.search(r"^(import|from) (aiohttp|httpx)\b", source, re.MULTILINE) is not None
        assert uses == (name in {"transports.aiohttp", "transports.httpx", "callbacks"}), name


def test_rooms_can_be_read_at_one_sitting() -> None:
    sizes = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert {name: size for name, size in sizes.items() if size > 300} == {}


def test_every_room_says_what_belongs_in_it() -> None:
    assert [n for n, p in FILES.items() if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_the_drawing_names_every_room() -> None:
    drawing = DOCS.read_text("utf-8")
    paths = (p.relative_to(PACKAGE).as_posix() for n, p in CORE.items() if n not in PACKAGES)
    assert [path for path in paths if f"`{path}`" not in drawing] == []
