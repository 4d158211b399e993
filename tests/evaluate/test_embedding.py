"""Pictures of features: seeded, with neighbours near one another, and which images they show."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.embedding import embed, picture, picture_rows

MASK = np.array([True, False, False])


def test_clusters_stay_together_and_the_seed_decides():
    rng = np.random.default_rng(0)
    centre = np.repeat([0, 1, 2], 20)
    points = embed(rng.normal(0, 0.1, (60, 8)) + 10 * np.eye(8)[centre], seed=3)
    assert points.shape == (60, 2) and np.isfinite(points).all()
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(60)
    np.testing.assert_array_equal(centre[distance.argmin(axis=1)], centre)
    again = embed(np.random.default_rng(0).normal(0, 0.1, (60, 8)) + 10 * np.eye(8)[centre], seed=3)
    np.testing.assert_array_equal(points, again)


def test_degenerate_features():
    np.testing.assert_array_equal(embed(np.ones((5, 3)), 0), np.zeros((5, 2)))
    with pytest.raises(UserError, match="3 images are too few"):
        embed(np.ones((3, 2)), 0)


@pytest.mark.parametrize(
    "count, forgotten, retained", [(8, 2, 6), (20, 5, 15), (40, 10, 30), (1000, 20, 30), (3, 1, 2)]
)
def test_a_fourth_is_of_forgotten_classes_as_far_as_they_go(count, forgotten, retained):
    labels = np.repeat([0, 1, 2], [20, 15, 15])
    rows = picture_rows(labels, MASK, count, seed=0)
    assert (np.sum(labels[rows] == 0), np.sum(labels[rows] != 0)) == (forgotten, retained)
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(rows, picture_rows(labels, MASK, count, seed=0))


def test_synthetic_images_are_marked_by_what_the_original_says_of_them():
    """The forgotten class is likeliest; it has at least the threshold of 0.2; it has less."""
    rng, labels = np.random.default_rng(0), np.arange(12) % 3
    logits = np.log([[0.6, 0.2, 0.2], [0.3, 0.6, 0.1], [0.1, 0.5, 0.4], [0.0001, 0.9, 0.0999]])
    found = picture(rng.normal(size=(12, 4)), labels, logits, rng.normal(size=(4, 4)), MASK, 0.2, 8, seed=0)
    forgotten = labels[picture_rows(labels, MASK, 8, 0)] == 0
    assert found["kind"][:8] == [f"real {'forgotten' if f else 'retained'}" for f in forgotten]
    assert found["kind"][8:] == [f"synthetic {kind}" for kind in ("forgotten", "filtered", "kept", "kept")]
    assert np.shape(found["points"]) == (12, 2)
