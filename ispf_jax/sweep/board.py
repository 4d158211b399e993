"""Going through jobs: in order on one worker, side by side on several devices and in several processes; a failure costs its own job.

Processes that share a sweep need nothing but its work directory: whoever holds the lock of a job's file does the job, and the
system releases it however a process ends. So processes may join and leave at any time.
"""

import fcntl
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_text, ensure_writable
from ispf_jax.sweep.jobs import Job

POLL = 0.2
"""Seconds between two looks at what the others have done."""


class Board:
    """Which jobs are open, taken, done or failed; one for all workers of a process.

    Args:
      directory: where processes tell each other; None if this one has the jobs to itself.
      finished: whether a job's results are there, which another process may have left.
    """

    def __init__(
        self, jobs: list[Job], directory: Path | None = None, finished: Callable[[Job], bool] = lambda job: False
    ):
        self.jobs, self._finished = jobs, finished
        self._directory = directory and ensure_writable(directory)
        self._began = time.time() - 0.1  # file systems' clocks tick coarsely
        self._open = list(jobs)
        self._failed: dict[Job, str] = {}
        self._done: set[Job] = set()
        self._held: dict[Job, int] = {}
        self._lock = threading.Lock()
        self._needs = {job: [other for other in jobs if job.needs(other)] for job in jobs}

    def take(self) -> Job | None:
        """The next job whose needs are met; waits for one; None when nothing is left to take or a stop was requested meanwhile."""
        while True:
            with self._lock:
                for job in list(self._open):
                    broken = next((n for n in self._needs[job] if n in self._failed), None)
                    if broken and job.kind != "audit":  # an audit looks at whatever there is
                        self._settle(job, f"not run, because {broken} failed")
                    elif all(n in self._done or n in self._failed for n in self._needs[job]) and self._claim(job):
                        self._open.remove(job)
                        return job
                if not self._open:
                    return None
            if interruption.requested():
                return None
            time.sleep(POLL)

    def settle(self, job: Job, error: str = ""):
        """The job is done, or failed with an error."""
        with self._lock:
            if self._directory:
                atomic_write_text(self._file(job, "settled"), error)
            self._settle(job, error)

    def release(self, job: Job):
        """The job was stopped; another process may go on with it."""
        with self._lock:
            os.close(self._held.pop(job)) if job in self._held else None

    def failed(self) -> dict[Job, str]:
        """The failed jobs with their errors, in the order of the jobs."""
        return {job: self._failed[job] for job in self.jobs if job in self._failed}

    def _settle(self, job, error):
        self._open = [other for other in self._open if other != job]
        if error:
            self._failed[job] = error
        else:
            self._done.add(job)
        if job in self._held:
            os.close(self._held.pop(job))

    def _claim(self, job):
        """Take the job if no other process has it or has settled it since this one began."""
        if not self._directory:
            return True
        file = os.open(self._file(job, "lock"), os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._held[job] = file
        settled = self._file(job, "settled")
        if settled.exists() and settled.stat().st_mtime >= self._began:
            self._settle(job, settled.read_text(encoding="utf-8"))
            return False
        if self._finished(job):
            self._settle(job, "")
            return False
        return True

    def _file(self, job, kind):
        return self._directory / f"{'_'.join(job.place.parts)}.{kind}"


def work(board: Board, workers: list) -> dict[Job, str]:
    """Do all jobs of the board with `workers`, one thread each if there are several; returns the failed jobs with their errors.

    A worker has `do(job)`, `must_stop()`, and the `workdir` where a failure's traceback is left.

    Raises:
      StorageError: results cannot be written: nothing goes on.
      interruption.Interrupted: a signal asked to stop; every running job is saved.
    """
    if len(workers) == 1:
        _take_turns(board, workers[0])
    else:
        with ThreadPoolExecutor(len(workers)) as pool:
            turns = [pool.submit(_take_turns, board, worker, threaded=True) for worker in workers]
        errors = [error for turn in turns if (error := turn.exception())]
        if errors:  # what stopped one worker for a reason of its own, before those that were only asked to stop
            raise next((error for error in errors if not isinstance(error, interruption.Interrupted)), errors[0])
    if interruption.requested():
        raise interruption.Interrupted("stopped between two jobs")
    return board.failed()


def _take_turns(board, worker, threaded=False):
    while not worker.must_stop() and (job := board.take()) is not None:
        try:
            worker.do(job)
        except (StorageError, interruption.Interrupted, KeyboardInterrupt) as error:
            board.release(job)
            if threaded and isinstance(error, StorageError):
                interruption.request()
            raise
        except Exception as error:
            text = _explain(error, job, worker)
            print(f"failed: {job}: {text}", file=sys.stderr, flush=True)
            board.settle(job, text)
        else:
            board.settle(job)


def _explain(error, job, worker) -> str:
    """What went wrong in a line; of what is not the user's to put right, the traceback is left beside the job."""
    if isinstance(error, UserError):
        return str(error)
    line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if "RESOURCE_EXHAUSTED" in line or isinstance(error, MemoryError):
        return f"out of memory with {worker.batch_of(job)}; set it to half, or use a smaller config.model.width."
    path = worker.workdir / job.place / "error.txt"
    if worker.leads:
        atomic_write_text(ensure_writable(path.parent) / path.name, "".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {line} (the traceback is in {path})"


def failure_text(failed: dict, total: int) -> str:
    """All failures, one line each."""
    if len(failed) == total == 1:
        return next(iter(failed.values()))
    lines = [f"{job}: {error}" for job, error in failed.items()]
    others = "; the others are done" if len(failed) < total else ""
    return f"{len(failed)} of {total} jobs failed{others}. The same command tries again what failed.\n" + "\n".join(
        lines
    )
