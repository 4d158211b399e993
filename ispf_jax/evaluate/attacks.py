"""The membership attacks of an audit: which images each looks at, with what it learned beforehand from shadow models.

Shadow models are classifiers trained like the original on random halves of the training data. They depend on the data
and the architecture alone, so all models, forget sets and trials share them.
"""

from collections.abc import Callable

import numpy as np

from ispf_jax.classifier import Classifier
from ispf_jax.evaluate import lira, mia1, mia2, sampling, signals, threshold_attacks
from ispf_jax.evaluate.context import Attackers, Context, Subject
from ispf_jax.evaluate.settings import Audit
from ispf_jax.runtime.provenance import weights_digest

SEED = 0

Fit = Callable[[str, np.ndarray], Classifier]
"""(name such as "mia2 0", images [M] it is given) -> a shadow model; its `origin["split"]` says what it was trained
on."""


def members(config: Audit, images: int, attack: str) -> np.ndarray:
    """Bool [K, M]: which of M training images each shadow model of an attack, "mia2" or "lira", is given."""
    if attack == "mia2":
        return mia2.halves(images, config.shadows, SEED)
    return lira.halves(images, config.lira_shadows, SEED)


def train_attackers(context: Context, fit: Fit) -> Attackers:
    """Train the shadow models that the audit asks for, and what the attacks learn from them."""
    config, images, labels, digests = context.config, context.train.images, context.train.labels, []

    def shadows(attack):
        """Logits [M, C] on all training images, and split, of one shadow model after the other."""
        for k, given in enumerate(members(config, len(images), attack)):
            shadow = fit(f"{attack} {k}", given)
            digests.append(weights_digest(shadow.variables))
            yield context.extract(shadow.variables, images).logits, shadow.origin["split"]

    attacker = of_lira = None
    if config.shadows and "mia2" in config.metrics:
        chosen, truth = [], []
        for k, (logits, split) in enumerate(shadows("mia2")):
            outside = np.flatnonzero(~(split.train | split.validation))
            outside = sampling.draw(outside, int(split.train.sum()), [SEED, k])
            chosen += [logits[split.train], logits[outside]]
            truth += [np.ones(len(outside), bool), np.zeros(len(outside), bool)]
        attacker = mia2.train_attacker(signals.sorted_softmax(np.concatenate(chosen)), np.concatenate(truth), SEED)
    if config.lira_shadows and "lira" in config.metrics:
        pairs = [(signals.scaled_confidence(logits, labels), split.train) for logits, split in shadows("lira")]
        of_lira = tuple(map(np.stack, zip(*pairs)))
    return Attackers(attacker, of_lira, tuple(digests))


def confidence_attacks(context: Context, subject: Subject):
    """MIA-I, per forgotten class if there are several, and the threshold attacks on the same images."""
    train, test, split = context.train, context.test, (subject.member, context.member)
    labels = train.labels, test.labels
    chosen = mia1.choose_samples(context.config.mia1_protocol, *labels, *split, context.forget_mask, context.seed)
    nonmembers = subject.test.logits[chosen.nonmembers], test.labels[chosen.nonmembers]
    members, targets = (context.train_logits(subject, rows) for rows in (chosen.members, chosen.targets))
    sides = members, nonmembers, targets
    unseen, n = mia1.called_unseen(*(signals.confidence(*side) for side in sides)), len(chosen.targets)
    note = "saturates: 0 or 100 for any model that gives the class no confidence"
    subject.add("mia1", None if unseen is None else 100 * np.mean(unseen), n, note=note)
    classes = np.unique(targets[1])
    for c in classes if classes.size > 1 else ():
        of_class = targets[1] == c
        percent = None if unseen is None else 100 * np.mean(unseen[of_class])
        subject.add(f"mia1/class{c}", percent, of_class.sum())
    for name, signal in (("entropy", signals.entropy), ("mentropy", signals.modified_entropy)):
        percent = threshold_attacks.threshold_attack(*(signal(*side) for side in sides))
        note = "no threshold separates members from non-members" if percent is None else ""
        subject.add(f"mia1_{name}", percent, n, note=note)
    subject.add("mia1_correctness", threshold_attacks.correctness_attack(*targets), n)


def shadow_attack(context: Context, subject: Subject):
    """MIA-II. Inside: the original's training images of all classes (of a retrained model its own and the forgotten
    ones), outside: test images, equally many of every class."""
    train, test = context.train, context.test
    rows = np.flatnonzero(subject.member | (context.member & context.forget_mask[train.labels]))
    inside, outside = sampling.same_class_counts(train.labels[rows], test.labels, context.seed)
    logits = [context.train_logits(subject, rows[inside])[0], subject.test.logits[outside]]
    probability = mia2.attack(context.attackers.mia2, signals.sorted_softmax(np.concatenate(logits)))
    truth = np.repeat([True, False], [len(inside), len(outside)])
    answer = probability >= 0.5
    f1 = 200 * np.sum(answer & truth) / (answer.sum() + truth.sum())
    subject.add("mia2", f1, truth.size, note="compare with retrain; neither high nor low is better")


def lira_attack(context: Context, subject: Subject):
    """LiRA on forgotten training images: those the original was trained on against those it was only selected on.

    Of the shadow models, too, those that were trained on an image are "in" and all others "out", whether they validated
    on it or were never given it. Images with too few models on a side are left out; which these are is chance.
    """
    train, (statistic, member) = context.train, context.attackers.lira
    shadows = len(member)
    forgotten = context.forget_mask[train.labels]
    rows = np.flatnonzero(forgotten & lira.fittable(member))
    truth, values = context.member[rows], (None, None, None)
    note = f"{shadows} shadow models, {np.count_nonzero(~truth)} forgotten images outside the training split"
    if left_out := np.count_nonzero(forgotten) - rows.size:
        few = f"fewer than {lira.FEWEST} shadow models saw, or did not see, in training"
        note += f"; {left_out} of {np.count_nonzero(forgotten)} left out, which {few}"
    if truth.any() and not truth.all():
        target = signals.scaled_confidence(*context.train_logits(subject, rows))
        scores = lira.online_scores(target, statistic[:, rows], member[:, rows], pooled=shadows < 64)
        values = lira.roc_summary(scores, truth)
    else:
        note += "; images of both kinds are needed"
    for name, value in zip(("auc", "tpr1", "tpr0.1"), values):
        subject.add(f"lira/{name}", value, np.count_nonzero(truth), note=note)
