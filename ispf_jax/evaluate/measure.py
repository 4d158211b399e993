"""All measurements of one model: which images each metric looks at.

The metrics themselves are in the files next to this one; here they get their inputs, and what they find is recorded.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ispf_jax.evaluate import attacks, divergence, embedding, features, inputs, probes, relearn, sampling
from ispf_jax.evaluate.accuracy import confusion
from ispf_jax.evaluate.attacks import Attackers
from ispf_jax.evaluate.context import Context, Subject, copies
from ispf_jax.evaluate.features import PENULTIMATE
from ispf_jax.evaluate.statistics import mean_share

PROBE_DRAWS = 5
HEADS_ONLY = ("masked_head", "retrained_head")
"""Baselines whose features are the original's."""


def measure(context: Context, subject: Subject, attackers: Attackers, parts: dict) -> dict:
    """Measure one model; `parts` holds the finished parts of "original" and "retrain".

    UserError if no test image is of a forgotten class, or if the model's predictions are NaN or infinite: the accuracy
    of such a model would look like a number.
    """
    families = context.config.metrics
    forgotten = inputs.forgotten_rows("test images", context.data.test.labels, context.forget_mask)
    test = context.reference_features.get(subject.name) or context.extract(subject.variables, context.data.test.images)
    inputs.finite(f"the logits of {subject.name}", test.logits, 2)
    counts = _accuracy(context, subject)
    if "mia1" in families:
        attacks.confidence_attacks(context, subject, test.logits)
    if "mia2" in families and attackers.mia2 is not None:
        attacks.shadow_attack(context, subject, test.logits, attackers.mia2)
    if "lira" in families and attackers.lira_statistic is not None:
        attacks.lira_attack(context, subject, attackers)
    if "features" in families:
        _features(context, subject, test)
    if "divergence" in families:
        _divergence(context, subject, test.logits[forgotten], forgotten)
    if "relearn" in families:
        _relearn(context, subject, forgotten, parts)
    if subject.synthetic is not None and len(subject.synthetic) > 1:
        _duplicates(context, subject)
    return {
        "measurements": subject.measurements,
        "curves": subject.curves,
        "confusion": counts[context.forget_mask].tolist(),
        "mean_prediction": np.asarray(jax.nn.softmax(jnp.asarray(test.logits[forgotten]))).mean(axis=0).tolist(),
        "representation": _representation(context, subject, test),
    }


def _confusion(context, variables):
    """Counts [C, C] on the test images, and right ones and all of them by true class."""
    counts = confusion(
        context.network, variables, context.test_images, context.data.test.labels, batch_size=context.batch_size
    )
    return counts, np.diag(counts), counts.sum(axis=1)


def _accuracy(context, subject):
    counts, hits, totals = _confusion(context, subject.variables)
    for name, classes in (("forget", context.forget_mask), ("retain", ~context.forget_mask), ("overall", slice(None))):
        subject.add_share(f"accuracy/{name}", hits[classes].sum(), totals[classes].sum())
    for c in range(len(counts)):
        subject.add_share(f"accuracy/class{c}", hits[c], totals[c])
    return counts


def _duplicates(context, subject):
    """Copies among a student's synthetic images, compared with those among real ones."""
    for space, found in copies(subject.synthetic, subject.synthetic_pass).items():
        real = context.real_copies[space]
        kinds = {space: (found.near, real.near)} | ({"exact": (found.exact, real.exact)} if space == "pixels" else {})
        for kind, (count, among_real) in kinds.items():
            note = f"of {real.n} real training images: {100 * among_real / real.n:.1f} %"
            subject.add(f"duplicates/{kind}", 100 * count / found.n, found.n, note=note)


def _representation(context, subject, test):
    """Test images in the plane of the model's own penultimate features (figure 6); None if there is to be no picture.

    Baselines that only change the head have the original's picture.
    """
    count, labels = context.config.embedding_images, context.data.test.labels
    if not count or subject.name in HEADS_ONLY:
        return None
    rows = embedding.picture_rows(labels, context.forget_mask, count, context.seed)
    points = embedding.embed(test.layers[PENULTIMATE][rows], context.seed)
    return {"points": points.tolist(), "classes": labels[rows].tolist()}


def _features(context, subject, test):
    rows, test_labels = context.probe_rows, context.data.test.labels
    labels, forgotten = context.data.train.labels[rows], context.forget_mask[test_labels]
    train = context.extract(subject.variables, context.data.train.images[rows])

    def add_reader(metric, predicted, note=""):
        """Share of the forgotten classes' test images that get their own class."""
        subject.add_share(metric, np.sum(predicted[forgotten] == test_labels[forgotten]), forgotten.sum(), note)

    for layer in context.layers:
        predicted, converged = probes.linear_probe(train.layers[layer], labels, test.layers[layer])
        add_reader(f"probe/{layer}", predicted, "" if converged else "the fit had not converged")
        add_reader(f"knn/{layer}", probes.nearest_neighbours(train.layers[layer], labels, test.layers[layer]))
        for name, reference in context.reference_features.items():
            alike = features.linear_cka(test.layers[layer], reference.layers[layer])
            subject.add(f"cka_{name}/{layer}", alike, len(test_labels))
    _few_shot_probes(context, subject, train.layers[PENULTIMATE], labels, test.layers[PENULTIMATE])
    k = min(20, *np.bincount(labels, minlength=context.forget_mask.size).tolist())
    chosen = sampling.shots(labels, np.ones(len(labels), bool), k, context.seed)
    penultimate = train.layers[PENULTIMATE][chosen]
    head = probes.prototype_head(subject.variables, penultimate, labels[chosen], context.forget_mask)
    _, hits, totals = _confusion(context, head)
    note = f"{k} images per class, no training"
    subject.add_share(f"prototype/{k}", hits[context.forget_mask].sum(), totals[context.forget_mask].sum(), note)


def _few_shot_probes(context, subject, train, labels, test):
    """Linear probes on k images per class, mean over `PROBE_DRAWS` draws: where any features suffice for all data,
    these still tell."""
    test_labels, everything = context.data.test.labels, np.ones(len(labels), bool)
    forgotten = context.forget_mask[test_labels]
    for k in context.config.shots:
        if k > np.bincount(labels).min():
            continue
        shares = []
        for d in range(PROBE_DRAWS):
            drawn = sampling.shots(labels, everything, k, context.seed + d)
            predicted, _ = probes.linear_probe(train[drawn], labels[drawn], test)
            shares.append(100 * np.mean(predicted[forgotten] == test_labels[forgotten]))
        note, n = f"mean of {PROBE_DRAWS} draws of {k} image(s) per class", int(forgotten.sum())
        subject.add(f"probe_shots{k}/{PENULTIMATE}", np.mean(shares), n, mean_share(shares, n), note)


def _divergence(context, subject, forgotten_logits, forgotten):
    original, config, test = context.references["original"], context.config, context.data.test
    subject.add("l2_original", divergence.relative_distance(subject.variables["params"], original["params"]))
    if "retrain" in context.references:
        reference, n = context.reference_features["retrain"].logits[forgotten], len(forgotten_logits)
        kl, total_variation = divergence.predictive_divergence(reference, forgotten_logits)
        subject.add("kl_retrain", kl, n, note="KL(retrained || model) of mean predictions")
        subject.add("tv_retrain", total_variation, n)
    if config.barrier_points:
        count = min(config.barrier_images, len(test))
        rows = sampling.draw(np.arange(len(test)), count, context.seed)
        loss = partial(_mean_loss, context.network, images=test.images[rows], labels=test.labels[rows])
        rise = divergence.barrier(loss, original, subject.variables, config.barrier_points)
        subject.add("barrier", rise, count, note="linear interpolation to the original")


@partial(jax.jit, static_argnums=0)
def _mean_loss(network, variables, images, labels):
    logits, _ = network.module.apply(variables, network.normalise(images))
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))


def _relearn(context, subject, evaluated, parts):
    config, labels = context.config, context.data.train.labels
    steps = config.relearn_steps or 10 * -(-int(context.member.sum()) // config.relearn_batch)
    setup = relearn.RelearnSetup(context.network, steps, context.augmentation, config.relearn_batch)
    test = relearn.Subset(context.test_images, context.data.test.labels, evaluated)
    forgotten = context.forget_mask[labels]
    kinds = {"all": context.member, "forget": context.member & forgotten, "retain": context.member & ~forgotten}
    smallest = np.bincount(labels[context.member], minlength=context.forget_mask.size).min()
    for k in config.shots:
        if k <= smallest:
            kinds[f"shots{k}"] = sampling.shots(labels, context.member, k, context.seed)
    for kind, member in kinds.items():
        train = relearn.Subset(context.images, labels, member)
        curve = relearn.relearn_curve(setup, subject.variables, train, test, context.seed)
        points = {"steps": list(range(steps + 1)), "accuracy": list(curve)}
        subject.curves.append({"model": subject.name, "kind": f"relearn/{kind}", **points})
        note = f"mean over {steps} steps on {member.sum()} images"
        subject.add(f"relearn/{kind}", np.mean(curve[1:]), int(evaluated.sum()), note=note)
        if kind in ("all", "forget"):
            _steps(context, subject, kind, curve, parts)


def _steps(context, subject, kind, curve, parts):
    """Steps to 95 % of the original's accuracy; for relearning on all classes also the anamnesis index."""
    measured = subject.measurements if subject.name == "original" else parts["original"]["measurements"]
    original = next(m["value"] for m in measured if m["metric"] == "accuracy/forget")
    target = (1 - context.config.relearn_alpha) * original
    if target <= 0:
        subject.add(f"relearn_steps/{kind}", None, note="the original does not know the class")
        return
    steps, reached = relearn.steps_to_reach(curve, target)
    note = f"to {target:.1f} %" + ("" if reached else "; not reached, this is the cap")
    subject.add(f"relearn_steps/{kind}", steps, note=note)
    gold = [c["accuracy"] for c in parts.get("retrain", {}).get("curves", []) if c["kind"] == "relearn/all"]
    gold = [curve] if subject.name == "retrain" else gold
    if kind == "all" and gold:
        index, bound = relearn.anamnesis_index(curve, gold[0], target)
        subject.add("ain", index, note=bound)
