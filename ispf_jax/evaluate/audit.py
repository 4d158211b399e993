"""The audit of one forget set: what every model still knows of the forgotten classes, compared with its references.

Original and retrained model come first: they are the two ends of the scale on which every residual measurement is
placed.
"""

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ispf_jax.classifier import Classifier
from ispf_jax.data.dataset import ImageData
from ispf_jax.errors import ArgumentError
from ispf_jax.evaluate import baseline, embedding, metrics, parts
from ispf_jax.evaluate.attacks import Attackers
from ispf_jax.evaluate.context import Context, Subject
from ispf_jax.evaluate.features import PENULTIMATE
from ispf_jax.evaluate.measure import measure
from ispf_jax.evaluate.result import AuditResult
from ispf_jax.evaluate.settings import Audit
from ispf_jax.evaluate.shadow_models import Fit, train_attackers
from ispf_jax.filters import post_filter
from ispf_jax.forget import forget_set, joined
from ispf_jax.models import CLASSIFIERS
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_json
from ispf_jax.runtime.provenance import weights_digest

FORMAT = 1
REFERENCES = ("original", "masked_head", "retrained_head", "retrain")

_log = logging.getLogger(__name__)


def audit(
    models: Mapping[str, Any],
    data: ImageData,
    forget: int | str | Iterable[int | str],
    *,
    original: Classifier,
    retrained: Classifier | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    fit: Fit | None = None,
    **settings,
) -> AuditResult:
    """Measure what models still know of the classes they were made to forget, compared with the original and with
    retraining.

    Two ways of merely hiding a class are measured as well: "masked_head" and, if a model has a generator,
    "retrained_head".

    Args:
      models: what unlearning returned, by name: classifiers, or objects with a classifier as attribute `classifier` and
        a method `sample(count, seed)` for synthetic images, uint8 [N, H, W, C]. All have the original's network.
      data: training and test images of all classes.
      forget: ids or names of the forgotten classes.
      original: the model before unlearning. Where its `origin["split"]` says which images it was trained on
        (`training.Split`), attacks use these only; otherwise all.
      retrained: a model that was trained without the forgotten classes, likewise.
      seed: of all random choices of images.
      directory: where every model's measurements are kept, so that an interrupted audit can go on; None: nowhere.
      fit: trains a shadow model, see `shadow_models.Fit`. Without it the metrics "mia2" and "lira" are left out.
      settings: fields of `settings.Audit`, such as `metrics=("accuracy", "relearn")`, or all of them as `config`. Also
        `augmentation`, used where a model is trained again ("none"), and `batch_size`, images per forward pass (500).

    Raises:
      ArgumentError: an argument does not fit the others.
      UserError: there are too few images, or a model's predictions are NaN or infinite.
      runtime.interruption.Interrupted: a signal asked to stop; with a directory the models measured so far are saved.
    """
    batch_size, augmentation = settings.pop("batch_size", 500), settings.pop("augmentation", "none")
    directory, config = Path(directory) if directory else None, _checked(settings, fit)
    _check_models(models, data, original, retrained)
    forget_mask = np.isin(np.arange(data.num_classes), forget_set(forget, data.class_names))
    if directory:
        config = parts.prepare(directory, config)
    context = Context(
        original.network,
        data,
        _train_split(original, data),
        forget_mask,
        {"original": original.variables} | ({"retrain": retrained.variables} if retrained else {}),
        config,
        seed,
        augmentation,
        min(batch_size, max(1, len(data.test))),
    )
    subjects, pictures = _subjects(context, models, retrained)
    attackers = train_attackers(context, fit) if fit else Attackers()
    measured = _measured(context, subjects, attackers, directory)
    content = _content(context, [s.name for s in subjects], measured, pictures)
    if directory:
        atomic_write_json(directory / "audit.json", content)
    return AuditResult(content)


def _checked(settings, fit) -> Audit:
    """The settings; without `fit` less the metrics that need shadow models."""
    explicit = "metrics" in settings
    config = dataclasses.replace(settings.pop("config", None) or Audit(), **settings)
    needy = [name for name in config.metrics if name in metrics.NEED_SHADOWS]
    if fit or not needy:
        return config
    if explicit:
        raise ArgumentError(
            "metrics", f": {' and '.join(needy)} must have `fit`, a function that trains shadow models."
        )
    return dataclasses.replace(config, metrics=tuple(name for name in config.metrics if name not in needy))


def _check_models(models, data, original, retrained):
    if (original.num_classes, original.image_shape) != (data.num_classes, data.image_shape):
        found = f"{data.num_classes} classes and images of {data.image_shape}"
        raise ArgumentError("original", f" is a {original!r}; the data have {found}.")
    if taken := [name for name in models if name in REFERENCES]:
        raise ArgumentError("models", f": {', '.join(taken)} must have other names: these are the references'.")
    for name, model in {**models, "retrained": retrained or original}.items():
        if getattr(model, "classifier", model).network != original.network:
            raise ArgumentError("models", f": {name} must have the same network and normalisation as the original.")


def _train_split(classifier, data) -> np.ndarray:
    """Bool [M], the training images that a classifier was trained on."""
    split = classifier.origin.get("split")
    member = np.ones(len(data.train), bool) if split is None else np.asarray(split.train).astype(bool)
    if member.shape != (len(data.train),):
        raise ArgumentError("original", f" was trained on a split of {member.size} images, not of {len(data.train)}.")
    return member


def _subjects(context, models, retrained) -> tuple[list[Subject], list[dict]]:
    """References, baselines and models in the order of the results; pictures of the models' synthetic images."""
    config, member, mask, original = context.config, context.member, context.forget_mask, context.references["original"]
    subjects, pictures = [Subject("original", original, member)], []
    if np.count_nonzero(~mask) > 1:  # a single retained class has no masked head
        subjects.append(Subject("masked_head", baseline.masked_head(original, mask), member))
    students = []
    for name, model in models.items():
        student = Subject(name, getattr(model, "classifier", model).variables, member)
        if hasattr(model, "sample") and config.synthetic_images:
            student.synthetic = model.sample(config.synthetic_images, context.seed)
            student.synthetic_pass = context.extract(original, student.synthetic)
            if not any(s.synthetic is not None for s in students):
                subjects.append(Subject("retrained_head", _retrained_head(context, student.synthetic_pass), member))
            if config.embedding_images:
                threshold = getattr(model, "threshold", 0.0) or 0.1 / mask.size
                pictures.append(_picture(context, name, student.synthetic_pass, threshold))
        students.append(student)
    if retrained:
        member = _train_split(retrained, context.data) & ~mask[context.data.train.labels]
        subjects.append(Subject("retrain", retrained.variables, member))
    return subjects + students, pictures


def _retrained_head(context, synthetic_pass) -> dict:
    """The original with a new head, fitted to PostFilter's target on synthetic images: no data, nothing but the head
    changed."""
    target = post_filter(synthetic_pass.logits, context.forget_mask.astype(np.float32))
    return baseline.retrained_head(
        context.references["original"], synthetic_pass.layers[PENULTIMATE], np.asarray(target)
    )


def _picture(context, title, synthetic_pass, threshold) -> dict:
    """Figures 1 and 3 of the paper: a t-SNE picture of the original's features of real and of synthetic images.

    Args:
      threshold: PreFilter's, which separates kept from filtered images.
    """
    mask, count, labels = context.forget_mask, context.config.embedding_images, context.data.test.labels
    rows = embedding.picture_rows(labels, mask, count, context.seed)
    logits, real = synthetic_pass.logits[:count], context.reference_features["original"].layers[PENULTIMATE][rows]
    filtered = softmax(logits, axis=1)[:, mask].max(axis=1) >= threshold
    kinds = np.where(filtered, "synthetic filtered", "synthetic kept")
    kinds = np.where(mask[logits.argmax(axis=1)], "synthetic forgotten", kinds)
    points = embedding.embed(np.concatenate([real, synthetic_pass.layers[PENULTIMATE][:count]]), context.seed)
    return {
        "title": title,
        "method": "t-SNE of the original's penultimate features",
        "points": points.tolist(),
        "kind": [*np.where(mask[labels[rows]], "real forgotten", "real retained").tolist(), *kinds.tolist()],
    }


def _measured(context, subjects, attackers, directory) -> dict[str, dict]:
    """Every model's measurements, by name: kept ones of an earlier start, or new ones."""
    references = {name: weights_digest(v) for name, v in context.references.items()}
    inputs = {"references": references, "shadows": list(attackers.shadows)}
    title = f"audit {joined(context.forget, ',')} seed {context.seed}"
    order, found = {"original": 0, "retrain": 1}, {}
    for subject in sorted(subjects, key=lambda s: order.get(s.name, 2)):
        made_from = {
            "format": parts.FORMAT,
            "settings": parts.plain(context.config),
            "weights": weights_digest(subject.variables),
            "inputs": inputs,
        }
        path = parts.path_of(directory, subject.name) if directory else None
        part = parts.kept(path, made_from) if path else None
        if part is None:
            began = time.perf_counter()
            part = measure(context, subject, attackers, found) | made_from
            if path:
                atomic_write_json(path, part)
            _log.info("%s: %s in %.0f s", title, subject.name, time.perf_counter() - began)
        found[subject.name] = part
        if interruption.requested():
            raise interruption.Interrupted(f"{title}: saved after {subject.name}")
    return found


def _content(context, names, found, pictures) -> dict:
    """What `audit.json` holds."""
    data, kind = context.data, type(context.network.module)
    arch = next((name for name, classifier in CLASSIFIERS.items() if classifier is kind), kind.__name__)
    measurements = [m | {"place": _place(m, found)} for name in names for m in found[name]["measurements"]]
    return {
        "format": FORMAT,
        "forget": joined(context.forget, ","),
        "forget_names": [data.class_names[c] for c in context.forget],
        "seed": context.seed,
        "dataset": data.name,
        "arch": arch,
        "class_names": list(data.class_names),
        "settings": parts.plain(context.config),
        "models": names,
        "measurements": measurements,
        "curves": [curve for name in names for curve in found[name]["curves"]],
        **{key: {name: found[name][key] for name in names} for key in ("confusion", "mean_prediction", "weights")},
        "embedding": pictures,
        "representation": [{"title": name} | part for name in names if (part := found[name]["representation"])],
        "not_run": _not_run(context.config, names),
    }


def _place(measurement, found):
    """Where a value lies between retrained (0) and original (1); None if it has no place."""
    ends = [
        next((m["value"] for m in found[name]["measurements"] if m["metric"] == measurement["metric"]), None)
        for name in ("original", "retrain")
        if name in found
    ]
    return metrics.place(measurement["metric"], measurement["value"], *ends) if len(ends) == 2 else None


def _not_run(config, names):
    missing = {family: "not among the metrics asked for" for family in metrics.FAMILIES if family not in config.metrics}
    if "masked_head" not in names:
        missing["masked_head"] = (
            "with a single retained class the mean of the retained logits is the logit of that class"
        )
    if "retrain" not in names:
        missing["places, ain, distances to retraining"] = "there is no retrained model"
    if "lira" in config.metrics and not config.lira_shadows:
        missing["lira"] = "lira_shadows is 0; set it to 16 or more (even)"
    if "mia2" in config.metrics and not config.shadows:
        missing["mia2"] = "shadows is 0; set it to 5"
    return [{"metric": metric, "why": why} for metric, why in missing.items()]
