"""Where results come from: hashes of weights, the configuration, and a journal of what every job took."""

import hashlib
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ispf_jax import __version__
from ispf_jax.errors import UserError
from ispf_jax.runtime.guard import read_bounded
from ispf_jax.runtime.layout import CONFIG, JOURNAL
from ispf_jax.runtime.schema import SMALL, Amount, Seed, Setting, fit, read_lines, reason

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A line of the journal: a job that was worked on."""

    stage: Literal["original", "retrain", "unlearn", "shadow", "audit"]
    seconds: Amount
    devices: list[str]
    job: str = ""
    finished: bool = False
    cpu_seconds: Amount | None = None
    ended: str = ""


@dataclass(frozen=True)
class Started:
    """What `config.json` keeps: what a work directory was started with.

    Attributes:
      config: flat ("data.name").
      data_fingerprint: a hash of the images.
    """

    config: dict[str, Setting]
    data_fingerprint: str
    class_names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Asked:
    """What of a configuration the report reads."""

    stages: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    base: list[str] = field(default_factory=list)
    seeds: list[Seed] = field(default_factory=list)
    forget: str = ""


_NOTHING_TO_DO = 0.1
"""Seconds that no training or audit can do with: a job that took less had been finished before, and is not written
down again."""


def weights_digest(variables) -> str:
    """A hash of a network's variables, the same for the same names and bits."""
    import jax  # the report, which needs none of it, reads the journal through this file

    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def made() -> dict[str, str]:
    """When, by which version of the package, by which command and on which machine: what a report says of itself.

    All that changes from one start to the next stands here, and nowhere else in a report.
    """
    return {
        "date (UTC)": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": f"ispf_jax {__version__}, commit {_commit(Path(__file__).resolve().parents[2])}",
        "command": shlex.join(["python", *sys.argv]),
        "machine": f"{platform.platform()}, {_processor()}, {os.cpu_count()} cores",
    }


def _commit(checkout: Path) -> str:
    """The commit of a checkout, with a plus sign where files differ from it."""
    if not (checkout / ".git").exists():
        return "not stated: not a checkout"
    git = ["git", "-C", str(checkout)]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "not stated: git does not answer"
    return commit + " with changes" * bool(changes)


def _processor() -> str:
    """The processor's name."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


@contextmanager
def journalled(workdir: Path, stage: str, job: str, devices: list[str]):
    """Write the wall time of the block, one job of a stage, into the journal of the work directory.

    The time is the whole job's: compilation, training, evaluation and pictures. The entry also has the time of this
    process's processor cores, which other work on the machine does not lengthen (jobs side by side in one process
    lengthen each other's). A job that is interrupted or fails is written down with "finished" false, so times of
    several starts add up; only what ran when a process was killed outright is lost.
    """
    began, busy, finished = time.perf_counter(), time.process_time(), False
    try:
        yield
        finished = True
    finally:
        seconds = time.perf_counter() - began
        if seconds > _NOTHING_TO_DO:
            _append(workdir / JOURNAL, stage, job, seconds, time.process_time() - busy, finished, devices)


def _append(path: Path, stage, job, seconds, busy, finished, devices):
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(stage, round(seconds, 3), devices, job, finished, round(busy, 3), ended)
    line = (json.dumps(asdict(entry)) + "\n").encode()
    try:
        # One write: lines of processes that share the directory do not mix. A pipe in its place is not waited for.
        with open(
            path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o666)
        ) as file:
            file.write(line)
    except OSError as error:  # the job itself is done and saved
        _log.warning("cannot write %s (%s); the time of this job is not in the report", path, error)


def read_journal(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The entries of the journal, as dicts; lines that do not fit are left out and said."""
    return [asdict(entry) for entry in read_lines(Path(workdir) / JOURNAL, lambda value: fit(Entry, value))]


def read_started(workdir: str | os.PathLike) -> Started | None:
    """What a work directory was started with; None if it is new.

    Raises:
      UserError: `config.json` is damaged. It is not set aside: without it results of other settings would be mixed.
    """
    path = Path(workdir) / CONFIG
    if not os.path.lexists(path):
        return None
    try:
        started = fit(Started, json.loads(read_bounded(path, SMALL)))
        fit(_Asked, started.config)
        return started
    except (ValueError, RecursionError) as error:
        advice = (
            "remove it if the configuration is the one that the directory was started with, else use another --workdir"
        )
        raise UserError(f"{path} is damaged ({reason(path, error)}); {advice}.") from error
