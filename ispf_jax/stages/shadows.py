"""Shadow models: classifiers trained like the original on random halves of the training data, for membership attacks.

They depend on the data and the architecture alone, so all models, forget sets and trials of a work directory share them.
"""

from pathlib import Path

import numpy as np

from ispf_jax.evaluate import lira, measure, sampling, shadow, signals
from ispf_jax.stages.supervised import SupervisedStage

SEED = 0


def train_attackers(directory: Path, supervised: SupervisedStage, context: measure.Context) -> measure.Attackers:
    """Train (or restore) the shadow models the audit asks for, and what the attacks learn from them."""
    c, images = context.config, len(context.train)
    attacker = statistic = member = None
    if c.shadows and "mia2" in c.metrics:
        halves = shadow.shadow_members(images, c.shadows, SEED)
        seen, logits = _shadows(directory / "mia2", supervised, context, halves)
        outside = [sampling.draw(np.flatnonzero(~half), int(s.sum()), [SEED, k]) for k, (half, s) in enumerate(zip(halves, seen))]
        inside = [np.flatnonzero(s) for s in seen]
        rows = [np.concatenate(pair) for pair in zip(inside, outside)]
        truth = np.concatenate([np.repeat([True, False], [len(i), len(o)]) for i, o in zip(inside, outside)])
        attacker = shadow.train_attacker(signals.sorted_softmax(np.concatenate([x[r] for x, r in zip(logits, rows)])), truth, SEED)
    if c.lira_shadows and "lira" in c.metrics:
        halves = lira.lira_members(images, c.lira_shadows, SEED)
        member, logits = _shadows(directory / "lira", supervised, context, halves)
        statistic = np.stack([signals.scaled_confidence(x, context.train.labels) for x in logits])
    return measure.Attackers(attacker, statistic, member)


def _shadows(directory, supervised, context, halves):
    """(bool [K, M] images each shadow was really trained on, its half less its validation split; logits [K, M, C])."""
    seen, logits = [], []
    for k, half in enumerate(halves):
        place = directory / f"shadow{k}"
        title = f"shadow model {k + 1} of {len(halves)} ({directory.name})"
        saved = supervised.run(title, place, SEED, f"shadow {directory.name} {k}", half)
        with np.load(place / "split.npz") as split:
            seen.append(split["train"])
        logits.append(context.logits(saved.best, context.train.images))
    return np.stack(seen), logits
