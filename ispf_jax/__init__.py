"""Data-free class unlearning with Inhibited Synthesis and PostFilter (ISPF, AAAI 2025) in JAX.

    teacher = ispf_jax.load("model.pt", network="resnet18", image_shape=(32, 32, 3))
    out = ispf_jax.unlearn(teacher, forget=[3])
    out.classifier.save("unlearned.pt")

Names are imported when they are first used: importing the package does not start JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ispf_jax import data, filters
    from ispf_jax.classifier import Classifier
    from ispf_jax.data import ArrayDataset, ImageData
    from ispf_jax.errors import ArgumentError, StorageError, UserError
    from ispf_jax.evaluate.audit import audit
    from ispf_jax.evaluate.settings import Audit
    from ispf_jax.files import inspect, load
    from ispf_jax.hyperparameters import Distill
    from ispf_jax.methods import METHODS, Method
    from ispf_jax.runtime.interruption import Interrupted
    from ispf_jax.runtime.loop import RunOptions
    from ispf_jax.training import Train, train
    from ispf_jax.unlearning import Unlearned, unlearn

__version__ = "0.2.0"

_HOMES = {
    "classifier": ("Classifier",),
    "data": ("ArrayDataset", "ImageData"),
    "errors": ("ArgumentError", "StorageError", "UserError"),
    "evaluate.audit": ("audit",),
    "evaluate.settings": ("Audit",),
    "files": ("inspect", "load"),
    "hyperparameters": ("Distill",),
    "methods": ("METHODS", "Method"),
    "runtime.interruption": ("Interrupted",),
    "runtime.loop": ("RunOptions",),
    "training": ("Train", "train"),
    "unlearning": ("Unlearned", "unlearn"),
}
_MODULES = ("data", "filters")
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "ArgumentError",
    "ArrayDataset",
    "Audit",
    "Classifier",
    "Distill",
    "ImageData",
    "Interrupted",
    "Method",
    "RunOptions",
    "StorageError",
    "Train",
    "Unlearned",
    "UserError",
    "audit",
    "data",
    "filters",
    "inspect",
    "load",
    "train",
    "unlearn",
]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
