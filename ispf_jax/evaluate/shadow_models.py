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


def train_attackers(context: Context, fit: Fit | None) -> Attackers:
    """Train the shadow models that the audit asks for, and what the attacks learn from them."""
    config, labels, digests = context.config, context.train.labels, []
    attacker = of_lira = None
    if config.shadows and "mia2" in config.metrics:
        chosen, truth = [], []
        for k, (logits, split) in enumerate(_shadows(context, "mia2", fit, digests)):
            outside = np.flatnonzero(~(split.train | split.validation))
            outside = sampling.draw(outside, int(split.train.sum()), [SEED, k])
            chosen += [logits[split.train], logits[outside]]
            truth += [np.ones(len(outside), bool), np.zeros(len(outside), bool)]
        attacker = mia2.train_attacker(signals.sorted_softmax(np.concatenate(chosen)), np.concatenate(truth), SEED)
    if config.lira_shadows and "lira" in config.metrics:
        shadows = _shadows(context, "lira", fit, digests)
        pairs = [(signals.scaled_confidence(logits, labels), split.train) for logits, split in shadows]
        of_lira = np.stack([statistic for statistic, _ in pairs]), np.stack([trained for _, trained in pairs])
    return Attackers(attacker, of_lira, tuple(digests))


def _shadows(context, attack, fit, digests):
    """Logits [M, C] on all training images, and split, of one shadow model after the other; adds to the digests."""
    images = context.train.images
    for k, given in enumerate(members(context.config, len(images), attack)):
        shadow = fit(f"{attack} {k}", given)
        digests.append(weights_digest(shadow.variables))
        yield context.extract(shadow.variables, images).logits, shadow.origin["split"]
