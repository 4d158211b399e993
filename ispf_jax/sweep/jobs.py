"""The jobs of an experiment: what there is to do, in which order, and what is finished."""

from pathlib import Path

from ispf_jax.experiment import Experiment
from ispf_jax.forget import ForgetSet
from ispf_jax.runtime.layout import Job
from ispf_jax.runtime.rows import rows_of

__all__ = ["Job", "finished", "jobs"]


def jobs(e: Experiment, forget_sets: tuple[ForgetSet, ...]) -> list[Job]:
    """All jobs of an experiment, each after those it needs."""
    counts = {"mia2": e.audit.shadows, "lira": e.audit.lira_shadows} if "audit" in e.stages else {}
    attacks = [(attack, count) for attack, count in counts.items() if attack in e.audit.metrics]
    shadows = [Job("shadow", k, method=attack) for attack, count in attacks for k in range(count)]
    found = []
    for seed in e.seeds:
        found += [Job("original", seed)] if "original" in e.stages else []
        for forget in forget_sets:
            found += [Job("retrain", seed, forget)] if "retrain" in e.stages else []
            if "unlearn" in e.stages:
                found += [Job("unlearn", seed, forget, base, method) for base in e.base for method in e.methods]
            if "audit" in e.stages:
                found += [*shadows, Job("audit", seed, forget)]
                shadows = []  # the first audit needs them, the others find them
    return found


def finished(job: Job, workdir: Path, forget_sets: tuple[ForgetSet, ...]) -> bool:
    """Whether its results are there and whole; a damaged result is set aside, so that it is made again.

    Shadow models and audits decide for themselves what is left to do, which may be nothing.
    """
    if job.kind not in ("original", "retrain", "unlearn"):
        return False
    sets = forget_sets if job.kind == "original" else (job.forget,)
    return all(rows_of(job, workdir / job.result(forget)) for forget in sets)
