"""How a model's outputs differ from those of retrained models: what an attacker who has some of these can see."""

import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def class_leak(model_logits, retrained_logits, forget_mask) -> np.ndarray:
    """CMIA: bool [2, N], whether an attacker sees which of two networks a prediction for a forgotten image is of.

    The prediction is taken over the retained classes alone, log p(c | not forgotten): how the image is spread over its
    neighbours is what betrays a forgotten class (Ebrahimpour-Boroojeny et al. 2025, arXiv 2506.20893). The attacker is
    a logistic regression, cross-validated in five folds of images. About half are right where the model is like a
    retrained one; two retrained models show how much chance of training adds.

    Args:
      model_logits, retrained_logits: [N, C], of the same images; at least five.
    """
    spread = [log_softmax(logits[:, ~forget_mask], axis=1) for logits in (model_logits, retrained_logits)]
    truth, images = np.repeat([0, 1], len(spread[0])), np.tile(np.arange(len(spread[0])), 2)
    attacker = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    said = cross_val_predict(attacker, np.concatenate(spread), truth, groups=images, cv=GroupKFold(5))
    return (said == truth).reshape(2, -1)


def deviations(margins, of_retrained, skip: int | None = None) -> np.ndarray:
    """(margin - mean of the retrained models' margins) / their standard deviation, [N].

    One standard deviation serves all images, pooled around each image's mean: a few models cannot give one per image.

    Args:
      margins: `signals.scaled_confidence` of the model, [N]; of_retrained: of R >= 2 retrained models, [R, N].
      skip: the retrained model that the margins are of, which then is not in the mean.
    """
    deviation = np.sqrt(np.mean(np.var(of_retrained, axis=0, ddof=1)))
    others = np.delete(of_retrained, [] if skip is None else skip, axis=0)
    return (margins - others.mean(axis=0)) / max(deviation, 1e-6)


def klom(z) -> float:
    """KL divergence in nats of margins: that of two normal distributions of equal spread whose means are z standard
    deviations apart, z^2 / 2, averaged over images.

    In the manner of KLoM (Georgiev et al. 2024, arXiv 2410.23232), which takes many unlearned models; here there is one
    and a few retrained ones.
    """
    return float(np.mean(np.square(z)) / 2)
