"""Time of a student step against batch size, classes and devices, and of several jobs of one program; with the slope.

    JAX_PLATFORMS=cpu python -m benchmarks.scaling --over=batch --width=0.25 --size=16 python -m benchmarks.scaling
    --over=classes        # or jobs JAX_PLATFORMS=cpu python -m benchmarks.scaling --over=devices

The line is fitted by least squares to the medians: seconds = intercept + slope x number. Forced CPU devices share the
same cores: there the slope shows what dividing a batch costs, and says nothing about speed on several accelerators.
"""

import argparse
from functools import partial

import jax
import numpy as np

from benchmarks.measure import machine, paired, seconds, spread
from benchmarks.steps_jax import JaxSteps
from ispf_jax.collectives import local_slice
from ispf_jax.devices import choose
from ispf_jax.distill import student_step

DEFAULTS = {"batch": (32, 64, 128, 256), "classes": (10, 50, 100, 200), "devices": (1, 2, 4), "jobs": (1, 2, 4)}
STEPS_OF_A_JOB = 10


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--over", default="batch", choices=tuple(DEFAULTS))
    p.add_argument("--values", help="comma-separated; default: " + str(DEFAULTS))
    p.add_argument("--model", default="allcnn", choices=("allcnn", "resnet18"))
    p.add_argument("--width", type=float, default=1.0, help="of all networks")
    p.add_argument("--size", type=int, default=32)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    a.values = [int(v) for v in a.values.split(",")] if a.values else DEFAULTS[a.over]
    a.method, a.classes, a.channels, a.generator_width, a.dtype = "ispf", 10, 3, a.width, "float32"
    return a


def step_of(a, devices=1):
    """run() of one student step on a number of devices; it ends when the step is done."""
    ours = JaxSteps(a)
    spread_over = choose(devices)

    def step(setup, state, teacher, request, noise, axis):
        return student_step(setup, state, teacher, request, local_slice(noise, axis), axis)

    program = spread_over.compile(step, ours.setup)
    arguments = spread_over.replicate(
        (ours.steps()["student"][1], ours.variables["teacher"], ours.request, ours.inputs()[0])
    )
    run = partial(program, *arguments)
    jax.block_until_ready(run())
    return lambda: jax.block_until_ready(run())


def jobs_of(a, count):
    """run() of `count` jobs, one after the other, compiled afresh once for all of them as in a sweep."""

    def run():
        jax.clear_caches()
        step = step_of(a)
        for _ in range(count * STEPS_OF_A_JOB - 1):
            step()

    return run


def main():
    a = parse()
    if a.over == "devices":
        jax.config.update("jax_num_cpu_devices", max(a.values))
    print(
        f"{machine()}\n{a.model} width {a.width:g}, {a.size}x{a.size}, batch {a.batch}, student step against {a.over}"
    )
    runs = {}
    for value in a.values:
        changed = argparse.Namespace(**vars(a))
        if a.over in ("batch", "classes"):
            setattr(changed, a.over, value)
        runs[value] = (
            jobs_of(changed, value) if a.over == "jobs" else step_of(changed, value if a.over == "devices" else 1)
        )
    if a.over == "jobs":
        seconds(runs[a.values[0]])
    times = paired(runs, a.rounds)
    for value, taken in times.items():
        print(f"{a.over} {value:5d}: {spread(taken, 1e3)} ms", flush=True)
    slope, intercept = np.polyfit(list(times), [np.median(t) for t in times.values()], 1)
    print(f"slope {1e3 * slope:.4g} ms per unit, intercept {1e3 * intercept:.4g} ms")


if __name__ == "__main__":
    main()
