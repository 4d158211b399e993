"""What the generator made in each run: how many images, of which classes, how many were of use."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from ispf_jax.report.measurements import Measurement
from ispf_jax.report.names import TEXTS, shown
from ispf_jax.report.results import average
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import BEST_TEST, RunLog

_DUPLICATES = {
    "duplicates/exact": "equal images",
    "duplicates/pixels": "near in pixels",
    "duplicates/features": "near in features",
}


class Share(NamedTuple):
    """One class: its share among DFKD's images, 0..1, and GKT's accuracy on the others [%] when it is forgotten."""

    number: int
    share: float
    accuracy: float


def synthesis_shares(contents: Contents) -> dict[tuple[str, str, str], list[Share]]:
    """Points of figure 4 by (data set, network, base): classes that DFKD made and that GKT forgot; two or more.

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
        key, skipped = (f"{run.method}/{run.base}", (run.forget, run.seed)), run.series("skipped_steps")
        line = [shown(run.method).name, run.base, run.forget, str(run.seed), _images(run)]
        line += [
            *(_share(run, name) for name in ("kept", "filtered", "forget_samples")),
            _entropy(run),
            *_extremes(run),
        ]
        line += [f"{skipped.sum():.0f}" if len(skipped) else MISSING]
        lines.append(line + [_percent(counted.get((*key, name))) for name in copies])
    notes = [TEXTS["notes"]["generator"], _about_copies(list(counted.values()))]
    return make_table("Generator health", heads, lines, notes, words) if lines else None


def _images(run: RunLog) -> str:
    """Images of all student and generator steps."""
    made = run.series("batch_size", "student_step", "generator_step")[-1:]
    return f"{int(made[0, 0] * made[0, 1:].sum()):,}" if made.any() else MISSING


def _share(run: RunLog, name: str) -> str:
    values = run.series(name, "batch_size")
    return f"{100 * values[:, 0].mean() / values[-1, 1]:.1f} %" if len(values) else MISSING


def _entropy(run: RunLog) -> str:
    """Per image: the recorded entropy is a sum over the kept images alone."""
    last = run.series("entropy", "kept")[-1:]
    return f"{last[0, 0] / last[0, 1]:.2f}" if last[:, 1].any() else MISSING


def _extremes(run: RunLog) -> list[str]:
    """The rarest and the commonest class with their shares."""
    shares = run.class_shares()
    if shares is None:
        return [MISSING, MISSING]
    return [f"{index}: {100 * shares[index]:.1f} %" for index in (shares.argmin(), shares.argmax())]


def _percent(measured: Measurement | None) -> str:
    return MISSING if measured is None or measured.value is None else f"{measured.value:.1f} %"


def _about_copies(counted: list[Measurement]) -> str:
    """What the shares of duplicates are shares of, and the same of real images."""
    sizes = " or ".join(f"{n:,}" for n in sorted({m.n for m in counted if m.n}))
    real = dict.fromkeys(f"{_DUPLICATES[m.metric]} {m.note}" for m in counted if m.note)
    text = TEXTS["notes"]["duplicates" if counted else "no_duplicates"].format(sizes)
    return text + (f" ({'; '.join(real)})." if real else "." * bool(counted))
