"""What a start would do: every job with its state, its steps and an estimate of its time."""

from dataclasses import dataclass
from pathlib import Path

from ispf_jax.runtime.telemetry import format_duration, read_metrics
from ispf_jax.sweep.estimate import Costs, device_seconds
from ispf_jax.sweep.jobs import ForgetSets, Job, finished


@dataclass(frozen=True)
class Planned:
    """A job as a start would meet it. `seconds` are those still to come; `measured` if they were estimated from runs like it."""

    job: Job
    state: str
    steps: int
    seconds: float
    measured: bool


def plan(jobs: list[Job], workdir: Path, sets: ForgetSets, costs: Costs) -> list[Planned]:
    """State and cost of every job. Jobs of a kind that ran here before are estimated by their speed, others by their operations."""
    second_per_flop = device_seconds(1.0)
    records = {job: _last_record(workdir / job.place / "metrics.jsonl") for job in jobs}
    pace: dict[str, list[float]] = {}
    for job, record in records.items():
        if record and (total := _epochs(job, costs)) and record["epoch"]:
            pace.setdefault(job.kind, []).append(record["seconds"] / (record["epoch"] / total) / costs.flops(job))
    planned = []
    for job in jobs:
        epoch, total = (records[job] or {}).get("epoch", 0), _epochs(job, costs)
        done = finished(job, workdir, sets) or (bool(total) and job.kind == "shadow" and epoch == total)
        speeds = pace.get(job.kind)
        seconds = costs.flops(job) * (sum(speeds) / len(speeds) if speeds else second_per_flop)
        left = 0.0 if done else seconds * (1 - epoch / total if total else 1)
        state = "finished" if done else f"at epoch {epoch} of {total}" if epoch else "to do"
        planned.append(Planned(job, state, costs.steps(job), left, bool(speeds)))
    return planned


def table(planned: list[Planned], workers: int) -> str:
    """The plan as text, with the sum; `workers` jobs run side by side."""
    lines = [
        ("job", "state", "steps", "time left"),
        *((str(p.job), p.state, f"{p.steps:,}" if p.steps else "-", _time(p)) for p in planned),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = [
        "  ".join((a.ljust(widths[0]), b.ljust(widths[1]), c.rjust(widths[2]), d.rjust(widths[3])))
        for a, b, c, d in lines
    ]
    todo = [p for p in planned if p.state != "finished"]
    total = sum(p.seconds for p in todo)
    beside = f", {format_duration(total / workers)} with {workers} side by side" if workers > 1 and todo else ""
    text.append(
        f"{len(todo)} of {len(planned)} jobs to do, {sum(p.steps for p in todo):,} steps, about {format_duration(total)}{beside}"
    )
    if any(not p.measured for p in todo):
        text.append(
            "~ by counted operations and the measured matrix-product rate: good to a factor of two on a CPU, optimistic on a GPU"
        )
    return "\n".join(text)


def _time(p: Planned) -> str:
    return "-" if p.state == "finished" else ("" if p.measured else "~") + format_duration(p.seconds)


def _epochs(job: Job, costs: Costs) -> int:
    e = costs.e
    return (
        e.distill.warmup_epochs + e.distill.epochs
        if job.kind == "unlearn"
        else 0
        if job.kind == "audit"
        else e.train.epochs
    )


def _last_record(path: Path) -> dict | None:
    records = read_metrics(path) if path.exists() else []
    return records[-1] if records else None
