"""Our convolutions against `jax.lax`, values and gradients, and what is left to `jax.lax`."""

import re
from functools import cache, partial
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ispf_jax import ops
from ispf_jax.errors import ArgumentError
from ispf_jax.ops import conv_general_dilated, convolutions, describe, foreign, onednn, upsampled_conv, xla

NHWC = ("NHWC", "HWIO", "NHWC")
# float32 sums of at most a few hundred products of standard normal numbers, added in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# bfloat16 has 8 bits; sums of 72 to 315 products of order one.
HALF = {"rtol": 0.05, "atol": 0.3}
TARGET = "custom_call @ispf_jax_onednn_convolution"


@pytest.fixture(params=["onednn", "xla"], autouse=True)
def implementation(request):
    """Every test runs with both."""
    if request.param == "onednn" and onednn.problem():
        pytest.skip(f"oneDNN cannot be loaded: {onednn.problem()}")
    with convolutions(request.param):
        yield request.param


def only(name):
    return pytest.mark.parametrize("implementation", [name], indirect=True)


def problem(batch=5, size=(7, 9), channels=3, filters=4, kernel=3):
    rng = np.random.default_rng(0)
    shapes = (batch, *size, channels), (kernel, kernel, channels, filters)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def convolve(op, x, w, stride=1, padding=None):
    """As `flax.linen.Conv` calls it."""
    padding = [(w.shape[0] // 2,) * 2] * 2 if padding is None else padding
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    ones = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1}
    return op(x, w, (stride, stride), padding, dimension_numbers=numbers, precision=None, **ones)


def upsampled_first(x, w, *args, **options):
    return lax.conv_general_dilated(x.repeat(2, axis=1).repeat(2, axis=2), w, *args, **options)


OURS, THEIRS = (conv_general_dilated, upsampled_conv), (lax.conv_general_dilated, upsampled_first)


def with_gradients(op, x, w, g=None, **options):
    """Output and both gradients for a cotangent that weighs every output differently, unless it is given."""
    y, pull = jax.vjp(partial(convolve, op, **options), x, w)
    return y, *pull(jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype) if g is None else g)


def assert_close(got, want, tolerance):
    for name, a, b in zip(("output", "input gradient", "filter gradient"), got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), err_msg=name, **tolerance)


def assert_same(x, w, kind=0, tolerance=CLOSE, **options):
    got, want = (jax.jit(partial(with_gradients, pair[kind], **options))(x, w) for pair in (OURS, THEIRS))
    assert_close(got, want, tolerance)


UNEVEN, ODD = [(0, 2), (3, 0)], [(0, 2), (1, 0)]
SIZES = [
    *({"kernel": k, "channels": c, "stride": s} for k in (1, 3) for s in (1, 2) for c in (1, 3, 8)),
    *({"kernel": k, "channels": 8, "filters": 3, "padding": p} for k in (1, 3) for p in ("SAME", "VALID", UNEVEN)),
    *({"size": s, "channels": 8, "stride": 2, "padding": p} for s in ((6, 8), (7, 5)) for p in ("SAME", "VALID", ODD)),
]
CHANNELS = [{"channels": inputs, "filters": outputs} for inputs, outputs in ((8, 4), (8, 6), (3, 5), (1, 1))]


@pytest.mark.parametrize("case", SIZES, ids=str)
def test_value_and_gradients(case):
    options = {name: case[name] for name in case.keys() & {"stride", "padding"}}
    assert_same(*problem(**{name: case[name] for name in case if name not in options}), **options)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 2)])
@pytest.mark.parametrize("channels", CHANNELS, ids=str)
def test_value_and_gradients_after_upsampling(size, channels):
    assert_same(*problem(size=size, **channels), kind=1)


@pytest.mark.parametrize("kind, tolerance", [(0, HALF), (1, HALF | {"atol": 0.5})])
def test_half_precision_keeps_its_type(kind, tolerance):
    assert_same(*(jnp.bfloat16(a) for a in problem(channels=8)), kind=kind, tolerance=tolerance)


def test_pixels_by_hand():
    """With stride 2 and padding 1 output (0, 0) sees the four top left pixels and the last filter rows.

    Output (3, 2) after upsampling sees rows 2, 3, 4 and columns 1, 2, 3 of it: pixels 1, 1, 2 and 0, 1, 1.
    """
    x, w = problem(channels=8)
    x64, w64 = np.float64(x), np.float64(w)
    want = np.einsum("nijc,ijco->no", x64[:, :2, :2], w64[1:, 1:])
    np.testing.assert_allclose(convolve(conv_general_dilated, x, w, stride=2)[:, 0, 0], want, **CLOSE)
    want = np.einsum("nijc,ijco->no", x64[:, [1, 1, 2]][:, :, [0, 1, 1]], w64)
    np.testing.assert_allclose(convolve(upsampled_conv, x, w)[:, 3, 2], want, **CLOSE)


def scanned(function):
    return lambda *arrays: lax.scan(lambda _, arrays: (0, function(*arrays)), 0, arrays)[1]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), "scan"], ids=str)
def test_inside_a_vmap_or_scan(axes, kind):
    x, w = problem(batch=6, channels=8)
    x = x if axes[0] is None else np.stack([x, 2 * x[::-1]])
    w = w if axes[1] is None else np.stack([w, w[::-1] + 1])
    transform = scanned if axes == "scan" else partial(jax.vmap, in_axes=axes)
    got, want = (jax.jit(transform(partial(with_gradients, pair[kind])))(x, w) for pair in (OURS, THEIRS))
    assert_close(got, want, CLOSE)


def test_threads_that_meet_in_one_convolution():
    """Eight devices run the same program at once; each gets the bits that one of them alone gets."""
    x, w = problem(batch=16, size=(16, 16), channels=16, filters=16)
    function = partial(with_gradients, conv_general_dilated)
    alone, together = jax.jit(function)(x, w), jax.pmap(function)(*(np.stack([a] * 8) for a in (x, w)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.broadcast_to(b, a.shape)), together, alone)


# What XLA compiles


@only("xla")
@pytest.mark.parametrize(
    "batch, chunk_pixels, steps", [(6, 130, 2), (7, 130, 6), (8, 1, 7), (5, 10**6, 0), (256, None, 31)]
)
def test_filter_gradient_in_chunks_of_the_batch(monkeypatch, batch, chunk_pixels, steps):
    """63 output pixels: two images a chunk; one where two do not divide the batch; at least one; all; as shipped 8."""
    if chunk_pixels:
        monkeypatch.setattr(xla, "_CHUNK_PIXELS", chunk_pixels)
    x, w = problem(batch=batch, channels=8)
    loops = re.findall(r"length=(\d+)", str(jax.make_jaxpr(partial(with_gradients, conv_general_dilated))(x, w)))
    assert loops == [str(steps)] * bool(steps)
    if chunk_pixels:
        assert_same(x, w)


@only("xla")
def test_a_loop_contains_only_convolutions_of_the_fast_layout():
    x, w = problem(batch=6, channels=8, filters=8)

    def layouts(op):
        """The layouts of all convolutions of a compiled loop; "f01b" marks XLA's own filter gradient."""

        def step(w, _):
            loss = lambda w: jnp.sum(jnp.square(convolve(op, jnp.tanh(convolve(op, x, w)), w)))
            return w - 1e-3 * jax.grad(loss)(w), None

        text = jax.jit(lambda w: lax.scan(step, w, length=3)[0]).lower(w).compile().as_text()
        return set(re.findall(r"dim_labels=(\S+?)[,\s]", text))

    assert layouts(conv_general_dilated) == {"b01f_01io->b01f"}
    assert any("f01b" in layout for layout in layouts(lax.conv_general_dilated))  # the check can fail


# What is left to JAX


OPTIONS = {
    "rhs_dilation": (2, 2),
    "lhs_dilation": (2, 1),
    "feature_group_count": 3,
    "preferred_element_type": jnp.float32,
}
LAYOUTS = [("NWHC", "HWIO", "NHWC"), ("NWC", "WIO", "NWC")]


@pytest.mark.parametrize("option", [*OPTIONS.items(), *(("dimension_numbers", layout) for layout in LAYOUTS)], ids=str)
def test_everything_else_goes_to_jax(option):
    x, w = (jnp.bfloat16(a) for a in problem(filters=6))
    options = {"dimension_numbers": NHWC} | dict([option])
    w = w[:, :, : 1 if "feature_group_count" in options else 3]
    x, w = (x[:, 0], w[0]) if len(options["dimension_numbers"][0]) == 3 else (x, w)
    sides = [(1, 1)] * (x.ndim - 2)
    program, stock = (
        str(jax.make_jaxpr(lambda x, w, op=op: op(x, w, (1,) * len(sides), sides, **options))(x, w))
        for op in (conv_general_dilated, lax.conv_general_dilated)
    )
    assert program == stock


@pytest.mark.parametrize("kind", [0, 1])
def test_other_backends_go_to_jax(monkeypatch, kind):
    x, w = problem(channels=8)
    program = lambda op: str(jax.make_jaxpr(partial(convolve, op))(x, w))
    assert "custom_vjp" in program(OURS[kind])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert program(OURS[kind]) == program(THEIRS[kind])
    assert describe() == "XLA" and not ops.compiler_options()


# The choice


def calls(function, *arrays):
    """How often a program calls oneDNN."""
    return jax.jit(function).lower(*arrays).as_text().count(TARGET)


def test_which_convolutions_are_in_a_program(implementation):
    function = partial(with_gradients, conv_general_dilated)
    assert calls(function, *problem(channels=8)) == (3 if implementation == "onednn" else 0)
    assert describe().split()[0] == {"onednn": "oneDNN", "xla": "XLA"}[implementation]


def test_xla_leaves_the_cores_to_onednn(implementation):
    assert bool(ops.compiler_options()) == (implementation == "onednn")
    lowered = jax.jit(partial(convolve, conv_general_dilated)).lower(*problem())
    got, want = (lowered.compile(options)(*problem()) for options in (ops.compiler_options(), {}))
    np.testing.assert_array_equal(got, want)


@only("onednn")
def test_one_function_has_a_program_for_each_choice():
    """Also where it was compiled under another choice before, and called by another function."""
    x, w = problem(channels=8)
    traced = []

    @jax.jit
    def inner(x, w):
        traced.append(describe())
        return convolve(conv_general_dilated, x, w)

    outer = jax.jit(lambda x, w: inner(x, w) + 1)
    for name, count in (("onednn", 1), ("xla", 0), ("onednn", 1)):
        with convolutions(name):
            np.testing.assert_allclose(outer(x, w) - 1, inner(x, w), **CLOSE)
            assert outer.lower(x, w).as_text().count(TARGET) == count
    assert len(traced) == 2 and traced[0].startswith("oneDNN") and traced[1] == "XLA"


@only("onednn")
def test_a_gradient_follows_the_choice_of_its_function():
    x, w = problem(channels=8)
    with convolutions("xla"):
        y, pull = jax.vjp(partial(convolve, conv_general_dilated), x, w)
    assert TARGET not in jax.jit(pull).lower(y).as_text()


@pytest.mark.parametrize(
    "name, match", [("fast", "='fast' must be one of auto, "), ("onednn", r"3 \(no such file\); inst")]
)
def test_a_choice_that_cannot_be(monkeypatch, name, match):
    monkeypatch.setattr(onednn, "problem", lambda: "no such file")
    with pytest.raises(ArgumentError, match=match) as error:
        convolutions(name)
    assert error.value.argument == "convolutions"


@only("xla")
def test_without_the_library_convolutions_are_xlas(monkeypatch):
    monkeypatch.setattr(onednn, "available", cache(onednn.available.__wrapped__))
    monkeypatch.setattr(onednn, "problem", lambda: "no such file")
    with convolutions("auto"):
        assert describe() == "XLA and Winograd"
        assert_same(*problem(channels=8))


@only("onednn")
def test_an_interface_that_xla_does_not_know_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(foreign, "VERSION", (99, 0))
    monkeypatch.setattr(onednn, "_TARGET", "ispf_jax_refused")
    monkeypatch.setattr(onednn, "available", cache(onednn.available.__wrapped__))
    assert describe() == "XLA" and not ops.compiler_options()
    assert_same(*problem(channels=7))
    assert [record.name for record in caplog.records] == ["ispf_jax.ops.onednn"]
    assert "99.0" in caplog.text


@only("onednn")
def test_what_onednn_has_only_a_reference_for_is_xlas(monkeypatch):
    """So a processor without fast bfloat16, say, does not end in oneDNN's plain loops."""
    monkeypatch.setattr(onednn, "_prepared", Mock(side_effect=NotImplementedError))
    assert calls(partial(with_gradients, conv_general_dilated), *problem(batch=3, channels=8)) == 0


@only("onednn")
def test_a_failing_convolution_fails_the_program(monkeypatch):
    x, w = problem(batch=2, channels=7)
    program = jax.jit(partial(convolve, conv_general_dilated)).lower(x, w).compile()
    monkeypatch.setattr(onednn, "_prepared", lambda task: Mock(side_effect=RuntimeError("out of memory")))
    with pytest.raises(Exception, match="ispf_jax_onednn_convolution: out of memory"):
        jax.block_until_ready(program(x, w))
