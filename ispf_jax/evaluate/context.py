"""What every measurement of an audit is given: the data, the references, and the model with what is found of it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ispf_jax.classifier import Classifier, Network
from ispf_jax.data.dataset import ArrayDataset, ImageData
from ispf_jax.evaluate import duplicates, features, inversion, sampling, signals
from ispf_jax.evaluate.features import PENULTIMATE, Extracted
from ispf_jax.evaluate.settings import Audit
from ispf_jax.evaluate.statistics import mean_share, wilson
from ispf_jax.runtime.metrics import metric


class Attackers(NamedTuple):
    """What membership attacks learned from shadow models of the data set: made once, used for every model.

    Attributes:
      mia2: parameters of the attack network, None if not asked for.
      lira: statistic of the shadows on all training images, [K, M], and which were trained on which, bool [K, M].
      shadows: hashes of the weights of all these shadow models.
    """

    mia2: dict | None = None
    lira: Any = None
    shadows: tuple[str, ...] = ()


@dataclass
class Context:
    """What all models of an audit are measured against.

    Attributes:
      member: bool [M], the original's training split.
      forget_mask: bool [C].
      network: the original's and the retrained models'.
      references: "original" and, if there is one, "retrain".
      oracles: all retrained models, the first of which is "retrain".
      synthetic: synthetic images of the first student that makes some, for models without a generator; None: of none.
      seed: of every random choice of images.
      augmentation: used where a model is trained again.
      batch_size: images per forward pass.
      attackers: set when they are trained.
      found: {model: what `measure` found of it} of the models measured so far.
    """

    network: Network
    data: ImageData
    member: np.ndarray
    forget_mask: np.ndarray
    references: dict[str, Classifier]
    config: Audit
    seed: int = 0
    augmentation: str = "none"
    batch_size: int = 500
    attackers: Attackers = Attackers()
    found: dict[str, dict] = field(default_factory=dict)
    oracles: tuple[Classifier, ...] = ()
    synthetic: Any = None

    @property
    def have(self) -> set[str]:
        """What there is to measure with, names of `metrics.NEEDS`."""
        trained = np.bincount(self.train.labels[self.member], minlength=self.forget_mask.size)
        there = {
            "generator": self.synthetic is not None,
            "test": len(self.test) > 0,
            "forgotten": self.test_forgotten.any(),
            "train": trained.all(),
            "shadows": self.attackers.mia2 or self.attackers.lira,
            "retrained": self.oracles,
            "oracles": len(self.oracles) > 1,
        }
        return {name for name, is_there in there.items() if is_there}

    @property
    def asked(self) -> list[str]:
        """The families of measurements to make, less those whose shadow models are missing."""
        return [name for name in self.config.metrics if getattr(self.attackers, name, True) is not None]

    @property
    def forget(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(self.forget_mask).tolist())

    @property
    def train(self) -> ArrayDataset:
        return self.data.train

    @property
    def test(self) -> ArrayDataset:
        return self.data.test

    @cached_property
    def device_images(self):
        """Training and test images on the device."""
        return jnp.asarray(self.train.images), jnp.asarray(self.test.images)

    @cached_property
    def test_forgotten(self) -> np.ndarray:
        """Bool [T], the test images of forgotten classes."""
        return self.forget_mask[self.test.labels]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers whose features are read: `config.layers` of them, evenly up to the penultimate."""
        names = features.layer_names(self.network)[:-1]
        places = np.linspace(0, len(names), self.config.layers + 1)[1:-1]
        return (*(names[int(p) - 1] for p in places if int(p) >= 1), PENULTIMATE)

    @cached_property
    def probe_rows(self) -> np.ndarray:
        """Training images that probes and neighbours learn from: class-balanced, at most `config.train_images`."""
        rows, classes = np.flatnonzero(self.member), self.forget_mask.size
        if len(rows) <= self.config.train_images:
            return rows
        smallest = np.bincount(self.train.labels[rows], minlength=classes).min()
        per_class = max(1, min(self.config.train_images // classes, smallest))
        return np.flatnonzero(sampling.shots(self.train.labels, self.member, per_class, self.seed))

    @cached_property
    def reference_features(self) -> dict[str, Extracted]:
        """Features of the test images in the reference models."""
        return {name: self.extract(model, self.test.images, name) for name, model in self.references.items()}

    @cached_property
    def real_copies(self) -> dict[str, duplicates.Duplicates]:
        """`copies` of real training images, as many as synthetic ones are looked at, or all, to compare those with."""
        images = self.train.images[sampling.some(len(self.train), self.config.synthetic_images, self.seed)]
        return copies(images, self.extract(self.references["original"], images))

    @cached_property
    def inverted(self) -> tuple[np.ndarray, np.ndarray]:
        """Images inverted from the original, and their classes, see `invert`."""
        return self.invert(self.references["original"])

    def invert(self, model: Classifier) -> tuple[np.ndarray, np.ndarray]:
        """(images, classes) inverted from a model: of the forgotten classes, and of others up to a number."""
        config, retained = self.config, np.flatnonzero(~self.forget_mask)
        count = max(1, min(retained.size, config.inverted_classes - len(self.forget)))
        others = sampling.draw(retained, count, self.seed)
        classes = np.repeat([*self.forget, *others], config.inverted_images)
        return inversion.invert(model.network, model.variables, classes, config.inversion_steps, self.seed), classes

    @cached_property
    def oracle_margins(self) -> dict[str, np.ndarray]:
        """Margins [R, N] of the retrained models, on forgotten "test" and "train" images."""
        sides = ("test", "train") if "train" in self.have else ("test",)
        return {side: np.stack([self.margins(of, side) for of in self.oracles]) for side in sides}

    def margins(self, model: Classifier, side: str) -> np.ndarray:
        """`signals.scaled_confidence` of forgotten images: "test", or those of the original's training split."""
        data, rows = (self.test, self.test_forgotten) if side == "test" else (self.train, self.train_forgotten)
        return signals.scaled_confidence(self.extract(model, data.images[rows]).logits, data.labels[rows])

    def layers_of(self, model: Classifier) -> tuple[str, ...]:
        """The layers of a model that are looked at; of another network than the original's, the penultimate one."""
        return self.layers if model.network == self.network else (PENULTIMATE,)

    def extract(self, model: Classifier, images, name="the model") -> Extracted:
        """`features.extract` of the layers that are looked at."""
        layers = self.layers_of(model)
        return features.extract(model.network, model.variables, images, layers, self.batch_size, name)

    def train_logits(self, subject: "Subject", rows) -> tuple[np.ndarray, np.ndarray]:
        """A model's logits of some training images, and their labels."""
        return self.extract(subject.model, self.train.images[rows]).logits, self.train.labels[rows]

    def same_network(self, subject: "Subject") -> bool:
        """Whether a model's weights can be compared with the original's."""
        return subject.model.network == self.network

    @property
    def train_forgotten(self) -> np.ndarray:
        """Bool [M], the forgotten images of the original's training split."""
        return self.member & self.forget_mask[self.train.labels]


def copies(images, of_original: Extracted) -> dict[str, duplicates.Duplicates]:
    """Duplicates among images uint8 [N, H, W, C'] by their pixels and by the original's penultimate features."""
    spaces = {"pixels": images.reshape(len(images), -1), "features": of_original.layers[PENULTIMATE]}
    return {name: duplicates.duplicates(values) for name, values in spaces.items()}


@dataclass
class Subject:
    """A model to be measured, and what was found of it.

    Attributes:
      member: the training images it was selected on, bool [M] (the original's for a student).
      synthetic: images of a student's generator, uint8 [N, H, W, C'].
      synthetic_pass: the original's logits and features of them.
      test: its own logits and features of the test images, once they are computed.
      hits: which test images count for a share, as "0110...", for comparisons of models on the same images.
    """

    name: str
    model: Classifier
    member: np.ndarray
    synthetic: np.ndarray | None = None
    synthetic_pass: Extracted | None = None
    test: Extracted = Extracted(np.empty(0), {})
    measurements: list[dict] = field(default_factory=list)
    curves: list[dict] = field(default_factory=list)
    hits: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value, n=None, interval=(None, None), note=""):
        """Record a value."""
        known, (low, high) = metric(name), interval
        value, n = (None if x is None else kind(x) for x, kind in ((value, float), (n, int)))
        found = {"model": self.name, "metric": name, "value": value, "unit": known.measured_in}
        self.measurements.append(found | {"low": low, "high": high, "n": n, "tier": known.tier, "note": note})

    def add_share(self, name: str, hits: int, n: int, note="", images="test images"):
        """Record the share of hits among n images in percent, with its interval."""
        if n:
            self.add(name, 100 * hits / n, n, wilson(hits / n, n), note)
        else:
            self.add(name, None, 0, note=f"no {images}")

    def add_hits(self, name: str, hits, note=""):
        """Record the share of test images that are hits, bool [N], and which they are."""
        self.add_share(name, int(np.sum(hits)), len(hits), note)
        self.hits[name] = "".join(map(str, np.asarray(hits, int)))

    def add_draws(self, name: str, percents, n: int, note=""):
        """Record the mean of shares of the same n images over draws, with its interval; the note has the spread."""
        spread = f"{len(percents)} draws: {min(percents):.4g} to {max(percents):.4g}"
        self.add(name, np.mean(percents), n, mean_share(percents, n), "; ".join(filter(None, (note, spread))))
