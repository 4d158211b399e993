"""Rates of single convolutions and times of batch norm on a CPU: ours (Winograd's where "auto" takes them), oneDNN's,
XLA's, and PyTorch's.

    JAX_PLATFORMS=cpu python -m benchmarks.layers --batch=64

Needs the extras `bench` and `onednn`. Contestants take turns; each entry is the median with its range. Ours run in a
loop of one program; PyTorch is eager and channels_last.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from benchmarks.measure import machine, paired, spread
from ispf_jax import ops
from ispf_jax.models.layers import batch_normalised, masked_moments

# Image size, channels in and out, kernel, stride: of AllCNN and of ResNet18 at full width.
LAYERS = (
    (32, 3, 96, 3, 1),
    (32, 96, 96, 3, 1),
    (32, 96, 192, 3, 2),
    (16, 192, 192, 3, 1),
    (8, 192, 192, 3, 1),
    (32, 64, 64, 3, 1),
    (16, 128, 128, 3, 1),
    (8, 256, 256, 3, 1),
    (4, 512, 512, 3, 1),
)
NORMS = ((32, 96), (16, 192), (32, 64))
STEPS = 10


def looped(function, *arrays):
    """A run of `STEPS` calls in one program, none of which XLA may leave out or compute once."""

    def body(_, carry):
        arrays, _ = lax.optimization_barrier(carry)
        return arrays, function(*arrays)

    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *arrays))
    program = (
        jax.jit(lambda *carry: lax.fori_loop(0, STEPS, body, carry)[1])
        .lower(arrays, start)
        .compile(ops.compiler_options())
    )
    return lambda: jax.block_until_ready(program(arrays, start))


def repeated(function):
    def run():
        for _ in range(STEPS):
            function()

    return run


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def image_tensor(array):
    return torch.tensor(array).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def convolutions(batch, size, inputs, outputs, kernel, stride):
    """{direction: {contestant: run}} of one layer, and the operations of each direction."""
    strides, padding, layout = (stride, stride), ((kernel // 2, kernel // 2),) * 2, ("NHWC", "HWIO", "NHWC")
    x, w, g = (
        normal(batch, size, size, inputs),
        normal(kernel, kernel, inputs, outputs),
        normal(batch, size // stride, size // stride, outputs),
    )

    def ours_conv(x, w):
        return ops.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout)

    ours = {  # XLA leaves out the outputs that a gradient does not need
        "forward": (lambda x, w, g: ours_conv(x, w)),
        "input gradient": (lambda x, w, g: jax.vjp(ours_conv, x, w)[1](g)[0]),
        "filter gradient": (lambda x, w, g: jax.vjp(ours_conv, x, w)[1](g)[1]),
    }
    runs = {direction: {} for direction in ours}
    for implementation in ops.IMPLEMENTATIONS:
        with ops.convolutions(implementation):
            for direction, function in ours.items():
                runs[direction][implementation] = looped(function, *map(jnp.asarray, (x, w, g)))
    tx, tg, tw = (
        image_tensor(x),
        image_tensor(g),
        torch.tensor(w).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last),
    )
    options = [stride] * 2, [kernel // 2] * 2, [1, 1], False, [0, 0], 1
    backward = partial(torch.ops.aten.convolution_backward, tg, tx, tw, None, *options)
    runs["forward"]["PyTorch"] = repeated(lambda: torch.conv2d(tx, tw, None, stride, kernel // 2))
    runs["input gradient"]["PyTorch"] = repeated(lambda: backward((True, False, False)))
    runs["filter gradient"]["PyTorch"] = repeated(lambda: backward((False, True, False)))
    return runs, 2 * g.size * kernel**2 * inputs


def batch_norms(batch, size, features):
    """{contestant: run} of batch norm and ReLU in train mode, forward and backward."""
    x, g = normal(batch, size, size, features), normal(batch, size, size, features)
    arrays = [jnp.asarray(v) for v in (x, np.ones(features, np.float32), np.zeros(features, np.float32), g)]

    def own_gradient(x, scale, bias):
        return batch_normalised(x, scale, bias, None, 1e-5, None)[0]

    def gradient_of_jax(x, scale, bias):
        mean, var, _ = masked_moments(x, None, None)
        return (x - mean) * (scale * lax.rsqrt(var + 1e-5)) + bias

    def both(norm, x, scale, bias, g):
        y, pull = jax.vjp(lambda *arrays: jax.nn.relu(norm(*arrays)), x, scale, bias)
        return y, pull(g)

    theirs, tx, tg = torch.nn.BatchNorm2d(features), image_tensor(x).requires_grad_(), image_tensor(g)
    return {
        "ours": looped(partial(both, own_gradient), *arrays),
        "gradient by JAX": looped(partial(both, gradient_of_jax), *arrays),
        "PyTorch": repeated(lambda: torch.relu(theirs(tx)).backward(tg)),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rounds", type=int, default=7)
    a = p.parse_args()
    print(f"{machine()}, {ops.describe()}, torch {torch.__version__}, batch {a.batch}, float32")
    print(f"\nGFLOP/s{'':37}" + "".join(f"{name:>26}" for name in (*ops.IMPLEMENTATIONS, "PyTorch")))
    for layer in LAYERS:
        runs, operations = convolutions(a.batch, *layer)
        for direction, contestants in runs.items():
            for run in contestants.values():
                run()
            rates = {
                name: [STEPS * operations / t / 1e9 for t in times]
                for name, times in paired(contestants, a.rounds).items()
            }
            size, inputs, outputs, kernel, stride = layer
            name = f"{size}x{size}, {inputs} to {outputs}, {kernel}x{kernel}/{stride} {direction}"
            print(f"{name:44}" + "".join(f"{spread(r):>26}" for r in rates.values()), flush=True)
    print(f"\n{'ms, batch norm and ReLU, forward and backward':44}{'ours':>25}{'gradient by JAX':>26}{'PyTorch':>26}")
    for size, features in NORMS:
        contestants = batch_norms(a.batch, size, features)
        for run in contestants.values():
            run()
        times = paired(contestants, a.rounds)
        print(
            f"{f'{size}x{size}, {features} channels':44}"
            + "".join(f"{spread(times[c], 1e3 / STEPS):>26}" for c in times),
            flush=True,
        )


if __name__ == "__main__":
    main()
