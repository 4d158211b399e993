"""How all pictures look, and what a picture is: panels that are drawn together for a file and one by one for the page.

Figures are made without pyplot and its global state, so that a program which plots itself is not disturbed; the same input gives
the same bytes.
"""

import io
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ispf_jax.report.names import METHOD_NAMES, split_model
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable

STYLE = {  # colours of Okabe & Ito and of P. Tol, told apart by colour-blind readers; the markers do it without colour
    "original": ("#000000", "o"),
    "retrain": ("#5F5F5F", "s"),
    "masked_head": ("#A6A6A6", "D"),
    "retrained_head": ("#7A5C3E", "p"),
    "dfkd": ("#56B4E9", "v"),
    "blockf": ("#999933", "^"),
    "gkt": ("#0072B2", "s"),
    "is": ("#009E73", "D"),
    "pf": ("#E69F00", "^"),
    "ispf": ("#D55E00", "o"),
    "pd": ("#CC79A7", "P"),
    "pd_is": ("#882255", "X"),
}
"""Colour and marker of every method, the same in all pictures."""

_OWN = (("#332288", "*"), ("#117733", "h"), ("#88CCEE", "<"), ("#661100", ">"), ("#DDCC77", "8"))
"""Those of methods that are not the package's; the name chooses, so that a method looks the same in all pictures."""

_RC = {
    "svg.hashsalt": "ispf",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    color: str
    marker: str = ""
    line: str = "-"


@dataclass(frozen=True)
class Panel:
    """One coordinate system: `draw` fills it, `size` is its share of a figure in inches."""

    draw: Callable[[Axes], None]
    size: tuple[float, float] = (3.3, 2.9)


@dataclass(frozen=True)
class Picture:
    """What is written as `name`.svg and `name`.png; `caption` says what it shows to a reader who sees it for the first time."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    caption: str = ""
    keys: tuple[Key, ...] = ()


def compose(picture: Picture, columns: int = 4) -> Figure:
    """All panels in one figure with its title and legend."""
    columns = min(columns, len(picture.panels))
    lines = -(-len(picture.panels) // columns)
    width, height = (max(panel.size[axis] for panel in picture.panels) for axis in (0, 1))
    figure = Figure(figsize=(max(4.0, width * columns), height * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, picture.panels):
        panel.draw(axes)
    for axes in grid[len(picture.panels) :]:
        axes.set_axis_off()
    if picture.keys:
        handles = [
            Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line or "none", label=k.label)
            for k in picture.keys
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns))
    figure.suptitle(picture.title)
    return figure


def write(pictures: Iterable[Picture], out_dir: str | os.PathLike) -> list[Path]:
    """Write every picture whole, as SVG and PNG, without dates and versions."""
    paths = []
    for picture in pictures:
        out_dir = ensure_writable(out_dir)
        with matplotlib.rc_context(_RC):
            figure = compose(picture)
            for kind, options in (
                ("svg", {"metadata": {"Date": None, "Creator": None}}),
                ("png", {"metadata": {"Software": None}, "dpi": 150}),
            ):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, **options)
                figure.set_layout_engine(
                    "none"
                )  # the places found for the first file serve the second: finding them takes longest
                paths.append(atomic_write_bytes(out_dir / f"{picture.name}.{kind}", buffer.getvalue()))
    return paths


def panel_svgs(picture: Picture) -> list[bytes]:
    """Every panel as an SVG of its own, so that a narrow page can put them below one another."""
    found = []
    for panel in picture.panels:
        with matplotlib.rc_context(_RC):
            figure = Figure(figsize=panel.size, layout="constrained")
            panel.draw(figure.subplots())
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        found.append(buffer.getvalue())
    return found


def look(model: str) -> tuple[str, str]:
    """Colour and marker of a method ("ispf") or model ("ispf/dfq")."""
    method = split_model(model)[0]
    return STYLE.get(method) or _OWN[zlib.crc32(method.encode()) % len(_OWN)]


def method_key(model: str, label: str = "") -> Key:
    """The legend entry of a method."""
    return Key(label or METHOD_NAMES.get(model, model), *look(model))


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and axes; a panel without anything to show says so."""
    axes.set(title=title, xlabel=x, ylabel=y)
    if not (axes.lines or axes.patches or axes.collections or axes.images):
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color="#777777")
