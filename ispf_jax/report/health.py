"""What the generator made in each run: how many images, of which classes, how many were of use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ispf_jax.report.audits import Audit, Measurement
from ispf_jax.report.averages import average
from ispf_jax.report.cells import Column, Table, row
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.table import BEST_TEST
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import RunLog

_DUPLICATES = {
    "duplicates/exact": "equal images",
    "duplicates/pixels": "near in pixels",
    "duplicates/features": "near in features",
}


@dataclass(frozen=True)
class Share:
    """One class: its share among DFKD's images, 0..1, and GKT's accuracy on the others [%] when it is forgotten."""

    number: int
    share: float
    accuracy: float


def class_shares(run: RunLog) -> np.ndarray | None:
    """Share of every class, by the teacher's label, among all images of the generator steps; None if it was not recorded."""
    counts = [r["class_counts"] for r in run.records if isinstance(r.get("class_counts"), list)]
    if not counts or len({len(c) for c in counts}) > 1:
        return None
    total = np.sum(counts, axis=0, dtype=float)
    return total / total.sum() if total.sum() > 0 else None


def synthesis_shares(contents: Contents) -> dict[tuple[str, str, str], list[Share]]:
    """Points of figure 4 by (data set, network, base): classes that a run of DFKD saw and a run of GKT forgot; two or more.

    DFKD does not depend on the class to be forgotten, so all its runs are averaged.
    """
    shares: dict[str, list[np.ndarray]] = {}
    for run in contents.runs:
        if run.method == "dfkd" and (share := class_shares(run)) is not None:
            shares.setdefault(run.base, []).append(share)
    values: dict[tuple, dict] = {}
    for r in contents.rows:
        if (
            r["method"] == "gkt"
            and r["selection"] != BEST_TEST
            and str(r["forget"]).isdecimal()
            and isinstance(r["acc_retain"], (int, float))
        ):
            values.setdefault((r["dataset"], r["arch"], r["base"]), {}).setdefault(int(r["forget"]), {})[
                r["forget"], r["seed"]
            ] = r["acc_retain"]
    found = {}
    for (dataset, arch, base), classes in values.items():
        if base in shares and len({s.size for s in shares[base]}) == 1:
            mean = np.mean(shares[base], axis=0)
            points = [
                Share(c, float(mean[c]), average(runs).mean) for c, runs in sorted(classes.items()) if c < mean.size
            ]
            if len(points) > 1:
                found[dataset, arch, base] = points
    return found


def health_table(runs: Sequence[RunLog], audits: Sequence[Audit] = ()) -> Table | None:
    """One line per run; None without runs. Steps counted are student steps, but for the classes, which are of generator steps.

    Duplicates are those that the audit of the run's trial counted.
    """
    if not runs:
        return None
    heads = (
        "method",
        "base",
        "forget",
        "seed",
        "images",
        "learned from",
        "filtered out",
        "of forgotten classes",
        "H per image",
        "rarest class",
        "commonest class",
        "empty steps",
    )
    counted = {(a.key, m.model, m.metric): m for a in audits for m in a.measurements if m.metric in _DUPLICATES}
    copies = [name for name in _DUPLICATES if any(name == key[2] for key in counted)]
    columns = [Column(head, words=head in ("method", "base", "forget")) for head in heads]
    columns += [Column(_DUPLICATES[name]) for name in copies]
    lines = []
    for run in runs:
        batch = next((r["batch_size"] for r in reversed(run.records) if r.get("batch_size")), None)
        last, shares = run.records[-1], class_shares(run)
        steps = (last.get("student_step") or 0) + (last.get("generator_step") or 0)
        lines.append(
            row(
                METHOD_NAMES.get(run.method, run.method),
                run.base,
                run.forget,
                str(run.seed),
                f"{int(steps * batch):,}" if batch and steps else "-",
                _share(run, "kept", batch),
                _share(run, "filtered", batch),
                _share(run, "forget_samples", batch),
                _per_image(last.get("entropy"), last.get("kept")),
                *([_class(shares, np.argmin), _class(shares, np.argmax)] if shares is not None else ["-", "-"]),
                _total(run, "skipped_steps"),
                *(_percent(counted.get(((run.forget, run.seed), f"{run.method}/{run.base}", name))) for name in copies),
            )
        )
    notes = (
        "Images: all that were synthesised, those that only the generator learned from included. Learned from, filtered out, of forgotten classes "
        "(by the teacher's label): shares over all student steps. H: retained-class entropy of an image that "
        "was learned from, at the end, in nats.",
        *_about_copies(counted),
    )
    return Table("Generator health", tuple(columns), tuple(lines), notes)


def _values(run: RunLog, key: str) -> list[float]:
    return [r[key] for r in run.records if isinstance(r.get(key), (int, float))]


def _share(run: RunLog, key: str, batch: Any) -> str:
    values = _values(run, key)
    return f"{100 * np.mean(values) / batch:.1f} %" if values and batch else "-"


def _per_image(entropy: Any, kept: Any) -> str:
    """The recorded entropy is a sum over the kept images alone."""
    return f"{entropy / kept:.2f}" if isinstance(entropy, (int, float)) and kept else "-"


def _class(shares: np.ndarray, which) -> str:
    index = int(which(shares))
    return f"{index}: {100 * shares[index]:.1f} %"


def _total(run: RunLog, key: str) -> str:
    values = _values(run, key)
    return f"{sum(values):.0f}" if values else "-"


def _percent(measured: Measurement | None) -> str:
    return "-" if measured is None or measured.value is None else f"{measured.value:.1f} %"


def _about_copies(counted: dict[tuple, Measurement]) -> list[str]:
    """What the shares of duplicates are shares of, and the same of real images."""
    if not counted:
        return ["Duplicates among the images were not counted: the audit does it."]
    sizes = sorted({m.n for m in counted.values() if m.n})
    real = dict.fromkeys(f"{_DUPLICATES[name]} {m.note}" for (_, _, name), m in counted.items() if m.note)
    return [
        f"Duplicates among {' or '.join(f'{n:,}' for n in sizes)} images of the finished generator: equal to another one in every pixel, or "
        "no further from one than a tenth of the median distance of all pairs, in pixels or in the original's penultimate features"
        + (f" ({'; '.join(real)})." if real else ".")
    ]
