"""The only place that knows about devices: one device with `jit`, several with `pmap`.

Step functions are written once, against an optional axis name. On one device the axis is None and every helper below is the
identity; on several, each device holds its share of the batch and the helpers make sums, counts and noise global, so that a
run gives the same numbers to rounding on any number of devices.

The one spelling of a gradient that is right with and without an axis (`value_and_global_grad`): every device differentiates
its own share of a loss that is normalised by *global* counts, and the gradients are summed. Terms that every device computes
in full from global statistics enter as a share of 1/n (`replicated_share`).
"""

import time
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ispf_jax.errors import UserError

AXIS = "devices"


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


class Program:
    """A function that is compiled once, for the shapes of its first arguments; other shapes are an error, never a new compilation."""

    def __init__(self, function):
        self._function = function
        self._compiled = None

    def prepare(self, *args) -> float:
        """Compile for arguments like these, if that has not been done; returns the seconds it took (0 if it had been)."""
        if self._compiled is not None:
            return 0.0
        began = time.perf_counter()
        self._compiled = self._function.lower(*args).compile()
        return time.perf_counter() - began

    def __call__(self, *args):
        self.prepare(*args)
        return self._compiled(*args)


@dataclass(frozen=True)
class Devices:
    """The devices one run is spread over."""

    devices: tuple

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def axis(self) -> str | None:
        return AXIS if self.count > 1 else None

    def replicate(self, tree):
        """Arrays of a pytree on every device, so that programs and evaluators can use them without further copies."""
        if self.axis is None:
            return jax.tree.map(jnp.asarray, tree)
        mesh = jax.sharding.Mesh(np.array(self.devices), (self.axis,))
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def compile(self, fn, donate: int = 0):
        """A program for `fn(*args, axis=...)`: `jit` on one device, `pmap` over several.

        Every argument is replicated; what a device does with its own share follows from `axis`. Outputs must be the same on
        all devices.

        Args:
          donate: number of leading arguments whose buffers the program may reuse for its outputs.
        """
        if self.axis is None:
            return Program(jax.jit(partial(fn, axis=None), donate_argnums=tuple(range(donate))))

        def body(_, donated, kept):
            return fn(*donated, *kept, axis=self.axis)

        # pmap wants one mapped argument, even where nothing but the axis index tells devices apart.
        spread = jax.pmap(
            body, axis_name=self.axis, in_axes=(0, None, None), out_axes=None, devices=self.devices, donate_argnums=1
        )
        return _Spread(Program(spread), self.count, donate)

    def check_batch(self, key: str, batch_size: int):
        """Raise a UserError unless a global batch splits evenly over the devices."""
        if batch_size % self.count:
            raise UserError(
                f"{key}={batch_size} does not divide evenly over {self.count} devices; "
                f"use a multiple of {self.count} or set --config.devices to a divisor of {batch_size}."
            )


class _Spread:
    """A program of `pmap`, called like one of `jit`."""

    def __init__(self, program, count, donate):
        self._program, self._count, self._donate = program, count, donate

    def _arguments(self, args):
        return jnp.arange(self._count), args[: self._donate], args[self._donate :]

    def prepare(self, *args) -> float:
        return self._program.prepare(*self._arguments(args))

    def __call__(self, *args):
        return self._program(*self._arguments(args))


def local_devices(count: int) -> Devices:
    """The first `count` local devices, all of them for 0; UserError when there are not that many."""
    found = jax.local_devices()
    if not 0 <= count <= len(found):
        raise UserError(f"config.devices={count}, but this machine has {len(found)} ({found[0].platform}); use 0 for all.")
    return Devices(tuple(found[: count or len(found)]))
