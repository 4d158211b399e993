"""What methods and metrics are called, what they ask, and which of them the verdict shows."""

import re
from dataclasses import dataclass, replace

METHOD_NAMES = {
    "original": "Original",
    "masked_head": "Masked head",
    "retrained_head": "Re-trained head",
    "retrain": "Retrained",
    "dfkd": "DFKD",
    "blockf": "BlockF",
    "gkt": "GKT",
    "is": "IS",
    "pf": "PF",
    "ispf": "ISPF",
    "pd": "PD",
    "pd_is": "PD+IS",
}
"""Models as the page calls them, in its order: the two ways of merely hiding a class, retraining, then the methods."""

METHOD_NOTES = {
    "original": "knows the class",
    "masked_head": "hides the class: the forgotten logit is cut off",
    "retrained_head": "hides the class: old features, new head",
    "retrain": "never saw the class",
}

TIERS = ("weights only", "test images", "training data", "retrained models")
"""What a number needed, from least to most."""


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
      label: "{}" stands for the number in the metric's name.
      kind: "accuracy"; "residue" (how much of the class can be had back from the finished features or weights); "layers" (the
        same, read from an earlier layer); "closeness" (to retraining or to the original); "paper" (the paper's own); "attack";
        "classes" (one number per class, with a table of their own); "generator" (about synthetic images).
      verdict: whether the verdict table has a column for it.
    """

    label: str
    asks: str
    unit: str = "%"
    digits: int = 1
    kind: str = "residue"
    verdict: bool = False


_RELEARN = "mean accuracy on the forgotten class while the model is trained again on "

METRICS = {
    "accuracy/forget": Metric(
        "Accuracy, forgotten",
        "test images of forgotten classes that still get their class",
        kind="accuracy",
        verdict=True,
    ),
    "accuracy/retain": Metric(
        "Accuracy, retained", "test images of retained classes that get their class", kind="accuracy", verdict=True
    ),
    "accuracy/overall": Metric("Accuracy, all", "test images that get their class", kind="accuracy"),
    "accuracy/class#": Metric("Accuracy, class {}", "test images of one class that get it", kind="classes"),
    "probe": Metric(
        "Linear probe",
        "a linear reader of the frozen features, trained on all images, names the forgotten class",
        verdict=True,
    ),
    "probe_shots#": Metric(
        "Probe, {} per class",
        "the same, trained on so few images per class: where any features suffice for all, these still tell",
        verdict=True,
    ),
    "knn": Metric("Neighbours", "nearest neighbours in the frozen features name the forgotten class"),
    "prototype/#": Metric(
        "Prototype", "the mean feature of {} images per class, without training, brings the class back", verdict=True
    ),
    "relearn/all": Metric("Relearn, all data", _RELEARN + "images of all classes", verdict=True),
    "relearn/shots#": Metric("Relearn, {} per class", _RELEARN + "so few images per class", verdict=True),
    "relearn/forget": Metric("Relearn, forgotten", _RELEARN + "images of the forgotten class alone"),
    "relearn/retain": Metric(
        "Relearn, retained", _RELEARN + "images of retained classes alone: does it come back by itself?", verdict=True
    ),
    "cka_original": Metric(
        "CKA to original", "similarity of features to the original's (linear CKA)", "", 3, "closeness"
    ),
    "cka_retrain": Metric(
        "CKA to retrained", "similarity of features to the retrained model's (linear CKA)", "", 3, "closeness"
    ),
    "kl_retrain": Metric(
        "KL to retrained",
        "divergence of predictions on forgotten images from retraining (the paper's figure 6a)",
        "nats",
        3,
        "closeness",
        True,
    ),
    "tv_retrain": Metric(
        "TV to retrained", "total variation of predictions on forgotten images from retraining", "", 3, "closeness"
    ),
    "l2_original": Metric("L2 to original", "distance of the weights to the original's, relative", "", 3, "closeness"),
    "barrier": Metric(
        "Barrier to original", "rise of the loss on the straight line to the original", "nats", 3, "closeness"
    ),
    "relearn_steps": Metric(
        "Steps to relearn", "training steps until 95 % of the original's accuracy is back", "steps", 0, "paper"
    ),
    "ain": Metric(
        "AIN", "steps to relearn, divided by the retrained model's: 1 is like retraining", "", 2, "paper", True
    ),
    "mia1": Metric("MIA-I", "forgotten training images that the attack calls unseen; saturates", "%", 1, "paper", True),
    "mia2": Metric(
        "MIA-II", "F1 x 100 of the shadow-model attack; its distance to retraining counts", "", 1, "paper", True
    ),
    "mia1_entropy": Metric(
        "Entropy attack",
        "forgotten training images called unseen by a threshold on the entropy of the prediction",
        kind="attack",
    ),
    "mia1_mentropy": Metric(
        "Modified-entropy attack",
        "the same on the modified entropy, which knows the label (Song & Mittal)",
        kind="attack",
    ),
    "mia1_correctness": Metric(
        "Correctness attack",
        "forgotten training images that are classified wrongly, and so called unseen",
        kind="attack",
    ),
    "lira/auc": Metric("LiRA AUC", "per-example attack, area under its curve: 0.5 is chance", "", 3, "attack", True),
    "lira/tpr#": Metric(
        "LiRA TPR at {} %", "per-example attack, true positives at so many false positives", "%", 2, "attack"
    ),
    "duplicates/exact": Metric(
        "Exact duplicates", "synthetic images that equal another one in every pixel", kind="generator"
    ),
    "duplicates/pixels": Metric(
        "Near-duplicates, pixels",
        "synthetic images with another one within a tenth of the median distance, in pixels",
        kind="generator",
    ),
    "duplicates/features": Metric(
        "Near-duplicates, features", "the same in the original's penultimate features", kind="generator"
    ),
}
"""Metrics by name, "#" for a number, or by the part before the "/" where a layer or a kind follows; their order is that of all tables."""

_HEADLINE = ("", "penultimate")


def family(name: str) -> tuple[str, str, str]:
    """(key of `METRICS` or "", number in the name, what follows the key) of a name such as "probe_shots5/penultimate"."""
    if name in METRICS:
        return name, "", ""
    for head, rest in ((name, ""), (name.partition("/")[0], name.partition("/")[2])):
        found = re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", head)
        if found and found[1] + "#" in METRICS:
            return found[1] + "#", found[2], rest
        if head in METRICS:
            return head, "", rest
    return "", "", ""


def metric(name: str) -> Metric:
    """The metric of a name such as "probe/bn3"; an unknown one is shown under its own name."""
    key, number, rest = family(name)
    if not key:
        return Metric(name, "", "", 3, "other")
    known = METRICS[key]
    known = replace(known, label=known.label.format(number), asks=known.asks.format(number))
    if rest in _HEADLINE:
        return known
    kind = "layers" if known.kind == "residue" else known.kind
    return replace(known, label=f"{known.label}, {rest}", kind=kind, verdict=False)


def metric_order(name: str) -> tuple:
    """Sort key: order of `METRICS`; of one family layer by layer, numbers as numbers, unknown ones last."""
    key, number, rest = family(name)
    digits = int("".join(filter(str.isdigit, rest)) or 0)
    return (list(METRICS).index(key) if key else len(METRICS), float(number or 0), rest in _HEADLINE, digits, name)


def split_model(model: str) -> tuple[str, str]:
    """("ispf", "dfq") of "ispf/dfq"; the base of a reference is ""."""
    method, _, base = model.partition("/")
    return method, base


def model_name(model: str, bases: bool = False) -> str:
    """How the page calls a model, with its base if `bases`."""
    method, base = split_model(model)
    return METHOD_NAMES.get(method, method) + (f" ({base})" if bases and base else "")


def model_order(model: str) -> tuple:
    """Sort key: references, then base by base in the order of `METHOD_NAMES`."""
    method, base = split_model(model)
    names = list(METHOD_NAMES)
    return (bool(base), base, names.index(method) if method in METHOD_NAMES else len(names), model)
