"""Any Flax module as a classifier: its own layers, called as the steps of this package need them.

A network of this package takes a mask and a device axis, leaves the moments of its batch norms, and returns features
next to its logits. A module made elsewhere does none of that. `Adapted` calls it as it is and catches the calls of its
layers: batch norms work on the kept rows of the global batch, dropout is left out, convolutions are those of this
package, and the features are the input of the last dense layer.
"""

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ispf_jax.errors import ArgumentError
from ispf_jax.models.layers import MaskedBatchNorm, at_least_single, batch_norm
from ispf_jax.ops import conv_general_dilated

_TRAINING = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""Names of the argument by which modules are put into training, and its value then."""
_KINDS = {nn.Conv: "conv", nn.Dense: "linear", nn.BatchNorm: "norm", MaskedBatchNorm: "norm", nn.LayerNorm: "affine"}


def adapt(module: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """The module itself if it is called like the networks of this package, else wrapped in `Adapted`.

    Raises:
      ArgumentError: it is no Flax module, or does not map images to logits [N, C].
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("module", f"={module!r} must be a flax.linen.Module.")
    if {"mask", "axis"} <= set(inspect.signature(type(module).__call__).parameters):
        return module
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    places: list[tuple[str, ...]] = []

    def noted(call, args, kwargs, context):
        if isinstance(context.module, nn.Dense) and context.method_name == "__call__":
            places.append(context.module.scope.path)
        return call(*args, **kwargs)

    try:
        with nn.intercept_methods(noted):
            (logits, features), variables = jax.eval_shape(
                Adapted(module, 0).init_with_output, jax.random.key(0), images
            )
    except (TypeError, ValueError, AttributeError) as error:  # whatever a module says of images that it cannot take
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = f" is {type(module).__name__}, which cannot be called with images {list(images.shape)}: {first}"
        raise ArgumentError("module", text) from error
    if getattr(logits, "ndim", 0) != 2:
        shape = list(getattr(logits, "shape", ()))
        raise ArgumentError("module", f" is {type(module).__name__}; it must return logits [N, C], not {shape}.")
    kernel = reduce(lambda tree, name: tree.get(name, {}), places[-1] if places else (), variables["params"])
    linear = getattr(kernel.get("kernel"), "shape", ()) == (features.shape[-1], logits.shape[-1]) and "bias" in kernel
    return Adapted(module, logits.shape[-1], places[-1] if linear else ())


def title(module: nn.Module) -> str:
    """A network's usual name, such as ResNet18."""
    inner = getattr(module, "inner", module)
    return getattr(inner, "title", type(inner).__name__)


def calls(module: nn.Module, image_shape: tuple[int, ...]) -> dict[str, str]:
    """{path: kind} of the layers with weights of a module, in the order in which it calls them."""
    found: dict[str, str] = {}

    def noted(call, args, kwargs, context):
        kind = next((kind for made, kind in _KINDS.items() if isinstance(context.module, made)), "")
        if kind and context.method_name == "__call__":
            found["/".join(context.module.scope.path)] = kind
        return call(*args, **kwargs)

    with nn.intercept_methods(noted):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return found


class Adapted(nn.Module):
    """See the module's text; the variables are those of `inner`, without a level of their own.

    Attributes:
      inner: images [N, H, W, C] -> logits [N, num_classes], or a tuple that begins with them. If it has an argument
        such as `train` or `deterministic`, it gets it.
      head: where the last dense layer lies among the parameters; empty if it does not give the logits.
    """

    inner: nn.Module
    num_classes: int
    head: tuple[str, ...] = ()

    def setup(self):
        nn.share_scope(self, self.inner)

    def __call__(self, x, train: bool = False, mask=None, axis=None):
        """(logits [N, num_classes], features [N, F]), float32."""
        features: list[Any] = []

        def catch(call, args, kwargs, context):
            module, method = context.module, context.method_name
            if method != "__call__":
                return call(*args, **kwargs)
            if isinstance(module, nn.BatchNorm):
                if (module.axis, module.use_scale, module.use_bias) != (-1, True, True):
                    raise ValueError(f"{module.name}: a batch norm must be over the last axis, with scale and bias")
                y = batch_norm(module, args[0], train, mask, axis, module.momentum, module.epsilon)
                return y.astype(module.dtype or args[0].dtype)
            if isinstance(module, nn.Dropout):
                return args[0]
            if isinstance(module, nn.Conv) and module.conv_general_dilated is None:
                object.__setattr__(module, "conv_general_dilated", conv_general_dilated)
            if isinstance(module, nn.Dense):
                features.append(args[0])
            return call(*args, **kwargs)

        names = inspect.signature(type(self.inner).__call__).parameters
        flags = {name: value == train for name, value in _TRAINING.items() if name in names}
        with nn.intercept_methods(catch):
            out = self.inner(x, **flags)
        logits = at_least_single(out[0] if isinstance(out, tuple) else out)
        found = features[-1] if features else logits
        return logits, at_least_single(found.reshape(found.shape[0], -1))


class Function(nn.Module):
    """A function images [N, H, W, C] -> logits [N, num_classes] as a network; its logits are its features."""

    function: Callable
    num_classes: int

    def __call__(self, x, train: bool = False, mask=None, axis=None):
        logits = at_least_single(self.function(x))
        return logits, logits

    @property
    def head(self) -> tuple[str, ...]:
        return ()
