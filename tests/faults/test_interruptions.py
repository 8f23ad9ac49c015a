"""Every operation, cancelled or its client closed: quickly here and there, slowly everywhere."""

from pathlib import Path

import pytest

from tests.faults.interrupting import How, Trial
from tests.faults.operations import OPERATIONS
from tests.faults.world import TRANSPORTS

_SAMPLES = 3  # turns at which each operation is interrupted in the quick run

OPERATION = pytest.mark.parametrize("operation", OPERATIONS)
TRANSPORT = pytest.mark.parametrize("transport", TRANSPORTS)
HOW = pytest.mark.parametrize("how", ["cancel", "close"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@OPERATION
def test_here_and_there(directory: Path, operation: str) -> None:
    number = list(OPERATIONS).index(operation)
    transports = list(TRANSPORTS)
    hows: list[How] = ["cancel", "close"]
    for transport, how in zip(transports, hows if number % 2 else hows[::-1], strict=True):
        trial = Trial(operation, transport, how, directory)
        turns = trial.turns()
        # Others each time, so that all operations together are interrupted everywhere.
        trial.interrupt((number + part * turns // _SAMPLES) % turns for part in range(_SAMPLES))


@pytest.mark.slow
@OPERATION
@TRANSPORT
@HOW
@pytest.mark.parametrize("trouble", [None, "503 json", "429 json"])
def test_everywhere(
    directory: Path, operation: str, transport: str, how: How, trouble: str | None
) -> None:
    if trouble == "503 json" and OPERATIONS[operation].endpoint.starts_export:
        trouble = None  # that would be its end
    trial = Trial(operation, transport, how, directory, trouble)
    trial.interrupt(range(1, trial.turns() + 3))
