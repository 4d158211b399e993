"""Paired timing, the machine's matrix-product rate, and how numbers with a spread are printed."""

import multiprocessing
import os
import platform
import resource
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp


def seconds(run):
    """Wall time of `run()`, which returns when its work is done."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def paired(contestants, rounds, clock=seconds):
    """{name: [seconds of every round]}: contestants take turns, so a machine whose speed drifts favours none of
    them."""
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(clock(run))
    return times


class Isolated:
    """A contestant in a process of its own, which waits without work for its turns.

    Args:
      make: function of a module, called in the process with `arguments`: returns (run, peak), see `seconds` and
        `peak_bytes`.
    """

    def __init__(self, make, *arguments):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_take_turns, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def seconds(self):
        """Wall time of one run()."""
        self._pipe.send(True)
        return self._pipe.recv()

    def peak_bytes(self):
        """What peak() returns; ends the process."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak


def _take_turns(pipe, make, arguments):
    run, peak = make(*arguments)
    pipe.send("ready")
    while pipe.recv():
        pipe.send(seconds(run))
    pipe.send(peak())


def spread(values, scale=1.0):
    """Median (least - greatest), three digits each."""
    return "{:.3g} ({:.3g} - {:.3g})".format(*(scale * f(values) for f in (statistics.median, min, max)))


def matrix_product_rate(dtype="float32", size=2048, rounds=5):
    """Best FLOP/s of a product of two square matrices: what the hardware gives to work of this kind."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    return 2 * size**3 / min(seconds(lambda: product(a, a).block_until_ready()) for _ in range(rounds))


def machine():
    """Processor or accelerator, cores, software and load, in one line."""
    device = jax.devices()[0]
    cpu = Path("/proc/cpuinfo")
    found = (
        [
            line.split(":")[1].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith(("model name", "cpu family"))
        ]
        if cpu.exists()
        else []
    )
    processor = ", family ".join(reversed(found[:2])) if len(found) > 1 else platform.machine()
    names = [
        processor,
        f"{os.cpu_count()} cores",
        f"load average {os.getloadavg()[0]:.2f} at the start",
        f"jax {jax.__version__}",
    ]
    return ", ".join(names + ([device.device_kind] if device.platform != "cpu" else []))


def peak_resident_bytes():
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
