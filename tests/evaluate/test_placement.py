"""The common scale from retrained (0) to original (1)."""

import numpy as np
import pytest

from ispf_jax.evaluate.placement import place


@pytest.mark.parametrize("value, expected", [(20.0, 0.0), (90.0, 1.0), (55.0, 0.5), (13.0, -0.1), (97.0, 1.1)])
def test_place_by_hand(value, expected):
    np.testing.assert_allclose(place("probe/bn1", value, original=90.0, retrained=20.0), expected)


def test_place_on_a_falling_scale():
    np.testing.assert_allclose(place("kl_retrain", 4.0, original=1.0, retrained=5.0), 0.25)


@pytest.mark.parametrize("name, eps", [("mia2", 2.0), ("l2_original", 0.05), ("kl_retrain", 0.02), ("lira/auc", 0.02)])
def test_ends_within_eps_have_no_places_between_them(name, eps):
    assert place(name, 0.7, original=0.9 * eps, retrained=0.0) is None
    assert place(name, 0.7, original=1.1 * eps, retrained=0.0) == pytest.approx(0.7 / (1.1 * eps))


def test_what_has_no_place():
    assert place("accuracy/forget", 50.0, 90.0, 20.0) is None
    for values in ((None, 90.0, 20.0), (50.0, None, 20.0), (50.0, 90.0, None)):
        assert place("probe/bn1", *values) is None
