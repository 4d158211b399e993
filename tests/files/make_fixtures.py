"""Writes the files that the tests of `ispf_jax.files` read, with PyTorch (extra `bench`), and what that computes.

    python -m tests.files.make_fixtures

The networks are written from their definitions, with the names that PyTorch programs use, at a sixteenth of the width.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tests.models.torch_networks import general_position

HERE = Path(__file__).parent / "fixtures"
CLASSES, IMAGES = 5, 4
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


class Block(nn.Module):
    def __init__(self, inputs, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride != 1 or inputs != filters:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """With torchvision's names, and the stem for small images."""

    def __init__(self, filters=4):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters)
        inputs = filters
        for n, stride in enumerate((1, 2, 2, 2), start=1):
            outputs = filters * 2 ** (n - 1)
            setattr(self, f"layer{n}", nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1)))
            inputs = outputs
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
        return self.fc(x.mean((2, 3)))


def allcnn():
    """Convolutions with a bias, two dropouts, average pooling over the whole of 16x16 images."""

    def layer(inputs, outputs, kernel=3, stride=1):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    filters = ((3, 6), (6, 6), (6, 12, 3, 2), None, (12, 12), (12, 12), (12, 12, 3, 2), None, (12, 12), (12, 12, 1))
    layers = [layer(*sizes) if sizes else nn.Dropout(0.5) for sizes in filters]
    net = nn.Module()
    net.features = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten())
    net.classifier = nn.Sequential(nn.Linear(12, CLASSES))
    net.forward = lambda x: net.classifier(net.features(x))
    return net


def trained_a_little(net, seed):
    """Statistics and affine parameters of all batch norms away from where they begin, biases too."""
    return general_position(torch, net, seed, spread=0.3, gain=2)


def main():
    HERE.mkdir(exist_ok=True)
    images = torch.randn((IMAGES, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    recorded = {"images": images.permute(0, 2, 3, 1).numpy()}

    resnet = trained_a_little(ResNet18(), 1)
    parallel = {f"module.{name}": value for name, value in resnet.state_dict().items()}
    optimiser = torch.optim.SGD(resnet.parameters(), 0.1, momentum=0.9).state_dict()
    torch.save(
        {"epoch": 3, "args": Namespace(lr=0.1), "optimizer": optimiser, "state_dict": parallel}, HERE / "resnet18.pt"
    )

    narrow = trained_a_little(allcnn(), 2)
    safetensors.torch.save_file(narrow.state_dict(), HERE / "allcnn.safetensors")
    with torch.no_grad():
        recorded |= {"resnet18": resnet(images).numpy(), "allcnn": narrow.forward(images).numpy()}
    np.savez(HERE / "logits.npz", **recorded)

    grid = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        **{dtype: torch.arange(-3, 4).to(getattr(torch, dtype)) for dtype in DTYPES},
        "transposed": grid.transpose(0, 2),
        "part": grid[1, 1:, ::2],
        "of the same storage": grid[0],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    torch.save({"tensors": tensors, "lists": [1, (2.5, None), "text"], "size": grid.shape}, HERE / "types.pt")
    np.savez(HERE / "types.npz", **{name: value.detach().to(torch.float64).numpy() for name, value in tensors.items()})
    torch.save(nn.Linear(2, 2), HERE / "whole_model.pt")
    torch.save(narrow.classifier.state_dict(), HERE / "old.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
