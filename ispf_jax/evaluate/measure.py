"""All measurements of one model: which images each metric looks at.

The metrics themselves are in the files next to this one; here they get their inputs, and what they find is recorded.
"""

import numpy as np
from scipy.special import softmax

from ispf_jax.evaluate import attacks, divergence, embedding, features, probes, relearn, sampling, signals
from ispf_jax.evaluate.context import Context, Subject, copies
from ispf_jax.evaluate.features import PENULTIMATE
from ispf_jax.evaluate.statistics import mean_share

PROBE_DRAWS = 5
HEADS_ONLY = ("masked_head", "retrained_head")
"""Baselines whose features are the original's."""


def measure(context: Context, subject: Subject) -> dict:
    """Measure one model.

    UserError if no test image is of a forgotten class, or if the model's predictions are NaN or infinite: the accuracy
    of such a model would look like a number.
    """
    forgotten, attackers = context.test_forgotten, context.attackers
    known = context.reference_features.get(subject.name)
    subject.test = known or context.extract(subject.variables, context.test.images, subject.name)
    counts = _accuracy(context, subject)
    families = {
        "mia1": attacks.confidence_attacks,
        "mia2": attacks.shadow_attack if attackers.mia2 else None,
        "lira": attacks.lira_attack if attackers.lira else None,
        "features": _features,
        "divergence": _divergence,
        "relearn": _relearn,
    }
    for family, make in families.items():
        if make and family in context.config.metrics:
            make(context, subject)
    if subject.synthetic is not None and len(subject.synthetic) > 1:
        _duplicates(context, subject)
    return {
        "measurements": subject.measurements,
        "curves": subject.curves,
        "confusion": counts[context.forget_mask].tolist(),
        "mean_prediction": softmax(subject.test.logits[forgotten], axis=-1).mean(axis=0).tolist(),
        "representation": _representation(context, subject),
    }


def _accuracy(context, subject):
    counts = context.confusion(subject.variables)
    hits, totals = np.diag(counts), counts.sum(axis=1)
    groups = {"forget": context.forget_mask, "retain": ~context.forget_mask, "overall": slice(None)}
    for name, classes in (groups | {f"class{c}": c for c in range(len(counts))}).items():
        subject.add_share(f"accuracy/{name}", int(hits[classes].sum()), int(totals[classes].sum()))
    return counts


def _duplicates(context, subject):
    """Copies among a student's synthetic images, compared with those among real ones."""
    for space, found in copies(subject.synthetic, subject.synthetic_pass).items():
        real = context.real_copies[space]
        kinds = {space: (found.near, real.near)} | ({"exact": (found.exact, real.exact)} if space == "pixels" else {})
        for kind, (count, among_real) in kinds.items():
            note = f"of {real.n} real training images: {100 * among_real / real.n:.1f} %"
            subject.add(f"duplicates/{kind}", 100 * count / found.n, found.n, note=note)


def _representation(context, subject):
    """Test images in the plane of the model's own penultimate features (figure 6); None if there is to be no picture.

    Baselines that only change the head have the original's picture.
    """
    count, labels = context.config.embedding_images, context.test.labels
    if not count or subject.name in HEADS_ONLY:
        return None
    rows = embedding.picture_rows(labels, context.forget_mask, count, context.seed)
    points = embedding.embed(subject.test.layers[PENULTIMATE][rows], context.seed)
    return {"points": points.tolist(), "classes": labels[rows].tolist()}


def _features(context, subject):
    test, forgotten = subject.test, context.test_forgotten
    labels, wanted = context.train.labels[context.probe_rows], context.test.labels[forgotten]
    train = context.extract(subject.variables, context.train.images[context.probe_rows])
    for layer in context.layers:
        arguments = train.layers[layer], labels, test.layers[layer]
        predicted, converged = probes.linear_probe(*arguments)
        note = "the fit had not converged" * (not converged)
        subject.add_share(f"probe/{layer}", int(np.sum(predicted[forgotten] == wanted)), len(wanted), note)
        voted = probes.nearest_neighbours(*arguments)[forgotten]
        subject.add_share(f"knn/{layer}", int(np.sum(voted == wanted)), len(wanted))
        for name, reference in context.reference_features.items():
            alike = features.linear_cka(test.layers[layer], reference.layers[layer])
            subject.add(f"cka_{name}/{layer}", alike, len(context.test))
    train, everything = train.layers[PENULTIMATE], np.ones(len(labels), bool)
    for k in (k for k in context.config.shots if k <= np.bincount(labels).min()):
        shares = []
        for d in range(PROBE_DRAWS):
            drawn = sampling.shots(labels, everything, k, context.seed + d)
            predicted, _ = probes.linear_probe(train[drawn], labels[drawn], test.layers[PENULTIMATE][forgotten])
            shares.append(100 * np.mean(predicted == wanted))
        note = f"mean of {PROBE_DRAWS} draws of {k} image(s) per class"
        interval = mean_share(shares, len(wanted))
        subject.add(f"probe_shots{k}/{PENULTIMATE}", np.mean(shares), len(wanted), interval, note)
    if not context.network.head:
        return
    k = min(20, *np.bincount(labels, minlength=context.forget_mask.size).tolist())
    chosen = sampling.shots(labels, everything, k, context.seed)
    head = probes.prototype_head(
        subject.variables, train[chosen], labels[chosen], context.forget_mask, context.network.head
    )
    counts = context.confusion(head)[context.forget_mask]
    hits = int(counts[:, context.forget_mask].diagonal().sum())
    subject.add_share(f"prototype/{k}", hits, int(counts.sum()), f"{k} images per class, no training")


def _divergence(context, subject):
    original, config, test = context.references["original"], context.config, context.test
    subject.add("l2_original", divergence.relative_distance(subject.variables["params"], original["params"]))
    if retrained := context.reference_features.get("retrain"):
        logits = [of.logits[context.test_forgotten] for of in (retrained, subject.test)]
        kl, total_variation = divergence.predictive_divergence(*logits)
        subject.add("kl_retrain", kl, len(logits[0]), note="KL(retrained || model) of mean predictions")
        subject.add("tv_retrain", total_variation, len(logits[0]))
    if config.barrier_points:
        rows = sampling.some(len(test), config.barrier_images, context.seed)
        images = test.images[rows]

        def loss(variables):
            return np.mean(signals.cross_entropy(context.extract(variables, images).logits, test.labels[rows]))

        rise = divergence.barrier(loss, original, subject.variables, config.barrier_points)
        subject.add("barrier", rise, len(rows), note="linear interpolation to the original")


def _relearn(context, subject):
    config, labels, member = context.config, context.train.labels, context.member
    steps = config.relearn_steps or 10 * -(-int(member.sum()) // config.relearn_batch)
    setup = relearn.RelearnSetup(context.network, steps, context.augmentation, config.relearn_batch)
    train_images, test_images = context.device_images
    test = relearn.Subset(test_images, context.test.labels, context.test_forgotten)
    forgotten = context.forget_mask[labels]
    kinds = {"all": member, "forget": member & forgotten, "retain": member & ~forgotten}
    smallest = np.bincount(labels[member], minlength=context.forget_mask.size).min()
    kinds |= {f"shots{k}": sampling.shots(labels, member, k, context.seed) for k in config.shots if k <= smallest}
    for kind, chosen in kinds.items():
        train = relearn.Subset(train_images, labels, chosen)
        curve = relearn.relearn_curve(setup, subject.variables, train, test, context.seed)
        points = {"steps": list(range(steps + 1)), "accuracy": list(curve)}
        subject.curves.append({"model": subject.name, "kind": f"relearn/{kind}", **points})
        note = f"mean over {steps} steps on {chosen.sum()} images"
        subject.add(f"relearn/{kind}", np.mean(curve[1:]), int(test.member.sum()), note=note)
        if kind in ("all", "forget"):
            _steps(context, subject, kind, curve)


def _steps(context, subject, kind, curve):
    """Steps to 95 % of the original's accuracy; for relearning on all classes also the anamnesis index."""
    measured = subject.measurements if subject.name == "original" else context.found["original"]["measurements"]
    original = next(m["value"] for m in measured if m["metric"] == "accuracy/forget")
    target = (1 - context.config.relearn_alpha) * original
    if target <= 0:
        subject.add(f"relearn_steps/{kind}", None, note="the original does not know the class")
        return
    steps, reached = relearn.steps_to_reach(curve, target)
    subject.add(
        f"relearn_steps/{kind}", steps, note=f"to {target:.1f} %" + "; not reached, this is the cap" * (not reached)
    )
    curves = subject.curves if subject.name == "retrain" else context.found.get("retrain", {}).get("curves", [])
    gold = [c["accuracy"] for c in curves if c["kind"] == "relearn/all"]
    if kind == "all" and gold:
        index, bound = relearn.anamnesis_index(curve, gold[0], target)
        subject.add("ain", index, note=bound)
