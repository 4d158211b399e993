"""The estimate of the time on a CPU, and when it is told."""

import numpy as np
import pytest

from configs import digits_ispf, svhn_ispf
from ispf_jax import data as data_room
from ispf_jax.config import make_experiment
from ispf_jax.data import ArrayDataset, ImageData
from ispf_jax.models import build_classifier
from ispf_jax.sweep import estimate, pipeline
from ispf_jax.sweep.jobs import Job

# Multiply-adds of AllCNN at width 1 on 32x32 colour images: positions * kernel^2 * filters in * filters out, layer by layer.
ALLCNN_MACS = (
    32 * 32 * 9 * (3 * 96 + 96 * 96)  # conv1, conv2
    + 16 * 16 * 9 * (96 * 192 + 2 * 192 * 192)  # conv3 with stride 2, conv4, conv5
    + 8 * 8 * 9 * 2 * 192 * 192  # conv6 with stride 2, conv7
    + 8 * 8 * 192 * 192  # conv8, 1x1
    + 192 * 10
)


@pytest.mark.parametrize("batch", [1, 4])
def test_forward_flops_are_those_counted_by_hand(batch):
    flops = estimate.forward_flops(build_classifier("allcnn", 10), (32, 32, 3), batch)
    assert flops == pytest.approx(2 * ALLCNN_MACS * batch, rel=0.1)


def test_the_work_of_every_kind_of_job():
    """Passes of the classifier (1 each) and the generator (100 each) over images, counted by hand."""
    config = svhn_ispf.get_config()
    config.train.update(epochs=3, batch_size=100)
    config.distill.update(epochs=5, loops=2, generator_steps=1, student_steps=4, warmup_epochs=1, batch_size=10)
    config.audit.update(relearn_steps=7, relearn_batch=5, shots="1")
    config.methods, config.base = "gkt,ispf", "dfq"
    cost = estimate.Costs(make_experiment(config), 1.0, 100.0, np.array([500, 300, 200]))
    original, retrain, shadow = Job("original", 0), Job("retrain", 0, (1,)), Job("shadow", 0, method="mia2")
    unlearn, audit = Job("unlearn", 0, (1,), "dfq", "gkt"), Job("audit", 0, (1,))
    assert [cost.steps(j) for j in (original, retrain, shadow, unlearn, audit)] == [3 * 8, 3 * 6, 3 * 4, 40, 0]
    assert cost.flops(original) == pytest.approx(3 * (3 * 800 + 200))
    assert cost.flops(retrain) == pytest.approx(3 * (3 * 560 + 140))
    assert cost.flops(shadow) == pytest.approx(3 * (3 * 400 + 100))
    assert cost.flops(unlearn) == pytest.approx(400 * (100 + 4) + 120 * (300 + 4))
    assert cost.flops(audit) == pytest.approx((4 + 2) * 4 * 7 * 5 * 3)


def test_the_machines_rate_is_measured():
    assert 1e8 < estimate.matmul_rate(size=256, repeats=4) < 1e15


@pytest.fixture
def announced(tmp_path, monkeypatch, capsys):
    """What a configuration says on images of a given shape before it begins; at a fixed rate, so that no machine decides."""

    def announce(config, shape, train, test):
        def split(count):
            return ArrayDataset(np.broadcast_to(np.uint8(0), (count, *shape)), np.arange(count, dtype=np.int32) % 10)

        data = ImageData(config.data.name, split(train), split(test), tuple("0123456789"))
        monkeypatch.setattr(data_room, "load", lambda *_, **__: data)
        monkeypatch.setattr(estimate, "matmul_rate", lambda: 1e11)
        config.devices = 1
        run = pipeline.Run(make_experiment(config), tmp_path)
        run.announce(run.jobs)
        return capsys.readouterr().err

    return announce


def test_a_full_size_configuration_is_announced_with_the_small_ones(announced):
    told = announced(svhn_ispf.get_config(), (32, 32, 3), 73257, 26032)
    assert told.startswith("On this CPU the whole configuration will take about ") and told.count("\n") == 1
    hours = float(told.split("about ")[1].split(" hours")[0])
    assert 1 < hours < 1000
    assert "configs/digits_ispf.py" in told and "svhn_ispf.py:smoke" in told and "the same command continues" in told


def test_small_configurations_are_not_announced(announced):
    assert announced(digits_ispf.get_config(), (16, 16, 1), 1437, 360) == ""
