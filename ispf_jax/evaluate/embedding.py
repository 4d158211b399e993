"""Pictures of features in two dimensions (the paper's figures 1, 3 and 6); nothing is measured on them."""

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs
from ispf_jax.evaluate.sampling import draw


def embed(features, seed: int) -> np.ndarray:
    """t-SNE of features [N, F] as points [N, 2]; the same seed gives the same points on the same machine.

    The paper does not say how its pictures were made. Perplexity 30, or a quarter of N if that is less; started from
    the two principal components. Constant features have no picture: all points lie at 0.
    """
    features = inputs.finite("the features of a picture", features, 1)
    if len(features) < 4:
        raise UserError(f"{len(features)} images are too few for a picture of features; 4 or more are needed.")
    if np.ptp(features, axis=0).max() == 0:
        return np.zeros((len(features), 2))
    method = TSNE(perplexity=min(30.0, len(features) / 4), init="pca", random_state=seed)
    with threadpool_limits(1):  # a thousand short parallel loops: waiting for a busy core costs more than threads save
        return np.round(method.fit_transform(features.astype(np.float32)), 2)


def picture_rows(labels, forget_mask, count: int, seed: int) -> np.ndarray:
    """Indices of at most `count` images, ascending, a fourth of them of forgotten classes where there are as many.

    Args:
      labels: int [N]; forget_mask: [C].
    """
    forgotten = inputs.forgotten_rows("images of a picture", labels, forget_mask)
    inside, outside = np.flatnonzero(forgotten), np.flatnonzero(~forgotten)
    few = min(inside.size, max(1, count // 4, count - outside.size))
    return np.sort(
        np.concatenate([draw(inside, few, [seed, 0]), draw(outside, min(outside.size, count - few), [seed, 1])])
    )
