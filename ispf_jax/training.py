"""Carrying a stage through its epochs: resume, progress, metrics, checkpoints. The stages differ only in what an epoch is."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ispf_jax import interruption
from ispf_jax.checkpoint import Saved, Store, to_host
from ispf_jax.errors import UserError
from ispf_jax.telemetry import MetricsLog, Progress, open_tensorboard


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


@dataclass(frozen=True)
class Keeping:
    """How often a running task is saved and shown."""

    checkpoint_seconds: float
    progress_seconds: float
    tensorboard: bool


def train(task: Task, state: Any, keeping: Keeping) -> Saved:
    """Run a task from `state`, or from its last checkpoint, to its end; returns the final state, result and selection.

    Metrics are written before the checkpoint that contains their epoch, so that a start after any interruption finds them without
    gaps, and drops those it is going to write again.

    Raises:
      interruption.Interrupted: a signal asked to stop; the epoch it came in is finished and saved.
    """
    fresh = task.variables(state)
    begin = Saved(state, fresh, fresh, {"epoch": 0, "seconds": 0.0, "best_epoch": 0, "best_score": None})
    with Store(task.directory / "checkpoints") as store:
        saved = store.restore(begin) or begin
        done = saved.meta["epoch"]
        if done == task.epochs:
            return saved
        compiled = task.prepare(saved.state)
        if compiled > TELL_COMPILATION:
            print(f"{task.title}: compiled in {compiled:.0f} s, once for all runs like it", file=sys.stderr, flush=True)
        steps = task.steps_per_epoch
        with (
            MetricsLog(task.directory / "metrics.jsonl", keep_epochs=done) as log,
            open_tensorboard(task.directory / "tensorboard", keeping.tensorboard, purge_step=done + 1) as board,
            Progress(task.title, task.epochs * steps, done=done * steps, every=keeping.progress_seconds) as progress,
        ):
            last_save = time.monotonic()
            for epoch in range(done, task.epochs):
                saved, record = _epoch(task, saved, epoch)
                log.write(record)
                board.scalars(epoch + 1, record)
                progress.update((epoch + 1) * steps, **{name: record[name] for name in task.shown if name in record})
                stop = interruption.requested()
                if stop or epoch + 1 == task.epochs or time.monotonic() - last_save >= keeping.checkpoint_seconds:
                    store.save(epoch + 1, saved)
                    last_save = time.monotonic()
                if stop:
                    raise interruption.Interrupted(f"{task.title}: saved after epoch {epoch + 1} of {task.epochs}")
        return saved


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
        raise UserError(
            f"{task.title}: {', '.join(bad)} became {metrics[bad[0]]} in epoch {epoch}; the last good state is kept in "
            f"{task.directory / 'checkpoints'}; lower the learning rate (config.train.lr or config.distill.lr) and use a new --workdir."
        )
