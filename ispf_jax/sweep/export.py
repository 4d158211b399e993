"""Finished networks as files for other programs, next to their checkpoints, with a card and checksums."""

import importlib.metadata
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from ispf_jax import files
from ispf_jax.errors import UserError
from ispf_jax.experiment import Experiment
from ispf_jax.files import FORMATS, jax_export, save
from ispf_jax.files.card import CARD, LINE, SUMS, model_card, sha256, write_sums
from ispf_jax.files.ledger import LEDGER, Entry, read_ledger
from ispf_jax.models import layout_of
from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text
from ispf_jax.runtime.layout import CHECKPOINTS, Job
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import rows_of
from ispf_jax.runtime.schema import read_text, set_aside
from ispf_jax.sweep.worker import Worker


def wanted(e: Experiment) -> bool:
    """Whether there is anything to export."""
    return bool(set(e.export) & set(FORMATS) or ("auto" in e.export and e.model.checkpoint))


def export(worker: Worker, jobs: list[Job]) -> tuple[list[Path], dict[Job, str]]:
    """Writes `weights.<format>` for every job that has no such file with the weights of its result.

    Returns the new files, and why students were rejected.

    Students are those of the last epoch, originals and retrained models those of the selected one. Where the original
    came from a file, the names of tensors are that file's, and so is the format of "auto".
    """
    written, rejected, originals = [], {}, {}
    for job in jobs:
        if job.kind == "unlearn" and (reason := _too_bad(worker, job)):
            rejected[job] = reason
            continue
        if job.seed not in originals:
            originals[job.seed] = _noted(worker, Job("original", job.seed))
        origin = originals[job.seed]
        for format_ in (origin.get("format") if f == "auto" else f for f in worker.e.export):
            path = worker.workdir / job.place / f"weights.{format_}"
            if format_ and _has_checkpoints(worker, job) and not _is_current(worker, job, path):
                classifier = worker.read(job, "last" if job.kind == "unlearn" else "best")
                if classifier.network == worker.network:
                    classifier = classifier.replace(origin=origin)
                forgotten = [classifier.class_names[c] for c in job.forget]
                written.append(save(classifier, path, header={"job": str(job), "forgotten": json.dumps(forgotten)}))
        if job.kind == "unlearn":
            _describe(worker, job)
    return written, rejected


def _too_bad(worker: Worker, job: Job) -> str:
    """Why a student is not worth handing on, on the evidence of synthetic images; empty if it is."""
    row = rows_of(job, worker.workdir / job.result(job.forget))[0]
    retained, floor = worker.network.num_classes - len(job.forget), worker.e.export_floor
    if not floor or row.covered is None:  # a result of an early version says nothing
        return ""
    if 2 * row.covered < retained:
        return f"its generator covers {row.covered} of {retained} retained classes"
    if row.agreement is not None and row.agreement < floor:
        return f"it agrees with the original on {row.agreement:.1f} % of synthetic images (floor: {floor:g} %)"
    return ""


def seal(workdir: Path) -> Path:
    """Checksums of everything in a work directory that is handed on: weights and cards, results, the page."""
    found = [path for name in ("weights.*", "weights.*/**/*", CARD, LEDGER) for path in workdir.rglob(name)]
    found = [path for path in found if ".damaged" not in str(path)]
    found += [workdir / name for name in ("results.csv", "audit.csv", "report/index.html")]
    return write_sums(workdir, sorted({path for path in found if path.is_file()}))


def _describe(worker: Worker, job: Job):
    """A model card and checksums next to a student's weights, unless they are there for these weights."""
    directory, e = worker.workdir / job.place, worker.e
    weights = [path for path in directory.glob("weights.*") if path.suffix.removeprefix(".") in FORMATS]
    weights = [inner for path in weights for inner in _files(path)]
    given = _files(Path(os.path.expanduser(e.model.checkpoint))) if e.model.checkpoint else []
    hashes = {str(path.relative_to(directory)): sha256(path) for path in weights}
    card, recorded = directory / CARD, read_text(directory / SUMS, rf"({LINE}\n)*")
    if not weights or (card.exists() and all(h in recorded for h in hashes.values())):
        return
    row = rows_of(job, worker.workdir / job.result(job.forget))[0]
    forgotten = ", ".join(worker.data.class_names[c] for c in job.forget)
    of = (
        f"`{Path(e.model.checkpoint).name}` (sha256 {sha256(given[0])})"
        if len(given) == 1
        else f"the original of seed {job.seed}"
    )
    shares = [
        f"{v:.1f} %" if v is not None else "not measured: no test images" for v in (row.acc_forget, row.acc_retain)
    ]
    sentences = (
        f"This network was made from {of} to forget: {forgotten}. It started from random weights and learned from the "
        "original on images that a generator invented; no image of any class was used.",
        f"Accuracy on test images of forgotten classes: {shares[0]}; of retained classes: {shares[1]}. Accuracy alone "
        "does not separate removal from hiding: see the audit, where one was made.",
    )
    facts = {
        "forgotten": forgotten,
        "classes": ", ".join(worker.data.class_names),
        "network": row.arch,
        "images": f"{'x'.join(map(str, worker.network.image_shape))}, normalised as (x / 255 - mean) / std with mean "
        f"{worker.network.mean}, std {worker.network.std}",
        "method": f"{job.method} on the base {job.base}, seed {job.seed}, {row.student_steps:,} student steps",
        "weights of the original": row.teacher,
        "computed": row.computed,
        "software": f"ispf_jax {importlib.metadata.version('ispf-jax')}",
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    entry = Entry(
        list(job.forget),
        [worker.data.class_names[c] for c in job.forget],
        job.method,
        str(row.teacher),
        str(row.weights),
        facts["written"],
        facts["software"],
    )
    earlier = read_ledger((worker.workdir / Job("original", job.seed).place).parent)
    atomic_write_json(directory / LEDGER, [vars(entry) for entry in (*earlier, entry)])
    title = f"{row.arch} without {forgotten}"
    atomic_write_text(card, model_card(title, sentences, facts, hashes, [job.method]))
    write_sums(directory, [*weights, directory / LEDGER, *given])


def _files(path: Path) -> list[Path]:
    """A file, or the files of a directory."""
    return sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]


def _noted(worker, job):
    """What was noted about an original, if its checkpoints are still there."""
    return worker.read(job, "best").origin["meta"] if _has_checkpoints(worker, job) else {}


def _has_checkpoints(worker, job) -> bool:
    return any(step.name.isdigit() for step in (worker.workdir / job.place / CHECKPOINTS).glob("*"))


def _is_current(worker, job, path) -> bool:
    """Whether a file holds the weights of the job's result; one that does not is set aside."""
    if not path.exists():
        return False
    rows = rows_of(job, worker.workdir / job.result(job.forget or worker.forget_sets[0]))
    network, model = worker.student if job.kind == "unlearn" else worker.network, worker.e.model
    layout = layout_of(network.module)
    settings = {"layout": layout} if layout else {"network": model.name, "width": model.width}
    settings = {} if settings.get("network") == "auto" else settings
    try:
        if path.suffix == ".jax":
            same = jax_export.agrees(path, worker.read(job, "last" if job.kind == "unlearn" else "best"))
        else:
            found = files.load(path, image_shape=network.image_shape, **settings)
            same = weights_digest(found.variables) == rows[0].weights
        if same:
            return True
        raise UserError("it holds other weights than the result")
    except UserError as error:
        set_aside(path, error)
        return False
