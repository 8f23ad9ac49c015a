import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import braze_export
from braze_export import errors

MODULES = ["braze_export", "braze_export.jobs", "braze_export.sandbox", "braze_export.storage"]


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_are_sorted_and_there(module: str) -> None:
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == loaded.__all__
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def test_every_error_is_public() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert kinds <= set(braze_export.__all__)


def test_every_public_class_says_what_it_is() -> None:
    for name in braze_export.__all__:
        value = getattr(braze_export, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            methods = inspect.getmembers(value, inspect.isroutine)
            own = [m for n, m in methods if not n.startswith("_") and n in vars(value)]
            assert all(inspect.getdoc(m) for m in own), name


def test_every_public_name_is_spelled_out_for_the_type_checker() -> None:
    tree = ast.parse(Path(__file__).with_name("typing_api.py").read_text("utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    unused = set(braze_export.__all__) - used - {"__version__", "ExportStats"}
    # What is left is raised, not called.
    assert {n for n in unused if not n.endswith(("Error", "Warning"))} == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(braze_export.__file__).with_name("py.typed").exists()


def test_importing_the_package_needs_no_extra_and_reads_no_environment() -> None:
    code = (
        "import sys\n"
        "extras = ('httpx', 'click', 'rich', 'rich_click', 'isal', 'obstore', 'opentelemetry')\n"
        "for name in extras: sys.modules[name] = None\n"
        "import braze_export, braze_export.sandbox, braze_export.storage\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={})
