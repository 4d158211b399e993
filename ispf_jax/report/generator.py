"""What the generator made in each run: how many images, of which classes, how many were of use."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ispf_jax.report.averages import average
from ispf_jax.report.measurements import Measurement
from ispf_jax.report.names import shown
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, RunLog

_DUPLICATES = {
    "duplicates/exact": "equal images",
    "duplicates/pixels": "near in pixels",
    "duplicates/features": "near in features",
}
_NOTE = (
    "Images: all that were synthesised, including those that only the generator learned from. Learned from, filtered "
    "out, of forgotten classes (by the teacher's label): shares over all student steps. H: retained-class entropy per "
    "image that was learned from, at the end, in nats."
)
_NO_DUPLICATES = "Duplicates among the images were not counted: the audit counts them."


class Share(NamedTuple):
    """One class: its share among DFKD's images, 0..1, and GKT's accuracy on the others [%] when it is forgotten."""

    number: int
    share: float
    accuracy: float


def synthesis_shares(contents: Contents) -> dict[tuple[str, str, str], list[Share]]:
    """Points of figure 4 by (data set, network, base): classes that a run of DFKD saw and a run of GKT forgot; two or more.

    DFKD does not depend on the class to be forgotten, so all its runs are averaged.
    """
    shares, values = defaultdict(list), defaultdict(lambda: defaultdict(dict))
    for run in contents.runs:
        if run.method == "dfkd" and (share := run.class_shares()) is not None:
            shares[run.base].append(share)
    for row in contents.rows:
        if row.method == "gkt" and row.selection != BEST_TEST and row.forget.isdecimal() and row.acc_retain is not None:
            values[row.dataset, row.arch, row.of_base][int(row.forget)][row.run] = row.acc_retain
    found = {}
    for setting, classes in values.items():
        of_base = shares[setting[2]]
        if of_base and len({len(share) for share in of_base}) == 1:
            mean = np.mean(of_base, axis=0)
            known = sorted((c, runs) for c, runs in classes.items() if c < len(mean))
            found[setting] = [Share(c, float(mean[c]), average(runs).mean) for c, runs in known]
    return {setting: points for setting, points in found.items() if len(points) > 1}


def generator_table(contents: Contents) -> Table | None:
    """One line per run; None without runs. Duplicates are those that the audit of the run's trial counted."""
    counted = {(m.model, m.run, m.metric): m for m in contents.measurements if m.metric in _DUPLICATES}
    copies = [name for name in _DUPLICATES if any(name == metric for _, _, metric in counted)]
    words = ("method", "base", "forget")
    heads = [*words, "seed", "images", "learned from", "filtered out", "of forgotten classes", "H per image"]
    heads += ["rarest class", "commonest class", "empty steps", *(_DUPLICATES[name] for name in copies)]
    lines = []
    for run in contents.runs:
        key, shares = (f"{run.method}/{run.base}", (run.forget, run.seed)), run.class_shares()
        extremes = (
            [MISSING] * 2 if shares is None else [_class(shares, shares.argmin()), _class(shares, shares.argmax())]
        )
        skipped = run.series("skipped_steps")
        lines.append(
            [
                *(shown(run.method).name, run.base, run.forget, str(run.seed), _images(run)),
                *(_share(run, name) for name in ("kept", "filtered", "forget_samples")),
                _entropy(run),
                *extremes,
                f"{skipped.sum():.0f}" if len(skipped) else MISSING,
                *(_percent(counted.get((*key, name))) for name in copies),
            ]
        )
    notes = [_NOTE, _about_copies(list(counted.values())) if counted else _NO_DUPLICATES]
    return make_table("Generator health", heads, lines, notes, words) if lines else None


def _images(run: RunLog) -> str:
    """Images of all student and generator steps."""
    batch, steps = run.series("batch_size"), run.series("student_step", "generator_step")
    return f"{int(steps[-1].sum() * batch[-1, 0]):,}" if len(batch) and len(steps) else MISSING


def _share(run: RunLog, name: str) -> str:
    batch, values = run.series("batch_size"), run.series(name)
    return f"{100 * values.mean() / batch[-1, 0]:.1f} %" if len(batch) and len(values) else MISSING


def _entropy(run: RunLog) -> str:
    """Per image: the recorded entropy is a sum over the kept images alone."""
    last = run.series("entropy", "kept")[-1:]
    return f"{last[0, 0] / last[0, 1]:.2f}" if last[:, 1].any() else MISSING


def _class(shares: np.ndarray, index: int) -> str:
    return f"{index}: {100 * shares[index]:.1f} %"


def _percent(measured: Measurement | None) -> str:
    return MISSING if measured is None or measured.value is None else f"{measured.value:.1f} %"


def _about_copies(counted: Sequence[Measurement]) -> str:
    """What the shares of duplicates are shares of, and the same of real images."""
    sizes = " or ".join(f"{n:,}" for n in sorted({m.n for m in counted if m.n}))
    real = dict.fromkeys(f"{_DUPLICATES[m.metric]} {m.note}" for m in counted if m.note)
    return (
        f"Duplicates among {sizes} images of the finished generator: equal to another one in every pixel, or no further "
        "from one than a tenth of the median distance of all pairs, in pixels or in the original's penultimate features"
    ) + (f" ({'; '.join(real)})." if real else ".")
