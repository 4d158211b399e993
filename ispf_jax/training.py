"""The original and the retrained classifier: supervised training with selection on a validation split."""

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import memory, optim
from ispf_jax.augment import KINDS
from ispf_jax.classifier import Classifier, Network
from ispf_jax.data import ImageData, check_classes, train_val_split
from ispf_jax.errors import UserError
from ispf_jax.evaluate.accuracy import accuracies, confusion
from ispf_jax.forget import ForgetSet, forget_set, joined
from ispf_jax.models import build_classifier
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable
from ispf_jax.runtime.guard import read_bounded, reading
from ispf_jax.runtime.loop import RunOptions, Task, run
from ispf_jax.runtime.schema import set_aside
from ispf_jax.runtime.store import Saved, identity
from ispf_jax.settings import Settings, key
from ispf_jax.state import TrainState, new_net, random_stream, split_seed
from ispf_jax.supervised import SupervisedSetup, supervised_epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Train(Settings):
    """Hyper-parameters of original and retrained models: SGD with momentum and a multi-step schedule [paper].

    Attributes:
      epochs: passes over the training images.
      batch_size: images per step [paper].
      lr: learning rate, SGD.
      decay_epochs: epochs after which the learning rate is multiplied by decay_factor; empty: never.
      decay_factor: [paper].
      momentum: [program].
      weight_decay: [program].
      augment: none, or crop_flip (crop 32 after padding 4, horizontal flip) [program: CIFAR only].
      augment_validation: [program: True, its validation split carries the training augmentation].
      val_fraction: share of the training images held out to select the epoch [program].
    """

    epochs: int = key(50, above=0, below=10**6)
    batch_size: int = key(256, above=0, below=2**20)
    lr: float = key(0.1, above=0)
    decay_epochs: tuple[int, ...] = key("30", above=0)
    decay_factor: float = key(0.1, above=0, most=1)
    momentum: float = key(0.9, least=0, below=1)
    weight_decay: float = key(0.0001, least=0)
    augment: str = key("none", among=KINDS)
    augment_validation: bool = key(False)
    val_fraction: float = key(0.2, above=0, below=1, at="data.val_fraction")


@dataclass(frozen=True)
class Split:
    """Which training images a classifier was trained on and selected by, bool [M]; kept in `split.npz`."""

    train: np.ndarray
    validation: np.ndarray

    def save(self, directory: Path):
        content = io.BytesIO()
        np.savez(content, train=self.train, validation=self.validation)
        atomic_write_bytes(ensure_writable(directory) / "split.npz", content.getvalue())

    @classmethod
    def load(cls, directory: Path, images: int) -> "Split | None":
        """That of so many images in a directory; None if there is none, or it was damaged and has been set aside."""
        path = directory / "split.npz"
        if not path.exists():
            return None
        try:
            with reading(path), np.load(io.BytesIO(read_bounded(path, 4 * images + (1 << 16)))) as file:
                parts = [_mask(file, name, images) for name in ("train", "validation")]
            return cls(*parts)
        except UserError as error:
            set_aside(path, error)
            return None


def _mask(archive, name: str, length: int) -> np.ndarray:
    """An array, bool [length], of an npz archive, of which no more is read than such an array needs."""
    with archive.zip.open(f"{name}.npy") as file:
        content = file.read(length + 1024)
    mask = np.load(io.BytesIO(content), allow_pickle=False, max_header_size=1024)
    if mask.dtype != bool or mask.shape != (length,):
        raise ValueError(f"{name} is {mask.dtype} {list(mask.shape)}, but must be bool [{length}]")
    return mask


def train(
    data: ImageData,
    network: str | nn.Module | Network = "allcnn",
    *,
    width: float = 1.0,
    mean=0.5,
    std=0.5,
    without: Iterable[int | str] = (),
    seed: int = 0,
    config: Train | None = None,
    **options,
) -> Classifier:
    """Train a classifier on a data set, or on all of its classes but some: the original, or the retrained reference.

    Args:
      network: a name of `models.CLASSIFIERS`, a module, or a `Network` (whose normalisation then counts).
      width: factor on the number of filters, where `network` is a name.
      mean, std: normalisation for pixels in [0, 1]; one number, or one per channel.
      without: ids or names of classes to leave out.
      config: hyper-parameters.
      options: how the run is carried out, kept and shown; see `RunOptions`.

    Returns:
      The classifier of the epoch that is best on the validation split. Its `origin` holds "split" (`Split`), "meta"
      ({"epoch", "seconds", "best_epoch", "best_score"}) and "history".

    Raises:
      ArgumentError: an argument is wrong, or a class would have no training image.
    """
    left_out = forget_set(without, data.class_names) if without else ()
    if not isinstance(network, Network):
        module = build_classifier(network, data.num_classes, width) if isinstance(network, str) else network
        network = Classifier(module, {}, image_shape=data.image_shape, mean=mean, std=std).network
    return fit(
        data, network, ~np.isin(data.train.labels, left_out), left_out, seed, Train.of(config), RunOptions.of(options)
    )


def stream_name(left_out: ForgetSet) -> str:
    """The random stream of a training run, so that original and retrained models of one seed are independent."""
    return f"retrain {joined(left_out)}" if left_out else "original"


def split_of(data: ImageData, member, left_out: ForgetSet, seed: int, config: Train, stream: str = "") -> Split:
    """The validation split of a training run; ArgumentError if it leaves no image of a class to train on."""
    stream = stream or stream_name(left_out)
    train_mask, validation = train_val_split(member, config.val_fraction, split_seed(seed, stream))
    check_classes(data.train.labels, train_mask, data.class_names, left_out, stream)
    return Split(train_mask, validation)


def largest_batch(batch_size: int, images: int, devices) -> int:
    """`batch_size`, or as many images as there are, rounded up to what divides over the devices."""
    most = -(-images // devices.count) * devices.count
    if batch_size > most > 0:
        _warn_of_batch(batch_size, images, most)
    return min(batch_size, most) or batch_size


@cache
def _warn_of_batch(batch_size, images, most):
    """Once: a sweep trains many models on the same images."""
    log.warning("a batch of %d is more than the %d training images; batches of %d are used", batch_size, images, most)


def fit(
    data: ImageData, network: Network, member, left_out, seed: int, config: Train, options: RunOptions, stream: str = ""
) -> Classifier:
    """Train on 80 % of the images whose `member` flag [M] is set, select the best epoch on the other 20 %.

    Every subset of the data runs the same compiled program. For arguments and result see `train`.
    """
    devices = options.chosen()
    devices.check_batch(config.batch_size)
    batch_size = largest_batch(config.batch_size, len(data.train), devices)
    memory.check_training(network, batch_size, devices, data.train.images.nbytes)
    stream = stream or stream_name(left_out)
    split = split_of(data, member, left_out, seed, config, stream)
    if options.directory:
        devices.share(lambda: split.save(options.directory))

    images, labels = devices.replicate((data.train.images, data.train.labels))
    _, init_key, run_key, val_key = jax.random.split(random_stream(seed, stream), 4)
    setup = SupervisedSetup(network, optim.sgd(config.momentum, config.weight_decay), batch_size, config.augment)
    program = devices.compile(supervised_epoch, setup, donate=1)
    state = TrainState(new_net(network.init(init_key), setup.optimizer), run_key, jnp.int32(0))
    members = jnp.asarray(split.train)
    empty = Classifier.of(network, {}, data.class_names)

    def run_epoch(state, epoch, meta):
        rate = optim.multi_step(epoch, config.lr, config.decay_epochs, config.decay_factor)
        state, metrics = program(state, images, labels, members, jnp.float32(rate))
        return state, {f"train/{name}": value for name, value in metrics.items()} | {"learning_rate": rate}

    def score(variables, epoch):
        counts = confusion(
            network,
            variables,
            images,
            labels,
            member=split.validation,
            batch_size=options.evaluation_batch,
            augmented=(config.augment if config.augment_validation else "none", jax.random.fold_in(val_key, epoch)),
        )
        accuracy = accuracies(counts, ()).overall
        measured = {"validation/accuracy": accuracy, "score": accuracy}
        more = options.callback and options.callback(empty.replace(variables=variables), {"epoch": epoch, **measured})
        return (more or {}) | measured

    task = Task(
        options.title or f"{stream} seed {seed}",
        config.epochs,
        -(-int(split.train.sum()) // batch_size),
        lambda state: program.prepare(state, images, labels, members, jnp.float32(config.lr)),
        run_epoch,
        lambda state: state.net.variables,
        score,
        ("train/loss", "train/accuracy", "validation/accuracy"),
        identity=identity(stream, seed, network),
    )
    saved, history = run(task, state, options, devices)
    return trained(network, saved, split, data.class_names, history)


def trained(network: Network, saved: Saved, split: Split, class_names, history=()) -> Classifier:
    """The selected classifier of a training run."""
    origin = {"split": split, "meta": saved.meta, "history": list(history)}
    return Classifier.of(network, saved.best, class_names, origin)
