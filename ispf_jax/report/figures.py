"""Pictures of runs and results, each as SVG and PNG; the same input gives the same bytes.

Figures are made without pyplot and its global state, so that a program which plots itself is not disturbed.
"""

import io
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from ispf_jax.files import atomic_write_bytes, ensure_writable
from ispf_jax.report.results import Row, RunLog, load_runs
from ispf_jax.report.table import BEST_TEST, settings, summarise

__all__ = ["RunLog", "accuracy_bars", "image_grid", "load_runs", "loss_curves", "training_curves"]

STYLE = {  # colours of Okabe & Ito and of P. Tol, told apart by colour-blind readers; the markers do it without colour
    "original": ("#000000", "o"), "retrain": ("#5F5F5F", "s"), "masked_head": ("#A6A6A6", "D"), "dfkd": ("#56B4E9", "v"),
    "blockf": ("#999933", "^"), "gkt": ("#0072B2", "s"), "is": ("#009E73", "D"), "pf": ("#E69F00", "^"),
    "ispf": ("#D55E00", "o"), "pd": ("#CC79A7", "P"), "pd_is": ("#882255", "X"),
}
"""Colour and marker of every method, the same in all pictures."""

LOSS_TERMS = {
    "generator/total": "generator: total", "generator/adv": "generator: adversarial (adv)", "generator/bn": "generator: batch-norm matching (bn)",
    "generator/oh": "generator: one-hot (oh)", "generator/balance": "generator: class balance", "generator/act": "generator: activation (act)",
    "student/loss": "student: distillation",
}

_RC = {
    "svg.hashsalt": "ispf", "font.size": 8, "axes.titlesize": 9, "axes.grid": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.5,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.3, "lines.markersize": 4.5,
    "legend.frameon": False,
}


def training_curves(runs: Iterable[RunLog], out_dir: str | os.PathLike) -> list[Path]:
    """The paper's figures 2 and 5: one row of four panels for every base, forget set and seed, all methods in each panel.

    Wall time [s] against retain accuracy [%]; samples per batch that the teacher takes for forgotten and for retained
    classes; samples filtered out per step; retained-class entropy (Eq. 11, nats, summed over the batch). Time is that of
    training alone, whereas the authors' (from TensorBoard's time stamps) includes an evaluation per epoch.
    """
    groups = defaultdict(list)
    for run in runs:
        groups[run.slug].append(run)
    paths = []
    for slug, group in groups.items():
        with matplotlib.rc_context(_RC):
            figure = Figure(figsize=(13, 3.4), layout="constrained")
            time, samples, filtered, entropy = figure.subplots(1, 4)
            for run in group:
                _curve(time, run, "seconds", "test/acc_retain")
                _curve(samples, run, "student_step", "retain_samples")
                _curve(samples, run, "student_step", "forget_samples", linestyle="--", fillstyle="none")
                _curve(filtered, run, "student_step", "filtered")
                _curve(entropy, run, "student_step", "entropy")
            _label(time, "Accuracy over wall time", "training time [s]", "accuracy on retained classes [%]")
            _label(samples, "Synthetic samples by the teacher's label", "student steps", "samples per batch")
            _label(filtered, "Samples filtered out", "student steps", "samples per batch")
            _label(entropy, "Retained-class entropy H (Eq. 11)", "student steps", "H, summed over the batch [nats]")
            filtered.set_ylim(bottom=min(0, filtered.get_ylim()[0]))
            kinds = [Line2D([], [], color="#444444", linestyle=line, label=kind) for line, kind in (("-", "retained"), ("--", "forgotten"))]
            samples.legend(handles=kinds, loc="center left", frameon=True, framealpha=0.85, edgecolor="none")
            handles = [Line2D([], [], color=_style(r.method)[0], marker=_style(r.method)[1], label=r.method) for r in group]
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
            figure.suptitle(f"{group[0].base}: forgetting {group[0].forget}, seed {group[0].seed}")
            paths += _save(figure, out_dir, f"training_{slug}")
    return paths


def loss_curves(runs: Iterable[RunLog], out_dir: str | os.PathLike) -> list[Path]:
    """One figure per run: a panel with its own scale for every term of the generator loss and for the student loss."""
    paths = []
    for run in runs:
        terms = [term for term in LOSS_TERMS if len(_series(run.records, _step_of(term), term)[0])]
        if not terms:
            continue
        with matplotlib.rc_context(_RC):
            columns = min(4, len(terms))
            lines = -(-len(terms) // columns)
            figure = Figure(figsize=(3.2 * columns, 2.5 * lines + 0.4), layout="constrained")
            panels = figure.subplots(lines, columns, squeeze=False).ravel()
            for panel, term in zip(panels, terms):
                _curve(panel, run, _step_of(term), term)
                _label(panel, LOSS_TERMS[term], _step_of(term).replace("_", " ") + "s", "mean loss of the epoch")
            for panel in panels[len(terms):]:
                panel.set_axis_off()
            figure.suptitle(f"{run.base} {run.method}: forgetting {run.forget}, seed {run.seed}")
            paths += _save(figure, out_dir, f"losses_{run.base}_{run.method}_{run.slug.removeprefix(run.base + '_')}")
    return paths


def accuracy_bars(rows: Sequence[Row], out_dir: str | os.PathLike) -> list[Path]:
    """Accuracy on forgotten (hatched) and on retained classes (full) of every method, one figure per data set and network.

    Means and standard deviations are those of the summary table; the best-on-test selection is left out.
    """
    paths = []
    for (dataset, arch), part in settings(rows).items():
        summaries = [s for s in summarise(part) if s.selection != BEST_TEST]
        several_bases = len({s.base for s in summaries if s.base}) > 1
        with matplotlib.rc_context(_RC):
            figure = Figure(figsize=(max(4.0, 1.5 + 0.95 * len(summaries)), 3.4), layout="constrained")
            axes = figure.subplots()
            for place, summary in enumerate(summaries):
                for offset, field, look in ((-0.2, "acc_forget", {"hatch": "////", "fill": False}), (0.2, "acc_retain", {})):
                    mean, std = summary.mean_std(field) or (np.nan, np.nan)
                    if not np.isfinite(mean):
                        continue
                    color = _style(summary.method)[0]
                    axes.bar(place + offset, mean, 0.38, yerr=None if np.isnan(std) else std, capsize=2, color=color, edgecolor=color, **look)
                    top = (place + offset, mean + np.nan_to_num(std))
                    axes.annotate(f"{mean:.1f}", top, (0, 2), textcoords="offset points", ha="center", fontsize=7)
            axes.set_xticks(range(len(summaries)), [s.method + (f"\n{s.base}" if several_bases else "") for s in summaries])
            axes.set(xlim=(-0.6, len(summaries) - 0.4), ylim=(0, 112))
            axes.set_yticks(range(0, 101, 20))
            axes.grid(False, axis="x")
            _label(axes, f"{dataset}, {arch}", "method", "test accuracy [%]")
            looks = [Patch(edgecolor="#444444", facecolor="none", hatch="////", label="forgotten classes"),
                     Patch(color="#444444", label="retained classes")]
            figure.legend(handles=looks, loc="outside lower center", ncols=2)
            paths += _save(figure, out_dir, re.sub(r"[^\w.-]+", "-", f"accuracy_{dataset}_{arch}"))
    return paths


def image_grid(images_uint8: np.ndarray, path: str | os.PathLike, columns: int | None = None, scale: int | None = None) -> Path:
    """Write images, uint8 [N, H, W, C] with C of 1 or 3, as one PNG: row by row, a white pixel between neighbours.

    `columns` defaults to a square grid, `scale` (whole number, nearest neighbour) to what makes an image 48 pixels high.
    """
    images = np.asarray(images_uint8)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise ValueError(f"image_grid wants uint8 [N, H, W, 1 or 3] with N > 0, not {images.dtype} {images.shape}")
    n, height, width, channels = images.shape
    columns = min(n, columns or int(np.ceil(np.sqrt(n))))
    lines = -(-n // columns)
    scale = scale or max(1, 48 // height)
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + 1, width * scale + 1
    canvas = np.full((lines * step_y - 1, columns * step_x - 1, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * step_y, i % columns * step_x
        canvas[y : y + step_y - 1, x : x + step_x - 1] = image
    buffer = io.BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(buffer, "PNG")
    ensure_writable(Path(path).parent)
    return atomic_write_bytes(path, buffer.getvalue())


def _series(records: Sequence[dict[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of the records that hold both `x` and `y`; epochs without evaluation and warm-up epochs have gaps."""
    points = [(r[x], r[y]) for r in records if isinstance(r.get(x), (int, float)) and isinstance(r.get(y), (int, float))]
    return tuple(np.array(points, float).reshape(-1, 2).T)


def _curve(axes: Axes, run: RunLog, x: str, y: str, **look: Any) -> None:
    """Draw one run with about eight markers, or a single dot if there is only one point."""
    color, marker = _style(run.method)
    xs, ys = _series(run.records, x, y)
    if len(xs):
        axes.plot(xs, ys, color=color, marker=marker, markevery=max(1, len(xs) // 8), **look)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    if not axes.lines and not axes.patches:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color="#777777")


def _step_of(term: str) -> str:
    return "student_step" if term.startswith("student/") else "generator_step"


def _style(method: str) -> tuple[str, str]:
    return STYLE.get(method, ("#332288", "*"))


def _save(figure: Figure, out_dir: str | os.PathLike, name: str) -> list[Path]:
    """Write `name`.svg and `name`.png without dates and versions; to be called with the style in force."""
    out_dir = ensure_writable(out_dir)
    paths = []
    for kind, options in (("svg", {"metadata": {"Date": None, "Creator": None}}), ("png", {"metadata": {"Software": None}, "dpi": 150})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **options)
        figure.set_layout_engine("none")  # the places found for the first file serve the second: finding them takes longest
        paths.append(atomic_write_bytes(out_dir / f"{name}.{kind}", buffer.getvalue()))
    return paths
