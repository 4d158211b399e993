"""The only place that knows devices and processes, and the only one that compiles steps.

One device runs a program of `jit`, several, also of several processes, one of `pmap`; a step is written once, against
an optional axis name (`collectives.py`).
"""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ispf_jax import ops
from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.runtime import rendezvous

AXIS = "devices"
_PATIENCE = 7 * 24 * 3600  # seconds that processes wait at the end for the first one, which audits and reports


_EXECUTABLES: dict = {}
"""What has been compiled in this process: by function, setup, devices, convolutions and the shapes of the arguments."""


class Program:
    """A function compiled for the shapes of its first arguments; other shapes are an error, never a new compilation.

    Programs with the same `key` (hashable) share what has been compiled, so that a sweep compiles every step once.

    Args:
      function: from `jax.jit` or `jax.pmap`.
      options: of the compiler.
      arrange: turns the arguments of a call into those of `function`.
    """

    def __init__(self, function, key, options: dict, arrange: Callable = lambda args: args):
        self._function, self._key, self._options, self._arrange = function, key, options, arrange
        self._compiled: Any = None

    def prepare(self, *args) -> float:
        """Compile for arguments like these, if that has not been done; returns the seconds it took."""
        if self._compiled is not None:
            return 0.0
        args = self._arrange(args)
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((np.shape(leaf), jnp.asarray(leaf).dtype) for leaf in leaves)
        key = (self._key, ops.describe(), structure, shapes)
        began = time.perf_counter()
        if key not in _EXECUTABLES:
            _EXECUTABLES[key] = self._function.lower(*args).compile(ops.compiler_options() | self._options)
        self._compiled = _EXECUTABLES[key]
        return time.perf_counter() - began

    def __call__(self, *args):
        self.prepare(*args)
        return self._compiled(*self._arrange(args))


class _CrewProgram:
    """A program of `pmap` over several processes, which only its first call can compile."""

    def __init__(self, function, arrange):
        self._function, self._arrange = function, arrange

    def prepare(self, *args) -> float:
        return 0.0

    def __call__(self, *args):
        return self._function(*self._arrange(args))


@dataclass(frozen=True)
class Devices:
    """The devices one run is spread over, those of other processes included.

    Attributes:
      deterministic: compile for the same bits from run to run on GPUs too, which is slower; CPUs always give them.
    """

    devices: tuple
    deterministic: bool = False

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def processes(self) -> int:
        """How many processes work on one run."""
        return len({device.process_index for device in self.devices})

    @property
    def axis(self) -> str | None:
        return AXIS if self.count > 1 else None

    @property
    def local(self) -> tuple:
        """Those that belong to this process."""
        return tuple(d for d in self.devices if d.process_index == jax.process_index())

    @property
    def crew(self) -> bool:
        """Whether several processes work on one run, step by step together."""
        return len(self.local) < self.count

    @property
    def leads(self) -> bool:
        """Whether this process reads and writes files; in a crew only process 0 does."""
        return not self.crew or jax.process_index() == 0

    def share(self, make: Callable[[], Any]) -> Any:
        """make() of the leading process, for all processes of a crew; what it raises is raised in all.

        Every process of the crew must call this at the same point. The value travels pickled.
        """
        if not self.crew:
            return make()
        return _unpacked(_broadcast(_packed(make) if self.leads else b""))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process of the crew; to be called by all at the same point."""
        return bool(np.any(multihost_utils.process_allgather(np.array(flag)))) if self.crew else flag

    def replicate(self, tree):
        """Arrays of a pytree on every local device, so that programs and evaluators can use them without further
        copies."""
        if len(self.local) == 1:
            return jax.device_put(tree, self.local[0])
        mesh = jax.sharding.Mesh(np.array(self.local), (AXIS,))
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def compile(self, fn, setup, donate: int = 0):
        """A program for `fn(setup, *args, axis=...)`: `jit` on one device, `pmap` over several.

        Every argument is replicated; what a device does with its own share follows from `axis`. Outputs must be the
        same on all devices. Programs of the same function with equal setups share what is compiled.

        Args:
          setup: hashable; what is compiled in.
          donate: number of leading arguments whose buffers the program may reuse for its outputs.
        """
        key = (fn, setup, self, donate)
        if self.axis is None:
            return Program(
                jax.jit(partial(fn, setup, axis=None), donate_argnums=tuple(range(donate))), key, self._options
            )

        def body(_, donated, kept):
            return fn(setup, *donated, *kept, axis=self.axis)

        def arrange(args):  # pmap wants one mapped argument, even where only the axis index differs between devices
            return np.arange(len(self.local)), args[:donate], args[donate:]

        mapped = jax.pmap(
            body, axis_name=self.axis, in_axes=(0, None, None), out_axes=None, devices=self.devices, donate_argnums=1
        )
        return _CrewProgram(mapped, arrange) if self.crew else Program(mapped, key, self._options, arrange)

    @property
    def _options(self):
        """XLA's options for these devices."""
        gpu = self.devices[0].platform in ("gpu", "cuda", "rocm")
        return {"xla_gpu_deterministic_ops": True} if self.deterministic and gpu else {}

    def check_batch(self, batch_size: int):
        """Raise an ArgumentError unless a global batch splits evenly over the devices."""
        if batch_size % self.count:
            raise ArgumentError(
                "batch_size",
                f"={batch_size} does not divide evenly over {self.count} devices; use a multiple of {self.count}, or "
                "fewer devices.",
            )

    def __str__(self) -> str:
        return f"{self.count} x {self.devices[0].device_kind}"


def choose(devices: "Devices | int | None" = None, deterministic: bool = False) -> Devices:
    """The devices for one run: those given, so many of this machine (of each, if several processes share runs), or all.

    Raises:
      ArgumentError: there are not that many, or not the same number in every process.
    """
    if isinstance(devices, Devices):
        return devices
    mine = local_devices(devices or 0)
    if jax.process_count() == 1:
        return Devices(mine, deterministic)
    if deterministic and mine[0].platform != "cpu":
        raise ArgumentError("deterministic", "=True is not possible where several processes share a run on GPUs.")
    by_process: dict[int, list] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    if len({len(found) for found in by_process.values()}) > 1:
        raise ArgumentError("devices", " must be at most the smallest number of devices that any of the processes has.")
    return Devices(tuple(d for found in by_process.values() for d in found[: len(mine)]))


def local_devices(count: int = 0) -> tuple:
    """The first `count` devices of this process, 0 for all; raises ArgumentError if there are not that many."""
    found = jax.local_devices()
    if not isinstance(count, int) or not 0 <= count <= len(found):
        raise ArgumentError(
            "devices", f"={count!r}, but this machine has {len(found)} ({found[0].platform}); 0 is all."
        )
    return tuple(found[: count or len(found)])


def first_process() -> bool:
    """Whether this is the only process, or the first of several that share runs: the one that writes and reports."""
    return jax.process_index() == 0


def join(coordinator: str = "", processes: int = 0, process: int = -1, wait: float = 300.0):
    """Make this process one of several (`jax.distributed`); before anything asks for a device.

    Without a coordinator the cluster's environment (SLURM, Open MPI, Kubernetes, TPU pods) says all three.

    Args:
      coordinator: "host:port" of process 0.
      processes, process: their number, and which this one is.
      wait: seconds to wait for the others.
    Raises:
      UserError: when the processes do not find each other or the environment says nothing.
    """
    who = coordinator or None, processes, process, None
    try:
        if not coordinator:
            from jax._src import clusters

            detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
            who = detect(None, None, None, None, None, int(wait))
        address, count, number, local = who
        if address is None or count is None or number is None:
            raise ValueError("the environment does not say where the others are")
        rendezvous.gather(address, count, number, wait)
        options = {"initialization_timeout": int(wait), "shutdown_timeout_seconds": _PATIENCE}
        jax.distributed.initialize(address, count, number, local, **options)
    except UserError:
        raise
    except (ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        text = "give --coordinator=HOST:PORT --processes=N --process=I to each"
        raise UserError(f"cannot join the other processes ({said}); {text}.") from error


def _packed(make):
    try:
        return pickle.dumps((make(), None))
    except Exception as error:
        return pickle.dumps((None, error))


def _unpacked(packed):
    value, error = pickle.loads(packed)
    if error is not None:
        raise error
    return value


def _broadcast(packed: bytes) -> bytes:
    """Bytes of process 0 in all processes: their number first, since shapes must agree."""
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(packed), np.int32)))
    padded = np.zeros(size, np.uint8)
    padded[: len(packed)] = np.frombuffer(packed, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
