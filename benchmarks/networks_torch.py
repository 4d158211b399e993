"""The networks in PyTorch, written from their definitions; submodules carry the names of the Flax modules.

`load` copies Flax variables into them, so both sides compute the same function of the same weights.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class AllCNN(nn.Module):
    """Images [N, C, H, W] -> (logits, features), as `ispf_jax.models.AllCNN`."""

    layers = ((96, 3, 1), (96, 3, 1), (192, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2), (192, 3, 1), (192, 1, 1))

    def __init__(self, channels, num_classes, width):
        super().__init__()
        for i, (filters, kernel, stride) in enumerate(self.layers, start=1):
            filters = max(1, round(filters * width))
            setattr(self, f"conv{i}", nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(filters))
            channels = filters
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        for i in range(1, len(self.layers) + 1):
            x = F.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)), inplace=True)
        features = x.mean((2, 3))
        return self.classifier(features), features


class BasicBlock(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.projects = stride != 1 or inputs != filters
        if self.projects:
            self.conv_shortcut = nn.Conv2d(inputs, filters, 1, stride, bias=False)
            self.bn_shortcut = nn.BatchNorm2d(filters)

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = self.bn2(self.conv2(h))
        return F.relu(h + (self.bn_shortcut(self.conv_shortcut(x)) if self.projects else x), inplace=True)


class ResNet18(nn.Module):
    """Images [N, C, H, W] -> (logits, features), as `ispf_jax.models.ResNet18`."""

    def __init__(self, channels, num_classes, width):
        super().__init__()
        inputs = max(1, round(64 * width))
        self.conv_stem = nn.Conv2d(channels, inputs, 3, 1, 1, bias=False)
        self.bn_stem = nn.BatchNorm2d(inputs)
        self.blocks = []
        for stage, (filters, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), start=1):
            for block in (1, 2):
                filters_here, name = max(1, round(filters * width)), f"stage{stage}_block{block}"
                setattr(self, name, BasicBlock(inputs, filters_here, stride if block == 1 else 1))
                self.blocks.append(name)
                inputs = filters_here
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.relu(self.bn_stem(self.conv_stem(x)), inplace=True)
        for name in self.blocks:
            x = getattr(self, name)(x)
        features = x.mean((2, 3))
        return self.classifier(features), features


class Generator(nn.Module):
    """Noise [N, latent] -> images [N, channels, size, size] in [0, 1], as `ispf_jax.models.Generator`; sizes are
    multiples of four."""

    def __init__(self, size, channels, latent, width, memory_format):
        super().__init__()
        self.start, self.memory_format = size // 4, memory_format
        maps = [max(1, round(n * width)) for n in (256, 128, 64)]
        self.project = nn.Linear(latent, self.start**2 * maps[0])
        self.bn0 = nn.BatchNorm2d(maps[0])
        self.conv1 = nn.Conv2d(maps[0], maps[1], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(maps[1])
        self.conv2 = nn.Conv2d(maps[1], maps[2], 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(maps[2])
        self.conv3 = nn.Conv2d(maps[2], channels, 3, 1, 1)

    def forward(self, z):
        x = self.project(z).view(len(z), -1, self.start, self.start).contiguous(memory_format=self.memory_format)
        x = self.bn0(x)
        for i in (1, 2):
            x = getattr(self, f"conv{i}")(F.interpolate(x, scale_factor=2))
            x = F.leaky_relu(getattr(self, f"bn{i}")(x), 0.2, inplace=True)
        return torch.sigmoid(self.conv3(x).float())


CLASSIFIERS = {"allcnn": AllCNN, "resnet18": ResNet18}
_SUFFIXES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def load(module, variables):
    """Copy Flax variables {"params", "batch_stats"} into the module of the same network, in place."""
    state = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    for collection in ("params", "batch_stats"):
        for path, value in _leaves(variables[collection]):
            *names, leaf = path
            value = np.asarray(value)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            if names == ["project"]:  # maps are channel-last there, channel-major here
                value = value.reshape(*value.shape[:-1], module.start**2, -1).swapaxes(-1, -2).reshape(value.shape)
            if value.ndim == 2:
                value = value.T
            state[".".join((*names, _SUFFIXES[leaf]))] = torch.tensor(np.ascontiguousarray(value))
    module.load_state_dict(state)
    return module


def _leaves(tree, path=()):
    if not isinstance(tree, dict):
        return [(path, tree)]
    return [leaf for name, child in tree.items() for leaf in _leaves(child, (*path, name))]


def multiply_adds(net, example):
    """Multiply-adds of one example's forward pass, layer by layer: convolutions and linear layers in the order they
    run."""
    layers = []

    def count(layer, _, out):
        layers.append(math.prod(out.shape) * layer.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        net(example)
    for hook in hooks:
        hook.remove()
    return layers
