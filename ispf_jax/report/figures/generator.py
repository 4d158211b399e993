"""Pictures of what the generator makes: classes of its images, and the paper's figure 4."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from ispf_jax.report.figures.style import Panel, Picture, label
from ispf_jax.report.health import Share, class_shares, synthesis_shares
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import RunLog


def class_histograms(runs: Sequence[RunLog]) -> list[Picture]:
    """Share of every class (by the teacher's label) among all images of a run: methods (lines) by classes (columns)."""
    groups = defaultdict(list)
    for run in runs:
        if class_shares(run) is not None:
            groups[run.slug].append(run)
    caption = "Images of the generator steps by the teacher's label, over the whole run. Framed: forgotten classes."
    return [
        Picture(
            f"classes_{slug}",
            f"Classes of synthetic images: {group[0].base}, forgetting {group[0].forget}, seed {group[0].seed}",
            (Panel(partial(_histogram, group), (6.0, 1.2 + 0.3 * len(group))),),
            caption,
        )
        for slug, group in groups.items()
    ]


def synthesis_against_accuracy(contents: Contents) -> list[Picture]:
    """Figure 4: how often plain DFKD makes a class against what GKT retains when it forgets that class; one point per class."""
    pictures = []
    for (dataset, arch, base), shares in synthesis_shares(contents).items():
        caption = "The paper's figure 4: classes that the generator likes to make cost GKT the most when they are to be forgotten."
        pictures.append(
            Picture(
                f"synthesis_{dataset}_{arch}_{base}",
                f"Synthesis and GKT: {dataset}, {arch}, {base}",
                (Panel(partial(_points, shares), (4.2, 3.2)),),
                caption,
            )
        )
    return pictures


def _histogram(runs: Sequence[RunLog], axes: Axes) -> None:
    shares = 100 * np.stack([class_shares(run) for run in runs])
    axes.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    axes.set_yticks(range(len(runs)), [METHOD_NAMES.get(run.method, run.method) for run in runs])
    classes = shares.shape[1]
    axes.set_xticks(range(0, classes, max(1, classes // 20)))
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (y, x), value in np.ndenumerate(shares) if classes <= 20 else ():
        axes.text(
            x,
            y,
            f"{value:.1f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > 0.6 * shares.max() else "black",
        )
    for number in map(int, runs[0].forget.split(",")):
        axes.axvline(number - 0.5, color="#D55E00", linewidth=1.2)
        axes.axvline(number + 0.5, color="#D55E00", linewidth=1.2)
    label(axes, "Share of images [%]", "class by the teacher", "")


def _points(shares: Sequence[Share], axes: Axes) -> None:
    xs, ys = [100 * s.share for s in shares], [s.accuracy for s in shares]
    axes.scatter(xs, ys, color="#0072B2", s=22)
    for share, x, y in zip(shares, xs, ys):
        axes.annotate(str(share.number), (x, y), (4, 3), textcoords="offset points", fontsize=7)
    several = len(shares) > 2 and np.std(xs) > 0 and np.std(ys) > 0
    title = f"{len(shares)} classes" + (f", correlation {np.corrcoef(xs, ys)[0, 1]:+.2f}" if several else "")
    label(axes, title, "share of the class in DFKD's images [%]", "GKT: accuracy on retained [%]")
