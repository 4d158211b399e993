"""All measurements of one model: which images each metric looks at.

The metrics themselves are in the files next to this one; here they get their inputs, and what they find is recorded.
Which of them can be made follows from what each needs, `metrics.csv`.
"""

import numpy as np
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from ispf_jax.evaluate import attacks, baseline, divergence, embedding, features, oracles, probes, relearn, sampling
from ispf_jax.evaluate.agreement import agreed
from ispf_jax.evaluate.context import Context, Subject, copies
from ispf_jax.evaluate.features import PENULTIMATE
from ispf_jax.evaluate.inversion import label_leak
from ispf_jax.evaluate.signals import cross_entropy
from ispf_jax.evaluate.statistics import jackknife, mean_of_draws, wilson
from ispf_jax.runtime.metrics import plan

PROBE_DRAWS = 5
BARRIER_IMAGES = 256
"""Synthetic images on which the loss between two models is taken, at most."""

OTHER_NETWORK = "another network than the original's"

HEADS_ONLY = ("masked_head", "retrained_head", "synthetic_embedding")
"""Baselines whose features are the original's."""


def measure(context: Context, subject: Subject) -> dict:
    """Measure all that can be measured of one model.

    UserError if the model's predictions are NaN or infinite: the accuracy of such a model would look like a number.
    """
    have = context.have
    if "test" in have:
        known = context.reference_features.get(subject.name)
        subject.test = known or context.extract(subject.model, context.test.images, subject.name)
    possible, _ = plan(have, context.asked)
    for name, make in MEASURES.items():
        if name in possible:
            make(context, subject)
    forgotten = "forgotten" in have
    found = {
        "measurements": subject.measurements,
        "curves": subject.curves,
        "confusion": [],
        "mean_prediction": [],
        "hits": subject.hits,
        "representation": _representation(context, subject) if "test" in have else None,
    }
    if forgotten:
        logits, classes = subject.test.logits[context.test_forgotten], range(context.forget_mask.size)
        predicted, of = logits.argmax(axis=1), context.test.labels[context.test_forgotten]
        found["confusion"] = [[int(np.sum((of == f) & (predicted == c))) for c in classes] for f in context.forget]
        found["mean_prediction"] = softmax(logits, axis=-1).mean(axis=0).tolist()
    return found


def _accuracy(context, subject):
    labels, forgotten = context.test.labels, context.test_forgotten
    right = subject.test.logits.argmax(axis=1) == labels
    subject.add_hits("accuracy/forget", right[forgotten])
    subject.add_hits("accuracy/retain", right[~forgotten])
    groups = {"overall": labels >= 0} | {f"class{c}": labels == c for c in range(context.forget_mask.size)}
    for name, rows in groups.items():
        subject.add_share(f"accuracy/{name}", int(right[rows].sum()), len(right[rows]))


def _duplicates(context, subject):
    """Copies among a student's synthetic images, compared with those among real ones."""
    if subject.synthetic is None or len(subject.synthetic) < 2:
        return
    for space, found in copies(subject.synthetic, subject.synthetic_pass).items():
        real = context.real_copies[space] if len(context.train) > 1 else None
        kinds = {space: "near"} | ({"exact": "exact"} if space == "pixels" else {})
        for kind, which in kinds.items():
            among_real = real and f"of {real.n} real training images: {100 * getattr(real, which) / real.n:.1f} %"
            subject.add_share(f"duplicates/{kind}", getattr(found, which), found.n, among_real or "")


def _generator(context, subject):
    """What the model says of synthetic images: its own generator's, or those of the first that has one."""
    images = context.synthetic if subject.synthetic is None else subject.synthetic
    teacher = context.extract(context.references["original"], images).logits
    logits = context.extract(subject.model, images, subject.name).logits
    said, labels, forget = logits.argmax(axis=1), teacher.argmax(axis=1), np.flatnonzero(context.forget_mask)
    retained, (share, covered, n) = ~context.forget_mask[labels], agreed(said, labels, forget)
    note = f"{covered} of {int(np.sum(~context.forget_mask))} retained classes are covered"
    subject.add("agreement", share, retained.sum(), (None, None) if share is None else wilson(share / 100, n), note)
    mass = _mass(context, logits)
    subject.add("mass/fresh", mass.mean(), len(mass), jackknife(np.mean, mass, low=0, high=100))
    if context.config.barrier_points and retained.any():
        rows = np.flatnonzero(retained)[:BARRIER_IMAGES]
        _barrier(context, subject, "barrier_synthetic", images[rows], teacher.argmax(axis=1)[rows])


def _mass(context, logits):
    """Percent of probability on forgotten classes, [N]."""
    return 100 * softmax(logits, axis=1)[:, context.forget_mask].sum(axis=1)


def _inversion(context, subject):
    """What the model says of images inverted from the original, and the original of images inverted from it."""
    if not context.config.inverted_images:
        return
    original, (shown, classes) = context.references["original"], context.inverted
    of_forgotten = context.forget_mask[classes]
    mass = _mass(context, context.extract(subject.model, shown[of_forgotten], subject.name).logits)
    subject.add("mass/inverted", mass.mean(), len(mass), jackknife(np.mean, mass, low=0, high=100))
    images, _ = context.inverted if subject.name == "original" else context.invert(subject.model)
    said = context.extract(original, images[of_forgotten]).logits.argmax(axis=1)
    subject.add_share("inversion", int(np.sum(said == classes[of_forgotten])), int(of_forgotten.sum()))
    unsure = cross_entropy(context.extract(subject.model, images, subject.name).logits, classes)
    which = np.unique(classes)
    scores = np.array([unsure[classes == c].mean() for c in which])
    _leak(subject, "leak/inversion", scores, context.forget_mask[which])


def _leak(subject, name, scores, forgotten):
    value, n = label_leak(scores, forgotten), int(np.sum(~forgotten))
    low, high = wilson(value, n)
    subject.add(name, value, n, (low / 100, high / 100), "n: retained classes that a forgotten one is compared with")


def _label_weights(context, subject):
    if not context.same_network(subject):
        subject.add("leak/weights", None, note=OTHER_NETWORK)
    elif place := context.network.head:
        heads = [baseline.head_of(of.variables, place) for of in (subject.model, context.references["original"])]
        change = [np.asarray(heads[0][name], float) - np.asarray(heads[1][name], float) for name in heads[0]]
        scores = np.linalg.norm(np.concatenate([np.atleast_2d(part) for part in change]), axis=0)
        _leak(subject, "leak/weights", scores, context.forget_mask)


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


def _cka(context, subject):
    for layer in context.layers_of(subject.model):
        for name, reference in context.reference_features.items():
            pair = subject.test.layers[layer], reference.layers[layer]
            alike, interval = features.linear_cka(*pair), jackknife(features.linear_cka, *pair, low=0, high=1)
            subject.add(f"cka_{name}/{layer}", alike, len(context.test), interval)


def _probes(context, subject):
    test, forgotten = subject.test, context.test_forgotten
    labels, wanted = context.train.labels[context.probe_rows], context.test.labels[forgotten]
    train = context.extract(subject.model, context.train.images[context.probe_rows])
    for layer in context.layers_of(subject.model):
        arguments = train.layers[layer], labels, test.layers[layer][forgotten]
        predicted, converged = probes.linear_probe(*arguments)
        subject.add_hits(f"probe/{layer}", predicted == wanted, "the fit had not converged" * (not converged))
        subject.add_hits(f"knn/{layer}", probes.nearest_neighbours(*arguments) == wanted)
    train, everything = train.layers[PENULTIMATE], np.ones(len(labels), bool)
    for k in (k for k in context.config.shots if k <= np.bincount(labels).min()):
        shares = []
        for d in range(PROBE_DRAWS):
            drawn = sampling.shots(labels, everything, k, context.seed + d)
            predicted, _ = probes.linear_probe(train[drawn], labels[drawn], test.layers[PENULTIMATE][forgotten])
            shares.append(100 * np.mean(predicted == wanted))
        subject.add_draws(f"probe_shots{k}/{PENULTIMATE}", shares, len(wanted), f"{k} image(s) per class")
    if not (place := subject.model.network.head):
        return
    k = min(20, *np.bincount(labels, minlength=context.forget_mask.size).tolist())
    chosen = sampling.shots(labels, everything, k, context.seed)
    head = probes.prototype_head(subject.model.variables, train[chosen], labels[chosen], context.forget_mask, place)
    logits = baseline.head_logits(head, test.layers[PENULTIMATE][forgotten], place)
    subject.add_hits(f"prototype/{k}", logits.argmax(axis=1) == wanted, f"{k} images per class, no training")


def _distances(context, subject):
    if not context.same_network(subject):
        subject.add("l2_original", None, note=OTHER_NETWORK)
        return
    ours, theirs = (of.variables["params"] for of in (subject.model, context.references["original"]))
    subject.add("l2_original", divergence.relative_distance(ours, theirs), note="exact: no sample")
    for layer, distance in divergence.layer_distances(ours, theirs).items():
        subject.add(f"l2_original/{layer}", distance)


def _predictions(context, subject):
    """Distances of the mean predictions on forgotten images to the retrained model's."""
    retrained = context.reference_features["retrain"]
    logits = [of.logits[context.test_forgotten] for of in (retrained, subject.test)]
    notes = {"kl_retrain": "KL(retrained || model) of mean predictions", "tv_retrain": ""}
    for i, (name, high) in enumerate((("kl_retrain", np.inf), ("tv_retrain", 1))):
        interval = jackknife(lambda *of, i=i: divergence.predictive_divergence(*of)[i], *logits, low=0, high=high)
        subject.add(name, divergence.predictive_divergence(*logits)[i], len(logits[0]), interval, notes[name])


def _class_leak(context, subject):
    retrained = context.reference_features["retrain"].logits[context.test_forgotten]
    if subject.name == "retrain" and len(context.oracles) > 1:
        images = context.test.images[context.test_forgotten]
        other = context.extract(context.oracles[1], images).logits
        note = "against another retrained model"
    else:
        other, note = subject.test.logits[context.test_forgotten], ""
    if subject.name == "retrain" and not note:
        subject.add("cmia", 50.0, len(retrained), note="by definition; two retrained models would show its spread")
    elif len(retrained) < 5 or np.count_nonzero(~context.forget_mask) < 2:
        subject.add("cmia", None, len(retrained), note="needs five forgotten images and two retained classes")
    else:
        share = oracles.class_leak(other, retrained, context.forget_mask).mean()
        subject.add("cmia", 100 * share, len(retrained), wilson(share, len(retrained)), note)


def _oracles(context, subject):
    """Deviation of the margins from those of several retrained models; with training images also as an attack."""
    skip = 0 if subject.name == "retrain" else None
    z = {
        side: oracles.deviations(context.margins(subject.model, side), of, skip)
        for side, of in context.oracle_margins.items()
    }
    note = f"{len(context.oracles)} retrained models"
    subject.add("klom", oracles.klom(z["test"]), len(z["test"]), jackknife(oracles.klom, z["test"], low=0), note)
    if "train" in z:
        scores = np.concatenate([z["train"], z["test"]])
        seen = np.arange(len(scores)) < len(z["train"])
        interval = jackknife(_auc, scores, seen, low=0, high=1)
        subject.add("ulira/auc", _auc(scores, seen), len(scores), interval, note)


def _auc(scores, truth) -> float | None:
    return float(roc_auc_score(truth, scores)) if 0 < np.sum(truth) < len(truth) else None


def _test_barrier(context, subject):
    if context.config.barrier_points:
        rows = sampling.some(len(context.test), context.config.barrier_images, context.seed)
        _barrier(context, subject, "barrier", context.test.images[rows], context.test.labels[rows])


def _barrier(context, subject, name, images, labels):
    if not context.same_network(subject):
        subject.add(name, None, note=OTHER_NETWORK)
        return
    ends = [of.variables for of in (context.references["original"], subject.model)]

    def losses(variables):
        return cross_entropy(context.extract(subject.model.replace(variables=variables), images).logits, labels)

    between = divergence.losses_between(losses, *ends, context.config.barrier_points)
    interval = jackknife(lambda of: divergence.barrier(of.T), between.T, low=0)
    subject.add(name, divergence.barrier(between), len(images), interval, "linear interpolation to the original")


def _relearn(context, subject):
    config, labels, member = context.config, context.train.labels, context.member
    steps = config.relearn_steps or 10 * -(-int(member.sum()) // config.relearn_batch)
    setup = relearn.RelearnSetup(subject.model.network, steps, context.augmentation, config.relearn_batch)
    train_images, test_images = context.device_images
    test = relearn.Subset(test_images, context.test.labels, context.test_forgotten)
    forgotten, n = context.forget_mask[labels], int(context.test_forgotten.sum())
    kinds = {"all": member, "forget": member & forgotten, "retain": member & ~forgotten}
    smallest = np.bincount(labels[member], minlength=context.forget_mask.size).min()
    kinds |= {f"shots{k}": sampling.shots(labels, member, k, context.seed) for k in config.shots if k <= smallest}
    measured = subject.measurements if subject.name == "original" else context.found["original"]["measurements"]
    original = next(m["value"] for m in measured if m["metric"] == "accuracy/forget")
    target = (1 - config.relearn_alpha) * original
    for kind, chosen in kinds.items():
        train, timed = relearn.Subset(train_images, labels, chosen), kind in ("all", "forget")
        curves = [
            relearn.relearn_curve(setup, subject.model.variables, train, test, context.seed + i)
            for i in range(config.relearn_orders if kind == "all" else 1)
        ]
        for curve in curves:
            points = {"steps": list(range(len(curve))), "accuracy": list(curve)}
            subject.curves.append({"model": subject.name, "kind": f"relearn/{kind}", **points})
        means = [np.mean(curve[1:]) for curve in curves]
        note = f"mean over {steps} steps on {chosen.sum()} images"
        if len(means) > 1:
            subject.add_draws(f"relearn/{kind}", means, n, note)
        else:
            subject.add(f"relearn/{kind}", means[0], n, wilson(means[0] / 100, n), note)
        if timed and target > 0:
            _steps(context, subject, kind, curves, target)
        elif timed:
            subject.add(f"relearn_steps/{kind}", None, note="the original does not know the class")


def _steps(context, subject, kind, curves, target):
    """Steps to 95 % of the original's accuracy; for relearning on all classes also the anamnesis index."""
    steps, reached = zip(*(relearn.steps_to_reach(curve, target) for curve in curves))
    several = len(steps) > 1
    note = f"to {target:.1f} %" + f", {len(steps)} draws: {min(steps)} to {max(steps)}" * several
    note += "; not reached, this is the end of the curve" * (not all(reached))
    interval = mean_of_draws(steps, low=0) if several else (None, None)
    subject.add(f"relearn_steps/{kind}", np.mean(steps), len(steps), interval, note)
    of_gold = subject.curves if subject.name == "retrain" else context.found.get("retrain", {}).get("curves", [])
    gold = [c["accuracy"] for c in of_gold if c["kind"] == "relearn/all"]
    if kind == "all" and gold:
        pairs = [relearn.anamnesis_index(*pair, target) for pair in zip(curves, gold)]
        values, bounds = [value for value, _ in pairs if value is not None], dict.fromkeys(bound for _, bound in pairs)
        whole = len(values) == len(pairs)
        note = ", ".join(bounds) + (f"; {len(values)} draws: {min(values):.2f} to {max(values):.2f}" if whole else "")
        interval = mean_of_draws(values, low=0) if whole else (None, None)
        subject.add("ain", np.mean(values) if whole else None, len(pairs), interval, note if whole else "undefined")


MEASURES = {
    "accuracy/retain": _accuracy,
    "mia1": attacks.confidence_attacks,
    "mia2": attacks.shadow_attack,
    "lira/auc": attacks.lira_attack,
    "probe": _probes,
    "cka_original": _cka,
    "l2_original": _distances,
    "kl_retrain": _predictions,
    "barrier": _test_barrier,
    "cmia": _class_leak,
    "klom": _oracles,
    "relearn/all": _relearn,
    "mass/inverted": _inversion,
    "leak/weights": _label_weights,
    "agreement": _generator,
    "duplicates/exact": _duplicates,
}
"""What is measured: a metric of `metrics.csv`, on whose needs it depends, and the function that records it and its
like."""
