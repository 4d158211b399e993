"""What a run tells while it goes on: progress on the console, metrics as JSON lines, TensorBoard if it is installed.

In a run of several processes only process 0 writes; the others pass `enabled=False` and every call does nothing.
"""

import collections
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import rich.console
import rich.progress
import rich.table

from ispf_jax.errors import StorageError
from ispf_jax.runtime.atomic import atomic_write_text, ensure_writable, from_plain, to_plain

RATE_WINDOW = 30.0
"""Seconds of the past that the rate and the time left are computed from."""


class Progress:
    """Progress of one stage with rate, time left and the last scalars: a live bar on a terminal, else plain lines.

    Plain lines (also on a terminal without `live`: several bars at once would overwrite each other) come when the stage begins, then at most every `every` seconds, and when it ends::

        unlearn ispf forget 3 seed 0 | 120/1000 steps 12% | 8.3 steps/s | 0:15 elapsed, 1:46 left | loss 0.123 kept 0.98

    The rate is that of the last half minute of this process: steps restored from a checkpoint (`done`) do not count, and
    the time until the first update, which holds the compilation, counts only until there is a second one.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str = "steps",
        done: int = 0,
        enabled: bool = True,
        *,
        every: float = 10.0,
        live: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.title, self.total, self.unit, self.done, self.enabled = title, total, unit, done, enabled
        self._every, self._clock, self._stream = every, clock, stream or sys.stderr
        self._scalars: dict[str, Any] = {}
        self._updates: collections.deque[tuple[float, int]] = collections.deque()  # (time in seconds, steps done)
        self._printed: tuple[float, int] | None = None  # the same of the last plain line
        self._live = live
        self._bar = self._task = None

    def __enter__(self) -> "Progress":
        self._start = (self._clock(), self.done)
        if self.enabled and self._live and _is_terminal(self._stream):
            console = rich.console.Console(file=self._stream)
            whole = rich.table.Column(no_wrap=True, min_width=min(len(self.title), console.width // 2))
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False, table_column=whole),
                *(
                    [rich.progress.BarColumn(20)] if console.width >= 110 else []
                ),  # words say more than a bar of three blocks
                rich.progress.TaskProgressColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("{task.fields[state]}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, state="")
            self._bar.start()
        elif self.enabled:
            self._print()
        return self

    def update(self, done: int, **scalars: Any) -> None:
        """Say that `done` of the total steps are done (restored ones included) and what the metrics are now."""
        now = self._clock()
        self.done, self._scalars = int(done), scalars
        self._updates.append((now, self.done))
        while len(self._updates) > 2 and now - self._updates[0][0] > RATE_WINDOW:
            self._updates.popleft()
        if self._bar:
            state = "  ".join([f"{self.done}/{self.total} {self.unit}", *self._speed(now), _format_scalars(scalars)])
            self._bar.update(self._task, completed=self.done, state=state)
        elif self.enabled and now - self._printed[0] >= self._every:
            self._print()

    def __exit__(self, *exception) -> None:
        if self._bar:
            self._bar.stop()
        elif self.enabled and self._printed[1] != self.done:
            self._print()

    def rate(self) -> float | None:
        """Recent steps per second; None before the first update or while nothing advances."""
        points = list(self._updates) if len(self._updates) > 1 else [self._start, *self._updates]
        (begin, first), (end, last) = points[0], points[-1]
        return (last - first) / (end - begin) if end > begin and last > first else None

    def _speed(self, now: float) -> list[str]:
        """Rate and times in words; `now` in seconds of the clock."""
        rate = self.rate()
        if rate is None:
            return []
        digits = f"{rate:.0f}" if rate >= 100 else f"{rate:.2g}"
        left = format_duration(max(self.total - self.done, 0) / rate)
        elapsed = [] if self._bar else [f"{format_duration(now - self._start[0])} elapsed"]
        return [f"{digits} {self.unit}/s", ", ".join([*elapsed, f"{left} left"])]

    def _print(self) -> None:
        """Print one plain line; a console that went away must not end hours of training."""
        now = self._clock()
        percent = 100 * min(self.done, self.total) // self.total if self.total else 100
        parts = [self.title, f"{self.done}/{self.total} {self.unit} {percent}%", *self._speed(now)]
        parts += ["continued"] if self._printed is None and self.done else []
        parts += [_format_scalars(self._scalars)] if self._scalars else []
        self._printed = (now, self.done)
        try:
            print(" | ".join(parts), file=self._stream, flush=True)
        except OSError:
            self.enabled = False


def format_duration(seconds: float) -> str:
    """`0:15`, `1:46`, `51:02:03`: minutes and seconds, with hours in front where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class MetricsLog:
    """One JSON object per line and epoch, without gaps or doubles however often the run was stopped.

    Opening drops every record of an epoch after `keep_epochs`, the epochs that the restored checkpoint contains (0: a new
    run), and a last line that was cut short; the file is replaced atomically. For no epoch to be missing either, an epoch's
    record must be written *before* its checkpoint is saved.
    """

    def __init__(self, path: str | os.PathLike, keep_epochs: int = 0, enabled: bool = True):
        self._file = None
        if enabled:
            path = Path(path)
            ensure_writable(path.parent)
            kept = (
                [r for r in read_metrics(path) if r.get("epoch", 0) <= keep_epochs]
                if keep_epochs and path.exists()
                else []
            )
            atomic_write_text(path, "".join(map(_json_line, kept)))
            self._file = open(path, "a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record (numbers, strings, numpy or JAX scalars and arrays); handed to the system when this returns.

        Raises StorageError if it cannot be written.
        """
        if self._file:
            try:
                self._file.write(_json_line(record))
                self._file.flush()
            except OSError as error:
                raise StorageError(
                    f"cannot write {self._file.name} ({error.strerror}); free space or make it writable"
                ) from error

    def close(self) -> None:
        if self._file:
            try:
                self._file.close()
            except OSError:  # what could not be written was told by `write`
                pass

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a `MetricsLog`, non-finite numbers restored; lines that are not complete are left out."""
    records = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(from_plain(record))
    return records


class TensorBoard:
    """Scalars and image grids for TensorBoard; without a writer every call does nothing."""

    def __init__(self, writer: Any = None):
        self._writer = writer

    def scalars(self, step: int, values: dict[str, Any]) -> None:
        """Write every single number among `values` (arrays are left out) under its name at `step`."""
        for name, value in values.items() if self._writer else ():
            if np.ndim(value) == 0 and not isinstance(value, str):
                self._writer.add_scalar(name, float(value), step)

    def images(self, step: int, name: str, images: np.ndarray) -> None:
        """Write images, uint8 [N, H, W, C] with C of 1 or 3, as one grid."""
        if self._writer:
            self._writer.add_images(name, np.asarray(images), step, dataformats="NHWC")

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def open_tensorboard(logdir: str | os.PathLike, enabled: bool = True, purge_step: int | None = None) -> TensorBoard:
    """A `TensorBoard` that writes below `logdir` if tensorboardX is installed (extra `tensorboard`), else one that does nothing.

    `purge_step`: the first step that this run writes again; TensorBoard hides what an interrupted run wrote from there on.
    """
    if not enabled:
        return TensorBoard()
    try:
        import tensorboardX
    except ImportError:
        return TensorBoard()
    return TensorBoard(tensorboardX.SummaryWriter(str(ensure_writable(logdir)), purge_step=purge_step))


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(to_plain(record), allow_nan=False) + "\n"


def _format_scalars(scalars: dict[str, Any]) -> str:
    """`loss 0.123 kept 0.98`: three digits are enough to watch a run."""
    return " ".join(
        f"{name} {value if isinstance(value, (str, int)) else f'{float(value):.3g}'}" for name, value in scalars.items()
    )


def _is_terminal(stream: TextIO) -> bool:
    """Whether a live bar can be drawn on `stream`; variables such as FORCE_COLOR, set in many CI systems, do not count."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
