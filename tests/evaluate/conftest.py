"""A task on which hiding and removing differ, and three small networks: original, retrained without class 1, untrained.

Classes 0 and 1 share a coarse pattern and differ in a faint fine one. Who never sees class 1 has no reason to notice
it.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import optim
from ispf_jax.classifier import Network
from ispf_jax.models.layers import MaskedBatchNorm, conv, dense
from ispf_jax.state import TrainState, new_net
from ispf_jax.supervised import SupervisedSetup, supervised_epoch


class SmallNet(nn.Module):
    """Convolutions with batch norm and ReLU (stride 2 from the second on), averaging, a linear layer: compiles at
    once."""

    filters: tuple[int, ...]
    num_classes: int = 4

    @nn.compact
    def __call__(self, x, train=False, mask=None, axis=None):
        for i, n in enumerate(self.filters, start=1):
            x = conv(x, n, stride=1 if i == 1 else 2, use_bias=False, name=f"conv{i}")
            x = nn.relu(MaskedBatchNorm(name=f"bn{i}")(x, train, mask, axis))
        features = jnp.mean(x, axis=(1, 2))
        return dense(features, self.num_classes, name="classifier"), features


TINY = Network(SmallNet(filters=(4,)), (8, 8, 1), (0.5,), (0.5,))
NETWORK = Network(SmallNet(filters=(8, 8, 8)), (8, 8, 1), (0.5,), (0.5,))


def fresh(network, seed):
    """Untrained variables of a network for images [8, 8, 1]: kernels N(0, 2 / fan-in), drawn by NumPy, which compiles
    nothing."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        if path[-1].key == "kernel":
            return np.float32(rng.normal(0, np.sqrt(2 / np.prod(shape.shape[:-1])), shape.shape))
        return np.full(shape.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree.map_with_path(draw, network.shapes())


@dataclass(frozen=True, repr=False)
class World:
    """Images uint8 [N, 8, 8, 1] with labels, the forget mask, and variables of the networks."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    forget_mask: np.ndarray
    original: dict
    retrained: dict
    untrained: dict


def make_images(rng, count):
    labels = (np.arange(count) % 4).astype(np.int32)
    y, x = np.mgrid[:8, :8]
    coarse = np.stack([x < 4, x < 4, y < 4, (x < 4) ^ (y < 4)]) * 80.0
    fine = np.stack([(x + y) % 2 * 1.0, 1 - (x + y) % 2, 0 * x, 0 * x]) * 25.0
    pixels = 60 + coarse[labels] + fine[labels] + rng.normal(0, 40, (count, 8, 8))
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None], labels


@pytest.fixture(scope="session")
def world():
    rng = np.random.default_rng(0)
    (images, labels), (test_images, test_labels) = make_images(rng, 256), make_images(rng, 160)
    setup = SupervisedSetup(NETWORK, optim.sgd(0.9, 1e-4), 64, "none")
    epoch = jax.jit(partial(supervised_epoch, setup))
    untrained = fresh(NETWORK, 7)

    def train(member):
        state = TrainState(new_net(untrained, setup.optimizer), jax.random.key(1), jnp.int32(0))
        for _ in range(12):
            state, _ = epoch(state, images, labels, member, 0.05)
        return jax.device_get(state.net.variables)

    forget_mask = np.arange(4) == 1
    return World(
        images, labels, test_images, test_labels, forget_mask, train(np.ones(256, bool)), train(labels != 1), untrained
    )
