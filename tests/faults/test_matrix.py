"""Every fault at every operation. Quickly each fault once, slowly all of it."""

from pathlib import Path

import pytest

from tests.faults.cells import check
from tests.faults.operations import OPERATIONS
from tests.faults.troubles import TROUBLES
from tests.faults.world import TRANSPORTS

#: Cells that failed once, beside those that are chosen anyway.
FAILED_ONCE = [
    ("length too small", "export_ids", "httpx"),  # what was left on the connection was shown
    ("silence where https is spoken", "export_ids", "httpx"),  # a connection stayed open
    ("fatal in objects", "segments.list", "aiohttp"),  # it was not tried again
    ("not fatal", "get", "httpx"),  # the error did not say of which endpoint it was
]


def chosen() -> list[tuple[str, str, str]]:
    """Return cells in which every fault comes once, and every operation with some of them."""
    operations, transports = list(OPERATIONS), list(TRANSPORTS)
    once_each = [
        (trouble, operations[number % len(operations)], transports[number % len(transports)])
        for number, trouble in enumerate(TROUBLES)
    ]
    return [*once_each, *FAILED_ONCE]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.mark.parametrize(("trouble", "operation", "transport"), chosen())
def test_a_fault_has_the_right_end(
    directory: Path, trouble: str, operation: str, transport: str
) -> None:
    check(trouble, operation, transport, directory)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_fault_has_the_right_end(directory: Path, operation: str, transport: str) -> None:
    failures = {}
    for trouble in TROUBLES:
        try:
            check(trouble, operation, transport, directory)
        except (Exception, ExceptionGroup) as error:  # noqa: BLE001 - told of together
            failures[trouble] = f"{type(error).__name__}: {error}"[:500]
    assert failures == {}
