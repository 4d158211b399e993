"""Convolutions of oneDNN on the CPU, where its library is installed: the extra `onednn`, or the system's own libdnnl 3.

XLA's own convolutions reach about 60 % of the rate of oneDNN's. Here oneDNN's three (forward, input gradient, filter gradient) are
operations of XLA programs. Images stay [N, H, W, C]; oneDNN brings the filters [h, w, I, O] into the layout it likes. The binding
is the C interface of oneDNN 3 through `ctypes`.
"""

import ctypes
import functools
import json
import threading
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from importlib import metadata

import jax

from ispf_jax.ops import foreign

FORWARD, BY_INPUT, BY_FILTERS = "forward", "by_input", "by_filters"
_OPERANDS = {FORWARD: "xwy", BY_INPUT: "wyx", BY_FILTERS: "xyw"}
"""Two arguments and the result of each: images x, filters w, outputs y."""

_TARGET = "ispf_jax_onednn_convolution"
_PACKAGES = ("onednn-cpu-gomp", "onednn-cpu-tbb", "onednn-cpu-iomp")
_LIBRARY = "libdnnl.so.3"
_TYPES = {"float32": 3, "bfloat16": 2}  # dnnl_data_type_t
_CPU, _IN_ORDER, _ANY, _DIRECT, _USER_SCRATCHPAD = 1, 1, 1, 1, 1
_TRAINING, _INFERENCE = 64, 96  # dnnl_prop_kind_t
_IMPLEMENTATION, _WEIGHTS_MD, _DIFF_WEIGHTS_MD, _SCRATCHPAD_MD = 8, 131, 132, 136  # dnnl_query_t
_SRC, _DST, _WEIGHTS, _SCRATCHPAD = 1, 17, 33, 80  # DNNL_ARG_*
_DIFF_SRC, _DIFF_WEIGHTS, _DIFF_DST = 129, 161, 145
_ROLES = {
    FORWARD: {"x": _SRC, "w": _WEIGHTS, "y": _DST},
    BY_INPUT: {"x": _DIFF_SRC, "w": _WEIGHTS, "y": _DIFF_DST},
    BY_FILTERS: {"x": _SRC, "w": _DIFF_WEIGHTS, "y": _DIFF_DST},
}
_ALIGNMENT = 64  # bytes
_UNIMPLEMENTED = 3  # dnnl_status_t
_Dims = c_int64 * 12


class NoFastConvolution(Exception):
    """oneDNN computes a task not at all, or by plain loops only."""


class _Version(ctypes.Structure):
    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int)]


class _Argument(ctypes.Structure):
    _fields_ = [("name", c_int), ("memory", c_void_p)]


def convolution(kind, x, w, y, strides, padding):
    """A function that does one of the three convolutions that connect images x, filters w and outputs y.

    Args:
      kind: FORWARD (x, w -> y), BY_INPUT (w, y -> x) or BY_FILTERS (x, y -> w).
      x, w, y: [N, H, W, I], [h, w, I, O], [N, H', W', O]; only their shapes and types are looked at.
    Returns:
      A function of two arrays, in the order given above, or None where oneDNN has no fast one.
    """
    if not x.dtype == w.dtype == y.dtype or x.dtype.name not in _TYPES or library() is None:
        return None
    task = json.dumps([kind, x.dtype.name, x.shape, w.shape, y.shape, strides, padding])
    try:
        _prepare(task.encode())
    except NoFastConvolution:
        return None
    result = {"x": x, "w": w, "y": y}[_OPERANDS[kind][-1]]
    return functools.partial(foreign.call, _TARGET, task, jax.ShapeDtypeStruct(result.shape, result.dtype))


@functools.cache
def library():
    """The loaded library, or None where none with an engine for the CPU was found; `problems` then says why."""
    for path in (*_installed(), _LIBRARY):
        try:
            dnnl = ctypes.CDLL(path)
        except OSError as error:
            problems.append(str(error))
            continue
        engine = c_void_p()
        if dnnl.dnnl_engine_create(byref(engine), _CPU, c_size_t(0)):
            problems.append(f"{path} has no engine for the CPU")
            continue
        dnnl.dnnl_primitive_desc_query_md.restype = c_void_p
        dnnl.dnnl_memory_desc_get_size.restype = c_size_t
        dnnl.dnnl_version.restype = c_void_p
        dnnl.engine = engine
        foreign.register(_TARGET, _run)
        return dnnl
    return None


problems: list[str] = []


def version() -> str:
    """The library's version, such as "3.2.0"."""
    found = _Version.from_address(library().dnnl_version())
    return f"{found.major}.{found.minor}.{found.patch}"


def _installed():
    """The libraries of installed Python packages."""
    for package in _PACKAGES:
        try:
            yield from (str(f.locate()) for f in metadata.files(package) or () if f.name == _LIBRARY)
        except metadata.PackageNotFoundError:
            continue


def _run(task: bytes, *addresses):
    """What XLA calls, from several threads where a program has independent convolutions; each of them uses all cores anyway."""
    with _one_at_a_time:
        _prepare(task)(*addresses)


def _prepare(task):
    """The convolution of a task. None is made a second time; a program from JAX's cache makes them when it first runs."""
    if task not in _convolutions:
        _convolutions[task] = _Convolution(task)
    return _convolutions[task]


_convolutions: dict = {}
_one_at_a_time = threading.Lock()


class _Convolution:
    """oneDNN's convolution of one task, with its scratchpad and the filters in oneDNN's layout."""

    def __init__(self, task):
        kind, dtype, x, w, y, strides, padding = json.loads(task)
        dtype = _TYPES[dtype]
        images, outputs = _image_layout(x, dtype), _image_layout(y, dtype)
        filters, preferred = _filter_layouts(w, dtype)
        geometry = (
            _Dims(*strides),
            _Dims(0, 0),
            _Dims(*(low for low, _ in padding)),
            _Dims(*(high for _, high in padding)),
        )
        description = _description(kind, images, preferred, outputs, geometry)
        preferred = _queried(description, _DIFF_WEIGHTS_MD if kind == BY_FILTERS else _WEIGHTS_MD)
        scratchpad = _queried(description, _SCRATCHPAD_MD)

        self._steps, self._kept = [], []
        self._stream = _made("stream", library().engine, _IN_ORDER)
        handed = {
            letter: _made("memory", layout, library().engine, None)
            for letter, layout in zip("xwy", (images, filters, outputs))
        }
        self._operands = [handed[letter] for letter in _OPERANDS[kind]]
        used = dict(handed)
        reorder = not library().dnnl_memory_desc_equal(preferred, filters)
        if reorder:
            used["w"] = self._memory_of_its_own(preferred)
        if reorder and kind != BY_FILTERS:
            self._add(_reordering(filters, preferred), {_SRC: handed["w"], _DST: used["w"]})
        roles = {_ROLES[kind][letter]: memory for letter, memory in used.items()}
        self._add(description, roles | {_SCRATCHPAD: self._memory_of_its_own(scratchpad)})
        if reorder and kind == BY_FILTERS:
            self._add(_reordering(preferred, filters), {_SRC: used["w"], _DST: handed["w"]})

    def __call__(self, *addresses):
        """Compute, with the addresses of two arguments and the result."""
        dnnl = library()
        for memory, address in zip(self._operands, addresses):
            dnnl.dnnl_memory_set_data_handle(memory, c_void_p(address))
        for primitive, arguments in self._steps:
            _call("primitive_execute", primitive, self._stream, len(arguments), arguments)
        _call("stream_wait", self._stream)

    def _add(self, description, memories):
        arguments = (_Argument * len(memories))(*(_Argument(name, memory) for name, memory in memories.items()))
        self._steps.append((_made("primitive", description), arguments))

    def _memory_of_its_own(self, layout):
        buffer = ctypes.create_string_buffer(library().dnnl_memory_desc_get_size(layout) + _ALIGNMENT)
        self._kept.append(buffer)
        address = -(-ctypes.addressof(buffer) // _ALIGNMENT) * _ALIGNMENT
        return _made("memory", layout, library().engine, c_void_p(address))


def _description(kind, images, filters, outputs, geometry):
    """The description of a convolution; NoFastConvolution where oneDNN has only its reference."""
    attributes = _made("primitive_attr")
    _call("primitive_attr_set_scratchpad_mode", attributes, _USER_SCRATCHPAD)

    def made(direction, *arguments):
        name = f"convolution_{direction}_primitive_desc"
        return _made(name, library().engine, *arguments, attributes)

    use = _INFERENCE if kind == FORWARD else _TRAINING
    description = forward = made("forward", use, _DIRECT, images, filters, None, outputs, *geometry)
    if kind == BY_INPUT:
        description = made("backward_data", _DIRECT, images, filters, outputs, *geometry, forward)
    elif kind == BY_FILTERS:
        description = made("backward_weights", _DIRECT, images, filters, None, outputs, *geometry, forward)
    implementation = ctypes.c_char_p()
    _call("primitive_desc_query", description, _IMPLEMENTATION, 0, byref(implementation))
    if implementation.value.startswith(b"ref"):
        raise NoFastConvolution(implementation.value.decode())
    return description


def _image_layout(shape, dtype):
    """NHWC, which oneDNN describes by the strides of (N, C, H, W)."""
    n, height, width, channels = shape
    strides = _Dims(height * width * channels, 1, width * channels, channels)
    return _made("memory_desc", 4, _Dims(n, channels, height, width), dtype, strides, how="_with_strides")


def _filter_layouts(shape, dtype):
    """HWIO, described by the strides of (O, I, H, W), and the layout that oneDNN may choose."""
    height, width, inputs, features = shape
    dims = _Dims(features, inputs, height, width)
    strides = _Dims(1, features, width * inputs * features, inputs * features)
    plain = _made("memory_desc", 4, dims, dtype, strides, how="_with_strides")
    return plain, _made("memory_desc", 4, dims, dtype, _ANY, how="_with_tag")


def _reordering(source, target):
    engine = library().engine
    return _made("reorder_primitive_desc", source, engine, target, engine, None)


def _queried(description, what):
    return c_void_p(library().dnnl_primitive_desc_query_md(description, what, 0))


def _made(name, *arguments, how=""):
    made = c_void_p()
    _call(f"{name}_create{how}", byref(made), *arguments)
    return made


def _call(name, *arguments):
    status = getattr(library(), f"dnnl_{name}")(*arguments)
    if status == _UNIMPLEMENTED:
        raise NoFastConvolution(name)
    if status:
        raise RuntimeError(f"oneDNN: {name} failed with status {status}")
