"""The common scale from retrained (0) to original (1)."""

import numpy as np
import pytest

from ispf_jax.errors import UserError
from ispf_jax.evaluate.placement import placement


@pytest.mark.parametrize("value, place", [(20.0, 0.0), (90.0, 1.0), (55.0, 0.5), (13.0, -0.1), (97.0, 1.1)])
def test_place_by_hand(value, place):
    np.testing.assert_allclose(placement(value, original=90.0, retrained=20.0, eps=1.0).place, place)


def test_place_on_a_falling_scale():
    np.testing.assert_allclose(placement(4.0, original=1.0, retrained=5.0, eps=0.5).place, 0.25)


@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_ends_within_eps_have_no_places_between_them(eps):
    assert placement(7.0, original=5.0 + eps, retrained=5.0, eps=eps).place is None


@pytest.mark.parametrize("arguments", [(np.nan, 1.0, 0.0, 0.1), (1.0, np.inf, 0.0, 0.1), (1.0, 1.0, 0.0, -1.0)])
def test_values_that_cannot_be_placed(arguments):
    with pytest.raises(UserError):
        placement(*arguments)
