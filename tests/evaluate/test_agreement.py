"""Agreement on synthetic images against counts made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.classifier import Classifier, Network
from ispf_jax.evaluate.agreement import agreement


class Reader:
    """The label is the brightness of the first pixel, in tens of grey levels, plus a shift."""

    num_classes = 5

    def apply(self, variables, images):
        level = jnp.round((images[:, 0, 0, 0] * 0.5 + 0.25) * 25.5).astype(int)
        return jnp.eye(5)[jnp.where(level == variables["wrong"], 4, level)], None


def images(*labels):
    return np.array(labels, np.uint8).reshape(-1, 1, 1, 1) * 10


@pytest.mark.parametrize(
    "labels, wrong, forget, agreed, forgotten",
    [
        ((0, 1, 2, 3), -1, (3,), 100, 25),
        ((0, 1, 2, 2), 2, (3,), 50, 0),
        ((0, 1, 2, 3), 3, (3,), 100, 0),
        ((0, 1, 2, 2), 2, (4,), 50, 50),
        ((3, 1, 3), 1, (1, 3), None, 200 / 3),
    ],
)
def test_shares(labels, wrong, forget, agreed, forgotten):
    network = Network(Reader(), (1, 1, 1), (0.25,), (0.5,))
    student, teacher = (Classifier.of(network, {"wrong": w}) for w in (wrong, -1))
    got = agreement(student, teacher, images(*labels), forget)
    assert got == {"agreement": agreed, "called_forgotten": pytest.approx(forgotten)}
