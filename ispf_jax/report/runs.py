"""What the runs came from, took and made, and what their numbers cannot say."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ispf_jax.report.names import TEXTS, model_name, shown
from ispf_jax.report.tables import MISSING, Column, Table, make_table
from ispf_jax.report.verdict import tier_order
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.measurements import Measurement
from ispf_jax.runtime.metrics import metric
from ispf_jax.runtime.rows import STAGES, Row, RunLog

_WORK = ("student_steps", "generator_steps", "images_synthesised")
_COLUMNS = ("method", "base", "forget", "seed", "selection", "epoch", "train_seconds", *_WORK)
_COLUMNS += ("access", "computed", "weights", "teacher")
_HEADS = {"train_seconds": "seconds", "access": "used", "computed": "computed on"}
_WORDS = ("method", "base", "forget", "selection", "used", "computed on", "weights", "teacher")
_STAGE_OF = {"original": "original", "masked_head": "original", "retrain": "retrain"}


_DUPLICATES = {
    "duplicates/exact": "equal images",
    "duplicates/pixels": "near in pixels",
    "duplicates/features": "near in features",
}


def limits(contents: Contents) -> dict[str, list]:
    """What a reader must know before using a number.

    Returns:
      "sentences"; "tiers": (tier, metrics that needed it); "not_run": (metric, why it was not measured).
    """
    measured = sorted((m for a in contents.audits for m in a.measurements), key=lambda m: metric(m.metric).order)
    texts, said = TEXTS["limits"], list(TEXTS["limits"]["always"])
    said += [texts["mia1"]] if any(m.metric == "mia1" for m in measured) else []
    said += [texts["no_test"]] if contents.rows and all(row.acc_overall is None for row in contents.rows) else []
    ways = sorted(Counter(row.computed for row in contents.rows if row.computed).items())
    counts = [f"{way} ({n} result{'s' * (n > 1)})" for way, n in ways]
    said += [texts["ways"].format("; ".join(counts))] if len(ways) > 1 else []
    sets, seeds = (len({a.run[axis] for a in contents.audits}) for axis in (0, 1))
    if measured and (seeds < 3 or sets < 2):
        audited = f"{sets} forget set{'s' * (sets > 1)} and {seeds} training seed{'s' * (seeds > 1)}"
        said.append(f"{audited} were audited; results vary with both.")
    tiers, undefined = defaultdict(dict), defaultdict(dict)
    for m in measured:
        tiers[m.tier or "not stated"][metric(m.metric).label.partition(",")[0]] = None
        if m.value is None:
            note = f": {m.note}" if m.note not in ("", "undefined") else ""
            undefined[metric(m.metric).label, note][model_name(m.model, contents.bases)] = None
    not_run = list(dict.fromkeys(pair for audit in contents.audits for pair in audit.not_run))
    not_run += [(label, f"undefined for {', '.join(models)}{note}") for (label, note), models in undefined.items()]
    needed = [(tier, ", ".join(tiers[tier])) for tier in sorted(tiers, key=tier_order)]
    return {"sentences": said, "tiers": needed, "not_run": not_run}


def facts(contents: Contents) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, [(name, value)]) of everything that the pipeline recorded; the configuration comes last."""
    groups: dict[str, dict] = {"Run": {}}
    for name, value in contents.provenance.items():
        heading = name.replace("_", " ").capitalize()
        (groups if isinstance(value, dict) else groups["Run"])[heading] = value
    groups.pop("Config", None)
    groups |= {"Audit": contents.audits[0].settings if contents.audits else {}, "Configuration": contents.config}
    return [(heading, _flat(values)) for heading, values in groups.items() if values]


def runs_table(rows: Sequence[Row]) -> Table | None:
    """One line per result: time, steps, images, and what it used beyond the weights."""
    lines = []
    for row in rows:
        own = {"method": shown(row.method).name, "seed": str(row.seed), "train_seconds": f"{row.train_seconds:,.0f}"}
        lines.append([_said(own.get(name, getattr(row, name))) for name in _COLUMNS])
    heads = [_HEADS.get(name, name.replace("_", " ")) for name in _COLUMNS]
    return make_table("Runs one by one", heads, lines, [TEXTS["notes"]["runs"]], _WORDS) if lines else None


def times_table(contents: Contents) -> Table | None:
    """Wall time by stage over all starts, with the work that was done in it; None without a journal."""
    work, lines = defaultdict(list), []
    for row in _once(contents.rows):
        work[_STAGE_OF.get(row.method, "unlearn")].append(row)
    for stage in (*STAGES, "audit"):
        jobs = [job for job in contents.jobs if job["stage"] == stage]
        cut = sum(not job.get("finished") for job in jobs)
        devices = dict.fromkeys(f"{len(job['devices'])} x {job['devices'][0]}" for job in jobs if job["devices"])
        counts = [_said(sum(getattr(row, name) for row in work[stage]) or "") for name in _WORK]
        number = f"{len(jobs)}" + (f" ({cut} interrupted)" if cut else "")
        lines += [[stage, *_times(jobs), number, ", ".join(devices), *counts]] if jobs else []
    lines.append(["total", *_times(contents.jobs), str(len(contents.jobs)), *[MISSING] * 4])
    heads = ["stage", "wall time", Column("processor time", small="all cores"), "jobs", "devices"]
    heads += [name.replace("_", " ") for name in _WORK]
    notes = [TEXTS["notes"]["times"]]
    return make_table("Time and work", heads, lines, notes, ("stage", "devices")) if contents.jobs else None


def hashes_table(contents: Contents) -> Table | None:
    """The hash of the weights of every audited model and of what it was made from, so that a number is tied to a file.

    Baselines that change the original's head were made from the original, students from the teacher that their result
    names.
    """
    teachers = {(row.model, *row.run): row.teacher for row in contents.rows}
    lines = []
    for audit in contents.audits:
        sources = dict.fromkeys(("masked_head", "retrained_head"), audit.weights.get("original"))
        for model, digest in audit.weights.items():
            source = sources.get(model) or teachers.get((model, *audit.run)) or MISSING
            lines.append([model_name(model, contents.bases), audit.forget, str(audit.seed), digest, source])
    heads = ["model", "forget", "seed", "hash of the weights", "made from"]
    return make_table("Weights", heads, lines, words=[head for head in heads if head != "seed"]) if lines else None


def generator_table(contents: Contents) -> Table | None:
    """One line per run; None without runs. Duplicates are those that the audit of the run's trial counted."""
    counted = {(m.model, m.run, m.metric): m for m in contents.measurements if m.metric in _DUPLICATES}
    copies = [name for name in _DUPLICATES if any(name == metric for _, _, metric in counted)]
    words = ("method", "base", "forget")
    heads = [*words, "seed", "images", "learned from", "filtered out", "of forgotten classes", "H per image"]
    heads += ["rarest class", "commonest class", "empty steps", *(_DUPLICATES[name] for name in copies)]
    lines = []
    for run in contents.runs:
        found = [counted.get((f"{run.method}/{run.base}", (run.forget, run.seed), name)) for name in copies]
        shares = [_number("{:.1f} %", m and m.value) for m in found]
        lines.append([shown(run.method).name, run.base, run.forget, str(run.seed), *_health(run), *shares])
    notes = [TEXTS["notes"]["generator"], _about_copies(list(counted.values()))]
    return make_table("Generator health", heads, lines, notes, words) if lines else None


def _health(run: RunLog) -> list[str]:
    """Images of all steps, shares of three kinds, entropy per kept image, extreme classes, empty steps."""
    last = {name: run.series(name)[-1:].sum() for name in ("student_step", "generator_step", "entropy", "kept")}
    batch, classes, skipped = run.series("batch_size")[-1:].sum(), run.class_shares(), run.series("skipped_steps")
    kinds = [run.series(name) for name in ("kept", "filtered", "forget_samples")]
    extremes = [] if classes is None else [(c, 100 * classes[c]) for c in (classes.argmin(), classes.argmax())]
    return [
        _number("{:,.0f}", batch * (last["student_step"] + last["generator_step"]) or None),
        *(_number("{:.1f} %", 100 * part.mean() / batch if len(part) and batch else None) for part in kinds),
        _number("{:.2f}", last["entropy"] / last["kept"] if last["kept"] else None),
        *([f"{c}: {share:.1f} %" for c, share in extremes] or [MISSING] * 2),
        _number("{:.0f}", skipped.sum() if len(skipped) else None),
    ]


def _number(form: str, value: float | None) -> str:
    return MISSING if value is None else form.format(value)


def _about_copies(counted: list[Measurement]) -> str:
    """What the shares of duplicates are shares of, and the same of real images."""
    sizes = " or ".join(f"{n:,}" for n in sorted({m.n for m in counted if m.n}))
    real = dict.fromkeys(f"{_DUPLICATES[m.metric]} {m.note}" for m in counted if m.note)
    text = TEXTS["notes"]["duplicates" if counted else "no_duplicates"].format(sizes)
    return text + (f" ({'; '.join(real)})." if real else "." * bool(counted))


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
