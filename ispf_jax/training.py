"""The original and the retrained classifier: supervised training with selection on a validation split."""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import optim
from ispf_jax.config import Experiment
from ispf_jax.data import train_val_split
from ispf_jax.evaluate.accuracy import Evaluator, accuracies
from ispf_jax.models import init_variables
from ispf_jax.runtime.atomic import atomic_write_bytes, ensure_writable
from ispf_jax.runtime.loop import Keeping, Task, train
from ispf_jax.runtime.store import Saved
from ispf_jax.state import TrainState, new_net, random_stream, split_seed
from ispf_jax.supervised import SupervisedSetup, supervised_epoch


class SupervisedStage:
    """Trains classifiers on subsets of one training set; every subset runs the same compiled program.

    Args:
      images, labels: the whole training set on the device, uint8 [M, H, W, C] and int32 [M].
    """

    def __init__(self, experiment: Experiment, classifier, devices, images, labels, keeping: Keeping):
        c = experiment.train
        self._config, self._val_fraction = c, experiment.data.val_fraction
        self._classifier, self._devices, self._keeping = classifier, devices, keeping
        self._images, self._labels = images, labels
        self._setup = SupervisedSetup(
            classifier,
            optim.sgd(c.momentum, c.weight_decay),
            c.batch_size,
            c.augment,
            experiment.data.mean,
            experiment.data.std,
        )
        self._program = devices.compile(supervised_epoch, self._setup, donate=1)
        self._evaluator = Evaluator(
            classifier,
            experiment.data.mean,
            experiment.data.std,
            experiment.evaluate.batch_size,
            c.augment if c.augment_validation else "none",
        )

    def run(self, title: str, directory: Path, seed: int, stream: str, member: np.ndarray) -> Saved:
        """Train on 80 % of the images whose `member` flag [M] is set, select the best epoch on the other 20 %.

        The split is left in `split.npz` (bool [M] masks `train` and `validation`): membership inference needs it.

        Args:
          stream: name of the random stream, so that original and retrained models of one seed are independent.
        """
        c = self._config
        _, init_key, run_key, val_key = jax.random.split(random_stream(seed, stream), 4)
        train_mask, val_mask = train_val_split(member, self._val_fraction, split_seed(seed, stream))
        self._devices.share(lambda: keep_split(directory, train_mask, val_mask))

        variables = init_variables(self._classifier, init_key, (1, *self._images.shape[1:]))
        state = TrainState(new_net(variables, self._setup.optimizer), run_key, jnp.int32(0))
        train_member = jnp.asarray(train_mask)

        def prepare(state):
            return self._program.prepare(state, self._images, self._labels, train_member, jnp.float32(c.lr))

        def run_epoch(state, epoch):
            rate = optim.multi_step(epoch, c.lr, c.decay_epochs, c.decay_factor)
            state, metrics = self._program(state, self._images, self._labels, train_member, jnp.float32(rate))
            return state, {f"train/{name}": value for name, value in metrics.items()} | {"learning_rate": rate}

        def score(variables, epoch):
            key = jax.random.fold_in(val_key, epoch)
            confusion = self._evaluator.confusion(variables, self._images, self._labels, val_mask, key=key)
            accuracy = accuracies(confusion, ()).overall
            return {"validation/accuracy": accuracy}, accuracy

        steps = -(-int(train_mask.sum()) // c.batch_size)
        shown = ("train/loss", "train/accuracy", "validation/accuracy")
        task = Task(title, directory, c.epochs, steps, prepare, run_epoch, lambda s: s.net.variables, score, shown)
        return train(task, state, self._keeping, self._devices)


def keep_split(directory: Path, train_mask: np.ndarray, val_mask: np.ndarray):
    """Leave the split of the training images, bool [M] masks, in `split.npz`."""
    content = io.BytesIO()
    np.savez(content, train=train_mask, validation=val_mask)
    atomic_write_bytes(ensure_writable(directory) / "split.npz", content.getvalue())
