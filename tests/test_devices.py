"""One device and several: the helpers, and that programs compile once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.collectives import local_slice, psum, replicated_share, value_and_global_grad
from ispf_jax.devices import AXIS, Devices, choose, local_devices
from ispf_jax.errors import ArgumentError, UserError

COUNTS = [1, 2, 8]


def devices(count):
    return Devices(tuple(jax.devices()[:count]))


@pytest.mark.parametrize("count", COUNTS)
def test_sums_shares_and_slices(count):
    def program(_, x, axis):
        mine = local_slice(x, axis)
        assert mine.shape == (8 // count, 3)
        shares = psum(replicated_share(jnp.float32(5), axis), axis)
        return {
            "total": psum({"sum": jnp.sum(mine, axis=0)}, axis)["sum"],
            "share": shares,
            "rows": _gather(mine, axis),
        }

    x = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    got = devices(count).compile(program, None)(x)
    np.testing.assert_allclose(got["total"], x.sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got["share"], 5, rtol=1e-6)
    np.testing.assert_array_equal(got["rows"], x)


def _gather(x, axis):
    return x if axis is None else lax.all_gather(x, axis, tiled=True)


@pytest.mark.parametrize("count", COUNTS)
def test_gradient_of_a_mean_of_squares(count):
    """loss = mean over rows of (x w - y)^2 plus |w|^2 in full on every device; gradient in closed form."""
    rng = np.random.default_rng(0)
    x, y, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, 3), (8,), (3,)))

    def program(_, w, x, y, axis):
        x, y = local_slice(x, axis), local_slice(y, axis)

        def loss_share(w):
            residual = x @ w - y
            # The last term runs through a sum over devices, like a batch norm: (mean of x w)^2.
            mean = psum(jnp.sum(x @ w), axis) / 8
            loss = jnp.sum(residual**2) / 8 + replicated_share(jnp.sum(w**2) + mean**2, axis)
            return loss, jnp.sum(residual)

        (loss, local), gradient = value_and_global_grad(loss_share, w, axis)
        return loss, psum(local, axis), gradient

    loss, residual, gradient = devices(count).compile(program, None)(w, x, y)
    x, y, w = (a.astype(np.float64) for a in (x, y, w))
    r, m = x @ w - y, (x @ w).mean()
    np.testing.assert_allclose(loss, (r**2).mean() + w @ w + m**2, rtol=1e-5)
    np.testing.assert_allclose(residual, r.sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, 2 * x.T @ r / 8 + 2 * w + 2 * m * x.mean(0), rtol=1e-5, atol=1e-6)


def test_auxiliary_outputs_stay_local():
    def program(_, x, axis):
        mine = local_slice(x, axis)
        (_, aux), _ = value_and_global_grad(
            lambda w: (jnp.sum(w * mine), jnp.sum(mine, keepdims=True)), jnp.ones(()), axis
        )
        return _gather(aux, axis)

    np.testing.assert_array_equal(devices(4).compile(program, None)(jnp.arange(8.0)), [1, 5, 9, 13])


@pytest.mark.parametrize("count", COUNTS)
def test_a_program_is_compiled_once_and_refuses_other_shapes(count):
    traces = []

    def body(_, x, scale, axis):
        traces.append(axis)
        return psum(jnp.sum(local_slice(x, axis)), axis) * scale

    program = devices(count).compile(body, None)
    assert program.prepare(jnp.ones(8), jnp.float32(2)) > 0
    assert program.prepare(jnp.ones(8), jnp.float32(3)) == 0
    assert [float(program(jnp.ones(8), jnp.float32(s))) for s in (1, 2, 3)] == [8, 16, 24]
    assert traces == [None if count == 1 else AXIS]
    with pytest.raises(TypeError):
        program(jnp.ones(12), jnp.float32(1))
    assert len(traces) == 1


def test_programs_of_equal_setups_share_what_is_compiled():
    traces = []

    def double(setup, x, axis):
        traces.append(setup)
        return setup * x

    for setup in (2, 2, 3):
        np.testing.assert_array_equal(devices(1).compile(double, setup)(jnp.arange(3)), [0, setup, 2 * setup])
    assert traces == [2, 3]


@pytest.mark.parametrize("count", COUNTS)
def test_donated_arguments_are_used_up_and_outputs_feed_the_next_call(count):
    def add(_, state, x, axis):
        total = psum(jnp.sum(local_slice(x, axis)), axis)
        return jax.tree.map(lambda s: s + total, state)

    program = devices(count).compile(add, None, donate=1)
    state, x = devices(count).replicate({"a": np.zeros(3, np.float32)}), jnp.ones(8)
    first = program(state, x)
    second = program(first, x)
    np.testing.assert_array_equal(second["a"], [16, 16, 16])
    assert first["a"].is_deleted() and not x.is_deleted()


def test_replicate_puts_everything_on_every_device():
    for count in COUNTS:
        tree = devices(count).replicate({"x": np.arange(4), "key": jax.random.key(1)})
        assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(tree))
        np.testing.assert_array_equal(tree["x"], np.arange(4))
        assert jax.random.key_data(tree["key"])[1] == 1


def test_axis_and_count():
    assert (devices(1).axis, devices(1).count) == (None, 1)
    assert (devices(4).axis, devices(4).count) == ("devices", 4)


def test_devices_by_number():
    everything = choose()
    assert everything.count == 8 == len(jax.local_devices()) and not everything.crew and everything.leads
    assert choose(2).devices == tuple(jax.local_devices()[:2]) == local_devices(2) and choose(everything) is everything
    for wrong in (9, -1, "two"):
        with pytest.raises(ArgumentError, match=rf"devices={wrong!r}, but this machine has 8"):
            choose(wrong)


def test_alone_nothing_is_shared():
    one = choose(1)
    assert one.share(lambda: {"a": 1}) == {"a": 1} and one.any(True) and not one.any(False)
    with pytest.raises(UserError, match="mine"):
        one.share(lambda: (_ for _ in ()).throw(UserError("mine")))


def test_a_batch_that_does_not_divide_is_refused():
    devices(4).check_batch(8)
    devices(1).check_batch(7)
    with pytest.raises(ArgumentError, match="batch_size=6 does not divide evenly over 4 devices"):
        devices(4).check_batch(6)


def test_helpers_are_the_identity_without_an_axis():
    x = jnp.arange(3.0)
    assert psum(x, None) is x and replicated_share(x, None) is x and local_slice(x, None) is x
    (loss, aux), gradient = value_and_global_grad(lambda w: (jnp.sum(w**2), "aux"), x, None)
    assert float(loss) == 5 and aux == "aux"
    np.testing.assert_array_equal(gradient, 2 * x)
