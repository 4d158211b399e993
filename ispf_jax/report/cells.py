"""Tables as values, written once and shown three ways: on the console, in `tables.md` and on the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

MISSING = "-"
"""What a cell shows that nothing was measured for."""


@dataclass(frozen=True)
class Place:
    """Where a number lies between retraining (0) and the original (1), with the ends of its interval or range if known.

    `sure` is False where the 95 % intervals of retrained and original overlap: the metric hardly tells them apart.
    """

    at: float
    low: float | None = None
    high: float | None = None
    sure: bool = True

    def __str__(self) -> str:
        """`0.31`, with a question mark if it is not sure."""
        return f"{self.at:.2f}".replace("-0.00", "0.00") + ("" if self.sure else "?")


@dataclass(frozen=True)
class Cell:
    """One number or word with what belongs to it.

    Attributes:
      small: said in small print: interval, n, the paper's number.
      mark: "near", "above" or "below" of what the cell is compared with; "" if it is compared with nothing.
      place: drawn as a point between the retrained and the original model.
    """

    text: str = MISSING
    small: str = ""
    mark: str = ""
    place: Place | None = None

    @property
    def placed(self) -> str:
        """The place in words, unless the cell says nothing else."""
        return f"place {self.place}" if self.place and str(self.place) != self.text else ""

    @property
    def plain(self) -> str:
        """All that the cell says, in one line of text."""
        parts = [self.placed, self.small]
        said = "; ".join(part for part in parts if part)
        return f"{self.text} ({said})" if said else self.text


@dataclass(frozen=True)
class Column:
    """The head of a column: `group` stands above neighbours that share it, `small` (unit, tier) below; words go to the left."""

    label: str
    group: str = ""
    small: str = ""
    words: bool = False

    @property
    def name(self) -> str:
        """The head in one line."""
        return f"{self.group}: {self.label}" if self.group else self.label


@dataclass(frozen=True)
class Table:
    """A table with its notes; every row has as many cells as there are columns."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self):
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(
                f"table {self.title!r}: a row has another number of cells than the {len(self.columns)} columns"
            )

    def of_part(self, part: str) -> "Table":
        """The same with the part of a sweep in the title, if it is of one."""
        return replace(self, title=in_part(self.title, part))

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, number of columns below it), empty if no column has one."""
        if not any(column.group for column in self.columns):
            return []
        return [(name, len(list(members))) for name, members in groupby(column.group for column in self.columns)]


def in_part(title: str, part: str) -> str:
    """A title with the part of a sweep; without one ("") as it is."""
    return f"{title} (part {part})" if part else title


def row(*cells: Cell | str) -> tuple[Cell, ...]:
    """A row of cells; a string is a cell with nothing else in it."""
    return tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)


def to_console(table: Table) -> str:
    """Text for a monospaced console; columns are two blanks apart."""
    lines = [[column.name for column in table.columns], *([cell.plain for cell in cells] for cells in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    shown = ["  ".join(map(_align, line, widths, table.columns)).rstrip() for line in lines]
    return "\n".join([table.title, rule, shown[0], rule, *shown[1:], rule, *table.notes])


def to_markdown(table: Table, level: int = 2) -> str:
    """The same as Markdown, under a heading of that level."""
    head = [column.name + (f" ({column.small})" if column.small else "") for column in table.columns]
    lines = [_line(head), "| " + " | ".join("---" if c.words else "---:" for c in table.columns) + " |"]
    lines += [_line([cell.plain for cell in cells]) for cells in table.rows]
    return "\n\n".join([f"{'#' * level} {table.title}", "\n".join(lines), *map(_escape, table.notes)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _align(cell: str, width: int, column: Column) -> str:
    return cell.ljust(width) if column.words else cell.rjust(width)
