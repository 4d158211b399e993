"""Classifiers of PyTorch: what it computed with the fixtures, all known names, and what is refused."""

import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ispf_jax.errors import UserError
from ispf_jax.files import encode, own_naming, read_classifier, torch_file
from ispf_jax.files.names import CONVENTIONS, Naming, Unlike, find_naming, to_flax, to_torch
from ispf_jax.models import build_classifier, init_variables

FIXTURES = Path(__file__).parent / "fixtures"
FILES = {"resnet18": "resnet18.pt", "allcnn": "allcnn.safetensors"}
WIDTH = 1 / 16


@cache
def classifier(arch, classes=5, width=WIDTH):
    return build_classifier(arch, classes, width)


def template(arch, width=WIDTH, classes=5, channels=3):
    shapes = jax.eval_shape(
        partial(init_variables, classifier(arch, classes, width), example_shape=(1, 16, 16, channels)),
        jax.random.key(0),
    )
    return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)


def logits(arch, variables, images):
    return classifier(arch).apply(variables, jnp.asarray(images))[0]


@pytest.mark.parametrize("arch", FILES)
def test_logits_are_pytorchs(arch):
    """Of a checkpoint of DataParallel with an optimiser beside it, and of convolutions with a bias."""
    given = read_classifier(FIXTURES / FILES[arch], arch, partial(template, arch), WIDTH)
    assert given.format == FILES[arch].split(".")[1]
    with np.load(FIXTURES / "logits.npz") as recorded:
        np.testing.assert_allclose(
            logits(arch, given.variables, recorded["images"]), recorded[arch], rtol=1e-4, atol=1e-5
        )
        assert np.ptp(recorded[arch], axis=0).min() > 0.01  # images are told apart


@pytest.mark.parametrize("format_", ["pt", "safetensors"])
@pytest.mark.parametrize("arch", FILES)
def test_written_like_the_file_it_came_from(arch, format_, tmp_path):
    given = read_classifier(FIXTURES / FILES[arch], arch, partial(template, arch), WIDTH)
    path = tmp_path / "again"
    path.write_bytes(encode(format_, given.naming, given.variables, {"mean": "0.5"}))
    again = read_classifier(path, arch, partial(template, arch), WIDTH)
    assert (
        sorted(again.naming.keys) == sorted(given.naming.keys)
        and again.format == format_
        and again.digest != given.digest
    )
    jax.tree.map(np.testing.assert_array_equal, again.variables, given.variables)
    if format_ == "safetensors":
        with safetensors.safe_open(path, "numpy") as file:
            assert file.metadata() == {"format": "pt", "mean": "0.5"}


def test_pytorch_loads_what_is_written(tmp_path):
    """Strictly, into its own network, and computes the same."""
    torch = pytest.importorskip("torch")
    from tests.files.make_fixtures import ResNet18, allcnn

    for arch, net in (("resnet18", ResNet18()), ("allcnn", allcnn())):
        given = read_classifier(FIXTURES / FILES[arch], arch, partial(template, arch), WIDTH)
        naming = Naming(
            given.naming.modules, "", tuple(key.removeprefix(given.naming.prefix) for key in given.naming.keys)
        )
        (tmp_path / "net.pt").write_bytes(encode("pt", naming, given.variables, {}))
        net.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
        with np.load(FIXTURES / "logits.npz") as recorded, torch.no_grad():
            got = net.eval().forward(torch.tensor(recorded["images"]).permute(0, 3, 1, 2)).numpy()
            np.testing.assert_allclose(got, recorded[arch], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize(
    "arch, convention", [(arch, i) for arch, all_ in CONVENTIONS.items() for i in range(len(all_))]
)
def test_every_naming_goes_in_and_out(arch, convention, prefix):
    made = jax.tree.map(
        lambda s: np.random.default_rng(s.size).uniform(0.1, 2, s.shape).astype(np.float32), template(arch)
    )
    modules = CONVENTIONS[arch][convention]
    assert len(set(modules)) == len(set(modules.values())) == len(own_naming(arch).modules)
    tensors = to_torch(Naming(modules, prefix, tuple(prefix + key for key in _keys(modules))), made)
    found = find_naming(arch, tensors)
    assert (found.modules, found.prefix) == (modules, prefix)
    jax.tree.map(np.testing.assert_array_equal, to_flax(found, tensors, template(arch)), made)


def _keys(modules):
    leaves = {"bn": ("weight", "bias", "running_mean", "running_var"), "co": ("weight",), "cl": ("weight", "bias")}
    return [f"{module}.{leaf}" for module, path in modules.items() for leaf in leaves[path.split("/")[-1][:2]]]


def test_a_bias_before_batch_norm_is_taken_into_its_mean():
    tensors = safetensors.numpy.load_file(FIXTURES / "allcnn.safetensors")
    naming = find_naming("allcnn", tensors)
    got = to_flax(naming, tensors, template("allcnn"))
    np.testing.assert_array_equal(
        got["batch_stats"]["bn4"]["mean"], tensors["features.4.1.running_mean"] - tensors["features.4.0.bias"]
    )
    back = to_torch(naming, got)
    np.testing.assert_array_equal(back["features.4.1.running_mean"], got["batch_stats"]["bn4"]["mean"])
    assert not back["features.4.0.bias"].any() and list(back) == list(tensors)


def changed(tensors, **changes):
    return tensors | {name.replace("__", "."): value for name, value in changes.items()}


def without(tensors, *names):
    return {name: value for name, value in tensors.items() if name not in names}


NET = torch_file.read((FIXTURES / "resnet18.pt").read_bytes())["state_dict"]
REFUSED = {
    "another network": (
        lambda: safetensors.numpy.load_file(FIXTURES / "allcnn.safetensors"),
        {},
        "it looks like allcnn: set config.model.name='allcnn'",
    ),
    "a missing tensor": (
        lambda: without(NET, "module.layer2.0.bn1.running_var"),
        {},
        "there is no module.layer2.0.bn1.running_var; docs/checkpoints.md",
    ),
    "a tensor too many": (
        lambda: changed(NET, module__layer2__0__se__weight=np.ones(3)),
        {},
        "it also has module.layer2.0.se.weight",
    ),
    "nothing known": (lambda: {"x": np.ones(3, np.float32), "y": np.ones(3, np.float32)}, {}, "it has x, y"),
    "seven by seven": (
        lambda: changed(NET, module__conv1__weight=np.ones((4, 3, 7, 7), np.float32)),
        {},
        "module.conv1.weight is 4x3x7x7 and should be 4x3x3x3",
    ),
    "other classes": (lambda: NET, {"classes": 7}, "5 classes and the images of config.data have 7"),
    "other channels": (lambda: NET, {"channels": 1}, "config.data.channels=3"),
    "another width": (lambda: NET, {"width": 0.125}, "set config.model.width=0.0625"),
    "filters of no width": (
        lambda: changed(NET, module__conv1__weight=np.ones((5, 3, 3, 3), np.float32)),
        {},
        "no config.model.width gives the filters",
    ),
    "a scalar and another width": (
        lambda: changed(NET, module__layer1__0__conv1__weight=np.float32(1)),
        {"width": 0.125},
        "is 4x3x3x3 and should be 8x3x3x3",
    ),
    "a scalar": (lambda: changed(NET, module__conv1__weight=np.float32(1)), {}, "module.conv1.weight is "),
    "an odd bias": (
        lambda: changed(NET, module__conv1__bias=np.ones(1, np.float32)),
        {},
        "module.conv1.bias is 1 and should be 4",
    ),
    "a negative variance": (
        lambda: changed(NET, module__bn1__running_var=-np.ones(4, np.float32)),
        {},
        "module.bn1.running_var has negative",
    ),
    "not a number": (
        lambda: changed(NET, module__fc__bias=np.full(5, np.nan, np.float32)),
        {},
        "module.fc.bias has numbers that are not finite",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, tmp_path):
    tensors, shape, message = REFUSED[what]
    width = shape.get("width", WIDTH)
    shape = without(shape, "width")
    (tmp_path / "net.pt").write_bytes(torch_file.write({name: np.asarray(value) for name, value in tensors().items()}))
    with pytest.raises(UserError) as refused:
        read_classifier(tmp_path / "net.pt", "resnet18", partial(template, "resnet18", **shape), width)
    assert message in str(refused.value) and "net.pt" in str(refused.value)


@pytest.mark.parametrize(
    "file, message",
    [
        ("missing.pt", "No such file"),
        ("whole_model.pt", "torch.nn.modules.linear.Linear and not a state_dict"),
        ("old.pt", "since PyTorch 1.6"),
        ("types.pt", "does not hold resnet18"),
        ("logits.npz", "without the data.pkl"),
    ],
)
def test_files_of_other_kinds(file, message):
    with pytest.raises(UserError, match="model.checkpoint=.*" + file) as refused:
        read_classifier(FIXTURES / file, "resnet18", partial(template, "resnet18"), WIDTH)
    assert message in str(refused.value)


@pytest.mark.parametrize("arch", FILES)
@pytest.mark.parametrize(
    "width, tried", [(0.005, 1.0), (0.01, 1.0), (0.0372, 1.0), (0.07, 1.0), (0.07, 0.0625), (0.11, 1.0), (1 / 3, 1.0)]
)
def test_the_advised_width_makes_the_filters_of_every_layer(arch, width, tried, tmp_path):
    """Also where filters were rounded, up in some layers and down in others."""
    naming = own_naming(arch)
    (tmp_path / "net.pt").write_bytes(encode("pt", naming, template(arch, width), {}))
    with pytest.raises(UserError, match="set config.model.width=") as refused:
        read_classifier(tmp_path / "net.pt", arch, partial(template, arch), tried)
    advised = float(str(refused.value).split("set config.model.width=")[1].rstrip("."))
    read_classifier(tmp_path / "net.pt", arch, partial(template, arch), advised)


def test_one_of_several_networks_in_a_file(tmp_path, monkeypatch):
    """That which is named like the network, of several such ones that with a usual name; two without one are refused."""

    def read(saved):
        monkeypatch.setattr(torch_file, "read", lambda content: saved)
        return read_classifier(FIXTURES / "resnet18.pt", "resnet18", partial(template, "resnet18"), WIDTH)

    zeros = {name: np.zeros_like(value) for name, value in NET.items()}
    assert read({"ema": zeros, "model": NET}).variables["params"]["classifier"]["bias"].any()
    assert read({"student": NET, "step": 3}).variables["params"]["classifier"]["bias"].any()
    generator = {"project.weight": np.ones((3, 2), np.float32)}
    assert read({"model": generator, "classifier": NET}).naming.prefix == "module."
    with pytest.raises(UserError, match=r"several \(ema, student\)"):
        read({"ema": zeros, "student": NET, "generator": generator})
    with pytest.raises(UserError, match=r"objects \(model: torchvision.resnet.ResNet\)"):
        read({"model": type("ResNet", (torch_file.Opaque,), {"__module__": "torchvision.resnet"})(), "epoch": 3})


def test_bfloat16_in_safetensors(tmp_path):
    """Written by hand from the definition of the format: length of the header, header, data."""
    halves = {name: value.astype(ml_dtypes.bfloat16) for name, value in NET.items() if not name.endswith("tracked")}
    header, data = {}, b""
    for name, value in halves.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + value.nbytes],
        }
        data += value.tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "half.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    got = read_classifier(tmp_path / "half.safetensors", "resnet18", partial(template, "resnet18"), WIDTH)
    np.testing.assert_array_equal(
        got.variables["params"]["classifier"]["kernel"], halves["module.fc.weight"].astype(np.float32).T
    )


def test_half_precision_becomes_single():
    half = {name: value.astype(np.float16) if value.dtype == np.float32 else value for name, value in NET.items()}
    got = to_flax(find_naming("resnet18", half), half, template("resnet18"))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        got["params"]["classifier"]["kernel"], np.asarray(NET["module.fc.weight"]).T, rtol=1e-3, atol=1e-4
    )


def test_many_names_are_told_by_a_few():
    with pytest.raises(Unlike) as told:
        find_naming("allcnn", ["conv1.0.weight"])
    assert str(told.value) == "there is no classifier.0.bias, classifier.0.weight, conv1.1.bias and 38 more"
