"""What can be measured without a real image: whether a student says of synthetic images what the original says."""

from collections.abc import Iterable

import numpy as np

from ispf_jax.classifier import Classifier, predict

IMAGES = 2048
"""How many of the generator's images are looked at."""

COVERED = 10
"""How many of them the teacher must give to a class for the class to count."""


def agreement(
    student: Classifier, teacher: Classifier, images: np.ndarray, forget: tuple[int, ...]
) -> dict[str, float | None]:
    """Both classifiers' labels for the images of the student's own generator, uint8 [N, H, W, C].

    Returns:
      "agreement", "covered": see `agreed`.
      "called_forgotten": of all images the percentage that the student gives a forgotten class.
    """
    logits = (np.asarray(predict(c.network, c.variables, images)) for c in (student, teacher))
    of_student, of_teacher = (np.argmax(found, axis=-1) for found in logits)
    share, covered, _ = agreed(of_student, of_teacher, forget)
    called = float(100 * np.mean(np.isin(of_student, forget)))
    return {"agreement": share, "covered": covered, "called_forgotten": called}


def agreed(of_student: np.ndarray, of_teacher: np.ndarray, forget: Iterable[int]) -> tuple[float | None, int, float]:
    """How far two classifiers give the same labels, [N], to the images that the teacher gives a retained class.

    Returns:
      The percentage that the student gives the same class, mean over the classes that are covered (None if none is),
      how many these are (the teacher gives them `COVERED` images or more), and the number of images in a simple share
      of the same variance, if all classes agree alike: covered^2 / sum of 1 / images of a class.
    """
    counts = np.bincount(of_teacher)
    covered = sorted(set(np.flatnonzero(counts >= COVERED)) - set(forget))
    shares = [np.mean(of_student[of_teacher == c] == c) for c in covered]
    if not covered:
        return None, 0, 0.0
    return float(100 * np.mean(shares)), len(covered), float(len(covered) ** 2 / np.sum(1 / counts[covered]))
