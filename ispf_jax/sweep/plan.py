"""What a start would do: every job with its state, its steps and about how long it will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import memory, ops
from ispf_jax.classifier import init_variables
from ispf_jax.data import ImageData
from ispf_jax.devices import Devices
from ispf_jax.errors import ArgumentError
from ispf_jax.experiment import Experiment, keys_of
from ispf_jax.forget import ForgetSet
from ispf_jax.models import Generator
from ispf_jax.runtime.layout import METRICS
from ispf_jax.runtime.telemetry import format_duration, read_metrics
from ispf_jax.sweep.given import given_module
from ispf_jax.sweep.jobs import Job, finished
from ispf_jax.training import largest_batch
from ispf_jax.unlearning import distill_setup

EFFICIENCY = 0.6
"""Share of the rate of matrix products that whole training steps reach, roughly: on two cores of a CPU 0.5 to 0.8."""

MOST_JOBS = 10**6


@dataclass(frozen=True)
class Planned:
    """A job as a start would meet it.

    Attributes:
      seconds: time still to come.
      measured: whether that is by the pace of such jobs in this work directory.
    """

    job: Job
    state: str
    steps: int
    seconds: float
    measured: bool


def plan(
    e: Experiment, data: ImageData, jobs: Sequence[Job], workdir: Path, sets: tuple[ForgetSet, ...]
) -> list[Planned]:
    """State, steps and remaining time of jobs, by the pace of their kind in this directory, else by operations."""
    costs, planned = _costs(e, data, jobs, workdir), []
    epochs, done, paces = {}, {}, {}
    for job, (_, seconds) in costs.items():
        records = read_metrics(workdir / job.place / METRICS)
        done[job], spent = (records[-1]["epoch"], records[-1].get("seconds", 0.0)) if records else (0, 0.0)
        epochs[job] = e.distill.warmup_epochs + e.distill.epochs if job.kind == "unlearn" else e.train.epochs
        if done[job] and seconds:
            paces.setdefault(job.kind, []).append(spent * epochs[job] / done[job] / seconds)
    for job, (steps, seconds) in costs.items():
        over = finished(job, workdir, sets) or (job.kind == "shadow" and done[job] == epochs[job])
        state = "finished" if over else f"at epoch {done[job]} of {epochs[job]}" if done[job] else "to do"
        left = 0.0 if over else seconds * np.mean(paces.get(job.kind, 1.0)) * (1 - done[job] / epochs[job])
        planned.append(Planned(job, state, steps, left, job.kind in paces))
    return planned


def check(e: Experiment, data: ImageData, devices: Devices, sets: tuple[ForgetSet, ...], worker):
    """Refuse, before anything is done, what no machine like this one could finish; ArgumentErrors name keys."""
    count = len(e.seeds) * len(sets) * (2 + len(e.base) * len(e.methods))
    if count > MOST_JOBS:
        raise ArgumentError("config.seeds", f": {count:,} jobs for all seeds, forget sets and methods are too many.")
    images, network = data.train.images.nbytes, worker.network
    if ({"retrain", "audit"} & {*e.stages} and images) or ("original" in e.stages and not e.model.checkpoint):
        with keys_of("train", network="model.width", data="data.max_train"):
            batch = largest_batch(e.train.batch_size, len(data.train), devices)
            memory.check_training(network, batch, devices, images)
    if "unlearn" in e.stages:
        with keys_of("distill", teacher="model.width", student="model.student_width"):
            for base in e.base:
                memory.check_unlearning(distill_setup(network, e.distill, base, student=worker.student), devices)
    if "audit" in e.stages and images:
        with keys_of("audit", batch_size="audit.relearn_batch", network="model.width", data="data.max_train"):
            pairs = 3 * 8 * e.audit.synthetic_images**2  # distances between all of them
            memory.require("synthetic_images", f"={e.audit.synthetic_images}", pairs)
            memory.check_training(network, min(e.audit.relearn_batch, len(data.train)), devices, images)


def expected_seconds(e: Experiment, data: ImageData, jobs: Sequence[Job], workdir: Path = Path()) -> float:
    """About how long jobs take, one after the other, on the default device; by operations, before anything has run."""
    return sum(seconds for _, seconds in _costs(e, data, jobs, workdir).values())


def _costs(e, data, jobs, workdir) -> dict[Job, tuple[int, float]]:
    """Steps, and seconds by operations, of every job."""
    class_counts = np.bincount(data.train.labels, minlength=data.num_classes)
    classifier = given_module(e.model, workdir, data) or e.model.made(data.num_classes, "float32")
    generator = Generator(tuple(data.image_shape[:2]), data.image_shape[2], e.distill.generator_width)
    flops = forward_flops(classifier, data.image_shape), forward_flops(generator, (e.distill.latent_dim,))
    rate = EFFICIENCY * matmul_rate()
    found = {job: passes_of(e, job, class_counts) for job in jobs}
    return {job: (steps, float(np.dot(flops, passes)) / rate) for job, (steps, *passes) in found.items()}


def table(planned: Sequence[Planned], at_once: int = 1) -> str:
    """The plan as text, with the sum; `at_once` jobs run side by side."""
    lines = [("job", "state", "steps", "time left")]
    for p in planned:
        left = "-" if p.state == "finished" else ("" if p.measured else "~") + format_duration(p.seconds)
        lines.append((str(p.job), p.state, f"{p.steps:,}" if p.steps else "-", left))
    a, b, c, d = (max(map(len, column)) for column in zip(*lines))
    text = [f"{job:{a}}  {state:{b}}  {steps:>{c}}  {left:>{d}}" for job, state, steps, left in lines]
    todo = [p for p in planned if p.state != "finished"]
    total = sum(p.seconds for p in todo)
    parallel = f", {format_duration(total / at_once)} with {at_once} jobs at a time" if at_once > 1 and todo else ""
    steps = sum(p.steps for p in todo)
    text.append(f"{len(todo)} of {len(planned)} jobs to do, {steps:,} steps, about {format_duration(total)}{parallel}")
    if not all(p.measured for p in todo):
        text.append(
            "~ by operations and the rate of matrix products here: good to a factor of two on a CPU, less on a GPU"
        )
    return "\n".join(text)


def matmul_rate(size: int = 1024, repeats: int = 8) -> float:
    """Measured float32 matrix-product rate of the default device, operations per second."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    began = time.perf_counter()
    for _ in range(repeats):
        y = product(x, x)
    y.block_until_ready()
    return repeats * 2 * size**3 / (time.perf_counter() - began)


def passes_of(e: Experiment, job: Job, class_counts: np.ndarray) -> tuple[int, float, float]:
    """(training steps, forward passes of a classifier, of the generator) of a job over single images.

    A backward pass counts as two. The steps of unlearning are the student's; an audit's passes are those of relearning.

    Args:
      class_counts: training images per class, [C].
    """
    c, a = e.distill, e.audit
    if job.kind == "unlearn":
        steps = c.epochs * c.loops * c.student_steps
        distilled = steps * c.batch_size
        trained = (c.epochs + c.warmup_epochs) * c.loops * c.generator_steps * c.batch_size
        return steps, 4 * (distilled + trained), distilled + 3 * trained
    if job.kind == "original" and e.model.checkpoint:
        return 0, 0, 0
    seen = class_counts.sum() - class_counts[list(job.forget)].sum() * (job.kind == "retrain")
    seen *= (1 - e.train.val_fraction) / (2 if job.kind == "shadow" else 1)
    if job.kind == "audit":
        relearned = a.relearn_steps * a.relearn_batch if a.relearn_steps else 10 * seen
        curves = (5 + len(e.base) * len(e.methods)) * (2 + len(a.shots) + a.relearn_orders) * ("relearn" in a.metrics)
        return 0, 3 * curves * relearned, 0
    validation = e.train.val_fraction / (1 - e.train.val_fraction)
    return e.train.epochs * -(-int(seen) // e.train.batch_size), e.train.epochs * seen * (3 + validation), 0


def forward_flops(module, example_shape: tuple[int, ...]) -> float:
    """Floating-point operations of one forward pass over one input, counted by XLA."""
    variables = jax.eval_shape(partial(init_variables, module, example_shape=(1, *example_shape)), jax.random.key(0))
    with ops.convolutions("xla"):  # XLA cannot count the operations of others
        lowered = jax.jit(module.apply).lower(variables, jax.ShapeDtypeStruct((1, *example_shape), jnp.float32))
    return float((lowered.cost_analysis() or {})["flops"])
