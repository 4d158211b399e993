"""The estimate of the time on a CPU, and when it is told."""

import numpy as np
import pytest

from configs import digits_ispf, svhn_ispf
from ispf_jax import data as data_room
from ispf_jax import estimate, pipeline
from ispf_jax.config import make_experiment
from ispf_jax.data import ArrayDataset, ImageData
from ispf_jax.models import build_classifier

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


def test_work_grows_with_what_is_asked_for():
    def total(sets=1, **keys):
        config = svhn_ispf.get_config()
        config.update(keys)
        return estimate.total_flops(make_experiment(config), build_classifier("allcnn", 10, 0.1), (32, 32, 3), 1000, sets)

    original, retrain, gkt = (total(stages=s, methods="gkt") for s in ("original", "retrain", "unlearn"))
    assert original == retrain > 0 and gkt > 0
    assert total(stages="original,retrain,unlearn,report", methods="gkt,ispf") == pytest.approx(original + retrain + 2 * gkt)
    assert total(stages="original,retrain,unlearn", methods="gkt", sets=3) == pytest.approx(original + 3 * (retrain + gkt))
    assert total(stages="unlearn", methods="gkt", base="dfq,zskt", seeds="0,1") == pytest.approx(4 * gkt)
    assert total(stages="report") == 0


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
        pipeline.Pipeline(make_experiment(config), tmp_path).announce()
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
