"""Pictures of features in two dimensions (the paper's figures 1, 3 and 6); nothing is measured on them."""

import numpy as np
from scipy.special import softmax
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ispf_jax.errors import UserError
from ispf_jax.evaluate.sampling import draw


def embed(features, seed: int) -> np.ndarray:
    """t-SNE of features [N, F] as points [N, 2]; the same seed gives the same points on the same machine.

    The paper does not say how its pictures were made. Perplexity 30, or a quarter of N if that is less; started from
    the two principal components. Constant features have no picture: all points lie at 0.
    """
    if len(features) < 4:
        raise UserError(f"{len(features)} images are too few for a picture of features; 4 or more are needed.")
    if np.ptp(features, axis=0).max() == 0:
        return np.zeros((len(features), 2))
    method = TSNE(perplexity=min(30.0, len(features) / 4), init="pca", random_state=seed)
    with threadpool_limits(1):  # a thousand short parallel loops: waiting for a busy core costs more than threads save
        return np.round(method.fit_transform(features.astype(np.float32)), 2)


def picture(real, real_labels, logits, synthetic, forget_mask, threshold, count: int, seed: int) -> dict:
    """Figures 1 and 3 of the paper: the original's features of real and of synthetic images.

    Args:
      real, real_labels: features [T, F] and labels [T] of test images; logits, synthetic: logits [N, C] and features
        [N, F] of synthetic images.
      threshold: PreFilter's, which separates kept from filtered images.
      count: pictured images of either kind, at most.
    """
    rows, logits = picture_rows(real_labels, forget_mask, count, seed), logits[:count]
    filtered = softmax(logits, axis=1)[:, forget_mask].max(axis=1) >= threshold
    kinds = np.where(filtered, "synthetic filtered", "synthetic kept")
    kinds = np.where(forget_mask[logits.argmax(axis=1)], "synthetic forgotten", kinds)
    real_kinds = np.where(forget_mask[real_labels[rows]], "real forgotten", "real retained")
    points = embed(np.concatenate([real[rows], synthetic[:count]]), seed)
    method = "t-SNE of the original's penultimate features"
    return {"method": method, "points": points.tolist(), "kind": [*real_kinds.tolist(), *kinds.tolist()]}


def picture_rows(labels, forget_mask, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` images, ascending, a fourth of them of forgotten classes where there are as many.

    Args:
      labels: int [N]; forget_mask: [C].
    """
    forgotten = forget_mask[labels]
    inside, outside = np.flatnonzero(forgotten), np.flatnonzero(~forgotten)
    few = min(inside.size, max(1, count // 4, count - outside.size))
    others = draw(outside, min(outside.size, count - few), [seed, 1])
    return np.sort(np.concatenate([draw(inside, few, [seed, 0]), others]))
