"""Agreement on synthetic images against counts made by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.classifier import Classifier, Network
from ispf_jax.evaluate.agreement import agreed, agreement


class Reader:
    """The label is the brightness of the first pixel, in tens of grey levels, plus a shift."""

    num_classes = 5

    def apply(self, variables, images):
        level = jnp.round((images[:, 0, 0, 0] * 0.5 + 0.25) * 25.5).astype(int)
        return jnp.eye(5)[jnp.where(level == variables["wrong"], 4, level)], None


def images(*labels):
    return np.array(labels, np.uint8).reshape(-1, 1, 1, 1) * 10


@pytest.mark.parametrize(
    "counts, wrong, forget, agreed, covered, forgotten",
    [
        ((10, 10, 10, 10, 0), -1, (3,), 100, 3, 25),
        ((10, 10, 20, 0, 0), 2, (3,), 200 / 3, 3, 0),  # a mean over classes, not over images
        ((10, 10, 10, 10, 0), 3, (3,), 100, 3, 0),
        ((10, 10, 20, 0, 0), 2, (4,), 200 / 3, 3, 50),
        ((10, 9, 11, 0, 0), 1, (4,), 100, 2, 30),  # nine images are too few
        ((0, 10, 0, 20, 0), 1, (1, 3), None, 0, 200 / 3),
    ],
)
def test_shares(counts, wrong, forget, agreed, covered, forgotten):
    network = Network(Reader(), (1, 1, 1), (0.25,), (0.5,))
    student, teacher = (Classifier.of(network, {"wrong": w}) for w in (wrong, -1))
    got = agreement(student, teacher, images(*np.repeat(np.arange(5), counts)), forget)
    want = {"agreement": agreed and pytest.approx(agreed), "covered": covered}
    assert got == want | {"called_forgotten": pytest.approx(forgotten)}


def test_the_number_of_images_that_a_mean_over_classes_is_worth():
    """Classes with as many images each are worth all of them; the variance of a mean of shares says what others are."""
    labels = np.repeat([0, 1, 2], [40, 40, 40])
    assert agreed(labels, labels, [2]) == (100, 2, 80)
    labels, right = np.repeat([0, 1], [10, 90]), np.random.default_rng(0).random((4000, 100)) < 0.8
    shares = [agreed(np.where(row, labels, 2), labels, [])[0] for row in right]
    n = agreed(labels, labels, [])[2]
    assert n == pytest.approx(4 / (1 / 10 + 1 / 90))
    assert np.var(shares) == pytest.approx(100**2 * 0.8 * 0.2 / n, rel=0.1)
