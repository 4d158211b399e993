"""The membership attacks of an audit: which images each looks at, with what it learned beforehand."""

from dataclasses import dataclass

import numpy as np

from ispf_jax.evaluate import lira, mia1, mia2, sampling, signals, threshold_attacks
from ispf_jax.evaluate.context import Context, Subject


@dataclass(frozen=True)
class Attackers:
    """What membership attacks learned from shadow models of the data set: made once, used for every model.

    Attributes:
      mia2: parameters of the attack network, None if not asked for.
      lira: statistic of the shadows on all training images, [K, M], and which were trained on which, bool [K, M].
      shadows: hashes of the weights of all these shadow models.
    """

    mia2: dict | None = None
    lira: tuple[np.ndarray, np.ndarray] | None = None
    shadows: tuple[str, ...] = ()


def confidence_attacks(context: Context, subject: Subject, test_logits):
    """MIA-I, per forgotten class if there are several, and the threshold attacks on the same images."""
    train, test, split = context.train, context.test, (subject.member, context.member)
    labels = train.labels, test.labels
    chosen = mia1.choose_samples(context.config.mia1_protocol, *labels, *split, context.forget_mask, context.seed)
    members, targets = (
        (context.extract(subject.variables, train.images[rows]).logits, train.labels[rows])
        for rows in (chosen.members, chosen.targets)
    )
    sides = members, (test_logits[chosen.nonmembers], test.labels[chosen.nonmembers]), targets
    unseen, n = mia1.called_unseen(*(signals.confidence(*side) for side in sides)), len(chosen.targets)
    note = "saturates: 0 or 100 for any model that gives the class no confidence"
    subject.add("mia1", None if unseen is None else 100 * np.mean(unseen), n, note=note)
    classes = np.unique(targets[1])
    for c in classes if classes.size > 1 else ():
        of_class = targets[1] == c
        percent = None if unseen is None else 100 * np.mean(unseen[of_class])
        subject.add(f"mia1/class{c}", percent, int(of_class.sum()))
    for name, signal in (("entropy", signals.entropy), ("mentropy", signals.modified_entropy)):
        percent = threshold_attacks.threshold_attack(*(signal(*side) for side in sides))
        note = "no threshold separates members from non-members" if percent is None else ""
        subject.add(f"mia1_{name}", percent, n, note=note)
    subject.add("mia1_correctness", threshold_attacks.correctness_attack(*targets), n)


def shadow_attack(context: Context, subject: Subject, test_logits, attacker: dict):
    """MIA-II. Inside: the original's training images of all classes (of a retrained model its own and the forgotten
    ones), outside: test images, equally many of every class."""
    train, test = context.train, context.test
    rows = np.flatnonzero(subject.member | (context.member & context.forget_mask[train.labels]))
    inside, outside = sampling.same_class_counts(train.labels[rows], test.labels, context.seed)
    logits = [context.extract(subject.variables, train.images[rows[inside]]).logits, test_logits[outside]]
    probability = mia2.attack(attacker, signals.sorted_softmax(np.concatenate(logits)))
    truth = np.repeat([True, False], [len(inside), len(outside)])
    answer = probability >= 0.5
    f1 = 200 * np.sum(answer & truth) / (answer.sum() + truth.sum())
    subject.add("mia2", f1, truth.size, note="compare with retrain; neither high nor low is better")


def lira_attack(context: Context, subject: Subject, statistic: np.ndarray, member: np.ndarray):
    """LiRA on forgotten training images: those the original was trained on against those it was only selected on.

    Of the shadow models, too, those that were trained on an image are "in" and all others "out", whether they validated
    on it or were never given it. Images with too few models on a side are left out; which these are is chance.
    """
    train, shadows = context.train, len(member)
    forgotten = context.forget_mask[train.labels]
    rows = np.flatnonzero(forgotten & lira.fittable(member))
    truth, values = context.member[rows], (None, None, None)
    note = f"{shadows} shadow models, {np.count_nonzero(~truth)} forgotten images outside the training split"
    if left_out := np.count_nonzero(forgotten) - rows.size:
        few = f"fewer than {lira.FEWEST} shadow models saw, or did not see, in training"
        note += f"; {left_out} of {np.count_nonzero(forgotten)} left out, which {few}"
    if truth.any() and not truth.all():
        logits = context.extract(subject.variables, train.images[rows]).logits
        target = signals.scaled_confidence(logits, train.labels[rows])
        scores = lira.online_scores(target, statistic[:, rows], member[:, rows], pooled=shadows < 64)
        values = lira.roc_summary(scores, truth)
    else:
        note += "; images of both kinds are needed"
    for name, value in zip(("auc", "tpr1", "tpr0.1"), values):
        subject.add(f"lira/{name}", value, np.count_nonzero(truth), note=note)
