"""The page: everything in one file that needs no network and no script."""

import base64
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import jinja2

from ispf_jax.report import runs, summary, verdict
from ispf_jax.report.figures import audits as of_audits
from ispf_jax.report.figures import runs as of_runs
from ispf_jax.report.figures.style import Picture, draw
from ispf_jax.report.names import TEXTS, shown
from ispf_jax.report.paper import paper_tables
from ispf_jax.report.results import grouped, result_tables
from ispf_jax.report.tables import Place
from ispf_jax.report.workdir import Contents, missing, of_parts
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable
from ispf_jax.runtime.metrics import metric, metric_order
from ispf_jax.runtime.rows import REFERENCES, forget_order, method_order

SHOWN = 3
"""Pictures of so many forget sets and seeds are on the page; those of the others are in `figures/` only."""

_MOST = {"accuracy": None, "synthesis": None, "losses": 0, "training": SHOWN, "classes": SHOWN, "audits": SHOWN}
"""Pictures by section, at most; all where they are not of single runs; losses are in `figures/` only."""


def gallery(contents: Contents) -> list[Picture]:
    """The pictures of everything there is, in the order of the page.

    Of a part of a sweep these are the ones that sum it up; all others are on its own page.
    """
    found, synthesis = of_runs.accuracy_bars(contents), of_runs.synthesis_against_accuracy(contents)
    if contents.part:
        return found + synthesis
    for audit in contents.audits:
        about = f"forgetting {contents.forget_name(audit.forget)}, seed {audit.seed}"
        found += of_audits.pictures(audit, about, contents.bases)
    found += of_runs.training_curves(contents.runs) + of_runs.class_histograms(contents.runs)
    return found + synthesis + of_runs.loss_curves(contents.runs)


def on_page(pictures: Iterable[Picture]) -> dict[str, list[list[Picture]]]:
    """What the page shows: {section: [pictures of one run]}."""
    found = grouped(pictures, lambda p: p.kind if p.kind in _MOST else "audits")
    return {name: list(grouped(found.get(name, []), lambda p: p.slug).values())[:most] for name, most in _MOST.items()}


def write_pictures(pictures: list[Picture], folder: Path) -> dict[str, bytes]:
    """Write every picture as SVG and PNG; returns {name: SVG}, so that they are drawn once."""
    drawn = {}
    for picture in pictures:
        files = dict(zip(("svg", "png"), draw(picture, "svg", "png")))
        for kind, data in files.items():
            atomic_write_bytes(ensure_writable(folder) / f"{picture.name}.{kind}", data)
        drawn[picture.name] = files["svg"]
    return drawn


def render(parts: list[Contents], pictures: list[Picture], drawn: dict[str, bytes] | None = None) -> str:
    """The page as text: of one work directory, or of the parts of a sweep, each with separate tables.

    Args:
      drawn: {name: SVG} of pictures that are drawn already.
    """
    blocks = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=jinja2.PackageLoader("ispf_jax.report"), autoescape=True, **blocks)
    every = Contents(rows=[r for c in parts for r in c.rows], audits=[a for c in parts for a in c.audits])
    sections, students = on_page(pictures), [model.split("/") for model in every.models if model not in REFERENCES]
    names = {c.forget_name(forget): forget for c in parts for forget, _ in c.trials}
    shown_here = sum(len(group) for groups in sections.values() for group in groups)
    metrics = sorted({m.metric for audit in every.audits for m in audit.measurements}, key=metric_order)
    families = [
        metric(metric(name).family.replace("#", metric(name).number)) for name in metrics if metric(name).family
    ]
    single = parts[0] if not parts[0].part else Contents()
    return environment.get_template("page.html").render(
        uri=lambda kind, data: f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        svg=lambda picture: (drawn or {}).get(picture.name) or draw(picture, "svg")[0],
        shown=shown,
        captions=TEXTS["captions"],
        example=Place(0.3),
        every=every,
        contents=parts,
        parts=[c.part for c in parts if c.part],
        sets=dict(sorted(names.items(), key=lambda item: (forget_order(item[1]), item[0]))),
        methods=sorted({method for method, *_ in students}, key=method_order),
        bases=sorted({base for _, *of in students for base in of}),
        data_notes=dict.fromkeys(c.data_note for c in parts if c.data_note),
        of_runs=runs,
        facts=[fact for c in parts for fact in runs.facts(c)],
        of_verdict=verdict,
        of_summary=summary,
        tables=partial(of_parts, parts),
        missing=missing(parts),
        results=of_parts(parts, lambda c: result_tables(c.rows)),
        paper=of_parts(parts, paper_tables),
        pictures=sections,
        hidden=sum(p.kind != "losses" for p in pictures) - shown_here,
        samples=list(grouped(single.samples, lambda sample: sample[0][1:]).items())[:SHOWN],
        asks={family.label: family.asks for family in families if family.kind != "classes"},
        runs_too=any(c.rows or c.runs or not c.audits for c in parts),
    )
