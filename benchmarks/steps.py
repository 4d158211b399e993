"""One generator, student or supervised step: the package against PyTorch on the same machine, same batch, same
precision.

    python -m benchmarks.steps --model=allcnn --batch=256 python -m benchmarks.steps --device=cuda --precision=tf32
    --steps=50      # GPU; also --precision=float32, bfloat16 python -m benchmarks.steps --width=0.25 --size=16
    --batch=16 --check      # both compute the same losses

Needs the extra `bench`. Contestants take turns, each in a process of its own, as they would run without the other:
their pools of threads and their allocators do not meet. The table holds medians and ranges of the times and of the
ratios ours / theirs of each round, TFLOP/s by the layers' multiply-adds, the share of the matrix-product rate measured
beside it, and peak memory. Ours runs inside a loop of one program, as an epoch does. The authors' way is eager NCHW
with two teacher passes per student step.
"""

import argparse
import os

import jax
import numpy as np
import torch

from benchmarks.measure import Isolated, machine, matrix_product_rate, paired, peak_resident_bytes, spread
from benchmarks.networks_torch import CLASSIFIERS, Generator, multiply_adds
from benchmarks.steps_jax import FORGET, LATENT, THRESHOLD, JaxSteps
from benchmarks.steps_torch import STYLES, TorchSteps
from ispf_jax import ops
from ispf_jax.methods import METHODS

OURS, ALONE = "ours", "ours, one by one"


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--model", default="allcnn", choices=("allcnn", "resnet18"))
    p.add_argument("--method", default="ispf", choices=tuple(METHODS))
    p.add_argument("--step", default="student,generator,supervised", help="comma-separated")
    p.add_argument("--against", default="", help="comma-separated parts of PyTorch styles' names; default: all")
    p.add_argument("--width", type=float, default=1.0, help="of the classifiers")
    p.add_argument("--generator_width", type=float, help="default: as --width")
    p.add_argument("--size", type=int, default=32, help="image size in pixels, a multiple of four")
    p.add_argument("--channels", type=int, default=3)
    p.add_argument("--classes", type=int, default=10)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--precision", default="float32", choices=("float32", "tf32", "bfloat16"), help="tf32: GPU only")
    p.add_argument("--convolutions", default="auto", choices=ops.IMPLEMENTATIONS, help="ours, on a CPU")
    p.add_argument("--steps", type=int, default=1, help="steps per timing")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--alone", action="store_true", help="also ours step by step, one dispatch each")
    p.add_argument("--check", action="store_true", help="compare losses of three steps instead of times")
    a = p.parse_args()
    a.generator_width = a.generator_width or a.width
    a.dtype = "bfloat16" if a.precision == "bfloat16" else "float32"
    return a


def contestant(a, step, name):
    """(run, peak): run() takes `a.steps` steps and returns when they are done, compiled and warmed up; peak() is the
    memory used, in bytes."""
    theirs = name not in (OURS, ALONE)
    with set_up(a, cpu=theirs):  # there JAX only makes the weights
        ours = JaxSteps(a)
        before = peak_resident_bytes()
        looped, single, state, inputs = (None,) * 4 if theirs else ours.compiled(step)
    if name == OURS:

        def run():
            jax.block_until_ready(looped(state, a.steps, *inputs))

    elif name == ALONE:

        def run(state=state):
            for _ in range(a.steps):
                state, _ = single(state, *inputs)
            jax.block_until_ready(state)

    else:
        steps, arguments = torch_side(a, step, name, ours)

        def run():
            for _ in range(a.steps):
                getattr(steps, f"{step}_step")(*arguments)
            if a.device == "cuda":
                torch.cuda.synchronize()

    def peak():
        if a.device == "cpu":
            return peak_resident_bytes() - before
        return torch.cuda.max_memory_allocated() if theirs else jax.devices()[0].memory_stats()["peak_bytes_in_use"]

    run()
    return run, peak


def set_up(a, cpu):
    """JAX's device, float32 or tf32 on both sides (bfloat16 is the networks' own), and the context of our
    convolutions."""
    if cpu or a.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_default_matmul_precision", {"float32": "float32", "tf32": "tensorfloat32"}.get(a.precision))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    return ops.convolutions(a.convolutions)


def styles(a, step):
    """PyTorch's contestants for a step: the authors' way differs from eager NCHW in the student step only."""
    wanted = a.against.split(",")
    return [
        n for n, s in STYLES.items() if any(w in n for w in wanted) and (step == "student" or s.teacher_passes == 1)
    ]


def torch_side(a, step, style, ours):
    """(TorchSteps, arguments of its step)."""
    shapes = {
        "size": a.size,
        "channels": a.channels,
        "num_classes": a.classes,
        "width": a.width,
        "generator_width": a.generator_width,
        "latent": LATENT,
    }
    theirs = TorchSteps(
        a.model,
        shapes,
        ours.variables,
        METHODS[a.method],
        FORGET,
        THRESHOLD,
        ours.setup.network.mean,
        ours.setup.network.std,
        STYLES[style],
        a.device,
        a.dtype,
    )
    noise, images, labels = (torch.tensor(np.asarray(v), device=a.device) for v in ours.inputs())
    return theirs, ((images.permute(0, 3, 1, 2), labels.long()) if step == "supervised" else (noise,))


def flops(a):
    """{step: floating-point operations} from the layers' multiply-adds, two each; nothing else is counted.

    A backward pass costs two forward passes, less the input gradient of the first layer where nothing asks for it; a
    network that is only differentiated by its input costs one forward pass more.
    """
    classifier = multiply_adds(
        CLASSIFIERS[a.model](a.channels, a.classes, a.width), torch.zeros(1, a.channels, a.size, a.size)
    )
    generator = multiply_adds(
        Generator(a.size, a.channels, LATENT, a.generator_width, torch.contiguous_format).eval(), torch.zeros(1, LATENT)
    )
    c, g = sum(classifier), sum(generator)
    trained = 3 * c - classifier[0]
    per_example = {"student": g + c + trained, "generator": 3 * g - generator[0] + 4 * c, "supervised": trained}
    return {step: 2 * a.batch * count for step, count in per_example.items()}


def check(a, ours):
    """Losses of three consecutive steps from the same weights; differences are rounding."""
    # float32: three steps of descent amplify rounding; bfloat16 has 8 bits.
    tolerance = 1e-3 if a.precision == "float32" else 0.1
    for step in a.step.split(","):
        function, state = ours.steps()[step]
        program, inputs = jax.jit(function), (ours.variables["teacher"], *ours.inputs())
        losses = []
        for _ in range(3):
            state, loss = program(state, *inputs)
            losses.append(float(loss))
        for name in styles(a, step):
            theirs, arguments = torch_side(a, step, name, ours)
            theirs = [float(getattr(theirs, f"{step}_step")(*arguments)) for _ in losses]
            print(f"{step:12}{name:24}ours {losses}  theirs {theirs}", flush=True)
            np.testing.assert_allclose(losses, theirs, rtol=tolerance)
    print("equal")


def time_table(a):
    counted = flops(a)
    for step in a.step.split(","):
        rate = matrix_product_rate(a.dtype)
        names = [OURS, *([ALONE] if a.alone else []), *styles(a, step)]
        runs = {name: Isolated(contestant, a, step, name) for name in names}
        times = paired(runs, a.rounds, Isolated.seconds)
        memory = {name: run.peak_bytes() for name, run in runs.items()}
        rate = max(rate, matrix_product_rate(a.dtype))
        print(f"\n{step} step, {counted[step] / 1e12:.3g} TFLOP; matrix product {rate / 1e12:.3g} TFLOP/s")
        print(f"{'':24}{'ms per step':>28}{'ours / this':>26}{'TFLOP/s':>10}{'of matrix product':>19}{'peak GiB':>10}")
        for name, taken in times.items():
            ratios = [o / t for o, t in zip(times[OURS], taken)]
            achieved = counted[step] * a.steps / sorted(taken)[len(taken) // 2]
            print(
                f"{name:24}{spread(taken, 1e3 / a.steps):>28}{spread(ratios):>26}"
                f"{achieved / 1e12:10.3g}{achieved / rate:19.0%}"
                f"{memory[name] / 2**30:10.2f}",
                flush=True,
            )


def main():
    a = parse()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # a GPU is shared by all contestants
    with set_up(a, cpu=False):
        print(f"{machine()}, {ops.describe()}, torch {torch.__version__}")
        print(
            f"{a.model} width {a.width:g}, {a.method}, {a.size}x{a.size}x{a.channels}, {a.classes} classes, "
            f"batch {a.batch}, {a.precision}, {a.rounds} rounds of {a.steps} step(s)"
        )
        return check(a, JaxSteps(a)) if a.check else time_table(a)


if __name__ == "__main__":
    main()
