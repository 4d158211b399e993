"""Classes, channels and width of a classifier in a file, held against those that the configuration asks for."""

from collections.abc import Callable, Mapping

import numpy as np
from flax.traverse_util import flatten_dict

from ispf_jax.files.names import Naming, Unlike


def check_sizes(naming: Naming, tensors: Mapping[str, np.ndarray], shapes_at: Callable[[float], dict], width: float):
    """Raises Unlike, with the key of the configuration to change, if sizes differ; other shapes are `to_flax`'s to check.

    Args:
      shapes_at: variables, or their shapes, by the network's width.
    """
    params, full = shapes_at(width)["params"], _filters(shapes_at(1.0)["params"])
    weights = {
        path: tensors[f"{naming.prefix}{module}.weight"]
        for module, path in naming.modules.items()
        if path in full or path == "classifier"
    }
    if set(weights) != {*full, "classifier"} or any(
        np.ndim(weight) != (2 if path == "classifier" else 4) for path, weight in weights.items()
    ):
        return
    first = next(iter(weights))
    wanted, filters = _filters(params), {path: len(weights[path]) for path in full}
    outputs, classes = len(weights["classifier"]), params["classifier"]["bias"].shape[0]
    channels, images = weights[first].shape[1], flatten_dict(params, sep="/")[f"{first}/kernel"].shape[2]
    if outputs != classes:
        raise Unlike(
            f"{outputs} classes and the images of config.data have {classes}; they must be the same, in the same order (without images: set config.data.classes={outputs})."
        )
    if channels != images:
        raise Unlike(
            f"a network for {channels} channel(s) and the images have {images}; set config.data.channels={channels}."
        )
    other = next((path for path in full if filters[path] != wanted[path]), None)
    fitting = other and _fitting_width(filters, full)
    if fitting or other == first:
        advice = (
            f"set config.model.width={fitting:g}."
            if fitting
            else "no config.model.width gives the filters of all its layers."
        )
        raise Unlike(
            f"{filters[other]} filters in {other}, of which config.model.width={width} makes {wanted[other]}; {advice}"
        )


def _filters(params):
    """{path of a convolution: number of its filters}."""
    return {
        path.removesuffix("/kernel"): kernel.shape[-1]
        for path, kernel in flatten_dict(params, sep="/").items()
        if len(kernel.shape) == 4
    }


def _fitting_width(filters, full):
    """The width that makes so many filters of the `full` ones, where they were rounded one with few digits; None if there is none."""
    exact = {filters[path] / full[path] for path in full}
    if len(exact) == 1:
        return exact.pop()
    low = max(
        (filters[path] - 0.5) / full[path] if filters[path] > 1 else 0 for path in full
    )  # a network has at least one
    high = min((filters[path] + 0.5) / full[path] for path in full)
    return next(
        (width for digits in range(1, 7) if low < (width := float(f"{(low + high) / 2:.{digits}g}")) < high), None
    )
