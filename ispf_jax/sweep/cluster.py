"""Jobs as tasks of Ray in processes of this machine, or of the cluster that the variable RAY_ADDRESS names.

All machines must see the work directory under the same path; they exchange nothing but files in it.
"""

import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ispf_jax.errors import ArgumentError, StorageError, UserError
from ispf_jax.runtime import interruption
from ispf_jax.runtime.lock import locked
from ispf_jax.sweep.board import Unforeseen, Worker, attempt, unforeseen
from ispf_jax.sweep.jobs import Job

STORE_BYTES = 80 * 2**20
"""Memory for objects that Ray's processes share: nothing large travels, so about the least that Ray accepts."""


@contextmanager
def connected() -> Iterator[None]:
    """Start Ray on this machine, or join the cluster of RAY_ADDRESS, for the duration of the block.

    Raises:
      ArgumentError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ArgumentError("spread", "='ray' needs the package ray: pip install 'ispf-jax[ray]'.") from None
    local = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    address = os.environ.get("RAY_ADDRESS", "")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address or "local", logging_level="warning", **({} if address else local))
        for number, handler in handlers.items():  # Ray would end the process at once
            signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


class Cluster:
    """An executor for `board.work` while Ray is `connected`.

    Args:
      make_worker: makes the worker of a process, on all devices that the process sees; picklable, such as a
        `functools.partial` of a function of a module.
      workdir: absolute, on a file system that all machines share.
      gpus: GPUs per job; -1: one if the cluster has any.
      cpus: processor cores that a job counts for; 0: one next to a GPU, else two if a machine has them.
    """

    slots = math.inf

    def __init__(self, make_worker: Callable[[], Worker], workdir: Path, gpus: int = -1, cpus: int = 0):
        import ray

        self._ray, self._workdir = ray, workdir
        self._payload = ray.cloudpickle.dumps(make_worker)
        self._needs = {"GPU": int("GPU" in ray.cluster_resources()) if gpus < 0 else gpus}
        most = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
        self._needs["CPU"] = cpus or (1 if self._needs["GPU"] else min(2, most))
        self._task = ray.remote(num_gpus=self._needs["GPU"], num_cpus=self._needs["CPU"], max_retries=0)(_attempt)
        self._refs = []

    @property
    def capacity(self) -> float:
        there = self._ray.cluster_resources()
        return min(there.get(name, 0) // need for name, need in self._needs.items() if need)

    def submit(self, job: Job) -> Future[Exception | None]:
        ref = self._task.remote(self._payload, str(self._workdir), job, os.environ.get("OMP_NUM_THREADS"))
        self._refs.append(ref)
        outcome: Future[Exception | None] = Future()
        ref.future().add_done_callback(lambda future: outcome.set_result(self._outcome(future)))
        return outcome

    def must_stop(self) -> bool:
        return interruption.requested()

    def stop(self) -> None:
        for ref in self._refs:
            self._ray.cancel(ref)  # as SIGINT in the process of a running job

    def _outcome(self, future):
        """What `attempt` returned, or what kept Ray from getting that far."""
        errors, error = self._ray.exceptions, future.exception()
        if error is None:
            return future.result()
        if isinstance(error, errors.TaskCancelledError):
            return interruption.Interrupted("stopped between two jobs")
        if isinstance(error, errors.RayTaskError):
            return Unforeseen(str(error).strip().splitlines()[-1])
        return Unforeseen(f"its process or machine was lost ({type(error).__name__}), often for want of memory")


def _attempt(payload: bytes, workdir: str, job: Job, threads: str | None) -> Exception | None:
    """`attempt` a job with the worker of this process, which Ray started."""
    signal.signal(signal.SIGINT, lambda *_: interruption.request())
    # Ray sets it to the cores the job counts for, but the number of threads may change rounding.
    os.environ.pop("OMP_NUM_THREADS", None) if threads is None else os.environ.update(OMP_NUM_THREADS=threads)
    if not Path(workdir).is_dir():
        return StorageError(
            f"the machine {socket.gethostname()} has no directory {workdir}; the work directory must be on a file "
            "system that all machines of the cluster mount under the same path."
        )
    try:
        with locked(Path(workdir) / job.place):  # a machine that was only thought lost may still be writing
            return attempt(_worker(payload), job)
    except UserError as error:
        return error
    except Exception as error:  # no worker could be made
        return unforeseen(error, job, Path(workdir))


@lru_cache(maxsize=1)
def _worker(payload: bytes) -> Worker:
    import ray

    return ray.cloudpickle.loads(payload)()
