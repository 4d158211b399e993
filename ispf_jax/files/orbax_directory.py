"""Directories of Orbax: a checkpoint of a tree, or of several steps with several items, as work directories have."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from ispf_jax.errors import UserError, few
from ispf_jax.files.flax_names import TRAINING, grouped
from ispf_jax.runtime.guard import read_bounded

SUFFIXES = (".orbax",)
_INDEX, _TREE = 16 << 20, "_METADATA"
_ITEMS = ("default", "params", "model", "best", "last")


def item_in(path: Path) -> Path | None:
    """The directory of the one tree in `path`: itself, an item of it, or of its newest step; None if there is none.

    Raises:
      UserError: there are several networks.
    """
    if (path / _TREE).exists():
        return path
    path = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [step for step in path.iterdir() if step.name.isdecimal() and step.is_dir()]
    path = max(steps, key=lambda step: int(step.name), default=path)
    items = {item.parent.name: item.parent for item in path.glob(f"*/{_TREE}")}
    if not items:
        if inner := sorted({str(found.relative_to(path)) for found in path.glob("*/**/checkpoints")}):
            raise UserError(f"{path} holds checkpoints of several networks; name one of them: {few(inner, 8)}.")
        return None
    usual = [name for name in _ITEMS if name in items]
    if usual[:1] == ["best"] and "last" in items and _is_unlearned(path):
        usual = ["last"]  # which is the result of unlearning
    if not usual and len(items) > 1:
        raise UserError(f"{path} holds several trees; name one of them: {few(sorted(items), 8)}.")
    return items[(usual or list(items))[0]]


def _is_unlearned(step: Path) -> bool:
    text = read_bounded(step / "meta" / "metadata", _INDEX)
    return str(json.loads(text).get("identity", {}).get("run", "")).startswith("unlearn")


def read(item: Path, size: int) -> tuple[dict, dict[str, str]]:
    """Tensors by the groups of `flax_names.grouped`, without the state of training; no header.

    Args:
      size: bytes of the directory; its arrays may declare four times as much.

    Raises:
      Exception: not a whole checkpoint; Orbax raises many kinds.
    """
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(item.absolute()).tree
    wanted = {key: value for key, value in tree.items() if not TRAINING.match(str(key))}
    declared = 0
    for leaf in jax.tree.leaves(wanted):
        if leaf.dtype is not None:
            chunk = leaf.storage.chunk_shape if leaf.storage and leaf.storage.chunk_shape else ()
            declared += max(math.prod(leaf.shape), math.prod(chunk)) * np.dtype(leaf.dtype).itemsize
    if declared > 4 * size + _INDEX:
        raise ValueError(f"it declares arrays of {declared:,} bytes")
    as_arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    restored = ocp.args.PyTreeRestore(wanted, restore_args=as_arrays, partial_restore=True)
    found = handler.restore(item.absolute(), args=restored)
    return grouped(found) | {str(key): {"state": np.zeros(0)} for key in tree if key not in wanted}, {}


def write(path: Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> Path:
    """A directory that `StandardCheckpointer` restores; names have a slash between levels.

    Raises:
      UserError: there is something else at `path`.
    """
    if path.exists() and not (path / _TREE).exists():
        raise UserError(f"{path} is there and is no checkpoint of Orbax; remove it, or use another name.")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), unflatten_dict(dict(tensors), sep="/"), force=True)
    return path
