"""What cannot be held is refused: the estimates against what XLA says of its programs, and the door and the library."""

import re
from argparse import Namespace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ispf_jax import data, memory, ops, training
from ispf_jax.classifier import Classifier, Network
from ispf_jax.config import default_config, make_experiment
from ispf_jax.data import ImageData
from ispf_jax.devices import Devices, choose
from ispf_jax.distill import distill_epoch, unlearning
from ispf_jax.errors import ArgumentError
from ispf_jax.hyperparameters import Distill
from ispf_jax.methods import METHODS
from ispf_jax.models import build_classifier
from ispf_jax.state import DistillState, TrainState, new_net
from ispf_jax.sweep import plan
from ispf_jax.training import Train
from ispf_jax.unlearning import distill_setup, unlearn

NETWORK = Network(build_classifier("allcnn", 10, 0.125), (16, 16, 3), (0.5,) * 3, (0.5,) * 3)
SHAPE = jax.ShapeDtypeStruct


def estimated(monkeypatch, check, *args) -> float:
    """The bytes of an estimate."""
    found = []
    monkeypatch.setattr(memory, "require", lambda argument, text, needed, devices=None: found.append(needed))
    check(*args)
    return found[-1]


def compiled_bytes(function, *shapes) -> int:
    """What XLA says that a program holds."""
    with ops.convolutions("xla"):
        analysis = jax.jit(function, donate_argnums=0).lower(*shapes).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes


@pytest.mark.slow
def test_no_estimate_is_more_than_a_program_holds_nor_much_less(monkeypatch):
    alone, batch = Devices((jax.devices()[0],)), 256
    setup = distill_setup(NETWORK, Distill(batch_size=batch, loops=1, generator_width=0.25))

    def nets(key):
        generator = setup.generator.init(key, jnp.zeros((1, setup.latent_dim)))
        student = new_net(NETWORK.init(key), setup.student_optimizer)
        return DistillState(student, new_net(generator, setup.generator_optimizer), key, jnp.int32(0))

    state, request = jax.eval_shape(nets, jax.random.key(0)), unlearning(METHODS["ispf"], [3], 10, 0.01)
    held = compiled_bytes(partial(distill_epoch, setup), state, NETWORK.shapes(), request)
    assert 0.4 * held < estimated(monkeypatch, memory.check_unlearning, setup, alone) < held

    trained = training.SupervisedSetup(NETWORK, training.optim.sgd(), batch, "none")
    state = TrainState(state.student, state.key, state.epoch)
    images = SHAPE((300, 16, 16, 3), jnp.uint8), SHAPE((300,), jnp.int32), SHAPE((300,), bool), SHAPE((), jnp.float32)
    held = compiled_bytes(partial(training.supervised_epoch, trained), state, *images)
    assert 0.4 * held < estimated(monkeypatch, memory.check_training, NETWORK, batch, alone, 300 * 768) < held


ORIGINAL, UNLEARN, AUDIT = "original", "unlearn", "original,audit"
REFUSED = [
    ({"train.batch_size": 8}, ORIGINAL, "data.max_train"),
    ({"model.width": 63.0}, ORIGINAL, "model.width"),
    ({"model.width": 63.0}, UNLEARN, "model.width"),
    ({"distill.batch_size": 2**20 - 8}, UNLEARN, "distill.batch_size"),
    ({"generator.width": 63.0}, UNLEARN, "generator.width"),
    ({"generator.latent_dim": 65535, "generator.width": 5.0}, UNLEARN, "generator.latent_dim"),
    ({"distill.replay": 0.5, "distill.memory": 2**24 - 1}, UNLEARN, "distill.memory"),
    ({"base": "remix", "distill.memory": 2**24 - 1}, UNLEARN, "distill.memory"),
    ({"audit.synthetic_images": 10**5}, AUDIT, "audit.synthetic_images"),
    ({"seeds": ",".join(map(str, range(10_000))), "forget": "each"}, ORIGINAL, "seeds"),
]


@pytest.mark.parametrize("changes, stages, key", REFUSED, ids=[f"{stages} {key}" for _, stages, key in REFUSED])
def test_the_program_names_the_key_the_estimate_and_what_there_is(monkeypatch, changes, stages, key):
    """On a machine of 2 GiB; for the images themselves on one of half their size."""
    config = default_config()
    config.update_from_flattened_dict(
        {"data.max_train": 200, "data.image_size": 16, "train.batch_size": 128, "stages": stages} | changes
    )
    e = make_experiment(config)
    count = 10**6 if key == "data.max_train" else 200
    split = np.broadcast_to(np.uint8(0), (count, 16, 16, 1)), np.arange(count, dtype=np.int32) % 10
    there = 2**27 if count > 200 else 2**31
    monkeypatch.setattr(memory, "host_bytes", lambda: there)
    images = ImageData(split, split, tuple(map(str, range(10))))
    network = Classifier(build_classifier("allcnn", 10, e.model.width), {}, image_shape=(16, 16, 1)).network
    sets = tuple((c,) for c in range(10)) * 10
    with pytest.raises(ArgumentError) as caught:
        plan.check(e, images, Devices((jax.devices()[0],)), sets, Namespace(network=network, student=network))
    assert caught.value.argument == f"config.{key}" and "\n" not in str(caught.value)
    if key != "seeds":
        needed, limit = re.search(
            r"at least ([\d,.]+) GiB of memory, but this machine has ([\d,.]+) GiB", str(caught.value)
        ).groups()
        assert float(needed.replace(",", "")) > float(limit) == pytest.approx(there / 2**30, abs=0.06)


def test_python_users_get_the_same_at_once(monkeypatch):
    digits = data.load("digits", max_train=100, max_test=50)
    module = build_classifier("allcnn", 10, 0.0625)
    teacher = Classifier(module, {}, image_shape=(16, 16, 1))
    monkeypatch.setattr(memory, "host_bytes", lambda: 2**30)
    for call, argument in (
        (lambda: unlearn(teacher, 3, config=Distill(batch_size=2**19)), "batch_size"),
        (lambda: unlearn(teacher, 3, config=Distill(generator_width=30)), "generator_width"),
        (lambda: training.train(digits, width=40.0), "network"),
        (lambda: data.load("digits", image_size=4096, channels=3), "image_size"),
        (lambda: data.load("synthetic", max_train=10**9), "max_train"),
    ):
        with pytest.raises(ValueError, match=f"^{argument}.*at least .* GiB of memory, but this machine has 1.0 GiB"):
            call()


def test_of_devices_with_memory_the_smallest_counts():
    class Device:
        device_kind, process_index, platform = "small", 0, "gpu"

        def __init__(self, size):
            self.size = size

        def memory_stats(self):
            return {"bytes_limit": self.size}

    devices = Devices((Device(2**33), Device(2**20)))
    with pytest.raises(
        ArgumentError, match=r"x=1: that takes at least 0.1 GiB of memory, but a device \(small\) has 0.0"
    ):
        memory.require("x", "=1", 2**27, devices)
    one, two = (Devices((Device(2**33),) * count) for count in (1, 2))
    memory.check_training(NETWORK, 2**17, two)  # each takes half of the batch
    with pytest.raises(ArgumentError, match="batch_size"):
        memory.check_training(NETWORK, 2**17, one)


def test_a_batch_larger_than_the_data_is_cut_and_said(caplog):
    digits = data.load("digits", max_train=50, max_test=50)
    training._warn_of_batch.cache_clear()
    options = {"width": 0.0625, "progress": False, "devices": Devices((jax.devices()[0],))}
    cut, fitting = (
        training.train(digits, config=Train(epochs=1, batch_size=size, decay_epochs=""), **options)
        for size in (100_000, 50)
    )
    jax.tree.map(np.testing.assert_array_equal, cut.variables, fitting.variables)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "a batch of 100000 is more than the 50 training images; batches of 50 are used"
    ]
    assert training.largest_batch(100, 50, choose()) == 56  # a multiple of the eight devices


@pytest.mark.parametrize(
    "config, size, images",
    [
        (Distill(), 32, 0),
        (Distill(replay=0.5), 32, 32768),
        (Distill(replay=0.5), 224, 2**30 // (224 * 224 * 3)),
        (Distill(replay=0.5, memory=40_000), 224, 40_000),
        (Distill().on("remix"), 128, 2**30 // (128 * 128 * 3)),
    ],
)
def test_the_images_kept_for_replay_take_a_gibibyte_unless_their_number_is_given(config, size, images):
    assert config.kept_images((size, size, 3)) == images
