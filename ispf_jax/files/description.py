"""What a file of weights holds, in words."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ispf_jax.errors import ArgumentError, visible
from ispf_jax.files.classifiers import load, settings_in
from ispf_jax.files.detect import read_weights
from ispf_jax.files.fit import Fit, find, image_shape_of, is_known
from ispf_jax.files.naming import Unlike


@dataclass(frozen=True)
class Description:
    """What a file of weights holds.

    Attributes:
      format: key of `FORMATS`.
      tensors, weights: how many tensors, how many numbers in them.
      settings: arguments of `load` that the file itself holds, such as mean and std.
      notes: what of the file is not used, or was chosen.
      found: network, width, classes and channels; None if it is no network that is known here.
      problem: why it cannot be loaded; "" if it can.
    """

    path: str
    format: str
    tensors: int
    weights: int
    settings: Mapping[str, Any]
    found: Fit | None
    problem: str
    notes: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line that makes the network unlearn a class; "" if it cannot be loaded."""
        if not self.found or self.problem:
            return ""
        found, said = self.found, self.settings
        keys = {"model.checkpoint": self.path}
        keys |= {"data.classes": found.classes, "data.channels": found.channels}
        keys |= {"data.image_size": said["image_shape"][0]} if "image_shape" in said else {}
        keys |= {f"data.{name}": ",".join(map(str, said[name])) for name in ("mean", "std") if name in said}
        words = [shlex.quote(f"--config.{key}={value}") for key, value in keys.items()]
        return " ".join(["ispf --config=own_ispf.py", *words, "--config.forget=<class>"])

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.format}, {self.tensors} tensors, {self.weights:,} numbers"]
        if self.found:
            f = self.found
            lines += [f"{f.network}: {f.classes} classes, images of {f.channels} channel(s)"]
        lines += self.notes
        lines += [f"{name}: {value}" for name, value in self.settings.items() if name not in ("network", "layout")]
        unsaid = [name for name in ("mean", "std") if name not in self.settings and not self.problem]
        lines += [f"The file does not say {name}: add --config.data.{name}=... as in training" for name in unsaid]
        lines += (
            [f"It cannot be loaded: {self.problem}"] if self.problem else ["To unlearn a class:", f"  {self.command}"]
        )
        return "\n".join(map(visible, lines))


def inspect(path: str | Path, which: str | None = None) -> Description:
    """Says what a file of weights holds.

    Args:
      which: the argument `weights` of `load`.

    Raises:
      ArgumentError: (path) it cannot be read at all.
    """
    weights, settings, found, problem = read_weights(path, is_known, which), {}, None, ""
    try:
        settings = weights.settings | settings_in(path, weights.header)
        found = find(weights.tensors)
        guessed = image_shape_of(found, weights.tensors)
        settings |= {"image_shape": guessed} if "image_shape" not in settings and guessed[0] != 32 else {}
        load(path, image_shape=settings.get("image_shape", guessed), weights=which)
    except (Unlike, ArgumentError) as error:
        problem = str(error)
    numbers = sum(tensor.size for tensor in weights.tensors.values())
    facts = str(path), weights.format, len(weights.tensors), numbers, settings, found, problem
    return Description(*facts, tuple(text for _, text in weights.notes))
