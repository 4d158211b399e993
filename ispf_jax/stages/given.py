"""The original that was trained elsewhere: read from its file once, and kept like one that was trained here."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ispf_jax.checkpoint import Saved, Store
from ispf_jax.interop import Given, Naming
from ispf_jax.stages.supervised import keep_split


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
            keep_split(directory, np.ones(train_images, bool), np.zeros(train_images, bool))
            given = read()
            meta = {"epoch": epochs, "seconds": 0.0, "best_epoch": 0, "best_score": None, "file": given.digest, "format": given.format, "naming": asdict(given.naming)}
            found = Saved(nothing, given.variables, given.variables, meta)
            store.save(epochs, found)
    return found


def naming_of(meta: dict) -> Naming | None:
    """How the file named its tensors that the original with this meta came from; None if it was trained here."""
    naming = meta.get("naming")
    return naming and Naming(naming["modules"], naming["prefix"], tuple(naming["keys"]))
