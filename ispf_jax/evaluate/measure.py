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


def measure(context: Context, subject: Subject, attackers: attacks.Attackers, parts: dict) -> dict:
    """Measure one model; `parts` holds the finished parts of "original" and "retrain".

    UserError if no test image is of a forgotten class, or if the model's predictions are NaN or infinite: the accuracy
    of such a model would look like a number.
    """
    families, forgotten = context.config.metrics, context.test_forgotten
    test = context.reference_features.get(subject.name)
    test = test or context.extract(subject.variables, context.test.images, subject.name)
    counts = _accuracy(context, subject)
    if "mia1" in families:
        attacks.confidence_attacks(context, subject, test.logits)
    if "mia2" in families and attackers.mia2 is not None:
        attacks.shadow_attack(context, subject, test.logits, attackers.mia2)
    if "lira" in families and attackers.lira is not None:
        attacks.lira_attack(context, subject, *attackers.lira)
    if "features" in families:
        _features(context, subject, test)
    if "divergence" in families:
        _divergence(context, subject, test.logits[forgotten])
    if "relearn" in families:
        _relearn(context, subject, parts)
    if subject.synthetic is not None and len(subject.synthetic) > 1:
        _duplicates(context, subject)
    return {
        "measurements": subject.measurements,
        "curves": subject.curves,
        "confusion": counts[context.forget_mask].tolist(),
        "mean_prediction": softmax(test.logits[forgotten], axis=-1).mean(axis=0).tolist(),
        "representation": _representation(context, subject, test),
    }


def _accuracy(context, subject):
    counts = context.confusion(subject.variables)
    hits, totals = np.diag(counts), counts.sum(axis=1)
    groups = {"forget": context.forget_mask, "retain": ~context.forget_mask, "overall": slice(None)}
    for name, classes in (groups | {f"class{c}": c for c in range(len(counts))}).items():
        subject.add_share(f"accuracy/{name}", (int(hits[classes].sum()), int(totals[classes].sum())))
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
    count, labels = context.config.embedding_images, context.test.labels
    if not count or subject.name in HEADS_ONLY:
        return None
    rows = embedding.picture_rows(labels, context.forget_mask, count, context.seed)
    points = embedding.embed(test.layers[PENULTIMATE][rows], context.seed)
    return {"points": points.tolist(), "classes": labels[rows].tolist()}


def _features(context, subject, test):
    labels, wanted = context.train.labels[context.probe_rows], context.test.labels[context.test_forgotten]
    train = context.extract(subject.variables, context.train.images[context.probe_rows])
    for layer in context.layers:
        arguments = train.layers[layer], labels, test.layers[layer]
        predicted, converged = probes.linear_probe(*arguments)
        note = "" if converged else "the fit had not converged"
        subject.add_share(f"probe/{layer}", predicted[context.test_forgotten] == wanted, note)
        subject.add_share(f"knn/{layer}", probes.nearest_neighbours(*arguments)[context.test_forgotten] == wanted)
        for name, reference in context.reference_features.items():
            alike = features.linear_cka(test.layers[layer], reference.layers[layer])
            subject.add(f"cka_{name}/{layer}", alike, len(context.test))
    train, test = train.layers[PENULTIMATE], test.layers[PENULTIMATE]
    _few_shot_probes(context, subject, train, labels, test)
    k = min(20, *np.bincount(labels, minlength=context.forget_mask.size).tolist())
    chosen = sampling.shots(labels, np.ones(len(labels), bool), k, context.seed)
    head = probes.prototype_head(subject.variables, train[chosen], labels[chosen], context.forget_mask)
    counts = context.confusion(head)[context.forget_mask]
    hits = int(counts[:, context.forget_mask].diagonal().sum())
    subject.add_share(f"prototype/{k}", (hits, int(counts.sum())), f"{k} images per class, no training")


def _few_shot_probes(context, subject, train, labels, test):
    """Linear probes on k images per class, mean over several draws: where any features suffice for all data, these
    still tell."""
    forgotten, everything = context.test_forgotten, np.ones(len(labels), bool)
    for k in context.config.shots:
        if k > np.bincount(labels).min():
            continue
        shares, n = [], int(forgotten.sum())
        for d in range(PROBE_DRAWS):
            drawn = sampling.shots(labels, everything, k, context.seed + d)
            predicted, _ = probes.linear_probe(train[drawn], labels[drawn], test[forgotten])
            shares.append(100 * np.mean(predicted == context.test.labels[forgotten]))
        note = f"mean of {PROBE_DRAWS} draws of {k} image(s) per class"
        subject.add(f"probe_shots{k}/{PENULTIMATE}", np.mean(shares), n, mean_share(shares, n), note)


def _divergence(context, subject, forgotten_logits):
    original, config, test = context.references["original"], context.config, context.test
    subject.add("l2_original", divergence.relative_distance(subject.variables["params"], original["params"]))
    if "retrain" in context.references:
        reference, n = context.reference_features["retrain"].logits[context.test_forgotten], len(forgotten_logits)
        kl, total_variation = divergence.predictive_divergence(reference, forgotten_logits)
        subject.add("kl_retrain", kl, n, note="KL(retrained || model) of mean predictions")
        subject.add("tv_retrain", total_variation, n)
    if config.barrier_points:
        rows = sampling.draw(np.arange(len(test)), min(config.barrier_images, len(test)), context.seed)
        images = test.images[rows]

        def loss(variables):
            return np.mean(signals.cross_entropy(context.extract(variables, images).logits, test.labels[rows]))

        rise = divergence.barrier(loss, original, subject.variables, config.barrier_points)
        subject.add("barrier", rise, len(rows), note="linear interpolation to the original")


def _relearn(context, subject, parts):
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
