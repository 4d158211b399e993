"""What the runs came from, took and made, and what their numbers cannot say."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ispf_jax.report.names import TEXTS, model_order, shown
from ispf_jax.report.results import grouped
from ispf_jax.report.tables import MISSING, Column, Table, make_table
from ispf_jax.report.verdict import tier_order
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.metrics import metric
from ispf_jax.runtime.rows import STAGES, Row, RunLog, forget_order

_WORK = ("student_steps", "generator_steps", "images_synthesised")
_STAGE_OF = {"original": "original", "masked_head": "original", "retrain": "retrain"}
_NOTES, _DUPLICATES = TEXTS["notes"], TEXTS["duplicates"]


def limits(contents: Contents) -> dict[str, list]:
    """What a reader must know before using a number.

    Returns:
      "sentences"; "tiers": (tier, metrics that needed it); "not_run": (metric, why it was not measured).
    """
    measured = sorted((m for a in contents.audits for m in a.measurements), key=lambda m: metric(m.metric).order)
    texts, rows = TEXTS["limits"], contents.rows
    ways = sorted(Counter(row.computed for row in rows if row.computed).items())
    counts = "; ".join(f"{way} ({_plural(n, 'result')})" for way, n in ways)
    sets, seeds = (len({a.run[axis] for a in contents.audits}) for axis in (0, 1))
    grid = f"{_plural(sets, 'forget set')} and {_plural(seeds, 'training seed')}"
    said = {
        "mia1": any(m.metric == "mia1" for m in measured),
        "no_test": rows and all(row.acc_overall is None for row in rows),
        "ways": len(ways) > 1,
        "few": measured and (seeds < 3 or sets < 2),
    }
    tiers, undefined = defaultdict(dict), defaultdict(dict)
    for m in measured:
        tiers[m.tier or "not stated"][metric(m.metric).label.partition(",")[0]] = None
        if m.value is None:
            note = f": {m.note}" if m.note not in ("", "undefined") else ""
            undefined[metric(m.metric).label, note][contents.name(m.model)] = None
    not_run = list(dict.fromkeys(pair for audit in contents.audits for pair in audit.not_run))
    not_run += [(label, f"undefined for {', '.join(models)}{note}") for (label, note), models in undefined.items()]
    return {
        "sentences": [*texts["always"], *(texts[name].format(ways=counts, grid=grid) for name in said if said[name])],
        "tiers": [(tier, ", ".join(tiers[tier])) for tier in sorted(tiers, key=tier_order)],
        "not_run": not_run,
    }


def facts(contents: Contents) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(name, value)]) of everything that the pipeline recorded; the configuration comes last."""
    groups: dict[str, dict] = {"Run": {}}
    for name, value in contents.provenance.items():
        heading = name.replace("_", " ").capitalize()
        (groups if isinstance(value, dict) else groups["Run"])[heading] = value
    groups.pop("Config", None)
    groups |= {"Audit": contents.audits[0].settings if contents.audits else {}, "Configuration": contents.config}
    return [(contents.titled(heading), _flat(values)) for heading, values in groups.items() if values]


def runs_table(contents: Contents) -> Table | None:
    """One line per result: time, steps, images, and what it used beyond the weights."""
    lines = []
    for row in sorted(contents.rows, key=lambda row: (model_order(row.model), forget_order(row.forget), row.seed)):
        own = {"method": shown(row.method).name, "seed": str(row.seed), "train_seconds": f"{row.train_seconds:,.0f}"}
        lines.append([_said(own.get(name, getattr(row, name))) for name in TEXTS["runs"].values()])
    words = ("method", "base", "forget", "selection", "used", "computed on", "weights", "teacher")
    return make_table("Runs one by one", TEXTS["runs"], lines, [_NOTES["runs"]], words) if lines else None


def times_table(contents: Contents) -> Table | None:
    """Wall time by stage over all starts, with the work that was done in it; None without a journal."""
    work = grouped(_once(contents.rows), lambda row: _STAGE_OF.get(row.method, "unlearn"))
    jobs_of, lines = grouped(contents.jobs, lambda job: job["stage"]), []
    for stage in (stage for stage in (*STAGES, "audit") if stage in jobs_of):
        jobs = jobs_of[stage]
        cut = sum(not job.get("finished") for job in jobs)
        devices = dict.fromkeys(f"{len(job['devices'])} x {job['devices'][0]}" for job in jobs if job["devices"])
        counts = [_said(sum(getattr(row, name) for row in work.get(stage, [])) or "") for name in _WORK]
        number = f"{len(jobs)}" + (f" ({cut} interrupted)" if cut else "")
        lines.append([stage, *_times(jobs), number, ", ".join(devices), *counts])
    lines.append(["total", *_times(contents.jobs), str(len(contents.jobs)), *[MISSING] * 4])
    heads = ["stage", "wall time", Column("processor time", small="all cores"), "jobs", "devices"]
    heads += [name.replace("_", " ") for name in _WORK]
    return make_table("Time and work", heads, lines, [_NOTES["times"]], ("stage", "devices")) if contents.jobs else None


def hashes_table(contents: Contents) -> Table | None:
    """The hash of the weights of every audited model and of what it was made from, so that a number is tied to a file.

    Baselines that change the original's head were made from the original, students from the teacher that their result
    names.
    """
    teachers = {(row.model, *row.run): row.teacher for row in contents.rows}
    lines = []
    for audit in contents.audits:
        sources = dict.fromkeys(("masked_head", "retrained_head"), audit.weights.get("original"))
        for model in sorted(audit.weights, key=model_order):
            source = sources.get(model) or teachers.get((model, *audit.run)) or MISSING
            lines.append([contents.name(model), audit.forget, str(audit.seed), audit.weights[model], source])
    heads = ["model", "forget", "seed", "hash of the weights", "made from"]
    return make_table("Weights", heads, lines, words=[head for head in heads if head != "seed"]) if lines else None


def generator_table(contents: Contents) -> Table | None:
    """One line per run; None without runs. Duplicates are those that the audit of the run's trial counted."""
    counted = {(m.model, m.run, m.metric): m for m in contents.measurements if m.metric in _DUPLICATES}
    lines = []
    for run in sorted(
        contents.runs, key=lambda r: (model_order(f"{r.method}/{r.base}"), forget_order(r.forget), r.seed)
    ):
        line = {"method": shown(run.method).name, "base": run.base, "forget": run.forget, "seed": str(run.seed)}
        line |= _health(run)
        for name in (name for name in _DUPLICATES if any(name == of for *_, of in counted)):
            found = counted.get((f"{run.method}/{run.base}", (run.forget, run.seed), name))
            line[_DUPLICATES[name]] = _number("{:.1f} %", found and found.value)
        lines.append(line)
    sizes = " or ".join(f"{n:,}" for n in sorted({m.n for m in counted.values() if m.n}))
    copies = _NOTES["duplicates" if counted else "no_duplicates"].format(sizes)
    real = dict.fromkeys(f"{_DUPLICATES[m.metric]} {m.note}" for m in counted.values() if m.note)
    copies += (f" ({'; '.join(real)})" if real else "") + "." * bool(counted)
    rows, words = [line.values() for line in lines], ("method", "base", "forget")
    return make_table("Generator health", lines[0], rows, [_NOTES["generator"], copies], words) if lines else None


def _health(run: RunLog) -> dict[str, str]:
    """Images of all steps, shares of three kinds, entropy per kept image, extreme classes, empty steps."""
    last = {name: run.series(name)[-1:].sum() for name in ("student_step", "generator_step", "entropy", "kept")}
    batch, classes, skipped = run.series("batch_size")[-1:].sum(), run.class_shares(), run.series("skipped_steps")
    parts = {"learned from": "kept", "filtered out": "filtered", "of forgotten classes": "forget_samples"}
    means = {head: part.mean() for head, name in parts.items() if len(part := run.series(name)) and batch}
    extremes = [] if classes is None else [(c, 100 * classes[c]) for c in (classes.argmin(), classes.argmax())]
    rarest, commonest = [f"{c}: {share:.1f} %" for c, share in extremes] or [MISSING] * 2
    return {
        "images": _number("{:,.0f}", batch * (last["student_step"] + last["generator_step"]) or None),
        **{head: _number("{:.1f} %", 100 * means[head] / batch if head in means else None) for head in parts},
        "H per image": _number("{:.2f}", last["entropy"] / last["kept"] if last["kept"] else None),
        "rarest class": rarest,
        "commonest class": commonest,
        "empty steps": _number("{:.0f}", skipped.sum() if len(skipped) else None),
    }


def _number(form: str, value: float | None) -> str:
    return MISSING if value is None else form.format(value)


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n > 1)}"


def _once(rows: Sequence[Row]) -> list[Row]:
    """Rows of different runs: one per run, whatever its selections, and the original once per seed."""
    ordered = sorted(rows, key=lambda row: row.student_steps)
    return list({(r.method, r.base, r.method == "original" or r.forget, r.seed): r for r in ordered}.values())


def _times(jobs: list[dict[str, Any]]) -> list[str]:
    """Wall time and processor time."""
    return [_duration(sum(job.get(name) or 0 for job in jobs)) for name in ("seconds", "cpu_seconds")]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        inner = isinstance(value, dict)
        found += _flat(value, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", _said(value, "d"))]
    return found


def _said(value: Any, digits: str = ",") -> str:
    """A value as text; whole numbers with separators unless `digits` is "d"."""
    if isinstance(value, (list, tuple)):
        return ", ".join(_said(item, digits) for item in value) or MISSING
    if value is None or value == "":
        return MISSING
    return f"{value:{digits}}" if type(value) is int else str(value)
