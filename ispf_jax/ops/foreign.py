"""Functions of this process as operations of programs that XLA compiles for the CPU, through XLA's foreign function interface.

The interface is a C structure (`xla/ffi/api/c_api.h`, delivered with jaxlib); `ctypes` reads it, so that no compiler is needed. XLA
calls the function with the addresses of its buffers from a thread of its own; a call costs about 3 microseconds.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p

import jax

_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_METADATA = 1  # XLA_FFI_Extension_Metadata


class _Version(Structure):
    _fields_ = [("size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int)]


class _Metadata(Structure):
    _fields_ = [("size", c_size_t), ("version", _Version), ("traits", c_uint32)]


class _Extension(Structure):
    _fields_ = [("size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", POINTER(_Metadata))]


class _ErrorArguments(Structure):
    _fields_ = [("size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int)]


_CREATE_ERROR = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))


class _Api(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("extension", c_void_p),
        ("version", _Version),
        ("internal", c_void_p),
        ("create_error", _CREATE_ERROR),
    ]


class _Buffer(Structure):
    _fields_ = [("size", c_size_t), ("extension", c_void_p), ("dtype", c_int), ("data", c_void_p)]


class _Buffers(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("extension", c_void_p),
        ("count", c_int64),
        ("types", c_void_p),
        ("items", POINTER(POINTER(_Buffer))),
    ]

    def addresses(self):
        return [self.items[i][0].data for i in range(self.count)]


class _Text(Structure):
    _fields_ = [("data", c_void_p), ("length", c_size_t)]


class _Attributes(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("extension", c_void_p),
        ("count", c_int64),
        ("types", c_void_p),
        ("names", c_void_p),
        ("items", POINTER(POINTER(_Text))),
    ]


class _Call(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("extension", POINTER(_Extension)),
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    ]


_HANDLER = ctypes.CFUNCTYPE(c_void_p, POINTER(_Call))
_kept = []  # handlers, which XLA knows by their address only


def register(name: str, function: Callable[..., None]):
    """Make `function(task, *addresses)` callable as `call(name, ...)`: the attribute, then arguments and results.

    The function must be safe to call from several threads at once; what it raises fails the program, as an error of XLA.
    """

    def handler(pointer):
        frame = pointer[0]
        if (
            frame.extension and frame.extension[0].type == _METADATA
        ):  # not a call: XLA asks what interface the handler was written for
            frame.extension[0].metadata[0].version = frame.api[0].version
            return None
        try:
            task = frame.attributes.items[0][0]
            function(ctypes.string_at(task.data, task.length), *frame.arguments.addresses(), *frame.results.addresses())
        except Exception as error:
            message = f"{name}: {error}".encode()
            arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, _INTERNAL)
            return frame.api[0].create_error(ctypes.byref(arguments))
        return None

    _kept.append(_HANDLER(handler))
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
    jax.ffi.register_ffi_target(name, new_capsule(ctypes.cast(_kept[-1], c_void_p), None, None), platform="cpu")


def call(name: str, task: str, result: jax.ShapeDtypeStruct, *arguments: jax.Array) -> jax.Array:
    """The registered function's result, of the given shape and type; `task` tells the function what to do."""
    return jax.ffi.ffi_call(name, result, vmap_method="sequential")(*arguments, task=task)
