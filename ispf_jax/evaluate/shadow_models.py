"""Shadow models: classifiers trained like the original on random halves of the training data, for membership attacks.

They depend on the data and the architecture alone, so all models, forget sets and trials share them.
"""

from collections.abc import Callable

import numpy as np

from ispf_jax.evaluate import lira, mia2, sampling, signals
from ispf_jax.evaluate.attacks import Attackers
from ispf_jax.evaluate.context import Context
from ispf_jax.evaluate.settings import Audit
from ispf_jax.runtime.provenance import weights_digest

SEED = 0

Fit = Callable[[str, np.ndarray, str], tuple[dict, tuple[np.ndarray, np.ndarray]]]
"""(random stream, images [M] it is given, place) -> (variables, (images it was trained on, images it was selected on))."""


def train_shadow(config: Audit, images: int, attack: str, k: int, fit: Fit):
    """What `fit` returns for shadow model `k` of an attack, "mia2" or "lira", on its half of so many training images."""
    given = mia2.halves(images, config.shadows, SEED) if attack == "mia2" else lira.halves(images, config.lira_shadows, SEED)
    return fit(f"shadow {attack} {k}", given[k], f"{attack}/shadow{k}")


def train_attackers(context: Context, fit: Fit) -> Attackers:
    """Train the shadow models that the audit asks for, and what the attacks learn from them."""
    config, attacker, statistic, trained, digests = context.config, None, None, None, []
    if config.shadows and "mia2" in config.metrics:
        logits, masks = _shadows(context, "mia2", config.shadows, fit, digests)
        chosen, truth = [], []
        for k, (z, (seen, validated)) in enumerate(zip(logits, masks)):
            outside = sampling.draw(np.flatnonzero(~(seen | validated)), np.count_nonzero(seen), [SEED, k])
            chosen += [z[seen], z[outside]]
            truth += [np.ones(len(outside), bool), np.zeros(len(outside), bool)]
        attacker = mia2.train_attacker(signals.sorted_softmax(np.concatenate(chosen)), np.concatenate(truth), SEED)
    if config.lira_shadows and "lira" in config.metrics:
        logits, masks = _shadows(context, "lira", config.lira_shadows, fit, digests)
        trained = np.stack([seen for seen, _ in masks])
        statistic = np.stack([signals.scaled_confidence(z, context.data.train.labels) for z in logits])
    return Attackers(attacker, statistic, trained, tuple(digests))


def _shadows(context, attack, count, fit, digests):
    """Logits [M, C] of every shadow model on all training images, and what it was trained and selected on; adds to the digests."""
    logits, masks = [], []
    for k in range(count):
        variables, split = train_shadow(context.config, len(context.data.train), attack, k, fit)
        logits.append(context.extract(variables, context.data.train.images).logits)
        masks.append(split)
        digests.append(weights_digest(variables))
    return logits, masks
