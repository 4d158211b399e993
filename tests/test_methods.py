"""Filters and targets: the invariants of PostFilter, the exact zero of PD, the strict threshold of PreFilter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from ispf_jax import losses as objectives
from ispf_jax import methods
from ispf_jax.methods import METHODS, block_keep, kept_samples, post_filter, prefilter_keep, project, target_logits

CLASSES = 10
LOGITS = (3 * np.random.default_rng(0).standard_normal((64, CLASSES))).astype(np.float32)
FORGET_SETS = [(3,), (0,), (1, 7), (0, 2, 4, 6, 8, 9), tuple(range(9))]


def mask_of(forget):
    return np.isin(np.arange(CLASSES), forget).astype(np.float32)


def softmax(logits):
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=1)


def test_the_table():
    rows = {name: (m.inhibit, m.keep, m.target) for name, m in METHODS.items()}
    assert rows == {
        "dfkd": (False, "all", "teacher"),
        "blockf": (False, "block", "teacher"),
        "gkt": (False, "prefilter", "teacher"),
        "is": (True, "prefilter", "teacher"),
        "pf": (False, "all", "postfilter"),
        "ispf": (True, "all", "postfilter"),
        "pd": (False, "all", "project"),
        "pd_is": (True, "all", "project"),
    }
    shapes = [jax.tree.map(lambda a: (a.shape, a.dtype, a.weak_type), m.codes()) for m in METHODS.values()]
    assert all(shape == shapes[0] for shape in shapes)  # one compiled program takes them all


@pytest.mark.parametrize("forget", FORGET_SETS)
class TestPostFilter:
    def test_is_equations_8_and_9(self, forget):
        want = LOGITS.astype(np.float64)
        for row in want:
            lowest = min(row)
            delta = sum(row[f] - lowest for f in forget)
            for c in range(CLASSES):
                row[c] = lowest if c in forget else row[c] + delta / (CLASSES - len(forget))
        np.testing.assert_allclose(post_filter(LOGITS, mask_of(forget)), want, rtol=1e-5, atol=1e-5)

    def test_a_retained_prediction_is_unchanged(self, forget):
        kept = mask_of(forget) == 0
        filtered = np.asarray(post_filter(LOGITS, mask_of(forget)))
        shift = (filtered - LOGITS)[:, kept]
        np.testing.assert_allclose(shift, shift[:, :1].repeat(kept.sum(), 1), atol=1e-5)
        assert (shift > -1e-6).all()
        np.testing.assert_allclose(softmax(filtered[:, kept]), softmax(LOGITS[:, kept]), rtol=2e-5)

    def test_b_forgotten_probability_is_that_of_the_minimum(self, forget):
        forgotten = mask_of(forget) == 1
        filtered = np.asarray(post_filter(LOGITS, mask_of(forget)))
        p = softmax(filtered)
        want = np.exp(LOGITS.min(1, keepdims=True)) / np.exp(filtered.astype(np.float64)).sum(1, keepdims=True)
        np.testing.assert_allclose(p[:, forgotten], want.repeat(forgotten.sum(), 1), rtol=1e-5)
        assert (p[:, forgotten] <= p.min(1, keepdims=True) * (1 + 1e-6)).all()

    def test_c_differs_from_pd_by_the_residual_mass(self, forget):
        forgotten = mask_of(forget) == 1
        pf, pd = softmax(post_filter(LOGITS, mask_of(forget))), softmax(project(LOGITS, mask_of(forget)))
        residual = pf[:, forgotten].sum(1)
        distance = np.abs(pf - pd).sum(1) / 2  # total variation
        np.testing.assert_allclose(distance, residual, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(pf[:, ~forgotten], (1 - residual[:, None]) * pd[:, ~forgotten], rtol=1e-4, atol=1e-9)

    def test_d_the_entropy_metric_is_the_same(self, forget):
        mask = mask_of(forget)
        before, after = (objectives.retained_entropy(t, mask) for t in (LOGITS, post_filter(LOGITS, mask)))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)

    def test_the_minimum_is_over_all_classes(self, forget):
        """Also where a forgotten class has the smallest logit: it stays, the others come down to it."""
        logits = LOGITS.copy()
        logits[:, forget[0]] = -30
        filtered = np.asarray(post_filter(logits, mask_of(forget)))
        np.testing.assert_array_equal(filtered[:, list(forget)], -30)

    def test_a_threshold_leaves_small_ones_alone(self, forget):
        mask, p = mask_of(forget), softmax(LOGITS)
        threshold = 0.01
        filtered = np.asarray(post_filter(LOGITS, mask, threshold))
        moved = (mask > 0) & (p > threshold)
        assert (moved.any(1) & ((mask > 0) & ~moved).any(1)).any() or len(forget) == 1
        small = (mask > 0) & ~moved
        np.testing.assert_array_equal(filtered[small], LOGITS[small])
        np.testing.assert_array_equal(filtered[moved], LOGITS.min(1, keepdims=True).repeat(CLASSES, 1)[moved])
        delta = (moved * (LOGITS - LOGITS.min(1, keepdims=True))).sum(1) / (mask == 0).sum()
        np.testing.assert_allclose(
            (filtered - LOGITS)[:, mask == 0], delta[:, None].repeat((mask == 0).sum(), 1), atol=1e-5
        )


def test_postfilter_by_hand():
    """Forget the second of (1, 4, -2, 3): 4 falls to -2, the excess of 6 gives 2 to each of three."""
    np.testing.assert_allclose(
        post_filter(np.array([[1.0, 4, -2, 3]]), np.array([0, 1, 0, 0])), [[3, -2, 0, 5]], rtol=1e-6
    )


def test_with_a_threshold_of_one_or_nothing_to_forget_nothing_happens():
    np.testing.assert_array_equal(post_filter(LOGITS, mask_of((3,)), 1.0), LOGITS)
    np.testing.assert_array_equal(post_filter(LOGITS, mask_of(())), LOGITS)


@pytest.mark.parametrize("forget", FORGET_SETS)
def test_pd_gives_exactly_zero_and_keeps_the_rest(forget):
    mask = mask_of(forget)
    p = np.asarray(jax.nn.softmax(project(LOGITS, mask)))
    assert (p[:, mask == 1] == 0).all()
    rest = softmax(LOGITS)[:, mask == 0]
    np.testing.assert_allclose(p[:, mask == 0], rest / rest.sum(1, keepdims=True), rtol=1e-5)
    loss = objectives.kl_divergence(project(LOGITS, mask), LOGITS)
    np.testing.assert_allclose(loss, -np.log(rest.sum(1)), rtol=1e-4, atol=1e-5)  # finite, and what is left to learn


@pytest.mark.parametrize("forget", FORGET_SETS)
@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.3])
def test_prefilter_keeps_where_every_forgotten_class_is_small(forget, threshold):
    p = softmax(LOGITS)
    want = [all(row[f] < threshold for f in forget) for row in p]
    np.testing.assert_array_equal(prefilter_keep(LOGITS, mask_of(forget), threshold), want)


def test_prefilter_is_strict():
    """Two equal logits have the probability 1/2 each, exactly."""
    logits, mask = np.zeros((1, 2), np.float32), np.array([1.0, 0])
    assert not prefilter_keep(logits, mask, 0.5)[0]
    assert prefilter_keep(logits, mask, np.nextafter(np.float32(0.5), np.float32(1)))[0]
    assert not prefilter_keep(np.array([[-1e9, 0]], np.float32), mask, 0.0)[0]  # probability 0 is not below 0


@pytest.mark.parametrize("forget", FORGET_SETS)
def test_blockf_drops_what_the_teacher_calls_forgotten(forget):
    np.testing.assert_array_equal(block_keep(LOGITS, mask_of(forget)), ~np.isin(LOGITS.argmax(1), forget))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("forget", [(3,), (1, 7)])
def test_codes_choose_the_same_as_the_plain_functions(name, forget):
    method, mask, threshold, post_threshold = METHODS[name], mask_of(forget), 0.02, 0.005
    keep = {"all": np.ones(64), "block": block_keep(LOGITS, mask), "prefilter": prefilter_keep(LOGITS, mask, threshold)}
    target = {
        "teacher": LOGITS,
        "postfilter": post_filter(LOGITS, mask, post_threshold),
        "project": project(LOGITS, mask),
    }
    kept = jax.jit(kept_samples)(method.codes(), LOGITS, mask, threshold)
    assert kept.dtype == jnp.float32
    np.testing.assert_array_equal(kept, keep[method.keep])
    got = jax.jit(target_logits)(method.codes(), LOGITS, mask, post_threshold)
    np.testing.assert_allclose(got, target[method.target], rtol=1e-6, atol=1e-6)
    assert method.codes()["inhibit"] == method.inhibit


def test_the_filters_of_this_file_do_filter():
    """Neither everything nor nothing, so that the comparisons above say something."""
    for forget in ((3,), (1, 7)):
        for kept in (prefilter_keep(LOGITS, mask_of(forget), 0.02), block_keep(LOGITS, mask_of(forget))):
            assert 5 < np.sum(kept) < 62
    assert set(methods.KEEP) == {"all", "block", "prefilter"} and set(methods.TARGETS) == {
        "teacher",
        "postfilter",
        "project",
    }
