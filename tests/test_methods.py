"""Filters and targets: the invariants of PostFilter, the exact zero of PD, the strict threshold of PreFilter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from ispf_jax import losses
from ispf_jax.filters import block_keep, post_filter, prefilter_keep, project
from ispf_jax.methods import METHODS, Rules

CLASSES = 10
LOGITS = (3 * np.random.default_rng(0).standard_normal((64, CLASSES))).astype(np.float32)
LOWEST = LOGITS.min(1, keepdims=True)
forget_sets = pytest.mark.parametrize("forget", [(3,), (0,), (1, 7), (0, 2, 4, 6, 8, 9), tuple(range(9))])


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


@forget_sets
@pytest.mark.parametrize("threshold", [-1.0, 0.01, 1.0])
@pytest.mark.parametrize("lowest_is_forgotten", [False, True])
def test_postfilter_is_equations_8_and_9(forget, threshold, lowest_is_forgotten):
    """The minimum is over all classes, also where a forgotten class has it: it stays, the others come down to it."""
    logits = np.where(np.arange(CLASSES) == forget[0], -30, LOGITS) if lowest_is_forgotten else LOGITS
    want, p = logits.astype(np.float64), softmax(logits)
    for row, probability in zip(want, p):
        lowest, moved = min(row), [f for f in forget if probability[f] > threshold]
        delta = sum(row[f] - lowest for f in moved)
        for c in range(CLASSES):
            if c in moved:
                row[c] = lowest
            elif c not in forget:
                row[c] += delta / (CLASSES - len(forget))
    got = np.asarray(post_filter(logits, mask_of(forget), threshold))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    gone = mask_of(forget) == 1
    np.testing.assert_array_equal(got[:, gone], np.float32(want[:, gone]))
    if threshold == 1:  # nothing is above it
        np.testing.assert_array_equal(got, logits)
    if threshold == 0.01 and len(forget) > 1 and not lowest_is_forgotten:
        moved = p[:, gone] > threshold
        assert (moved.any(1) & ~moved.all(1)).any()


@forget_sets
def test_invariants_of_postfilter(forget):
    """A retained prediction is the teacher's, a forgotten class has the minimum's probability, PD lacks that mass."""
    mask, gone = mask_of(forget), mask_of(forget) == 1
    filtered = np.asarray(post_filter(LOGITS, mask))
    pf, pd = softmax(filtered), softmax(project(LOGITS, mask))
    np.testing.assert_allclose(softmax(filtered[:, ~gone]), softmax(LOGITS[:, ~gone]), rtol=2e-5)
    entropies = [losses.retained_entropy(logits, mask) for logits in (filtered, LOGITS)]
    np.testing.assert_allclose(*entropies, rtol=1e-4, atol=1e-5)

    want = np.exp(LOWEST) / np.exp(np.float64(filtered)).sum(1, keepdims=True)
    np.testing.assert_allclose(pf[:, gone], want.repeat(gone.sum(), 1), rtol=1e-5)
    assert (pf[:, gone] <= pf.min(1, keepdims=True) * (1 + 1e-6)).all()

    residual = pf[:, gone].sum(1, keepdims=True)
    distance = np.abs(pf - pd).sum(1, keepdims=True) / 2  # total variation
    np.testing.assert_allclose(distance, residual, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(pf[:, ~gone], (1 - residual) * pd[:, ~gone], rtol=1e-4, atol=1e-9)


def test_postfilter_by_hand():
    """Forget the second of (1, 4, -2, 3): 4 falls to -2, the excess of 6 gives 2 to each of three."""
    filtered = post_filter(np.array([[1.0, 4, -2, 3]]), np.array([0, 1, 0, 0]))
    np.testing.assert_allclose(filtered, [[3, -2, 0, 5]], rtol=1e-6)
    np.testing.assert_array_equal(post_filter(LOGITS, mask_of(())), LOGITS)


@forget_sets
def test_pd_gives_exactly_zero_and_keeps_the_rest(forget):
    mask = mask_of(forget)
    p = np.asarray(jax.nn.softmax(project(LOGITS, mask)))
    assert (p[:, mask == 1] == 0).all()
    rest = softmax(LOGITS)[:, mask == 0]
    np.testing.assert_allclose(p[:, mask == 0], rest / rest.sum(1, keepdims=True), rtol=1e-5)
    loss = losses.kl_divergence(project(LOGITS, mask), LOGITS)
    np.testing.assert_allclose(loss, -np.log(rest.sum(1)), rtol=1e-4, atol=1e-5)  # finite, and what is left to learn


@forget_sets
def test_filters_keep_what_their_definitions_say(forget):
    """BlockF drops what the teacher calls forgotten, PreFilter what has one forgotten class that is not small."""
    mask, p = mask_of(forget), softmax(LOGITS)
    np.testing.assert_array_equal(block_keep(LOGITS, mask), ~np.isin(LOGITS.argmax(1), forget))
    for threshold in (0.001, 0.01, 0.3):
        want = [all(row[f] < threshold for f in forget) for row in p]
        np.testing.assert_array_equal(prefilter_keep(LOGITS, mask, threshold), want)


def test_prefilter_is_strict():
    """Two equal logits have the probability 1/2 each, exactly."""
    logits, mask = np.zeros((1, 2), np.float32), np.array([1.0, 0])
    assert not prefilter_keep(logits, mask, 0.5)[0]
    assert prefilter_keep(logits, mask, np.nextafter(np.float32(0.5), np.float32(1)))[0]
    assert not prefilter_keep(np.array([[-1e9, 0]], np.float32), mask, 0.0)[0]  # probability 0 is not below 0


@pytest.mark.parametrize("forget", [(3,), (1, 7)])
def test_codes_choose_the_same_as_the_plain_functions(forget):
    mask, threshold, post_threshold = mask_of(forget), 0.02, 0.005
    keep = {"all": np.ones(64), "block": block_keep(LOGITS, mask), "prefilter": prefilter_keep(LOGITS, mask, threshold)}
    target = {
        "teacher": LOGITS,
        "postfilter": post_filter(LOGITS, mask, post_threshold),
        "project": project(LOGITS, mask),
    }
    assert all(5 < np.sum(keep[name]) < 62 for name in ("block", "prefilter"))  # neither everything nor nothing
    keeps, targets = jax.jit(Rules().kept_samples), jax.jit(Rules().target_logits)
    for method in METHODS.values():
        kept = keeps(method.codes(), LOGITS, mask, threshold)
        assert kept.dtype == jnp.float32
        np.testing.assert_array_equal(kept, keep[method.keep])
        got = targets(method.codes(), LOGITS, mask, post_threshold)
        np.testing.assert_allclose(got, target[method.target], rtol=1e-6, atol=1e-6)
        assert method.codes()["inhibit"] == method.inhibit
