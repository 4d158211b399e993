"""Time of one generator, student and supervised step, called one by one and inside `lax.scan`.

    python benchmarks/steps.py --width=0.25 --size=16 --channels=1 --batch=128

Prints per step the median and the range of paired runs: direct and scanned steps alternate, so that a machine whose speed drifts
does not favour one of them.
"""

import argparse
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from ispf_jax import optim
from ispf_jax.methods import METHODS
from ispf_jax.models import Generator, build_classifier, init_variables
from ispf_jax.state import DistillState, TrainState, new_net
from ispf_jax.steps.distill import DistillSetup, LossWeights, generator_step, student_step, unlearning
from ispf_jax.steps.supervised import SupervisedSetup, supervised_step


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="allcnn", choices=("allcnn", "resnet18"))
    p.add_argument("--method", default="ispf", choices=tuple(METHODS))
    p.add_argument("--width", type=float, default=1.0, help="of the classifiers")
    p.add_argument("--generator_width", type=float, help="default: as --width")
    p.add_argument("--size", type=int, default=32, help="image size in pixels")
    p.add_argument("--channels", type=int, default=3)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    p.add_argument("--steps", type=int, default=5, help="steps per timing")
    p.add_argument("--pairs", type=int, default=5, help="paired timings")
    return p.parse_args()


def cases(a):
    """{name: (step: state -> state, state)}."""
    mean = std = (0.5,) * a.channels
    shape = (a.size, a.size, a.channels)
    classifier = build_classifier(a.model, 10, a.width, a.dtype)
    setup = DistillSetup(
        classifier=classifier, generator=Generator((a.size, a.size), a.channels, a.generator_width or a.width, jnp.dtype(a.dtype)),
        student_optimizer=optim.sgd(), generator_optimizer=optim.adam(0.5, 0.999), batch_size=a.batch, latent_dim=256, loops=1,
        generator_steps=1, student_steps=1, warmup_epochs=0, student_lr=0.1, student_lr_final=2e-4, cosine_epochs=200,
        generator_lr=1e-3, weights=LossWeights(), mean=mean, std=std,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 6)
    teacher = init_variables(classifier, keys[0], (1, *shape))
    student = new_net(init_variables(classifier, keys[1], (1, *shape)), setup.student_optimizer)
    generator = new_net(init_variables(setup.generator, keys[2], (1, 256)), setup.generator_optimizer)
    request = unlearning(METHODS[a.method], [3], 10, 0.01)
    noise = jax.random.normal(keys[3], (a.batch, 256))
    images, labels = jax.random.normal(keys[4], (a.batch, *shape)), jax.random.randint(keys[5], (a.batch,), 0, 10)
    supervised = SupervisedSetup(classifier, optim.sgd(), a.batch, "none", mean, std)

    distilling = DistillState(student, generator, keys[0], jnp.int32(0))
    return {
        "student": (lambda s: student_step(setup, s, teacher, request, noise)[0], distilling),
        "generator": (lambda s: generator_step(setup, s, teacher, request, noise)[0], distilling),
        "supervised": (
            lambda s: supervised_step(supervised, s, images, labels, jnp.ones(a.batch), jnp.float32(0.1))[0],
            TrainState(student, keys[0], jnp.int32(0)),
        ),
    }


def seconds(run, state, steps):
    began = time.perf_counter()
    jax.block_until_ready(run(state))
    return (time.perf_counter() - began) / steps


def main():
    a = parse()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind}, {platform.machine()}, {a.model} width {a.width}, {a.size}x{a.size}x{a.channels}, batch {a.batch}, {a.dtype}")
    print(f"{'step':12}{'one by one, ms':>28}{'in lax.scan, ms':>28}{'scan / one by one':>28}")
    for name, (step, state) in cases(a).items():
        compiled = jax.jit(step)
        scanned = jax.jit(partial(lambda step, s: jax.lax.scan(lambda s, _: (step(s), None), s, None, length=a.steps)[0], step))

        def direct(state):
            for _ in range(a.steps):
                state = compiled(state)
            return state

        for run in (direct, scanned):
            jax.block_until_ready(run(state))
        pairs = [(seconds(direct, state, a.steps), seconds(scanned, state, a.steps)) for _ in range(a.pairs)]
        columns = [[1e3 * d for d, _ in pairs], [1e3 * s for _, s in pairs], [s / d for d, s in pairs]]
        print(f"{name:12}" + "".join(f"{f'{statistics.median(c):.3g} ({min(c):.3g} - {max(c):.3g})':>28}" for c in columns), flush=True)


if __name__ == "__main__":
    main()
