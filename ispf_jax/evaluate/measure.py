"""All measurements of one model: which images each metric looks at, and what access it needed.

The metrics themselves are in the files beside this one; here they are given their inputs and turned into records
{"model", "metric", "value", "unit", "low", "high", "n", "tier", "note"}.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ispf_jax.config import AuditConfig
from ispf_jax.data.augment import normalise
from ispf_jax.data.dataset import ArrayDataset
from ispf_jax.evaluate import divergence, features, lira, membership, probes, relearn, sampling, shadow, signals
from ispf_jax.evaluate.accuracy import Evaluator, accuracies
from ispf_jax.evaluate.statistics import wilson

PROBE_DRAWS = 5
WEIGHTS, TEST, TRAINING, RETRAINED = "weights only", "test images", "training data", "retrained models"
"""Access tiers: what somebody must hold to take a measurement."""


@dataclass(frozen=True)
class Context:
    """What all models of an audit are measured against.

    Attributes:
      train, test: the data; `images` and `labels` are the training set on the device.
      member: bool [M], the original's training split.
      forget_mask: bool [C].
      references: variables of "original" and, if there is one, "retrain".
      seed: of every random choice of images.
    """

    classifier: nn.Module
    evaluator: Evaluator
    augmentation: str
    train: ArrayDataset
    test: ArrayDataset
    images: jax.Array
    test_images: jax.Array
    member: np.ndarray
    forget_mask: np.ndarray
    references: dict[str, dict]
    config: AuditConfig
    seed: int

    @property
    def forget(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.forget_mask).tolist())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features are read: `config.layers` of them, evenly from the first third to the penultimate."""
        names = features.layer_names(self.classifier, self.references["original"], self.train.images.shape[1:])[:-1]
        places = np.linspace(0, len(names), self.config.layers + 1)[1:-1]
        return (*(names[int(p) - 1] for p in places if int(p) >= 1), features.PENULTIMATE)

    @cached_property
    def probe_rows(self) -> np.ndarray:
        """Training images that probes and neighbours learn from: class-balanced, at most `config.train_images`."""
        rows = np.flatnonzero(self.member)
        if len(rows) <= self.config.train_images:
            return rows
        smallest = np.bincount(self.train.labels[rows], minlength=self.forget_mask.size).min()
        per_class = max(1, min(self.config.train_images // self.forget_mask.size, smallest))
        return np.flatnonzero(sampling.shots(self.train.labels, self.member, per_class, self.seed))

    @cached_property
    def reference_features(self) -> dict[str, features.Extracted]:
        """Features of the test images in the reference models."""
        return {name: self.extract(variables, self.test.images) for name, variables in self.references.items()}

    def extract(self, variables, images, layers=None) -> features.Extracted:
        e = self.evaluator
        return features.extract(self.classifier, variables, images, e.mean, e.std, layers or self.layers, e.batch_size)

    def logits(self, variables, images) -> np.ndarray:
        return self.extract(variables, images, (features.PENULTIMATE,)).logits

    def of_forget(self, labels) -> np.ndarray:
        return self.forget_mask[labels]

    def relearn_setup(self) -> relearn.RelearnSetup:
        c = self.config
        steps = c.relearn_steps or 10 * -(-int(self.member.sum()) // c.relearn_batch)
        return relearn.RelearnSetup(
            self.classifier, steps, self.augmentation, self.evaluator.mean, self.evaluator.std, c.relearn_batch
        )


@dataclass(frozen=True)
class Attackers:
    """What membership attacks learned from shadow models of the data set: made once, used for every model.

    Attributes:
      mia2: the attack network, None if not asked for.
      lira_statistic, lira_member: [K, M] statistic of the shadows on all training images, and which of them saw what.
    """

    mia2: shadow.Attacker | None = None
    lira_statistic: np.ndarray | None = None
    lira_member: np.ndarray | None = None


@dataclass
class _Record:
    model: str
    measurements: list = field(default_factory=list)
    curves: list = field(default_factory=list)

    def add(self, metric, value, unit, tier, n=None, low=None, high=None, note=""):
        value = None if value is None else float(value)
        self.measurements.append(
            {"model": self.model, "metric": metric, "value": value, "unit": unit, "low": low, "high": high, "n": n, "tier": tier, "note": note}
        )


def model(context: Context, subject, attackers: Attackers, parts: dict) -> dict:
    """Measure one model; `parts` holds the finished parts of "original" and "retrain"."""
    record, config = _Record(subject.name), context.config
    test = context.extract(subject.variables, context.test.images)
    forgotten = context.of_forget(context.test.labels)
    confusion = _accuracy(record, context, subject)
    if "mia1" in config.metrics:
        _mia1(record, context, subject)
    if "mia2" in config.metrics and attackers.mia2 is not None:
        _mia2(record, context, subject, attackers.mia2)
    if "lira" in config.metrics and attackers.lira_statistic is not None:
        _lira(record, context, subject, attackers)
    if "features" in config.metrics:
        _features(record, context, subject, test)
    if "divergence" in config.metrics:
        _divergence(record, context, subject, test.logits[forgotten])
    if "relearn" in config.metrics:
        _relearn(record, context, subject, parts)
    mean = np.asarray(jax.nn.softmax(jnp.asarray(test.logits[forgotten]))).mean(axis=0)
    return {
        "measurements": record.measurements, "curves": record.curves,
        "confusion": confusion[list(context.forget)].tolist(), "mean_prediction": mean.tolist(),
    }  # fmt: skip


def weights_digest(variables) -> str:
    """A hash of a network's variables, the same for the same bits."""
    digest = hashlib.blake2b(digest_size=16)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _accuracy(record, context, subject):
    confusion = context.evaluator.confusion(subject.variables, context.test_images, context.test.labels)
    values = accuracies(confusion, context.forget)
    hits, totals = np.diag(confusion), confusion.sum(axis=1)
    for name, classes in (("forget", context.forget_mask), ("retain", ~context.forget_mask), ("overall", slice(None))):
        interval = wilson(int(hits[classes].sum()), int(totals[classes].sum()))
        record.add(f"accuracy/{name}", getattr(values, name), "%", TEST, interval.n, interval.low, interval.high)
    return confusion


def _mia1(record, context, subject):
    samples = membership.choose_samples(
        context.config.mia1_protocol, context.train.labels, subject.member, context.test.labels, context.forget_mask, context.seed,
        context.member,
    )  # fmt: skip

    def confidence(data, rows):
        return signals.confidence(context.logits(subject.variables, data.images[rows]), data.labels[rows])

    target_labels = context.train.labels[samples.targets]
    rate = membership.confidence_membership(
        confidence(context.train, samples.members), confidence(context.test, samples.nonmembers),
        confidence(context.train, samples.targets), target_labels,
    )  # fmt: skip
    note = "saturates: 0 or 100 for any model that gives the class no confidence"
    record.add("mia1", rate.percent, "%", TRAINING, rate.targets, note=note)


def _mia2(record, context, subject, attacker):
    seen = subject.member | (context.member & context.of_forget(context.train.labels))
    rows = np.flatnonzero(seen)
    inside, outside = sampling.same_class_counts(context.train.labels[rows], context.test.labels, context.seed)
    logits = [
        context.logits(subject.variables, context.train.images[rows[inside]]),
        context.logits(subject.variables, context.test.images[outside]),
    ]
    probability = shadow.attack(attacker, signals.sorted_softmax(np.concatenate(logits)))
    score = shadow.attack_score(probability, np.repeat([True, False], [len(inside), len(outside)]))
    record.add("mia2", score.f1, "F1 x 100", TRAINING, score.n, note="compare with retrain; neither high nor low is better")


def _lira(record, context, subject, attackers):
    rows = np.flatnonzero(context.of_forget(context.train.labels))
    logits = context.logits(subject.variables, context.train.images[rows])
    statistic = signals.scaled_confidence(logits, context.train.labels[rows])
    fit = "per_example" if len(attackers.lira_member) >= 64 else "pooled"
    scores = lira.online_scores(statistic, attackers.lira_statistic[:, rows], attackers.lira_member[:, rows], fit)
    curve = lira.attack_curve(scores, context.member[rows])
    note = f"{len(attackers.lira_member)} shadow models, {curve.negatives} forgotten images outside the training split"
    record.add("lira/auc", curve.auc, "", TRAINING, curve.positives, note=note)
    record.add("lira/tpr1", curve.tpr_at_1, "%", TRAINING, curve.positives, note=note)
    record.add("lira/tpr0.1", curve.tpr_at_01, "%", TRAINING, curve.positives, note=note)


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
            record.add(f"{metric}/{layer}", reading.forget, "%", TRAINING, reading.n_forget, interval.low, interval.high, note)
        for name, reference in context.reference_features.items():
            tier = RETRAINED if name == "retrain" else TEST
            record.add(f"cka_{name}/{layer}", features.linear_cka(test.layers[layer], reference.layers[layer]), "", tier, len(test_labels))
    _few_shot_probes(record, context, train.layers[features.PENULTIMATE], test.layers[features.PENULTIMATE], labels)
    k = min(20, *(int(np.sum(labels == c)) for c in range(mask.size)))
    chosen = sampling.shots(labels, np.ones(len(labels), bool), k, context.seed)
    penultimate = train.layers[features.PENULTIMATE][chosen]
    head = probes.prototype_head(subject.variables, penultimate, labels[chosen], mask)
    confusion = context.evaluator.confusion(head, context.test_images, test_labels)
    n = int(confusion[mask].sum())
    record.add(f"prototype/{k}", accuracies(confusion, context.forget).forget, "%", TRAINING, n, note=f"{k} images per class, no training")


def _few_shot_probes(record, context, train, test, labels):
    """Linear probes on k images per class, mean over `PROBE_DRAWS` draws: where any features suffice for all data, these still tell."""
    test_labels, everything = context.test.labels, np.ones(len(labels), bool)
    for k in context.config.shots:
        if k > np.bincount(labels).min():
            continue
        draws = [np.flatnonzero(sampling.shots(labels, everything, k, context.seed + d)) for d in range(PROBE_DRAWS)]
        readings = [probes.linear_probe(train[r], labels[r], test, test_labels, context.forget_mask) for r in draws]
        note = f"mean of {PROBE_DRAWS} draws of {k} image(s) per class"
        value = np.mean([reading.forget for reading in readings])
        record.add(f"probe_shots{k}/{features.PENULTIMATE}", value, "%", TRAINING, readings[0].n_forget, note=note)


def _divergence(record, context, subject, forgotten_logits):
    original = context.references["original"]
    distance = divergence.parameter_distance(subject.variables["params"], original["params"])
    record.add("l2_original", distance.relative, "ratio", WEIGHTS)
    if "retrain" in context.references:
        reference = context.reference_features["retrain"].logits[context.of_forget(context.test.labels)]
        d = divergence.predictive_divergence(reference, forgotten_logits)
        record.add("kl_retrain", d.kl_of_means, "nats", RETRAINED, d.n, note="KL(retrained || model) of mean predictions")
        record.add("tv_retrain", d.tv_of_means, "", RETRAINED, d.n)
    if context.config.barrier_points:
        rows = sampling.draw(np.arange(len(context.test)), min(context.config.barrier_images, len(context.test)), context.seed)
        loss = partial(_mean_loss, context.evaluator, images=context.test.images[rows], labels=context.test.labels[rows])
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
        member = relearn.relearn_members(data, context.train.labels, context.member, context.forget_mask, context.seed, k)
        curve = relearn.relearn_curve(
            setup, subject.variables, context.images, context.train.labels, member, context.test_images, context.test.labels,
            evaluated, context.seed,
        )  # fmt: skip
        record.curves.append({"model": subject.name, "kind": f"relearn/{kind}", "steps": curve.steps, "accuracy": curve.accuracy})
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
