"""Checkpoints with Orbax behind a small store: what a stage needs to go on, and what others need of it.

One directory per stage and job, one step per saved epoch, the last two kept. A step has four items: `state` (everything
training carries), `last` and `best` (network variables alone, so that nobody needs the optimiser to use a network) and
`meta` (JSON). Arrays are saved from and restored to the host, so a checkpoint does not know how many devices wrote it.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime.atomic import ensure_writable

KEPT_STEPS = 2


class Saved(NamedTuple):
    """What a store gives back: see the module's text."""

    state: Any
    last: dict
    best: dict
    meta: dict


class Store:
    """The checkpoints of one stage; use as a context manager."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory).absolute()
        ensure_writable(self.directory)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(KEPT_STEPS),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            # A store belongs to process 0 of its run alone: without this Orbax waits for the others.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="process0"
            )
            if jax.process_count() > 1
            else ocp.options.MultiprocessingOptions(),
            create=jax.process_count()
            == 1,  # the directory is there already, and Orbax refuses to make it for one of several
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._damaged: list[int] = []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def save(self, step: int, saved: Saved):
        """Write a step atomically: it is complete or not there. Steps that `restore` found damaged make room for it."""
        arrays = {name: ocp.args.StandardSave(to_host(getattr(saved, name))) for name in ("state", "last", "best")}
        try:
            while self._damaged:  # Orbax saves nothing that is not newer than what is there
                self._manager.delete(self._damaged.pop())
            self._manager.save(step, args=ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(saved.meta)))
        except (OSError, ValueError) as error:
            raise StorageError(
                f"cannot save checkpoint {step} in {self.directory} ({_first_line(error)}); free space or make it "
                "writable, then start the same command again: it continues from the checkpoint before."
            ) from error

    def restore(self, template: Saved) -> Saved | None:
        """The newest readable step, shaped like `template`; None if there is none at all.

        A damaged step is passed over with a warning, and the one before it is used.

        Raises:
          UserError: if there are steps but none can be read.
        """
        restored = self._newest(
            {name: ocp.args.StandardRestore(to_host(getattr(template, name))) for name in ("state", "last", "best")}
        )
        if restored is None:
            return None
        return Saved(from_host(restored["state"], template.state), restored["last"], restored["best"], restored["meta"])

    def variables(self, which: str, template: dict) -> tuple[dict, dict]:
        """(network variables `last` or `best`, meta) of the newest readable step; UserError if there is none."""
        restored = self._newest({which: ocp.args.StandardRestore(to_host(template))})
        if restored is None:
            raise UserError(f"there is no checkpoint in {self.directory}; run the stage that writes it first.")
        return restored[which], restored["meta"]

    def _newest(self, items):
        steps, damaged = sorted(self._manager.all_steps(), reverse=True), {}
        for step in steps:
            try:
                restored = self._manager.restore(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore()))
            except Exception as error:
                damaged[step] = _first_line(error)
                continue
            for bad, reason in damaged.items():
                logging.warning(
                    "checkpoint %s is damaged (%s); going on from step %s", self.directory / str(bad), reason, step
                )
            self._damaged = list(damaged)
            return restored
        if not steps:
            return None
        raise UserError(
            f"no checkpoint in {self.directory} can be read (steps {', '.join(map(str, steps))}; {damaged[steps[0]]}); "
            "move that directory away and start again: only this stage is repeated."
        )


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
