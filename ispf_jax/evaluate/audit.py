"""The audit of one forget set: what every model still knows of the forgotten classes, compared with its references."""

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, product
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
from ispf_jax.evaluate.statistics import mcnemar
from ispf_jax.filters import post_filter
from ispf_jax.forget import forget_set, joined
from ispf_jax.models import named
from ispf_jax.runtime import atomic, interruption
from ispf_jax.runtime.measurements import FORMAT
from ispf_jax.runtime.metrics import metric, plan
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.runtime.rows import REFERENCES

PAIRED = ("accuracy/forget", "accuracy/retain", "probe/penultimate")
"""Metrics in which every two models are compared on the same images."""

SHADOWS = {"mia2": "shadows", "lira": "lira_shadows"}
FEW = {"mia2": "5", "lira": "16 or more (even)"}
"""The settings of shadow models, and what they should be."""

log = logging.getLogger(__name__)


def audit(
    models: Mapping[str, Any],
    data: ImageData | None = None,
    forget: int | str | Iterable[int | str] = (),
    *,
    original: Classifier,
    retrained: Classifier | Sequence[Classifier] = (),
    seed: int = 0,
    directory: str | Path | None = None,
    fit: attacks.Fit | None = None,
    **settings,
) -> AuditResult:
    """Measure what models still know of the classes they were made to forget, compared with original and retraining.

    Whatever the arguments allow is measured, from the weights alone to training images and retrained models; the result
    lists the rest, and what it needs. Ways of merely hiding a class are measured as well: "masked_head",
    "synthetic_embedding" and, if a model has a generator, "retrained_head".

    Args:
      models: what unlearning returned, by name: classifiers, or objects with an attribute `classifier` and a method
        `sample(count, seed)` for synthetic images, uint8 [N, H, W, C]. A network may differ from the original's.
      data: training and test images; either split may be empty, and forgotten classes may lack test images. None: no
        images at all.
      forget: ids or names of the forgotten classes.
      original: the model before unlearning. Where its `origin["split"]` says which images it was trained on
        (`training.Split`), attacks use these only; otherwise all.
      retrained: a model trained without the forgotten classes, or several; all are compared with the first.
      seed: of all random choices of images.
      directory: where every model's measurements are kept, so that an interrupted audit can go on; None: nowhere.
      fit: trains a shadow model, see `attacks.Fit`. Without it the metrics "mia2" and "lira" are left out.
      settings: fields of `settings.Audit`, such as `metrics=("accuracy", "relearn")`, or all of them as `config`. Also
        `augmentation`, used where a model is trained again ("none"), and `batch_size`, images per forward pass (500).

    Raises:
      ArgumentError: an argument does not fit the others.
      UserError: a model's predictions are NaN or infinite.
      runtime.interruption.Interrupted: a signal asked to stop; with a directory the models measured so far are saved.
    """
    batch_size, augmentation = settings.pop("batch_size", 500), settings.pop("augmentation", "none")
    directory, named = directory and Path(directory), "metrics" in settings
    config = dataclasses.replace(settings.pop("config", None) or Audit(), **settings)
    gold = [retrained] if isinstance(retrained, Classifier) else list(retrained or ())
    data = data or _nothing(original)
    _check(models, data, original, gold)
    forget_mask = np.isin(np.arange(data.num_classes), forget_set(forget, data.class_names))
    config = parts.prepare(directory, config) if directory else config
    if named and not fit and set(config.metrics) & set(NEED_SHADOWS):
        raise ArgumentError("fit", "=None must be a function that trains shadow models: mia2 and lira need them.")
    references = dict(zip(("original", "retrain"), (original, *gold[:1])))
    member, batch_size = _train_split(original, data), min(batch_size, len(data.test) or config.synthetic_images)
    facts = data, member, forget_mask, references, config, seed, augmentation, batch_size
    context = Context(original.network, *facts, oracles=tuple(gold))
    subjects, pictures = _subjects(context, models, gold)
    if fit:
        context.attackers = attacks.train_attackers(context, fit)
    _measure(context, subjects, directory)
    result = AuditResult(_content(context, pictures))
    if directory:
        atomic.atomic_write_json(directory / "audit.json", result.content)
    return result


def _nothing(original) -> ImageData:
    """No images, for the classes of a classifier."""
    empty = np.zeros((0, *original.image_shape), np.uint8), np.zeros(0, np.int32)
    return ImageData(empty, empty, original.class_names, "none")


def _check(models, data, original, retrained):
    if (original.num_classes, original.image_shape) != (data.num_classes, data.image_shape):
        found = f"{data.num_classes} classes and images of {data.image_shape}"
        raise ArgumentError("original", f" is a {original!r}; the data have {found}.")
    for name, model in {**models, **{f"retrained[{i}]": of for i, of in enumerate(retrained)}}.items():
        found = getattr(model, "classifier", model)
        if name in REFERENCES:
            raise ArgumentError("models", f": {name!r} is one of {', '.join(REFERENCES)}; take another name.")
        if (found.num_classes, found.image_shape) != (original.num_classes, original.image_shape):
            raise ArgumentError("models", f": {name!r} is a {found!r}; it must have the original's classes and images.")
        if name.startswith("retrained[") and found.network != original.network:
            raise ArgumentError("retrained", f": {name!r} must have the original's network and normalisation.")


def _train_split(classifier, data) -> np.ndarray:
    """Bool [M], the training images that a classifier was trained on."""
    split = classifier.origin.get("split") if len(data.train) else None
    member = np.ones(len(data.train), bool) if split is None else np.asarray(split.train).astype(bool)
    if member.shape != (len(data.train),):
        raise ArgumentError("original", f" was trained on a split of {member.size} images, not of {len(data.train)}.")
    return member


def _subjects(context, models, retrained) -> tuple[list[Subject], list[dict]]:
    """References, baselines and models in the order of the results; pictures of the models' synthetic images."""
    config, member, mask, original = context.config, context.member, context.forget_mask, context.references["original"]
    head, embedded = context.network.head, None
    changed = lambda variables: original.replace(variables=variables)
    subjects, students, pictures = {"original": Subject("original", original, member)}, [], []
    if retrained:
        own = _train_split(retrained[0], context.data) & ~mask[context.train.labels]
        subjects["retrain"] = Subject("retrain", retrained[0], own)
    if head and np.count_nonzero(~mask) > 1:  # a single retained class has no masked head
        subjects["masked_head"] = Subject(
            "masked_head", changed(baseline.masked_head(original.variables, mask, head)), member
        )
        embedded = changed(baseline.synthetic_embedding(original.variables, mask, context.seed, place=head))
    for name, model in models.items():
        student = Subject(name, getattr(model, "classifier", model), member)
        students.append(student)
        if not hasattr(model, "sample"):
            continue
        student.synthetic = model.sample(config.synthetic_images, context.seed)
        context.synthetic = student.synthetic if context.synthetic is None else context.synthetic
        logits, layers = student.synthetic_pass = context.extract(original, student.synthetic)
        if head and "retrained_head" not in subjects:
            target = np.asarray(post_filter(logits, mask.astype(np.float32)))
            made = baseline.retrained_head(original.variables, layers[PENULTIMATE], target, place=head)
            subjects["retrained_head"] = Subject("retrained_head", changed(made), member)
        if config.embedding_images and len(context.test):
            of_test = context.reference_features["original"].layers[PENULTIMATE]
            threshold = getattr(model, "threshold", 0.0) or 0.1 / mask.size
            images = of_test, context.test.labels, logits, layers[PENULTIMATE]
            pictured = embedding.picture(*images, mask, threshold, config.embedding_images, context.seed)
            pictures.append({"title": name, **pictured})
    if embedded:
        subjects["synthetic_embedding"] = Subject("synthetic_embedding", embedded, member)
    return [*subjects.values(), *students], pictures


def _measure(context, subjects, directory):
    """Measure every model, the two ends of the scale first: the others are compared with them."""
    references = {name: weights_digest(of.variables) for name, of in context.references.items()}
    references |= {f"retrain{i}": weights_digest(of.variables) for i, of in enumerate(context.oracles) if i}
    inputs = {"references": references, "have": sorted(context.have), "shadows": list(context.attackers.shadows)}
    title = f"audit {joined(context.forget, ',')} seed {context.seed}"
    for subject in subjects:
        began, weights = time.perf_counter(), weights_digest(subject.model.variables)
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
            key: {name: part[key] for name, part in found.items() if part[key]}
            for key in ("confusion", "mean_prediction", "weights")
        },
        "embedding": pictures,
        "representation": [{"title": name} | p for name, part in found.items() if (p := part["representation"])],
        "not_run": [{"metric": metric, "why": why} for metric, why in _not_run(context)],
        "paired": _paired(found),
        "by": context.config.by,
    }


def _paired(found) -> list[dict]:
    """Every two models on the same test images, see `statistics.mcnemar`; baselines only with the models."""
    names = [name for name in found if name not in REFERENCES or name == "retrain"]
    kept = {model: found[model].get("hits", {}) for model in names}
    compared = []
    for name, (first, second) in product(PAIRED, combinations(names, 2)):
        sides = [np.array([*kept[model].get(name, "")]) == "1" for model in (first, second)]
        if sides[0].size:
            numbers = dict(zip(("only_first", "only_second", "p"), mcnemar(*sides)))
            compared.append({"metric": name, "first": first, "second": second, "n": sides[0].size, **numbers})
    return compared


def _not_run(context) -> list[tuple[str, str]]:
    config, have = context.config, context.have
    missing = [(family, "not among the metrics asked for") for family in FAMILIES if family not in config.metrics]
    if "masked_head" not in context.found:
        why = "there is no dense head, or only a single retained class, whose logit the mean of the retained logits is"
        missing.append(("masked_head", why))
    off = [name for name, setting in SHADOWS.items() if name in config.metrics and not getattr(config, setting)]
    missing += [(name, f"{SHADOWS[name]} is 0; set it to {FEW[name]}") for name in off]
    _, lacking = plan(have, [m for m in config.metrics if m not in off])
    missing += [(", ".join(labels), f"needs {what}") for what, labels in lacking.items()]
    if "retrained" not in have:
        missing.append(("places between the retrained model and the original", "need a retrained model"))
    return missing
