"""The original that was trained elsewhere: read from its file once, and kept like one that was trained here."""

from pathlib import Path

import numpy as np

from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.models import from_layout, layout_of
from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text
from ispf_jax.runtime.layout import CHECKPOINTS, Job
from ispf_jax.runtime.schema import read_json, read_text
from ispf_jax.runtime.store import Saved, Store, identity
from ispf_jax.training import stream_name, trained

_KEYS = {
    "path": "model.checkpoint",
    "network": "model.name",
    "width": "model.width",
    "layout": "model.layout",
    "image_shape": "data.channels",
}
_NETWORK = Path("original") / "network.json"


def check_classifier(model, classes: int, image_shape: tuple[int, int, int]) -> Classifier:
    """The classifier of `config.model.checkpoint`; UserError if it is not the one that the other keys describe."""
    settings = {"width": model.width, "dtype": model.dtype, "layout": model.fields() or None}
    settings |= {} if model.name == "auto" else {"network": model.name}
    try:
        found = files.load(model.checkpoint, image_shape=image_shape, **settings)
    except ArgumentError as error:
        key = _KEYS.get(error.argument, f"data.{error.argument}")
        raise ArgumentError(f"config.{key}", error.text) from error
    if classes != found.num_classes:
        text = f"={classes} must be {found.num_classes}, as many as {model.checkpoint} has, in the same order."
        raise ArgumentError("config.data.classes", text)
    return found


def given_module(model, workdir: Path, data):
    """The module of a given original: as it was found in its file, which a work directory remembers.

    None: there is no file, or the module is one that is built by its name.
    """
    if not model.checkpoint:
        return None
    layout = read_json(workdir / _NETWORK, lambda content: content)
    if layout:
        return from_layout(layout, model.dtype)
    found = check_classifier(model, data.num_classes, data.image_shape).module
    return found if layout_of(found) or model.name == "auto" else None


def given_original(worker, job: Job) -> Classifier:
    """The original of a trial, from its checkpoint or else from its file.

    A file does not say which images it was trained on, which membership inference needs: all training images count.
    """
    e, data, template = worker.e, worker.data, worker.network.zeros()
    directory, split = worker.workdir / job.place, worker.split(job)
    with Store(directory / CHECKPOINTS, identity(stream_name(()), job.seed, worker.network)) as store:
        nothing = {"epoch": np.int32(e.train.epochs)}  # is carried on
        found = store.restore(Saved(nothing, template, template, {}))
        if found is None:
            given = check_classifier(e.model, data.num_classes, data.image_shape)
            digest = given.origin["digest"]
            _same_file(directory.parent / "file.txt", digest)
            split.save(directory)
            atomic_write_json(worker.workdir / _NETWORK, layout_of(given.module))
            noted = {"file": digest, "format": given.origin["format"], "naming": given.origin["naming"]}
            meta = {"epoch": e.train.epochs, "seconds": 0.0, "best_epoch": 0, "best_score": None, **noted}
            variables = dict(given.variables)
            found = Saved(nothing, variables, variables, meta)
            store.save(e.train.epochs, found)
    return trained(worker.network, found, split, data.class_names)


def _same_file(note: Path, digest: str):
    """All trials of a work directory have one original: a file that changed since the first is refused."""
    kept = read_text(note, "[0-9a-f]{16,128}\n?").strip()
    if not kept:
        atomic_write_text(note, digest + "\n")
    elif kept != digest:
        raise UserError(
            "config.model.checkpoint names a file that has changed since the first trial of this work directory; "
            f"put the old file back, or use another --workdir (its digest is in {note})."
        )
