"""Everything a work directory holds, read once: what is there, and what the configuration asks for that is not."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ispf_jax.errors import UserError
from ispf_jax.forget import forget_sets, named
from ispf_jax.report.names import TEXTS, model_name, model_order
from ispf_jax.report.results import grouped
from ispf_jax.report.tables import Table
from ispf_jax.report.verdict import Verdict
from ispf_jax.runtime import layout
from ispf_jax.runtime.guard import read_bounded
from ispf_jax.runtime.measurements import Audit, Measurement, read_audits
from ispf_jax.runtime.pictures import read_picture
from ispf_jax.runtime.provenance import read_journal, read_started
from ispf_jax.runtime.rows import (
    BEST_TEST,
    Row,
    RunKey,
    RunLog,
    forget_order,
    load_runs,
    read_provenance,
    read_rows,
    run_files,
)
from ispf_jax.runtime.schema import found_aside

SETTINGS_OF_EXTENT = ("metrics", "embedding_images")
"""Settings of an audit that decide what is measured or drawn, but change no number."""


@dataclass(frozen=True)
class Contents:
    """What a report is made from.

    Attributes:
      samples: grids of synthetic images: ((method, base, forget set, seed), PNG).
      config: flat ("data.name").
      damaged: files that were set aside.
      jobs: the journal's {"stage", "job", "seconds", "cpu_seconds", "finished", "ended", "devices"}.
      begun_audits: runs whose audit has measured some models only.
      other_audits: audits with other settings than most, which no average may mix with those.
      warnings: of all starts, from the log file.
      part: which part of a sweep it is; empty if it is none.
    """

    rows: list[Row] = field(default_factory=list)
    runs: list[RunLog] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)
    samples: list[tuple[tuple, bytes]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    begun_audits: list[RunKey] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    other_audits: list[Audit] = field(default_factory=list)
    part: str = ""

    @cached_property
    def measurements(self) -> list[Measurement]:
        """The long list: all that audits measured, and the accuracies of result rows where no audit was run."""
        found = {}
        for row in (row for row in self.rows if row.selection != BEST_TEST):
            for name in ("forget", "retain", "overall"):
                at = (row.dataset, row.arch, *row.run, row.model, f"accuracy/{name}")
                if (value := getattr(row, f"acc_{name}")) is not None:
                    found[at] = Measurement(*at, value, "%", tier="test images")
        return list((found | {m[:6]: m for audit in self.audits for m in audit.measurements}).values())

    @cached_property
    def verdicts(self) -> dict[tuple[str, str], Verdict]:
        """What is left, by (data set, network)."""
        settings = sorted({(of.dataset, of.arch) for of in (*self.rows, *self.audits)})
        found = grouped(self.measurements, lambda m: m[:2])
        return {key: Verdict(found.get(key, []), self.bases, self.titled(", ".join(key))) for key in settings}

    @property
    def audited(self) -> dict[tuple[str, str], Verdict]:
        """The verdicts with an audit."""
        settings = {(audit.dataset, audit.arch) for audit in self.audits}
        return {key: verdict for key, verdict in self.verdicts.items() if key in settings}

    @property
    def trials(self) -> list[RunKey]:
        """All (forget set, seed) of results and audits."""
        return sort_runs({of.run for of in (*self.rows, *self.audits)})

    @cached_property
    def models(self) -> list[str]:
        """All models of results and audits."""
        return sorted({of.model for of in (*self.rows, *self.measurements)}, key=model_order)

    @cached_property
    def bases(self) -> bool:
        """Whether several bases (dfq, zskt) were run, so that names must say which."""
        return len({model.partition("/")[2] for model in self.models} - {""}) > 1

    @property
    def data_note(self) -> str:
        """Where the images came from, where that matters."""
        return str((self.provenance.get("data") or {}).get("note") or "")

    def name(self, model: str) -> str:
        """What a model is called here."""
        return model_name(model, self.bases)

    def titled(self, title: str) -> str:
        """A title with the part of the sweep, if it is one."""
        return f"{title} (part {self.part})" if self.part else title

    def forget_name(self, forget: str) -> str:
        """ "3" or, if the classes have names, "3 (cat)"."""
        names = self.class_names or next((a.class_names for a in self.audits if a.class_names), [])
        return named(forget_order(forget), names) or forget

    def trial_names(self, runs: Iterable[RunKey], most: int = 4) -> str:
        """ "class 3, seed 0; class 7, seed 0; and 8 more"."""
        words = [f"class {self.forget_name(forget)}, seed {seed}" for forget, seed in dict.fromkeys(runs)]
        return "; ".join(words[:most] + ([f"and {len(words) - most} more"] if len(words) > most else []))


def read(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None, part: str = "") -> Contents:
    """Read a work directory; whatever is not there stays empty. Damaged files are set aside first.

    Args:
      part: read it as this part of a sweep, with its own configuration and the provenance of its last report.
    """
    workdir = Path(workdir)
    rows, runs, audits = read_rows(workdir), load_runs(workdir), read_audits(workdir)
    numbers = [_numbers(audit) for audit in audits]
    usual = max(numbers, key=numbers.count, default={})
    started, provenance = read_started(workdir), read_provenance(workdir) if part else dict(provenance or {})
    config = (not part and provenance.get("config")) or (started.config if started else {})
    if started:
        provenance["data_fingerprint"] = started.data_fingerprint
    pictures = [(run, read_picture(path)) for run, path in run_files(workdir, layout.SAMPLES)]
    return Contents(
        rows,
        runs,
        audits=[audit for audit, mine in zip(audits, numbers) if mine == usual],
        other_audits=[audit for audit, mine in zip(audits, numbers) if mine != usual],
        samples=[(run, picture) for run, picture in pictures if picture],
        damaged=found_aside(workdir),
        class_names=started.class_names if started else [],
        config=config,
        provenance=provenance,
        jobs=read_journal(workdir),
        begun_audits=_begun_audits(workdir),
        warnings=_warnings(workdir),
        part=part,
    )


def of_parts(parts: Iterable[Contents], make: Callable[[Contents], list[Table] | Table | None]) -> list[Table]:
    """The tables of every part of a sweep, or of the one work directory, titled with the part."""
    made = ((c, make(c)) for c in parts)
    made = ((c, found if isinstance(found, list) else [found]) for c, found in made if found)
    return [table._replace(title=c.titled(table.title)) for c, tables in made for table in tables]


def missing(parts: Iterable[Contents]) -> list[str]:
    """What was asked for and is not there, and what is damaged, as sentences; each begins with its part of a sweep."""
    said = []
    for c in parts:
        sentences = [*unfinished(c), *unaudited(c), *(f"{name} is damaged and was set aside." for name in c.damaged)]
        said += [f"{c.part}: {sentence}" if c.part else sentence for sentence in sentences]
    return said


def unfinished(contents: Contents) -> list[str]:
    """What the configuration asks for and the directory does not hold, as sentences; also runs without a result.

    A stage is asked for if the configuration names it, or if it has left anything: a start for the report alone names
    no other stage.
    """
    config, have = contents.config, {(row.model, *row.run) for row in contents.rows}
    begun = {(f"{run.method}/{run.base}", run.forget, run.seed): run for run in contents.runs}
    left = {model for model, *_ in (*have, *begun)}
    stages = {*config.get("stages", ()), *left, *("unlearn" for model in left if "/" in model)}
    wanted = [stage for stage in ("original", "retrain") if stage in stages]
    if "unlearn" in stages:
        wanted += [f"{method}/{base}" for base in config.get("base", ()) for method in config.get("methods", ())]
    jobs = dict.fromkeys([*((model, *run) for model in wanted for run in _expected(contents)), *begun])
    said = []
    for model in sorted({model for model, *_ in jobs}, key=model_order):
        rest = [job for job in jobs if job[0] == model and job not in have]
        epochs = [begun[job].records[-1].get("epoch") or 0 for job in rest if job in begun]
        state = f"; {len(epochs)} begun, the furthest at epoch {max(epochs)}" if epochs else ""
        runs = f"{len(rest)} of {sum(job[0] == model for job in {*jobs, *have})} runs without a result"
        which = contents.trial_names(job[1:] for job in rest)
        said += [f"{contents.name(model)}: {runs} ({which}{state})."] if rest else []
    return said


def unaudited(contents: Contents) -> list[str]:
    """Trials without an audit, and models that the audit of their trial left out, as sentences."""
    audits, name, again = contents.audits, contents.trial_names, "start it again with audit in config.stages."
    said = [f"The audit of {name([run])} was begun and is not finished: {again}" for run in contents.begun_audits]
    for other in contents.other_audits:
        mine, usual = _numbers(other), _numbers(audits[0])
        differ = ", ".join(f"audit.{k}={v}, not {usual.get(k)}" for k, v in mine.items() if v != usual.get(k))
        said.append(
            f"The audit of {name([other.run])} has other settings than most ({differ}) and is left out: {again}"
        )
    if not audits:
        return said or [TEXTS["limits"]["no_audit"]] * bool(contents.rows)
    audited = {audit.run: audit.models for audit in (*audits, *contents.other_audits)}
    if without := [run for run in contents.trials if run not in audited]:
        said.append(f"{len(without)} of {len(contents.trials)} trials without an audit ({name(without)}).")
    for model in contents.models:
        runs = [r.run for r in contents.rows if r.model == model and model not in audited.get(r.run, [model])]
        said += [f"{contents.name(model)}: left out of the audit of {name(runs)}."] if runs else []
    return said


def sort_runs(runs: set[RunKey]) -> list[RunKey]:
    return sorted(runs, key=lambda run: (forget_order(run[0]), run[1]))


def _numbers(audit: Audit) -> dict[str, Any]:
    """The settings that change numbers."""
    return {k: v for k, v in audit.settings.items() if k not in SETTINGS_OF_EXTENT}


def _expected(contents: Contents) -> list[RunKey]:
    """The (forget set, seed) pairs of the configuration; without one that fits the classes, those of rows and logs."""
    try:
        sets = forget_sets(str(contents.config.get("forget") or ""), tuple(contents.class_names))
    except UserError:
        sets = ()
    wanted = [(",".join(map(str, ids)), seed) for ids in sets for seed in contents.config.get("seeds") or []]
    return wanted or sort_runs({row.run for row in contents.rows} | {(run.forget, run.seed) for run in contents.runs})


def _warnings(workdir: Path) -> list[str]:
    """The package's warnings in the log file, each once."""
    path = workdir / layout.LOG
    if not path.is_file():
        return []
    text = read_bounded(path, 1 << 26).decode(errors="replace")
    return list(dict.fromkeys(re.findall(r"^\S+ \S+ WARNING ispf_jax\S*: (.*)$", text, re.M)))


def _begun_audits(workdir: Path) -> list[RunKey]:
    begun = {job for job, path in layout.files(workdir, "audit", "*.json")}
    done = {job for job, path in layout.files(workdir, "audit", layout.AUDIT)}
    return sort_runs({(job.forgets, job.seed) for job in begun - done})
