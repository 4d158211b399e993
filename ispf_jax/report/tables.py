"""Tables as values, written once and shown three ways: on the console, in `tables.md` and on the page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

MISSING = "-"
"""What a cell shows when nothing was measured."""


class Place(NamedTuple):
    """Where a number lies between retraining (0) and the original (1), with the ends of its interval or range if known.

    `sure` is False where the 95 % intervals of retrained and original overlap: the place is undecided.
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
    """One number or word.

    Attributes:
      small: in small print: interval, n, the paper's number.
      mark: "near", "above" or "below" the number it is compared with; "" if there is none.
      place: drawn as a point between the retrained and the original model.
    """

    text: str = MISSING
    small: str = ""
    mark: str = ""
    place: Place | None = None

    @property
    def placed(self) -> str:
        """The place in words, unless it is the text of the cell."""
        return f"place {self.place}" if self.place and str(self.place) != self.text else ""

    @property
    def plain(self) -> str:
        """The whole cell in one line of text."""
        words = "; ".join(filter(None, (self.placed, self.small)))
        return f"{self.text} ({words})" if words else self.text


class Column(NamedTuple):
    """The head of a column; neighbours share a `group` above it, `small` (unit, tier) is below; words go left."""

    label: str
    group: str = ""
    small: str = ""
    words: bool = False

    @property
    def name(self) -> str:
        """The head in one line."""
        return f"{self.group}: {self.label}" if self.group else self.label


class Table(NamedTuple):
    """A table with its notes; every row has as many cells as there are columns."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, number of columns below it), empty if no column has one."""
        found = [(name, len(list(members))) for name, members in groupby(column.group for column in self.columns)]
        return found if any(name for name, _ in found) else []


def make_table(title: str, heads: Iterable, rows: Iterable, notes: Iterable = (), words: Sequence = ()) -> Table:
    """A table from heads (`Column` or text) and rows of `Cell` or text; columns in `words` are left-aligned."""
    columns = (h if isinstance(h, Column) else Column(h, words=h in words) for h in heads)
    cells = (tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(title, tuple(columns), tuple(cells), tuple(filter(None, notes)))


def to_console(table: Table) -> str:
    """Text for a monospaced console; columns are two blanks apart."""
    lines = [[column.name for column in table.columns], *([cell.plain for cell in cells] for cells in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    pad = [str.ljust if column.words else str.rjust for column in table.columns]
    aligned = ["  ".join(fill(t, w) for fill, t, w in zip(pad, line, widths)).rstrip() for line in lines]
    return "\n".join([table.title, rule, aligned[0], rule, *aligned[1:], rule, *table.notes])


def to_markdown(table: Table) -> str:
    """The same as Markdown, under a heading of the second level."""
    head = [column.name + (f" ({column.small})" if column.small else "") for column in table.columns]
    rule = ["---" if column.words else "---:" for column in table.columns]
    lines = [map(_escape, head), rule, *([_escape(cell.plain) for cell in cells] for cells in table.rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([f"## {table.title}", text, *map(_escape, table.notes)])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
