"""How much of the forgotten class a simple reader finds in frozen features: linear probe, nearest neighbours, class means.

Each reader learns from labelled training features of *all* classes and is scored on test features. What a probe of the retrained
model finds is no residue: the features of other classes describe the forgotten one too. The distance to it is what counts.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ispf_jax.errors import UserError
from ispf_jax.evaluate import inputs


@dataclass(frozen=True)
class Reading:
    """Scores of predicted classes on test images, percent, 0..100.

    Attributes:
      forget: share of the forgotten classes' images that get their own class (for one class its recall, one against the rest).
      retain: the same for retained classes; None without such images.
      balanced: mean of the recalls of all classes that occur.
      detection: (share of forgotten images that get any forgotten class + share of retained ones that get a retained class) / 2,
        the balanced accuracy of "forgotten or not"; 50 for a reader that always answers the same. None without retained images.
      converged: whether the reader's fit had converged.
    """

    forget: float
    retain: float | None
    balanced: float
    detection: float | None
    n_forget: int
    n_retain: int
    converged: bool = True


def read(predicted, labels, forget_mask, converged: bool = True) -> Reading:
    """Score predicted classes [N] against labels [N]; UserError if no image belongs to a forgotten class."""
    forgotten = inputs.forgotten_rows("test images", labels, forget_mask)
    mask, labels, predicted = inputs.forget_mask(forget_mask), np.asarray(labels), np.asarray(predicted)
    predicted = inputs.labels("the predictions", predicted, mask.size)
    inputs.same_length(predictions=predicted, labels=labels)
    right, as_forgotten = predicted == labels, mask[predicted]
    retain = detection = None
    if not forgotten.all():
        retain = float(100 * np.mean(right[~forgotten]))
        detection = float(50 * (np.mean(as_forgotten[forgotten]) + np.mean(~as_forgotten[~forgotten])))
    balanced = float(100 * np.mean([np.mean(right[labels == c]) for c in np.unique(labels)]))
    counts = int(forgotten.sum()), int((~forgotten).sum())
    return Reading(float(100 * np.mean(right[forgotten])), retain, balanced, detection, *counts, converged)


def linear_probe(
    train, train_labels, test, test_labels, forget_mask, inverse_penalty=1.0, max_iterations=1000
) -> Reading:
    """Multinomial logistic regression on features standardised by the training set (constant ones become 0).

    Minimises the sum of cross entropies + ||W||^2 / (2 inverse_penalty) (scikit-learn's `LogisticRegression`, L-BFGS).
    """
    train, train_labels, test = _checked(train, train_labels, test, forget_mask)
    scaler = StandardScaler().fit(train)
    regression = LogisticRegression(C=inverse_penalty, max_iter=max_iterations)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        regression.fit(scaler.transform(train), train_labels)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return read(regression.predict(scaler.transform(test)), test_labels, forget_mask, converged)


def nearest_neighbours(train, train_labels, test, test_labels, forget_mask, k: int = 5, chunk: int = 1024) -> Reading:
    """Majority of the `k` training features with the highest cosine similarity; ties go to the larger sum of similarities.

    A feature vector of zeros has similarity 0 to everything.
    """
    train, train_labels, test = _checked(train, train_labels, test, forget_mask)
    if not 1 <= k <= len(train):
        raise UserError(f"{k} nearest neighbours among {len(train)} training images: use 1..{len(train)}.")
    train, test = _unit(train), _unit(test)
    predicted = [_vote(test[i : i + chunk] @ train.T, train_labels, k) for i in range(0, len(test), chunk)]
    return read(np.concatenate(predicted), test_labels, forget_mask)


def nearest_mean(train, train_labels, test, test_labels, forget_mask) -> Reading:
    """The class whose mean training feature is nearest (Euclidean): relearning by prototypes, without any training.

    With k training images per class (`sampling.shots`) it is k-shot relearning, for all classes alike.
    """
    train, train_labels, test = _checked(train, train_labels, test, forget_mask)
    classes = np.unique(train_labels)
    means = np.stack([train[train_labels == c].mean(axis=0) for c in classes])
    distance = np.sum(np.square(means), axis=1) - 2 * test @ means.T
    return read(classes[np.argmin(distance, axis=1)], test_labels, forget_mask)


def prototype_head(variables, train, train_labels, forget_mask) -> dict:
    """Variables whose head has new rows for the forgotten classes, made from class means; retained rows stay as they are.

    With m the mean of all class means, the new row is (mean_f - m), scaled to the mean norm of the retained rows, and its bias
    makes the logit at m the mean of the retained logits there: a class that has just been added, without any training.

    Args:
      variables: {"params": {..., "classifier": {"kernel" [F, C], "bias" [C]}}, ...}.
      train: penultimate features [N, F] of all classes, k per class; train_labels: int [N].
    """
    head = variables["params"]["classifier"]
    kernel, bias = np.array(head["kernel"], np.float64), np.array(head["bias"], np.float64)
    train, train_labels, _ = _checked(train, train_labels, train, forget_mask)
    mask = inputs.forget_mask(forget_mask)
    means = {c: train[train_labels == c].mean(axis=0) for c in np.unique(train_labels)}
    middle = np.mean(list(means.values()), axis=0)
    norm = np.mean(np.linalg.norm(kernel[:, ~mask], axis=0))
    level = np.mean(middle @ kernel[:, ~mask] + bias[~mask])
    for c in np.flatnonzero(mask):
        if c not in means:
            raise UserError(f"There is no training image of the forgotten class {c} to make a prototype from.")
        direction = means[c] - middle
        length = np.linalg.norm(direction)
        kernel[:, c] = norm * direction / length if length > 0 else 0.0
        bias[c] = level - middle @ kernel[:, c]
    new = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return {**variables, "params": {**variables["params"], "classifier": new}}


def _checked(train, train_labels, test, forget_mask):
    train, test = inputs.matrix("the training features", train), inputs.matrix("the test features", test)
    inputs.same_length(training_features=train, training_labels=train_labels)
    inputs.same_length(training_features_per_image=train.T, test_features_per_image=test.T)
    inputs.forgotten_rows("training images of the reader", train_labels, forget_mask)
    inputs.several_classes("training images of the reader", train_labels)
    return train, np.asarray(train_labels), test


def _unit(features):
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norm > 0, norm, 1)


def _vote(similarity, labels, k):
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    votes = np.zeros((len(similarity), labels.max() + 1))
    rows = np.arange(len(similarity))
    for j in range(k):
        column = nearest[:, j]
        # A vote outweighs any sum of similarities, which lie in -1..1.
        votes[rows, labels[column]] += 1 + similarity[rows, column] / (4 * k)
    return np.argmax(votes, axis=1)
