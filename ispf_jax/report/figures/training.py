"""Pictures of training: the paper's figures 2, 5 and 7, and the terms of the losses."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ispf_jax.report.figures.style import Panel, Picture, label, look, method_key
from ispf_jax.runtime.rows import RunLog

LOSS_TERMS = {
    "generator/total": "generator: total",
    "generator/adv": "generator: adversarial (adv)",
    "generator/bn": "generator: batch-norm matching (bn)",
    "generator/oh": "generator: one-hot (oh)",
    "generator/balance": "generator: class balance",
    "generator/act": "generator: activation (act)",
    "student/loss": "student: distillation",
}

_CAPTION = (
    "The paper's figures 2 (AllCNN), 5 (ResNet18) and 7 (ZSKT base). Time is that of training alone, whereas the authors' includes an "
    "evaluation per epoch. H is the entropy of the teacher's prediction over retained classes, summed over the batch (Eq. 11)."
)


def training_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture for every base, forget set and seed, all methods in each panel.

    Wall time [s] against retain accuracy [%]; samples per batch that the teacher takes for forgotten and for retained classes;
    samples filtered out per step; retained-class entropy; the teacher's probability of forgotten classes.
    """
    groups = defaultdict(list)
    for run in runs:
        groups[run.slug].append(run)
    pictures = []
    for slug, group in groups.items():
        panels = [
            Panel(partial(_time, group)),
            Panel(partial(_samples, group)),
            Panel(partial(_filtered, group)),
            Panel(partial(_entropy, group)),
            Panel(partial(_confidence, group)),
        ]
        title = f"{group[0].base}: forgetting {group[0].forget}, seed {group[0].seed}"
        pictures.append(
            Picture(f"training_{slug}", title, tuple(panels), _CAPTION, tuple(method_key(r.method) for r in group))
        )
    return pictures


def loss_curves(runs: Iterable[RunLog]) -> list[Picture]:
    """One picture per run: a panel with its own scale for every term of the generator loss and for the student loss."""
    pictures = []
    for run in runs:
        terms = [term for term in LOSS_TERMS if len(_series(run.records, _step_of(term), term)[0])]
        if terms:
            title = f"{run.base} {run.method}: forgetting {run.forget}, seed {run.seed}"
            name = f"losses_{run.base}_{run.method}_{run.slug.removeprefix(run.base + '_')}"
            pictures.append(Picture(name, title, tuple(Panel(partial(_term, run, term), (3.2, 2.5)) for term in terms)))
    return pictures


def _time(runs: Sequence[RunLog], axes: Axes) -> None:
    for run in runs:
        _curve(axes, run, "seconds", "test/acc_retain")
    label(axes, "Accuracy over wall time", "training time [s]", "accuracy on retained classes [%]")


def _samples(runs: Sequence[RunLog], axes: Axes) -> None:
    for run in runs:
        _curve(axes, run, "student_step", "retain_samples")
        _curve(axes, run, "student_step", "forget_samples", linestyle="--", fillstyle="none")
    kinds = [
        Line2D([], [], color="#444444", linestyle=line, label=kind)
        for line, kind in (("-", "retained"), ("--", "forgotten"))
    ]
    axes.legend(handles=kinds, loc="center left", frameon=True, framealpha=0.85, edgecolor="none")
    label(axes, "Synthetic samples by the teacher's label", "student steps", "samples per batch")


def _filtered(runs: Sequence[RunLog], axes: Axes) -> None:
    for run in runs:
        _curve(axes, run, "student_step", "filtered")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    label(axes, "Samples filtered out", "student steps", "samples per batch")


def _entropy(runs: Sequence[RunLog], axes: Axes) -> None:
    for run in runs:
        _curve(axes, run, "student_step", "entropy")
    label(axes, "Retained-class entropy H (Eq. 11)", "student steps", "H, summed over the batch [nats]")


def _confidence(runs: Sequence[RunLog], axes: Axes) -> None:
    for run in runs:
        _curve(axes, run, "student_step", "teacher_forget_probability")
    label(axes, "Teacher's probability of forgotten classes", "student steps", "mean over the batch")


def _term(run: RunLog, term: str, axes: Axes) -> None:
    _curve(axes, run, _step_of(term), term)
    label(axes, LOSS_TERMS[term], _step_of(term).replace("_", " ") + "s", "mean loss of the epoch")


def _series(records: Sequence[dict[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of the records that hold both `x` and `y`; epochs without evaluation and warm-up epochs have gaps."""
    points = [
        (r[x], r[y]) for r in records if isinstance(r.get(x), (int, float)) and isinstance(r.get(y), (int, float))
    ]
    return tuple(np.array(points, float).reshape(-1, 2).T)


def _curve(axes: Axes, run: RunLog, x: str, y: str, **options: Any) -> None:
    """Draw one run with about eight markers, or a single dot if there is only one point."""
    color, marker = look(run.method)
    xs, ys = _series(run.records, x, y)
    if len(xs):
        axes.plot(xs, ys, color=color, marker=marker, markevery=max(1, len(xs) // 8), **options)


def _step_of(term: str) -> str:
    return "student_step" if term.startswith("student/") else "generator_step"
