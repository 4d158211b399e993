"""Pictures of training and of its results: the paper's figures 2, 4, 5 and 7, loss terms, classes, and accuracies."""

import re
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ispf_jax.report.figures.style import Panel, Picture, heat, label, line, model_key
from ispf_jax.report.names import TEXTS, model_name, shown
from ispf_jax.report.results import Summary, average, by_setting, grouped, summarise
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, RunLog, forget_order


def training_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture for every base, forget set and seed, all methods in each panel."""
    return [
        Picture(
            "training",
            _title("Training", group[0]),
            slug,
            [Panel(partial(_curves, group, title, *axes)) for title, axes in TEXTS["training"].items()],
            [model_key(run.method) for run in group],
        )
        for slug, group in grouped(runs, lambda run: run.slug).items()
    ]


def loss_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture per run: a panel with its own scale for every term of the generator loss and for the student loss."""
    pictures = []
    for run in runs:
        terms = {title: axes for title, axes in TEXTS["losses"].items() if len(run.series(axes[0], *axes[1]))}
        panels = [Panel(partial(_curves, [run], title, *axes), (3.2, 2.5)) for title, axes in terms.items()]
        title, slug = _title(f"Losses of {shown(run.method).name}", run), run.slug.replace("_", f"_{run.method}_", 1)
        pictures += [Picture("losses", title, slug, panels)] if panels else []
    return pictures


def class_histograms(runs: Iterable[RunLog]) -> list[Picture]:
    """Share of every class (by the teacher's label) among all images of a run: methods (rows) by classes (columns)."""
    pictures = []
    counted = (run for run in runs if run.class_shares() is not None)
    for slug, group in grouped(counted, lambda run: run.slug).items():
        shares, rows = np.stack([run.class_shares() for run in group]), [model_name(run.method) for run in group]
        panel = heat(100 * shares, rows, "Share of images [%]", framed=forget_order(group[0].forget), digits=1)
        pictures.append(Picture("classes", _title("Classes of synthetic images", group[0]), slug, [panel]))
    return pictures


def synthesis_against_accuracy(contents: Contents) -> list[Picture]:
    """Figure 4: the share of a class in DFKD's images against what GKT retains when it forgets that class."""
    return [
        Picture(
            "synthesis",
            ("Synthesis and GKT", contents.titled(", ".join(setting))),
            "_".join(filter(None, (*setting, contents.part))),
            [Panel(partial(_synthesis, shares), (4.2, 3.2))],
        )
        for setting, shares in synthesis_shares(contents).items()
    ]


def synthesis_shares(contents: Contents) -> dict[tuple[str, str, str], list[tuple[int, float, float]]]:
    """Figure 4 by (data set, network, base): (class, its share of DFKD's images, A_r of GKT without it) of two or more.

    DFKD does not depend on the class to be forgotten, so all its runs are averaged.
    """
    made = grouped((run for run in contents.runs if run.method == "dfkd"), lambda run: run.base)
    of_one = (r for r in contents.rows if r.method == "gkt" and r.selection != BEST_TEST and r.forget.isdecimal())
    found = {}
    for setting, rows in grouped(of_one, lambda r: (r.dataset, r.arch, r.of_base)).items():
        shares = [s for run in made.get(setting[2], []) if (s := run.class_shares()) is not None]
        if len(set(map(len, shares))) == 1:
            mean = np.mean(shares, axis=0)
            classes = grouped((r for r in rows if r.acc_retain is not None), lambda r: int(r.forget))
            retained = {c: average({r.run: r.acc_retain for r in of}).mean for c, of in classes.items()}
            found[setting] = [(c, float(mean[c]), retained[c]) for c in sorted(retained) if c < len(mean)]
    return {setting: points for setting, points in found.items() if len(points) > 1}


def accuracy_bars(contents: Contents) -> list[Picture]:
    """Accuracy on forgotten (hatched) and on retained classes (full) of every method, per data set and network.

    Means and standard deviations are those of the table of results; the best-on-test selection is left out.
    """
    pictures = []
    for setting, part in by_setting(contents.rows).items():
        summaries = [s for s in summarise(part) if s.selection != BEST_TEST]
        if any(s.average("acc_retain") for s in summaries):  # else there were no test images
            panel = Panel(partial(_bars, summaries), (max(4.0, 1.5 + 0.95 * len(summaries)), 3.4))
            slug = re.sub(r"[^\w.-]+", "-", "_".join(filter(None, (*setting, contents.part))))
            title = "Accuracy", contents.titled(", ".join(setting))
            pictures.append(Picture("accuracy", title, slug, [panel]))
    return pictures


def _title(words: str, run: RunLog) -> tuple[str, str]:
    return words, f"{run.base}, forgetting {run.forget}, seed {run.seed}"


def _curves(runs: Sequence[RunLog], title: str, x: str, ys: Sequence[str], y_label: str, axes: Axes):
    """One curve per run; epochs without evaluation and warm-up epochs leave gaps. A second number is dashed."""
    for run in runs:
        for y, style in zip(ys, ({}, {"ls": "--", "fillstyle": "none"})):
            line(axes, run.method, *run.series(x, y).T, **style)
    if len(ys) > 1:
        looks = {"retained": "-", "forgotten": "--"}
        words = [Line2D([], [], color="#444444", ls=ls, label=word) for word, ls in looks.items()]
        axes.legend(handles=words, loc="center left", frameon=True, framealpha=0.85, edgecolor="none")
    label(axes, title, TEXTS["axes"][x], y_label)


def _synthesis(shares: Sequence[tuple[int, float, float]], axes: Axes):
    numbers, xs, ys = zip(*((c, 100 * share, accuracy) for c, share, accuracy in shares))
    axes.scatter(xs, ys, color="#0072B2", s=22)
    for number, x, y in zip(numbers, xs, ys):
        axes.annotate(str(number), (x, y), (4, 3), textcoords="offset points", fontsize=7)
    several = len(shares) > 2 and np.std(xs) > 0 and np.std(ys) > 0
    title = f"{len(shares)} classes" + (f", correlation {np.corrcoef(xs, ys)[0, 1]:+.2f}" if several else "")
    label(axes, title, "share of the class in DFKD's images [%]", "GKT: accuracy on retained [%]")


def _bars(summaries: Sequence[Summary], axes: Axes):
    bases = len({s.model.partition("/")[2] for s in summaries} - {""}) > 1
    for place, summary in enumerate(summaries):
        for x, field, fill in ((-0.2, "acc_forget", {"hatch": "////", "fill": False}), (0.2, "acc_retain", {})):
            color, found = shown(summary.model).color, summary.average(field)
            if found and np.isfinite(found.mean):
                spread, look = found.std if found.std == found.std else None, {"color": color, "edgecolor": color}
                bar = axes.bar(place + x, found.mean, 0.38, yerr=spread, capsize=2, **look, **fill)
                axes.bar_label(bar, fmt="{:.1f}", padding=2, fontsize=7)
    names = [model_name(s.model, bases).replace(" (", "\n(") for s in summaries]
    axes.set_xticks(range(len(summaries)), names)
    axes.set(xlim=(-0.6, len(summaries) - 0.4), ylim=(0, 112), yticks=range(0, 101, 20))
    axes.grid(False, axis="x")
    hatched = Patch(edgecolor="#444444", facecolor="none", hatch="////", label="forgotten classes")
    full = Patch(color="#444444", label="retained classes")
    axes.legend(handles=[hatched, full], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    label(axes, "", "", "test accuracy [%]")
