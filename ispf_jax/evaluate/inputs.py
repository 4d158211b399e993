"""The checks of an audit: what comes from a broken model must not look like a number.

`finite` guards every pass through a network, so the measurements themselves can rely on their inputs.
"""

import numpy as np

from ispf_jax.errors import UserError


def finite(what: str, values) -> np.ndarray:
    """The values as a float64 array; UserError if there are none, or any is NaN or infinite."""
    values = np.asarray(values, np.float64)
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if not values.size:
        raise UserError(f"there are no {what}: nothing can be measured.")
    if bad:
        found = f"{bad} of {values.size} {what} are NaN or infinite"
        raise UserError(f"{found}: the model has diverged, or a logit was masked with -inf, not a finite number.")
    return values
