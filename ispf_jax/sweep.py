"""Going through jobs: in order on one worker, side by side on several devices and in several processes; a failure costs its own job.

Processes that share a sweep agree by files: whoever creates a job's file in the board's directory first does the job.
"""

import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ispf_jax import interruption
from ispf_jax.errors import StorageError, UserError
from ispf_jax.files import atomic_write_text, ensure_writable
from ispf_jax.jobs import Job

POLL = 0.2
"""Seconds between two looks at what the others have done."""


class Board:
    """Which jobs are open, taken, done or failed; one for all workers of this process.

    Args:
      directory: shared by all processes of the sweep and new for every run; None if there is one process only.
    """

    def __init__(self, jobs: list[Job], directory: Path | None = None):
        self.jobs, self._directory = jobs, directory
        self._open = list(jobs)
        self._failed: dict[Job, str] = {}
        self._done: set[Job] = set()
        self._mine: set[Job] = set()
        self._lock = threading.Lock()
        self._needs = {job: [other for other in jobs if job.needs(other)] for job in jobs}

    def take(self) -> Job | None:
        """The next job whose needs are met; waits for one; None when nothing is left to take."""
        while not interruption.requested():
            with self._lock:
                self._look()
                for job in list(self._open):
                    broken = next((n for n in self._needs[job] if n in self._failed), None)
                    if broken and job.kind != "audit":  # an audit looks at whatever there is
                        self._settle(job, f"not run, because {broken} failed")
                    elif all(n in self._done or n in self._failed for n in self._needs[job]) and self._claim(job):
                        self._open.remove(job)
                        return job
                if not self._open:
                    return None
            time.sleep(POLL)
        return None

    def settle(self, job: Job, error: str = ""):
        """The job is done, or failed with an error."""
        with self._lock:
            self._settle(job, error)

    def wait(self) -> dict[Job, str]:
        """Wait until all jobs, also those of other processes, are settled (or a stop was requested); the failed ones with their errors."""
        while not interruption.requested():
            with self._lock:
                self._look()
                if len(self._done) + len(self._failed) == len(self.jobs):
                    break
            time.sleep(POLL)
        return {job: self._failed[job] for job in self.jobs if job in self._failed}

    def _settle(self, job, error):
        if job in self._open:
            self._open.remove(job)
        if error:
            self._failed[job] = error
        else:
            self._done.add(job)
        if self._directory:
            atomic_write_text(self._file(job, "settled"), error)

    def _claim(self, job):
        if not self._directory:
            return True
        try:
            os.close(os.open(self._file(job, "taken"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        self._mine.add(job)
        return True

    def _look(self):
        """Take over what other processes have settled."""
        for job in self.jobs if self._directory else ():
            if job not in self._done and job not in self._failed and job not in self._mine:
                path = self._file(job, "settled")
                if path.exists():
                    error = path.read_text(encoding="utf-8")
                    self._open = [other for other in self._open if other != job]
                    if error:
                        self._failed[job] = error
                    else:
                        self._done.add(job)

    def _file(self, job, state):
        return self._directory / f"{'_'.join(job.place.parts)}.{state}"


def work(board: Board, workers: list) -> dict[Job, str]:
    """Do all jobs of the board with `workers`, one thread each if there are several; returns the failed jobs with their errors.

    A worker has `do(job)` and the `workdir` where a failure's traceback is left.

    Raises:
      StorageError: results cannot be written: nothing goes on.
      interruption.Interrupted: a signal asked to stop; every running job is saved.
    """
    if len(workers) == 1:
        _take_turns(board, workers[0])
    else:
        with ThreadPoolExecutor(len(workers)) as pool:
            turns = [pool.submit(_take_turns, board, worker, threaded=True) for worker in workers]
        for turn in turns:
            turn.result()
    failed = board.wait()
    if interruption.requested():
        raise interruption.Interrupted("stopped between two jobs")
    return failed


def _take_turns(board, worker, threaded=False):
    while (job := board.take()) is not None:
        try:
            worker.do(job)
        except StorageError:
            if threaded:
                interruption.request()
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one job must not take the others down
            if isinstance(error, interruption.Interrupted):
                raise
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
    return f"{len(failed)} of {total} jobs failed{others}. The same command tries again what failed.\n" + "\n".join(lines)
