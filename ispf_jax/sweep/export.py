"""Finished networks as files for other programs, beside their checkpoints."""

import json
from pathlib import Path

from ispf_jax.config import Experiment
from ispf_jax.files import FORMATS, encode, own_naming
from ispf_jax.runtime.atomic import atomic_write_bytes
from ispf_jax.sweep.given import naming_of
from ispf_jax.sweep.jobs import Job
from ispf_jax.sweep.worker import Worker


def wanted(e: Experiment) -> bool:
    """Whether there is anything to export."""
    return bool(set(e.export) & set(FORMATS) or ("auto" in e.export and e.model.checkpoint))


def export(worker: Worker, jobs: list[Job]) -> list[Path]:
    """Write `weights.<format>` for every job whose network has none yet, or an older one; returns the files that were written.

    Students are those of the last epoch, originals and retrained models those of the selected one. Where the original came from a file, the
    names of tensors are that file's, and so is the format of "auto".
    """
    written, origins = [], {}
    for job in jobs:
        directory = worker.workdir / job.place
        if job.seed not in origins:
            origins[job.seed] = _origin(worker, job.seed)
        for format_ in (origins[job.seed].get("format") if f == "auto" else f for f in worker.e.export):
            path = directory / f"weights.{format_}"
            if format_ and _older(path, directory / "checkpoints"):
                variables, _ = worker.load(directory, "last" if job.kind == "unlearn" else "best")
                naming = naming_of(origins[job.seed]) or own_naming(worker.e.model.name)
                written.append(atomic_write_bytes(path, encode(format_, naming, variables, _about(worker, job))))
    return written


def _origin(worker, seed):
    """What was noted about the original of a trial."""
    place = worker.original_directory(seed)
    return (
        worker.load(place, "best")[1] if any(step.name.isdigit() for step in (place / "checkpoints").glob("*")) else {}
    )


def _about(worker: Worker, job: Job) -> dict[str, str]:
    """What a reader of the weights needs to use them, as a header of text."""
    e, data = worker.e, worker.data
    return {
        "model": e.model.name,
        "width": f"{e.model.width:g}",
        "class_names": json.dumps(data.class_names),
        "mean": json.dumps(e.data.mean),
        "std": json.dumps(e.data.std),
        "image_shape": json.dumps(data.image_shape),
        "job": str(job),
        "forgotten": json.dumps([data.class_names[c] for c in job.forget]),
    }


def _older(path: Path, checkpoints: Path) -> bool:
    """Whether there is a checkpoint, and no file that was written after it; checkpoints that were removed are nobody's mistake."""
    steps = [step.stat().st_mtime for step in checkpoints.glob("*") if step.name.isdigit()]
    return bool(steps) and not (path.exists() and path.stat().st_mtime >= max(steps))
