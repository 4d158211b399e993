"""Pickles as data: read by an interpreter that calls nothing but the functions it is given; and opcodes to write them.

A pickle is a program for a stack machine, and may name any function of any module. Here a name stays a name (`Symbol`).
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_INDEX = 16 << 20  # bytes of the part of a file that lists its tensors
_OPCODES, _ARGUMENTS, _NAME = 300_000, 16, 200


@dataclass(eq=False, repr=False)
class Symbol:
    """A class or function by its "module name", or an object made with it and what the pickle says of its state."""

    name: str
    state: Any = None

    def __str__(self) -> str:
        return self.name.replace(" ", ".")


def load(data: bytes | io.BytesIO, functions: Mapping[str, Callable], refer: Callable[[Any], Any]) -> Any:
    """What a pickle describes: dictionaries, lists, tuples, plain values, and `Symbol`s for everything else.

    Args:
      data: the pickle, or a stream, which is left at its end.
      functions: those that may be called, by "module name"; they must expect up to 16 arguments of any type.
      refer: makes an object of the identity of something outside the pickle.

    Raises:
      ValueError: the pickle is too large or uses an unknown opcode; a damaged one can raise any other Exception.
    """
    if not isinstance(data, io.BytesIO):
        data = io.BytesIO(data)
    if len(data.getbuffer()) > MAX_INDEX:
        raise ValueError("it has a pickle that is too large")

    def call(items):
        name = items[0].name if isinstance(items[0], Symbol) else ""
        if name not in functions:
            return Symbol(name)
        if not isinstance(items[1], tuple) or len(items[1]) > _ARGUMENTS:  # they would be copied for every call
            raise ValueError(f"it calls {name} with too many arguments")
        return functions[name](*items[1])

    special = {"REDUCE": call, "NEWOBJ": call, "NEWOBJ_EX": call, "BINPERSID": lambda items: refer(items[0])}
    operations, stack, marks, memo = _OPERATIONS | special, [], [], {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name, before = opcode.name, opcode.stack_before
        if count == _OPCODES:
            raise ValueError("it has a pickle that is too long")
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in operations:
            marked = pickletools.markobject in before
            start = marks.pop() - before.index(pickletools.markobject) if marked else len(stack) - len(before)
            items = stack[max(start, 0) :]
            del stack[max(start, 0) :]
            stack += [operations[name](items)] * len(opcode.stack_after)
        elif opcode.arg and not before:
            stack += [Symbol(str(argument)) if name == "GLOBAL" else argument] * len(opcode.stack_after)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has a pickle with the opcode {name}, which is not known here")
    raise EOFError("it has a pickle without an end")


def named(name: str) -> bytes:
    """Opcodes for the class or function "module name"."""
    return pickle.GLOBAL + (name.replace(" ", "\n") + "\n").encode()


def literal(value: str | int) -> bytes:
    """Opcodes for text, or a whole number below 2**31."""
    if isinstance(value, int):
        return pickle.BININT + struct.pack("<i", value)
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def tuple_of(items: Iterable[bytes]) -> bytes:
    """Opcodes for a tuple of what `items` are the opcodes of."""
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _enter(container, items):
    """Puts items into a list, or keys and values by turns into a dictionary; anything else is left as it is.

    Keys other than text are replaced: nobody needs them, and their hashes could be made to collide.
    """
    if isinstance(container, list):
        container.extend(items)
    elif isinstance(container, dict):
        container.update((k if isinstance(k, str) else Symbol("key"), v) for k, v in zip(items[::2], items[1::2]))
    return container


def _set_state(made, state):
    if isinstance(made, Symbol):
        made.state = state
    return made


_OPERATIONS: dict[str, Callable[[list], Any]] = {
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"), tuple),
    **dict.fromkeys(("EMPTY_LIST", "LIST", "EMPTY_SET"), list),
    **dict.fromkeys(("EMPTY_DICT", "DICT"), lambda items: _enter({}, items)),
    **dict.fromkeys(
        ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"), lambda items: _enter(items[0], items[1:])
    ),
    **dict.fromkeys(("NONE", "POP", "POP_MARK"), lambda items: None),
    **{"NEWTRUE": lambda items: True, "NEWFALSE": lambda items: False},
    **{"DUP": lambda items: items[0], "BUILD": lambda items: _set_state(*items)},
    "STACK_GLOBAL": lambda items: Symbol(" ".join(item[:_NAME] for item in items)),  # the same text may come again
}
