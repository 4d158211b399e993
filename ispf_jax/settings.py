"""Settings as frozen dataclasses that check themselves: every key is declared once, with default, range and meaning.

In the texts [paper] is Appendix C of "Toward Efficient Data-Free Unlearning" (AAAI 2025, arXiv 2412.13790), [program]
the authors' PyTorch program, where the paper is silent or differs.
"""

import dataclasses
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

from ispf_jax.errors import ArgumentError, short_repr

Allowed = Iterable[str | int] | Callable[[], Iterable[str | int]]

_KINDS = {
    int: (Integral, "a whole number"),
    float: (Real, "a finite number in the range of float32"),
    bool: (bool, "True or False"),
    str: (str, "text"),
}
_SMALLEST, _LARGEST = 1.2e-38, 3.4e38  # of float32
_MOST_ELEMENTS = 10_000
_NO_TEXT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, line ends, surrogates


def key(default: Any, *, among: Allowed | None = None, at: str = "", **marks) -> Any:
    """A field of a settings class: its default, range and marks.

    Its meaning stands in the docstring of the class, under Attributes.

    Args:
      among: the values (of a tuple: the elements) that are allowed; a function where a table can grow.
      at: the configuration key, where it is not the field's name within its group.
      marks: `least`, `above`, `most`, `below`: the range; `path=True`: names a file or directory; `free=True`: may
        change between two starts in one work directory, because at most it affects rounding, and every result row
        names it.
    """
    known = {"least": -math.inf, "above": -math.inf, "most": math.inf, "below": math.inf, "path": False, "free": False}
    return dataclasses.field(default=default, metadata=known | {"among": among, "at": at} | marks)


def meanings(cls: type) -> dict[str, str]:
    """The meaning of every field of a settings class, from its docstring."""
    lines = inspect.getdoc(cls).partition("Attributes:\n")[2].splitlines()
    entries = re.split(r"\n(?=  \w+: )", "\n" + "\n".join(lines))[1:]
    split = (" ".join(entry.split()).partition(": ") for entry in entries)
    return {name: text for name, _, text in split}


class Settings:
    """Base of the settings classes: values are converted to the fields' types and checked when an object is made.

    Raises:
      ArgumentError: a value has a wrong type or is out of range.
    """

    __dataclass_fields__: ClassVar[dict]

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        self.check()

    def check(self):
        """Conditions that concern several values."""

    @classmethod
    def of(cls, config: Any, name: str = "config") -> Self:
        """The argument `config` of a function: settings of this class, or None for the defaults."""
        if config is not None and not isinstance(config, cls):
            raise ArgumentError(name, f"={short_repr(config)} must be settings, {cls.__name__}(...).")
        return cls() if config is None else config


def _checked(field, value):
    """The value of a field in the field's type, within its range."""
    name, limits = field.name, field.metadata
    if dataclasses.is_dataclass(field.type):
        return field.type.of(value, name)
    if isinstance(field.type, type):
        values = [(name, value := converted(field.type, name, value))]
    else:  # tuple[int, ...]
        value = _elements(field.type.__args__[0], name, value)
        values = [(f"{name}[{i}]", element) for i, element in enumerate(value)]
    if limits.get("path"):
        check_path(name, value)
    if limits.get("among") is not None:
        allowed = tuple(limits["among"]() if callable(limits["among"]) else limits["among"])
        for _, element in values:
            if element not in allowed:
                raise ArgumentError(
                    name, f"={short_repr(element)} is unknown; allowed are {', '.join(map(str, allowed))}."
                )
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ArgumentError(name, f"={short_repr(joined(value))} names one twice; name every one once.")
    elif limits:
        for label, number in values:
            _check_range(label, number, limits)
    return value


def converted(kind: type, name: str, value: Any) -> Any:
    """`value` as an int, float, bool or text; ArgumentError if it is something else (True is no number, 1.5 no int)."""
    base, words = _KINDS[kind]
    fits = isinstance(value, base) and isinstance(value, bool) == (kind is bool)
    if fits and kind is str and _NO_TEXT.search(value):
        fits, words = False, "text in UTF-8 without control characters"
    if fits and kind is float:
        fits = value == 0 or _SMALLEST <= abs(value) <= _LARGEST
    if not fits:
        raise ArgumentError(name, f"={short_repr(value)} must be {words}.")
    return kind(value)


def check_path(name: str, value: str):
    """ArgumentError if no file can have this name."""
    if os.path.expanduser(value).startswith("~"):
        raise ArgumentError(name, f"={short_repr(value)} begins with ~ and a user that this machine does not have.")
    if len(value.encode()) > 4000 or any(len(part.encode()) > 255 for part in value.split("/")):
        raise ArgumentError(name, f"={short_repr(value)} is too long for the name of a file.")


def joined(values: Iterable) -> str:
    """Elements of a tuple as text with commas, in which they can be written."""
    return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)


def _elements(kind, name, value) -> tuple:
    """A tuple out of text with commas, one number or a sequence."""
    if isinstance(value, str):
        try:
            value = [kind(word.strip()) for word in value.split(",") if word.strip()]
        except ValueError:
            kinds = {int: "whole numbers", float: "numbers", str: "names"}[kind]
            raise ArgumentError(name, f"={short_repr(value)} must be {kinds} separated by commas.") from None
    value = [value] if isinstance(value, Real) else value
    if not isinstance(value, (tuple, list)):
        raise ArgumentError(name, f"={short_repr(value)} must be a list, a tuple, or text with commas.")
    if len(value) > _MOST_ELEMENTS:
        raise ArgumentError(name, f" has {len(value):,} elements; at most {_MOST_ELEMENTS:,} are possible.")
    return tuple(converted(kind, f"{name}[{i}]", element) for i, element in enumerate(value))


def _check_range(label, number, limits):
    if isinstance(number, (str, bool)):
        return
    limits = {name: limits[name] for name in ("least", "above", "most", "below")}
    if isinstance(number, int):
        limits["below"] = min(limits["below"], 2**32)
    least, above, most, below = limits.values()
    if least <= number <= most and above < number < below:
        return
    if least == 0 and number < 0:
        raise ArgumentError(label, f"={short_repr(number)} must not be negative.")
    words = zip(("at least", "greater than", "at most", "less than"), limits.values())
    allowed = " and ".join(f"{word} {limit}" for word, limit in words if math.isfinite(limit))
    raise ArgumentError(label, f"={short_repr(number)} must be {allowed}.")
