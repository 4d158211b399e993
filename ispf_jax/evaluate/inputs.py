"""What every measurement checks before it computes: an audit of a broken model must not print what looks like a
number."""

import numpy as np

from ispf_jax.errors import UserError


def finite(what: str, values, columns: int = 0) -> np.ndarray:
    """The values as a float64 array.

    Args:
      columns: the values must be a matrix [N, C] with at least that many columns; 0: any shape.

    Raises:
      UserError: there are none, any is NaN or infinite, or the shape is another one.
    """
    values = np.asarray(values, np.float64)
    if values.size == 0:
        raise UserError(f"There are no {what}; this measurement needs at least one.")
    if columns and (values.ndim != 2 or values.shape[1] < columns):
        raise UserError(f"{what} have shape {values.shape}; a matrix with {columns} or more columns is expected.")
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise UserError(
            f"{bad} of {values.size} values of {what} are NaN or infinite: the model has diverged (or a logit was masked "
            "with -inf; use a finite number), so nothing is measured on it."
        )
    return values


def labelled(logits, labels) -> tuple[np.ndarray, np.ndarray]:
    """Finite logits [N, C] as float64, and their labels [N]; UserError where these do not fit."""
    logits, labels = finite("the logits", logits, 2), np.asarray(labels)
    same_length(logits=logits, labels=labels)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise UserError(f"The labels {np.unique(labels)} must be class numbers from 0 to {logits.shape[1] - 1}.")
    return logits, labels


def same_length(**named):
    """UserError unless all arrays have as many rows; the keywords name them in the sentence."""
    lengths = {name.replace("_", " "): len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"These must have the same length: {found}.")


def forgotten_rows(what: str, labels, forget_mask) -> np.ndarray:
    """Bool [N], True where the label is of a forgotten class; UserError if that is nowhere."""
    rows = np.asarray(forget_mask).astype(bool)[np.asarray(labels)]
    if not rows.any():
        classes = ", ".join(map(str, np.flatnonzero(forget_mask)))
        raise UserError(
            f"None of the {rows.size} {what} belongs to a forgotten class ({classes}); nothing can be measured."
        )
    return rows


def two_sides(what: str, truth) -> np.ndarray:
    """Truth [N] as bool; UserError unless both values occur."""
    truth = np.asarray(truth).astype(bool)
    if truth.all() or not truth.any():
        raise UserError(f"{np.count_nonzero(truth)} of {truth.size} {what} are positive; both kinds are needed.")
    return truth
