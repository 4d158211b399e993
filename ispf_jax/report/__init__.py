"""Reads run directories, never models or data: tables, figures, `results.json` and `results.csv`."""

import os
from pathlib import Path
from typing import Any

from ispf_jax.report.results import load_runs, read_rows, write_results
from ispf_jax.files import atomic_write_text
from ispf_jax.report.cells import to_markdown
from ispf_jax.report.table import summary_table, summary_tables


def write_report(workdir: str | os.PathLike, provenance: dict[str, Any] | None = None) -> str:
    """Write everything that the finished runs in `workdir` allow, numbers before pictures; return the table for the console.

    Left are `results.json`, `results.csv`, `tables.md` and the pictures in `figures/`.
    """
    from ispf_jax.report import figures  # matplotlib takes a second to import: only when something is drawn

    rows, runs, out_dir = read_rows(workdir), load_runs(workdir), Path(workdir) / "figures"
    write_results(workdir, rows, provenance)
    atomic_write_text(Path(workdir) / "tables.md", "\n".join(map(to_markdown, summary_tables(rows))))
    figures.accuracy_bars(rows, out_dir)
    figures.training_curves(runs, out_dir)
    figures.loss_curves(runs, out_dir)
    return summary_table(rows)
