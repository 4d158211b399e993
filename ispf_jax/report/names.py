"""What methods and metrics are called, what they ask, and which of them the verdict shows."""

from dataclasses import dataclass

METHOD_NAMES = {
    "original": "Original", "masked_head": "Masked head", "retrained_head": "Re-trained head", "retrain": "Retrained", "dfkd": "DFKD",
    "blockf": "BlockF", "gkt": "GKT", "is": "IS", "pf": "PF", "ispf": "ISPF", "pd": "PD", "pd_is": "PD+IS",
}
"""Models as the page calls them, in its order: the two ways of merely hiding a class, retraining, then the methods."""

METHOD_NOTES = {
    "original": "knows the class", "masked_head": "hides the class: the forgotten logit is cut off",
    "retrained_head": "hides the class: old features, new head", "retrain": "never saw the class",
}

TIERS = ("weights only", "test images", "training data", "training data and retrained models")
"""What a number needed, from least to most."""


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
      kind: "accuracy"; "residue" (how much of the class can be had from the model); "closeness" (to retraining or to the
        original); "paper" (the paper's own); "attack".
      verdict: whether the verdict table has a column for it.
      placed: whether a place between retrained and original means anything.
    """

    label: str
    asks: str
    unit: str = "%"
    digits: int = 1
    kind: str = "residue"
    verdict: bool = False
    placed: bool = True


_RELEARN = "mean accuracy on the forgotten class while the model is trained again on "

METRICS = {
    "accuracy/forget": Metric("A_f", "test images of forgotten classes that still get their class", kind="accuracy", verdict=True),
    "accuracy/retain": Metric("A_r", "test images of retained classes that get their class", kind="accuracy", verdict=True, placed=False),
    "accuracy/overall": Metric("all", "test images that get their class", kind="accuracy", placed=False),
    "probe": Metric("Linear probe", "a linear reader of the frozen features names the forgotten class", verdict=True),
    "knn": Metric("Neighbours", "nearest neighbours in the frozen features name the forgotten class"),
    "prototype/20": Metric("Prototype", "one mean feature of 20 images per class, no training, brings the class back", verdict=True),
    "relearn/all": Metric("Relearn, all data", _RELEARN + "images of all classes", verdict=True),
    "relearn/forget": Metric("Relearn, forgotten", _RELEARN + "images of the forgotten class alone"),
    "relearn/retain": Metric("Relearn, retained", _RELEARN + "images of retained classes alone", verdict=True),
    "relearn/shots1": Metric("Relearn, 1 shot", _RELEARN + "1 image per class"),
    "relearn/shots5": Metric("Relearn, 5 shots", _RELEARN + "5 images per class"),
    "relearn/shots20": Metric("Relearn, 20 shots", _RELEARN + "20 images per class", verdict=True),
    "relearn_steps": Metric("Steps to relearn", "training steps until 95 % of the original's accuracy is back", "steps", 0, "paper"),
    "cka_original": Metric("CKA to original", "similarity of features to the original's (linear CKA)", "", 3, "closeness"),
    "cka_retrain": Metric("CKA to retrained", "similarity of features to the retrained model's (linear CKA)", "", 3, "closeness"),
    "kl_retrain": Metric("KL to retrained", "divergence of predictions on forgotten images from retraining (figure 6a)", "nats", 3, "closeness", True),
    "tv_retrain": Metric("TV to retrained", "total variation of predictions on forgotten images from retraining", "", 3, "closeness"),
    "l2_original": Metric("L2 to original", "distance of the weights to the original's, relative", "", 3, "closeness"),
    "barrier": Metric("Barrier to original", "rise of the loss on the straight line to the original", "nats", 3, "closeness"),
    "ain": Metric("AIN", "steps to relearn, divided by the retrained model's: 1 is like retraining", "", 2, "paper", True),
    "mia1": Metric("MIA-I", "forgotten training images that the attack calls unseen", "%", 1, "paper", True),
    "mia2": Metric("MIA-II", "F1 x 100 of the shadow-model attack; the distance to retraining counts", "", 1, "paper", True),
    "lira/auc": Metric("LiRA AUC", "per-example attack, area under its curve: 0.5 is chance", "", 3, "attack", True),
    "lira/tpr1": Metric("LiRA TPR at 1 %", "per-example attack, true positives at 1 % false positives", "%", 2, "attack"),
    "lira/tpr0.1": Metric("LiRA TPR at 0.1 %", "per-example attack, true positives at 0.1 % false positives", "%", 2, "attack"),
}
"""Metrics by name, or by the part before the "/" where the rest names a layer or a kind; the order is that of all tables."""

_HEADLINE_LAYER = "penultimate"


def metric(name: str) -> Metric:
    """The metric of a name such as "probe/bn3"; an unknown one is shown under its own name."""
    if name in METRICS:
        return METRICS[name]
    stem, _, rest = name.partition("/")
    known = METRICS.get(stem)
    if not known:
        return Metric(name, "", "", 3, "other", placed=True)
    where = "" if rest == _HEADLINE_LAYER else f", {rest}"
    return Metric(known.label + where, known.asks, known.unit, known.digits, known.kind, known.verdict and not where, known.placed)


def metric_order(name: str) -> tuple:
    """Sort key: order of `METRICS`, within one of them by name with numbers as numbers, unknown ones last."""
    names = list(METRICS)
    key = name if name in METRICS else name.partition("/")[0]
    rest = name.partition("/")[2]
    number = int("".join(filter(str.isdigit, rest)) or 0)
    return (names.index(key) if key in METRICS else len(names), rest == _HEADLINE_LAYER, number, name)


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
