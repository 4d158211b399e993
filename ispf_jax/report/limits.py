"""What a reader must know before using a number: what each needed, what was not measured, and what none of them can say."""

from collections import Counter
from dataclasses import dataclass

from ispf_jax.report.names import TIERS, metric, metric_order, model_name
from ispf_jax.report.workdir import Contents

ALWAYS = (
    "This is a measurement, not a certificate: a class may be left in a way that nothing here looks at.",
    "The headline is the last epoch. What is marked * was selected on test images, as the paper does, and is for comparison only.",
    "Forget accuracy alone says little: a masked head, which hides the class and forgets nothing, has none either.",
)


@dataclass(frozen=True)
class Limits:
    """Sentences; (tier, metrics that needed it); (metric, why it was not measured)."""

    sentences: list[str]
    tiers: list[tuple[str, str]]
    not_run: list[tuple[str, str]]


def limits(contents: Contents) -> Limits:
    """The limits of the numbers of a work directory."""
    measured = [m for audit in contents.audits for m in audit.measurements]
    said = list(ALWAYS)
    if any(m.metric == "mia1" for m in measured):
        said.append(
            "MIA-I saturates: it is 0 or 100 for any model that gives the class no confidence, a masked head included."
        )
    if contents.rows and all(r["acc_overall"] is None for r in contents.rows):
        said.append("There were no test images: no accuracy was measured, the original's neither.")
    ways = Counter(r["computed"] for r in contents.rows if r.get("computed"))
    if len(ways) > 1:
        said.append(
            "Results were computed in several ways, which may round differently; training amplifies that as another seed would: "
            + "; ".join(f"{way} ({count} result{'s' * (count > 1)})" for way, count in sorted(ways.items()))
            + "."
        )
    seeds, sets = len({a.seed for a in contents.audits}), len({a.forget for a in contents.audits})
    if measured and (seeds < 3 or sets < 2):
        said.append(
            f"{sets} forget set{'s' * (sets > 1)} and {seeds} training seed{'s' * (seeds > 1)} were audited; results vary with both."
        )
    tiers = {}
    for m in sorted(measured, key=lambda m: metric_order(m.metric)):
        tiers.setdefault(m.tier or "not said", {})[metric(m.metric).label.partition(",")[0]] = None
    order = sorted(tiers, key=lambda tier: TIERS.index(tier) if tier in TIERS else len(TIERS))
    not_run = dict.fromkeys((entry["metric"], entry["why"]) for audit in contents.audits for entry in audit.not_run)
    undefined: dict[tuple[str, str], dict[str, None]] = {}
    for m in measured:
        if m.value is None:
            note = f": {m.note}" if m.note not in ("", "undefined") else ""
            undefined.setdefault((metric(m.metric).label, note), {})[model_name(m.model, contents.bases)] = None
    undefined = [(label, f"undefined for {', '.join(models)}{note}") for (label, note), models in undefined.items()]
    return Limits(said, [(tier, ", ".join(tiers[tier])) for tier in order], [*not_run, *undefined])
