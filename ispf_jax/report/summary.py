"""The first lines of the page, for readers without the field: what was removed, how it was tested, what was found and
what was not tested; which models fail; and how models compare on the same images."""

from scipy.stats import binomtest

from ispf_jax.report.results import grouped
from ispf_jax.report.tables import MISSING, Table, make_table
from ispf_jax.report.verdict import Verdict, overlap
from ispf_jax.report.workdir import Contents
from ispf_jax.runtime.metrics import TIERS, metric
from ispf_jax.runtime.rows import REFERENCES

_TESTED = dict(zip(TIERS, ("the weights", "test images", "training images", "a model trained without the class")))
_CERTAIN = 0.05


def summary(contents: Contents, verdict: Verdict) -> list[str]:
    """Two sentences about one data set and network; none where nothing was measured."""
    students = [model for model in verdict.models if model not in REFERENCES]
    if not students:
        return []
    sets = [contents.forget_name(forget) for forget in verdict.forget_sets]
    one = len(sets) == 1 and "," not in verdict.forget_sets[0]
    names = list(dict.fromkeys(map(verdict.name, students)))
    tiers = [_TESTED[tier] for tier in TIERS if any(m.tier == tier for m in verdict.measurements)]
    what = f"Class {sets[0]} was to be" if one else f"Classes {'; '.join(sets)} were to be"
    removed = f"{what} removed from an image classifier by {_listed(names)}, and what is left was tested with"
    first = f"{removed} {_listed(tiers)}."
    lacking = [entry[1] for audit in contents.audits for entry in audit.not_run if entry[1].startswith("needs ")]
    needed = dict.fromkeys(part for why in lacking for part in why.removeprefix("needs ").split(" and "))
    untested = f" Not tested: whatever needs {_listed(list(needed))}." if needed else ""
    untested = untested if contents.audits else " Nothing else was tested."
    return [first, "; ".join(filter(None, (_found(verdict, model, one) for model in students))) + "." + untested]


def _found(verdict: Verdict, model: str, one: bool) -> str:
    """What was found of one model, in words; `one`: a single class was removed."""
    name, said, removed = verdict.name(model), [], "class" if one else "classes"
    it = "it" if one else "them"
    for metric_, verb in (
        ("accuracy/forget", f"recognises {{}} of the images of the removed {removed}"),
        ("accuracy/retain", "recognises {} of all others"),
        (
            "mass/inverted",
            f"gives the removed {removed} a mean probability of {{}} on images made from the original to show {it}",
        ),
    ):
        mine, before = (verdict.findings.get((of, metric_)) for of in (model, "original"))
        if mine and mine.defined and not (metric_ == "mass/inverted" and said):
            was = f" (before: {before.text})" if before and before.defined else ""
            said.append(verb.format(mine.text) + was)
    words = f"{name} {' and '.join(said)}".replace("and recognises", "and") if said else ""
    residue = verdict.residue(model)
    if residue:
        alike = [f for f in residue if overlap(f, verdict.findings["retrain", f.metric])]
        more = sum(f.place.at > 0 for f in residue if f not in alike)
        tried = f"{more or 'none'} of {len(residue)} attempts to recover the {removed}"
        words += f"; {tried} got {'' if more else 'measurably '}more than from a model that never saw {it}"
        words += f", and {len(alike)} showed no measurable difference" if more and alike else ""
    return words


def failures(verdict: Verdict) -> list[str]:
    """Models that are no classifiers any more: at chance on retained classes, or with one class for all images."""
    classes = [name for name in verdict.metrics if metric(name).kind == "classes"]
    said = []
    for model in verdict.models if len(classes) > 1 else ():
        retained, chance = verdict.findings.get((model, "accuracy/retain")), 100 / len(classes)
        shares = [f.average.mean for name in classes if (f := verdict.findings.get((model, name))) and f.defined]
        if shares and max(shares) == 100 and sum(shares) == 100:
            said.append(f"{verdict.name(model)} fails: it gives one class to all images.")
        elif retained and retained.defined and retained.interval[0] <= chance:
            found = f"{retained.text} of the images of retained classes, where guessing gets {chance:.1f} %"
            said.append(f"{verdict.name(model)} fails: it recognises {found}.")
    return said


def pairs_table(contents: Contents) -> Table | None:
    """Every two models on the same test images; counts of several forget sets are added, seeds are kept apart."""
    pooled = grouped(
        ((audit.seed, pair) for audit in contents.audits for pair in audit.paired), lambda item: (*item[1][:3], item[0])
    )
    lines = []
    for (name, first, second, seed), items in pooled.items():
        n, a, b = (sum(pair[i] for _, pair in items) for i in (3, 4, 5))
        p = binomtest(a, a + b).pvalue if a + b else 1.0
        better = MISSING if a == b else contents.name(first if a > b else second)
        said = "undecided" if p > _CERTAIN else f"more: {better}"
        models = [contents.name(first), contents.name(second)]
        lines.append([metric(name).label, *models, str(seed), f"{n:,}", str(a), str(b), f"{p:.2g}", said])
    heads = ["right", "first model", "second model", "seed", "images", "only first", "only second", "p", "difference"]
    note = "Of the same images, those that only one of the two models gets right; p: McNemar's exact test. Undecided: "
    note += f"p is greater than {_CERTAIN}; with many comparisons, some are below by chance."
    return make_table("Comparison on the same images", heads, lines, [note], [*heads[:3], heads[-1]]) if lines else None


def _listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
