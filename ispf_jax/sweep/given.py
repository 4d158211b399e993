"""The original that was trained elsewhere: read from its file once, and kept like one that was trained here."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ispf_jax.config import ModelConfig
from ispf_jax.errors import UserError
from ispf_jax.files import Given, Naming, read_classifier
from ispf_jax.models import build_classifier, init_variables
from ispf_jax.runtime.atomic import atomic_write_text
from ispf_jax.runtime.store import Saved, Store
from ispf_jax.training import keep_split


def check_classifier(model: ModelConfig, classes: int, image_shape: tuple[int, int, int]) -> Given:
    """The classifier of `config.model.checkpoint`; UserError if it is not the one that the other keys describe."""

    def shapes_at(width):
        module = build_classifier(model.name, classes, width)
        return jax.eval_shape(partial(init_variables, module, example_shape=(1, *image_shape)), jax.random.key(0))

    return read_classifier(model.checkpoint, model.name, shapes_at, model.width)


def given_original(directory: Path, read: Callable[[], Given], template: dict, epochs: int, train_images: int) -> Saved:
    """The original of a trial, from its checkpoint or else from its file.

    All training images count as those it was trained on, which membership inference needs to know: a file does not tell.

    Args:
      template: variables of its shapes.
      epochs: what others take for the end of its training.
    """
    with Store(directory / "checkpoints") as store:
        nothing = {"epoch": np.int32(epochs)}  # is carried on
        found = store.restore(Saved(nothing, template, template, {}))
        if found is None:
            given = read()
            _same_file(directory.parent / "file.txt", given.digest)
            keep_split(directory, np.ones(train_images, bool), np.zeros(train_images, bool))
            meta = {
                "epoch": epochs,
                "seconds": 0.0,
                "best_epoch": 0,
                "best_score": None,
                "file": given.digest,
                "format": given.format,
                "naming": asdict(given.naming),
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


def naming_of(meta: dict) -> Naming | None:
    """How the file named its tensors that the original with this meta came from; None if it was trained here."""
    naming = meta.get("naming")
    return naming and Naming(naming["modules"], naming["prefix"], tuple(naming["keys"]))
