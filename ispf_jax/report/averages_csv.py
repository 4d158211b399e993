"""`averages.csv`: every metric of every model over all its runs, for those who compute on."""

import csv
import io
import os
from pathlib import Path

from ispf_jax.report.verdict import Verdict
from ispf_jax.runtime.atomic import atomic_write_text

FIELDS = (
    "dataset",
    "arch",
    "model",
    "metric",
    "mean",
    "population_std",
    "sample_std",
    "forget_sets",
    "seeds",
    "runs",
    "undefined",
    "place",
)
"""Mean over the forget sets of a seed, then over seeds; both standard deviations over the seeds' means, empty with one seed."""


def write_averages_csv(workdir: str | os.PathLike, verdicts: dict[tuple[str, str], Verdict]) -> Path:
    """Write one line per model and metric; `undefined` of the `runs` have no value and are not in the mean."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(FIELDS)
    for setting, verdict in verdicts.items():
        for model in verdict.models:
            for name in verdict.metrics:
                if finding := verdict.findings.get((model, name)):
                    numbers = ("" if x != x else x for x in (finding.value, finding.std, finding.sample_std))
                    sets, seeds = ({run[axis] for run in finding.runs} for axis in (0, 1))
                    place = finding.place.at if finding.place else ""
                    table.writerow(
                        [
                            *setting,
                            model,
                            name,
                            *numbers,
                            len(sets),
                            len(seeds),
                            len(finding.runs),
                            len(finding.runs) - len(finding.defined),
                            place,
                        ]
                    )
    return atomic_write_text(Path(workdir) / "averages.csv", text.getvalue())
