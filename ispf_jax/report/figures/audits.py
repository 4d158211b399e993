"""Pictures of one audit: relearning, classes, confusion, predictions, features (the paper's figures 1, 3 and 6)."""

from collections.abc import Iterator
from functools import partial

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from ispf_jax.report.figures.style import ANNOTATED, Panel, Picture, heat, key, label, line, model_key
from ispf_jax.report.names import TEXTS, model_name, model_order, shown
from ispf_jax.runtime.measurements import Audit, Measurement
from ispf_jax.runtime.metrics import metric, metric_order

KINDS = TEXTS["points"]


def pictures(audit: Audit, about: str, bases: bool = False) -> list[Picture]:
    """All pictures of an audit; those of parts that were not run are left out. `about`: which audit it is, in words."""
    how = ", ".join(["Real and synthetic images", *dict.fromkeys(how for *_, how in audit.embedding if how)])
    relearned = sorted({model for model, _, _ in audit.curves}, key=model_order)
    present = [kind for kind in KINDS if any(kind in kinds for _, _, kinds, _ in audit.embedding)]
    forgotten = f"forgotten class ({', '.join(audit.forget_names) or audit.forget})"
    marks = [key(forgotten, *KINDS["real forgotten"], "none")]
    marks += [key("retained classes, number at their median", "#7A7A7A", ".", "none")]
    name = partial(model_name, bases=bases)
    drawn = {
        "relearn": ("Relearning", _relearning(audit), [model_key(model, bases) for model in relearned]),
        "class_accuracy": ("Accuracy class by class", _class_accuracies(audit, name), []),
        "confusion": ("Confusion of the forgotten class", _confusion(audit, name), []),
        "closeness": ("Predictions", _closeness(audit, name), []),
        "representation": ("Representations", _representations(audit, name), marks),
        "embedding": (how, _embeddings(audit, name), [key(kind, *KINDS[kind], "none") for kind in present]),
    }
    found = (Picture(kind, (title, about), audit.slug, [*ps], keys) for kind, (title, ps, keys) in drawn.items())
    return [picture for picture in found if picture.panels]


def _relearning(audit: Audit) -> Iterator[Panel]:
    """Accuracy on the forgotten class by training step: one panel per kind of relearning data, all models in each."""

    def draw(kind: str, axes: Axes):
        for model, of, points in sorted(audit.curves, key=lambda curve: model_order(curve[0])):
            if of == kind:
                line(axes, model, *points)
        label(axes, metric(kind).label, "training steps", "accuracy on forgotten [%]")
        axes.set_ylim(-4, 104)

    for kind in sorted({kind for _, kind, _ in audit.curves}, key=metric_order):
        yield Panel(partial(draw, kind))


def _shares(of_models: dict[str, np.ndarray], audit: Audit, name, title: str, **options) -> Iterator[Panel]:
    """Percentages [C] of every model as a heat map; nothing without models."""
    models = sorted(of_models, key=model_order)
    if models:
        values = np.array([of_models[model] for model in models], float)
        yield heat(values, [name(model) for model in models], title, audit.class_names, **options)


def _class_accuracies(audit: Audit, name) -> Iterator[Panel]:
    """Accuracy of every model on every class."""
    measured = [(m, int(metric(m.metric).number)) for m in audit.measurements if metric(m.metric).kind == "classes"]
    classes = 1 + max((c for _, c in measured), default=0)
    found = {m.model: np.full(classes, np.nan) for m, _ in measured}
    for m, c in measured:
        found[m.model][c] = m.value  # None becomes NaN
    return _shares(found, audit, name, "Accuracy [% of the test images of the class]", framed=audit.forgotten)


def _confusion(audit: Audit, name) -> Iterator[Panel]:
    """The predictions of every model for the forgotten test images: a heat map per forgotten class."""
    for i, of in enumerate(audit.forget_names or audit.forget.split(",")):
        shares = {model: 100 * counts[i] / max(counts[i].sum(), 1) for model, counts in audit.confusion.items()}
        yield from _shares(shares, audit, name, f"Predictions for images of {of} [% of its images]", least=0.5)


def _closeness(audit: Audit, name) -> Iterator[Panel]:
    """Divergence of predictions on forgotten test images from the retrained model, and the mean predictions."""
    found = [m for m in audit.measurements if m.metric == "kl_retrain" and m.model != "retrain" and m.value is not None]
    if found:
        found.sort(key=lambda m: model_order(m.model))
        yield Panel(partial(_bars, found, name), (5.0, 1.1 + 0.27 * len(found)))
    mean = {model: 100 * p for model, p in audit.mean_prediction.items()}
    yield from _shares(mean, audit, name, "Mean prediction [% probability]", least=0.5)


def _bars(found: list[Measurement], name, axes: Axes):
    bars = axes.barh(range(len(found)), [m.value for m in found], 0.6, color=[shown(m.model).color for m in found])
    axes.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=7)
    axes.set_yticks(range(len(found)), [name(m.model) for m in found])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.15)
    label(axes, "KL to the retrained model", "nats")


def _representations(audit: Audit, name) -> Iterator[Panel]:
    """Real test images in each model's own features: retained classes in colours with their number, if there are enough
    colours; forgotten ones on top."""
    colors = matplotlib.colormaps["tab20"].colors
    for model, points, classes, _ in sorted(audit.representation, key=lambda entry: model_order(entry[0])):
        few, retained = len(np.unique(classes)) <= ANNOTATED, sorted(set(classes) - set(audit.forgotten))
        looks = [(colors[i % len(colors)] if few else "#BBBBBB", ".") for i in range(len(retained))]
        groups = [(points[classes == c], *look) for c, look in zip(retained, looks)]
        groups.append((points[np.isin(classes, audit.forgotten)], *KINDS["real forgotten"]))
        numbers = {str(c): np.median(points[classes == c], axis=0) for c in retained} if few else {}
        yield Panel(partial(_scatter, groups, name(model), numbers), (3.6, 3.4))


def _embeddings(audit: Audit, name) -> Iterator[Panel]:
    """Real and synthetic images in two dimensions, one panel per method."""
    for model, points, kinds, _ in sorted(audit.embedding, key=lambda entry: model_order(entry[0])):
        looks = {kind: KINDS.get(kind, ("#332288", "*")) for kind in [*KINDS, *sorted(set(kinds) - set(KINDS))]}
        groups = [(points[kinds == kind], *look) for kind, look in looks.items() if kind in kinds]
        yield Panel(partial(_scatter, groups, name(model), {}), (4.0, 3.6))


def _scatter(groups: list, title: str, numbers: dict[str, np.ndarray], axes: Axes):
    """Groups (points, colour, marker) and words at places, without numbers: distances in a t-SNE mean nothing."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
    for points, color, marker in groups:
        axes.scatter(*points.T, s=9, color=[color], marker=marker, linewidths=0.6, alpha=0.8)
    for text, at in numbers.items():
        axes.text(*at, text, fontsize=9, weight="bold", ha="center", va="center", color="#333333", bbox=box)
    axes.grid(False)
    label(axes, title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")
