"""What a run reports while it goes on: progress on the console, metrics as JSON lines, TensorBoard if it is
installed."""

import json
import math
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tqdm.auto
import tqdm.std

from ispf_jax.errors import StorageError
from ispf_jax.runtime.atomic import NON_FINITE, atomic_write_text, ensure_writable, to_plain
from ispf_jax.runtime.console import Quiet
from ispf_jax.runtime.schema import Amount, Misfit, between, fit, read_lines


class _Lines(tqdm.std.tqdm):
    """Progress as plain lines, for files and for several runs at once."""

    def display(self, msg=None, pos=None):
        if self.n != getattr(self, "_shown", None):
            self._shown = self.n
            print(str(self), file=self.fp, flush=True)

    def close(self):
        if not self.disable:
            self.display()
            self.disable = True
            self._decr_instances(self)

    @staticmethod
    def status_printer(file):
        return lambda text: None


_FORMAT = (
    "{desc} | {n_fmt}/{total_fmt}{unit} {percentage:.0f}% | {rate_noinv_fmt} | "
    "{elapsed} elapsed, {remaining} left{postfix}"
)


def progress(
    title: str, total: int, done: int = 0, *, show: bool | str = True, every: float = 10.0, unit: str = " steps"
):
    """A tqdm progress of one stage with rate, time left and the last scalars (`set_postfix`); use as a context manager.

    Args:
      done: steps that a checkpoint restored; they do not count in the rate.
      show: True for a moving bar on a terminal or in a notebook and plain lines elsewhere; "lines"; False for nothing.
      every: seconds between two plain lines.
    """
    stream = Quiet(sys.stderr)
    common = {"total": total, "initial": done, "desc": title, "unit": unit, "dynamic_ncols": True}
    if show is True and (_is_terminal(stream) or tqdm.auto.tqdm.__module__ == "tqdm.notebook"):
        return tqdm.auto.tqdm(file=stream, **common)
    return _Lines(
        file=stream,
        disable=not show,
        mininterval=every,
        maxinterval=float("inf"),
        miniters=0,
        smoothing=0.1,
        bar_format=_FORMAT,
        **common,
    )


def _is_terminal(stream) -> bool:
    """Whether a live bar can be drawn; variables such as FORCE_COLOR, set in many CI systems, do not count."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def format_duration(seconds: float) -> str:
    """`0:15`, `1:46`, `51:02:03`: minutes and seconds, with hours in front where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class MetricsLog:
    """One JSON object per line and epoch, without gaps or doubles however often the run was stopped.

    Opening drops every record of an epoch after `keep_epochs`, the epochs that the restored checkpoint contains (0: a
    new run), and a last line that was cut short; the file is replaced atomically. For no epoch to be missing either, an
    epoch's record must be written *before* its checkpoint is saved. `path` None: records are kept in memory only.

    Attributes:
      records: all records so far.
    """

    def __init__(self, path: str | os.PathLike | None, keep_epochs: int = 0):
        self._file, self.records = None, []
        if path is not None:
            path = Path(path)
            ensure_writable(path.parent)
            self.records = [r for r in read_metrics(path) if r["epoch"] <= keep_epochs] if keep_epochs else []
            atomic_write_text(path, "".join(map(_json_line, self.records)))
            self._file = open(path, "a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record (numbers, strings, numpy or JAX scalars and arrays); handed to the system when this
        returns.

        Raises:
          StorageError: it cannot be written.
        """
        self.records.append(record)
        if self._file:
            try:
                self._file.write(_json_line(record))
                self._file.flush()
            except OSError as error:
                message = f"cannot write {self._file.name} ({error.strerror}); free space or make it writable"
                raise StorageError(message) from error

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception) -> None:
        if self._file:
            try:
                self._file.close()
            except OSError:  # `write` has reported what could not be written
                pass


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a `MetricsLog`, non-finite numbers restored; none if there is no file.

    A last line that was cut short is left out. Where other lines are no records, or out of order, the file is set aside
    and written again without them.
    """
    return read_lines(Path(path), _record, _in_order)


def _record(value: Any) -> dict[str, Any]:
    """One epoch: "epoch" from 1, "seconds" if it has them, and numbers or lists of numbers under other names."""
    said = fit(_Epoch, value)
    record = {name: NON_FINITE.get(v, v) if isinstance(v, str) else v for name, v in value.items()}
    for name, item in record.items():
        if not all(type(v) in (int, float) for v in (item if isinstance(item, list) else [item])):
            raise Misfit(name, item, "a number or a list of numbers")
    return record | {"epoch": said.epoch}


@dataclass(frozen=True)
class _Epoch:
    epoch: Annotated[int, between(1, 10**9)]
    seconds: Amount = 0.0


def _in_order(records: list[dict]) -> list[dict]:
    """Those whose epoch is above all before it, and not above the next one's: a wrong number costs itself only."""
    kept: list[dict] = []
    for record, after in zip_longest(records, records[1:], fillvalue={"epoch": math.inf}):
        if (kept[-1]["epoch"] if kept else 0) < record["epoch"] < after["epoch"]:
            kept.append(record)
    return kept


@contextmanager
def tensorboard(directory: Path | None, purge_step: int):
    """A function (step, record) that writes the record's numbers as event files, if tensorboardX is installed.

    Args:
      directory: None: nothing is written.
      purge_step: the first step that this run writes again; TensorBoard hides what an interrupted run wrote from there
        on.
    """
    try:
        import tensorboardX
    except ImportError:
        directory = None
    if directory is None:
        yield lambda step, record: None
        return
    with tensorboardX.SummaryWriter(str(ensure_writable(directory)), purge_step=purge_step) as writer:

        def write(step, record):
            for name, value in record.items():
                if np.ndim(value) == 0 and not isinstance(value, str):
                    writer.add_scalar(name, float(value), step)

        yield write


def _json_line(record: dict[str, Any]) -> str:
    return json.dumps(to_plain(record), allow_nan=False) + "\n"
