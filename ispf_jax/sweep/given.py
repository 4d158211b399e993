"""The original that was trained elsewhere: read from its file once, and kept like one that was trained here."""

import logging
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError, UserError, few
from ispf_jax.files.card import sha256
from ispf_jax.files.check import normalisations, predict
from ispf_jax.files.ledger import LEDGER, forgotten, read_ledger
from ispf_jax.models import from_layout, layout_of
from ispf_jax.runtime.atomic import atomic_write_json, atomic_write_text
from ispf_jax.runtime.layout import CHECKPOINTS, Job
from ispf_jax.runtime.schema import Word, fit, read_json, read_text
from ispf_jax.runtime.store import Saved, Store, identity
from ispf_jax.settings import joined
from ispf_jax.training import stream_name, trained

log = logging.getLogger(__name__)
_RENAME = "name the classes of the images in that order in config.data.class_names"
_ENOUGH, _SURE, _SAMPLE = 10, 80, 1000  # images that prove an order; percent that need no look; images looked at
_KEYS = {
    "path": "model.checkpoint",
    "network": "model.name",
    "width": "model.width",
    "layout": "model.layout",
    "check": "model.check",
    "image_shape": "data.channels",
}
_NETWORK, _FILES = Path("original") / "network.json", Path("original") / "files.json"


def check_classifier(model, data) -> Classifier:
    """The classifier of `config.model.checkpoint`; UserError if it is not the one that the other keys describe."""
    settings = {"width": model.width, "dtype": model.dtype, "layout": model.fields() or None}
    settings |= {"mean": model.mean, "std": model.std, "weights": model.weights or None, "check": model.example or None}
    settings |= {} if model.name == "auto" else {"network": model.name}
    try:
        found = files.load(model.checkpoint, image_shape=data.image_shape, **settings)
    except ArgumentError as error:
        key = _KEYS.get(error.argument, f"data.{error.argument}")
        raise ArgumentError(f"config.{key}", error.text) from error
    if data.num_classes != found.num_classes:
        text = f"={data.num_classes} must be {found.num_classes}, as many as {model.checkpoint} has, in the "
        text += "same order; of an image folder that lacks some, config.data.class_names names them all."
        raise ArgumentError("config.data.classes", text)
    for name, said in found.origin["said"].items():
        if name == "class_names":
            if data.class_names != said and sorted(data.class_names) == sorted(said):
                advice = _RENAME if len(data.test) else "give config.data.class_names in that order"
                raise UserError(f"{model.checkpoint} says that its classes are {', '.join(said)}; {advice}.")
            continue
        given = getattr(model, name)
        if not np.allclose(given, said, atol=1e-3):
            text = f"={joined(given)} must be {joined(round(n, 6) for n in said)}, as {model.checkpoint} says."
            raise ArgumentError(f"config.data.{name}", text)
    return found


def check_order(given: Classifier, data):
    """Looks at test images, up to 1,000: refuses another order of classes, and warns of other mistakes.

    Raises:
      UserError: another order of classes explains what the classifier says.
    """
    names, total = data.class_names, len(data.test)
    some = data.test.take(np.linspace(0, total - 1, min(total, _SAMPLE)).astype(int))
    counts = confusion_matrix(some.labels, given(some.images).argmax(axis=1), labels=range(len(names)))
    images, right = counts.sum(axis=1), counts.diagonal()
    order = linear_sum_assignment(-counts / np.maximum(images, 1)[:, None])[1]  # true class: output
    moved = np.flatnonzero(order != np.arange(len(order)))
    better, now = counts[moved, order[moved]].sum(), right[moved].sum()
    if len(moved) and images[moved].sum() >= _ENOUGH and 2 * better >= images[moved].sum() and better >= 3 * now:
        likely = ", ".join(names[c] for c in np.argsort(order))
        raise UserError(
            f"the classes of the test images are in another order than those of the classifier: images of "
            f"{few(names[c] for c in moved)} are taken for {few(names[c] for c in order[moved])}. The likely order of "
            f"its outputs is: {likely}; {_RENAME}."
        )
    accuracy = 100 * right.sum() / len(some)
    if accuracy >= _SURE:
        return
    others = {
        name: 100 * np.mean(predict(given, some.images, *pair).argmax(axis=1) == some.labels)
        for name, pair in normalisations(given)
    }
    best = max(others, key=others.__getitem__)
    text = "%.1f %% of the test images are recognised"
    if others[best] > accuracy + 10:
        log.warning(f"{text}, but %.1f %% with mean and std %s", accuracy, others[best], best)
    elif accuracy <= 110 / len(names):
        advice = "compare config.data.mean, config.data.std, the image size and the order of classes with its training"
        log.warning(f"{text}, by chance %.1f %%: {advice}", accuracy, 100 / len(names))


def given_module(model, workdir: Path, data):
    """The module of a given original: as it was found in its file, which a work directory remembers.

    None: there is no file, or the module is one that is built by its name.
    """
    if not model.checkpoint:
        return None
    layout = read_json(workdir / _NETWORK, lambda content: content)
    if layout:
        return from_layout(layout, model.dtype)
    found = check_classifier(model, data).module
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
            given = check_classifier(e.model, data)
            digest = given.origin["digest"]
            _same_file(directory.parent / "file.txt", digest)
            split.save(directory)
            atomic_write_json(worker.workdir / _FILES, _checksums(Path(e.model.checkpoint).expanduser()))
            atomic_write_json(worker.workdir / _NETWORK, layout_of(given.module))
            if given.origin["ledger"]:
                atomic_write_json(directory.parent / LEDGER, list(map(vars, given.origin["ledger"])))
            noted = {"file": digest, "format": given.origin["format"], "naming": given.origin["naming"]}
            meta = {"epoch": e.train.epochs, "seconds": 0.0, "best_epoch": 0, "best_score": None, **noted}
            variables = dict(given.variables)
            found = Saved(nothing, variables, variables, meta)
            store.save(e.train.epochs, found)
    original = trained(worker.network, found, split, data.class_names)
    before = {"forgotten": forgotten(read_ledger(directory.parent))}
    return original.replace(origin=original.origin | before)


def checksums(workdir: Path) -> dict[str, str]:
    """SHA-256 of the files that the given original was read from, by name; empty if it was trained here."""
    return read_json(workdir / _FILES, lambda content: fit(dict[str, Word], content)) or {}


def _checksums(given: Path) -> dict[str, str]:
    found = sorted(given.rglob("*")) if given.is_dir() else [given]
    return {str(path.relative_to(given.parent)): sha256(path) for path in found if path.is_file()}


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
