"""The only place that knows about devices and processes: one device with `jit`, several, also of several processes, with `pmap`.

Step functions are written once, against an optional axis name. On one device the axis is None and every helper below is the
identity; on several, each device holds its share of the batch and the helpers make sums, counts and noise global, so that a
run gives the same numbers to rounding on any number of devices.

The one spelling of a gradient that is right with and without an axis (`value_and_global_grad`): every device differentiates
its own share of a loss that is normalised by *global* counts, and the gradients are summed. Terms that every device computes
in full from global statistics enter as a share of 1/n (`replicated_share`).
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
from jax import lax
from jax.experimental import multihost_utils

from ispf_jax.errors import UserError
from ispf_jax.ops import compiler_options, describe

AXIS = "devices"
_PATIENCE = 7 * 24 * 3600  # seconds that processes wait at the end for the first one, which audits and reports


def psum(tree, axis):
    """Sum over the devices of `axis`; the identity when `axis` is None."""
    return tree if axis is None else lax.psum(tree, axis)


def replicated_share(value, axis):
    """One device's share of a scalar that all devices compute alike."""
    return value if axis is None else value / lax.axis_size(axis)


def local_slice(x, axis):
    """This device's rows of an array [global_batch, ...] that all devices hold."""
    if axis is None:
        return x
    size = x.shape[0] // lax.axis_size(axis)
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis) * size, size)


def value_and_global_grad(loss_share, params, axis):
    """Loss, auxiliary outputs and gradient of a loss that is the sum of the devices' shares.

    Args:
      loss_share: params -> (this device's share of the loss, aux); shares are normalised by global counts.
      params: replicated pytree.
    Returns:
      ((loss, aux), gradient): loss and gradient are global; aux is left as the device computed it.
    """
    if axis is not None:
        params = jax.tree.map(lambda p: lax.pcast(p, axis, to="varying"), params)
    (loss, aux), grads = jax.value_and_grad(loss_share, has_aux=True)(params)
    return (psum(loss, axis), aux), psum(grads, axis)


_EXECUTABLES: dict = {}
"""What has been compiled in this process: by function, setup, devices, convolutions and shapes of the arguments."""


class Program:
    """A function compiled for the shapes of its first arguments; other shapes are an error, never a new compilation.

    Programs with the same `key` (hashable) share what has been compiled, so that a sweep compiles every step once.
    """

    def __init__(self, function, key=None):
        self._function, self._key = function, key
        self._compiled = None

    def prepare(self, *args) -> float:
        """Compile for arguments like these, if that has not been done; returns the seconds it took (0 if it had been)."""
        if self._compiled is not None:
            return 0.0
        leaves, structure = jax.tree.flatten(args)
        key = (self._key or self, describe(), structure, *((np.shape(leaf), jnp.asarray(leaf).dtype) for leaf in leaves))
        began = time.perf_counter()
        if key not in _EXECUTABLES:
            _EXECUTABLES[key] = self._function.lower(*args).compile(compiler_options())
        self._compiled = _EXECUTABLES[key]
        return time.perf_counter() - began

    def __call__(self, *args):
        self.prepare(*args)
        return self._compiled(*args)


@dataclass(frozen=True)
class Devices:
    """The devices one run is spread over, those of other processes included."""

    devices: tuple

    @property
    def count(self) -> int:
        return len(self.devices)

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
        """Arrays of a pytree on every local device, so that programs and evaluators can use them without further copies."""
        if len(self.local) == 1:
            return jax.device_put(tree, self.local[0])
        mesh = jax.sharding.Mesh(np.array(self.local), (AXIS,))
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def compile(self, fn, setup, donate: int = 0):
        """A program for `fn(setup, *args, axis=...)`: `jit` on one device, `pmap` over several.

        Every argument is replicated; what a device does with its own share follows from `axis`. Outputs must be the same on
        all devices. Programs of the same function with equal setups share what is compiled.

        Args:
          setup: hashable; what is compiled in.
          donate: number of leading arguments whose buffers the program may reuse for its outputs.
        """
        key = (fn, setup, self, donate)
        if self.axis is None:
            return Program(jax.jit(partial(fn, setup, axis=None), donate_argnums=tuple(range(donate))), key)

        def body(_, donated, kept):
            return fn(setup, *donated, *kept, axis=self.axis)

        # pmap wants one mapped argument, even where nothing but the axis index tells devices apart.
        spread = jax.pmap(
            body, axis_name=self.axis, in_axes=(0, None, None), out_axes=None, devices=self.devices, donate_argnums=1
        )
        return _Spread(spread if self.crew else Program(spread, key), len(self.local), donate)

    def check_batch(self, key: str, batch_size: int):
        """Raise a UserError unless a global batch splits evenly over the devices."""
        if batch_size % self.count:
            raise UserError(
                f"{key}={batch_size} does not divide evenly over {self.count} devices; use a multiple of {self.count}, "
                f"set --config.devices to a divisor of {batch_size}, or give every device jobs of its own with --config.spread=jobs."
            )


class _Spread:
    """A program of `pmap`, called like one of `jit`. In a crew it is compiled by its first call: pmap cannot do that earlier there."""

    def __init__(self, program, count, donate):
        self._program, self._count, self._donate = program, count, donate

    def _arguments(self, args):
        return np.arange(self._count), args[: self._donate], args[self._donate :]

    def prepare(self, *args) -> float:
        return self._program.prepare(*self._arguments(args)) if isinstance(self._program, Program) else 0.0

    def __call__(self, *args):
        return self._program(*self._arguments(args))


def chosen_devices(count: int, spread: str) -> tuple[Devices, ...]:
    """What works on the jobs of this process: one `Devices` with all devices ("batch"), or one per local device ("jobs").

    Args:
      count: how many local devices to use, 0 for all.
    Raises:
      UserError: there are not that many, or not the same number in every process.
    """
    found = jax.local_devices()
    if not 0 <= count <= len(found):
        raise UserError(
            f"config.devices={count}, but this machine has {len(found)} ({found[0].platform}); use 0 for all."
        )
    mine = found[: count or len(found)]
    if spread == "jobs":
        return tuple(Devices((device,)) for device in mine)
    if jax.process_count() == 1:
        return (Devices(tuple(mine)),)
    by_process = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    if len({len(devices) for devices in by_process.values()}) > 1:
        raise UserError("the processes have different numbers of devices; set --config.devices to the smallest.")
    return (Devices(tuple(d for devices in by_process.values() for d in devices[: len(mine)])),)


def join(coordinator: str = "", processes: int = 0, process: int = -1):
    """Make this process one of several (`jax.distributed`); before anything asks for a device.

    Without a coordinator JAX asks the cluster's environment (SLURM, Open MPI, Kubernetes, TPU pods) for all three.

    Args:
      coordinator: "host:port" of process 0.
      processes, process: their number, and which this one is.
    Raises:
      UserError: when the processes do not find each other or the environment says nothing.
    """
    try:
        if coordinator:
            jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=_PATIENCE)
        else:
            jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes ({str(error).splitlines()[0]}); give --coordinator=HOST:PORT --processes=N --process=I to each."
        ) from error


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
