"""What the program's own files must hold, and the one way to read them.

The types of a record (a dataclass or named tuple) are its schema. A file that does not fit it is set aside: renamed,
never deleted, with a warning; its reader goes on as if it were not there.
"""

import errno
import json
import logging
import math
import os
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ispf_jax.errors import StorageError, UserError
from ispf_jax.runtime.atomic import NON_FINITE, atomic_write_bytes
from ispf_jax.runtime.guard import read_bounded

_log = logging.getLogger(__name__)

SMALL, LARGE = 64 << 20, 512 << 20
"""Bytes at most of one record, and of a file of many lines: 1,000 classes and 10**5 epochs need less."""

_LONGEST = 4000  # characters of a text

_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "an object",
}


@dataclass(frozen=True)
class Rule:
    """A condition on a value, and what it demands in words."""

    holds: Callable[[Any], bool]
    words: str


def between(low: float, high: float) -> Rule:
    """The rule that a number lies in a range, which NaN never does."""
    return Rule(lambda value: low <= value <= high, f"from {low:g} to {high:g}")


Finite = Annotated[float, Rule(math.isfinite, "finite")]
Amount = Annotated[float, between(0, 1e300)]
Percent = Annotated[float, between(0, 100)]
Count = Annotated[int, between(0, 2**62)]
Seed = Annotated[int, between(0, 2**32 - 1)]
Word = Annotated[
    str, Rule(lambda text: text.isprintable() and len(text) <= 1000, "one line of at most 1000 characters")
]
Forget = Annotated[str, Rule(re.compile(r"[0-9]{1,9}(,[0-9]{1,9})*").fullmatch, "class ids with commas")]
Scalar = bool | int | float | str | None
Setting = Scalar | list[Scalar]

Record = TypeVar("Record")


class Misfit(ValueError):
    """A value does not fit its schema; the text continues a sentence that begins with the name of the file."""

    def __init__(self, name: str, value: Any, words: str):
        super().__init__(f"{name}={reprlib.repr(value)} must be {words}")


def fit(kind: Any, value: Any, name: str = "content") -> Any:
    """A value of parsed JSON as `kind`: a record, scalar or literal, a list, dict or union of these, or one with rules.

    Names that a record does not know are left out; "nan", "inf" and "-inf" are numbers where a number is wanted.

    Raises:
      Misfit: a name is missing, or a value is of another type or breaks a rule.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found = fit(args[0], value, name)
        for rule in args[1:]:
            if not rule.holds(found):
                raise Misfit(name, value, rule.words)
        return found
    if origin in (Union, UnionType):
        return _either(args, value, name)
    if origin is Literal:
        kind = type(args[0])
        if value not in args:
            raise Misfit(name, value, f"one of {', '.join(map(str, args))}")
    if origin is list and isinstance(value, list):
        return [fit(args[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {fit(str, key, name): fit(args[1], item, f"{name}.{key}") for key, item in value.items()}
    if hasattr(kind, "__annotations__") and isinstance(value, dict):
        types = _types(kind)
        held = {key: fit(types[key], item, key) for key, item in value.items() if key in types}
        try:
            return kind(**held)
        except TypeError as error:  # one is missing
            raise ValueError(str(error).partition(") ")[2]) from None
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        value = NON_FINITE.get(value, value) if isinstance(value, str) else _float(value)
    if type(value) is not kind:
        raise Misfit(name, value, _KINDS.get(origin or kind, "null" if kind is type(None) else "an object"))
    if kind is str:
        if len(value) > _LONGEST:
            raise Misfit(name, value, f"text of at most {_LONGEST} characters")
        value.encode()  # a ValueError for half of a surrogate pair, which nothing could write
    return value


def _float(number: int) -> float:
    return float(number) if abs(number) < 1 << 1000 else math.inf


_types = cache(lambda kind: get_type_hints(kind, include_extras=True))


def _either(kinds, value, name):
    errors = []
    for kind in kinds:
        try:
            return fit(kind, value, name)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def read_json(path: Path, parse: Callable[[Any], Record], limit: int = SMALL) -> Record | None:
    """`parse` of the content of a JSON file; None if there is none, or it was damaged and has been set aside.

    Raises:
      UserError: the file cannot be reached at the moment.
    """
    if not os.path.exists(path):
        return None
    try:
        return parse(json.loads(read_bounded(path, limit)))
    except (ValueError, RecursionError, OverflowError) as error:
        set_aside(path, error)
        return None


def read_text(path: Path, pattern: str) -> str:
    """A text that matches a pattern as a whole; empty if there is none, or it was damaged and has been set aside."""
    if not os.path.exists(path):
        return ""
    try:
        text = read_bounded(path, 1 << 20).decode()
        if not re.fullmatch(pattern, text):
            raise ValueError("not what is written there")
        return text
    except ValueError as error:
        set_aside(path, error)
        return ""


def read_lines(path: Path, parse: Callable[[Any], Record], sort: Callable[[list], list] = list) -> list[Record]:
    """`parse` of every line of a file of JSON lines; none if there is no file.

    A last line that was cut short is left out. Where others do not fit, or `sort` of all leaves some out, the file is
    set aside and written again with those that fit.
    """
    if not os.path.exists(path):
        return []
    try:
        whole, _, rest = read_bounded(path, LARGE).rpartition(b"\n")
    except UserError as error:
        set_aside(path, error)
        return []
    lines = whole.split(b"\n") if whole else []
    read = [_line(line, parse) for line in lines]
    good = sort([record for record in read if record is not None])
    if len(good) < len(lines):
        set_aside(path, ValueError(f"{len(lines) - len(good)} of {len(lines)} lines do not fit"))
        these = set(map(id, good))
        kept = [line for line, record in zip(lines, read) if id(record) in these]
        atomic_write_bytes(path, b"".join(line + b"\n" for line in kept))
    last = _line(rest, parse)
    return good if last is None else sort([*good, last])


def _line(line, parse):
    try:
        return parse(json.loads(line))
    except (ValueError, RecursionError, OverflowError):
        return None


def set_aside(path: Path, error: Exception | str):
    """Rename a file or directory that does not fit to "<name>.damaged", which nothing reads, and warn.

    Raises:
      UserError: it cannot be reached at the moment, which is no damage.
      StorageError: it cannot be renamed.
    """
    cause = error.__cause__ if isinstance(error, UserError) else None
    if isinstance(error, UserError) and isinstance(cause, OSError) and cause.errno not in (None, errno.EISDIR):
        raise error
    aside = next(name for name in _names_aside(path) if not os.path.lexists(name))
    try:
        os.replace(path, aside)
    except FileNotFoundError:  # another process was faster
        return
    except OSError as failed:
        raise StorageError(f"{path} is damaged, and cannot be renamed ({failed.strerror}); remove it.") from failed
    text = "%s is damaged (%s); it is set aside as %s, and made again where it can be"
    _log.warning(text, path, reason(path, error), aside.name)


def reason(path: Path, error: Exception | str) -> str:
    """What is wrong with a file, in words for a sentence that names it."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return "not valid JSON"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return " ".join((str(error) or type(error).__name__).removeprefix(str(path)).split())[:300]


def _names_aside(path):
    yield path.with_name(f"{path.name}.damaged")
    yield from (path.with_name(f"{path.name}.{number}.damaged") for number in count(2))


def found_aside(directory: Path) -> list[str]:
    """All that was set aside below a directory, now or earlier, relative to it; checkpoints are not entered."""
    found = []
    for folder, inner, files in os.walk(directory):
        found += [
            os.path.relpath(os.path.join(folder, name), directory) for name in (*inner, *files) if _is_aside(name)
        ]
        steps = os.path.basename(folder) == "checkpoints"
        inner[:] = [] if steps else [name for name in inner if name != "tensorboard" and not _is_aside(name)]
    return sorted(found)


def _is_aside(name):
    return name.endswith(".damaged")
