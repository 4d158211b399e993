"""Shadow models: classifiers trained like the original on random halves of the training data, for membership attacks.

They depend on the data and the architecture alone, so all models, forget sets and trials of a work directory share them.
"""

from pathlib import Path

import numpy as np

from ispf_jax.config import AuditConfig
from ispf_jax.evaluate import lira, measure, sampling, shadow, signals
from ispf_jax.runtime.provenance import weights_digest
from ispf_jax.training import SupervisedStage

SEED = 0


def train_shadow(directory: Path, supervised: SupervisedStage, config: AuditConfig, images: int, attack: str, k: int):
    """Train (or restore) shadow model `k` of an attack, "mia2" or "lira"; returns what training saved."""
    half, place = _halves(config, images, attack)[k], directory / attack / f"shadow{k}"
    if (
        place / "split.npz"
    ).exists():  # begun, perhaps with halves that were drawn in another way: it goes on with its own
        half = np.logical_or(*_split(place))
    return supervised.run(f"shadow model {k + 1} ({attack})", place, SEED, f"shadow {attack} {k}", half)


def train_attackers(directory: Path, supervised: SupervisedStage, context: measure.Context) -> measure.Attackers:
    """Train (or restore) the shadow models the audit asks for, and what the attacks learn from them."""
    c, images = context.config, len(context.train)
    attacker = statistic = member = None
    digests = []
    if c.shadows and "mia2" in c.metrics:
        halves = _halves(c, images, "mia2")
        seen, logits, weights = _shadows(directory, supervised, context, "mia2", len(halves))
        digests += weights
        outside = [
            sampling.draw(np.flatnonzero(~half), int(s.sum()), [SEED, k])
            for k, (half, s) in enumerate(zip(halves, seen))
        ]
        inside = [np.flatnonzero(s) for s in seen]
        rows = [np.concatenate(pair) for pair in zip(inside, outside)]
        truth = np.concatenate([np.repeat([True, False], [len(i), len(o)]) for i, o in zip(inside, outside)])
        attacker = shadow.train_attacker(
            signals.sorted_softmax(np.concatenate([x[r] for x, r in zip(logits, rows)])), truth, SEED
        )
    if c.lira_shadows and "lira" in c.metrics:
        member, logits, weights = _shadows(directory, supervised, context, "lira", c.lira_shadows)
        digests += weights
        statistic = np.stack([signals.scaled_confidence(x, context.train.labels) for x in logits])
    return measure.Attackers(attacker, statistic, member, tuple(digests))


def _halves(config, images, attack):
    """Bool [K, M]: the half of the training images that each shadow model of an attack is given."""
    if attack == "mia2":
        return shadow.shadow_members(images, config.shadows, SEED)
    return lira.lira_members(images, config.lira_shadows, SEED)


def _shadows(directory, supervised, context, attack, count):
    """(bool [K, M] images each shadow was really trained on, its half less its validation split; logits [K, M, C]; hashes of weights)."""
    seen, logits, digests = [], [], []
    for k in range(count):
        saved = train_shadow(directory, supervised, context.config, len(context.train), attack, k)
        seen.append(_split(directory / attack / f"shadow{k}")[0])
        logits.append(context.logits(saved.best, context.train.images))
        digests.append(weights_digest(saved.best))
    return np.stack(seen), logits, digests


def _split(place):
    """Bool [M] masks of the images that a shadow model was trained on and validated on."""
    with np.load(place / "split.npz") as split:
        return split["train"], split["validation"]
