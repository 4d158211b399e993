"""Python functions as operations of programs that XLA compiles for the CPU, by XLA's foreign function interface (FFI).

The structures are those of `xla/ffi/api/c_api.h`, which comes with jaxlib, as far as they are used here; `ctypes` reads
them, so no compiler is needed. XLA calls the function from one of its threads with the addresses of its buffers. A call
costs about 3 microseconds.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p

import jax

VERSION = (0, 3)  # of the interface that the structures follow; a newer XLA says whether it still supports it
_INTERNAL = 13  # XLA_FFI_Error_Code_INTERNAL
_METADATA = 1  # XLA_FFI_Extension_Metadata


def structure(**fields) -> type[ctypes.Structure]:
    """The type of a C structure."""
    return type("Structure", (ctypes.Structure,), {"_fields_": list(fields.items())})


def _sized(**fields):
    """Most structures begin with their size and a pointer to extensions."""
    return structure(size=c_size_t, extension=c_void_p, **fields)


_Version = _sized(major=c_int, minor=c_int)
_Metadata = structure(size=c_size_t, version=_Version, traits=c_uint32)
_Extension = structure(size=c_size_t, type=c_int, next=c_void_p, metadata=POINTER(_Metadata))
_Error = _sized(message=c_char_p, code=c_int)
_Api = _sized(version=_Version, internal=c_void_p, create_error=ctypes.CFUNCTYPE(c_void_p, POINTER(_Error)))
_Buffer = _sized(dtype=c_int, data=c_void_p)
_Buffers = _sized(count=c_int64, types=c_void_p, items=POINTER(POINTER(_Buffer)))
_Text = structure(data=c_void_p, length=c_size_t)
_Attributes = _sized(count=c_int64, types=c_void_p, names=c_void_p, items=POINTER(POINTER(_Text)))
_Call = _sized(
    api=POINTER(_Api), context=c_void_p, stage=c_int, arguments=_Buffers, results=_Buffers, attributes=_Attributes
)
_kept = {}  # handlers by name; XLA knows their addresses only


def register(name: str, function: Callable[..., None]):
    """Make `jax.ffi.ffi_call(name, ...)(*arrays, task="...")` call `function(task, *addresses)`.

    The addresses are those of the arrays and the result.

    Call this after JAX has started its backend for the CPU. Before, a refused function would prevent the start.

    Args:
      name: of one function; another one of the same name is ignored.
      function: safe to call from several threads; what it raises becomes an error of the program.

    Raises:
      RuntimeError: XLA does not support `VERSION` of the interface.
    """

    @ctypes.CFUNCTYPE(c_void_p, POINTER(_Call))
    def handler(pointer):
        frame = pointer[0]
        extension = _Extension.from_address(frame.extension) if frame.extension else None
        if extension and extension.type == _METADATA:  # not a call: XLA asks for the version
            version = extension.metadata[0].version
            version.major, version.minor = VERSION
            return None
        try:
            task = frame.attributes.items[0][0]
            addresses = [b.items[i][0].data for b in (frame.arguments, frame.results) for i in range(b.count)]
            function(ctypes.string_at(task.data, task.length), *addresses)
        except Exception as error:
            error = _Error(ctypes.sizeof(_Error), None, f"{name}: {error}".encode(), _INTERNAL)
            return frame.api[0].create_error(error)
        return None

    if _kept.setdefault(name, handler) is handler:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
