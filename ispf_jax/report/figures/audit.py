"""Pictures of one audit: relearning, confusion, predictions beside retraining, embedding (the paper's figures 1, 3 and 6)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ispf_jax.report.audits import Audit
from ispf_jax.report.figures.style import Key, Panel, Picture, label, look, method_key
from ispf_jax.report.names import family, metric, metric_order, model_name, model_order

KINDS = {
    "real retained": ("#BBBBBB", "."),
    "real forgotten": ("#000000", "x"),
    "synthetic kept": ("#0072B2", "v"),
    "synthetic filtered": ("#E69F00", "s"),
    "synthetic forgotten": ("#D55E00", "^"),
}
"""Colour and marker of every kind of point, in the order they are drawn; kinds that the paper has keep its colours nearly."""

FORGOTTEN = ("#000000", "x")
"""Colour and marker of a forgotten class among the models' representations."""

ANNOTATED = 20
"""Up to so many classes a heat map has its numbers written in."""


def relearning(audit: Audit, bases: bool = False) -> list[Picture]:
    """Accuracy on the forgotten class by training step: one panel per kind of relearning data, all models in each."""
    kinds = sorted({curve["kind"] for curve in audit.curves}, key=metric_order)
    models = sorted({curve["model"] for curve in audit.curves}, key=model_order)
    panels = tuple(Panel(partial(_relearn, [c for c in audit.curves if c["kind"] == kind], kind)) for kind in kinds)
    keys = tuple(method_key(m, model_name(m, bases)) for m in models)
    caption = "Every model is trained again on images of the kind in the title; a model that kept the class gets it back in a few steps."
    return [Picture(f"relearn_{audit.slug}", _title("Relearning", audit), panels, caption, keys)] if panels else []


def confusion(audit: Audit, bases: bool = False) -> list[Picture]:
    """What every model calls the forgotten test images: a heat map per forgotten class."""
    models = sorted(audit.confusion, key=model_order)
    if not models:
        return []
    forgotten = min(len(audit.confusion[m]) for m in models)
    panels = []
    for i in range(forgotten):
        counts = np.array([audit.confusion[m][i] for m in models], float)
        share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        name = audit.forget_names[i] if i < len(audit.forget_names) else audit.forget.split(",")[i]
        panels.append(_heat(share, models, audit, f"Images of {name} are called", "{:.0f}", "% of its images", bases))
    caption = "A retrained model spreads the forgotten class over others in its own way; the same pattern would be a sign of likeness."
    return [
        Picture(f"confusion_{audit.slug}", _title("Confusion of the forgotten class", audit), tuple(panels), caption)
    ]


def closeness(audit: Audit, bases: bool = False) -> list[Picture]:
    """Figure 6: divergence of predictions on forgotten test images from the retrained model, and the mean predictions themselves."""
    divergence = [m for m in audit.measurements if m.metric == "kl_retrain" and m.value is not None]
    divergence = sorted((m for m in divergence if m.model != "retrain"), key=lambda m: model_order(m.model))
    panels = []
    if divergence:
        names = [model_name(m.model, bases) for m in divergence]
        panels.append(
            Panel(
                partial(_bars, names, [m.value for m in divergence], [look(m.model)[0] for m in divergence]),
                (5.0, 1.1 + 0.27 * len(divergence)),
            )
        )
    models = sorted(audit.mean_prediction, key=model_order)
    if models:
        mean = np.array([audit.mean_prediction[m] for m in models], float)
        panels.append(_heat(100 * mean, models, audit, "Mean prediction", "{:.0f}", "% probability", bases))
    caption = "The paper's figure 6: predictions on test images of the forgotten class. KL(retrained || model) of the mean predictions."
    return [Picture(f"closeness_{audit.slug}", _title("Predictions", audit), tuple(panels), caption)] if panels else []


def embeddings(audit: Audit, bases: bool = False) -> list[Picture]:
    """Figures 1 and 3: real and synthetic images in two dimensions, one panel per method, the same axes in all."""
    if not audit.embedding:
        return []
    every = np.concatenate([np.asarray(e["points"], float).reshape(-1, 2) for e in audit.embedding])
    same = (
        len(
            {
                tuple(map(tuple, np.asarray(e["points"])[np.array(e["kind"]) == "real forgotten"]))
                for e in audit.embedding
            }
        )
        == 1
    )
    limits = (every.min(axis=0), every.max(axis=0)) if same and len(every) else None
    panels = tuple(
        Panel(partial(_scatter, e, model_name(e["title"], bases), limits), (4.0, 3.6)) for e in audit.embedding
    )
    keys = tuple(Key(kind, *KINDS[kind], line="") for kind in KINDS if any(kind in e["kind"] for e in audit.embedding))
    caption = (
        "The paper's figures 1 and 3. "
        + "; ".join(dict.fromkeys(str(e["method"]) for e in audit.embedding if e.get("method")))
        + "."
    )
    return [
        Picture(
            f"embedding_{audit.slug}",
            _title("Real and synthetic images", audit),
            panels,
            caption.replace(" .", ""),
            keys,
        )
    ]


def class_accuracies(audit: Audit, bases: bool = False) -> list[Picture]:
    """Accuracy of every model on every class: models (lines) by classes (columns)."""
    found = {
        (m.model, int(family(m.metric)[1])): m.value for m in audit.measurements if metric(m.metric).kind == "classes"
    }
    models = sorted({model for model, _ in found}, key=model_order)
    if not models:
        return []
    classes = 1 + max(c for _, c in found)
    values = np.array(
        [[np.nan if found.get((m, c)) is None else found[m, c] for c in range(classes)] for m in models], float
    )
    panel = _heat(values, models, audit, "Accuracy", "{:.0f}", "% of the test images of the class", bases, framed=True)
    caption = "Framed: forgotten classes. What unlearning cost classes that were to be kept shows here, and nowhere in an average."
    return [Picture(f"class_accuracy_{audit.slug}", _title("Accuracy class by class", audit), (panel,), caption)]


def representations(audit: Audit, bases: bool = False) -> list[Picture]:
    """Figure 6, second row: real test images in each model's own features, the forgotten classes marked."""
    pictures = sorted(audit.representation, key=lambda e: model_order(e["title"]))
    if not pictures:
        return []
    panels = tuple(Panel(partial(_classes, e, model_name(e["title"], bases), audit), (3.6, 3.4)) for e in pictures)
    name = ", ".join(audit.forget_names) or audit.forget
    keys = (
        Key(f"forgotten class ({name})", *FORGOTTEN, line=""),
        Key("retained classes, number at their median", "#7A7A7A", ".", line=""),
    )
    caption = (
        "The paper's figure 6: real test images, t-SNE of each model's own penultimate features. A model that does not know the class "
        "scatters it over the classes that look like it; one that hides it keeps a cluster of its own."
    )
    return [Picture(f"representation_{audit.slug}", _title("Representations", audit), panels, caption, keys)]


def _relearn(curves: Sequence[dict[str, Any]], kind: str, axes: Axes) -> None:
    for curve in sorted(curves, key=lambda c: model_order(c["model"])):
        color, marker = look(curve["model"])
        steps = curve["steps"]
        axes.plot(steps, curve["accuracy"], color=color, marker=marker, markevery=max(1, len(steps) // 6))
    title = metric(kind).label if family(kind)[0] else kind
    label(axes, title, "training steps", "accuracy on forgotten [%]")
    axes.set_ylim(-4, 104)


def _heat(
    values: np.ndarray,
    models: Sequence[str],
    audit: Audit,
    title: str,
    digits: str,
    unit: str,
    bases: bool,
    framed=False,
) -> Panel:
    """Models (lines) by classes (columns), darker is more; `framed`: the forgotten classes' columns have a frame."""
    names = audit.class_names if len(audit.class_names) == values.shape[1] else [str(c) for c in range(values.shape[1])]

    def draw(axes: Axes) -> None:
        axes.imshow(values, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        if framed:
            for number in map(int, audit.forget.split(",")):
                axes.add_patch(
                    Rectangle((number - 0.5, -0.5), 1, len(models), fill=False, edgecolor="#D55E00", linewidth=1.4)
                )
        axes.set_yticks(range(len(models)), [model_name(m, bases) for m in models])
        step = max(1, len(names) // ANNOTATED)
        crowded = max(map(len, names)) > 2
        axes.set_xticks(
            range(0, len(names), step),
            names[::step],
            rotation=45 if crowded else 0,
            ha="right" if crowded else "center",
        )
        axes.grid(False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (y, x), value in np.ndenumerate(values) if len(names) <= ANNOTATED else ():
            if value >= 0.5 or (framed and np.isfinite(value)):
                axes.text(
                    x,
                    y,
                    digits.format(value),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if value > 55 else "black",
                )
        label(axes, f"{title} [{unit}]", "class", "")

    return Panel(draw, (5.0, 1.1 + 0.27 * len(models)))


def _bars(names: Sequence[str], values: Sequence[float], colors: Sequence[str], axes: Axes) -> None:
    axes.barh(range(len(names)), values, 0.6, color=colors)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    for y, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.margins(x=0.15)
    label(axes, "KL to the retrained model", "nats", "")


def _scatter(entry: dict[str, Any], title: str, limits: Any, axes: Axes) -> None:
    points, kinds = np.asarray(entry["points"], float).reshape(-1, 2), np.array(entry["kind"])
    for kind in [*KINDS, *sorted(set(kinds) - set(KINDS))]:
        color, marker = KINDS.get(kind, ("#332288", "*"))
        here = points[kinds == kind]
        if len(here):
            axes.scatter(*here.T, s=9, c=color, marker=marker, linewidths=0.6, alpha=0.8)
    if limits:
        margin = 0.04 * (limits[1] - limits[0])
        axes.set(
            xlim=(limits[0][0] - margin[0], limits[1][0] + margin[0]),
            ylim=(limits[0][1] - margin[1], limits[1][1] + margin[1]),
        )
    _bare(axes, title)


def _classes(entry: dict[str, Any], title: str, audit: Audit, axes: Axes) -> None:
    """Retained classes in colours with their number, as far as there are colours; the forgotten ones on top in black."""
    points, classes = np.asarray(entry["points"], float).reshape(-1, 2), np.array(entry["classes"], int)
    forgotten = [int(number) for number in audit.forget.split(",")]
    colors = matplotlib.colormaps["tab20"].colors
    few = len(np.unique(classes)) <= ANNOTATED
    for i, c in enumerate(sorted(set(classes) - set(forgotten))):
        here = points[classes == c]
        axes.scatter(*here.T, s=7, color=[colors[i % len(colors)] if few else "#BBBBBB"], marker=".", linewidths=0.6)
        if few:
            axes.text(
                *np.median(here, axis=0),
                str(c),
                fontsize=9,
                weight="bold",
                ha="center",
                va="center",
                color="#333333",
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
            )
    here = points[np.isin(classes, forgotten)]
    axes.scatter(*here.T, s=16, color=FORGOTTEN[0], marker=FORGOTTEN[1], linewidths=0.9)
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    """A frame without numbers: distances between clusters of a t-SNE mean nothing."""
    axes.grid(False)
    label(axes, title, "", "")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#BBBBBB")


def _title(words: str, audit: Audit) -> str:
    return f"{words}: forgetting {audit.forget}, seed {audit.seed}"
