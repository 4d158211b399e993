"""All that is known of each metric, once: what it asks, its unit, what it needs, where it is placed, how readers see
it."""

import re
from dataclasses import dataclass
from functools import cache, partial

FAMILIES = ("accuracy", "mia1", "mia2", "relearn", "features", "divergence", "lira")
"""What `metrics=` of an audit may name; accuracies are always measured, duplicates wherever there are synthetic
images."""

NEED_SHADOWS = ("mia2", "lira")

WEIGHTS, TEST, TRAINING, RETRAINED = TIERS = ("weights only", "test images", "training data", "retrained models")
"""Access tiers, from least to most: what somebody must hold to take a measurement."""

EPS = {"%": 2.0, "F1 x 100": 2.0, "ratio": 0.05, "nats": 0.02, "": 0.02}
"""Difference of original and retrained, by unit, below which a metric cannot tell them apart and nothing is placed."""


@dataclass(frozen=True)
class Metric:
    """A metric, or several whose names differ by a number.

    Attributes:
      label: its title; "{}" stands for the number in its name.
      asks: what it measures, for readers.
      family: one of `FAMILIES`, or "generator": what asks for it.
      unit: of its values; "" for a plain number.
      tier: what is needed to measure it, one of `TIERS`.
      placed: whether values are placed between retrained (0) and original (1).
      kind: "accuracy"; "residue" (how much of the class can be had back from the finished features or weights);
        "layers" (the same, read from an earlier layer); "closeness" (to retraining or to the original); "paper" (the
        paper's own); "attack"; "classes" (one number per class); "generator" (about synthetic images); "other" (unknown
        here).
      digits: shown after the point.
      verdict: whether it is one of the few that a summary shows.
    """

    label: str
    asks: str
    family: str = ""
    unit: str = "%"
    tier: str = TRAINING
    placed: bool = True
    kind: str = "residue"
    digits: int = 1
    verdict: bool = False


_accuracy = partial(Metric, family="accuracy", tier=TEST, placed=False, kind="accuracy")
_reader = partial(Metric, family="features")
_cka = partial(Metric, family="features", unit="", kind="closeness", digits=3)
_relearn = partial(Metric, family="relearn")
_distance = partial(Metric, family="divergence", tier=RETRAINED, kind="closeness", digits=3)
_steps = partial(Metric, family="relearn", placed=False, kind="paper")
_attack = partial(Metric, family="mia1", kind="attack")
_lira = partial(Metric, family="lira", kind="attack")
_copies = partial(Metric, family="generator", tier=WEIGHTS, placed=False, kind="generator")
_AGAIN = "mean accuracy on the forgotten class while trained again on "

METRICS = {
    "accuracy/forget": _accuracy(
        "Accuracy, forgotten", "test images of forgotten classes given their class", verdict=True
    ),
    "accuracy/retain": _accuracy(
        "Accuracy, retained", "test images of retained classes given their class", verdict=True
    ),
    "accuracy/overall": _accuracy("Accuracy, all", "test images given their class"),
    "accuracy/class#": _accuracy("Accuracy, class {}", "test images of one class that get it", kind="classes"),
    "probe": _reader("Linear probe", "a linear reader of the frozen features names the forgotten class", verdict=True),
    "probe_shots#": _reader("Probe, {} per class", "the same, trained on so few images: a harder test", verdict=True),
    "knn": _reader("Neighbours", "nearest neighbours in the frozen features name the forgotten class"),
    "prototype/#": _reader("Prototype", "the mean feature of {} images per class brings the class back", verdict=True),
    "relearn/all": _relearn("Relearn, all data", _AGAIN + "images of all classes", verdict=True),
    "relearn/shots#": _relearn("Relearn, {} per class", _AGAIN + "so few images per class", verdict=True),
    "relearn/forget": _relearn("Relearn, forgotten", _AGAIN + "images of the forgotten class alone"),
    "relearn/retain": _relearn("Relearn, retained", _AGAIN + "images of retained classes alone", verdict=True),
    "cka_original": _cka("CKA to original", "similarity of features to the original's (linear CKA)", tier=TEST),
    "cka_retrain": _cka(
        "CKA to retrained", "similarity of features to the retrained model's (linear CKA)", tier=RETRAINED
    ),
    "kl_retrain": _distance(
        "KL to retrained",
        "divergence of predictions on forgotten images from retraining (the paper's figure 6a)",
        unit="nats",
        verdict=True,
    ),
    "tv_retrain": _distance("TV to retrained", "total variation of predictions on forgotten images", unit=""),
    "l2_original": _distance(
        "L2 to original", "relative distance of the weights to the original's", unit="ratio", tier=WEIGHTS
    ),
    "barrier": _distance(
        "Barrier to original",
        "rise of the loss on the straight line to the original",
        unit="nats",
        tier=TEST,
        placed=False,
    ),
    "relearn_steps": _steps(
        "Steps to relearn", "steps until 95 % of the original's accuracy is back", unit="", digits=0
    ),
    "ain": _steps(
        "AIN",
        "steps to relearn over the retrained model's: 1 is like retraining",
        unit="ratio",
        tier=RETRAINED,
        digits=2,
        verdict=True,
    ),
    "mia1": _attack("MIA-I", "forgotten images called unseen; saturates", placed=False, kind="paper", verdict=True),
    "mia2": Metric(
        "MIA-II",
        "F1 of the shadow-model attack; its distance to retraining counts",
        "mia2",
        "F1 x 100",
        kind="paper",
        verdict=True,
    ),
    "mia1_entropy": _attack("Entropy attack", "forgotten images called unseen by the entropy of their prediction"),
    "mia1_mentropy": _attack("Modified-entropy attack", "the same by an entropy that knows the label (Song & Mittal)"),
    "mia1_correctness": _attack("Correctness attack", "forgotten training images classified wrongly: called unseen"),
    "lira/auc": _lira("LiRA AUC", "per-example attack, area under its curve", unit="", digits=3, verdict=True),
    "lira/tpr#": _lira("LiRA TPR at {} %", "per-example attack, true positives at so many false positives", digits=2),
    "duplicates/exact": _copies("Exact duplicates", "synthetic images that equal another one in every pixel"),
    "duplicates/pixels": _copies(
        "Near-duplicates, pixels", "synthetic images within a tenth of the median distance of one"
    ),
    "duplicates/features": _copies("Near-duplicates, features", "the same in the original's penultimate features"),
}
"""Metrics by name, "#" for a number, or by the part before the "/" where a layer or a kind follows; in the order of all
tables."""


@cache
def find(name: str) -> tuple[str, str, str]:
    """(key of `METRICS` or "", number in the name, what follows the key) of a name such as
    "probe_shots5/penultimate"."""
    if name in METRICS:
        return name, "", ""
    for head, rest in ((name, ""), (name.partition("/")[0], name.partition("/")[2])):
        found = re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", head)
        if found and found[1] + "#" in METRICS:
            return found[1] + "#", found[2], rest
        if head in METRICS:
            return head, "", rest
    return "", "", ""


@dataclass(frozen=True)
class Measurement:
    """One number about one model.

    Attributes:
      value: None where the metric is not defined; the note says why.
      low, high: 95 % interval, None if there is none; n: examples it was counted on.
      tier: what the number needed, see `TIERS`.
      place: (value - retrained) / (original - retrained): 0 like retrained, 1 like the original; None where these do
        not differ.
    """

    model: str
    metric: str
    value: float | None
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    tier: str = ""
    place: float | None = None
    note: str = ""


def place(name: str, value, original, retrained) -> float | None:
    """(value - retrained) / (original - retrained): 0 like the retrained model, 1 like the original, or beyond one of
    them.

    None if the metric is not placed, one of the three is None, or the ends differ by no more than `EPS`.
    """
    metric = METRICS[find(name)[0]]
    if not metric.placed or None in (value, original, retrained) or abs(original - retrained) <= EPS[metric.unit]:
        return None
    return (value - retrained) / (original - retrained)
