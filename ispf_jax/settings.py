"""Settings as frozen dataclasses that check themselves: every key is declared once, with default, range and meaning.

In the texts [paper] is Appendix C of "Toward Efficient Data-Free Unlearning" (AAAI 2025, arXiv 2412.13790), [program]
the authors' PyTorch program, where the paper is silent or differs.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from ispf_jax.errors import ArgumentError

Allowed = Iterable[str | int] | Callable[[], Iterable[str | int]]


def key(default: Any, *, above=-math.inf, least=-math.inf, below=math.inf, among: Allowed | None = None, at="") -> Any:
    """A field of a settings class: its default and range (`least` <= value, `above` < value < `below`).

    Its meaning stands in the docstring of the class, under Attributes.

    Args:
      among: the values (of a tuple: the elements) that are allowed; a function where a table can grow.
      at: the configuration key, where it is not the field's name within its group.
    """
    limits = {"above": above, "least": least, "below": below, "among": among, "at": at}
    return dataclasses.field(default=default, metadata=limits)


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


def _checked(field, value):
    """The value of a field in the field's type, within its range."""
    name, limits = field.name, field.metadata
    if dataclasses.is_dataclass(field.type):
        if not isinstance(value, field.type):
            raise ArgumentError(name, f"={value!r} must be a {field.type.__name__}.")
        return value
    if isinstance(field.type, type):
        values = [(name, value := converted(field.type, name, value))]
    else:  # tuple[int, ...]
        value = _elements(field.type.__args__[0], name, value)
        values = [(f"{name}[{i}]", element) for i, element in enumerate(value)]
    if limits.get("among") is not None:
        allowed = tuple(limits["among"]() if callable(limits["among"]) else limits["among"])
        for element in (v for _, v in values):
            if element not in allowed:
                raise ArgumentError(name, f"={element!r} is unknown; allowed are {', '.join(map(str, allowed))}.")
        if len(set(values)) > len({v for _, v in values}):
            raise ArgumentError(name, f"={','.join(map(str, value))!r} names one twice; name every one once.")
    elif limits:
        for label, number in values:
            _check_range(label, number, limits)
    return value


def converted(kind: type, name: str, value: Any):
    """`value` as an int, float, bool or text; ArgumentError if it is something else (True is no number, 1.5 no int)."""
    kinds = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        int: number and isinstance(value, int),
        float: number and math.isfinite(value),
        bool: isinstance(value, bool),
        str: isinstance(value, str),
    }
    if not fits[kind]:
        raise ArgumentError(name, f"={value!r} must be {kinds[kind]}.")
    return kind(value)


def _elements(kind, name, value) -> tuple:
    """A tuple out of text with commas, one value or a sequence."""
    if isinstance(value, str):
        words = [word.strip() for word in value.split(",") if word.strip()]
        try:
            return tuple(converted(kind, name, kind(word)) for word in words)
        except ValueError:
            kinds = {int: "whole numbers", float: "numbers", str: "names"}[kind]
            raise ArgumentError(name, f"={value!r} must be {kinds} separated by commas.") from None
    if isinstance(value, (int, float)):
        value = (value,)
    if not isinstance(value, (tuple, list)):
        raise ArgumentError(name, f"={value!r} must be a sequence, or text with commas.")
    return tuple(converted(kind, name, element) for element in value)


def _check_range(label, number, limits):
    if isinstance(number, (str, bool)):
        return
    least, above, below = limits["least"], limits["above"], limits["below"]
    if least <= number and above < number < below:
        return
    if least == 0 and below == math.inf:
        raise ArgumentError(label, f"={number} must not be negative.")
    words = [f"at least {least}"] * math.isfinite(least) + [f"greater than {above}"] * math.isfinite(above)
    words += [f"less than {below}"] * math.isfinite(below)
    raise ArgumentError(label, f"={number} must be {' and '.join(words)}.")
