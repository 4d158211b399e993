"""Pictures of features: seeded, with neighbours near one another, and which images they show."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.plane import picture_rows, plane


def test_clusters_stay_together_and_the_seed_decides():
    rng = np.random.default_rng(0)
    centre = np.repeat([0, 1, 2], 20)
    points = plane(rng.normal(0, 0.1, (60, 8)) + 10 * np.eye(8)[centre], seed=3)
    assert points.shape == (60, 2) and np.isfinite(points).all()
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(60)
    np.testing.assert_array_equal(centre[distance.argmin(axis=1)], centre)
    again = plane(np.random.default_rng(0).normal(0, 0.1, (60, 8)) + 10 * np.eye(8)[centre], seed=3)
    np.testing.assert_array_equal(points, again)


def test_degenerate_features():
    np.testing.assert_array_equal(plane(np.ones((5, 3)), 0), np.zeros((5, 2)))
    for features in (np.ones((3, 2)), np.full((5, 2), np.nan)):
        with pytest.raises(UserError):
            plane(features, 0)


@pytest.mark.parametrize(
    "count, forgotten, retained", [(8, 2, 6), (20, 5, 15), (40, 10, 30), (1000, 20, 30), (3, 1, 2)]
)
def test_a_fourth_is_of_forgotten_classes_as_far_as_they_go(count, forgotten, retained):
    labels = np.repeat([0, 1, 2], [20, 15, 15])
    rows = picture_rows(labels, [1, 0, 0], count, seed=0)
    assert (np.sum(labels[rows] == 0), np.sum(labels[rows] != 0)) == (forgotten, retained)
    assert np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(rows, picture_rows(labels, [1, 0, 0], count, seed=0))


def test_without_a_forgotten_image_there_is_no_picture():
    with pytest.raises(UserError, match="forgotten"):
        picture_rows([1, 1], [1, 0], 4, 0)
