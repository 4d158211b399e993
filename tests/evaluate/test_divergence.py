"""Distances between predictions and between weights, by hand."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate import divergence

P, Q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.5, 0.5]])


def test_divergence_by_hand():
    """Mean predictions are (0.7, 0.3) and (0.375, 0.625); a constant added to the logits changes nothing."""
    kl, total_variation = divergence.predictive_divergence(np.log(P), np.log(Q) + 2)
    assert kl == pytest.approx(0.7 * np.log(0.7 / 0.375) + 0.3 * np.log(0.3 / 0.625))
    assert total_variation == pytest.approx(0.325)


def test_divergence_of_opposite_certainties_is_bounded():
    certain = np.array([[1000.0, 0]])
    assert divergence.predictive_divergence(certain, certain[:, ::-1]) == (pytest.approx(-np.log(1e-12)), 1)
    assert divergence.predictive_divergence(certain, certain) == (0, 0)


def test_relative_distance_by_hand():
    model, reference = ({"a": np.array([1.0, a]), "b": {"c": np.array([[c]])}} for a, c in ((2.0, 3.0), (0.0, 0.0)))
    assert divergence.relative_distance(model, reference) == pytest.approx(np.sqrt(13))
    doubled = {"a": 2 * model["a"], "b": {"c": 2 * model["b"]["c"]}}
    assert divergence.relative_distance(doubled, model) == pytest.approx(1)
    assert divergence.relative_distance(model, {"a": np.zeros(2), "b": {"c": np.zeros((1, 1))}}) is None


def test_barrier_by_hand():
    def loss(variables):  # minima of 0 at -1 and 2, a hill between them
        w = float(variables["params"]["w"])
        return (w + 1) ** 2 * (w - 2) ** 2 + variables["batch_stats"]["mean"]

    start, end = ({"params": {"w": np.float64(w)}, "batch_stats": {"mean": m}} for w, m in ((-1.0, 0.0), (2.0, 4.0)))
    # At w = 1/2, the third of five points; the statistics add exactly the straight line.
    losses = divergence.losses_between(lambda v: [loss(v)], start, end, points=5)
    assert divergence.barrier(losses) == pytest.approx(1.5**4)


def test_a_valley_has_no_barrier():
    def loss(variables):
        return [float(variables["w"]) ** 2]

    assert divergence.barrier(divergence.losses_between(loss, {"w": np.float64(-1)}, {"w": np.float64(3)})) == 0


def test_barriers_that_cannot_be():
    ends = {"w": np.float64(0)}, {"w": np.float64(1)}
    with pytest.raises(UserError, match="barrier_points=2"):
        divergence.losses_between(lambda v: [0.0], *ends, points=2)
    with pytest.raises(UserError, match="NaN"):
        divergence.losses_between(lambda v: [np.nan], *ends)
