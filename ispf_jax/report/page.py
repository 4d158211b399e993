"""`report/index.html`: everything in one file that needs no network and no script."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import jinja2

from ispf_jax.files import atomic_write_text, ensure_writable
from ispf_jax.report import svg
from ispf_jax.report.cells import Place, Table
from ispf_jax.report.figures.style import Picture, panel_svgs
from ispf_jax.report.gallery import Gallery
from ispf_jax.report.health import health_table
from ispf_jax.report.limits import limits
from ispf_jax.report.names import METHOD_NAMES, metric, metric_order
from ispf_jax.report.paper_tables import paper_tables
from ispf_jax.report.provenance import facts, hashes_table, runs_table, times_table
from ispf_jax.report.results import REFERENCES, forget_order, method_order
from ispf_jax.report.table import settings, summary_tables
from ispf_jax.report.verdict import judge
from ispf_jax.report.verdict_tables import class_table, full_table, sentences, verdict_table
from ispf_jax.report.workdir import Contents, unaudited, unfinished

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


def write_page(workdir: str | os.PathLike, contents: Contents, gallery: Gallery) -> Path:
    """Write `report/index.html`."""
    out = ensure_writable(Path(workdir) / "report")
    return atomic_write_text(out / "index.html", render(contents, gallery))


def render(contents: Contents, gallery: Gallery) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ispf_jax.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.globals |= {"place_bar": svg.place_bar, "legend_mark": svg.legend_mark, "panels": _panels, "png": _png, "example": Place(0.3)}
    found = [_setting(contents, *key) for key in settings([*contents.rows, *(vars(a) for a in contents.audits)])]
    return environment.get_template("page.html").render(
        title=_title(contents), subtitle=_subtitle(contents), settings=found, limits=limits(contents),
        missing=unfinished(contents) + unaudited(contents) + [f"{name} is damaged and was set aside." for name in contents.damaged],
        summaries=summary_tables(contents.rows), paper=paper_tables(contents), audits=_shown(gallery.audits), training=_shown(gallery.training),
        accuracy=gallery.accuracy, synthesis=gallery.synthesis, classes=_shown(gallery.classes), hidden=gallery.beyond(SHOWN),
        samples=_samples(contents), health=health_table(contents.runs, contents.audits), facts=facts(contents), runs=runs_table(contents.rows),
        times=times_table(contents), hashes=hashes_table(contents), asks=_asks(contents), names=METHOD_NAMES,
    )


def _setting(contents: Contents, dataset: str, arch: str) -> Setting:
    verdict = judge(contents, dataset, arch)
    name = f"{dataset}, {arch}"
    sets = sorted({run[0] for f in verdict.findings.values() for run in f.runs}, key=forget_order)
    details = []
    for s in sets if len(sets) > 1 else []:
        own, words = judge(contents, dataset, arch, {s}), f"{name}: forgetting {contents.forget_name(s)}"
        details.append((contents.forget_name(s), [t for t in (full_table(own, words), class_table(own, words + ", class by class")) if t]))
    classes = None if details else class_table(verdict, f"{name}: accuracy class by class")
    return Setting(name, verdict_table(verdict, f"{name}: what is left"), sentences(verdict), full_table(verdict, f"{name}: all measurements"),
                   classes, details)


def _title(contents: Contents) -> str:
    sets = _sets(contents)
    if len(sets) == 1:
        several = "," in sets[0]
        return f"What is left of class{'es' if several else ''} {contents.forget_name(sets[0])}?"
    return "What is left of the forgotten classes?"


def _subtitle(contents: Contents) -> list[tuple[str, str]]:
    """(word, what it is) of the first lines: what was forgotten from what, by which methods."""
    rows, sets = contents.rows, _sets(contents)
    seeds = sorted({r["seed"] for r in rows} | {a.seed for a in contents.audits})
    methods = sorted({r["method"] for r in rows} - set(REFERENCES), key=method_order)
    bases = sorted({str(r["base"]) for r in rows if r["method"] not in REFERENCES and r.get("base")})
    forgotten = "; ".join(contents.forget_name(s) for s in sets[:12]) + (f"; and {len(sets) - 12} more" if len(sets) > 12 else "")
    found = [
        ("Forgotten", (f"{len(sets)} sets: " if len(sets) > 1 else "class " if sets else "") + (forgotten or "nothing yet")),
        ("From", "; ".join(f"{a} on {d}" for d, a in settings([*rows, *(vars(x) for x in contents.audits)])) or "no model yet"),
        ("By", (", ".join(METHOD_NAMES.get(m, m) for m in methods) or "no method yet") + (f", base {' and '.join(bases)}" if bases else "")),
        ("Trials", ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)) if seeds else "none yet"),
        ("Audited", f"{len(contents.audits)} of {len({(r['forget'], r['seed']) for r in rows} | {a.key for a in contents.audits})} trials"),
    ]
    return found + ([("Data", contents.data_note)] if contents.data_note else [])


def _asks(contents: Contents) -> list[tuple[str, str]]:
    """(metric, what it asks) of all that were measured; layers of one metric are one."""
    found = {metric(m.metric).label.partition(",")[0] if metric(m.metric).kind in ("layers", "closeness") else metric(m.metric).label: metric(m.metric).asks
             for m in sorted((m for a in contents.audits for m in a.measurements), key=lambda m: metric_order(m.metric))
             if metric(m.metric).kind != "classes"}
    return [(label, asks) for label, asks in found.items() if asks]


def _sets(contents: Contents) -> list[str]:
    return sorted({r["forget"] for r in contents.rows} | {a.forget for a in contents.audits}, key=forget_order)


def _samples(contents: Contents) -> list[tuple[str, list]]:
    """(heading, samples of all methods) of the first forget sets and seeds."""
    groups: dict[tuple, list] = {}
    for sample in contents.samples:
        groups.setdefault((sample.base, sample.forget, sample.seed), []).append(sample)
    return [(f"{base}, forgetting {contents.forget_name(forget)}, seed {seed}", group) for (base, forget, seed), group in list(groups.items())[:SHOWN]]


def _shown(pictures: Sequence[Any]) -> Sequence[Any]:
    return pictures[:SHOWN]


def _panels(picture: Picture) -> list[str]:
    return [_uri("image/svg+xml", data) for data in panel_svgs(picture)]


def _png(data: bytes) -> str:
    return _uri("image/png", data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
