"""What models are called, how they look and the order in which they are shown, and the texts of the report."""

import tomllib
import zlib
from importlib import resources
from typing import NamedTuple

from ispf_jax.runtime.rows import model_order

__all__ = ["MODELS", "TEXTS", "Model", "model_name", "model_order", "read_text", "shown"]


def read_text(name: str) -> str:
    """A file of this package."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


TEXTS = tomllib.loads(read_text("texts.toml"))
"""What the report says to its readers, by section and name."""


class Model(NamedTuple):
    """How the report shows a method: its name, colour and marker, and how a reference was made."""

    name: str
    color: str
    marker: str
    note: str = ""


MODELS = {method: Model(*look) for method, look in TEXTS["models"].items()}
"""Colours are those of Okabe & Ito and of P. Tol, distinct for colour-blind readers; markers work without colour."""

_OWN = (("#332288", "*"), ("#117733", "h"), ("#88CCEE", "<"), ("#661100", ">"), ("#DDCC77", "8"))
"""Colour and marker of methods that users added; the name chooses, so a method looks the same in all pictures."""


def shown(model: str) -> Model:
    """How a method ("ispf") or model ("ispf/dfq") is shown."""
    method = model.partition("/")[0]
    return MODELS.get(method) or Model(method, *_OWN[zlib.crc32(method.encode()) % len(_OWN)])


def model_name(model: str, bases: bool = False) -> str:
    """How the page calls a model, with its base if `bases`."""
    base = model.partition("/")[2]
    return shown(model).name + (f" ({base})" if bases and base else "")
