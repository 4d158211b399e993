"""The whole way of a classifier that PyTorch trained: out as a file, a class unlearned without any image, back into
PyTorch, measured there.

    python -m benchmarks.own_classifier --workdir=/tmp/own

Needs the extra `bench`. The images are the handwritten digits; only PyTorch's side sees them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import machine
from ispf_jax import data

WIDTH, EPOCHS, BATCH = 0.25, 20, 64
FORGET = 3
HYPER_PARAMETERS = {
    "generator.width": 0.25,
    "distill.epochs": 100,
    "distill.loops": 1,
    "distill.batch_size": 128,
    "distill.lr": 0.1,
}  # of configs/digits_ispf.py


class AllCNN(nn.Module):
    """With the names of the paper's authors."""

    def __init__(self, channels, classes):
        super().__init__()
        for i, (filters, kernel, stride) in enumerate(
            ((96, 3, 1), (96, 3, 1), (192, 3, 2), (192, 3, 1), (192, 3, 1), (192, 3, 2), (192, 3, 1), (192, 1, 1)), 1
        ):
            filters = round(filters * WIDTH)
            layer = nn.Sequential(
                nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            )
            setattr(self, f"conv{i}", layer)
            channels = filters
        self.classifier = nn.Sequential(nn.Linear(channels, classes))

    def forward(self, x):
        for i in range(1, 9):
            x = getattr(self, f"conv{i}")(x)
        return self.classifier(x.mean((2, 3)))


def tensors(split):
    """Images in [-1, 1] as [N, C, H, W], and labels."""
    return torch.tensor(split.images).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.tensor(split.labels).long()


def train(net, images, labels):
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            loss = F.cross_entropy(net(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return net.eval()


def accuracies(net, images, labels):
    """Percent on the forgotten class and on the others."""
    with torch.no_grad():
        right = (net.eval()(images).argmax(1) == labels).numpy()
    forgotten = labels.numpy() == FORGET
    return 100 * np.mean(right[forgotten]), 100 * np.mean(right[~forgotten])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    workdir = parser.parse_args().workdir
    torch.manual_seed(0)
    digits = data.load("digits")
    net = train(AllCNN(1, digits.num_classes), *tensors(digits.train))
    workdir.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), workdir / "original.pt")

    keys = {
        "model.checkpoint": workdir / "original.pt",
        "model.width": WIDTH,
        "data.image_size": digits.image_shape[0],
        "data.channels": 1,
        "forget": FORGET,
        "methods": "gkt,ispf",
        "base": "dfq",
        **HYPER_PARAMETERS,
    }
    command = [
        sys.executable,
        "launch.py",
        "--config=configs/own_ispf.py",
        f"--workdir={workdir / 'run'}",
        *(f"--config.{k}={v}" for k, v in keys.items()),
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began

    print(f"{machine()}, torch {torch.__version__}; unlearning, from start to files, {seconds:.0f} s\n")
    print(f"{'in PyTorch, % of test images':40}{'class 3':>10}{'others':>10}")
    files = {"original, trained by PyTorch": workdir / "original.pt"}
    files |= {
        f"{method}, without an image": workdir / f"run/unlearn/dfq/{method}/{FORGET}/seed0/weights.pt"
        for method in ("gkt", "ispf")
    }
    for name, file in files.items():
        net.load_state_dict(torch.load(file, weights_only=True))
        print(f"{name:40}" + "".join(f"{a:10.1f}" for a in accuracies(net, *tensors(digits.test))))


if __name__ == "__main__":
    main()
