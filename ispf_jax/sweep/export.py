"""Finished networks as files for other programs, beside their checkpoints."""

import json
from pathlib import Path

from ispf_jax.classifier import Classifier
from ispf_jax.config import Experiment
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
    written, origins = [], {}
    for job in jobs:
        directory = worker.workdir / job.place
        if job.seed not in origins:
            origins[job.seed] = _origin(worker, job.seed)
        for format_ in (origins[job.seed].get("format") if f == "auto" else f for f in worker.e.export):
            path = directory / f"weights.{format_}"
            if format_ and _older(path, directory / "checkpoints"):
                variables, _ = worker.load(directory, "last" if job.kind == "unlearn" else "best")
                classifier = _classifier(worker, variables, origins[job.seed])
                forgotten = [classifier.class_names[c] for c in job.forget]
                written.append(save(classifier, path, header={"job": str(job), "forgotten": json.dumps(forgotten)}))
    return written


def _origin(worker, seed):
    """What was noted about the original of a trial."""
    place = worker.original_directory(seed)
    return (
        worker.load(place, "best")[1] if any(step.name.isdigit() for step in (place / "checkpoints").glob("*")) else {}
    )


def _classifier(worker: Worker, variables, original: dict) -> Classifier:
    """With names for its tensors like the file's that the original came from."""
    data, e = worker.data, worker.e.data
    settings = {"image_shape": data.image_shape, "mean": e.mean, "std": e.std, "class_names": data.class_names}
    origin = {"naming": original["naming"]} if original.get("naming") else {}
    return Classifier(worker.classifier, variables, **settings, origin=origin)


def _older(path: Path, checkpoints: Path) -> bool:
    """Whether there is a checkpoint, and no file that was written after it; checkpoints may have been removed."""
    steps = [step.stat().st_mtime for step in checkpoints.glob("*") if step.name.isdigit()]
    return bool(steps) and not (path.exists() and path.stat().st_mtime >= max(steps))
