"""Flax's names and layouts of tensors, and PyTorch's for the same.

Flax has filters as [h, w, in, out] and linear layers as [in, out], in a tree with a level for the collection, as in
params/conv1/kernel and batch_stats/bn1/mean; nnx has all in one tree, and may add a level, as in conv1/kernel/value.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from ispf_jax.models.tensors import natural

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
_LEVELS = {"params", "batch_stats", "value", "raw_value"}
_HEAD = r"classifier|head|logits|output"  # of the last layer, which comes early in the alphabet
_OURS = r"(stage\d+_)?block\d+\."
_THEIRS: dict[str, Any] = {
    r"^stage(\d+)_block(\d+)": lambda match: f"layer{match[1]}.{int(match[2]) - 1}",
    r"^block(\d+)": lambda match: f"blocks.{int(match[1]) - 1}",
    **{r"(conv|bn)_stem": r"\g<1>1", r"conv_shortcut": "downsample.0", r"bn_shortcut": "downsample.1"},
    **{r"\.(qkv|out)\.": r".attn.\1.", r"attn\.out": "attn.proj", r"\.mlp(\d)": r".mlp.fc\1"},
    **{"^patches": "patch_embed.proj", "^token": "cls_token", "^positions": "pos_embed"},
}
"""Names of the networks of this package, and the usual ones of PyTorch, by which their layout is read."""

TRAINING = re.compile(r"(opt|sched|lr_|scaler|rng|step$|epoch)", re.IGNORECASE)
"""Beginnings of names of what belongs to training and not to a network."""


def is_flax(names: Collection[str]) -> bool:
    """Whether these are names of Flax: kernels and no weights."""
    leaves = {next((p for p in reversed(re.split("[/.]", name)) if p not in _LEVELS), "") for name in names}
    return "kernel" in leaves and "weight" not in leaves


def grouped(tree: Any) -> dict[str, dict[str, np.ndarray]]:
    """{"params": tensors by path, and likewise for averages of them and for the state of training} of a tree."""
    groups: dict[str, dict[str, np.ndarray]] = {"params": {}}
    for path, value in _leaves(tree, ()):
        average = next((part for part in path if "ema" in part.split("_")), "params")
        group = path[0] if path and TRAINING.match(path[0]) else average
        groups.setdefault(group, {})["/".join(path)] = value
    shared = {path: value for path, value in groups["params"].items() if "batch_stats" in path.split("/")}
    for name, tensors in groups.items():
        if not TRAINING.match(name) and not any("batch_stats" in path.split("/") for path in tensors):
            tensors |= shared
    return {name: tensors for name, tensors in groups.items() if tensors}


def _leaves(tree, path) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if isinstance(tree, np.ndarray):
        yield path, tree
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield from _leaves(value, (*path, str(key)))


def to_torch_names(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors as PyTorch has them, and {name there: name here}."""
    names = {}
    for name in sorted(tensors, key=lambda name: (bool(re.search(_HEAD, name)), natural(name))):
        *parts, leaf = [part for part in re.split("[/.]", name) if part not in _LEVELS and "ema" not in part.split("_")]
        names[".".join([*parts, _LEAVES.get(leaf, leaf)])] = name
    if any(re.match(_OURS, name) for name in names):
        for pattern, theirs in _THEIRS.items():
            names = {re.sub(pattern, theirs, new): name for new, name in names.items()}
    if len(names) < len(tensors):
        raise ValueError("it has two tensors of the same name")
    return {new: _turned(name, tensors[name], (3, 2, 0, 1)) for new, name in names.items()}, names


def to_flax_names(tensors: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The inverse of `to_torch_names`."""
    return {name: np.ascontiguousarray(_turned(name, tensors[new], (2, 3, 1, 0))) for new, name in names.items()}


def _turned(name, value, axes):
    if "kernel" not in re.split("[/.]", name):
        return value
    return value.transpose(axes) if value.ndim == 4 else value.T if value.ndim == 2 else value
