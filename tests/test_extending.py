"""docs/extending.md does what it says: its configuration, which adds a method, a network and a data set, is run."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ispf_jax import data
from ispf_jax.classifier import Classifier, Network
from ispf_jax.config import make_experiment
from ispf_jax.distill import LossWeights
from ispf_jax.errors import UserError
from ispf_jax.files import load, read_weights, torch_zip
from ispf_jax.methods import METHODS
from ispf_jax.models import CLASSIFIERS, build_classifier
from ispf_jax.runtime.telemetry import read_metrics
from ispf_jax.unlearning import distill_setup
from tests.models import torch_networks
from tests.sweep.test_pipeline import tiny
from tests.test_launch import ROOT, launch

CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    (folder / "mine.py").write_text(CODE[0])
    digits = data.load("digits")
    splits = {"train": digits.train, "test": digits.test}
    np.savez(
        folder / "arrays.npz",
        **{f"{name}_{what}": getattr(split, what) for name, split in splits.items() for what in ("images", "labels")},
    )
    settings = {
        "stages": "original,unlearn,audit,report",
        "audit.metrics": "accuracy,features",
        "train.epochs": 10,
        "distill.epochs": 6,
        "distill.loops": 3,
        "model.width": 0.125,
        "generator.width": 0.125,
        "export": "pt",
    }
    done = launch(
        "--config=mine.py",
        "--workdir=work",
        *(f"--config.{key}={value}" for key, value in settings.items()),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "work"


def test_all_three_are_in_the_results(ran):
    rows = json.loads((ran / "results.json").read_text())["rows"]
    assert {(row["dataset"], row["arch"]) for row in rows} == {("arrays", "plain_cnn")}
    original, *_ = [row for row in rows if row["method"] == "original"]
    assert original["acc_overall"] > 80  # the images and labels are those of the file
    assert {row["method"] for row in rows} >= {"ispf", "ispf_sure"}
    assert re.search(r"<t[dh][^>]*>\s*ispf_sure", (ran / "report" / "index.html").read_text())


def test_the_rule_of_ones_own_decides_what_the_student_sees(ran):
    kept = {
        method: [r["kept"] for r in read_metrics(ran / f"unlearn/dfq/{method}/3/seed0/metrics.jsonl") if r.get("kept")]
        for method in ("ispf", "ispf_sure")
    }
    assert set(kept["ispf"]) == {128} and kept["ispf_sure"] and min(kept["ispf_sure"]) < 128


def test_files_have_the_names_that_were_entered(ran):
    tensors = read_weights(ran / "unlearn/dfq/ispf_sure/3/seed0/weights.pt").tensors
    assert {"Conv_0.weight", "BatchNorm_2.running_var", "Dense_0.bias"} <= set(tensors)
    assert tensors["Dense_0.weight"].shape == (10, 32)


@pytest.fixture
def mobile(monkeypatch):
    """The network of the page, in the table."""
    monkeypatch.setitem(CLASSIFIERS, "mobilenetv2", None)
    made = {}
    exec(CODE[1], made)
    return made["MobileNetV2"]


def test_the_network_of_the_page_is_the_known_one_and_found_in_a_file(mobile, tmp_path):
    """3,504,872 parameters are torchvision's; the file has its tensors in alphabetical order."""
    shapes = jax.eval_shape(mobile(1000).init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 3_504_872
    made = Classifier(mobile(3), {}, image_shape=(32, 32, 3))
    rng = np.random.default_rng(0)
    made = made.replace(variables=jax.tree.map(lambda s: rng.random(s.shape, np.float32) + 0.1, made.network.shapes()))
    found = load(made.save(tmp_path / "net.pt"), image_shape=(32, 32, 3))
    assert found.network == made.network
    jax.tree.map(np.testing.assert_array_equal, found.variables, made.variables)
    tensors = read_weights(tmp_path / "net.pt").tensors
    less = tensors | {"Conv_3.weight": tensors["Conv_3.weight"][:, :, 0]}
    (tmp_path / "net.pt").write_bytes(torch_zip.write(less, {}))
    with pytest.raises(UserError, match="nearest network"):
        load(tmp_path / "net.pt", image_shape=(32, 32, 3))


@pytest.mark.slow
def test_the_network_of_the_page_computes_what_torchvisions_does(mobile, tmp_path):
    torch, tv, _, _ = torch_networks.modules()
    net = torch_networks.general_position(torch, tv.mobilenet_v2(num_classes=5))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    found, want = load(tmp_path / "net.pt", image_shape=(64, 64, 3)), torch_networks.logits(torch, net, x)
    got = found.module.apply(found.variables, x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * abs(want).max())
    back = read_weights(found.save(tmp_path / "back.pt")).tensors
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(back[key], value.numpy(), key)


@pytest.mark.parametrize("field", ["keep", "target"])
def test_a_misspelt_rule_is_found_before_anything_is_trained(monkeypatch, field):
    monkeypatch.setitem(METHODS, "mine", dataclasses.replace(METHODS["ispf"], **{field: "sur"}))
    with pytest.raises(UserError, match=f"config.methods: 'mine' has {field}='sur' is unknown; use a function"):
        make_experiment(tiny(methods="mine"))


def test_every_weight_of_a_loss_term_arrives_or_contradicts_the_base():
    config, network = tiny(), Network(build_classifier("allcnn", 10), (16, 16, 1), (0.5,), (0.5,))
    names = [field.name for field in dataclasses.fields(LossWeights)]
    plain = make_experiment(config).distill
    assert dataclasses.astuple(distill_setup(network, plain, "zskt").weights) == (1, 0, 0, 0, 0) and names[0] == "adv"
    remix = distill_setup(network, plain, "remix")
    assert (remix.replayed, remix.mixup, remix.weight_logits) == (plain.batch_size // 2, 1, 1)
    for n, name in enumerate(names, start=2):
        config.distill[f"weight_{name}"] = float(n)
    asked = make_experiment(config).distill
    for base in ("dfq", "remix"):
        assert dataclasses.astuple(distill_setup(network, asked, base).weights) == (2, 3, 4, 5, 6)
    with pytest.raises(UserError, match=r"weight_adv=2\.0 contradicts the base zskt, which sets it to 1\.0"):
        distill_setup(network, asked, "zskt")
    with pytest.raises(UserError, match=r"mixup=0\.5 mixes earlier images, but replay=0"):
        distill_setup(network, dataclasses.replace(plain, mixup=0.5))
