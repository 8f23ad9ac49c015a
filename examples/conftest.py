"""What holds for every test of the examples: our pytest plugin is on, nothing blocks the loop."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

# For other projects it is on by itself; here it is off, so that the coverage of it is measured.
pytest_plugins = ["braze_export.integrations.pytest"]


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    """A blocking call in the event loop fails the test that made it."""
    with blockbuster_ctx() as blockbuster:
        yield blockbuster
