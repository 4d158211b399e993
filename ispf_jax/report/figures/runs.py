"""Pictures of training and of its results: the paper's figures 2, 4, 5 and 7, loss terms, classes, and accuracies."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ispf_jax.report.figures.style import Panel, Picture, heat, label, line, model_key
from ispf_jax.report.names import TEXTS, model_name, shown
from ispf_jax.report.results import Summary, average, by_setting, summarise
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, Row, RunLog, forget_order

_X = {"seconds": "training time [s]", "student_step": "student steps", "generator_step": "generator steps"}
_PANELS = (  # title, x, y (a second one is dashed), what y is
    ("Accuracy over wall time", "seconds", ["test/acc_retain"], "accuracy on retained classes [%]"),
    ("Samples by the teacher's label", "student_step", ["retain_samples", "forget_samples"], "samples per batch"),
    ("Samples filtered out", "student_step", ["filtered"], "samples per batch"),
    ("Retained-class entropy H (Eq. 11)", "student_step", ["entropy"], "H, summed over the batch [nats]"),
    (
        "Probability of forgotten classes",
        "student_step",
        ["teacher_forget_probability"],
        "teacher's mean over the batch",
    ),
)


def training_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture for every base, forget set and seed, all methods in each panel."""
    pictures = []
    for slug, group in _groups(runs).items():
        panels = tuple(Panel(partial(_curves, group, *panel)) for panel in _PANELS)
        keys = tuple(model_key(run.method) for run in group)
        pictures.append(Picture("training", "training", _title("Training", group[0]), slug, panels, keys))
    return pictures


def loss_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture per run: a panel with its own scale for every term of the generator loss and for the student loss."""
    pictures = []
    for run in runs:
        terms = {term: "student_step" if "student" in term else "generator_step" for term in TEXTS["losses"]}
        panels = [
            Panel(partial(_curves, [run], TEXTS["losses"][term], x, [term], "mean loss of the epoch"), (3.2, 2.5))
            for term, x in terms.items()
            if len(run.series(x, term))
        ]
        slug = run.slug.replace("_", f"_{run.method}_", 1)
        title = _title(f"Losses of {shown(run.method).name}", run)
        pictures += [Picture("losses", "losses", title, slug, tuple(panels))] if panels else []
    return pictures


def class_histograms(runs: Iterable[RunLog]) -> list[Picture]:
    """Share of every class (by the teacher's label) among all images of a run: methods (rows) by classes (columns)."""
    pictures = []
    for slug, group in _groups(run for run in runs if run.class_shares() is not None).items():
        shares, rows = np.stack([run.class_shares() for run in group]), [model_name(run.method) for run in group]
        panel = heat(100 * shares, rows, "Share of images [%]", framed=forget_order(group[0].forget), digits=1)
        title = _title("Classes of synthetic images", group[0])
        pictures.append(Picture("classes", "classes", title, slug, (panel,)))
    return pictures


def synthesis_against_accuracy(contents: Contents) -> list[Picture]:
    """Figure 4: the share of a class in DFKD's images against what GKT retains when it forgets that class."""
    pictures = []
    for setting, shares in synthesis_shares(contents).items():
        panel, title = Panel(partial(_synthesis, shares), (4.2, 3.2)), ("Synthesis and GKT", ", ".join(setting))
        pictures.append(Picture("synthesis", "synthesis", title, "_".join(setting), (panel,)))
    return pictures


def synthesis_shares(contents: Contents) -> dict[tuple[str, str, str], list[tuple[int, float, float]]]:
    """Figure 4 by (data set, network, base): (class, its share of DFKD's images, A_r of GKT without it) of two or more.

    DFKD does not depend on the class to be forgotten, so all its runs are averaged.
    """
    made, retained = defaultdict(list), defaultdict(lambda: defaultdict(dict))
    for run in contents.runs:
        if run.method == "dfkd" and (share := run.class_shares()) is not None:
            made[run.base].append(share)
    for r in contents.rows:
        if r.method == "gkt" and r.selection != BEST_TEST and r.forget.isdecimal() and r.acc_retain is not None:
            retained[r.dataset, r.arch, r.of_base][int(r.forget)][r.run] = r.acc_retain
    found = {}
    for setting, classes in retained.items():
        if len({len(share) for share in made[setting[2]]}) == 1:
            mean = np.mean(made[setting[2]], axis=0)
            known = sorted((c, runs) for c, runs in classes.items() if c < len(mean))
            found[setting] = [(c, float(mean[c]), average(runs).mean) for c, runs in known]
    return {setting: points for setting, points in found.items() if len(points) > 1}


def accuracy_bars(rows: Iterable[Row]) -> list[Picture]:
    """Accuracy on forgotten (hatched) and on retained classes (full) of every method, per data set and network.

    Means and standard deviations are those of the table of results; the best-on-test selection is left out.
    """
    pictures = []
    for setting, part in by_setting(rows).items():
        summaries = [s for s in summarise(part) if s.selection != BEST_TEST]
        if any(s.average("acc_retain") for s in summaries):  # else there were no test images
            panel = Panel(partial(_bars, summaries), (max(4.0, 1.5 + 0.95 * len(summaries)), 3.4))
            slug = re.sub(r"[^\w.-]+", "-", "_".join(setting))
            pictures.append(Picture("accuracy", "accuracy", ("Accuracy", ", ".join(setting)), slug, (panel,)))
    return pictures


def _title(words: str, run: RunLog) -> tuple[str, str]:
    return words, f"{run.base}, forgetting {run.forget}, seed {run.seed}"


def _groups(runs: Iterable[RunLog]) -> dict[str, list[RunLog]]:
    """The runs that can be compared: of one base, forget set and seed."""
    groups = defaultdict(list)
    for run in runs:
        groups[run.slug].append(run)
    return groups


def _curves(runs: Sequence[RunLog], title: str, x: str, ys: Sequence[str], y_label: str, axes: Axes) -> None:
    """One curve per run; epochs without evaluation and warm-up epochs leave gaps. A second number is dashed."""
    for run in runs:
        for y, style in zip(ys, ({}, {"ls": "--", "fillstyle": "none"})):
            line(axes, run.method, *run.series(x, y).T, **style)
    if len(ys) > 1:
        words = [
            Line2D([], [], color="#444444", ls=ls, label=word) for ls, word in (("-", "retained"), ("--", "forgotten"))
        ]
        axes.legend(handles=words, loc="center left", frameon=True, framealpha=0.85, edgecolor="none")
    label(axes, title, _X[x], y_label)


def _synthesis(shares: Sequence[tuple[int, float, float]], axes: Axes) -> None:
    numbers, xs, ys = zip(*((c, 100 * share, accuracy) for c, share, accuracy in shares))
    axes.scatter(xs, ys, color="#0072B2", s=22)
    for number, x, y in zip(numbers, xs, ys):
        axes.annotate(str(number), (x, y), (4, 3), textcoords="offset points", fontsize=7)
    several = len(shares) > 2 and np.std(xs) > 0 and np.std(ys) > 0
    title = f"{len(shares)} classes" + (f", correlation {np.corrcoef(xs, ys)[0, 1]:+.2f}" if several else "")
    label(axes, title, "share of the class in DFKD's images [%]", "GKT: accuracy on retained [%]")


def _bars(summaries: Sequence[Summary], axes: Axes) -> None:
    several = len({s.base for s in summaries if s.base}) > 1
    for place, summary in enumerate(summaries):
        color = shown(summary.method).color
        for x, field, fill in ((-0.2, "acc_forget", {"hatch": "////", "fill": False}), (0.2, "acc_retain", {})):
            x, found = place + x, summary.average(field)
            if found and np.isfinite(found.mean):
                spread = found.std if found.std == found.std else None
                axes.bar(x, found.mean, 0.38, yerr=spread, capsize=2, color=color, edgecolor=color, **fill)
                top = (x, found.mean + (spread or 0))
                axes.annotate(f"{found.mean:.1f}", top, (0, 2), textcoords="offset points", ha="center", fontsize=7)
    names = [shown(s.method).name + (f"\n{s.base}" if several and s.base else "") for s in summaries]
    axes.set_xticks(range(len(summaries)), names)
    axes.set(xlim=(-0.6, len(summaries) - 0.4), ylim=(0, 112), yticks=range(0, 101, 20))
    axes.grid(False, axis="x")
    looks = [
        Patch(edgecolor="#444444", facecolor="none", hatch="////", label="forgotten classes"),
        Patch(color="#444444", label="retained classes"),
    ]
    axes.legend(handles=looks, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    label(axes, "", "", "test accuracy [%]")
