"""`report/index.html`: everything in one file that needs no network and no script."""

import base64
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ispf_jax.report import svg
from ispf_jax.report.cells import Place, Table, in_part
from ispf_jax.report.figures.style import Picture, panel_svgs
from ispf_jax.report.gallery import Gallery
from ispf_jax.report.health import health_table
from ispf_jax.report.limits import limits
from ispf_jax.report.names import METHOD_NAMES, metric, metric_order
from ispf_jax.report.paper_tables import paper_tables
from ispf_jax.report.provenance import facts, hashes_table, runs_table, times_table
from ispf_jax.report.table import settings, summary_tables
from ispf_jax.report.verdict import judge
from ispf_jax.report.verdict_tables import class_table, full_table, sentences, verdict_table
from ispf_jax.report.workdir import Contents, missing
from ispf_jax.runtime.atomic import atomic_write_text, ensure_writable
from ispf_jax.runtime.rows import REFERENCES, forget_order, method_order

SHOWN = 3
"""Pictures of so many forget sets and seeds are on the page; those of the others are in `figures/` only."""


@dataclass(frozen=True)
class Setting:
    """One data set and network: its verdict, and the details of every forget set."""

    name: str
    verdict: Table
    words: list[tuple[str, str]]
    full: Table
    classes: Table | None
    sets: list[tuple[str, list[Table]]]

    @property
    def placed(self) -> bool:
        """Whether anything has a place, so that the scale must be explained."""
        return any(cell.place for row in self.verdict.rows for cell in row)


def write_page(workdir: str | os.PathLike, parts: dict[str, Contents], gallery: Gallery) -> Path:
    """Write `report/index.html`; see `render`."""
    out = ensure_writable(Path(workdir) / "report")
    return atomic_write_text(out / "index.html", render(parts, gallery))


def render(parts: dict[str, Contents], gallery: Gallery) -> str:
    """The page as text: of one work directory, {"": contents}, or of the parts of a sweep, each with tables of its own."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ispf_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "place_bar": svg.place_bar,
        "legend_mark": svg.legend_mark,
        "panels": _panels,
        "png": _png,
        "example": Place(0.3),
    }
    every = Contents(
        rows=[r for c in parts.values() for r in c.rows], audits=[a for c in parts.values() for a in c.audits]
    )
    found = [
        _setting(part, c, *key)
        for part, c in parts.items()
        for key in settings([*c.rows, *(vars(a) for a in c.audits)])
    ]
    combined = "" not in parts
    return environment.get_template("page.html").render(
        title=_title(parts),
        subtitle=_subtitle(parts, every),
        settings=found,
        limits=limits(every),
        missing=missing(parts),
        summaries=_each(parts, lambda c: summary_tables(c.rows)),
        paper=_each(parts, paper_tables),
        audits=_shown(gallery.audits),
        training=_shown(gallery.training),
        accuracy=gallery.accuracy,
        synthesis=gallery.synthesis,
        classes=_shown(gallery.classes),
        hidden=gallery.beyond(SHOWN),
        samples=[] if combined else [group for c in parts.values() for group in _samples(c)],
        health=_each(parts, lambda c: [health_table(c.runs, c.audits)]),
        runs=_each(parts, lambda c: [runs_table(c.rows)]),
        facts=[(in_part(name, part), pairs) for part, c in parts.items() for name, pairs in facts(c)],
        times=_each(parts, lambda c: [times_table(c)]),
        hashes=_each(parts, lambda c: [hashes_table(c)]),
        asks=_asks(every),
        names=METHOD_NAMES,
        pages=[f"{part}/report/index.html" for part in parts] if combined else [],
    )


def _each(parts: dict[str, Contents], make: Callable[[Contents], Iterable[Table | None]]) -> list[Table]:
    """The tables of every part, with its name."""
    return [table.of_part(part) for part, c in parts.items() for table in make(c) if table]


def _setting(part: str, contents: Contents, dataset: str, arch: str) -> Setting:
    verdict = judge(contents, dataset, arch)
    name = in_part(f"{dataset}, {arch}", part)
    sets = sorted({run[0] for f in verdict.findings.values() for run in f.runs}, key=forget_order)
    details = []
    for s in sets if len(sets) > 1 else []:
        own, words = judge(contents, dataset, arch, {s}), f"{name}: forgetting {contents.forget_name(s)}"
        details.append(
            (
                contents.forget_name(s),
                [t for t in (full_table(own, words), class_table(own, words + ", class by class")) if t],
            )
        )
    classes = None if details else class_table(verdict, f"{name}: accuracy class by class")
    return Setting(
        name,
        verdict_table(verdict, f"{name}: what is left"),
        sentences(verdict),
        full_table(verdict, f"{name}: all measurements"),
        classes,
        details,
    )


def _title(parts: dict[str, Contents]) -> str:
    sets = _forgotten(parts)
    if len(sets) == 1:
        ((name, ids),) = sets.items()
        return f"What is left of class{'es' if len(ids) > 1 else ''} {name}?"
    return "What is left of the forgotten classes?"


def _subtitle(parts: dict[str, Contents], every: Contents) -> list[tuple[str, str]]:
    """(word, what it is) of the first lines: what was forgotten from what, by which methods; `every`: all rows and audits."""
    rows, sets = every.rows, list(_forgotten(parts))
    seeds = sorted({r["seed"] for r in rows} | {a.seed for a in every.audits})
    methods = sorted({r["method"] for r in rows} - set(REFERENCES), key=method_order)
    bases = sorted({str(r["base"]) for r in rows if r["method"] not in REFERENCES and r.get("base")})
    forgotten = "; ".join(sets[:12]) + (f"; and {len(sets) - 12} more" if len(sets) > 12 else "")
    trials = sum(len({(r["forget"], r["seed"]) for r in c.rows} | {a.key for a in c.audits}) for c in parts.values())
    notes = dict.fromkeys(c.data_note for c in parts.values() if c.data_note)
    found = [
        (
            "Forgotten",
            (f"{len(sets)} sets: " if len(sets) > 1 else "class " if sets else "") + (forgotten or "nothing yet"),
        ),
        (
            "From",
            "; ".join(
                f"{a} without images" if d == "none" else f"{a} on {d}"
                for d, a in settings([*rows, *(vars(x) for x in every.audits)])
            )
            or "no model yet",
        ),
        (
            "By",
            (", ".join(METHOD_NAMES.get(m, m) for m in methods) or "no method yet")
            + (f", base {' and '.join(bases)}" if bases else ""),
        ),
        ("Trials", ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)) if seeds else "none yet"),
        ("Audited", f"{len(every.audits)} of {trials} trials"),
    ]
    return (
        found + ([] if "" in parts else [("Parts", ", ".join(parts))]) + ([("Data", "; ".join(notes))] if notes else [])
    )


def _asks(contents: Contents) -> list[tuple[str, str]]:
    """(metric, what it asks) of all that were measured; layers of one metric are one."""
    found = {
        metric(m.metric).label.partition(",")[0]
        if metric(m.metric).kind in ("layers", "closeness")
        else metric(m.metric).label: metric(m.metric).asks
        for m in sorted((m for a in contents.audits for m in a.measurements), key=lambda m: metric_order(m.metric))
        if metric(m.metric).kind != "classes"
    }
    return [(label, asks) for label, asks in found.items() if asks]


def _forgotten(parts: dict[str, Contents]) -> dict[str, list[int]]:
    """{what a forget set is called: its classes}, each set once, in their order."""
    found = {
        c.forget_name(s): forget_order(s)
        for c in parts.values()
        for s in {r["forget"] for r in c.rows} | {a.forget for a in c.audits}
    }
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _samples(contents: Contents) -> list[tuple[str, list]]:
    """(heading, samples of all methods) of the first forget sets and seeds."""
    groups: dict[tuple, list] = {}
    for sample in contents.samples:
        groups.setdefault((sample.base, sample.forget, sample.seed), []).append(sample)
    return [
        (f"{base}, forgetting {contents.forget_name(forget)}, seed {seed}", group)
        for (base, forget, seed), group in list(groups.items())[:SHOWN]
    ]


def _shown(pictures: Sequence[Any]) -> Sequence[Any]:
    return pictures[:SHOWN]


def _panels(picture: Picture) -> list[str]:
    return [_uri("image/svg+xml", data) for data in panel_svgs(picture)]


def _png(data: bytes) -> str:
    return _uri("image/png", data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
