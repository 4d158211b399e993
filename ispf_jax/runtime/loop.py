"""Carrying a stage through its epochs: resume, progress, metrics, checkpoints. The stages differ only in what an epoch is."""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ispf_jax.devices import Devices
from ispf_jax.errors import UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.store import Saved, Store, from_host, to_host
from ispf_jax.runtime.telemetry import MetricsLog, Progress, open_tensorboard

TELL_COMPILATION = 1.0
"""Seconds of compilation above which the console is told where the time went."""


@dataclass(frozen=True)
class Task:
    """One stage of one job.

    Attributes:
      directory: where its checkpoints (`checkpoints/`) and metrics (`metrics.jsonl`) go.
      epochs: epochs in all.
      steps_per_epoch: what progress is counted in.
      prepare: called with the first state if there is an epoch left to run: compiles, so that the timing is free of it; returns
        the seconds it took.
      run_epoch: (state, epoch from 0) -> (state, metrics of the epoch as a flat dict); the only part that is timed.
      variables: state -> the network variables that are the result.
      score: (variables, epochs done) -> (metrics, score or None), called after every epoch, outside the timing; the highest
        score (the first, if equal) makes `best`. None: nothing is selected.
      shown: names of metrics that the progress line shows.
      warn: (record of an epoch) -> {kind: sentence}, what the user should know at once; every kind is told when it first appears.
    """

    title: str
    directory: Path
    epochs: int
    steps_per_epoch: int
    prepare: Callable[[Any], float]
    run_epoch: Callable[[Any, int], tuple[Any, dict]]
    variables: Callable[[Any], dict]
    score: Callable[[dict, int], tuple[dict, float | None]] | None
    shown: tuple[str, ...]
    warn: Callable[[dict], dict[str, str]] = lambda record: {}


@dataclass(frozen=True)
class Keeping:
    """How often a running task is saved and shown; `live`: as a bar that moves, where the console is a terminal."""

    checkpoint_seconds: float
    progress_seconds: float
    tensorboard: bool
    live: bool = True


def train(task: Task, state: Any, keeping: Keeping, devices: Devices) -> Saved:
    """Run a task from `state`, or from its last checkpoint, to its end; returns the final state, result and selection.

    Metrics are written before the checkpoint that contains their epoch, so that a start after any interruption finds them without
    gaps, and drops those it is going to write again.

    Raises:
      interruption.Interrupted: a signal asked to stop; the epoch it came in is finished and saved.
    """
    fresh = task.variables(state)
    begin = Saved(state, fresh, fresh, {"epoch": 0, "seconds": 0.0, "best_epoch": 0, "best_score": None})
    leads = devices.leads
    with Store(task.directory / "checkpoints") if leads else nullcontext() as store:
        found = devices.share(lambda: _on_host(store.restore(begin)))
        saved = found._replace(state=from_host(found.state, begin.state)) if found else begin
        done = saved.meta["epoch"]
        if done == task.epochs:
            return saved
        if devices.crew:  # each of its arrays once, in place: pmap gives donated arrays away while it moves them
            saved = saved._replace(state=devices.replicate(saved.state))
        compiled = task.prepare(saved.state)
        if compiled > TELL_COMPILATION:
            print(f"{task.title}: compiled in {compiled:.0f} s, once for all runs like it", file=sys.stderr, flush=True)
        steps, told = task.steps_per_epoch, set()
        with (
            MetricsLog(task.directory / "metrics.jsonl", keep_epochs=done, enabled=leads) as log,
            open_tensorboard(
                task.directory / "tensorboard", keeping.tensorboard and leads, purge_step=done + 1
            ) as board,
            Progress(
                task.title,
                task.epochs * steps,
                done=done * steps,
                enabled=leads,
                every=keeping.progress_seconds,
                live=keeping.live,
            ) as progress,
        ):
            last_save = time.monotonic()
            for epoch in range(done, task.epochs):
                saved, record = _epoch(task, saved, epoch)
                devices.share(lambda: log.write(record))
                board.scalars(epoch + 1, record)
                progress.update((epoch + 1) * steps, **{name: record[name] for name in task.shown if name in record})
                for kind, sentence in task.warn(record).items():
                    if leads and kind not in told:
                        told.add(kind)
                        print(f"warning: {task.title}: in epoch {epoch + 1} {sentence}", file=sys.stderr, flush=True)
                stop = devices.any(interruption.requested())
                due = stop or epoch + 1 == task.epochs or time.monotonic() - last_save >= keeping.checkpoint_seconds
                if devices.share(lambda: due):
                    host = saved._replace(state=to_host(saved.state))
                    _check_weights(task, host, epoch + 1)
                    devices.share(lambda: store.save(epoch + 1, host))
                    last_save = time.monotonic()
                if stop:
                    raise interruption.Interrupted(f"{task.title}: saved after epoch {epoch + 1} of {task.epochs}")
        return saved


def _on_host(saved):
    """What can travel between processes: keys as raw words."""
    return saved and saved._replace(state=to_host(saved.state))


def _epoch(task, saved, epoch):
    began = time.perf_counter()
    state, metrics = task.run_epoch(saved.state, epoch)
    metrics = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
    seconds = saved.meta["seconds"] + time.perf_counter() - began
    _check_finite(task, metrics, epoch + 1)

    variables = task.variables(state)
    meta, best = {**saved.meta, "epoch": epoch + 1, "seconds": seconds}, variables
    record = {"epoch": epoch + 1, "seconds": seconds, **metrics}
    if task.score:
        measured, score = task.score(variables, epoch + 1)
        record |= measured
        if score is not None and (meta["best_score"] is None or score > meta["best_score"]):
            meta |= {"best_score": score, "best_epoch": epoch + 1}
            best = to_host(variables)  # the next epoch reuses the device buffers
        elif meta["best_score"] is not None:
            best = saved.best
    return Saved(state, variables, best, meta), record


def _check_finite(task, metrics, epoch):
    bad = [name for name, value in metrics.items() if not np.all(np.isfinite(value))]
    if bad:
        raise _diverged(task, f"{', '.join(bad)} became {metrics[bad[0]]}", epoch)


def _check_weights(task, saved, epoch):
    """What is saved must be good: the last step of an epoch may have spoilt weights that no loss has seen yet."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(saved.state):
        if np.issubdtype(leaf.dtype, np.floating) and not np.all(np.isfinite(leaf)):
            raise _diverged(
                task, f"the weights (state{jax.tree_util.keystr(path)}) became {leaf[~np.isfinite(leaf)][0]}", epoch
            )


def _diverged(task, what, epoch):
    return UserError(
        f"{task.title}: {what} in epoch {epoch}; the last good state is kept in {task.directory / 'checkpoints'}; "
        "lower the learning rate (config.train.lr or config.distill.lr) and use a new --workdir."
    )
