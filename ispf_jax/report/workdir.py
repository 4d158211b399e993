"""Everything a work directory holds, read once: what is there, and what the configuration asks for that is not."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ispf_jax.errors import UserError
from ispf_jax.forget import forget_sets, named
from ispf_jax.report.audits import Audit, read_audits
from ispf_jax.report.averages import RunKey
from ispf_jax.report.names import model_name
from ispf_jax.runtime.provenance import JOURNAL
from ispf_jax.runtime.rows import REFERENCES, Row, RunLog, forget_order, load_runs, method_order, read_rows

SETTINGS_OF_EXTENT = ("metrics", "embedding_images")
"""Settings of an audit that decide what is measured or drawn, and no number."""


@dataclass(frozen=True)
class Sample:
    """A grid of synthetic images: base, method, forget set, seed, and the PNG."""

    base: str
    method: str
    forget: str
    seed: int
    png: bytes


@dataclass(frozen=True)
class Contents:
    """What a report is made from; `config` is flat ("data.name"), `damaged` are files that were set aside.

    `begun_audits` are trials with measurements of some models only, `other_audits` those with other settings than most, which no average may mix. `jobs` are the lines of the journal: {"stage", "job", "seconds", "cpu_seconds", "finished", "ended", "devices"}.
    """

    rows: list[Row] = field(default_factory=list)
    runs: list[RunLog] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    begun_audits: list[RunKey] = field(default_factory=list)
    other_audits: list[Audit] = field(default_factory=list)

    @property
    def bases(self) -> bool:
        """Whether several bases (dfq, zskt) were run, so that names must tell them apart."""
        return len({row["base"] for row in self.rows if row["method"] not in REFERENCES and row.get("base")}) > 1

    @property
    def data_note(self) -> str:
        """Where the images came from, where that matters."""
        return str((self.provenance.get("data") or {}).get("note") or "")

    def forget_name(self, forget: str) -> str:
        """ "3" or, if classes have names of their own, "3 (cat)"."""
        names = self.class_names or next((a.class_names for a in self.audits if a.class_names), [])
        return named(forget_order(forget), names) or forget


def read(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None) -> Contents:
    """Read a work directory; whatever is not there stays empty. Damaged files are set aside first."""
    workdir = Path(workdir)
    rows, runs = read_rows(workdir), load_runs(workdir)
    audits, others = _of_the_same_settings(read_audits(workdir))
    saved = _json(workdir / "config.json")
    provenance = provenance or {}
    config = provenance.get("config") or saved.get("config") or {}
    more = {"data_fingerprint": saved["data_fingerprint"]} if saved.get("data_fingerprint") else {}
    names = [str(name) for name in saved.get("class_names") or []]
    return Contents(
        rows,
        runs,
        audits,
        list(_samples(workdir)),
        _damaged(workdir),
        names,
        config,
        provenance | more,
        _jobs(workdir),
        _begun_audits(workdir),
        others,
    )


def read_part(workdir: str | os.PathLike) -> Contents:
    """Read the work directory of a part, with the provenance of its last report; the configuration is the one of the last start."""
    provenance = _json(Path(workdir) / "results.json").get("provenance")
    return read(
        workdir, {k: v for k, v in provenance.items() if k != "config"} if isinstance(provenance, dict) else None
    )


def missing(parts: dict[str, Contents]) -> list[str]:
    """What was asked for and is not there, and what is damaged, as sentences; each begins with the part of a sweep it is of."""
    found = [
        (part, sentence)
        for part, c in parts.items()
        for sentence in (
            *unfinished(c),
            *unaudited(c),
            *(f"{name} is damaged and was set aside." for name in c.damaged),
        )
    ]
    return [f"{part}: {sentence}" if part else sentence for part, sentence in found]


def unfinished(contents: Contents) -> list[str]:
    """What the configuration asks for and the directory does not hold, as sentences; also runs that never got a result.

    A stage is asked for if the configuration names it, or if there is something of it: a start for the report alone names no other.
    """
    rows = {row["method"] for row in contents.rows}
    stages = {*(contents.config.get("stages") or []), *(rows & {"original", "retrain"})}
    stages |= {"unlearn"} if contents.runs or rows - set(REFERENCES) else set()
    have = {(row["method"], _base(row), row["forget"], row["seed"]) for row in contents.rows}
    expected = _expected(contents)
    wanted = dict.fromkeys(("original", "", *run) for run in expected) if "original" in stages else {}
    if "retrain" in stages:
        wanted |= dict.fromkeys(("retrain", "", *run) for run in expected)
    if "unlearn" in stages:
        wanted |= dict.fromkeys(
            (m, b, *run)
            for b in contents.config.get("base", [])
            for m in contents.config.get("methods", [])
            for run in expected
        )
    begun = {(run.method, run.base, run.forget, run.seed): run for run in contents.runs}
    wanted |= dict.fromkeys(begun)
    groups: dict[tuple[str, str], list] = {}
    for job in wanted:
        if job not in have:
            groups.setdefault(job[:2], []).append(job)
    said = []
    for (method, base), jobs in sorted(groups.items(), key=lambda item: (item[0][1], method_order(item[0][0]))):
        name = model_name(f"{method}/{base}" if base else method, contents.bases)
        epochs = [begun[job].records[-1].get("epoch") for job in jobs if job in begun]
        state = f"; {len(epochs)} begun, the furthest at epoch {max(e or 0 for e in epochs)}" if epochs else ""
        said.append(
            f"{name}: {len(jobs)} of {len(jobs) + sum(job[:2] == (method, base) for job in have)} runs without a result "
            f"({_runs([job[2:] for job in jobs], contents)}{state})."
        )
    return said


def unaudited(contents: Contents) -> list[str]:
    """Trials without an audit, and models that the audit of their trial left out, as sentences."""
    begun = [
        f"The audit of {_runs([run], contents)} was begun and is not finished: start it again with audit in config.stages."
        for run in contents.begun_audits
    ]
    for other in contents.other_audits:
        usual = contents.audits[0].settings
        differ = ", ".join(
            f"audit.{k}={v}, not {usual.get(k)}"
            for k, v in other.settings.items()
            if k not in SETTINGS_OF_EXTENT and v != usual.get(k)
        )
        begun.append(
            f"The audit of {_runs([other.key], contents)} has other settings than the others ({differ}) and is left out: "
            "start it again with audit in config.stages."
        )
    if not contents.audits:
        none = (
            "No audit has been run: what is left of the forgotten classes was not measured. Add audit to config.stages."
        )
        return begun or ([none] if contents.rows else [])
    audited = {audit.key: audit.models for audit in (*contents.audits, *contents.other_audits)}
    trials = dict.fromkeys(
        sorted(((row["forget"], row["seed"]) for row in contents.rows), key=lambda run: (forget_order(run[0]), run[1]))
    )
    without = [run for run in trials if run not in audited]
    said = [f"{len(without)} of {len(trials)} trials without an audit ({_runs(without, contents)})."] if without else []
    left_out: dict[str, dict[RunKey, None]] = {}
    for row in contents.rows:
        model, run = row["method"] + (f"/{_base(row)}" if _base(row) else ""), (row["forget"], row["seed"])
        if run in audited and model not in audited[run]:
            left_out.setdefault(model, {})[run] = None
    return (
        begun
        + said
        + [
            f"{model_name(m, contents.bases)}: left out of the audit of {_runs(list(runs), contents)}."
            for m, runs in left_out.items()
        ]
    )


def _of_the_same_settings(audits: list[Audit]) -> tuple[list[Audit], list[Audit]]:
    """The audits with the settings that most have, and the others; settings that only say what is measured may differ."""

    def settings(audit):
        return json.dumps({k: v for k, v in audit.settings.items() if k not in SETTINGS_OF_EXTENT}, sort_keys=True)

    if not audits:
        return [], []
    most = Counter(map(settings, audits)).most_common(1)[0][0]
    return [a for a in audits if settings(a) == most], [a for a in audits if settings(a) != most]


def _expected(contents: Contents) -> list[RunKey]:
    """The (forget set, seed) pairs of the configuration; without one that fits the classes, those that rows and logs have."""
    seen = {(row["forget"], row["seed"]) for row in contents.rows} | {(run.forget, run.seed) for run in contents.runs}
    try:
        sets = forget_sets(str(contents.config.get("forget") or ""), tuple(contents.class_names))
    except UserError:
        sets = ()
    wanted = [(",".join(map(str, ids)), seed) for ids in sets for seed in contents.config.get("seeds") or []]
    return wanted or sorted(seen, key=lambda run: (forget_order(run[0]), run[1]))


def _runs(runs: list[RunKey], contents: Contents, most: int = 4) -> str:
    """ "class 3, seed 0; class 7, seed 0; and 8 more"."""
    shown = [f"class {contents.forget_name(forget)}, seed {seed}" for forget, seed in runs[:most]]
    return "; ".join(shown + ([f"and {len(runs) - most} more"] if len(runs) > most else []))


def _base(row: Row) -> str:
    return "" if row["method"] in REFERENCES else str(row.get("base") or "")


def _json(path: Path) -> dict[str, Any]:
    """An object from a JSON file; empty if there is none or it is damaged, as another stage would have said."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _begun_audits(workdir: Path) -> list[RunKey]:
    folders = {path.parent for path in workdir.glob("audit/*/seed*/*.json")}
    begun = [
        (folder.parent.name.replace("-", ","), int(folder.name[4:]))
        for folder in folders
        if not (folder / "audit.json").exists() and re.fullmatch(r"seed\d+", folder.name)
    ]
    return sorted(begun, key=lambda run: (forget_order(run[0]), run[1]))


def _jobs(workdir: Path) -> list[dict[str, Any]]:
    """The journal; lines that are not whole are left out."""
    try:
        lines = (workdir / JOURNAL).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    jobs = []
    for line in lines:
        try:
            job = json.loads(line)
            jobs += (
                [job]
                if isinstance(job["stage"], str) and job["seconds"] >= 0 and isinstance(job["devices"], list)
                else []
            )
        except (ValueError, KeyError, TypeError):
            continue
    return jobs


def _damaged(workdir: Path) -> list[str]:
    """Files that a reader set aside, now or at an earlier start; checkpoints, thousands of files, are not looked into."""
    found = []
    for folder, inner, files in os.walk(workdir):
        inner[:] = [name for name in inner if name not in ("checkpoints", "tensorboard")]
        found += [os.path.relpath(os.path.join(folder, name), workdir) for name in files if name.endswith(".damaged")]
    return sorted(found)


def _samples(workdir: Path) -> Iterator[Sample]:
    found = []
    for path in workdir.glob("unlearn/*/*/*/seed*/samples.png"):
        base, method, forget, seed = path.parts[-5:-1]
        if re.fullmatch(r"seed\d+", seed):
            found.append(Sample(base, method, forget.replace("-", ","), int(seed[4:]), path.read_bytes()))
    yield from sorted(found, key=lambda s: (s.base, forget_order(s.forget), s.seed, method_order(s.method)))
