"""What an audit found, as values and as a small table."""

import html
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ispf_jax.runtime.measurements import Measurement, parse_audit
from ispf_jax.runtime.metrics import metric


@dataclass(frozen=True, repr=False)
class AuditResult:
    """What an audit found.

    Attributes:
      content: everything, as `audit.json` has it: "measurements", relearning "curves", the "confusion" of the forgotten
        classes, the "mean_prediction" on their test images, pictures of features, hashes of "weights", settings, and
        what was "not_run".
    """

    content: dict[str, Any]

    @cached_property
    def measurements(self) -> list[Measurement]:
        """All measurements, model by model."""
        return parse_audit(self.content).measurements

    def value(self, model: str, name: str) -> float | None:
        """What the metric of that name found of a model; None if it was not measured, or is not defined."""
        return next((m.value for m in self.measurements if (m.model, m.metric) == (model, name)), None)

    def report(self, path: str | Path):
        """Write a page with tables and figures to `path`, an HTML file."""
        from ispf_jax.report import write_audit_page

        return write_audit_page(self.content, path)

    def _table(self) -> list[list[str]]:
        """Lines of cells: models by the few metrics that a summary shows."""
        names = dict.fromkeys(m.metric for m in self.measurements if metric(m.metric).verdict)
        lines = [["", *(metric(name).label for name in names)]]
        for model in self.content["models"]:
            values = {name: self.value(model, name) for name in names}
            lines.append([model, *("-" if v is None else f"{v:.{metric(n).digits}f}" for n, v in values.items())])
        return lines

    def __repr__(self) -> str:
        lines = self._table()
        widths = [max(map(len, column)) for column in zip(*lines)]
        title = f"Audit: forgetting {', '.join(self.content['forget_names'])}, seed {self.content['seed']}"
        return "\n".join([title, *("  ".join(map(str.rjust, line, widths)) for line in lines)])

    def _repr_html_(self) -> str:
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in self._table())
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"
