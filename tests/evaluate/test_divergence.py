"""Distances between predictions and between weights, by hand."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate import divergence

P, Q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.5, 0.5]])


def test_divergence_by_hand():
    found = divergence.predictive_divergence(np.log(P), np.log(Q) + 2)
    per_image = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.9 * np.log(1.8) + 0.1 * np.log(0.2)]
    assert found.mean_kl == pytest.approx(np.mean(per_image)) and found.mean_tv == pytest.approx((0.25 + 0.4) / 2)
    assert found.kl_of_means == pytest.approx(0.7 * np.log(0.7 / 0.375) + 0.3 * np.log(0.3 / 0.625))
    assert found.tv_of_means == pytest.approx(0.325) and found.n == 2


def test_divergence_of_opposite_certainties_is_bounded():
    found = divergence.predictive_divergence([[1000.0, 0]], [[0, 1000.0]])
    assert found.mean_tv == 1 and found.mean_kl == pytest.approx(-np.log(1e-12))
    same = divergence.predictive_divergence([[1000.0, 0]], [[1000.0, 0]])
    assert (same.mean_kl, same.mean_tv, same.kl_of_means) == (0, 0, 0)


@pytest.mark.parametrize(
    "first, second", [(P, Q[:1]), (P, np.ones((2, 3))), (P, [[np.nan, 0], [0, 0]]), (P[:0], P[:0])]
)
def test_divergence_of_degenerate_logits_raises(first, second):
    with pytest.raises(UserError):
        divergence.predictive_divergence(first, second)


def test_parameter_distance_by_hand():
    model, reference = ({"a": np.array([1.0, a]), "b": {"c": np.array([[c]])}} for a, c in ((2.0, 3.0), (0.0, 0.0)))
    found = divergence.parameter_distance(model, reference)
    assert found.l2 == pytest.approx(np.sqrt(13)) and found.relative == pytest.approx(np.sqrt(13))
    zero = {"a": np.zeros(2), "b": {"c": np.zeros((1, 1))}}
    assert divergence.parameter_distance(model, zero).relative is None
    for other in ({"a": np.zeros(2)}, {"a": np.zeros(3), "b": {"c": np.zeros((1, 1))}}):
        with pytest.raises(UserError, match="differ in architecture"):
            divergence.parameter_distance(model, other)
    with pytest.raises(UserError, match="NaN"):
        divergence.parameter_distance({"a": np.array([np.nan])}, {"a": np.array([1.0])})


def test_interpolation_by_hand():
    def loss(variables):  # minima of 0 at -1 and 2, a hill between them
        w = float(variables["params"]["w"])
        return (w + 1) ** 2 * (w - 2) ** 2 + variables["batch_stats"]["mean"]

    start, end = ({"params": {"w": np.float64(w)}, "batch_stats": {"mean": m}} for w, m in ((-1.0, 0.0), (2.0, 4.0)))
    found = divergence.interpolation(loss, start, end, points=5)
    assert found.alphas == (0, 0.25, 0.5, 0.75, 1) and found.losses[0] == 0 and found.losses[-1] == 4
    assert found.barrier == pytest.approx(1.5**4)  # at w = 1/2; the statistics add exactly the straight line


def test_interpolation_along_a_valley_has_no_barrier():
    def loss(variables):
        return float(variables["w"]) ** 2

    assert divergence.interpolation(loss, {"w": np.float64(-1)}, {"w": np.float64(3)}).barrier == 0


def test_interpolations_that_cannot_be():
    ends = {"w": np.float64(0)}, {"w": np.float64(1)}
    for call in (
        lambda: divergence.interpolation(lambda v: 0.0, *ends, points=2),
        lambda: divergence.interpolation(lambda v: np.nan, *ends),
        lambda: divergence.interpolation(lambda v: 0.0, ends[0], {"w": np.zeros(2)}),
    ):
        with pytest.raises(UserError):
            call()
