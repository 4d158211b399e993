"""What every measurement checks before it computes.

An audit of a broken model must not print a number that looks like a measurement. Each check raises a `UserError` whose sentence
names the input, what was found and what to do; where a degenerate input has a *defined* value, the docstring says which.
"""

import numpy as np

from ispf_jax.errors import UserError


def finite(what: str, values) -> np.ndarray:
    """The values as a float64 array; UserError if there are none, or any is NaN or infinite."""
    values = np.asarray(values, np.float64)
    if values.size == 0:
        raise UserError(f"There are no {what}; this measurement needs at least one.")
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise UserError(
            f"{bad} of {values.size} values of {what} are NaN or infinite; the model has diverged (or a logit was masked with "
            "-inf: use a finite number), so nothing is measured on it."
        )
    return values


def matrix(what: str, values) -> np.ndarray:
    """`finite`, and two-dimensional: [examples, features]."""
    values = finite(what, values)
    if values.ndim != 2:
        raise UserError(f"{what} have shape {values.shape}; two dimensions [examples, values] are expected.")
    return values


def logits(what: str, values) -> np.ndarray:
    """Logits [N, C] as float64; UserError unless finite, N >= 1 and C >= 2."""
    values = matrix(what, values)
    if values.shape[1] < 2:
        raise UserError(
            f"{what} have {values.shape[1]} class; with fewer than two there is nothing to forget or to measure."
        )
    return values


def labels(what: str, values, num_classes: int | None = None) -> np.ndarray:
    """Class labels [N] as int64; UserError unless there are any, all integers, within 0..num_classes - 1 if that is given."""
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise UserError(f"{what} have shape {values.shape}; a non-empty list of class numbers is expected.")
    if not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"{what} are of type {values.dtype}; integers are expected.")
    if values.min() < 0 or (num_classes is not None and values.max() >= num_classes):
        allowed = "0 or more" if num_classes is None else f"in 0..{num_classes - 1}"
        raise UserError(f"{what} lie in {values.min()}..{values.max()}; class numbers must be {allowed}.")
    return values.astype(np.int64)


def same_length(**named):
    """UserError unless all arrays have as many rows; the keywords name them in the sentence."""
    lengths = {name.replace("_", " "): len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"These must have the same length: {found}.")


def forget_mask(values) -> np.ndarray:
    """Mask over classes as bool [C]; UserError unless at least one class is forgotten and at least one retained."""
    mask = np.asarray(values).astype(bool)
    if mask.ndim != 1 or not mask.any() or mask.all():
        raise UserError(
            f"The forget mask selects {np.count_nonzero(mask)} of {mask.size} classes; at least one class must be forgotten and at "
            "least one retained."
        )
    return mask


def forgotten_rows(what: str, values, mask) -> np.ndarray:
    """Bool [N], True where the label is a forgotten class; UserError if that is nowhere."""
    mask = forget_mask(mask)
    rows = mask[labels(f"the labels of the {what}", values, mask.size)]
    if not rows.any():
        classes = ", ".join(map(str, np.flatnonzero(mask)))
        raise UserError(
            f"None of the {rows.size} {what} belongs to a forgotten class ({classes}); nothing can be measured."
        )
    return rows


def several_classes(what: str, values):
    """UserError unless the labels hold at least two classes."""
    found = np.unique(values)
    if found.size < 2:
        raise UserError(
            f"The {what} hold only class {', '.join(map(str, found))}; a classifier needs at least two classes."
        )


def two_sides(what: str, truth) -> np.ndarray:
    """Truth [N] as bool; UserError unless both values occur."""
    truth = np.asarray(truth).astype(bool)
    if truth.ndim != 1 or truth.all() or not truth.any():
        raise UserError(
            f"The {what} hold {np.count_nonzero(truth)} positive of {truth.size} examples; both kinds are needed."
        )
    return truth
