"""Reads result rows and measurements, never models or data: numbers, tables, pictures and one page that holds them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ispf_jax.report.paper import paper_tables
from ispf_jax.report.results import result_tables
from ispf_jax.report.tables import to_console, to_markdown
from ispf_jax.report.verdict import class_table, places_table, verdict_table, write_audit_csv, write_averages_csv
from ispf_jax.report.workdir import Contents, missing, of_parts, read
from ispf_jax.runtime.atomic import atomic_write_text, ensure_writable
from ispf_jax.runtime.measurements import parse_audit
from ispf_jax.runtime.provenance import made
from ispf_jax.runtime.rows import write_results

__all__ = ["write_audit_page", "write_combined", "write_report"]


def write_report(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None) -> str:
    """Write all that the finished runs in `workdir` allow, numbers before pictures; return the tables for the console.

    The files are `results.json`, `results.csv`, `audit.csv` and `averages.csv` (if there is an audit), `tables.md`,
    `figures/` and `report/index.html`.
    """
    workdir, contents = Path(workdir), read(workdir, provenance)
    write_results(workdir, contents.rows, provenance)
    if contents.audits:
        write_audit_csv(workdir / "audit.csv", contents.audits)
        write_averages_csv(workdir / "averages.csv", contents.audited)
    atomic_write_text(workdir / "tables.md", _markdown([contents]))
    from ispf_jax.report import page  # brings matplotlib, which takes a second to import

    pictures = page.gallery(contents)
    drawn = page.write_pictures(pictures, workdir / "figures")
    _write_page(workdir, page.render([contents], pictures, drawn))
    results = "\n\n".join(map(to_console, result_tables(contents.rows))) or "no results yet"
    places = map(places_table, contents.audited.values())
    return "\n\n".join([results, *(to_console(table) for table in places if table)])


def write_combined(workdir: str | os.PathLike, parts: list[str]) -> None:
    """The parts of a sweep together: `results.json`, `results.csv` (with a column `part`), `tables.md` and one page.

    Every table is of one part, read with that part's configuration: parts may share data set, network and forget sets.
    Pictures of single runs are on the pages of the parts, which `tables.md` names.
    """
    from ispf_jax.report import page

    workdir, found = Path(workdir), [read(Path(workdir) / part, part=part) for part in parts]
    rows = [replace(row, part=c.part) for c in found for row in c.rows]
    write_results(workdir, rows, {c.part: c.provenance | {"config": c.config} for c in found})
    _write_page(workdir, page.render(found, [picture for c in found for picture in page.gallery(c)]))
    pages = "\n".join(f"- [{part}]({part}/report/index.html)" for part in parts)
    atomic_write_text(workdir / "tables.md", f"{_markdown(found)}\n## Pages of the parts\n\n{pages}\n")


def write_audit_page(content: dict[str, Any], path: str | os.PathLike) -> Path:
    """Write one self-contained page of one audit, from the content of its `audit.json`; no work directory is needed.

    Raises:
      ValueError: the content is not that of an audit.
    """
    from ispf_jax.report import page

    contents = Contents(audits=[parse_audit(content)], provenance={"made": made()})
    return atomic_write_text(path, page.render([contents], page.gallery(contents)))


def _write_page(workdir: Path, text: str) -> None:
    atomic_write_text(ensure_writable(workdir / "report") / "index.html", text)


def _markdown(parts: Sequence[Contents]) -> str:
    """All tables of numbers, one kind after the other, and what is missing."""
    verdicts = [verdict for c in parts for verdict in c.audited.values()]
    tables = of_parts(parts, lambda c: result_tables(c.rows))
    tables += [*map(verdict_table, verdicts), *filter(None, map(class_table, verdicts))]
    text = ["# Results", *["no results yet"] * (not any(c.rows for c in parts))]
    text += map(to_markdown, tables + of_parts(parts, paper_tables))
    said = missing(parts)
    text += ["## Missing", "\n".join(f"- {sentence}" for sentence in said)] if said else []
    return "\n\n".join(text) + "\n"
