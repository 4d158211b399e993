"""The audit of one forget set: what every model still knows of the forgotten classes, compared with its references."""

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ispf_jax.classifier import Classifier
from ispf_jax.data.dataset import ImageData
from ispf_jax.errors import ArgumentError
from ispf_jax.evaluate import attacks, baseline, embedding, measure, parts
from ispf_jax.evaluate.context import Context, Subject
from ispf_jax.evaluate.features import PENULTIMATE
from ispf_jax.evaluate.result import AuditResult
from ispf_jax.evaluate.settings import FAMILIES, NEED_SHADOWS, Audit
from ispf_jax.filters import post_filter
from ispf_jax.forget import forget_set, joined
from ispf_jax.models import named
from ispf_jax.runtime import atomic, interruption
from ispf_jax.runtime.measurements import FORMAT
from ispf_jax.runtime.metrics import metric
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import REFERENCES

log = logging.getLogger(__name__)


def audit(
    models: Mapping[str, Any],
    data: ImageData,
    forget: int | str | Iterable[int | str],
    *,
    original: Classifier,
    retrained: Classifier | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    fit: attacks.Fit | None = None,
    **settings,
) -> AuditResult:
    """Measure what models still know of the classes they were made to forget, compared with original and retraining.

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
      fit: trains a shadow model, see `attacks.Fit`. Without it the metrics "mia2" and "lira" are left out.
      settings: fields of `settings.Audit`, such as `metrics=("accuracy", "relearn")`, or all of them as `config`. Also
        `augmentation`, used where a model is trained again ("none"), and `batch_size`, images per forward pass (500).

    Raises:
      ArgumentError: an argument does not fit the others.
      UserError: there are too few images, or a model's predictions are NaN or infinite.
      runtime.interruption.Interrupted: a signal asked to stop; with a directory the models measured so far are saved.
    """
    batch_size, augmentation = settings.pop("batch_size", 500), settings.pop("augmentation", "none")
    directory, config = Path(directory) if directory else None, _config(settings, fit)
    _check(models, data, original, retrained)
    forget_mask = np.isin(np.arange(data.num_classes), forget_set(forget, data.class_names))
    config = parts.prepare(directory, config) if directory else config
    if not fit and set(config.metrics) & set(NEED_SHADOWS):
        raise ArgumentError("fit", "=None must be a function that trains shadow models: mia2 and lira need them.")
    references = {"original": original.variables} | ({"retrain": retrained.variables} if retrained else {})
    member, batch_size = _train_split(original, data), min(batch_size, max(1, len(data.test)))
    context = Context(original.network, data, member, forget_mask, references, config, seed, augmentation, batch_size)
    subjects, pictures = _subjects(context, models, retrained)
    if fit:
        context.attackers = attacks.train_attackers(context, fit)
    _measure(context, subjects, directory)
    content = _content(context, pictures)
    if directory:
        atomic.atomic_write_json(directory / "audit.json", content)
    return AuditResult(content)


def _config(settings, fit) -> Audit:
    """The settings; without `fit` less the metrics that need shadow models, unless these are asked for."""
    asked = "metrics" in settings
    config = dataclasses.replace(settings.pop("config", None) or Audit(), **settings)
    if fit or asked:
        return config
    return dataclasses.replace(config, metrics=tuple(m for m in config.metrics if m not in NEED_SHADOWS))


def _check(models, data, original, retrained):
    if (original.num_classes, original.image_shape) != (data.num_classes, data.image_shape):
        found = f"{data.num_classes} classes and images of {data.image_shape}"
        raise ArgumentError("original", f" is a {original!r}; the data have {found}.")
    for name, model in {**models, "retrained": retrained or original}.items():
        if name in REFERENCES or getattr(model, "classifier", model).network != original.network:
            needs = f"the original's network and normalisation, and a name other than {', '.join(REFERENCES)}"
            raise ArgumentError("models", f": {name!r} must have {needs}.")


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
    head = context.network.head
    subjects, students, pictures = {"original": Subject("original", original, member)}, [], []
    if retrained:
        own = _train_split(retrained, context.data) & ~mask[context.train.labels]
        subjects["retrain"] = Subject("retrain", retrained.variables, own)
    if head and np.count_nonzero(~mask) > 1:  # a single retained class has no masked head
        subjects["masked_head"] = Subject("masked_head", baseline.masked_head(original, mask, head), member)
    for name, model in models.items():
        student = Subject(name, getattr(model, "classifier", model).variables, member)
        students.append(student)
        if not hasattr(model, "sample"):
            continue
        student.synthetic = model.sample(config.synthetic_images, context.seed)
        logits, layers = student.synthetic_pass = context.extract(original, student.synthetic)
        if head and "retrained_head" not in subjects:
            target = np.asarray(post_filter(logits, mask.astype(np.float32)))
            made = baseline.retrained_head(original, layers[PENULTIMATE], target, place=head)
            subjects["retrained_head"] = Subject("retrained_head", made, member)
        if config.embedding_images:
            of_test = context.reference_features["original"].layers[PENULTIMATE]
            threshold = getattr(model, "threshold", 0.0) or 0.1 / mask.size
            images = of_test, context.test.labels, logits, layers[PENULTIMATE]
            pictured = embedding.picture(*images, mask, threshold, config.embedding_images, context.seed)
            pictures.append({"title": name, **pictured})
    return [*subjects.values(), *students], pictures


def _measure(context, subjects, directory):
    """Measure every model, the two ends of the scale first: the others are compared with them."""
    references = {name: weights_digest(variables) for name, variables in context.references.items()}
    inputs = {"references": references, "shadows": list(context.attackers.shadows)}
    title = f"audit {joined(context.forget, ',')} seed {context.seed}"
    for subject in subjects:
        began, weights = time.perf_counter(), weights_digest(subject.variables)
        made_from = {"settings": parts.plain(context.config), "weights": weights, "inputs": inputs}
        make = partial(measure.measure, context, subject)
        context.found[subject.name] = parts.part(directory, subject.name, made_from, make)
        log.info("%s: %s in %.0f s", title, subject.name, time.perf_counter() - began)
        if interruption.requested():
            raise interruption.Interrupted(f"{title}: saved after {subject.name}")


def _content(context, pictures) -> dict:
    """What `audit.json` holds."""
    data, found = context.data, context.found
    measurements = [m for part in found.values() for m in part["measurements"]]
    values = {(m["model"], m["metric"]): m["value"] for m in measurements}
    for m in measurements:
        ends = (values.get((model, m["metric"])) for model in ("original", "retrain"))
        m["place"] = metric(m["metric"]).place(m["value"], *ends)
    return {
        "format": FORMAT,
        "forget": joined(context.forget, ","),
        "forget_names": [data.class_names[c] for c in context.forget],
        "seed": context.seed,
        "dataset": data.name,
        "arch": named(context.network.module),
        "class_names": list(data.class_names),
        "settings": parts.plain(context.config),
        "models": list(found),
        "measurements": measurements,
        "curves": [curve for part in found.values() for curve in part["curves"]],
        **{
            key: {name: part[key] for name, part in found.items()}
            for key in ("confusion", "mean_prediction", "weights")
        },
        "embedding": pictures,
        "representation": [{"title": name} | p for name, part in found.items() if (p := part["representation"])],
        "not_run": [{"metric": metric, "why": why} for metric, why in _not_run(context.config, found).items()],
    }


def _not_run(config, names) -> dict[str, str]:
    missing = {family: "not among the metrics asked for" for family in FAMILIES if family not in config.metrics}
    if "masked_head" not in names:
        missing["masked_head"] = (
            "there is no dense head, or only a single retained class, whose logit the mean of the retained logits is"
        )
    if "retrain" not in names:
        missing["places, ain, distances to retraining"] = "there is no retrained model"
    if "lira" in config.metrics and not config.lira_shadows:
        missing["lira"] = "lira_shadows is 0; set it to 16 or more (even)"
    if "mia2" in config.metrics and not config.shadows:
        missing["mia2"] = "shadows is 0; set it to 5"
    return missing
