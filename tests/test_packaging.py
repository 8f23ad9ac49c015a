"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import braze_export

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: What users may install; the other extras are for those who work on the package.
SHIPPED = PROJECT["dependencies"] + [
    r
    for e in EXTRAS
    if e not in {"test", "dev"}
    for r in EXTRAS[e]
    if not r.startswith("braze-export[")  # an extra that holds another
]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in requirements}


def test_every_dependency_is_justified() -> None:
    section = ARCHITECTURE.split("## Dependencies")[1].split("## ")[0]
    for name in names(SHIPPED):
        assert re.search(rf"^\|.*\b{re.escape(name)}\b", section, re.MULTILINE), name


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    for requirement in SHIPPED:
        bound = r"[\w-]+(\[\w+\])?>=[\d.]+(; python_version < '[\d.]+')?"
        assert re.fullmatch(bound, requirement), requirement


def test_what_the_core_imports_is_a_core_dependency() -> None:
    imported = set()
    package = Path(braze_export.__file__).parent
    for path in package.rglob("*.py"):
        if "cli" not in path.parts and path.name != "httpx.py":
            pattern = r"^(?:from|import) (\w+)"
            imported |= set(re.findall(pattern, path.read_text("utf-8"), re.MULTILINE))
    third = {"aiohttp", "aiolimiter", "attrs", "cattrs", "msgspec", "typing_extensions", "yarl"}
    import_names = {name.replace("-", "_") for name in names(PROJECT["dependencies"])}
    assert import_names == third
    assert third <= imported


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{braze_export.__version__}]" in changelog


def test_the_oldest_python_of_the_classifiers_is_the_one_required() -> None:
    found = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={found[0]}"
