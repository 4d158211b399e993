"""What every measurement of an audit is given, and the record it is written to."""

from dataclasses import dataclass, field
from functools import cached_property

import flax.linen as nn
import jax
import numpy as np

from ispf_jax.config import AuditConfig
from ispf_jax.data.dataset import ArrayDataset
from ispf_jax.evaluate import duplicates, features, relearn, sampling
from ispf_jax.evaluate.accuracy import Evaluator

WEIGHTS, TEST, TRAINING, RETRAINED = "weights only", "test images", "training data", "retrained models"
"""Access tiers: what somebody must hold to take a measurement."""


@dataclass(frozen=True)
class Context:
    """What all models of an audit are measured against.

    Attributes:
      train, test: the data; `images` and `labels` are the training set on the device.
      member: bool [M], the original's training split.
      forget_mask: bool [C].
      references: variables of "original" and, if there is one, "retrain".
      seed: of every random choice of images.
    """

    classifier: nn.Module
    evaluator: Evaluator
    augmentation: str
    train: ArrayDataset
    test: ArrayDataset
    images: jax.Array
    test_images: jax.Array
    member: np.ndarray
    forget_mask: np.ndarray
    references: dict[str, dict]
    config: AuditConfig
    seed: int

    @property
    def forget(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.forget_mask).tolist())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features are read: `config.layers` of them, evenly from the first third to the penultimate."""
        names = features.layer_names(self.classifier, self.references["original"], self.train.images.shape[1:])[:-1]
        places = np.linspace(0, len(names), self.config.layers + 1)[1:-1]
        return (*(names[int(p) - 1] for p in places if int(p) >= 1), features.PENULTIMATE)

    @cached_property
    def probe_rows(self) -> np.ndarray:
        """Training images that probes and neighbours learn from: class-balanced, at most `config.train_images`."""
        rows = np.flatnonzero(self.member)
        if len(rows) <= self.config.train_images:
            return rows
        smallest = np.bincount(self.train.labels[rows], minlength=self.forget_mask.size).min()
        per_class = max(1, min(self.config.train_images // self.forget_mask.size, smallest))
        return np.flatnonzero(sampling.shots(self.train.labels, self.member, per_class, self.seed))

    @cached_property
    def reference_features(self) -> dict[str, features.Extracted]:
        """Features of the test images in the reference models."""
        return {name: self.extract(variables, self.test.images) for name, variables in self.references.items()}

    @cached_property
    def real_copies(self) -> dict[str, duplicates.Duplicates]:
        """`copies` of real training images, as many as synthetic ones are looked at, or all: what to read those beside."""
        count = min(self.config.synthetic_images, len(self.train))
        return self.copies(self.train.images[sampling.draw(np.arange(len(self.train)), count, self.seed)])

    def copies(self, images) -> dict[str, duplicates.Duplicates]:
        """Duplicates among images uint8 [N, H, W, C'] by their pixels and by the original's penultimate features."""
        penultimate = self.extract(self.references["original"], images, (features.PENULTIMATE,)).layers[
            features.PENULTIMATE
        ]
        return {
            "pixels": duplicates.duplicates(images.reshape(len(images), -1)),
            "features": duplicates.duplicates(penultimate),
        }

    def extract(self, variables, images, layers=None) -> features.Extracted:
        e = self.evaluator
        return features.extract(self.classifier, variables, images, e.mean, e.std, layers or self.layers, e.batch_size)

    def logits(self, variables, images) -> np.ndarray:
        return self.extract(variables, images, (features.PENULTIMATE,)).logits

    def of_forget(self, labels) -> np.ndarray:
        return self.forget_mask[labels]

    def relearn_setup(self) -> relearn.RelearnSetup:
        c = self.config
        steps = c.relearn_steps or 10 * -(-int(self.member.sum()) // c.relearn_batch)
        return relearn.RelearnSetup(
            self.classifier, steps, self.augmentation, self.evaluator.mean, self.evaluator.std, c.relearn_batch
        )


@dataclass
class Record:
    """What was found of one model; a measurement is {"model", "metric", "value", "unit", "low", "high", "n", "tier", "note"}."""

    model: str
    measurements: list = field(default_factory=list)
    curves: list = field(default_factory=list)

    def add(self, metric, value, unit, tier, n=None, low=None, high=None, note=""):
        value = None if value is None else float(value)
        self.measurements.append(
            {
                "model": self.model,
                "metric": metric,
                "value": value,
                "unit": unit,
                "low": low,
                "high": high,
                "n": n,
                "tier": tier,
                "note": note,
            }
        )
