"""What the Dask rooms share: profiles into data frames, and coroutines run where no loop is."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import Factory, define, field

from braze_export.errors import InputError
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.schema import arrow

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    import pyarrow as pa  # type: ignore[import-untyped]

T = TypeVar("T")

_AT_ONCE: Final = 8 * 1024 * 1024  # bytes of lines that are made a table of


def dask() -> tuple[Any, Any]:
    """Return the packages dask and dask.dataframe.

    Raises:
        InputError: they are not installed.
    """
    try:
        import dask  # noqa: PLC0415 - an extra, and slow to import
        from dask import dataframe  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            'braze_export.integrations.dask needs: pip install "braze-export[dask]"'
        ) from error
    return dask, dataframe


def frame(table: "pa.Table") -> "pd.DataFrame":
    """Return a table as a data frame whose columns stay Arrow's: nothing is converted."""
    import pandas as pd  # noqa: PLC0415 - an extra, and slow to import

    return table.to_pandas(types_mapper=pd.ArrowDtype)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns; in a thread of its own where a loop runs, as in notebooks.

    Blocks until then.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@define
class Rows:
    """Profiles, as the JSON of each comes, into one table.

    Attributes:
        tables: makes tables of lines.
    """

    tables: Tables
    _lines: list[bytes] = field(init=False, default=Factory(list))
    _size: int = field(init=False, default=0)
    _made: "list[pa.Table]" = field(init=False, default=Factory(list))

    async def add(self, lines: bytes) -> None:
        """Take in whole lines."""
        self._lines.append(lines)
        self._size += len(lines)
        if self._size >= _AT_ONCE:
            await self._make()

    async def table(self) -> "pa.Table":
        """Return the table of all lines."""
        await self._make()
        return arrow().concat_tables(self._made)

    async def _make(self) -> None:
        lines = b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        # In a thread, for the answers to requests under way are to be taken meanwhile.
        self._made.append(await asyncio.to_thread(self.tables.table, lines))
