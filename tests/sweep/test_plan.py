"""What a dry run says: jobs, states, steps, and time by operations or by the measured pace."""

import json

import numpy as np
import pytest

from configs import digits_ispf, svhn_ispf
from ispf_jax.config import make_experiment
from ispf_jax.data import ArrayDataset, ImageData
from ispf_jax.models import build_classifier
from ispf_jax.sweep import plan
from ispf_jax.sweep.jobs import Job, jobs
from tests.sweep.test_pipeline import tiny

ORIGINAL, RETRAIN, SHADOW = Job("original", 0), Job("retrain", 0, (1,)), Job("shadow", 0, method="mia2")
UNLEARN, AUDIT = Job("unlearn", 0, (1,), "dfq", "gkt"), Job("audit", 0, (1,))

# Multiply-adds of AllCNN at width 1 on 32x32 colour images: positions * kernel^2 * filters in * filters out.
ALLCNN_MACS = (
    32 * 32 * 9 * (3 * 96 + 96 * 96)  # conv1, conv2
    + 16 * 16 * 9 * (96 * 192 + 2 * 192 * 192)  # conv3 with stride 2, conv4, conv5
    + 8 * 8 * 9 * 2 * 192 * 192  # conv6 with stride 2, conv7
    + 8 * 8 * 192 * 192  # conv8, 1x1
    + 192 * 10
)


def images(shape, train, test):
    """Images that take no memory, with labels 0 to 9 in turn."""

    def split(count):
        return ArrayDataset(np.broadcast_to(np.uint8(0), (count, *shape)), np.arange(count, dtype=np.int32) % 10)

    return ImageData(train=split(train), test=split(test), class_names=tuple("0123456789"), name="synthetic")


def test_forward_flops_are_those_counted_by_hand():
    flops = plan.forward_flops(build_classifier("allcnn", 10), (32, 32, 3))
    assert flops == pytest.approx(2 * ALLCNN_MACS, rel=0.1)


def test_steps_and_passes_of_every_kind_of_job():
    config = svhn_ispf.get_config()
    config.train.update(epochs=3, batch_size=100)
    config.distill.update(epochs=5, loops=2, generator_steps=1, student_steps=4, warmup_epochs=1, batch_size=10)
    config.audit.update(relearn_steps=7, relearn_batch=5, shots="1")
    config.methods, config.base = "gkt,ispf", "dfq"
    found = {
        job: plan.passes_of(make_experiment(config), job, np.array([500, 300, 200]))
        for job in (ORIGINAL, RETRAIN, SHADOW, UNLEARN, AUDIT)
    }
    assert found[ORIGINAL] == (3 * 8, pytest.approx(3 * (3 * 800 + 200)), 0)
    assert found[RETRAIN] == (3 * 6, pytest.approx(3 * (3 * 560 + 140)), 0)
    assert found[SHADOW] == (3 * 4, pytest.approx(3 * (3 * 400 + 100)), 0)
    assert found[UNLEARN] == (40, 4 * 400 + 4 * 120, 400 + 3 * 120)
    assert found[AUDIT] == (0, (5 + 2) * (3 + 3) * 7 * 5 * 3, 0)  # relearning on all classes in three orders


def test_the_time_left_follows_the_pace_of_jobs_of_the_same_kind(tmp_path):
    e = make_experiment(tiny(seeds="0,1,2", stages="original", train__epochs=10))
    planned = jobs(e, ((1,),))
    for job, epochs, seconds in zip(planned, (10, 4), (20.0, 8.0)):
        place = tmp_path / job.place
        (place / "rows" / "1").mkdir(parents=True)
        record = {"epoch": epochs, "seconds": seconds}
        (place / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    row = {"method": "original", "base": "", "dataset": "synthetic", "arch": "allcnn", "forget": "1", "seed": 0}
    row |= {"selection": "best_validation", "access": "training data"}
    row |= dict.fromkeys(("acc_forget", "acc_retain", "acc_overall", "train_seconds"), 0.0)
    row |= dict.fromkeys(("student_steps", "generator_steps", "images_synthesised"), 0)
    (tmp_path / planned[0].place / "rows" / "1" / "result.json").write_text(json.dumps([row]))
    found = plan.plan(e, images((8, 8, 1), 100, 50), planned, tmp_path, ((1,),))
    assert [p.state for p in found] == ["finished", "at epoch 4 of 10", "to do"]
    assert [p.seconds for p in found] == pytest.approx([0, 12, 20]) and all(p.measured for p in found)
    lines = plan.table(found, at_once=2).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["-", "0:12", "0:20"]
    assert lines[4].startswith("2 of 3 jobs to do, ") and lines[4].endswith("about 0:32, 0:16 with 2 jobs at a time")
    assert len(lines) == 5


@pytest.mark.parametrize(
    "config, data, hours",
    [(svhn_ispf, ((32, 32, 3), 73257, 26032), (1, 1000)), (digits_ispf, ((16, 16, 1), 1437, 360), (0, 0.25))],
)
def test_full_configurations_take_hours_and_small_ones_minutes(monkeypatch, config, data, hours):
    """At a fixed rate, so that no machine decides."""
    monkeypatch.setattr(plan, "matmul_rate", lambda: 1e11)
    e = make_experiment(config.get_config())
    seconds = plan.expected_seconds(e, images(*data), jobs(e, ((0,),)))
    assert hours[0] < seconds / 3600 < hours[1]
