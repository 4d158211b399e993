"""Doing jobs, each after those it needs.

A failure costs its own job and those that need it. After a stop the next start does the rest.
"""

import logging
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from ispf_jax.devices import Devices
from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_text, ensure_writable
from ispf_jax.runtime.telemetry import format_duration
from ispf_jax.sweep.jobs import Job

_log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds between two looks at whether a stop was requested while jobs run elsewhere."""


class Worker(Protocol):
    """Does jobs on a set of devices, with all that they have in common.

    Attributes:
      workdir: where results, and the traceback of a failure, are written.
    """

    workdir: Path
    devices: Devices

    def do(self, job: Job) -> None: ...

    def must_stop(self) -> bool: ...

    def memory_keys(self, job: Job) -> str: ...


class Executor(Protocol):
    """Where jobs are done.

    Attributes:
      slots: how many jobs it accepts at a time.
      capacity: how many of them it runs at a time.
    """

    slots: float

    @property
    def capacity(self) -> float: ...

    def submit(self, job: Job) -> Future[Exception | None]:
        """Start a job; the future holds what `attempt` returns."""
        ...

    def must_stop(self) -> bool:
        """Whether a stop was requested."""
        ...

    def stop(self) -> None:
        """Ask the running jobs to save their state and end."""
        ...


class Unforeseen(Exception):
    """A job failed for a reason that is not the user's to put right; another attempt may succeed."""


def attempt(worker: Worker, job: Job) -> Exception | None:
    """Do a job; returns what prevented it: an `Interrupted`, a `UserError`, an `Unforeseen`, or None."""
    try:
        worker.do(job)
    except (UserError, interruption.Interrupted) as error:
        return error
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            return UserError(f"out of memory with {worker.memory_keys(job)}; set it to half, or use a smaller network.")
        return unforeseen(error, job, worker.workdir if worker.devices.leads else None)
    return None


def unforeseen(error: Exception, job: Job, workdir: Path | None) -> Exception:
    """An `Unforeseen`, with the traceback in the job's directory, or a StorageError if that cannot be written."""
    line = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
    if workdir is None:
        return Unforeseen(line)
    path = workdir / job.place / "error.txt"
    try:
        atomic_write_text(ensure_writable(path.parent) / path.name, "".join(traceback.format_exception(error)))
    except StorageError as storage:
        return storage
    return Unforeseen(f"{line} (the traceback is in {path})")


class Local:
    """An executor in this process: one worker in the calling thread, or several in a thread each."""

    def __init__(self, workers: Sequence[Worker]):
        self.slots = self.capacity = len(workers)
        self._first, self._idle = workers[0], SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._pool = ThreadPoolExecutor(len(workers))

    def submit(self, job: Job) -> Future[Exception | None]:
        if self.slots > 1:
            return self._pool.submit(self._attempt, job)
        future: Future[Exception | None] = Future()
        future.set_result(attempt(self._first, job))
        return future

    def must_stop(self) -> bool:
        return self._first.must_stop()

    def stop(self) -> None:
        if self.slots > 1:  # the calling thread has nothing else running
            interruption.request()

    def _attempt(self, job):
        worker = self._idle.get()
        try:
            return attempt(worker, job)
        finally:
            self._idle.put(worker)


class Board:
    """Which jobs are open, and with what result the others ended."""

    def __init__(self, jobs: Sequence[Job]):
        self.ended: dict[Job, str] = {}
        self._open = list(jobs)
        self._needs = {job: [other for other in jobs if job.needs(other)] for job in jobs}

    def take(self) -> Job | None:
        """The next job that can start, if any. Jobs that need a failed one end here; audits measure what there is."""
        for job in list(self._open):
            broken = next((other for other in self._needs[job] if self.ended.get(other)), None)
            if broken and job.kind != "audit":
                self._open.remove(job)
                self.end(job, f"not run, because {broken} failed")
            elif all(other in self.ended for other in self._needs[job]):
                self._open.remove(job)
                return job
        return None

    def end(self, job: Job, error: str = "") -> None:
        """The job is done, or failed with an error."""
        self.ended[job] = error


def work(jobs: Sequence[Job], executor: Executor, retries: int = 0) -> dict[Job, str]:
    """Do all jobs; returns the failed ones with their errors, in the order of the jobs.

    Args:
      jobs: each after those it needs.
      retries: how often a job that failed with an `Unforeseen` is tried again.

    Raises:
      StorageError: results cannot be written, so nothing goes on.
      interruption.Interrupted: a stop was requested; every running job has saved its state.
    """
    board, running, tries = Board(jobs), dict[Future, Job](), Counter()
    stops: list[Exception] = []
    began = time.monotonic()
    while True:
        if not stops and executor.must_stop():
            stops.append(interruption.Interrupted("stopped between two jobs"))
            executor.stop()
        while not stops and len(running) < executor.slots and (job := board.take()):
            running[executor.submit(job)] = job
        if not running:
            break
        for future in wait(running, POLL, FIRST_COMPLETED).done:
            job = running.pop(future)
            error = future.exception() or future.result()
            if isinstance(error, StorageError | interruption.Interrupted):
                stops.append(error)
                executor.stop()
            elif isinstance(error, Unforeseen) and tries[job] < retries and not stops:
                tries[job] += 1
                _log.warning("%s: %s; trying again (%d of %d)", job, error, tries[job], retries)
                running[executor.submit(job)] = job
            else:
                board.end(job, "" if error is None else str(error))
                _report(job, error, board, len(jobs), min(len(running), executor.capacity), time.monotonic() - began)
    if stops:  # why the others were asked to stop comes first
        raise next((error for error in stops if isinstance(error, StorageError)), stops[-1])
    return {job: board.ended[job] for job in jobs if board.ended[job]}


def _report(job, error, board, total, running, seconds):
    """One line on a job that ended, with the time left at the pace so far."""
    if error:
        _log.warning("failed: %s: %s", job, error)
    done = len(board.ended)
    if running or done < total:
        left = format_duration(seconds / done * (total - done))
        _log.info("%s: %d of %d jobs done, %d running, about %s left", job, done, total, running, left)


def failure_text(failed: dict[str, str], total: int) -> str:
    """All failures, one line each."""
    if len(failed) == total == 1:
        return next(iter(failed.values()))
    others = "; the others are done" if len(failed) < total else ""
    lines = (f"{job}: {error}" for job, error in failed.items())
    return f"{len(failed)} of {total} jobs failed{others}. The same command tries again what failed.\n" + "\n".join(
        lines
    )
