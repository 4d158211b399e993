"""Classes, channels and width of a classifier in a file, held against those that the configuration asks for."""

from collections.abc import Callable, Mapping

import numpy as np
from flax.traverse_util import flatten_dict

from ispf_jax.interop.names import Naming, Unlike


def check_sizes(naming: Naming, tensors: Mapping[str, np.ndarray], shapes_at: Callable[[float], dict], width: float):
    """Raises Unlike, with the key of the configuration to change, if sizes differ; other shapes are `to_flax`'s to check.

    Args:
      shapes_at: variables, or their shapes, by the network's width.
    """
    weights = {path: tensors[f"{naming.prefix}{module}.weight"] for module, path in naming.modules.items()}
    first = next(iter(weights))
    if weights[first].ndim != 4 or weights["classifier"].ndim != 2:
        return
    params = shapes_at(width)["params"]
    (filters, channels), outputs = weights[first].shape[:2], len(weights["classifier"])
    wanted, classes = params[first]["kernel"].shape, params["classifier"]["bias"].shape[0]
    if outputs != classes:
        raise Unlike(f"{outputs} classes and the images of config.data have {classes}; they must be the same, in the same order (without images: set config.data.classes={outputs}).")
    if channels != wanted[2]:
        raise Unlike(f"a network for {channels} channel(s) and the images have {wanted[2]}; set config.data.channels={channels}.")
    if filters != wanted[3]:
        fitting = _fitting_width(weights, shapes_at(1.0)["params"])
        advice = f"set config.model.width={fitting:g}." if fitting else "no config.model.width gives the filters of all its layers."
        raise Unlike(f"{filters} filters in its first layer, which config.model.width={width} makes {wanted[3]}; {advice}")


def _fitting_width(weights, full):
    """The width that makes the filters of every convolution, where they were rounded one with few digits; None if there is none."""
    whole = {path: kernel.shape[-1] for path, kernel in flatten_dict(full, sep="/").items() if len(kernel.shape) == 4}
    pairs = [(len(weights[path.removesuffix("/kernel")]), filters) for path, filters in whole.items()]
    exact = {n / filters for n, filters in pairs}
    if len(exact) == 1:
        return exact.pop()
    low, high = max((n - 0.5) / filters for n, filters in pairs), min((n + 0.5) / filters for n, filters in pairs)
    return next((width for digits in range(1, 7) if low < (width := float(f"{(low + high) / 2:.{digits}g}")) < high), None)
