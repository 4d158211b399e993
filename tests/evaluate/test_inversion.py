"""Images inverted from a network, and labels that leak."""

import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax.evaluate.inversion import invert, label_leak, total_variation
from tests.evaluate.conftest import NETWORK, TINY, fresh


def test_total_variation_by_hand():
    image = jnp.array([[0.0, 1.0], [0.5, 0.5]])[None, :, :, None]
    # Down: |0.5 - 0|, |0.5 - 1|; across: |1 - 0|, |0.5 - 0.5|.
    np.testing.assert_allclose(total_variation(image), [0.5 + 0.5])


def test_a_network_recognises_the_images_that_it_was_asked_for(world):
    classes = np.repeat(np.arange(4), 3)
    images = invert(NETWORK, world.original, classes, 60, seed=0)
    assert images.shape == (12, 8, 8, 1) and images.dtype == np.uint8
    said = NETWORK.module.apply(world.original, NETWORK.normalise(images))[0].argmax(axis=1)
    assert np.array_equal(said, classes)
    assert np.array_equal(images, invert(NETWORK, world.original, classes, 60, seed=0))
    assert not np.array_equal(images, invert(NETWORK, world.original, classes, 60, seed=1))


def test_all_networks_share_one_program_and_start_from_the_same_noise():
    first, second = (invert(TINY, fresh(TINY, seed), [0, 1], 1, seed=3).astype(int) for seed in (1, 2))
    assert np.abs(first - second).max() < 16  # one step of 0.1 on either side


@pytest.mark.parametrize(
    "scores, forgotten, share",
    [([3, 1, 2, 0], [0], 1), ([0, 1, 2, 3], [0], 0), ([1, 1, 0, 2], [0], 0.5), ([5, 0, 3, 4], [0, 1], 0.5)],
)
def test_labels_leak_where_forgotten_classes_stand_out(scores, forgotten, share):
    assert label_leak(np.array(scores, float), np.isin(np.arange(4), forgotten)) == share
