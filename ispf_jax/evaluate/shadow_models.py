"""Shadow models: classifiers trained like the original on random halves of the training data, for membership attacks.

They depend on the data and the architecture alone, so all models, forget sets and trials share them.
"""

from collections.abc import Callable

import numpy as np

from ispf_jax.classifier import Classifier
from ispf_jax.evaluate import lira, mia2, sampling, signals
from ispf_jax.evaluate.attacks import Attackers
from ispf_jax.evaluate.context import Context
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
    config, attacker, statistic, trained = context.config, None, None, None
    digests, labels = [], context.data.train.labels
    if config.shadows and "mia2" in config.metrics:
        logits, splits = _shadows(context, "mia2", fit, digests)
        chosen, truth = [], []
        for k, (z, split) in enumerate(zip(logits, splits)):
            outside = np.flatnonzero(~(split.train | split.validation))
            outside = sampling.draw(outside, np.count_nonzero(split.train), [SEED, k])
            chosen += [z[split.train], z[outside]]
            truth += [np.ones(len(outside), bool), np.zeros(len(outside), bool)]
        attacker = mia2.train_attacker(signals.sorted_softmax(np.concatenate(chosen)), np.concatenate(truth), SEED)
    if config.lira_shadows and "lira" in config.metrics:
        logits, splits = _shadows(context, "lira", fit, digests)
        trained = np.stack([split.train for split in splits])
        statistic = np.stack([signals.scaled_confidence(z, labels) for z in logits])
    return Attackers(attacker, statistic, trained, tuple(digests))


def _shadows(context, attack, fit, digests):
    """Logits [M, C] of every shadow model on all training images, and its split; adds to the digests."""
    logits, splits, images = [], [], context.data.train.images
    for k, given in enumerate(members(context.config, len(images), attack)):
        shadow = fit(f"{attack} {k}", given)
        logits.append(context.extract(shadow.variables, images).logits)
        splits.append(shadow.origin["split"])
        digests.append(weights_digest(shadow.variables))
    return logits, splits
