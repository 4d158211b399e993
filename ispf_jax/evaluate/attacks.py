"""The membership attacks of an audit: which images each looks at, with what it learned beforehand."""

from dataclasses import dataclass

import numpy as np

from ispf_jax.evaluate import lira, membership, sampling, shadow, signals, threshold
from ispf_jax.evaluate.context import TRAINING


@dataclass(frozen=True)
class Attackers:
    """What membership attacks learned from shadow models of the data set: made once, used for every model.

    Attributes:
      mia2: the attack network, None if not asked for.
      lira_statistic, lira_member: [K, M] statistic of the shadows on all training images, and which of them saw what.
      shadows: hashes of the weights of all these shadow models.
    """

    mia2: shadow.Attacker | None = None
    lira_statistic: np.ndarray | None = None
    lira_member: np.ndarray | None = None
    shadows: tuple[str, ...] = ()


def mia1(record, context, subject):
    """MIA-I, per forgotten class if there are several, and the threshold attacks on the same images."""
    samples = membership.choose_samples(
        context.config.mia1_protocol,
        context.train.labels,
        subject.member,
        context.test.labels,
        context.forget_mask,
        context.seed,
        context.member,
    )

    def sides(signal):
        """The signal of members, non-members and targets."""
        return [signal(*pair) for pair in pairs]

    chosen = (context.train, samples.members), (context.test, samples.nonmembers), (context.train, samples.targets)
    pairs = [(context.logits(subject.variables, data.images[rows]), data.labels[rows]) for data, rows in chosen]
    rate = membership.confidence_membership(*sides(signals.confidence), pairs[2][1])
    note = "saturates: 0 or 100 for any model that gives the class no confidence"
    record.add("mia1", rate.percent, "%", TRAINING, rate.targets, note=note)
    for c, percent in rate.per_class.items() if len(rate.per_class) > 1 else ():
        record.add(f"mia1/class{c}", percent, "%", TRAINING, int(np.sum(pairs[2][1] == c)))
    for name, signal in (
        ("entropy", lambda logits, _: signals.entropy(logits)),
        ("mentropy", signals.modified_entropy),
    ):
        found = threshold.threshold_membership(*sides(signal))
        note = "no threshold tells members from non-members" if found.percent is None else ""
        record.add(f"mia1_{name}", found.percent, "%", TRAINING, found.targets, note=note)
    record.add("mia1_correctness", threshold.correctness_membership(*pairs[2]), "%", TRAINING, rate.targets)


def mia2(record, context, subject, attacker):
    seen = subject.member | (context.member & context.of_forget(context.train.labels))
    rows = np.flatnonzero(seen)
    inside, outside = sampling.same_class_counts(context.train.labels[rows], context.test.labels, context.seed)
    logits = [
        context.logits(subject.variables, context.train.images[rows[inside]]),
        context.logits(subject.variables, context.test.images[outside]),
    ]
    probability = shadow.attack(attacker, signals.sorted_softmax(np.concatenate(logits)))
    score = shadow.attack_score(probability, np.repeat([True, False], [len(inside), len(outside)]))
    record.add(
        "mia2", score.f1, "F1 x 100", TRAINING, score.n, note="compare with retrain; neither high nor low is better"
    )


def lira_attack(record, context, subject, attackers):
    """LiRA on forgotten training images: those the original was trained on against those it was only selected on.

    Of the shadow models, too, those that were trained on an image are "in" and all others "out", whether they validated on it or were
    never given it. Images with too few models on a side are left out; which these are is chance.
    """
    forgotten, shadows = context.of_forget(context.train.labels), len(attackers.lira_member)
    rows = np.flatnonzero(forgotten & lira.fittable(attackers.lira_member))
    truth, values = context.member[rows], (None, None, None)
    note = f"{shadows} shadow models, {np.count_nonzero(~truth)} forgotten images outside the training split"
    if left_out := np.count_nonzero(forgotten) - rows.size:
        note += f"; {left_out} of {np.count_nonzero(forgotten)} left out, which fewer than {lira.FEWEST} shadow models saw, or did not see, in training"
    if truth.any() and not truth.all():
        logits = context.logits(subject.variables, context.train.images[rows])
        statistic = signals.scaled_confidence(logits, context.train.labels[rows])
        fit = "per_example" if shadows >= 64 else "pooled"
        scores = lira.online_scores(statistic, attackers.lira_statistic[:, rows], attackers.lira_member[:, rows], fit)
        curve = lira.attack_curve(scores, truth)
        values = curve.auc, curve.tpr_at_1, curve.tpr_at_01
    else:
        note += "; images of both kinds are needed"
    for name, unit, value in zip(("auc", "tpr1", "tpr0.1"), ("", "%", "%"), values):
        record.add(f"lira/{name}", value, unit, TRAINING, np.count_nonzero(truth), note=note)
