"""A classifier: a network with its weights, and what it takes to feed it images."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.errors import ArgumentError
from ispf_jax.forget import checked_names
from ispf_jax.models.adapted import Function, adapt, title
from ispf_jax.settings import converted


@dataclass(frozen=True)
class Network:
    """The static half of a classifier, hashable: what compiled programs are made for.

    Attributes:
      module: called with normalised images it returns (logits [N, C], features [N, F]).
      image_shape: (H, W, C) of its images.
      mean, std: normalisation for pixels in [0, 1], one number per channel.
    """

    module: nn.Module
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, images):
        """Images in [0, 1], or uint8 from 0 to 255, as the network expects them, float32."""
        scaled = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
        return (scaled - jnp.array(self.mean)) / jnp.array(self.std)

    def init(self, key) -> dict:
        """Freshly initialised variables {"params", "batch_stats"}."""
        return init_variables(self.module, key, (1, *self.image_shape))

    def shapes(self) -> dict:
        """Shapes and types of the variables."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def zeros(self) -> dict:
        """Variables of the right shapes and types, all zero, on the host."""
        return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), self.shapes())

    @property
    def num_classes(self) -> int:
        return self.module.num_classes

    @property
    def title(self) -> str:
        """The network's usual name, such as ResNet18."""
        return title(self.module)

    @property
    def head(self) -> tuple[str, ...]:
        """Where the last dense layer lies among the parameters; empty if there is none."""
        return getattr(self.module, "head", ("classifier",))


@partial(jax.jit, static_argnames=("module", "example_shape"))
def init_variables(module, key, example_shape):
    """Freshly initialised variables {"params", "batch_stats"} of a module for inputs of `example_shape` (a tuple).

    One compiled program per network: a layer's initialiser by itself would be dispatched again for every trial.
    """
    return {"batch_stats": {}} | module.init(key, jnp.zeros(example_shape, jnp.float32))


@partial(jax.jit, static_argnames="network")
def predict(network: Network, variables, images):
    """Logits [N, C] of uint8 images [N, H, W, C], float32."""
    return network.module.apply(variables, network.normalise(images))[0]


class Classifier:
    """A network with its weights; called with images it returns logits.

    Attributes:
      module: Flax module: normalised images -> logits [N, C]. Any will do, see `models.adapted`.
      variables: {"params", "batch_stats"}; the latter may be missing.
      image_shape: (H, W, C).
      mean, std: normalisation for pixels in [0, 1]; one number, or one per channel.
      class_names: one per class; "0", "1", ... if they have no names.
      origin: where the weights came from; `training.train` and `files.load` say what they note.
    """

    def __init__(
        self,
        module: nn.Module,
        variables: Mapping[str, Any],
        *,
        image_shape: Sequence[int],
        mean: float | Sequence[float] = 0.5,
        std: float | Sequence[float] = 0.5,
        class_names: Sequence[str] | None = None,
        origin: Mapping[str, Any] | None = None,
    ):
        """See the class.

        Args:
          origin: where the weights came from.

        Raises:
          ArgumentError: an argument does not fit the others.
        """
        shape = tuple(int(n) for n in image_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ArgumentError("image_shape", f"={image_shape!r} must be (height, width, channels).")
        module = adapt(module, shape)
        self.network = Network(module, shape, _per_channel("mean", mean, shape[2]), _per_channel("std", std, shape[2]))
        self.variables = {"batch_stats": {}, **variables}
        if variables:
            _check_variables(self.variables, self.network.shapes())
        self.origin = dict(origin or {})
        names = class_names if class_names is not None else range(self.num_classes)
        self.class_names = checked_names(map(str, names))
        if len(self.class_names) != self.num_classes:
            raise ArgumentError("class_names", f"={names} must be {self.num_classes} different names.")

    @classmethod
    def of(cls, network: Network, variables, class_names=None, origin=None) -> "Classifier":
        """A classifier from a network and weights for it."""
        made = cls.__new__(cls)
        made.network, made.variables, made.origin = network, variables, dict(origin or {})
        made.class_names = tuple(class_names or map(str, range(network.num_classes)))
        return made

    @classmethod
    def from_function(cls, function: Callable, image_shape, class_names, mean=0.0, std=1.0) -> "Classifier":
        """A teacher from any function images [N, H, W, C] -> logits [N, classes] that JAX can differentiate.

        It has no weights, so its student needs a network: `unlearn(teacher, forget, student="resnet18")`.

        Args:
          function: sees images in [0, 1], normalised by `mean` and `std`; hashable, as functions are.
          class_names: names, or how many there are.
        """
        names = tuple(map(str, range(class_names))) if isinstance(class_names, int) else tuple(class_names)
        shape = tuple(int(n) for n in image_shape)
        try:
            found = jax.eval_shape(function, jax.ShapeDtypeStruct((2, *shape), jnp.float32)).shape
        except Exception as error:  # whatever the function says
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ArgumentError("function", f" cannot be called with images [2, {shape}]: {first}") from error
        if found != (2, len(names)):
            text = f" must return logits [N, {len(names)}], not {list(found)} of 2 images."
            raise ArgumentError("function", text)
        module = Function(function, len(names))
        return cls(module, {"params": {}}, image_shape=shape, mean=mean, std=std, class_names=names)

    @property
    def module(self) -> nn.Module:
        return self.network.module

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.network.image_shape

    @property
    def mean(self) -> tuple[float, ...]:
        return self.network.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.network.std

    @property
    def num_classes(self) -> int:
        return self.network.num_classes

    def replace(self, **changes) -> "Classifier":
        """The same classifier with other `variables`, `class_names` or `origin`."""
        kept = {name: getattr(self, name) for name in ("variables", "class_names", "origin")}
        return Classifier.of(self.network, **(kept | changes))

    def __call__(self, images, batch_size: int = 500) -> np.ndarray:
        """Logits [N, classes], float32, of images uint8 [N, H, W, C], in batches of one compiled shape.

        Raises:
          ArgumentError: the images have another shape or type.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            expected = f"uint8 [N, {', '.join(map(str, self.image_shape))}]"
            raise ArgumentError("images", f" are {images.dtype} {list(images.shape)}, but must be {expected}.")
        size = max(1, min(batch_size, len(images)))
        padded = np.pad(images, [(0, -len(images) % size), (0, 0), (0, 0), (0, 0)])
        rows = [
            np.asarray(predict(self.network, self.variables, padded[i : i + size])) for i in range(0, len(padded), size)
        ]
        return np.concatenate(rows)[: len(images)] if rows else np.zeros((0, self.num_classes), np.float32)

    def save(self, path, format: str | None = None):
        """Write the weights to `path` for other programs: `.pt` (PyTorch), `.safetensors`; see `files.save`."""
        from ispf_jax.files import save

        return save(self, path, format)

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.variables["params"]))

    def __repr__(self) -> str:
        height, width, channels = self.image_shape
        return (
            f"Classifier({self.network.title}, {self.num_classes} classes, {height}x{width}x{channels} images, "
            f"{self.parameters:,} parameters)"
        )

    def _repr_html_(self) -> str:
        names = ", ".join(self.class_names[:12]) + (", ..." if self.num_classes > 12 else "")
        facts = {"classes": names, "mean, std": f"{self.mean}, {self.std}"}
        rows = "".join(f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts.items())
        return f"<div><b>{html.escape(repr(self))}</b><table>{rows}</table></div>"


def _check_variables(variables, expected):
    """ArgumentError unless these are the variables of the network, whose shapes are `expected`."""
    found, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (dict(variables), expected))
    )
    for name in sorted(found.keys() | wanted.keys()):
        shapes = [list(np.shape(leaves[name])) if name in leaves else "nothing" for leaves in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise ArgumentError("variables", f" have {shapes[0]} at {name}, where the module has {shapes[1]}.")
        if not np.all(np.isfinite(np.asarray(found[name], np.float32))):
            raise ArgumentError("variables", f" have numbers that are not finite at {name}.")


def _per_channel(argument, value, channels) -> tuple[float, ...]:
    """One number per channel, from one number or one per channel."""
    numbers = tuple(converted(float, argument, v) for v in np.ravel(np.asarray(value, object)).tolist())
    if len(numbers) not in (1, channels):
        raise ArgumentError(
            argument, f" has {len(numbers)} numbers, but the images have {channels} channel(s); give one or {channels}."
        )
    for number in numbers:
        if not 0 <= number <= 1 or (argument == "std" and number == 0):
            low = "greater than 0 and at most 1" if argument == "std" else "from 0 to 1"
            raise ArgumentError(
                argument, f"={number:g} must be {low}: it is for pixels in [0, 1]; divide one for 0 to 255 by 255."
            )
    return numbers
