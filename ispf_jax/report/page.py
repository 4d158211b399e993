"""The page: everything in one file that needs no network and no script."""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from ispf_jax.report.figures import audits as of_audits
from ispf_jax.report.figures import runs as of_runs
from ispf_jax.report.figures.style import Picture, draw
from ispf_jax.report.names import TEXTS, shown
from ispf_jax.report.paper import paper_tables
from ispf_jax.report.results import result_tables
from ispf_jax.report.runs import facts, generator_table, hashes_table, limits, runs_table, times_table
from ispf_jax.report.tables import Place, Table, in_part, of_part
from ispf_jax.report.verdict import class_table, full_table, sentences, verdict_table
from ispf_jax.report.workdir import Contents, missing
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable
from ispf_jax.runtime.metrics import metric, metric_order
from ispf_jax.runtime.rows import REFERENCES, forget_order, method_order

SHOWN = 3
"""Pictures of so many forget sets and seeds are on the page; those of the others are in `figures/` only."""

_MOST = {"accuracy": None, "synthesis": None, "losses": 0}
"""The same for sections whose pictures are not of single runs; losses are in `figures/` only."""


def gallery(contents: Contents) -> list[Picture]:
    """The pictures of everything there is, in the order of the page."""
    found = of_runs.accuracy_bars(contents.rows)
    for audit in contents.audits:
        about = f"forgetting {contents.forget_name(audit.forget)}, seed {audit.seed}"
        found += of_audits.pictures(audit, about, contents.bases)
    found += of_runs.training_curves(contents.runs) + of_runs.class_histograms(contents.runs)
    return found + of_runs.synthesis_against_accuracy(contents) + of_runs.loss_curves(contents.runs)


def combined_gallery(parts: dict[str, Contents]) -> list[Picture]:
    """The pictures that sum up a part, for every part of a sweep; all others are on the parts' own pages."""
    return [
        replace(p, slug=f"{p.slug}_{part}", title=(p.title[0], in_part(p.title[1], part)))
        for part, c in parts.items()
        for p in (*of_runs.accuracy_bars(c.rows), *of_runs.synthesis_against_accuracy(c))
    ]


def on_page(pictures: Iterable[Picture]) -> dict[str, list[list[Picture]]]:
    """What the page shows: {section: [pictures of one run]}."""
    sections = {name: defaultdict(list) for name in (*_MOST, "audits", "training", "classes")}
    for picture in pictures:
        sections[picture.section][picture.slug].append(picture)
    return {name: list(runs.values())[: _MOST.get(name, SHOWN)] for name, runs in sections.items()}


def write_pictures(pictures: list[Picture], folder: Path) -> dict[str, bytes]:
    """Write every picture as SVG and PNG; returns {name: SVG} of those on the page, so that they are drawn once."""
    names = {p.name for groups in on_page(pictures).values() for group in groups for p in group}
    drawn = {}
    for picture in pictures:
        files = dict(zip(("svg", "png"), draw(picture, "svg", "png")))
        for kind, data in files.items():
            atomic_write_bytes(ensure_writable(folder) / f"{picture.name}.{kind}", data)
        drawn |= {picture.name: files["svg"]} if picture.name in names else {}
    return drawn


def render(parts: dict[str, Contents], pictures: list[Picture], drawn: dict[str, bytes] | None = None) -> str:
    """The page as text: of one work directory, {"": contents}, or of the parts of a sweep, each with separate tables.

    Args:
      drawn: {name: SVG} of pictures that are drawn already.
    """
    blocks = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("ispf_jax.report"), autoescape=True, **blocks)
    rows, audits = [r for c in parts.values() for r in c.rows], [a for c in parts.values() for a in c.audits]
    every, sections = Contents(rows=rows, audits=audits), on_page(pictures)
    on_this_page = [p for groups in sections.values() for group in groups for p in group]
    students = [model.split("/") for model in every.models if model not in REFERENCES]
    return environment.get_template("page.html").render(
        uri=lambda kind, data: f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        svg=lambda picture: (drawn or {}).get(picture.name) or draw(picture, "svg")[0],
        shown=shown,
        captions=TEXTS["captions"],
        example=Place(0.3),
        every=every,
        parts=[part for part in parts if part],
        sets=_forgotten(parts),
        methods=sorted({method for method, *_ in students}, key=method_order),
        bases=sorted({base for _, *of in students for base in of}),
        seeds=sorted({seed for _, seed in every.trials}),
        trials=sum(len(c.trials) for c in parts.values()),
        data_notes=list(dict.fromkeys(c.data_note for c in parts.values() if c.data_note)),
        settings=[_setting(part, c, key) for part, c in parts.items() for key in c.verdicts],
        limits=limits(every),
        missing=missing(parts),
        results=_each(parts, lambda c: result_tables(c.rows)),
        paper=_each(parts, paper_tables),
        pictures=sections,
        hidden=sum(p.section != "losses" for p in pictures) - len(on_this_page),
        samples=_samples(parts[""]) if "" in parts else [],
        health=_each(parts, lambda c: [generator_table(c)]),
        runs=_each(parts, lambda c: [runs_table(c.rows)]),
        facts=[(in_part(name, part), pairs) for part, c in parts.items() for name, pairs in facts(c)],
        times=_each(parts, lambda c: [times_table(c)]),
        hashes=_each(parts, lambda c: [hashes_table(c)]),
        asks=_asks(every),
        runs_too=any(c.rows or c.runs or not c.audits for c in parts.values()),
    )


def _each(parts: dict[str, Contents], make: Callable[[Contents], Iterable[Table | None]]) -> list[Table]:
    """The tables of every part, with its name."""
    return [of_part(table, part) for part, c in parts.items() for table in make(c) if table]


def _setting(part: str, contents: Contents, key: tuple[str, str]) -> dict[str, Any]:
    """One data set and network: its verdict, and the details of every forget set if there are several."""
    verdict, name = contents.verdicts[key], in_part(", ".join(key), part)
    sets = {m.forget: contents.forget_name(m.forget) for m in verdict.measurements}
    details = {}
    for forget in sorted(sets, key=forget_order) if len(sets) > 1 else ():
        words, own = f"{name}: forgetting {sets[forget]}", verdict.of(forget)
        details[sets[forget]] = [full_table(own, words), class_table(own, f"{words}, class by class")]
    return {
        "verdict": verdict_table(verdict, f"{name}: what is left"),
        "words": sentences(verdict),
        "full": full_table(verdict, f"{name}: all measurements"),
        "classes": None if details else class_table(verdict, f"{name}: accuracy class by class"),
        "sets": details,
    }


def _asks(contents: Contents) -> dict[str, str]:
    """{metric: what it asks} of all that were measured; the layers of one metric are one."""
    names = sorted({m.metric for audit in contents.audits for m in audit.measurements}, key=metric_order)
    known = (metric(name) for name in names if metric(name).kind != "classes")
    families = [metric(m.family.replace("#", m.number)) for m in known if m.family]
    return {family.label: family.asks for family in families}


def _forgotten(parts: dict[str, Contents]) -> dict[str, str]:
    """{name of a forget set: the set}, in their order."""
    found = {c.forget_name(forget): forget for c in parts.values() for forget, _ in c.trials}
    return dict(sorted(found.items(), key=lambda item: (forget_order(item[1]), item[0])))


def _samples(contents: Contents) -> list[tuple[str, list[tuple[str, bytes]]]]:
    """(heading, (method, image) of all methods) of the first forget sets and seeds."""
    groups = defaultdict(list)
    for (method, base, forget, seed), png in contents.samples:
        groups[f"{base}, forgetting {contents.forget_name(forget)}, seed {seed}"].append((method, png))
    return list(groups.items())[:SHOWN]
