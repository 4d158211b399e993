"""The membership attacks of an audit: which images each looks at, with what it learned beforehand from shadow models.

Shadow models are classifiers trained like the original on random halves of the training data. They depend on the data
and the architecture alone, so all models, forget sets and trials share them.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ispf_jax.classifier import Classifier
from ispf_jax.evaluate import lira, mia1, mia2, sampling, signals, threshold_attacks
from ispf_jax.evaluate.context import Attackers, Context, Subject
from ispf_jax.evaluate.settings import Audit
from ispf_jax.evaluate.statistics import jackknife, wilson
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
            yield context.extract(shadow, images).logits, shadow.origin["split"]

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
    """MIA-I, per forgotten class if there are several, and the threshold attacks on the same images.

    Over several draws of members: on a model that gives the class little confidence, one draw in many turns MIA-I from
    100 to 0.
    """
    train, test, config = context.train, context.test, context.config
    found = defaultdict(list)
    split = train.labels, test.labels, subject.member, context.member, context.forget_mask
    targets = context.train_logits(subject, np.flatnonzero(context.train_forgotten))
    draws = [mia1.choose_samples(config.mia1_protocol, *split, context.seed + d) for d in range(config.mia1_draws)]
    drawn = np.unique(np.concatenate([d.members for d in draws]))
    logits = np.zeros((len(train), context.forget_mask.size))
    logits[drawn] = context.train_logits(subject, drawn)[0]
    classes = np.unique(targets[1])
    for chosen in draws:
        members = logits[chosen.members], train.labels[chosen.members]
        nonmembers = subject.test.logits[chosen.nonmembers], test.labels[chosen.nonmembers]
        sides = members, nonmembers, targets
        unseen = mia1.called_unseen(*(signals.confidence(*side) for side in sides))
        groups = {"": np.ones(len(targets[1]), bool)}
        groups |= {f"/class{c}": targets[1] == c for c in classes if classes.size > 1}
        for name, rows in groups.items():
            found[f"mia1{name}", int(rows.sum())].append(None if unseen is None else 100 * np.mean(unseen[rows]))
        for name, signal in (("entropy", signals.entropy), ("mentropy", signals.modified_entropy)):
            percent = threshold_attacks.threshold_attack(*(signal(*side) for side in sides))
            found[f"mia1_{name}", len(targets[1])].append(percent)
    notes = {"mia1": "saturates: 0 or 100 for any model that gives the class no confidence"}
    for (name, n), percents in found.items():
        if None in percents:
            undefined = "nothing to learn from" if name.startswith("mia1/") or name == "mia1" else "no threshold"
            subject.add(name, None, n, note=f"{undefined} separates members from non-members")
        else:
            subject.add_draws(name, percents, n, notes.get(name, ""))
    correctness = threshold_attacks.correctness_attack(*targets)
    subject.add("mia1_correctness", correctness, len(targets[1]), wilson(correctness / 100, len(targets[1])))


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
    interval = jackknife(_f1, answer, truth, low=0, high=100)
    subject.add(
        "mia2", _f1(answer, truth), truth.size, interval, "compare with retrain; neither high nor low is better"
    )


def _f1(answer, truth) -> float:
    return float(200 * np.sum(answer & truth) / (answer.sum() + truth.sum()))


def lira_attack(context: Context, subject: Subject):
    """LiRA on forgotten training images: those the original was trained on against those it was only selected on.

    Of the shadow models, too, those that were trained on an image are "in" and all others "out", whether they validated
    on it or were never given it. Images with too few models on a side are left out; which these are is chance.
    """
    train, (statistic, member) = context.train, context.attackers.lira
    shadows = len(member)
    forgotten = context.forget_mask[train.labels]
    rows = np.flatnonzero(forgotten & lira.fittable(member))
    truth, values, intervals = context.member[rows], [None] * 3, [(None, None)] * 3
    note = f"{shadows} shadow models, {np.count_nonzero(~truth)} forgotten images outside the training split"
    if left_out := np.count_nonzero(forgotten) - rows.size:
        few = f"fewer than {lira.FEWEST} shadow models saw, or did not see, in training"
        note += f"; {left_out} of {np.count_nonzero(forgotten)} left out, which {few}"
    if truth.any() and not truth.all():
        target = signals.scaled_confidence(*context.train_logits(subject, rows))
        scores = lira.online_scores(target, statistic[:, rows], member[:, rows], pooled=shadows < 64)
        values, n = lira.roc_summary(scores, truth), np.count_nonzero(truth)
        auc = jackknife(lambda *of: lira.roc_summary(*of)[0] if 0 < of[1].sum() < of[1].size else None, scores, truth)
        intervals = [auc, *(wilson(rate / 100, n) for rate in values[1:])]
    else:
        note += "; images of both kinds are needed"
    for name, value, interval in zip(("auc", "tpr1", "tpr0.1"), values, intervals):
        subject.add(f"lira/{name}", value, np.count_nonzero(truth), interval, note)
