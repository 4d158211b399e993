"""How much of the forgotten class a simple reader finds in frozen features: linear probe, nearest neighbours, class
means.

Each reader learns from labelled training features of *all* classes and predicts the classes of test features. What a
probe of the retrained model finds is no residue: the features of other classes describe the forgotten one too. The
distance to it counts.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from ispf_jax.evaluate.baseline import HEAD, head_of, with_head


def linear_probe(train, labels, test, max_iterations: int = 1000) -> tuple[np.ndarray, bool]:
    """(classes predicted for the test features, whether the fit had converged), by multinomial logistic regression.

    Features are standardised by the training set (constant ones become 0). Minimises the sum of cross entropies +
    ||W||^2 / 2 (scikit-learn's `LogisticRegression`, L-BFGS).

    Args:
      train: [N, F]; labels: int [N]; test: [T, F].
    """
    scaler = StandardScaler().fit(train)
    regression = LogisticRegression(max_iter=max_iterations)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        regression.fit(scaler.transform(train), labels)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return np.asarray(regression.predict(scaler.transform(test))), converged


def nearest_neighbours(train, labels, test, k: int = 5) -> np.ndarray:
    """Majority of the `k` training features with the highest cosine similarity; ties go to the larger sum of
    similarities.

    A feature vector of zeros has similarity 0 to everything.
    """

    def weights(distance):  # a vote outweighs any sum of similarities, which lie in -1..1
        return 1 + (1 - distance) / (4 * k)

    machine = KNeighborsClassifier(k, metric="cosine", weights=weights)  # pyright: ignore[reportArgumentType]
    return machine.fit(train, labels).predict(test)


def prototype_head(variables, train, labels, forget_mask, place=HEAD) -> dict:
    """Variables whose head has new rows for the forgotten classes, made from class means; retained rows stay as they
    are.

    With m the mean of all class means, the new row is (mean_f - m), scaled to the mean norm of the retained rows, and
    its bias makes the logit at m the mean of the retained logits there: a class that has just been added, without any
    training.

    Args:
      variables: {"params": {..., "classifier": {"kernel" [F, C], "bias" [C]}}, ...}.
      train: penultimate features [N, F] of all classes, k per class; labels: int [N].
    """
    head, mask = head_of(variables, place), forget_mask
    kernel, bias = np.array(head["kernel"], np.float64), np.array(head["bias"], np.float64)
    means = {c: train[labels == c].mean(axis=0) for c in np.unique(labels)}
    middle = np.mean(list(means.values()), axis=0)
    norm = np.mean(np.linalg.norm(kernel[:, ~mask], axis=0))
    level = np.mean(middle @ kernel[:, ~mask] + bias[~mask])
    for c in np.flatnonzero(mask):
        direction = means[c] - middle
        length = np.linalg.norm(direction)
        kernel[:, c] = norm * direction / length if length > 0 else 0.0
        bias[c] = level - middle @ kernel[:, c]
    return with_head(variables, {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}, place)
