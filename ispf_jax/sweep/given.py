"""The original that was trained elsewhere: read from its file once, and kept like one that was trained here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.config import ModelConfig
from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.runtime.atomic import atomic_write_text
from ispf_jax.runtime.store import Saved, Store
from ispf_jax.training import keep_split

_KEYS = {"path": "model.checkpoint", "network": "model.name", "width": "model.width", "image_shape": "data.channels"}


def check_classifier(model: ModelConfig, classes: int, image_shape: tuple[int, int, int]) -> Classifier:
    """The classifier of `config.model.checkpoint`; UserError if it is not the one that the other keys describe."""
    settings = {"network": model.name, "width": model.width, "dtype": model.dtype}
    try:
        return files.load(model.checkpoint, image_shape=image_shape, classes=classes, **settings)
    except ArgumentError as error:
        key = _KEYS.get(error.argument, f"data.{error.argument}")
        raise ArgumentError(f"config.{key}", error.text) from error


def given_original(
    directory: Path, read: Callable[[], Classifier], template: dict, epochs: int, train_images: int
) -> Saved:
    """The original of a trial, from its checkpoint or else from its file.

    A file does not say which images it was trained on, which membership inference needs: all training images count.

    Args:
      template: variables of its shapes.
      epochs: what others take for the end of its training.
    """
    with Store(directory / "checkpoints") as store:
        nothing = {"epoch": np.int32(epochs)}  # is carried on
        found = store.restore(Saved(nothing, template, template, {}))
        if found is None:
            given = read()
            _same_file(directory.parent / "file.txt", given.origin["digest"])
            keep_split(directory, np.ones(train_images, bool), np.zeros(train_images, bool))
            meta = {
                "epoch": epochs,
                "seconds": 0.0,
                "best_epoch": 0,
                "best_score": None,
                "file": given.origin["digest"],
                "format": given.origin["format"],
                "naming": given.origin["naming"],
            }
            found = Saved(nothing, given.variables, given.variables, meta)
            store.save(epochs, found)
    return found


def _same_file(note: Path, digest: str):
    """All trials of a work directory have one original: a file that changed since the first is refused."""
    if not note.exists():
        atomic_write_text(note, digest + "\n")
    elif note.read_text().strip() != digest:
        raise UserError(
            "config.model.checkpoint names a file whose content has changed since the first trial of this work directory; put the old file back, "
            f"or use another --workdir (its digest is in {note})."
        )
