"""All measurements of one model: which images each metric looks at, and what access it needed.

The metrics themselves are in the files beside this one; here they are given their inputs and turned into records.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ispf_jax.data.augment import normalise
from ispf_jax.evaluate import attacks, divergence, features, inputs, plane, probes, relearn, sampling
from ispf_jax.evaluate.accuracy import accuracies, class_accuracies
from ispf_jax.evaluate.attacks import Attackers
from ispf_jax.evaluate.context import RETRAINED, TEST, TRAINING, WEIGHTS, Context, Record
from ispf_jax.evaluate.statistics import mean_share, wilson

__all__ = ["Attackers", "Context", "model"]

PROBE_DRAWS = 5
HEADS_ONLY = ("masked_head", "retrained_head")
"""Baselines whose features are the original's."""


def model(context: Context, subject, attackers: Attackers, parts: dict) -> dict:
    """Measure one model; `parts` holds the finished parts of "original" and "retrain".

    UserError if no test image is of a forgotten class, or if the model's predictions are NaN or infinite: the accuracy of such a
    model would look like a number.
    """
    forgotten = inputs.forgotten_rows("test images", context.test.labels, context.forget_mask)
    record, config = Record(subject.name), context.config
    test = context.extract(subject.variables, context.test.images)
    inputs.logits(f"the logits of {subject.name}", test.logits)
    confusion = _accuracy(record, context, subject)
    if "mia1" in config.metrics:
        attacks.mia1(record, context, subject)
    if "mia2" in config.metrics and attackers.mia2 is not None:
        attacks.mia2(record, context, subject, attackers.mia2)
    if "lira" in config.metrics and attackers.lira_statistic is not None:
        attacks.lira_attack(record, context, subject, attackers)
    if "features" in config.metrics:
        _features(record, context, subject, test)
    if "divergence" in config.metrics:
        _divergence(record, context, subject, test.logits[forgotten])
    if "relearn" in config.metrics:
        _relearn(record, context, subject, parts)
    if subject.synthetic is not None and len(subject.synthetic) > 1:
        _duplicates(record, context, subject.synthetic)
    mean = np.asarray(jax.nn.softmax(jnp.asarray(test.logits[forgotten]))).mean(axis=0)
    return {
        "measurements": record.measurements,
        "curves": record.curves,
        "confusion": confusion[list(context.forget)].tolist(),
        "mean_prediction": mean.tolist(),
        "representation": _representation(context, subject, test),
    }


def _accuracy(record, context, subject):
    confusion = context.evaluator.confusion(subject.variables, context.test_images, context.test.labels)
    values = accuracies(confusion, context.forget)
    hits, totals = np.diag(confusion), confusion.sum(axis=1)
    for name, classes in (("forget", context.forget_mask), ("retain", ~context.forget_mask), ("overall", slice(None))):
        interval = wilson(int(hits[classes].sum()), int(totals[classes].sum()))
        record.add(f"accuracy/{name}", getattr(values, name), "%", TEST, interval.n, interval.low, interval.high)
    for c, found in enumerate(class_accuracies(confusion)):
        if found is None:
            record.add(f"accuracy/class{c}", None, "%", TEST, 0, note="no test images")
        else:
            record.add(f"accuracy/class{c}", found.percent, "%", TEST, found.n, found.low, found.high)
    return confusion


def _duplicates(record, context, images):
    """Copies among a student's synthetic images, beside those among real ones."""
    for space, found in context.copies(images).items():
        real = context.real_copies[space]
        kinds = {space: (found.near, real.near)} | ({"exact": (found.exact, real.exact)} if space == "pixels" else {})
        for kind, (count, among_real) in kinds.items():
            note = f"of {real.n} real training images: {100 * among_real / real.n:.1f} %"
            record.add(f"duplicates/{kind}", 100 * count / found.n, "%", WEIGHTS, found.n, note=note)


def _representation(context, subject, test):
    """Test images in the plane of the model's own penultimate features (the paper's figure 6); None if there is to be no picture.

    Baselines that only change the head have the original's picture.
    """
    count = context.config.embedding_images
    if not count or subject.name in HEADS_ONLY:
        return None
    rows = plane.picture_rows(context.test.labels, context.forget_mask, count, context.seed)
    points = plane.plane(test.layers[features.PENULTIMATE][rows], context.seed)
    return {"points": np.round(points, 2).tolist(), "classes": context.test.labels[rows].tolist()}


def _features(record, context, subject, test):
    rows, mask = context.probe_rows, context.forget_mask
    labels, test_labels = context.train.labels[rows], context.test.labels
    train = context.extract(subject.variables, context.train.images[rows])
    for layer in context.layers:
        arguments = (train.layers[layer], labels, test.layers[layer], test_labels, mask)
        for metric, reader in (("probe", probes.linear_probe), ("knn", probes.nearest_neighbours)):
            reading = reader(*arguments)
            interval = wilson(round(reading.forget * reading.n_forget / 100), reading.n_forget)
            note = "" if reading.converged else "the fit had not converged"
            record.add(
                f"{metric}/{layer}", reading.forget, "%", TRAINING, reading.n_forget, interval.low, interval.high, note
            )
        for name, reference in context.reference_features.items():
            tier = RETRAINED if name == "retrain" else TEST
            record.add(
                f"cka_{name}/{layer}",
                features.linear_cka(test.layers[layer], reference.layers[layer]),
                "",
                tier,
                len(test_labels),
            )
    _few_shot_probes(record, context, train.layers[features.PENULTIMATE], test.layers[features.PENULTIMATE], labels)
    k = min(20, *(int(np.sum(labels == c)) for c in range(mask.size)))
    chosen = sampling.shots(labels, np.ones(len(labels), bool), k, context.seed)
    penultimate = train.layers[features.PENULTIMATE][chosen]
    head = probes.prototype_head(subject.variables, penultimate, labels[chosen], mask)
    confusion = context.evaluator.confusion(head, context.test_images, test_labels)
    share = wilson(int(np.diag(confusion)[mask].sum()), int(confusion[mask].sum()))
    note = f"{k} images per class, no training"
    record.add(f"prototype/{k}", share.percent, "%", TRAINING, share.n, share.low, share.high, note)


def _few_shot_probes(record, context, train, test, labels):
    """Linear probes on k images per class, mean over `PROBE_DRAWS` draws: where any features suffice for all data, these still tell."""
    test_labels, everything = context.test.labels, np.ones(len(labels), bool)
    for k in context.config.shots:
        if k > np.bincount(labels).min():
            continue
        draws = [np.flatnonzero(sampling.shots(labels, everything, k, context.seed + d)) for d in range(PROBE_DRAWS)]
        readings = [probes.linear_probe(train[r], labels[r], test, test_labels, context.forget_mask) for r in draws]
        note = f"mean of {PROBE_DRAWS} draws of {k} image(s) per class"
        shares, n = [reading.forget for reading in readings], readings[0].n_forget
        record.add(
            f"probe_shots{k}/{features.PENULTIMATE}", np.mean(shares), "%", TRAINING, n, *mean_share(shares, n), note
        )


def _divergence(record, context, subject, forgotten_logits):
    original = context.references["original"]
    distance = divergence.parameter_distance(subject.variables["params"], original["params"])
    record.add("l2_original", distance.relative, "ratio", WEIGHTS)
    if "retrain" in context.references:
        reference = context.reference_features["retrain"].logits[context.of_forget(context.test.labels)]
        d = divergence.predictive_divergence(reference, forgotten_logits)
        record.add(
            "kl_retrain", d.kl_of_means, "nats", RETRAINED, d.n, note="KL(retrained || model) of mean predictions"
        )
        record.add("tv_retrain", d.tv_of_means, "", RETRAINED, d.n)
    if context.config.barrier_points:
        rows = sampling.draw(
            np.arange(len(context.test)), min(context.config.barrier_images, len(context.test)), context.seed
        )
        loss = partial(
            _mean_loss, context.evaluator, images=context.test.images[rows], labels=context.test.labels[rows]
        )
        path = divergence.interpolation(loss, original, subject.variables, context.config.barrier_points)
        record.add("barrier", path.barrier, "nats", TEST, len(rows), note="linear interpolation to the original")


@partial(jax.jit, static_argnums=0)
def _mean_loss(evaluator, variables, images, labels):
    logits, _ = evaluator.classifier.apply(variables, normalise(images, evaluator.mean, evaluator.std))
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))


def _relearn(record, context, subject, parts):
    setup, c = context.relearn_setup(), context.config
    evaluated = context.of_forget(context.test.labels)
    smallest = np.bincount(context.train.labels[context.member], minlength=context.forget_mask.size).min()
    kinds = {"all": ("all", None), "forget": ("forget", None), "retain": ("retain", None)}
    kinds |= {f"shots{k}": ("shots", k) for k in c.shots if k <= smallest}
    for kind, (data, k) in kinds.items():
        member = relearn.relearn_members(
            data, context.train.labels, context.member, context.forget_mask, context.seed, k
        )
        curve = relearn.relearn_curve(
            setup,
            subject.variables,
            context.images,
            context.train.labels,
            member,
            context.test_images,
            context.test.labels,
            evaluated,
            context.seed,
        )
        record.curves.append(
            {"model": subject.name, "kind": f"relearn/{kind}", "steps": curve.steps, "accuracy": curve.accuracy}
        )
        note = f"mean over {setup.steps} steps on {curve.images} images"
        record.add(f"relearn/{kind}", relearn.mean_accuracy(curve), "%", TRAINING, curve.test_images, note=note)
        if kind in ("all", "forget"):
            _steps(record, context, kind, curve, parts)


def _steps(record, context, kind, curve, parts):
    """Steps to 95 % of the original's accuracy; for relearning on all classes also the anamnesis index."""
    own = {"original": record.measurements} | {name: part["measurements"] for name, part in parts.items()}
    original = next(m["value"] for m in own["original"] if m["metric"] == "accuracy/forget")
    target = relearn.relearn_target(original, context.config.relearn_alpha)
    if target <= 0:
        record.add(f"relearn_steps/{kind}", None, "", TRAINING, note="the original does not know the class")
        return
    reach = relearn.steps_to_reach(curve, target)
    note = f"to {target:.1f} %" + ("; not reached, this is the cap" if reach.censored else "")
    record.add(f"relearn_steps/{kind}", reach.steps, "", TRAINING, note=note)
    gold = [c for c in parts.get("retrain", {}).get("curves", []) if c["kind"] == "relearn/all"]
    if kind == "all" and (gold or record.model == "retrain"):
        golden = relearn.RelearnCurve(tuple(gold[0]["steps"]), tuple(gold[0]["accuracy"]), 0, 0) if gold else curve
        index = relearn.anamnesis_index(curve, golden, target)
        record.add("ain", index.value, "ratio", RETRAINED, note=index.bound)
