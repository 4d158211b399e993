"""The bars of the summary table."""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ispf_jax.report.figures.style import Panel, Picture, label, look
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.table import BEST_TEST, Summary, settings, summarise
from ispf_jax.runtime.rows import Row


def accuracy_bars(rows: Sequence[Row]) -> list[Picture]:
    """Accuracy on forgotten (hatched) and on retained classes (full) of every method, one picture per data set and network.

    Means and standard deviations are those of the summary table; the best-on-test selection is left out.
    """
    pictures = []
    for (dataset, arch), part in settings(rows).items():
        summaries = [s for s in summarise(part) if s.selection != BEST_TEST]
        if not any(s.mean_std("acc_retain") for s in summaries):
            continue  # there were no test images
        panel = Panel(partial(_bars, summaries), (max(4.0, 1.5 + 0.95 * len(summaries)), 3.4))
        name = re.sub(r"[^\w.-]+", "-", f"accuracy_{dataset}_{arch}")
        pictures.append(
            Picture(
                name,
                f"{dataset}, {arch}",
                (panel,),
                "Mean over forget sets, then over seeds; lines: standard deviation over seeds.",
            )
        )
    return pictures


def _bars(summaries: Sequence[Summary], axes: Axes) -> None:
    for place, summary in enumerate(summaries):
        for offset, field, fill in ((-0.2, "acc_forget", {"hatch": "////", "fill": False}), (0.2, "acc_retain", {})):
            mean, std = summary.mean_std(field) or (np.nan, np.nan)
            if not np.isfinite(mean):
                continue
            color = look(summary.method)[0]
            axes.bar(
                place + offset,
                mean,
                0.38,
                yerr=None if np.isnan(std) else std,
                capsize=2,
                color=color,
                edgecolor=color,
                **fill,
            )
            top = (place + offset, mean + np.nan_to_num(std))
            axes.annotate(f"{mean:.1f}", top, (0, 2), textcoords="offset points", ha="center", fontsize=7)
    several_bases = len({s.base for s in summaries if s.base}) > 1
    names = [
        METHOD_NAMES.get(s.method, s.method) + (f"\n{s.base}" if several_bases and s.base else "") for s in summaries
    ]
    axes.set_xticks(range(len(summaries)), names)
    axes.set(xlim=(-0.6, len(summaries) - 0.4), ylim=(0, 112))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(False, axis="x")
    looks = [
        Patch(edgecolor="#444444", facecolor="none", hatch="////", label="forgotten classes"),
        Patch(color="#444444", label="retained classes"),
    ]
    axes.legend(handles=looks, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    label(axes, "", "", "test accuracy [%]")
