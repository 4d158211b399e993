"""Reads run directories, never models or data: numbers, tables, pictures and one page that holds them all."""

import os
from pathlib import Path
from typing import Any

from ispf_jax.report import workdir as reading
from ispf_jax.report.audits import write_audit_csv
from ispf_jax.report.averages_csv import write_averages_csv
from ispf_jax.report.cells import Table, to_console, to_markdown
from ispf_jax.report.paper_tables import paper_tables
from ispf_jax.report.table import settings, summary_table, summary_tables
from ispf_jax.report.verdict import judge
from ispf_jax.report.verdict_tables import class_table, places_table, verdict_table
from ispf_jax.runtime.atomic import atomic_write_text
from ispf_jax.runtime.rows import write_results


def write_report(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None) -> str:
    """Write everything that the finished runs in `workdir` allow, numbers before pictures; return the table for the console.

    Left are `results.json`, `results.csv`, `audit.csv` and `averages.csv` (if there is an audit), `tables.md`, `figures/` and
    `report/index.html`.
    """
    contents = reading.read(workdir, provenance)
    write_results(workdir, contents.rows, provenance)
    if contents.audits:
        write_audit_csv(workdir, contents.audits)
    verdicts = {key: judge(contents, *key) for key in _settings(contents)}
    if verdicts:
        write_averages_csv(workdir, verdicts)
    atomic_write_text(Path(workdir) / "tables.md", _markdown({"": contents}))

    from ispf_jax.report.figures.style import write  # matplotlib takes a second to import: only when something is drawn
    from ispf_jax.report.gallery import gallery
    from ispf_jax.report.page import write_page

    pictures = gallery(contents)
    write_page(workdir, {"": contents}, pictures)
    write(pictures.all, Path(workdir) / "figures")
    places = [to_console(table) for verdict in verdicts.values() if (table := places_table(verdict))]
    return "\n\n".join([summary_table(contents.rows), *places])


def write_combined(workdir: str | os.PathLike, parts: list[str]) -> None:
    """The parts of a sweep side by side: `results.json`, `results.csv` (with a column `part`), `tables.md` and one page of all.

    Every table is of one part, read beside that part's configuration: parts may share data set, network and forget sets. Pictures of
    single runs are on the pages of the parts, which `tables.md` names.
    """
    found = {part: reading.read_part(Path(workdir) / part) for part in parts}
    rows = [row | {"part": part} for part, c in found.items() for row in c.rows]
    write_results(workdir, rows, {part: c.provenance | {"config": c.config} for part, c in found.items()})
    from ispf_jax.report.gallery import combined_gallery
    from ispf_jax.report.page import write_page

    write_page(workdir, found, combined_gallery(found))
    pages = "\n".join(f"- [{part}]({part}/report/index.html)" for part in parts)
    atomic_write_text(Path(workdir) / "tables.md", f"{_markdown(found)}\n## Pages of the parts\n\n{pages}\n")


def _settings(contents: reading.Contents) -> list[tuple[str, str]]:
    """The (data set, network) of all audits."""
    return list(settings([vars(audit) for audit in contents.audits]))


def _markdown(parts: dict[str, reading.Contents]) -> str:
    """All tables of numbers, one kind after the other, and what is missing."""
    kinds = zip(*([[table.of_part(part) for table in kind] for kind in _tables(c)] for part, c in parts.items()))
    shown = [to_markdown(table) for kind in kinds for tables in kind for table in tables]
    text = ["# Results", *([] if any(c.rows for c in parts.values()) else ["no results yet"]), *shown]
    missing = reading.missing(parts)
    text += ["## Missing", "\n".join(f"- {sentence}" for sentence in missing)] if missing else []
    return "\n\n".join(text) + "\n"


def _tables(contents: reading.Contents) -> list[list[Table]]:
    """The tables of one work directory by kind: results, what is left, classes, the paper's."""
    verdicts = {", ".join(key): judge(contents, *key) for key in _settings(contents)}
    left = [verdict_table(verdict, f"What is left: {name}") for name, verdict in verdicts.items()]
    classes = [
        table for name, verdict in verdicts.items() if (table := class_table(verdict, f"Class by class: {name}"))
    ]
    return [summary_tables(contents.rows), left, classes, paper_tables(contents)]
