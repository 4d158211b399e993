"""Networks: the classifiers by name, and the generator."""

import jax.numpy as jnp

from ispf_jax.errors import ArgumentError, short_repr
from ispf_jax.models import allcnn, resnet
from ispf_jax.models.adapted import adapt
from ispf_jax.models.allcnn import AllCNN
from ispf_jax.models.generator import Generator
from ispf_jax.models.resnet import ResNet18
from ispf_jax.settings import converted

CLASSIFIERS = {"allcnn": AllCNN, "resnet18": ResNet18}
CONVENTIONS = {"allcnn": allcnn.CONVENTIONS, "resnet18": resnet.CONVENTIONS}
"""What files call the modules of a classifier, in one or several ways: ({name in the file: path here}, ...)."""


def build_classifier(name: str, num_classes: int, width: float = 1.0, dtype: str = "float32"):
    """The classifier module of that name; called with images it returns (logits, features)."""
    if not isinstance(name, str) or name not in CLASSIFIERS:
        raise ArgumentError("network", f"={short_repr(name)} is unknown; allowed are {', '.join(CLASSIFIERS)}.")
    width = converted(float, "width", width)
    return CLASSIFIERS[name](num_classes=num_classes, width=width, dtype=jnp.dtype(dtype))


__all__ = ["CLASSIFIERS", "CONVENTIONS", "AllCNN", "Generator", "ResNet18", "adapt", "build_classifier"]
