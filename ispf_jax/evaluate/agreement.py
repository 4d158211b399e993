"""What can be measured without a real image: whether a student says of synthetic images what the original says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.data.augment import normalise
from ispf_jax.evaluate.accuracy import Evaluator

IMAGES = 512
"""How many of the generator's images are looked at."""


def agreement(
    evaluator: Evaluator, student: dict, teacher: dict, images: np.ndarray, forget: tuple[int, ...]
) -> dict[str, float | None]:
    """Both networks' labels for the images of a student's own generator, uint8 [N, H, W, C].

    Returns:
      "agreement": of the images of retained classes, in the teacher's eyes, the percentage that the student gives the same class;
        None if there is no such image.
      "called_forgotten": of all images the percentage that the student gives a forgotten class.
    """
    of_student, of_teacher = (np.asarray(_labels(evaluator, variables, images)) for variables in (student, teacher))
    retained = ~np.isin(of_teacher, forget)
    agreed = float(100 * np.mean(of_student[retained] == of_teacher[retained])) if retained.any() else None
    return {"agreement": agreed, "called_forgotten": float(100 * np.mean(np.isin(of_student, forget)))}


@partial(jax.jit, static_argnums=0)
def _labels(evaluator, variables, images):
    return jnp.argmax(
        evaluator.classifier.apply(variables, normalise(images, evaluator.mean, evaluator.std))[0], axis=-1
    )
