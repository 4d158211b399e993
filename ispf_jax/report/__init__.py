"""Reads run directories, never models or data: numbers, tables, pictures and one page that holds them all."""

import os
from pathlib import Path
from typing import Any

from ispf_jax.files import atomic_write_text
from ispf_jax.report import workdir as reading
from ispf_jax.report.audits import write_audit_csv
from ispf_jax.report.averages_csv import write_averages_csv
from ispf_jax.report.cells import to_console, to_markdown
from ispf_jax.report.paper_tables import paper_tables
from ispf_jax.report.results import write_results
from ispf_jax.report.table import settings, summary_table, summary_tables
from ispf_jax.report.verdict import judge
from ispf_jax.report.verdict_tables import class_table, places_table, verdict_table


def write_report(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None) -> str:
    """Write everything that the finished runs in `workdir` allow, numbers before pictures; return the table for the console.

    Left are `results.json`, `results.csv`, `audit.csv` and `averages.csv` (if there is an audit), `tables.md`, `figures/` and
    `report/index.html`.
    """
    contents = reading.read(workdir, provenance)
    write_results(workdir, contents.rows, provenance)
    if contents.audits:
        write_audit_csv(workdir, contents.audits)
    verdicts = {key: judge(contents, *key) for key in settings([vars(audit) for audit in contents.audits])}
    if verdicts:
        write_averages_csv(workdir, verdicts)
    atomic_write_text(Path(workdir) / "tables.md", _markdown(contents, verdicts))

    from ispf_jax.report.figures.style import write  # matplotlib takes a second to import: only when something is drawn
    from ispf_jax.report.gallery import gallery
    from ispf_jax.report.page import write_page

    pictures = gallery(contents)
    write_page(workdir, contents, pictures)
    write(pictures.all, Path(workdir) / "figures")
    places = [to_console(table) for verdict in verdicts.values() if (table := places_table(verdict))]
    return "\n\n".join([summary_table(contents.rows), *places])


def write_combined(workdir: str | os.PathLike, parts: list[str]) -> None:
    """The parts of a sweep side by side: `results.json`, `results.csv`, `tables.md` and one page of all.

    Pictures of training are on the pages of the parts, which `tables.md` names.
    """
    found = [reading.read(Path(workdir) / part) for part in parts]
    contents = reading.Contents(
        rows=[row for c in found for row in c.rows], audits=[audit for c in found for audit in c.audits],
        class_names=found[0].class_names,
    )  # fmt: skip
    write_results(workdir, contents.rows, {part: c.provenance | {"config": c.config} for part, c in zip(parts, found)})
    verdicts = {key: judge(contents, *key) for key in settings([vars(audit) for audit in contents.audits])}
    pages = "\n".join(f"- [{part}]({part}/report/index.html)" for part in parts)
    missing = [f"{part}: {sentence}" for part, c in zip(parts, found) for sentence in reading.unfinished(c)]
    text = _tables(contents, verdicts, missing)
    from ispf_jax.report.gallery import gallery
    from ispf_jax.report.page import write_page

    write_page(workdir, contents, gallery(contents))
    atomic_write_text(Path(workdir) / "tables.md", f"{text}\n## Pages of the parts\n\n{pages}\n")


def _markdown(contents: reading.Contents, verdicts: dict) -> str:
    return _tables(contents, verdicts, reading.unfinished(contents) + reading.unaudited(contents))


def _tables(contents: reading.Contents, verdicts: dict, missing: list[str]) -> str:
    """All tables of numbers, and what is missing."""
    parts = ["# Results", *map(to_markdown, summary_tables(contents.rows))] if contents.rows else ["# Results", "no results yet"]
    parts += [to_markdown(verdict_table(verdict, f"What is left: {', '.join(key)}")) for key, verdict in verdicts.items()]
    parts += [to_markdown(table) for key, verdict in verdicts.items() if (table := class_table(verdict, f"Class by class: {', '.join(key)}"))]
    parts += map(to_markdown, paper_tables(contents))
    parts += ["## Missing", "\n".join(f"- {sentence}" for sentence in missing)] if missing else []
    return "\n\n".join(parts) + "\n"
