"""What was run, sorted for the paper's tables: one block for every data set, network and base."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ispf_jax.report import paper
from ispf_jax.report.averages import Average, RunKey, average
from ispf_jax.report.names import METHOD_NAMES
from ispf_jax.report.table import BEST_TEST, settings
from ispf_jax.report.verdict import judge
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.rows import REFERENCES, Row, forget_order

_ORDER = (
    "original",
    "dfkd",
    "retrain",
    "masked_head",
    "retrained_head",
    "blockf",
    "gkt",
    "is",
    "pf",
    "ispf",
    "pd",
    "pd_is",
)
_TITLES = {"svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "allcnn": "AllCNN", "resnet18": "ResNet18"}
_FIELDS = {"A_f": "acc_forget", "A_r": "acc_retain"}
_AUDITED = {"MIA-I": "mia1", "MIA-II": "mia2", "AIN": "ain"}


@dataclass(frozen=True)
class Block:
    """All runs of one data set and network with one base, and the paper's data set to read them beside.

    Attributes:
      values: {(method, head of the column): {run: value}}.
      beside, reasons: see `paper.counterpart`; bounds: (forget set, what makes an AIN of it no exact number).
    """

    dataset: str
    arch: str
    base: str
    values: dict[tuple[str, str], dict[RunKey, float]]
    beside: str | None = None
    reasons: list[str] = field(default_factory=list)
    bounds: list[tuple[str, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{_TITLES.get(self.dataset, self.dataset)}, {_TITLES.get(self.arch, self.arch)}" + (
            f" ({self.base})" if self.base else ""
        )

    @property
    def sets(self) -> list[str]:
        """All forget sets, in their order."""
        return sorted({run[0] for runs in self.values.values() for run in runs}, key=forget_order)

    @property
    def methods(self) -> list[str]:
        return sorted(
            {method for method, _ in self.values}, key=lambda m: _ORDER.index(m) if m in _ORDER else len(_ORDER)
        )

    def runs(self, method: str, metric: str, sets: Iterable[str]) -> dict[RunKey, float]:
        return {run: value for run, value in self.values.get((method, metric), {}).items() if run[0] in sets}

    def over(self, method: str, metric: str, sets: Iterable[str]) -> Average | None:
        return average(self.runs(method, metric, sets))

    def notes(self, compared: bool) -> tuple[str, ...]:
        """How to read the table beside the paper; `compared`: whether it holds numbers of the paper."""
        if not compared:
            return (f"The paper has no numbers for {self.title}{', forgetting these classes' if self.beside else ''}.",)
        small = "Small print: the paper's number and our difference to it; differences of more than one point (AIN 0.1) are marked."
        return (small, *(["Not comparable: " + "; ".join(self.reasons) + "."] if self.reasons else []))


def blocks(contents: Contents) -> list[Block]:
    """All blocks of a work directory, by data set, network and base."""
    found = []
    for (dataset, arch), rows in settings(contents.rows).items():
        beside, reasons = paper.counterpart(dataset, arch, contents.config, contents.data_note)
        audited = judge(contents, dataset, arch).findings
        bases = sorted({str(r.get("base") or "") for r in rows if r["method"] not in REFERENCES}) or [""]
        for base in bases:
            bounds = []
            values = _row_values([r for r in rows if r["method"] in REFERENCES or str(r.get("base") or "") == base])
            for (model, name), finding in audited.items():
                method, _, of = model.partition("/")
                for head in (h for h, n in _AUDITED.items() if n == name and of in ("", base)):
                    values[method, head] = {run: m.value for run, m in finding.defined.items()}
                    bounds += sorted(
                        (run[0], f"{METHOD_NAMES.get(method, method)}: {m.note}")
                        for run, m in finding.runs.items()
                        if head == "AIN" and m.note not in ("", "exact")
                    )
            for run in contents.runs:
                kept = [r["kept"] for r in run.records if isinstance(r.get("kept"), (int, float))]
                if kept and run.base == base and (run.method, "A_r") in values:
                    values.setdefault((run.method, "samples"), {})[run.forget, run.seed] = sum(kept) / len(kept)
            found.append(Block(dataset, arch, base, values, beside, reasons, bounds))
    return found


def _row_values(rows: list[Row]) -> dict[tuple[str, str], dict[RunKey, float]]:
    """Accuracies by (method, head), A_f* and A_r* from the best-on-test rows. Original and DFKD get the accuracy on all classes twice."""
    values: dict[tuple[str, str], dict[RunKey, Any]] = {}
    for r in rows:
        star = "*" if r["selection"] == BEST_TEST else ""
        whole = r["method"] in ("original", "dfkd")
        for head, name in _FIELDS.items():
            value = r.get("acc_overall" if whole else name)
            if isinstance(value, (int, float)):
                values.setdefault((r["method"], head + star), {})[r["forget"], r["seed"]] = value
    return values
