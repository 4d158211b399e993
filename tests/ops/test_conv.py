"""The own convolution against XLA's, value and gradients, and what it leaves to XLA."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax.errors import UserError
from ispf_jax.ops import (
    choose_convolutions,
    compiler_options,
    conv_general_dilated,
    conv_onednn,
    conv_xla,
    convolutions,
)

NHWC = ("NHWC", "HWIO", "NHWC")
# float32 sums of at most a few hundred products of standard normal numbers, added in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=["onednn", "xla"], autouse=True)
def implementation(request):
    """Every test runs with both."""
    if request.param == "onednn" and conv_onednn.library() is None:
        pytest.skip("the extra onednn is not installed, or not made for this machine")
    choose_convolutions(request.param)
    yield request.param
    choose_convolutions("auto")


only_onednn = pytest.mark.parametrize("implementation", ["onednn"], indirect=True)
only_xla = pytest.mark.parametrize("implementation", ["xla"], indirect=True)


def problem(batch=5, size=(7, 9), channels=3, filters=4, kernel=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *size, channels)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, channels, filters)).astype(np.float32)
    return x, w


def convolve(op, x, w, stride=1, padding=None):
    """As flax.linen.Conv calls it: dimension numbers already resolved."""
    padding = [(w.shape[0] // 2, w.shape[0] // 2)] * 2 if padding is None else padding
    return op(x, w, (stride, stride), padding, dimension_numbers=lax.conv_dimension_numbers(x.shape, w.shape, NHWC))


def with_gradients(op, x, w, **kwargs):
    """Output and both gradients for one cotangent that weighs every output differently."""
    y, pull = jax.vjp(partial(convolve, op, **kwargs), x, w)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))


def assert_same(x, w, **kwargs):
    ops = (conv_general_dilated, lax.conv_general_dilated)
    got, want = jax.jit(lambda x, w: [with_gradients(op, x, w, **kwargs) for op in ops])(x, w)
    for name, a, b in zip(("output", "input gradient", "filter gradient"), got, want):
        np.testing.assert_allclose(a, b, err_msg=name, **CLOSE)


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_value_and_gradients_are_xlas(kernel, stride, channels):
    assert_same(*problem(channels=channels, kernel=kernel), stride=stride)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(0, 2), (3, 0)]])
def test_few_outputs_of_many_channels(padding, kernel):
    assert_same(*problem(channels=8, filters=3, kernel=kernel), padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(0, 2), (1, 0)]])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_every_kind_of_padding(padding, size):
    assert_same(*problem(size=size, channels=8), stride=2, padding=padding)


@only_xla
@pytest.mark.parametrize("batch, chunk_pixels", [(6, 130), (7, 130), (8, 1), (5, 10**6)])
def test_filter_gradient_in_chunks_of_the_batch(monkeypatch, batch, chunk_pixels):
    """63 output pixels: two images a chunk, where two do not divide the batch one, one at least, and all at once."""
    monkeypatch.setattr(conv_xla, "_CHUNK_PIXELS", chunk_pixels)
    x, w = problem(batch=batch, channels=8)
    loops = str(jax.make_jaxpr(partial(with_gradients, conv_general_dilated))(x, w)).count("scan[")
    assert loops == (chunk_pixels < 63 * batch)
    assert_same(x, w)


@only_xla
def test_the_shipped_chunk_is_smaller_than_a_paper_sized_batch():
    """So the loop above is what runs in earnest: 256 images of 32x32."""
    assert conv_xla._largest_divisor(256, max(1, conv_xla._CHUNK_PIXELS // 32**2)) == 1
    assert conv_xla._largest_divisor(256, conv_xla._CHUNK_PIXELS // 8**2) == 8
    assert [conv_xla._largest_divisor(n, 4) for n in (1, 6, 7, 12)] == [1, 3, 1, 4]


def test_a_pixel_by_hand():
    """Output (0, 0) of a 3x3 convolution with stride 2 and padding 1 sees the four top left pixels and the last filter rows."""
    x, w = problem(channels=8)
    y = convolve(conv_general_dilated, x, w, stride=2)
    want = np.einsum("nijc,ijco->no", x[:, :2, :2].astype(np.float64), w[1:, 1:].astype(np.float64))
    np.testing.assert_allclose(y[:, 0, 0], want, **CLOSE)


@pytest.mark.parametrize("channels", [3, 8])
def test_inside_a_scan(channels):
    x, w = problem(batch=6, channels=channels)
    batches = np.stack([x, 2 * x, x[::-1]])

    @partial(jax.jit, static_argnums=0)
    def descend(op, w):
        def step(w, x):
            y, dx, dw = with_gradients(op, x, w)
            return w - 1e-3 * dw, (y, dx)

        return lax.scan(step, w, batches)

    got, want = descend(conv_general_dilated, w), descend(lax.conv_general_dilated, w)
    jax.tree.map(partial(np.testing.assert_allclose, **CLOSE), got, want)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_inside_a_vmap(axes):
    x, w = problem(channels=8)
    x = np.stack([x, 2 * x[::-1]]) if axes[0] == 0 else x
    w = np.stack([w, w[::-1] + 1]) if axes[1] == 0 else w

    @jax.jit
    def both(x, w):
        ops = (conv_general_dilated, lax.conv_general_dilated)
        return [jax.vmap(partial(with_gradients, op), axes)(x, w) for op in ops]

    got, want = both(x, w)
    jax.tree.map(partial(np.testing.assert_allclose, **CLOSE), got, want)


def test_half_precision_keeps_its_type():
    x, w = (a.astype(jnp.bfloat16) for a in problem(channels=8))
    for got, want in zip(with_gradients(conv_general_dilated, x, w), with_gradients(lax.conv_general_dilated, x, w)):
        assert got.dtype == want.dtype == jnp.bfloat16
        # bfloat16 has 8 bits; sums of 72 to 315 products of order one.
        np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=0.05, atol=0.3)


ELSEWHERE = {
    "dilated filter": (dict(rhs_dilation=(2, 2)), 3, 3),
    "dilated input": (dict(lhs_dilation=(2, 1)), 3, 3),
    "groups of features": (dict(feature_group_count=3), 3, 1),
    "another type for sums": (dict(preferred_element_type=jnp.float32), 3, 3),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_everything_else_goes_to_xla(name):
    options, channels, filter_channels = ELSEWHERE[name]
    x, w = (jnp.bfloat16(a) for a in problem(channels=channels, filters=6))
    w = w[:, :, :filter_channels]
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    assert_is_xlas(x, w, window_strides=(1, 1), padding=[(1, 1)] * 2, dimension_numbers=numbers, **options)


def test_other_layouts_and_dimensions_go_to_xla():
    x, w = problem(channels=3)
    assert_is_xlas(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), window_strides=(1, 1), padding="SAME")
    line = lax.conv_dimension_numbers(x[:, 0].shape, w[0].shape, ("NWC", "WIO", "NWC"))
    assert_is_xlas(x[:, 0], w[0], window_strides=(2,), padding="SAME", dimension_numbers=line)


def test_other_backends_go_to_xla(monkeypatch):
    x, w = problem(channels=8)
    assert "custom_vjp" in str(jax.make_jaxpr(partial(convolve, conv_general_dilated))(x, w))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "custom_vjp" not in str(jax.make_jaxpr(partial(convolve, conv_general_dilated))(x, w))


def assert_is_xlas(x, w, **options):
    ops = (conv_general_dilated, lax.conv_general_dilated)
    program, stock = (jax.make_jaxpr(lambda x, w, op=op: op(x, w, **options))(x, w) for op in ops)
    assert str(program) == str(stock)
    assert "custom_vjp" not in str(program)


def layouts(compiled):
    """The layouts of all convolutions of a compiled program, like "b01f_01io->b01f"; "f01b" marks XLA's own filter gradient."""
    return set(re.findall(r"dim_labels=(\S+?)[,\s]", compiled.as_text()))


@only_xla
def test_a_loop_contains_only_convolutions_of_the_fast_layout():
    x, w = problem(batch=6, channels=8, filters=8)

    def program(op):
        def step(w, _):
            loss = lambda w: jnp.sum(jnp.square(convolve(op, jnp.tanh(convolve(op, x, w)), w)))
            return w - 1e-3 * jax.grad(loss)(w), None

        return jax.jit(lambda w: lax.scan(step, w, length=3)[0]).lower(w).compile()

    assert layouts(program(conv_general_dilated)) == {"b01f_01io->b01f"}
    assert any("f01b" in layout for layout in layouts(program(lax.conv_general_dilated)))  # the check can fail


def test_which_convolutions_are_in_a_program(implementation):
    x, w = problem(channels=8)
    program = jax.jit(partial(with_gradients, conv_general_dilated)).lower(x, w).as_text()
    assert program.count("stablehlo.custom_call @ispf_jax_onednn_convolution") == (
        3 if implementation == "onednn" else 0
    )
    assert convolutions().split()[0] == {"onednn": "oneDNN", "xla": "XLA"}[implementation]


def test_threads_that_meet_in_one_convolution():
    """Eight devices run the same program at once; each gets what one of them alone gets, to the bit."""
    x, w = problem(batch=16, size=(16, 16), channels=16, filters=16)
    alone = jax.jit(partial(with_gradients, conv_general_dilated))(x, w)
    together = jax.pmap(partial(with_gradients, conv_general_dilated))(*(np.stack([a] * 8) for a in (x, w)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.broadcast_to(b, a.shape)), together, alone)


def test_without_the_library_convolutions_are_xlas(monkeypatch):
    monkeypatch.setattr(conv_onednn, "library", lambda: None)
    choose_convolutions("auto")
    assert convolutions() == "XLA and Winograd"
    assert_same(*problem(channels=8))
    with pytest.raises(UserError, match="extra onednn"):
        choose_convolutions("onednn")


@only_onednn
def test_what_onednn_has_only_a_reference_for_is_xlas(monkeypatch):
    """So a processor without fast bfloat16, say, does not end in oneDNN's plain loops."""

    def refuse(task):
        raise conv_onednn.NoFastConvolution

    monkeypatch.setattr(conv_onednn, "_Convolution", refuse)
    x, w = problem(batch=3, channels=8)
    assert "custom_call @ispf_jax" not in jax.jit(partial(with_gradients, conv_general_dilated)).lower(x, w).as_text()


@only_onednn
def test_a_failing_convolution_fails_the_program(monkeypatch):
    x, w = problem(batch=2, channels=7)
    program = jax.jit(partial(convolve, conv_general_dilated)).lower(x, w).compile()

    def broken(task, *addresses):
        raise RuntimeError("out of memory")

    conv_onednn._convolutions.clear()
    monkeypatch.setattr(conv_onednn, "_Convolution", lambda task: partial(broken, task))
    with pytest.raises(Exception, match="ispf_jax_onednn_convolution: out of memory"):
        jax.block_until_ready(program(x, w))


def test_xla_leaves_the_cores_to_onednn_and_takes_the_option(implementation):
    assert bool(compiler_options()) == (implementation == "onednn")
    x, w = problem()
    lowered = jax.jit(partial(convolve, conv_general_dilated)).lower(x, w)
    compiled = lowered.compile(compiler_options())
    np.testing.assert_array_equal(compiled(x, w), lowered.compile()(x, w))
