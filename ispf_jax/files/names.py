"""What PyTorch programs call the tensors of AllCNN and ResNet18, and how their layouts differ from those of Flax.

PyTorch has filters as [out, in, h, w] and linear layers as [out, in]; here they are [h, w, in, out] and [in, out]. A convolution's bias before a
batch norm, which some programs have, is taken into the running mean, where it does the same; written back, it is zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from flax.traverse_util import flatten_dict

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; used by nothing as long as its momentum is set


def _allcnn(features):
    """`features`: names of the eight pairs of convolution and batch norm."""
    names = {
        f"{feature}.{i}": f"{kind}{n}"
        for n, feature in enumerate(features, start=1)
        for i, kind in enumerate(("conv", "bn"))
    }
    return names | {"classifier.0": "classifier"}


def _resnet18(stem, stages, layers, shortcut, head):
    """`layers`: names of a block's first convolution, its batch norm, and the second ones."""
    names = dict(zip(stem, ("conv_stem", "bn_stem")))
    for (n, stage), block in product(enumerate(stages, start=1), (0, 1)):
        inside = dict(zip(layers, ("conv1", "bn1", "conv2", "bn2")))
        if n > 1 and block == 0:
            inside |= {f"{shortcut}.0": "conv_shortcut", f"{shortcut}.1": "bn_shortcut"}
        names |= {f"{stage}.{block}.{theirs}": f"stage{n}_block{block + 1}/{ours}" for theirs, ours in inside.items()}
    return names | {head: "classifier"}


_STAGES, _LAYERS = [f"layer{n}" for n in range(1, 5)], ("conv1", "bn1", "conv2", "bn2")

CONVENTIONS = {
    "allcnn": (
        _allcnn([f"conv{n}" for n in range(1, 9)]),  # the authors' program
        _allcnn([f"features.{n}" for n in (0, 1, 2, 4, 5, 6, 8, 9)]),  # Golatkar 2020 and its heirs: dropout between
    ),
    "resnet18": (
        *(
            _resnet18(("conv1", "bn1"), _STAGES, _LAYERS, shortcut, head)
            for shortcut, head in product(
                ("downsample", "shortcut"), ("fc", "linear", "classifier")
            )  # torchvision and timm; others
        ),
        _resnet18(
            ("conv1.0", "conv1.1"),
            [f"conv{n}_x" for n in range(2, 6)],
            [f"residual_function.{i}" for i in (0, 1, 3, 4)],
            "shortcut",
            "fc",
        ),
    ),
}
"""For every classifier {name of a PyTorch module: path of the Flax module}, the first of which is written where nothing else is asked for."""


class Unlike(Exception):
    """Tensors that are not those of the network; the text says which."""


@dataclass(frozen=True)
class Naming:
    """How a file names the tensors of a network.

    Attributes:
      modules: {name of a PyTorch module: path of the Flax module}.
      prefix: what stands before every name, such as "module.".
      keys: the tensors of the file, in its order.
    """

    modules: dict[str, str]
    prefix: str
    keys: tuple[str, ...]


def find_naming(arch: str, keys) -> Naming:
    """How `keys` name the tensors of a classifier.

    Raises:
      Unlike: in no known way; the nearest one is told.
    """
    keys = tuple(keys)
    best = None
    for modules in CONVENTIONS[arch]:
        anchor = f"{next(iter(modules))}.weight"
        for prefix in [key.removesuffix(anchor) for key in keys if key.endswith(anchor)]:
            naming = Naming(modules, prefix, keys)
            needed = {prefix + name for name in _tensor_names(modules)}
            missing, unknown = (
                needed - set(keys),
                [key for key in keys if key not in needed and not _spare(naming, key)],
            )
            if not missing and not unknown:
                return naming
            if best is None or len(missing) + len(unknown) < len(best[0]) + len(best[1]):
                best = sorted(missing), unknown
    if best is None:
        raise Unlike(f"it has {_some(keys)}")
    raise Unlike(
        "; ".join(f"{what} {_some(names)}" for what, names in zip(("there is no", "it also has"), best) if names)
    )


def own_naming(arch: str) -> Naming:
    """The naming for a network that did not come from a file."""
    modules = CONVENTIONS[arch][0]
    return Naming(modules, "", tuple(_tensor_names(modules)))


def to_flax(naming: Naming, tensors: Mapping[str, np.ndarray], template: dict) -> dict:
    """Variables {"params", "batch_stats"} in float32, shaped like `template`.

    Raises:
      Unlike: a tensor has another shape, or a number in it is not finite.
    """
    variables = {"params": {}, "batch_stats": {}}
    for module, path in naming.modules.items():
        for collection, leaf in _leaves(path):
            key = f"{naming.prefix}{module}.{_LEAVES[leaf]}"
            value = np.asarray(tensors[key]).astype(np.float32)
            bias = (
                tensors.get(naming.prefix + _bias_of(naming, module))
                if leaf == "mean" and _bias_of(naming, module)
                else None
            )
            if bias is not None:
                if bias.shape != value.shape:
                    raise Unlike(
                        f"{naming.prefix}{_bias_of(naming, module)} is {_torch_shape(bias.shape)} and should be {_torch_shape(value.shape)}"
                    )
                value = value - np.asarray(bias).astype(np.float32)
            shape = _at(template[collection], path)[leaf].shape
            value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
            if value.shape != shape:
                raise Unlike(f"{key} is {_torch_shape(value.shape)} and should be {_torch_shape(shape)}")
            if not np.all(np.isfinite(value)):
                raise Unlike(f"{key} has numbers that are not finite")
            if leaf == "var" and value.min() < 0:
                raise Unlike(f"{key} has negative numbers")
            _at(variables[collection], path)[leaf] = np.ascontiguousarray(value)
    check_complete(naming, template)
    return variables


def check_complete(naming: Naming, variables: dict):
    """Raises Unlike if the network has modules that the naming, one of a row added to `CONVENTIONS`, does not have."""
    unnamed = {path.rpartition("/")[0] for path in flatten_dict(variables["params"], sep="/")} - set(
        naming.modules.values()
    )
    if unnamed:
        raise Unlike(f"CONVENTIONS has no names for its {_some(sorted(unnamed))}")


def to_torch(naming: Naming, variables: dict) -> dict[str, np.ndarray]:
    """The tensors of a network under the names, and in the order, of `naming.keys`."""
    tensors = {}
    for key in naming.keys:
        module, name = key.removeprefix(naming.prefix).rsplit(".", 1)
        path = naming.modules[module]
        leaf = next((leaf for _, leaf in _leaves(path) if _LEAVES[leaf] == name), None)
        if leaf is None:  # a spare one
            filters = _at(variables["params"], path).get("kernel")
            tensors[key] = np.zeros((), np.int64) if name == _COUNTER else np.zeros(filters.shape[-1], np.float32)
            continue
        value = np.asarray(_at(variables["batch_stats" if leaf in ("mean", "var") else "params"], path)[leaf])
        value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        tensors[key] = np.ascontiguousarray(value)
    return tensors


def _leaves(path):
    """(collection, leaf) of a Flax module, which its name tells the kind of."""
    name = path.split("/")[-1]
    if name.startswith("bn"):
        return [("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var")]
    return [("params", "kernel")] + ([("params", "bias")] if name == "classifier" else [])


def _tensor_names(modules):
    return [f"{module}.{_LEAVES[leaf]}" for module, path in modules.items() for _, leaf in _leaves(path)]


def _spare(naming, key):
    """Whether a network can do without the tensor: a counter of a batch norm, or a convolution's bias."""
    module, _, name = key.removeprefix(naming.prefix).rpartition(".")
    kind = naming.modules.get(module, "").split("/")[-1][:2]
    return (kind, name) in (("bn", _COUNTER), ("co", "bias"))


def _bias_of(naming, batch_norm):
    """The bias of the convolution before a batch norm, by its PyTorch name; "" if there is no convolution of that name."""
    before = naming.modules[batch_norm].replace("bn", "conv")
    return next((f"{module}.bias" for module, path in naming.modules.items() if path == before), "")


def _at(tree, path):
    for name in path.split("/"):
        tree = tree.setdefault(name, {})
    return tree


def _torch_shape(shape):
    """A shape as PyTorch's users know it."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(shape), range(len(shape)))
    return "x".join(str(shape[i]) for i in order)


def _some(names):
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
