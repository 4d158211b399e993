"""Direct convolutions of oneDNN 3 on the CPU, from the extra `onednn` or the system's libdnnl.so.3.

XLA's own convolutions reach about 60 % of their rate. Images stay [N, H, W, C]; filters [h, w, I, O] are reordered to
the layout that oneDNN prefers. The binding is oneDNN's C interface through `ctypes`, with the numbers of its headers.
"""

import ctypes
import functools
import json
import logging
import math
import threading
from ctypes import byref, c_int, c_int64, c_size_t, c_void_p
from importlib import metadata

import jax

from ispf_jax.ops import foreign
from ispf_jax.ops.task import Task

_PACKAGE, _LIBRARY = "onednn-cpu-gomp", "libdnnl.so.3"
_TARGET = "ispf_jax_onednn_convolution"
_TYPES = {"float32": 3, "bfloat16": 2}  # dnnl_data_type_t
_NCHW, _OIHW = (0, 3, 1, 2), (3, 2, 0, 1)  # axes of our arrays in oneDNN's order
_OPERANDS = {  # arguments and result: images x, filters w and outputs y, by their DNNL_ARG_*
    "forward": {"x": 1, "w": 33, "y": 17},
    "input_gradient": {"y": 145, "w": 33, "x": 129},
    "filter_gradient": {"x": 1, "y": 145, "w": 161},
}
_FROM, _TO, _SCRATCHPAD = 1, 17, 80  # DNNL_ARG_*
_CPU, _IN_ORDER, _ANY, _DIRECT, _USER_SCRATCHPAD = 1, 1, 1, 1, 1
_TRAINING, _INFERENCE = 64, 96  # dnnl_prop_kind_t
_NAME, _SCRATCHPAD_LAYOUT = 8, 136  # dnnl_query_t
_FILTER_LAYOUT = {"forward": 131, "input_gradient": 131, "filter_gradient": 132}  # dnnl_query_t
_ALLOCATE = c_void_p(-1)  # DNNL_MEMORY_ALLOCATE
_UNIMPLEMENTED = 3  # dnnl_status_t
_Dims = c_int64 * 12
_Argument = foreign.structure(name=c_int, memory=c_void_p)
_one_at_a_time = threading.Lock()


def problem() -> str:
    """Why the library cannot be loaded; empty if it can."""
    return _loaded()[1]


def version() -> str:
    """The library's version, such as "3.2.0"."""
    return "{}.{}.{}".format(*(c_int * 3).from_address(_loaded()[0].dnnl_version()))


def convolution(kind: str, task: Task):
    """A function of two arrays: `forward`, `input_gradient` or `filter_gradient`; None where oneDNN has no fast one."""
    if task.dtype not in _TYPES:
        return None
    shapes = {"x": task.images, "w": task.filters, "y": task.outputs}
    text = json.dumps([kind, shapes, task.strides, task.padding, task.dtype])
    try:
        _prepared(text.encode())
    except NotImplementedError:
        return None
    *_, result = (jax.ShapeDtypeStruct(shapes[name], task.dtype) for name in _OPERANDS[kind])
    return functools.partial(jax.ffi.ffi_call(_TARGET, result, vmap_method="sequential"), task=text)


@functools.cache
def _loaded():
    """The library, or None; and why it cannot be loaded."""
    installed = [f.locate() for d in metadata.distributions(name=_PACKAGE) for f in d.files or () if f.name == _LIBRARY]
    problems = []
    for path in (*map(str, installed), _LIBRARY):
        try:
            dnnl, engine = ctypes.CDLL(path), c_void_p()
            if dnnl.dnnl_engine_create(byref(engine), _CPU, c_size_t(0)):
                raise OSError(f"{path} has no engine for the CPU")
        except OSError as error:
            problems.append(str(error))
            continue
        dnnl.engine = engine
        dnnl.dnnl_primitive_desc_query_md.restype = dnnl.dnnl_version.restype = c_void_p
        return dnnl, ""
    return None, "; ".join(problems)


@functools.cache
def available() -> bool:
    """Whether programs can use these convolutions; to be called after JAX has started its backend for the CPU."""
    if problem():
        return False
    try:
        foreign.register(_TARGET, _run)
    except RuntimeError as error:
        logging.getLogger(__name__).warning("oneDNN's convolutions cannot be used, XLA's are used instead: %s", error)
        return False
    return True


def _run(task: bytes, *addresses):
    """XLA calls this, from several threads where convolutions are independent; each of them uses all cores anyway."""
    with _one_at_a_time:
        _prepared(task)(*addresses)


@functools.cache
def _prepared(task: bytes):
    """A function that computes a task, given the addresses of two arguments and the result.

    It is made when a program is traced, or, for a program from JAX's compilation cache, when it first runs.

    Raises:
      NotImplementedError: oneDNN has no convolution for the task, or only its reference of plain loops.
    """
    kind, shapes, strides, padding, dtype = json.loads(task)
    layouts = {name: _layout(shape, _OIHW if name == "w" else _NCHW, dtype) for name, shape in shapes.items()}
    geometry = [_Dims(*values) for values in (strides, (0, 0), *zip(*padding))]  # (0, 0): no dilation
    convolution = _description(kind, layouts["x"], _layout(shapes["w"], _OIHW, dtype, _ANY), layouts["y"], geometry)
    preferred, scratchpad = (_queried(convolution, what) for what in (_FILTER_LAYOUT[kind], _SCRATCHPAD_LAYOUT))
    operands = {name: _memory(layout) for name, layout in layouts.items()}
    arguments = {role: operands[name] for name, role in _OPERANDS[kind].items()}
    arguments[_SCRATCHPAD] = _memory(scratchpad, _ALLOCATE)
    steps, last = [], kind == "filter_gradient"
    if not _loaded()[0].dnnl_memory_desc_equal(preferred, layouts["w"]):
        arguments[_OPERANDS[kind]["w"]] = reordered = _memory(preferred, _ALLOCATE)
        ends = [(layouts["w"], operands["w"]), (preferred, reordered)]
        (source, origin), (target, destination) = reversed(ends) if last else ends
        engine = _loaded()[0].engine
        reorder = _created("reorder_primitive_desc_create", source, engine, target, engine, None)
        steps.append(_step(reorder, {_FROM: origin, _TO: destination}))
    steps.insert(0 if last else 1, _step(convolution, arguments))
    stream = _created("stream_create", _loaded()[0].engine, _IN_ORDER)

    def compute(*addresses):
        for name, address in zip(_OPERANDS[kind], addresses):
            _call("memory_set_data_handle", operands[name], c_void_p(address))
        for primitive, arguments in steps:
            _call("primitive_execute", primitive, stream, len(arguments), arguments)
        _call("stream_wait", stream)

    return compute


def _description(kind, x, w, y, geometry):
    """oneDNN's description of a convolution between three layouts."""
    attributes, name = _created("primitive_attr_create"), ctypes.c_char_p()
    _call("primitive_attr_set_scratchpad_mode", attributes, _USER_SCRATCHPAD)

    def described(direction, *arguments):
        create = f"convolution_{direction}_primitive_desc_create"
        return _created(create, _loaded()[0].engine, *arguments, attributes)

    use = _INFERENCE if kind == "forward" else _TRAINING
    description = forward = described("forward", use, _DIRECT, x, w, None, y, *geometry)
    if kind == "input_gradient":
        description = described("backward_data", _DIRECT, x, w, y, *geometry, forward)
    elif kind == "filter_gradient":
        description = described("backward_weights", _DIRECT, x, w, None, y, *geometry, forward)
    _call("primitive_desc_query", description, _NAME, 0, byref(name))
    if name.value.startswith(b"ref"):
        raise NotImplementedError(name.value)
    return description


def _layout(shape, axes, dtype, tag=None):
    """The layout of a contiguous array, whose axes oneDNN takes in this order, or of a tag."""
    dims = _Dims(*(shape[axis] for axis in axes))
    if tag is not None:
        return _created("memory_desc_create_with_tag", 4, dims, _TYPES[dtype], tag)
    strides = _Dims(*(math.prod(shape[axis + 1 :]) for axis in axes))
    return _created("memory_desc_create_with_strides", 4, dims, _TYPES[dtype], strides)


def _memory(layout, address=None):
    return _created("memory_create", layout, _loaded()[0].engine, address)


def _step(description, memories):
    """A primitive and its arguments."""
    return _created("primitive_create", description), (_Argument * len(memories))(*memories.items())


def _queried(description, what):
    return c_void_p(_loaded()[0].dnnl_primitive_desc_query_md(description, what, 0))


def _created(function, *arguments):
    created = c_void_p()
    _call(function, byref(created), *arguments)
    return created


def _call(function, *arguments):
    if status := getattr(_loaded()[0], f"dnnl_{function}")(*arguments):
        error = NotImplementedError if status == _UNIMPLEMENTED else RuntimeError
        raise error(f"oneDNN: {function} failed with status {status}")
