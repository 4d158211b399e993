"""What a file of weights holds, in words."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ispf_jax.errors import ArgumentError
from ispf_jax.files.classifiers import load, settings_in
from ispf_jax.files.detect import read_weights
from ispf_jax.files.fit import find
from ispf_jax.files.naming import Unlike


@dataclass(frozen=True)
class Description:
    """What a file of weights holds.

    Attributes:
      format: key of `FORMATS`.
      tensors, weights: how many tensors, how many numbers in them.
      network: key of `models.CLASSIFIERS`; None if it is none of them.
      problem: why it cannot be loaded; None if it can.
      width, classes, channels: of the network.
      settings: arguments of `load` that the file itself holds, such as mean and std.
    """

    path: str
    format: str
    tensors: int
    weights: int
    network: str | None = None
    problem: str | None = None
    width: float | None = None
    classes: int | None = None
    channels: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line that makes the network unlearn a class."""
        keys = {"model.checkpoint": self.path, "model.name": self.network, "model.width": f"{self.width:.9g}"}
        keys |= {"data.classes": self.classes, "data.channels": self.channels}
        keys |= {"data.image_size": self.settings["image_shape"][0]} if "image_shape" in self.settings else {}
        keys |= {f"data.{k}": ",".join(map(str, self.settings[k])) for k in ("mean", "std") if k in self.settings}
        words = [shlex.quote(f"--config.{key}={value}") for key, value in keys.items()]
        return " ".join(["ispf --config=own_ispf.py", *words, "--config.forget=<class>"])

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.format}, {self.tensors} tensors, {self.weights:,} numbers"]
        if self.network:
            sizes = f"{self.classes} classes, images of {self.channels} channel(s)"
            width = "no width makes its filters" if self.width is None else f"width {self.width:.9g}"
            lines += [f"network: {self.network}, {width}, {sizes}"]
        lines += [f"{name}: {value}" for name, value in self.settings.items() if name not in ("network", "width")]
        if self.problem:
            return "\n".join([*lines, f"It cannot be loaded: {self.problem}"])
        unsaid = " and ".join(name for name in ("mean", "std") if name not in self.settings)
        lines += [f"{unsaid}: not in the file; give those of the training (config.data.{unsaid})"] if unsaid else []
        return "\n".join([*lines, "To unlearn a class:", f"  {self.command}"])


def inspect(path: str | Path) -> Description:
    """Says what a file of weights holds.

    Raises:
      ArgumentError: (path) it cannot be read at all.
    """
    weights = read_weights(path)
    tensors, settings = weights.tensors, settings_in(weights.header)
    known = (str(path), weights.format, len(tensors), sum(tensor.size for tensor in tensors.values()))
    try:
        found = find(tensors)
    except Unlike as error:
        return Description(*known, problem=str(error), settings=settings)
    sizes = {"network": found.network, "classes": found.classes, "channels": found.channels}
    try:
        classifier = load(
            path, network=found.network, image_shape=settings.get("image_shape", (32, 32, found.channels))
        )
    except ArgumentError as error:
        return Description(*known, problem=str(error), width=found.width, settings=settings, **sizes)
    return Description(*known, width=getattr(classifier.module, "width", 1.0), settings=settings, **sizes)
