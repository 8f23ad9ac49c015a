"""Every fault at every operation. Quickly each fault once, slowly all of it."""

from pathlib import Path

import pytest

from tests.faults.cells import check
from tests.faults.operations import OPERATIONS
from tests.faults.troubles import TROUBLES
from tests.faults.world import TRANSPORTS


def chosen() -> list[tuple[str, str, str]]:
    """Return cells in which every fault comes once, and every operation with some of them."""
    operations, transports = list(OPERATIONS), list(TRANSPORTS)
    return [
        (trouble, operations[number % len(operations)], transports[number % len(transports)])
        for number, trouble in enumerate(TROUBLES)
    ]


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
