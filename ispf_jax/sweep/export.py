"""Finished networks as files for other programs, next to their checkpoints."""

import json
from pathlib import Path

from ispf_jax import files
from ispf_jax.errors import UserError
from ispf_jax.experiment import Experiment
from ispf_jax.files import FORMATS, save
from ispf_jax.runtime.layout import CHECKPOINTS, Job
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import rows_of
from ispf_jax.runtime.schema import set_aside
from ispf_jax.sweep.worker import Worker


def wanted(e: Experiment) -> bool:
    """Whether there is anything to export."""
    return bool(set(e.export) & set(FORMATS) or ("auto" in e.export and e.model.checkpoint))


def export(worker: Worker, jobs: list[Job]) -> list[Path]:
    """Writes `weights.<format>` for every job that has no such file with the weights of its result.

    Returns the new files.

    Students are those of the last epoch, originals and retrained models those of the selected one. Where the original
    came from a file, the names of tensors are that file's, and so is the format of "auto".
    """
    written, originals = [], {}
    for job in jobs:
        if job.seed not in originals:
            originals[job.seed] = _noted(worker, Job("original", job.seed))
        origin = originals[job.seed]
        for format_ in (origin.get("format") if f == "auto" else f for f in worker.e.export):
            path = worker.workdir / job.place / f"weights.{format_}"
            if format_ and _has_checkpoints(worker, job) and not _is_current(worker, job, path):
                classifier = worker.read(job, "last" if job.kind == "unlearn" else "best").replace(origin=origin)
                forgotten = [classifier.class_names[c] for c in job.forget]
                written.append(save(classifier, path, header={"job": str(job), "forgotten": json.dumps(forgotten)}))
    return written


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
    network, model = worker.network, worker.e.model
    try:
        found = files.load(path, network=model.name, width=model.width, image_shape=network.image_shape)
        if weights_digest(found.variables) == rows[0].weights:
            return True
        raise UserError("it holds other weights than the result")
    except UserError as error:
        set_aside(path, error)
        return False
