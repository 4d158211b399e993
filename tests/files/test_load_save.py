"""Classifiers from files and back: PyTorch's logits, all known names, what is found in a file, and what is refused."""

import logging
import re
from functools import cache
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError
from ispf_jax.files import torch_zip
from ispf_jax.models import CLASSIFIERS, CONVENTIONS, build_classifier
from ispf_jax.models.layers import MaskedBatchNorm, conv, dense

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {"resnet18": "resnet18.pt", "allcnn": "allcnn.safetensors"}
SHAPE, WIDTH = (16, 16, 3), 1 / 16
NET = files.read_weights(FIXTURES / "resnet18.pt").tensors


@cache
def given(network):
    """The classifier that PyTorch wrote."""
    return files.load(FIXTURES / FILES[network], image_shape=SHAPE)


def made(network, width=WIDTH, classes=5, **origin):
    """One with random variables, in the order of their shapes."""
    classifier = Classifier(build_classifier(network, classes, width), {}, image_shape=SHAPE, origin=origin)
    random = np.random.default_rng(0)
    draw = lambda shape: random.uniform(0.1, 2, shape.shape).astype(np.float32)
    return classifier.replace(variables=jax.tree.map(draw, classifier.network.shapes()))


def write(path, tensors):
    """A file of PyTorch with these tensors."""
    path.write_bytes(torch_zip.write({name: np.asarray(value) for name, value in tensors.items()}, {}))
    return path


def assert_same(one, other):
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)


@pytest.mark.parametrize("network", FILES)
def test_logits_are_pytorchs(network):
    """Of a checkpoint of DataParallel with an optimiser in it, and of convolutions with a bias."""
    classifier = given(network)
    made_here = build_classifier(network, 5, WIDTH)
    assert classifier.module == made_here.clone(bias=classifier.module.bias)  # which AllCNN's file has
    assert classifier.num_classes == 5 and classifier.origin["format"] == FILES[network].split(".")[1]
    with np.load(FIXTURES / "logits.npz") as recorded:
        logits = classifier.module.apply(classifier.variables, jnp.asarray(recorded["images"]))[0]
        np.testing.assert_allclose(logits, recorded[network], rtol=1e-4, atol=1e-5)
        assert np.ptp(recorded[network], axis=0).min() > 0.01  # images differ


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
@pytest.mark.parametrize("network", FILES)
def test_written_like_the_file_it_came_from(network, suffix, tmp_path):
    """The same names, tensors and logits; the same bits when it is written again, and no other file."""
    classifier = given(network)
    path = classifier.save(tmp_path / f"net.{suffix}")
    again = files.load(path, image_shape=SHAPE)
    assert_same(again, classifier)
    assert again.origin["naming"] == classifier.origin["naming"]
    assert again.origin["digest"] != classifier.origin["digest"] and again.origin["path"] == str(path)
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    np.testing.assert_array_equal(again(images), classifier(images))
    assert again.save(tmp_path / "again", path.suffix[1:].replace("pth", "pt")).read_bytes() == path.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "again"}
    if suffix == "safetensors":
        expected = safetensors.numpy.load_file(path)
        assert set(expected) == set(classifier.origin["naming"]["keys"])
        np.testing.assert_array_equal(
            expected[sorted(expected)[0]], files.read_weights(path).tensors[sorted(expected)[0]]
        )


def test_pytorch_loads_what_is_written(tmp_path):
    """Strictly, into its own network, and computes the same."""
    torch = pytest.importorskip("torch")
    from tests.files.make_fixtures import ResNet18, allcnn

    for network, net in (("resnet18", ResNet18()), ("allcnn", allcnn())):
        path = given(network).save(tmp_path / "net.pt")
        net.load_state_dict({k.removeprefix("module."): v for k, v in torch.load(path, weights_only=True).items()})
        with np.load(FIXTURES / "logits.npz") as recorded, torch.no_grad():
            got = net.eval().forward(torch.tensor(recorded["images"]).permute(0, 3, 1, 2)).numpy()
            np.testing.assert_allclose(got, recorded[network], rtol=1e-4, atol=1e-5)


RENAMED = {  # what other programs call the layers of torchvision's ResNet
    "shortcut, linear": (("downsample", "shortcut"), ("fc.", "linear.")),
    "classifier": (("fc.", "classifier."),),
    "residual_function": (
        (r"(^|\.)conv1\.(?!\d)", r"\1conv1.0."),
        (r"module\.bn1", "module.conv1.1"),
        (r"layer(\d)\.(\d)\.conv1\.0", r"layer\1.\2.residual_function.0"),
        *((rf"\.(\d)\.{name}\.", rf".\1.residual_function.{n}.") for name, n in (("bn1", 1), ("conv2", 3), ("bn2", 4))),
        *((f"layer{n}", f"conv{n + 1}_x") for n in (4, 3, 2, 1)),
        ("downsample", "shortcut"),
    ),
    "a head in a Sequential": (("fc.", "fc.1."),),
    "blocks of wide ResNets": ((r"layer(\d)\.(\d)", r"block\1.layer.\2"), ("downsample.0", "convShortcut")),
}


@pytest.mark.parametrize("names", RENAMED)
@pytest.mark.parametrize("order", ["as it was", "alphabetical"])
def test_every_naming_goes_in_and_out(names, order, tmp_path):
    tensors = dict(NET) if order == "as it was" else dict(sorted(NET.items()))
    for theirs, ours in RENAMED[names]:
        tensors = {re.sub(theirs, ours, key): value for key, value in tensors.items()}
    found = files.load(write(tmp_path / "net.pt", tensors), image_shape=SHAPE)
    assert_same(found, given("resnet18"))
    back = files.read_weights(found.save(tmp_path / "back.pt")).tensors
    assert list(back) == list(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value)


def test_the_header_is_all_that_is_wanted(tmp_path, caplog):
    """What is given wins, with a warning for the normalisation; another order of the classes is refused."""
    names = ("cat", "dog", "hen", "ox", "pig")
    settings = {"image_shape": SHAPE, "mean": (0.4, 0.5, 0.6), "std": 0.25, "class_names": names}
    classifier = Classifier(build_classifier("allcnn", 5, 0.07), made("allcnn", 0.07).variables, **settings)
    path = files.save(classifier, tmp_path / "net.safetensors", header={"job": "x"})
    with safetensors.safe_open(path, "numpy") as file:
        assert set(file.metadata()) == {"format", "model", "layout", *settings, "job"}
    found = files.load(path)
    assert found.network == classifier.network and found.class_names == names
    assert_same(found, classifier)
    with caplog.at_level(logging.WARNING, "ispf_jax"):
        other = files.load(path, image_shape=(8, 8, 3), mean=0.5, class_names="abcde")
    assert (other.mean, other.std, other.class_names) == ((0.5,), classifier.std, tuple("abcde"))
    assert other.image_shape == (8, 8, 3) and "mean=0.5 is used, but the header" in caplog.text
    with pytest.raises(ArgumentError, match=r"class_names=.*another order"):
        files.load(path, class_names=names[::-1])


@pytest.mark.parametrize("width", [0.005, 0.0372, 1 / 3])
@pytest.mark.parametrize("network", FILES)
def test_filters_and_classes_are_found(network, width, tmp_path):
    classifier = made(network, width, classes=7)
    found = files.load(classifier.save(tmp_path / "net.pt"), image_shape=SHAPE)
    assert found.module == classifier.module
    assert_same(found, classifier)


def changed(**changes):
    return NET | {name.replace("__", "."): np.asarray(value, np.float32) for name, value in changes.items()}


REFUSED = {
    "another network": ({"network": "allcnn"}, NET, "network='allcnn' is not what .*looks like resnet18"),
    "an unknown network": ({"network": "vgg"}, NET, "network='vgg' must be one of allcnn, resnet18"),
    "other classes": ({"class_names": "abcdefg"}, NET, "class_names=abcdefg must be 5 different"),
    "an empty class name": ({"class_names": ["a", "b", " ", "d", "e"]}, NET, r"class_names\[2\]=' ' must be text"),
    "other channels": ({"image_shape": (16, 16, 1)}, NET, "image_shape=.* must have 3 channel"),
    "no shape": ({"image_shape": None}, NET, r"image_shape=\(\) must be \(height"),
    "a missing tensor": (
        {},
        {k: v for k, v in NET.items() if "layer2.0.bn1.running_v" not in k},
        "no module.layer2.0.bn",
    ),
    "a tensor too many": ({}, changed(module__layer2__0__se__weight=1), "it also has module.layer2.0.se.weight"),
    "nothing known": ({}, {"x": np.ones(3, np.float32)}, "holds no network that is known here"),
    "control characters": ({}, changed(**{"module__\x1b[2Jx": 1}), r"it also has module.\\x1b\[2Jx"),
    "odd filters": (
        {},
        changed(module__conv1__weight=np.ones((5, 3, 3, 3))),
        r"nearest network is ResNet: module.layer1.0.conv1.weight is 4x4x3x3 and should be anyx5x3x3",
    ),
    "odd kernels": (
        {},
        changed(module__layer2__1__conv2__weight=np.ones((8, 8, 5, 5))),
        r"layer2.1.conv2.weight is 8x8x5x5 and should be anyx8x3x3",
    ),
    "a scalar": ({}, changed(module__conv1__weight=1), "there is no convolution before the blocks"),
    "one bias alone": ({}, changed(module__layer1__1__conv2__bias=[1]), "there is also module.layer1.1.conv2.bias"),
    "a bias of nothing": ({}, changed(module__relu__bias=[1]), "it also has module.relu.bias"),
    "whole numbers": ({}, NET | {"module.fc.bias": np.ones(5, np.int64)}, "module.fc.bias is of type int64"),
    "a negative variance": ({}, changed(module__bn1__running_var=[1, 1, -1, 1]), "bn1.running_var has negative"),
    "no variance": ({}, changed(module__bn1__running_var=np.zeros(4)), "bn1.running_var has .*nothing but zeros"),
    "not a number": ({}, changed(module__fc__bias=[1, np.nan, 1, 1, 1]), "module.fc.bias has numbers that are not fin"),
    "nothing learned": ({}, changed(module__conv1__weight=np.full((4, 3, 3, 3), 0.5)), "conv1.weight has the same num"),
    "no classes": ({}, NET | {"module.fc.weight": np.ones((0, 32), np.float32)}, "module.fc.weight has no numbers"),
    "too large": ({}, NET | {"module.fc.bias": np.full(5, 1e300)}, "module.fc.bias has numbers that are not finite"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, tmp_path):
    arguments, tensors, message = REFUSED[what]
    path = write(tmp_path / "net.pt", tensors)
    with pytest.raises(ArgumentError, match=message) as refused:
        files.load(path, **{"image_shape": SHAPE} | arguments)
    assert refused.value.argument == next(iter(arguments), "path")


def test_one_of_several_networks_in_a_file(monkeypatch):
    """The one that is named like the network; of several the one with a usual name; two without one are refused."""

    def read(saved):
        monkeypatch.setattr(torch_zip, "read", lambda content: (saved, {}))
        return files.load(FIXTURES / "resnet18.pt", image_shape=SHAPE)

    zeros = {name: np.zeros_like(value) for name, value in NET.items()}
    assert read({"ema": zeros, "model": NET}).variables["params"]["classifier"]["bias"].any()
    assert read({"student": NET, "step": 3}).variables["params"]["classifier"]["bias"].any()
    generator = {"project.weight": np.ones((3, 2), np.float32)}
    assert read({"model": generator, "classifier": NET}).origin["naming"]["keys"] == tuple(NET)
    with pytest.raises(ArgumentError, match=r"several \(ema, student\)"):
        read({"ema": zeros, "student": NET, "generator": generator})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("format", ["pt", "safetensors"])
def test_half_precision_becomes_single(format, dtype, tmp_path):
    half = {name: value.astype(dtype) if value.dtype == np.float32 else value for name, value in NET.items()}
    (tmp_path / "net").write_bytes(files.FORMATS[format].write(half, {}))
    found = files.load(tmp_path / "net", image_shape=SHAPE).variables
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        found["params"]["classifier"]["kernel"], half["module.fc.weight"].astype(np.float32).T
    )


class Flattened(nn.Module):
    """A convolution with a bias and no batch norm, a flattened image, two linear layers."""

    num_classes: int
    width: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False, mask=None, axis=None):
        x = conv(x, 6, 3, 2, name="conv1")
        x = MaskedBatchNorm(name="bn_last")(nn.relu(dense(x.reshape(len(x), -1), 8, name="hidden")), train, mask, axis)
        return dense(x, self.num_classes, name="classifier"), x


def test_a_flattened_image_has_its_channels_first_in_files(tmp_path, monkeypatch):
    """Against NumPy in PyTorch's layout, for a network of the user's; nothing of it is dropped."""
    monkeypatch.setitem(CLASSIFIERS, "flattened", Flattened)
    names = {"conv1": "conv1", "fc1": "hidden", "norm": "bn_last", "fc2": "classifier"}
    monkeypatch.setitem(CONVENTIONS, "flattened", (names,))
    classifier = Classifier(Flattened(3), {}, image_shape=(6, 4, 2))
    classifier = classifier.replace(variables=classifier.network.init(jax.random.key(0)))
    tensors = files.read_weights(classifier.save(tmp_path / "net.safetensors")).tensors
    assert sum(t.size for t in tensors.values()) == sum(a.size for a in jax.tree.leaves(classifier.variables))
    images = np.random.default_rng(0).normal(size=(5, 2, 6, 4))
    padded = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    x = np.einsum("nihwab,oiab->nohw", windows, tensors["conv1.weight"]) + tensors["conv1.bias"][:, None, None]
    x = np.maximum(x.reshape(5, -1) @ tensors["fc1.weight"].T + tensors["fc1.bias"], 0) / np.sqrt(1 + 1e-5)
    expected = x @ tensors["fc2.weight"].T + tensors["fc2.bias"]
    found = files.load(tmp_path / "net.safetensors")
    assert_same(found, classifier)
    got = found.module.apply(found.variables, images.transpose(0, 2, 3, 1))[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_what_a_file_is_in_words(tmp_path):
    text = str(files.inspect(FIXTURES / "resnet18.pt"))
    for part in ("122 tensors, 45,077 numbers", "resnet18: 5 classes", "does not say std: add --config.data"):
        assert part in text
    assert (
        f"ispf --config=own_ispf.py --config.model.checkpoint={FIXTURES / 'resnet18.pt'} "
        "--config.data.classes=5 --config.data.channels=3 --config.forget=<class>"
    ) in text
    with_header = files.inspect(given("allcnn").save(tmp_path / "net.safetensors"))
    assert "--config.data.image_size=16 --config.data.mean=0.5 --config.data.std=0.5" in with_header.command
    less = {name: value for name, value in NET.items() if "fc.bias" not in name}
    unknown = files.inspect(write(tmp_path / "net.pt", less))
    assert unknown.found is None and "the nearest network is ResNet: there is no module.fc.bias" in str(unknown)


@pytest.mark.parametrize(
    "name, format, message",
    [("net.h5", None, "path=.*must end in .pt, .pth, .safetensors"), ("net.pt", "h5", "format='h5' must be one of pt")],
)
def test_other_formats_are_not_written(name, format, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        given("allcnn").save(tmp_path / name, format)
