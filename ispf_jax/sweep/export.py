"""Finished networks as files for other programs, next to their checkpoints."""

import json
from pathlib import Path

from ispf_jax.experiment import Experiment
from ispf_jax.files import FORMATS, save
from ispf_jax.sweep.jobs import Job
from ispf_jax.sweep.worker import Worker


def wanted(e: Experiment) -> bool:
    """Whether there is anything to export."""
    return bool(set(e.export) & set(FORMATS) or ("auto" in e.export and e.model.checkpoint))


def export(worker: Worker, jobs: list[Job]) -> list[Path]:
    """Writes `weights.<format>` for every job whose network has none yet, or an older one; returns the new files.

    Students are those of the last epoch, originals and retrained models those of the selected one. Where the original
    came from a file, the names of tensors are that file's, and so is the format of "auto".
    """
    written, originals = [], {}
    for job in jobs:
        directory = worker.workdir / job.place
        if job.seed not in originals:
            originals[job.seed] = _noted(worker, worker.workdir / Job("original", job.seed).place)
        origin = originals[job.seed]
        for format_ in (origin.get("format") if f == "auto" else f for f in worker.e.export):
            path = directory / f"weights.{format_}"
            if format_ and _older(path, directory / "checkpoints"):
                classifier = worker.read(directory, "last" if job.kind == "unlearn" else "best").replace(origin=origin)
                forgotten = [classifier.class_names[c] for c in job.forget]
                written.append(save(classifier, path, header={"job": str(job), "forgotten": json.dumps(forgotten)}))
    return written


def _noted(worker, directory):
    """What was noted about an original, if its checkpoints are still there."""
    kept = any(step.name.isdigit() for step in (directory / "checkpoints").glob("*"))
    return worker.read(directory, "best").origin["meta"] if kept else {}


def _older(path: Path, checkpoints: Path) -> bool:
    """Whether there is a checkpoint, and no file that was written after it; checkpoints may have been removed."""
    steps = [step.stat().st_mtime for step in checkpoints.glob("*") if step.name.isdigit()]
    return bool(steps) and not (path.exists() and path.stat().st_mtime >= max(steps))
