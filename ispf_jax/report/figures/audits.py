"""Pictures of one audit: relearning, classes, confusion, predictions, features (the paper's figures 1, 3 and 6)."""

from collections.abc import Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from ispf_jax.report.figures.style import ANNOTATED, Panel, Picture, heat, key, label, line, model_key
from ispf_jax.report.names import model_name, model_order, shown
from ispf_jax.runtime.measurements import Audit, Measurement
from ispf_jax.runtime.metrics import metric, metric_order

KINDS = {
    "real retained": ("#BBBBBB", "."),
    "real forgotten": ("#000000", "x"),
    "synthetic kept": ("#0072B2", "v"),
    "synthetic filtered": ("#E69F00", "s"),
    "synthetic forgotten": ("#D55E00", "^"),
}
"""Colour and marker of every kind of point, in the order they are drawn, close to those of the paper."""


def pictures(audit: Audit, about: str, bases: bool = False) -> list[Picture]:
    """All pictures of an audit; those of parts that were not run are left out. `about`: which audit it is, in words."""
    embedded = ", ".join(["Real and synthetic images", *dict.fromkeys(how for *_, how in audit.embedding if how)])
    kinds = {
        "relearn": ("Relearning", _relearning),
        "class_accuracy": ("Accuracy class by class", _class_accuracies),
        "confusion": ("Confusion of the forgotten class", _confusion),
        "closeness": ("Predictions", _closeness),
        "representation": ("Representations", _representations),
        "embedding": (embedded, _embeddings),
    }
    drawn = [(kind, title, *make(audit, bases)) for kind, (title, make) in kinds.items()]
    return [Picture("audits", k, (t, about), audit.slug, tuple(ps), tuple(keys)) for k, t, ps, keys in drawn if ps]


Drawn = tuple[list[Panel], list[dict]]


def _relearning(audit: Audit, bases: bool) -> Drawn:
    """Accuracy on the forgotten class by training step: one panel per kind of relearning data, all models in each."""
    curves = sorted(audit.curves, key=lambda curve: model_order(curve[0]))

    def draw(kind: str, axes: Axes) -> None:
        for model, of, points in curves:
            if of == kind:
                line(axes, model, *points)
        label(axes, metric(kind).label, "training steps", "accuracy on forgotten [%]")
        axes.set_ylim(-4, 104)

    kinds = sorted({kind for _, kind, _ in curves}, key=metric_order)
    models = dict.fromkeys(model for model, _, _ in curves)
    return [Panel(partial(draw, kind)) for kind in kinds], [model_key(model, bases) for model in models]


def _class_accuracies(audit: Audit, bases: bool) -> Drawn:
    """Accuracy of every model on every class."""
    measured = [m for m in audit.measurements if metric(m.metric).kind == "classes"]
    found = {(m.model, int(metric(m.metric).number)): m.value for m in measured}
    models = sorted({model for model, _ in found}, key=model_order)
    if not models:
        return [], []
    classes = range(1 + max(c for _, c in found))
    values = np.array([[found.get((model, c)) for c in classes] for model in models], float)  # None becomes NaN
    title = "Accuracy [% of the test images of the class]"
    return [heat(values, _names(models, bases), title, audit.class_names, audit.forgotten)], []


def _confusion(audit: Audit, bases: bool) -> Drawn:
    """The predictions of every model for the forgotten test images: a heat map per forgotten class."""
    models, panels = sorted(audit.confusion, key=model_order), []
    names, counts = audit.forget_names or audit.forget.split(","), [audit.confusion[model] for model in models]
    for name, *of_models in zip(names, *counts) if models else ():
        shares = [100 * count / max(count.sum(), 1) for count in of_models]
        title = f"Predictions for images of {name} [% of its images]"
        panels.append(heat(np.array(shares), _names(models, bases), title, audit.class_names, least=0.5))
    return panels, []


def _closeness(audit: Audit, bases: bool) -> Drawn:
    """Divergence of predictions on forgotten test images from the retrained model, and the mean predictions."""
    divergence = [m for m in audit.measurements if m.metric == "kl_retrain" and m.value is not None]
    divergence = sorted((m for m in divergence if m.model != "retrain"), key=lambda m: model_order(m.model))
    models, panels = sorted(audit.mean_prediction, key=model_order), []
    if divergence:
        panels.append(Panel(partial(_bars, divergence, bases), (5.0, 1.1 + 0.27 * len(divergence))))
    if models:
        mean, title = [audit.mean_prediction[model] for model in models], "Mean prediction [% probability]"
        panels.append(heat(100 * np.array(mean), _names(models, bases), title, audit.class_names, least=0.5))
    return panels, []


def _representations(audit: Audit, bases: bool) -> Drawn:
    """Real test images in each model's own features, the forgotten classes marked."""
    name = ", ".join(audit.forget_names) or audit.forget
    keys = [key(f"forgotten class ({name})", *KINDS["real forgotten"], "none")]
    keys += [key("retained classes, number at their median", "#7A7A7A", ".", "none")]
    found = sorted(audit.representation, key=lambda entry: model_order(entry[0]))
    return [
        Panel(partial(_classes, points, classes, audit.forgotten, model_name(model, bases)), (3.6, 3.4))
        for model, points, classes, _ in found
    ], keys


def _embeddings(audit: Audit, bases: bool) -> Drawn:
    """Real and synthetic images in two dimensions, one panel per method."""
    present = {kind for _, _, kinds, _ in audit.embedding for kind in kinds}
    keys = [key(kind, *look, "none") for kind, look in KINDS.items() if kind in present]
    return [
        Panel(partial(_scatter, points, kinds, model_name(model, bases)), (4.0, 3.6))
        for model, points, kinds, _ in audit.embedding
    ], keys


def _names(models: Sequence[str], bases: bool) -> list[str]:
    return [model_name(model, bases) for model in models]


def _bars(divergence: Sequence[Measurement], bases: bool, axes: Axes) -> None:
    values = [m.value for m in divergence]
    axes.barh(range(len(values)), values, 0.6, color=[shown(m.model).color for m in divergence])
    axes.set_yticks(range(len(values)), _names([m.model for m in divergence], bases))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    for y, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.margins(x=0.15)
    label(axes, "KL to the retrained model", "nats")


def _scatter(points: np.ndarray, kinds: np.ndarray, title: str, axes: Axes) -> None:
    for kind in [*KINDS, *sorted(set(kinds) - set(KINDS))]:
        color, marker = KINDS.get(kind, ("#332288", "*"))
        if (kinds == kind).any():
            axes.scatter(*points[kinds == kind].T, s=9, c=color, marker=marker, linewidths=0.6, alpha=0.8)
    _bare(axes, title)


def _classes(points: np.ndarray, classes: np.ndarray, forgotten: list[int], title: str, axes: Axes) -> None:
    """Retained classes in colours with their number, if there are enough colours; forgotten ones on top in black."""
    colors = matplotlib.colormaps["tab20"].colors
    few = len(np.unique(classes)) <= ANNOTATED
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    for i, c in enumerate(sorted(set(classes) - set(forgotten))):
        here = points[classes == c]
        axes.scatter(*here.T, s=7, color=[colors[i % len(colors)] if few else "#BBBBBB"], marker=".", linewidths=0.6)
        if few:
            text = {"fontsize": 9, "weight": "bold", "ha": "center", "va": "center", "color": "#333333"}
            axes.text(*np.median(here, axis=0), str(c), **text, bbox=box)
    color, marker = KINDS["real forgotten"]
    axes.scatter(*points[np.isin(classes, forgotten)].T, s=16, color=color, marker=marker, linewidths=0.9)
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    """A frame without numbers: distances between clusters of a t-SNE mean nothing."""
    axes.grid(False)
    label(axes, title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")
