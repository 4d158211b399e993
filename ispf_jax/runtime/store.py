"""Checkpoints with Orbax behind a small store: what a stage needs to go on, and what others need of it.

One directory per stage and job, one step per saved epoch, the last two kept. A step has four items: `state` (everything
training carries), `last` and `best` (network variables alone, so that nobody needs the optimiser to use a network) and
`meta` (JSON). Arrays are saved from and restored to the host, so a checkpoint does not know how many devices wrote it.

A step says what it is (run, seed, network, ...) and holds hashes of its arrays. One that cannot be read, or is not what
is asked for, is set aside, and the one before it is used.
"""

import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime.atomic import ensure_writable
from ispf_jax.runtime.schema import Amount, Count, Finite, Scalar, Setting, fit, set_aside

_log = logging.getLogger(__name__)

KEPT_STEPS = 2
_ITEMS = ("state", "last", "best")
_SPARE = 256 << 20
"""Bytes that a step may have besides its arrays."""


class Saved(NamedTuple):
    """What a store gives back: see the module's text."""

    state: Any
    last: dict
    best: dict
    meta: dict


@dataclass(frozen=True)
class _Meta:
    """What the item `meta` of every step holds.

    Attributes:
      rollbacks, agreement, chosen_epoch, chosen_score: what an unlearning run carries along; see `loop.Task`.
      identity: what the step is; empty in those of early versions.
      digests: hashes of the arrays of the other items.
    """

    epoch: Count
    seconds: Amount
    best_epoch: Count
    best_score: Finite | None
    rollbacks: Count = 0
    agreement: Finite = 0.0
    chosen_epoch: Count = 0
    chosen_score: Finite = 0.0
    identity: dict[str, Scalar] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    file: str = ""
    format: str = ""
    naming: dict[str, Setting | dict[str, Scalar]] = field(default_factory=dict)


def identity(run: str, seed: int, network, **more: str) -> dict[str, Scalar]:
    """What the checkpoints of a run say they are.

    Args:
      run: what the run does, such as "unlearn ispf (dfq) forget 3".
      network: a `classifier.Network`.
    """
    shape = "x".join(map(str, network.image_shape))
    said = f"{network.title}, {network.num_classes} classes, {shape} images"
    return {"run": run, "seed": seed, "network": said, **more}


class Store:
    """The checkpoints of one stage; use as a context manager.

    Args:
      identity: what its steps are; see `identity`. Those that say something else are set aside.
    """

    def __init__(self, directory: str | Path, identity: dict[str, Scalar] | None = None):
        self.directory, self._identity = Path(directory).absolute(), identity or {}
        ensure_writable(self.directory)
        several = jax.process_count() > 1
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(KEPT_STEPS),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            # A store belongs to process 0 of its run alone: without this Orbax waits for the others.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="process0"
            )
            if several
            else ocp.options.MultiprocessingOptions(),
            create=not several,  # the directory is there already, and Orbax refuses to make it for one of several
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def save(self, step: int, saved: Saved):
        """Write a step atomically: it is complete or not there.

        Raises:
          StorageError: it cannot be written.
        """
        host = {name: to_host(getattr(saved, name)) for name in _ITEMS}
        meta = {**saved.meta, "identity": self._identity}
        meta["digests"] = {name: _digest(host[name]) for name in _ITEMS} | {"meta": _digest_of_text(meta)}
        arrays = {name: ocp.args.StandardSave(tree) for name, tree in host.items()}
        try:
            self._manager.save(step, args=ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta)))
        except (OSError, ValueError) as error:
            full = "RESOURCE_EXHAUSTED" in str(error)  # of tensorstore, which says where in a thousand characters
            reason = "No space left on device" if full else _first_line(error)
            raise StorageError(
                f"cannot save checkpoint {step} in {self.directory} ({reason}); free space or make it "
                "writable, then start the same command again: it continues from the checkpoint before."
            ) from error

    def restore(self, template: Saved) -> Saved | None:
        """The newest step that is whole, shaped like `template`; None if there is none."""
        found = self._newest({name: to_host(getattr(template, name)) for name in _ITEMS})
        if found is None:
            return None
        return Saved(from_host(found["state"], template.state), found["last"], found["best"], found["meta"])

    def variables(self, which: str, template: dict) -> tuple[dict, dict]:
        """(network variables `last` or `best`, meta) of the newest step that is whole; UserError if there is none."""
        found = self._newest({which: to_host(template)})
        if found is None:
            raise UserError(f"there is no checkpoint in {self.directory}; run the stage that writes it first.")
        return found[which], found["meta"]

    def _newest(self, templates: dict[str, Any]) -> dict[str, Any] | None:
        """Items and meta of the newest step that is whole; those above it are set aside."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(step, templates)
            except Exception as error:
                if _is_temporary(error):
                    raise UserError(f"{self.directory / str(step)} cannot be read ({_first_line(error)}).") from error
                set_aside(self.directory / str(step), _first_line(error))
                self._manager.reload()
        return None

    def _read(self, step, templates):
        """One step; ValueError, or what Orbax raises, if it is damaged or something else."""
        _check_files(self.directory / str(step), 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(templates)) + _SPARE)
        args = {name: ocp.args.StandardRestore(tree) for name, tree in templates.items()}
        found = dict(self._manager.restore(step, args=ocp.args.Composite(**args, meta=ocp.args.JsonRestore())))
        meta = fit(_Meta, found["meta"])
        if meta.epoch != step or meta.best_epoch > step:
            raise ValueError(f"it says that it is of epoch {meta.epoch}, its best of epoch {meta.best_epoch}")
        for name, wanted in self._identity.items() if meta.identity else ():
            if meta.identity.get(name) != wanted:
                raise ValueError(f"its {name} is {meta.identity.get(name)!r}, not {wanted!r}")
        if self._identity and not meta.identity:
            _log.warning("%s does not say what it is; it is taken for what is asked for", self.directory / str(step))
        said = found.pop("meta")
        digests = {name: _digest(tree) for name, tree in found.items()}
        digests["meta"] = _digest_of_text({name: value for name, value in said.items() if name != "digests"})
        for name, digest in digests.items() if meta.digests else ():
            if meta.digests.get(name) != digest:
                raise ValueError(f"its {name} is not what was saved")
        return found | {"meta": {name: said[name] for name in said if name not in ("identity", "digests")}}


def _check_files(directory: Path, limit: int):
    """Raise a ValueError unless everything in a directory is a regular file, and all are within `limit` bytes."""
    total = 0
    for folder, inner, files in os.walk(directory):
        for name in (*inner, *files):
            found = os.lstat(os.path.join(folder, name))
            if not (stat.S_ISREG(found.st_mode) or (name in inner and stat.S_ISDIR(found.st_mode))):
                raise ValueError(f"{name} is no regular file")
            total += found.st_size
    if total > limit:
        raise ValueError(f"it has {total:,} bytes; at most {limit:,} are read")


def _digest_of_text(meta: dict) -> str:
    return hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=16).hexdigest()


def _is_temporary(error: Exception) -> bool:
    """Whether it says nothing about the files: memory or permission is wanting, a disk is gone."""
    missing = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    if isinstance(error, OSError):
        return not isinstance(error, missing)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _digest(tree) -> str:
    """A hash of the bits, shapes and types of arrays, in the order of the leaves."""
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def to_host(tree):
    """Arrays as numpy, typed random keys as their raw words."""

    def leaf(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        return np.asarray(x)

    return jax.tree.map(leaf, tree)


def from_host(tree, template):
    """The inverse of `to_host`, with keys where `template` has keys."""

    def leaf(x, like):
        if isinstance(like, jax.Array) and jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like))
        return x

    return jax.tree.map(leaf, tree, template)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
