"""Time of a whole unlearning run, from fresh networks to the finished student, compilation included.

    python -m benchmarks.runs --size_of=svhn                            # 1,000 student steps; GPU goal: 20 s python -m
    benchmarks.runs --size_of=cifar10                         # 10,000 student steps; GPU goal: 90 s python -m
    benchmarks.runs --size_of=cifar10 --precision=bfloat16    # GPU goal: 60 s JAX_PLATFORMS=cpu python -m
    benchmarks.runs --size_of=svhn --width=0.25 --epochs=3

The program is the package's: one dispatch and one fetch of metrics per epoch. The teacher is freshly initialised; speed
does not depend on it.
"""

import argparse
import statistics
import time
from dataclasses import replace

import jax

from benchmarks.measure import machine, peak_resident_bytes, seconds, spread
from benchmarks.steps_jax import JaxSteps
from ispf_jax import devices as device_room
from ispf_jax.distill import distill_epoch

SIZES = {
    "svhn": (100, 1),
    "cifar10": (200, 5),
}  # epochs after two of warm-up, loops per epoch of 1 generator and 10 student steps
WARMUP = 2


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size_of", default="svhn", choices=tuple(SIZES))
    p.add_argument("--model", default="allcnn", choices=("allcnn", "resnet18"))
    p.add_argument("--width", type=float, default=1.0, help="of all networks")
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--epochs", type=int, help="fewer than the run has")
    p.add_argument("--devices", type=int, default=1)
    p.add_argument("--precision", default="float32", choices=("float32", "tf32", "bfloat16"))
    a = p.parse_args()
    a.method, a.classes, a.size, a.channels, a.generator_width = "ispf", 10, 32, 3, a.width
    a.dtype = "bfloat16" if a.precision == "bfloat16" else "float32"
    return a


def main():
    a = parse()
    jax.config.update("jax_default_matmul_precision", {"float32": "float32", "tf32": "tensorfloat32"}.get(a.precision))
    epochs, loops = SIZES[a.size_of]
    epochs = min(epochs, a.epochs or epochs)
    print(machine())
    began = time.perf_counter()
    ours = JaxSteps(a)
    setup = replace(ours.setup, loops=loops, student_steps=10, warmup_epochs=WARMUP)
    devices = device_room.choose(a.devices)
    program = devices.compile(distill_epoch, setup, donate=1)
    state, teacher, request = devices.replicate((ours.steps()["student"][1], ours.variables["teacher"], ours.request))
    compiling = program.prepare(state, teacher, request)

    def epoch():
        nonlocal state
        state, *metrics = program(state, teacher, request)
        jax.device_get(metrics)

    times = [seconds(epoch) for _ in range(WARMUP + epochs)][WARMUP:]
    whole = time.perf_counter() - began
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", peak_resident_bytes())
    each = f"{epochs} epochs of {loops} x (1 generator + 10 student steps)"
    print(f"{a.model} width {a.width:g}, batch {a.batch}, {a.precision}, {each}")
    memory = f"peak memory {peak / 2**30:.2f} GiB"
    print(f"whole run {whole:.1f} s, of which compiling {compiling:.1f} s; epoch {spread(times)} s; {memory}")
    print(f"student steps per second: {10 * loops / statistics.median(times):.3g}")


if __name__ == "__main__":
    main()
