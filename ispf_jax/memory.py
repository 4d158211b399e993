"""How much memory a run takes at least, from the shapes of its arrays: what cannot be held is refused before it starts.

Counted are weights with their gradients and optimiser states, the outputs of all layers, which a backward pass needs,
and images. Programs hold more at a time, not less.
"""

import contextlib
import math
import os
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import ops
from ispf_jax.classifier import init_variables
from ispf_jax.errors import ArgumentError

_SGD, _ADAM = 3, 4  # weights, gradient and the optimiser's state, in sizes of the weights
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_bytes() -> int:
    """Memory that this process may use: the machine's, or less where a container or `ulimit -v` says so."""
    found = []
    with contextlib.suppress(ImportError, ValueError):  # there is none on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [limit] if limit != resource.RLIM_INFINITY else []
    with contextlib.suppress(AttributeError, OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(file).read_text()))
    return min(found, default=1 << 62)


def require(argument: str, text: str, needed: float, devices=None):
    """Refuse what does not fit.

    Args:
      argument: what to change.
      text: follows the argument at once, up to the estimate: "=4096: images of this size".
      needed: bytes, of all devices where they share the host's memory, else of each of them.
      devices: `Devices`; None: the host's memory is meant.

    Raises:
      ArgumentError: see above.
    """
    there, where = host_bytes(), "this machine"
    for device in devices.devices if devices else ():
        limit = (_stats(device) or {}).get("bytes_limit", there)
        there, where = (limit, f"a device ({device.device_kind})") if limit < there else (there, where)
    if needed > there:
        size, limit = (f"{number / 2**30:,.1f} GiB" for number in (needed, there))
        raise ArgumentError(argument, f"{text}: that takes at least {size} of memory, but {where} has {limit}.")


def check_training(network, batch_size: int, devices, images: int = 0):
    """Refuse a supervised run that cannot be held; arguments in errors are `network`, `batch_size` and `data`.

    Args:
      network: `Network`.
      images: bytes of the training images.
    """
    weights, layers = footprint(network.module, network.image_shape)
    _check(devices, batch_size, {"network": _SGD * weights, "data": images}, layers, network.image_shape)


def check_unlearning(setup, devices) -> float:
    """Refuse an unlearning run that cannot be held; arguments in errors are `teacher`, `student` and fields of
    `Distill`.

    Args:
      setup: `DistillSetup`.

    Returns:
      About how many bytes a generator step takes, whose gradient runs through generator, teacher and student: of each
      device, or of all where they share the host's memory.
    """
    network, student, generator = setup.network, setup.student, setup.generator
    remat = setup.remat and devices.devices[0].platform != "cpu"  # XLA merges it away there
    weights, layers = footprint(network.module, network.image_shape, remat)
    student_weights, student_layers = footprint(student.module, student.image_shape, remat)
    generator_weights, generator_layers = footprint(generator, (setup.latent_dim,), remat)
    wide = generator.width >= setup.latent_dim / 256  # which of the two is farther above its default
    parts = {"teacher": weights, "memory": setup.memory * math.prod(network.image_shape)}
    parts["student" if setup.pupil else "teacher"] = _SGD * student_weights + (0 if setup.pupil else weights)
    parts["generator_width" if wide else "latent_dim"] = _ADAM * generator_weights
    largest = max(layers, student_layers, generator_layers)
    least = _check(devices, setup.batch_size, parts, largest, network.image_shape)
    shared = _stats(devices.devices[0]) is None
    images = setup.batch_size / (1 if shared else devices.count)
    return least + images * (layers + student_layers + generator_layers - largest)


def _check(devices, batch_size: int, fixed: Mapping[str, float], layers: float, shape) -> float:
    """Refuse, naming the largest part: `fixed` ones of every device and `layers` bytes per image of a batch; else their
    sum."""
    shared = _stats(devices.devices[0]) is None  # the host's memory, for all devices
    copies, images = (devices.count, batch_size) if shared else (1, batch_size / devices.count)
    parts = {name: size * copies for name, size in fixed.items()} | {"batch_size": images * layers}
    argument, total = max(parts, key=lambda name: parts[name]), sum(parts.values())
    what = f"a run on {batch_size:,} images of {'x'.join(map(str, shape))} at a time"
    require(argument, f": {what}", total, devices)
    return total


@cache
def footprint(module, example_shape: tuple[int, ...], remat: bool = False) -> tuple[int, int]:
    """(bytes of the variables, bytes of the outputs of all layers, with `remat` of all blocks, for one example)."""
    example = jax.ShapeDtypeStruct((1, *example_shape), jnp.float32)
    with ops.convolutions("xla"):  # others are prepared when they are traced
        variables = jax.eval_shape(partial(init_variables, module, example_shape=example.shape), jax.random.key(0))
        apply = partial(module.apply, capture_intermediates=True, mutable=["intermediates"])
        if remat:
            steps = jax.make_jaxpr(module.apply)(variables, example).eqns
            kept = [out.aval for step in steps if step.primitive.name == "name" for out in step.outvars]
        else:
            _, kept = jax.eval_shape(apply, variables, example)
    return _bytes(variables), _bytes(kept)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def _stats(device):
    """What a device says of its memory; None where it has none, or does not say."""
    try:
        return device.memory_stats()
    except Exception:  # backends differ in what they raise
        return None
