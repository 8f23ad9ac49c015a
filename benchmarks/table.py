"""The table that a benchmark prints."""

from attrs import frozen
from rich.console import Console
from rich.table import Table


@frozen
class Row:
    """One measured figure, and the bound that it has to keep, if any."""

    measure: str
    figure: float
    required: float | None
    unit: str
    more: bool = False  # more is better

    @property
    def kept(self) -> bool:
        """Whether the figure keeps its bound."""
        if self.required is None:
            return True
        return self.figure >= self.required if self.more else self.figure <= self.required


def show(rows: list[Row]) -> None:
    """Print the rows; leave with an error if a bound is not kept."""
    table = Table("measure", "measured", "required", "")
    for row in rows:
        sign = "at least" if row.more else "at most"
        bound = "-" if row.required is None else f"{sign} {row.required:g} {row.unit}"
        mark = "" if row.required is None else "kept" if row.kept else "MISSED"
        table.add_row(row.measure, f"{row.figure:.2f} {row.unit}", bound, mark)
    Console(width=130).print(table)
    if not all(row.kept for row in rows):
        raise SystemExit(1)
