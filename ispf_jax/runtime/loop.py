"""Carrying a stage through its epochs: resume, progress, metrics, checkpoints. The stages differ only in what an
epoch is."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ispf_jax import devices as device_room
from ispf_jax.devices import Devices
from ispf_jax.errors import ArgumentError, UserError, short_repr
from ispf_jax.runtime import interruption
from ispf_jax.runtime.layout import CHECKPOINTS, METRICS
from ispf_jax.runtime.store import Saved, Store, from_host, to_host
from ispf_jax.runtime.telemetry import MetricsLog, progress, read_metrics, tensorboard
from ispf_jax.settings import check_path, converted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out, kept and shown; none of it changes what is computed.

    Attributes:
      devices: how many devices of this machine share the run (each gets a part of every batch), 0 or None for all; or a
        `Devices`.
      checkpoints: directory to keep the run in and to continue it from; None: it lives in memory and writes nothing.
      callback: called after every epoch with (Classifier, record of the epoch); what it returns, a dict of numbers or
        None, is added to the record, and the epoch with the highest "score" is kept as the best. Nothing flows back
        into training.
      progress: True for a bar on terminals and in notebooks (elsewhere lines), "lines", or False.
      checkpoint_seconds: time between two checkpoints; a run is saved at its end in any case.
      progress_seconds: time between two lines of progress.
      tensorboard: write event files into `checkpoints`, if tensorboardX is installed.
      evaluation_batch: images per forward pass when a validation split is evaluated.
      title: what progress lines call the run; empty: what it does.
    """

    devices: Devices | int | None = None
    checkpoints: str | PathLike | None = None
    callback: Callable[[Any, dict], dict | None] | None = None
    progress: bool | str = True
    checkpoint_seconds: float = 60.0
    progress_seconds: float = 10.0
    tensorboard: bool = False
    evaluation_batch: int = 500
    title: str = ""

    @classmethod
    def of(cls, options: dict) -> "RunOptions":
        """From keyword arguments; raises ArgumentError for one that does not exist."""
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                advice = "hyper-parameters belong in `config`"
                raise ArgumentError(name, f" is no option of a run; options are {', '.join(names)}; {advice}.")
        return cls(**options)

    def __post_init__(self):
        scalars = {"checkpoint_seconds": float, "progress_seconds": float, "tensorboard": bool, "evaluation_batch": int}
        for name, kind in (scalars | {"title": str}).items():
            converted(kind, name, getattr(self, name))
        if self.progress not in (True, False, "lines"):
            raise ArgumentError("progress", f"={short_repr(self.progress)} must be True, False or 'lines'.")
        if self.callback is not None and not callable(self.callback):
            raise ArgumentError("callback", f"={short_repr(self.callback)} must be a function, or None.")
        if not isinstance(self.checkpoints, (str, PathLike, type(None))):
            raise ArgumentError("checkpoints", f"={short_repr(self.checkpoints)} must be a directory, or None.")
        check_path("checkpoints", str(self.checkpoints or ""))

    @property
    def directory(self) -> Path | None:
        return None if self.checkpoints is None else Path(self.checkpoints).expanduser()

    def chosen(self) -> Devices:
        """The devices; raises ArgumentError if there are not that many."""
        return device_room.choose(self.devices)


@dataclass(frozen=True)
class Task:
    """What is run.

    Attributes:
      epochs: epochs in all.
      steps_per_epoch: what progress is counted in.
      prepare: called with the first state if there is an epoch left to run: compiles, so that the timing is free of it;
        returns the seconds it took.
      run_epoch: (state, epoch from 0, what `Saved.meta` says) -> (state, metrics of the epoch as a flat dict); the only
        part that is timed.
      variables: state -> the network variables that are the result.
      score: (variables, epochs done) -> metrics, called after every epoch, outside the timing; the highest "score"
        among them (the first, if equal) makes `best`.
      shown: names of metrics that the progress line shows.
      warn: (record of an epoch) -> {kind: sentence}, what the user should know at once; each kind is logged when it
        first appears.
      identity: what its checkpoints say they are; see `store.identity`.
      carried: names of metrics that `Saved.meta` takes along.
      chosen_by: the metric whose highest value so far makes the result; empty: the last epoch is the result.
      patience: epochs without a higher value of it after which the run ends; 0: never.
    """

    title: str
    epochs: int
    steps_per_epoch: int
    prepare: Callable[[Any], float]
    run_epoch: Callable[[Any, int, dict], tuple[Any, dict]]
    variables: Callable[[Any], dict]
    score: Callable[[dict, int], dict]
    shown: tuple[str, ...]
    warn: Callable[[dict], dict[str, str]] = lambda record: {}
    identity: Mapping[str, Any] = field(default_factory=dict)
    carried: tuple[str, ...] = ()
    chosen_by: str = ""
    patience: int = 0

    def ended(self, meta: dict) -> bool:
        """Whether nothing is left to run after the epoch that `meta` describes."""
        waited = meta["epoch"] - meta.get("chosen_epoch", meta["epoch"])
        return meta["epoch"] == self.epochs or 0 < self.patience <= waited


def run(task: Task, state: Any, options: RunOptions, devices: Devices) -> tuple[Saved, list[dict]]:
    """Run a task from `state`, or from its last checkpoint, to its end; returns what was saved last and all records.

    Metrics are written before the checkpoint that contains their epoch, so that a start after any interruption finds
    them without gaps, and drops those it is going to write again.

    Raises:
      interruption.Interrupted: a signal asked to stop; the epoch it came in is finished and saved.
    """
    fresh = task.variables(state)
    begin = Saved(state, fresh, fresh, {"epoch": 0, "seconds": 0.0, "best_epoch": 0, "best_score": None})
    directory = options.directory if devices.leads else None
    with Store(directory / CHECKPOINTS, dict(task.identity)) if directory else nullcontext() as store:
        found = devices.share(lambda: _on_host(store.restore(begin)) if store else None)
        saved = found._replace(state=from_host(found.state, begin.state)) if found else begin
        done = saved.meta["epoch"]
        metrics_path = directory and directory / METRICS
        if task.ended(saved.meta):
            return saved, read_metrics(metrics_path) if metrics_path else []
        if devices.crew:  # each of its arrays once, in place: pmap gives donated arrays away while it moves them
            saved = saved._replace(state=devices.replicate(saved.state))
        compiled = task.prepare(saved.state)
        if compiled > 1:
            log.info("%s: compiled in %.0f s, once for all runs like it", task.title, compiled)
        steps = task.steps_per_epoch
        events = directory / "tensorboard" if directory and options.tensorboard else None
        show = devices.leads and options.progress
        with (
            MetricsLog(metrics_path, keep_epochs=done) as metrics,
            tensorboard(events, purge_step=done + 1) as board,
            progress(task.title, task.epochs * steps, done * steps, show=show, every=options.progress_seconds) as bar,
            ExitStack() as unsaved,
        ):
            warned, last_save = set(), time.monotonic()
            for epoch in range(done, task.epochs):
                saved, record = _epoch(task, saved, epoch)
                if epoch == done:  # until now there was nothing to lose
                    unsaved.enter_context(interruption.finishing())
                devices.share(lambda: metrics.write(record))
                board(epoch + 1, record)
                shown = {name: f"{float(record[name]):.3g}" for name in task.shown if name in record}
                bar.set_postfix(shown, refresh=False)
                bar.update(steps)
                for kind, sentence in task.warn(record).items():
                    if devices.leads and kind not in warned:
                        log.warning("%s: in epoch %d %s", task.title, epoch + 1, sentence)
                        warned.add(kind)
                stop = devices.any(interruption.requested())
                ended = task.ended(saved.meta)
                due = stop or ended or time.monotonic() - last_save >= options.checkpoint_seconds
                if devices.share(lambda: due):
                    _keep(task, saved, store, devices)
                    last_save = time.monotonic()
                if ended:
                    break
                if stop:
                    kept = "saved" if store else "stopped"
                    raise interruption.Interrupted(f"{task.title}: {kept} after epoch {epoch + 1} of {task.epochs}")
        return saved, metrics.records


def _keep(task, saved, store, devices):
    """Check the state, and write it where there is a store."""
    host, epoch = saved._replace(state=to_host(saved.state)), saved.meta["epoch"]
    _check_weights(task, host, epoch)
    devices.share(lambda: store and store.save(epoch, host))


def _on_host(saved):
    """What can travel between processes: keys as raw words."""
    return saved and saved._replace(state=to_host(saved.state))


def _epoch(task, saved, epoch):
    began = time.perf_counter()
    state, metrics = task.run_epoch(saved.state, epoch, saved.meta)
    metrics = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
    seconds = saved.meta["seconds"] + time.perf_counter() - began
    _check_finite(task, metrics, epoch + 1)

    result = variables = task.variables(state)
    measured = dict(task.score(variables, epoch + 1))
    score = measured.pop("score", None)
    meta, best = {**saved.meta, "epoch": epoch + 1, "seconds": seconds}, variables
    meta |= {name: metrics[name].item() for name in task.carried}
    if task.chosen_by:
        value = metrics[task.chosen_by].item()
        if value > meta.get("chosen_score", 0.0):
            meta |= {"chosen_score": value, "chosen_epoch": epoch + 1}
            result = to_host(variables)
        elif "chosen_epoch" in meta:
            result = saved.last
    if score is not None and (meta["best_score"] is None or score > meta["best_score"]):
        meta |= {"best_score": score, "best_epoch": epoch + 1}
        best = to_host(variables)  # the next epoch reuses the device buffers
    elif meta["best_score"] is not None:
        best = saved.best
    return Saved(state, result, best, meta), {"epoch": epoch + 1, "seconds": seconds, **metrics, **measured}


def _check_finite(task, metrics, epoch):
    bad = [name for name, value in metrics.items() if not np.all(np.isfinite(value))]
    if bad:
        raise _diverged(task, f"{', '.join(bad)} became {metrics[bad[0]]}", epoch)


def _check_weights(task, saved, epoch):
    """What is saved must be good: the last step of an epoch may have spoilt weights that no loss has seen yet."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(saved.state):
        if np.issubdtype(leaf.dtype, np.floating) and not np.all(np.isfinite(leaf)):
            where = f"state{jax.tree_util.keystr(path)}"
            raise _diverged(task, f"the weights ({where}) became {leaf[~np.isfinite(leaf)][0]}", epoch)


def _diverged(task, what, epoch):
    advice = "lower the learning rate (lr) and start again elsewhere"
    return UserError(f"{task.title}: {what} in epoch {epoch}; the last good checkpoint is kept; {advice}.")
