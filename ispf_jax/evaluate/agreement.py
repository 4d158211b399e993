"""What can be measured without a real image: whether a student says of synthetic images what the original says."""

import numpy as np

from ispf_jax.classifier import Classifier, predict

IMAGES = 512
"""How many of the generator's images are looked at."""


def agreement(
    student: Classifier, teacher: Classifier, images: np.ndarray, forget: tuple[int, ...]
) -> dict[str, float | None]:
    """Both classifiers' labels for the images of the student's own generator, uint8 [N, H, W, C].

    Returns:
      "agreement": of the images that the teacher gives a retained class, the percentage that the student gives the same
        class; None if there is no such image.
      "called_forgotten": of all images the percentage that the student gives a forgotten class.
    """
    of_student, of_teacher = (np.argmax(predict(c.network, c.variables, images), axis=-1) for c in (student, teacher))
    retained = ~np.isin(of_teacher, forget)
    agreed = float(100 * np.mean(of_student[retained] == of_teacher[retained])) if retained.any() else None
    return {"agreement": agreed, "called_forgotten": float(100 * np.mean(np.isin(of_student, forget)))}
