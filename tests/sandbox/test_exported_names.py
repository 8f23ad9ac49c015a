import ast
import re
import sys
from pathlib import Path

import attrs

from braze_export import sandbox
from braze_export.sandbox.settings import Settings

ROOM = Path(sandbox.__file__).parent
ALLOWED = {"aiohttp", "attrs", "msgspec"} | set(sys.stdlib_module_names)


def test_names_are_sorted_and_importable() -> None:
    assert sandbox.__all__ == sorted(sandbox.__all__)
    assert all(getattr(sandbox, name) for name in sandbox.__all__)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_the_sandbox_is_an_independent_witness() -> None:
    for path in ROOM.glob("*.py"):
        for name in imported(path):
            assert name.startswith("braze_export.sandbox") or name.partition(".")[0] in ALLOWED


def test_every_option_is_explained() -> None:
    for field in attrs.fields(Settings):
        assert re.search(rf"^ +{field.name}: ", Settings.__doc__ or "", re.MULTILINE)
