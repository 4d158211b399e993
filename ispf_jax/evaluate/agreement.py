"""What can be measured without a real image: whether a student says of synthetic images what the original says."""

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
      "agreement": of the images that the teacher gives a retained class, the percentage that the student gives the same
        class, mean over the classes that are covered; None if none is.
      "covered": how many retained classes are covered: the teacher gives them `COVERED` images or more.
      "called_forgotten": of all images the percentage that the student gives a forgotten class.
    """
    logits = (np.asarray(predict(c.network, c.variables, images)) for c in (student, teacher))
    of_student, of_teacher = (np.argmax(found, axis=-1) for found in logits)
    counts = np.bincount(of_teacher, minlength=teacher.num_classes)
    covered = [c for c in np.flatnonzero(counts >= COVERED) if c not in forget]
    shares = [np.mean(of_student[of_teacher == c] == c) for c in covered]
    agreed = float(100 * np.mean(shares)) if covered else None
    called = float(100 * np.mean(np.isin(of_student, forget)))
    return {"agreement": agreed, "covered": len(covered), "called_forgotten": called}
