"""How all pictures look, and what a picture is: panels that are drawn once, for the page and for files.

Figures are made without pyplot and its global state, so that a program that plots is not disturbed; the same input
gives the same bytes.
"""

import io
from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ispf_jax.report.names import model_name, shown

FORGOTTEN = "#D55E00"
"""Colour of the frame around forgotten classes."""

ANNOTATED = 20
"""Up to so many classes have their numbers written into a picture."""

_STYLE = str(resources.files("ispf_jax.report").joinpath("pictures.mplstyle"))
_OPTIONS = {"svg": {"metadata": {"Date": None, "Creator": None}}, "png": {"metadata": {"Software": None}, "dpi": 150}}


class Panel(NamedTuple):
    """One coordinate system: `draw` fills it, `size` is its share of a figure in inches."""

    draw: Callable[[Axes], None]
    size: tuple[float, float] = (3.3, 2.9)


class Picture(NamedTuple):
    """What is drawn as one figure.

    Attributes:
      kind: what it shows; chooses the caption and the section of the page.
      title: what it shows, in words, and of which run: "Relearning", "forgetting 3, seed 0".
      slug: identifies it among others of its kind in file names.
      keys: the entries of the legend.
    """

    kind: str
    title: tuple[str, str]
    slug: str
    panels: Sequence[Panel]
    keys: Sequence[dict] = ()

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.slug}"

    @property
    def heading(self) -> str:
        return ": ".join(self.title)


def compose(picture: Picture, most: int = 4) -> Figure:
    """All panels in one figure, at most so many in a row, with title and legend."""
    panels = picture.panels
    rows = -(-len(panels) // most)
    columns = -(-len(panels) // rows)
    width, height = (max(panel.size[axis] for panel in panels) for axis in (0, 1))
    figure = Figure(figsize=(max(4.0, width * columns), height * rows + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels):
        panel.draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if picture.keys:
        handles = [Line2D([], [], **key) for key in picture.keys]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * columns))
    figure.suptitle(picture.heading)
    return figure


def draw(picture: Picture, *formats: str) -> list[bytes]:
    """The picture in each of the formats ("svg", "png"), without dates and versions."""
    files = []
    with matplotlib.rc_context(fname=_STYLE):
        figure = compose(picture)
        for kind in formats:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **_OPTIONS[kind])
            figure.set_layout_engine("none")  # the layout of the first file, which takes longest, serves the others
            files.append(buffer.getvalue())
    return files


def key(label: str, color: str, marker: str, ls: str = "-") -> dict[str, str]:
    """An entry of a legend."""
    return {"label": label, "color": color, "marker": marker, "ls": ls}


def model_key(model: str, bases: bool = False) -> dict[str, str]:
    """The legend entry of a model."""
    return key(model_name(model, bases), shown(model).color, shown(model).marker)


def label(axes: Axes, title: str, x: str = "", y: str = ""):
    """Title and axes; an empty panel gets the words "not recorded"."""
    axes.set(title=title, xlabel=x, ylabel=y)
    if not (axes.lines or axes.patches or axes.collections or axes.images):
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color="#777777")


def line(axes: Axes, model: str, xs: np.ndarray, ys: np.ndarray, **options):
    """One curve in the colour of its model, with about eight markers."""
    if len(xs):
        every = max(1, len(xs) // 8)
        axes.plot(xs, ys, color=shown(model).color, marker=shown(model).marker, markevery=every, **options)


def heat(
    values: np.ndarray, rows: Sequence[str], title: str, names: Sequence[str] = (), framed=(), least=0.0, digits=0
) -> Panel:
    """Models (rows) by classes (columns), darker is more, in percent.

    Args:
      names: of the classes; by default their numbers.
      framed: classes with a frame.
      least: smaller numbers are not written into their cells.
      digits: after the decimal point; with any, the darkest colour is the largest value, else 100 %.
    """
    names = names if len(names) == values.shape[1] else [str(c) for c in range(values.shape[1])]
    top, step, crowded = values.max() if digits else 100, max(1, len(names) // ANNOTATED), max(map(len, names)) > 2

    def draw(axes: Axes):
        axes.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        for c in framed:
            axes.add_patch(Rectangle((c - 0.5, -0.5), 1, len(rows), fill=False, edgecolor=FORGOTTEN, linewidth=1.4))
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(0, len(names), step), names[::step], **{"rotation": 45, "ha": "right"} if crowded else {})
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (y, x), value in np.ndenumerate(values) if len(names) <= ANNOTATED else ():
            if value >= least:
                color = "white" if value > 0.55 * top else "black"
                axes.text(x, y, f"{value:.{digits}f}", ha="center", va="center", fontsize=7, color=color)
        label(axes, title, "class")

    return Panel(draw, (5.0 if digits == 0 else 6.0, 1.1 + 0.27 * len(rows)))
