"""PyTorch's tensor names and layouts for the Flax trees of AllCNN and the generator, and the initial weights' rule.

`golden/README.md` describes the recorded files and the rule.
"""

import zlib

import jax.numpy as jnp
import numpy as np

GENERATOR_NAMES = {
    "l1.0": "project",
    "conv_blocks.0": "bn0",
    "conv_blocks.2": "conv1",
    "conv_blocks.3": "bn1",
    "conv_blocks.6": "conv2",
    "conv_blocks.7": "bn2",
    "conv_blocks.9": "conv3",
}
ALLCNN_NAMES = {f"conv{i}.0": f"conv{i}" for i in range(1, 9)} | {f"conv{i}.1": f"bn{i}" for i in range(1, 9)}
ALLCNN_NAMES["classifier.0"] = "classifier"


def names_of(network):
    return GENERATOR_NAMES if network == "generator" else ALLCNN_NAMES


def to_torch(network, collections):
    """{"params", "batch_stats"} -> {PyTorch name: array in PyTorch's layout}."""
    flat = {}
    for torch_name, name in names_of(network).items():
        params = collections["params"].get(name, {})
        stats = collections.get("batch_stats", {}).get(name, {})
        for leaf, value in {**params, **stats}.items():
            value = np.asarray(value)
            suffix = {
                "kernel": "weight",
                "scale": "weight",
                "bias": "bias",
                "mean": "running_mean",
                "var": "running_var",
            }[leaf]
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            if name == "project":  # PyTorch's maps are channel-major, ours channel-last
                value = value.reshape(*value.shape[:-1], 8, 8, -1)
                value = np.moveaxis(value, -1, -3).reshape(*value.shape[:-3], -1)
            if value.ndim == 2:
                value = value.T
            flat[f"{torch_name}.{suffix}"] = value
    return flat


def from_torch(network, tensors):
    """The inverse of `to_torch`."""
    variables = {"params": {}, "batch_stats": {}}
    for key, value in tensors.items():
        torch_name, suffix = key.rsplit(".", 1)
        name = names_of(network)[torch_name]
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        if value.ndim == 2:
            value = value.T
        if name == "project":
            value = value.reshape(*value.shape[:-1], -1, 8, 8)
            value = np.moveaxis(value, -3, -1).reshape(*value.shape[:-3], -1)
        is_bn = name.startswith("bn")
        leaf = {"weight": "scale" if is_bn else "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}[
            suffix
        ]
        kind = "batch_stats" if leaf in ("mean", "var") else "params"
        variables[kind].setdefault(name, {})[leaf] = jnp.asarray(value)
    return variables


def initial_tensors(network, shapes, golden, prefix):
    """Tensors by the rule of `golden/README.md`: weights from their names; recorded statistics and teacher's head."""
    tensors = {}
    for key, shape in shapes.items():
        r = np.random.default_rng(zlib.crc32(f"{network}/{key}".encode()))
        if key.endswith(("running_mean", "running_var")):
            value = golden[f"{prefix}/init/{network}/{key}"]
        elif len(shape) == 4:
            value = r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif len(shape) == 2:
            value = r.standard_normal(shape) / np.sqrt(shape[1])
        elif key.endswith(".weight"):
            value = r.uniform(0.5, 1.5, shape)
        else:
            value = r.standard_normal(shape) * 0.1
        tensors[key] = np.asarray(value, np.float32)
    if network == "teacher":
        tensors["classifier.0.weight"] = golden[f"{prefix}/init/teacher/head_weight"]
        tensors["classifier.0.bias"] = golden[f"{prefix}/init/teacher/head_bias"]
    return tensors
