"""The pictures of the report. Matplotlib, which takes a second to import, is imported here and nowhere else."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from ispf_jax.report.figures import audits, runs
from ispf_jax.report.figures.style import Picture
from ispf_jax.report.tables import in_part
from ispf_jax.report.workdir import Contents

SHOWN = 3
"""Pictures of so many forget sets and seeds are on the page; those of the others are in `figures/` only."""

_MOST = {"accuracy": None, "audits": SHOWN, "training": SHOWN, "classes": SHOWN, "synthesis": None, "losses": 0}


def gallery(contents: Contents) -> list[Picture]:
    """The pictures of everything there is, in the order of the page."""
    found = runs.accuracy_bars(contents.rows)
    for audit in contents.audits:
        about = f"forgetting {contents.forget_name(audit.forget)}, seed {audit.seed}"
        found += audits.pictures(audit, about, contents.bases)
    found += runs.training_curves(contents.runs) + runs.class_histograms(contents.runs)
    return found + runs.synthesis_against_accuracy(contents) + runs.loss_curves(contents.runs)


def combined_gallery(parts: dict[str, Contents]) -> list[Picture]:
    """The pictures that sum up a part, for every part of a sweep; all others are on the parts' own pages."""
    return [
        replace(p, slug=f"{p.slug}_{part}", title=(p.title[0], in_part(p.title[1], part)))
        for part, c in parts.items()
        for p in (*runs.accuracy_bars(c.rows), *runs.synthesis_against_accuracy(c))
    ]


def on_page(pictures: Iterable[Picture]) -> dict[str, list[list[Picture]]]:
    """What the page shows: {section: [pictures of one run]}."""
    sections = {section: defaultdict(list) for section in _MOST}
    for picture in pictures:
        sections[picture.section][picture.slug].append(picture)
    return {section: list(runs.values())[: _MOST[section]] for section, runs in sections.items()}
