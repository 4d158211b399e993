"""What files of other programs are, what of them is read, chosen and left out, and in which formats networks go out."""

import json
import logging
import pickle
import zipfile

import flax.serialization
import jax
import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from jax import export

from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError
from ispf_jax.models import build_classifier
from tests.files import makers
from tests.files.test_torch_zip import FIXTURES, as_file

SHAPE = (16, 16, 3)
NET = {
    name.removeprefix("module."): value for name, value in files.read_weights(FIXTURES / "resnet18.pt").tensors.items()
}
FLOATS = {name: value for name, value in NET.items() if value.ndim}
OTHER = {name: value + np.float32(0.01) for name, value in FLOATS.items()}


@pytest.fixture(scope="module")
def reference():
    return files.load(FIXTURES / "resnet18.pt", image_shape=SHAPE)


def prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def read(tmp_path, monkeypatch, saved, weights=None):
    """What is read of a checkpoint of PyTorch that holds `saved`."""
    (tmp_path / "net.pt").touch()
    with monkeypatch.context() as patch:
        patch.setattr("ispf_jax.files.detect._file", lambda path: ("pt", 1 << 30, "0" * 32, saved, {}))
        return files.load(tmp_path / "net.pt", image_shape=SHAPE, weights=weights)


def assert_same(classifier, other):
    jax.tree.map(np.testing.assert_array_equal, classifier.variables, other.variables)


MASK = (np.arange(FLOATS["conv1.weight"].size) % 3 > 0).reshape(FLOATS["conv1.weight"].shape).astype(np.float32)
REST = {name: value for name, value in FLOATS.items() if name != "conv1.weight"}
NORMALISE = {"mean": np.float32([0.4, 0.5, 0.6]), "std": np.float32([0.2, 0.25, 0.3])}
LOSS = {"loss.weight": np.ones(5, np.float32)}
KINDS = {  # what was saved, weights, whose tensors, what is said
    "prefixes in any order": (prefixed("_orig_mod.net.module.", NET), None, FLOATS, ""),
    "an average beside": ({"state_dict": NET, "ema": OTHER}, None, FLOATS, "'state_dict' is taken; it also holds ema"),
    "the average": ({"state_dict": NET, "ema": OTHER}, "ema", OTHER, ""),
    "one of a list": ([NET, OTHER], "1", OTHER, ""),
    "Lightning": (
        {"state_dict": prefixed("model.", NET) | LOSS, "optimizer_states": [{"m": np.ones(3)}]},
        None,
        FLOATS,
        "left out, as no part of the network model: loss",
    ),
    "an average in the names": (
        {"state_dict": prefixed("model.", NET) | prefixed("ema_model.", OTHER)},
        "ema_model",
        OTHER,
        "left out, as no part of the network ema_model: model.* (122 tensors)",
    ),
    "torch.optim.swa_utils": ({"n_averaged": np.array(3)} | prefixed("module.", NET), None, FLOATS, "not needed: n_av"),
    "pruned": (
        {"conv1.weight_orig": FLOATS["conv1.weight"], "conv1.weight_mask": MASK} | REST,
        None,
        FLOATS | {"conv1.weight": FLOATS["conv1.weight"] * MASK},
        "pruned: masks are applied",
    ),
    "an optimiser": ({"model": NET, "optimizer": {"state": {"m": np.ones(3)}}}, None, FLOATS, "not needed: optimizer"),
}


@pytest.mark.parametrize("what", KINDS)
def test_one_network_is_found_and_the_rest_named(what, tmp_path, monkeypatch, caplog):
    saved, weights, wanted, said = KINDS[what]
    with caplog.at_level(logging.INFO, "ispf_jax"):
        found = read(tmp_path, monkeypatch, saved, weights)
    assert said in caplog.text
    assert_same(found, read(tmp_path, monkeypatch, wanted))


def test_a_list_says_how_to_choose(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"holds several \(0, 1\) .*; weights= chooses one\."):
        read(tmp_path, monkeypatch, [NET, OTHER])
    with pytest.raises(ArgumentError, match=r"no network at weights='ema'; it has state_dict\."):
        read(tmp_path, monkeypatch, {"state_dict": NET}, "ema")


@pytest.mark.parametrize("names, scale, shape", [("normalize.{}", 1, (3,)), ("0.{}", 255, (1, 3, 1, 1))])
def test_a_layer_that_normalises_is_the_normalisation(names, scale, shape, tmp_path, monkeypatch, caplog):
    """And is written again as it was."""
    buffers = {names.format(name): (scale * value).reshape(shape) for name, value in NORMALISE.items()}
    given = read(tmp_path, monkeypatch, buffers | prefixed("1." if names[0] == "0" else "", NET))
    np.testing.assert_allclose([given.mean, given.std], list(NORMALISE.values()), rtol=1e-6)
    again = files.read_weights(given.save(tmp_path / "out.safetensors"))
    kept = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert set(again.kept) == set(buffers) and len(kept) == len(NET) + 2
    assert all(np.array_equal(kept[name], value) and kept[name].dtype == np.float32 for name, value in buffers.items())
    with caplog.at_level(logging.WARNING, "ispf_jax"):
        assert files.load(tmp_path / "out.safetensors", mean=0.5).mean == (0.5,)
    assert "mean=0.5 is used" in caplog.text


def test_what_torch_saved_before_1_6(tmp_path):
    (tmp_path / "net.pt").write_bytes(makers.legacy_state_dict(FLOATS))
    found = files.read_weights(tmp_path / "net.pt").tensors
    assert list(found) == list(FLOATS) and all(np.array_equal(found[name], FLOATS[name]) for name in FLOATS)
    old = files.read_weights(FIXTURES / "old.pt").tensors  # of PyTorch itself
    new = files.read_weights(FIXTURES / "allcnn.safetensors").tensors
    assert all(np.array_equal(value, new[f"classifier.{name}"]) for name, value in old.items()) and len(old) == 2


TEN = np.arange(10, dtype=np.float32)
VIEW = makers.tuple_of([makers.literal("1001"), makers.literal(4), makers.literal(3)])
ONE = makers.dictionary({"x": makers.tensor("1", TEN)})
LEGACY = {  # (file, values of x, or words of the refusal)
    "whole": (makers.legacy(ONE, {"1": TEN}), TEN),
    "a view": (makers.legacy(makers.dictionary({"x": makers.tensor("1", TEN[:3], VIEW)}), {"1": TEN}), TEN[4:7]),
    "a view outside": (
        makers.legacy(makers.dictionary({"x": makers.tensor("1", TEN[:8], VIEW)}), {"1": TEN}),
        "beyond",
    ),
    "a storage that is shorter": (makers.legacy(ONE, {"1": TEN[:9]}), "reaches beyond its data"),
    "no storage": (makers.legacy(ONE, {}), "is damaged"),
    "a storage twice": (makers.legacy(ONE, {"1": TEN}).replace(b"X\1\0\0\0001q", b"X\1\0\0\0002q"), "is damaged"),
    "cut": (makers.legacy(ONE, {"1": TEN})[:-4], "ends before its data does"),
    "more": (makers.legacy(ONE, {"1": TEN}) + b"x", "more after the end"),
    "a size of 2**60": (
        makers.legacy(ONE, {"1": TEN}).replace(b"\n" + bytes(7), b"\n" + bytes(6) + b"\x10"),
        "ends bef",
    ),
    "big endian": (makers.legacy(ONE, {"1": TEN}, little=False), "big-endian"),
    "another version": (
        makers.legacy(ONE, {"1": TEN}).replace(b"\x80\2M\xe9\3.", b"\x80\2M\xe8\3."),
        "version of torch",
    ),
}


@pytest.mark.parametrize("what", LEGACY)
def test_the_old_format_is_read_as_safely_as_the_new_one(what, tmp_path):
    content, wanted = LEGACY[what]
    (tmp_path / "net.pt").write_bytes(content)
    if isinstance(wanted, str):
        with pytest.raises(ArgumentError, match=wanted):
            files.read_weights(tmp_path / "net.pt")
    else:
        np.testing.assert_array_equal(files.read_weights(tmp_path / "net.pt").tensors["x"], wanted)


@pytest.mark.parametrize("old", [True, False])
def test_a_whole_module_gives_its_state_dict(old, tmp_path, monkeypatch, reference):
    opcodes = {name: makers.tensor(str(n), value) for n, (name, value) in enumerate(FLOATS.items())}
    if old:
        content = makers.legacy(makers.module(opcodes), {str(n): value for n, value in enumerate(FLOATS.values())})
    else:
        content = as_file(makers.BEGIN + makers.module(opcodes) + pickle.STOP, [v.tobytes() for v in FLOATS.values()])
    (tmp_path / "net.pt").write_bytes(content)
    found = files.load(tmp_path / "net.pt", image_shape=SHAPE)
    assert_same(found, reference)
    linear = files.read_weights(FIXTURES / "whole_model.pt").tensors  # of PyTorch itself
    assert {name: value.shape for name, value in linear.items()} == {"weight": (2, 2), "bias": (2,)}


def test_torchscript_is_read_from_its_attributes(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch (extra bench) writes it")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.jit.script(net).save(tmp_path / "net.pt")
    found = files.read_weights(tmp_path / "net.pt").tensors
    assert all(np.array_equal(found[name], value.numpy()) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_short_types(name, tmp_path):
    value = np.float32([[1, -2.5], [0.25, 3]]).astype(getattr(ml_dtypes, name))
    header = {"x": {"dtype": {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "bfloat16": "BF16"}[name]}}
    header["x"] |= {"shape": [2, 2], "data_offsets": [0, value.nbytes]}
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + value.tobytes())
    torch_types = [makers.named("torch.storage UntypedStorage"), makers.named(f"torch {name}")]
    storage = makers.tuple_of(
        [makers.literal("storage"), torch_types[0], makers.literal("0"), *[makers.literal("cpu")]]
    )
    storage = storage[:-1] + makers.literal(value.nbytes) + pickle.TUPLE + pickle.BINPERSID
    two = makers.tuple_of(map(makers.literal, (2, 2))), makers.tuple_of(map(makers.literal, (2, 1)))
    words = [storage, makers.literal(0), *two, pickle.NEWFALSE, makers.NO_HOOKS, torch_types[1], pickle.NONE]
    opcodes = makers.named("torch._utils _rebuild_tensor_v3") + makers.tuple_of(words) + pickle.REDUCE
    (tmp_path / "x.pt").write_bytes(
        as_file(makers.BEGIN + makers.dictionary({"x": opcodes}) + pickle.STOP, [value.tobytes()])
    )
    for path in tmp_path.iterdir():
        found = files.read_weights(path).tensors["x"]
        assert found.dtype == value.dtype and np.array_equal(found, value)


ROUTE = "safetensors.numpy.save_file"
REFUSED = {
    "ONNX": (b"\x08\x07\x12\x07pytorch", "is an ONNX model; .*onnx.numpy_helper.*" + ROUTE),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file.*h5py.*" + ROUTE),
    "TensorFlow": (b"\x08\x01\x12\xff\x03", "graph of TensorFlow.*tf.saved_model.load.*" + ROUTE),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
    "GGUF": (b"GGUF\3\0", "is a GGUF file"),
    "NumPy": (b"\x93NUMPY\1\0", "one array of NumPy"),
    "a page": (b"\xef\xbb\xbf\n <!doctype html>", "web page and not a file of weights; download it again"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS.*git lfs pull"),
    "gzip": (b"\x1f\x8b\x08", "is an archive; unpack it"),
    "JSON": (b'{"a": 1}', "is JSON"),
    "a pickle": (pickle.dumps({"a": 1}), "a pickle of another program than torch.save, and pickles can run code"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_others_are_refused_by_name_with_what_helps(what, tmp_path):
    content, message = REFUSED[what]
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(ArgumentError, match=message) as refused:
        files.read_weights(tmp_path / "net.pt")
    assert "in PyTorch" not in str(refused.value)


def test_keras_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(ArgumentError, match="is a model of Keras; in Keras, take the arrays from"):
        files.read_weights(tmp_path / "net.keras")


def nnx_tree(variables, value):
    """The state of an nnx module with these variables: one tree, with or without a level for values."""
    tree: dict = {}
    for collection in variables.values():
        for path, leaf in flax.traverse_util.flatten_dict(collection).items():
            place = tree
            for part in path[:-1]:
                place = place.setdefault(part, {})
            place[path[-1]] = {"value": np.asarray(leaf)} if value else np.asarray(leaf)
    return tree


TREES = {
    "variables": lambda v: v,
    "a train state": lambda v: {"step": np.array(3), "opt_state": {"0": {"mu": v["params"]}}} | v,
    "averages": lambda v: {"ema_params": jax.tree.map(np.zeros_like, v["params"])} | v,
    "params of a state": lambda v: {"params": {"params": v["params"]}, "batch_stats": v["batch_stats"]},
    "nnx": lambda v: nnx_tree(v, False),
    "nnx with values": lambda v: nnx_tree(v, True),
}


@pytest.mark.parametrize("what", TREES)
@pytest.mark.parametrize("format", ["msgpack", "orbax"])
def test_trees_of_flax_go_in_and_out(what, format, tmp_path, reference):
    """Out with the names that came in, which Flax and Orbax themselves read."""
    tree = jax.tree.map(np.asarray, TREES[what](reference.variables))
    path = tmp_path / f"net.{format}"
    if format == "msgpack":
        path.write_bytes(flax.serialization.to_bytes(tree))
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, tree)
    found = files.load(path, image_shape=SHAPE)
    assert_same(found, reference)
    out = found.save(tmp_path / f"out.{format}")
    if format == "msgpack":
        again = flax.serialization.msgpack_restore(out.read_bytes())
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            again = checkpointer.restore(out)
    flat, wanted = (flax.traverse_util.flatten_dict(t, sep="/") for t in (again, tree))
    kept = {name for name in wanted if name.partition("/")[0] not in ("step", "opt_state", "ema_params")}
    assert set(flat) == kept and all(np.array_equal(flat[name], wanted[name]) for name in kept)
    files.load(found.save(tmp_path / "net.pt"), image_shape=SHAPE)  # under PyTorch's names


def test_a_flattened_image_has_its_channels_last_in_a_tree(tmp_path):
    """And first in a file of PyTorch; the classifier is the same."""
    given = Classifier(build_classifier("lenet", 3, 0.25), {}, image_shape=(16, 16, 1))
    given = given.replace(variables=given.network.init(jax.random.key(0)))
    (tmp_path / "net.msgpack").write_bytes(flax.serialization.to_bytes(given.variables))
    found = files.load(tmp_path / "net.msgpack", image_shape=(16, 16, 1))
    again = files.load(found.save(tmp_path / "net.pt"), image_shape=(16, 16, 1))
    back = flax.serialization.msgpack_restore(found.save(tmp_path / "back.msgpack").read_bytes())
    for variables in (found.variables, again.variables):
        jax.tree.map(np.testing.assert_array_equal, dict(variables)["params"], dict(given.variables)["params"])
    jax.tree.map(np.testing.assert_array_equal, back["params"], given.variables["params"])
    tree, torch = (files.read_weights(tmp_path / name).tensors.values() for name in ("net.msgpack", "net.pt"))
    dense = [next(value for value in values if value.shape == (32, 256)) for values in (tree, torch)]
    assert not np.array_equal(*dense)


@pytest.mark.parametrize("separator", ["/", "."])
def test_safetensors_with_names_of_flax(separator, tmp_path, reference):
    flat = flax.traverse_util.flatten_dict(dict(reference.variables), sep=separator)
    flat = {name: np.asarray(value) for name, value in flat.items()}
    safetensors.numpy.save_file(flat, tmp_path / "net.safetensors")
    found = files.load(tmp_path / "net.safetensors", image_shape=SHAPE)
    assert_same(found, reference)
    again = safetensors.numpy.load_file(found.save(tmp_path / "again.safetensors"))
    assert set(again) == set(flat) and all(np.array_equal(again[name], flat[name]) for name in flat)


def test_a_folder_says_all_that_is_wanted(tmp_path, reference):
    """Of this package, of transformers and of timm."""
    names = ["cat", "dog", "hen", "ox", "pig"]
    settings = {"image_shape": SHAPE, "class_names": names, "mean": (0.4, 0.5, 0.6), "std": 0.25}
    given = files.load(FIXTURES / "resnet18.pt", **settings)
    folder = given.save(tmp_path / "net", "huggingface")
    found = files.load(folder)
    assert (found.class_names, found.mean, found.std) == (tuple(names), given.mean, given.std)
    assert_same(found, given)
    assert "library_name: ispf_jax" in (folder / "README.md").read_text() and found.origin["format"] == "huggingface"
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file(weights, folder / "model.safetensors")  # without this package's header
    assert files.load(folder).network == given.network and files.load(folder).class_names == tuple(names)
    (folder / "preprocessor_config.json").unlink()
    timm = {"pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.25] * 3, "input_size": [3, 16, 16]}}
    (folder / "config.json").write_text(json.dumps(timm | {"label_names": names, "architecture": "resnet18"}))
    assert (files.load(folder).class_names, files.load(folder).mean) == (tuple(names), given.mean)
    (folder / "config.json").write_text("[1")
    with pytest.raises(ArgumentError, match=r"config.json is damaged"):
        files.load(folder)


def test_an_artefact_of_jax_computes_the_same_for_any_batch(tmp_path, reference):
    artefact = export.deserialize(bytearray(reference.save(tmp_path / "net.jax").read_bytes()))
    images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8)
    assert set(artefact.platforms) == {"cpu", "cuda"}
    for n in (2, 5):
        np.testing.assert_allclose(artefact.call(images[:n]), reference(images[:n]), rtol=1e-4, atol=1e-5)


def test_messagepack_that_declares_too_much(tmp_path):
    deep = b"\x81\xa1a" * 5000
    many = msgpack.packb({"a": [[0] * 9000] * 40})
    long = b"\x81\xa1a\xdd" + (1 << 31).to_bytes(4, "big")
    odd = msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb([[1 << 40], "float32", b"abcd"]))})
    for content in (deep, many, long, odd, msgpack.packb({"a": msgpack.ExtType(9, b"")})):
        (tmp_path / "net.msgpack").write_bytes(content)
        with pytest.raises(ArgumentError, match="is damaged or cannot be read"):
            files.read_weights(tmp_path / "net.msgpack")


IMAGES = np.random.default_rng(1).integers(0, 256, (8, *SHAPE), np.uint8)
CHECKS = {  # how the recorded logits came about: words of the refusal, "" if there is none
    "the same": (lambda c: (IMAGES, c(IMAGES)), ""),
    "as they were fed": (lambda c: (np.asarray(c.network.normalise(IMAGES)).transpose(0, 3, 1, 2), c(IMAGES)), ""),
    "ImageNet": (lambda c: (IMAGES, normalised(c, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))), "of ImageNet"),
    "pixels to 255": (lambda c: (IMAGES, normalised(c, 0, 1 / 255)), "Mean and std are 0 and 1/255"),
    "BGR": (lambda c: (IMAGES, c(IMAGES[..., ::-1])), "The colours are in the order BGR"),
    "classes": (lambda c: (IMAGES, c(IMAGES)[:, [2, 1, 0, 3, 4]]), "outputs 0, 1, ... are 2, 1, 0, 3, 4 there"),
    "something else": (lambda c: (IMAGES, c(IMAGES) + 1), "Neither a usual normalisation"),
    "other classes": (lambda c: (IMAGES, c(IMAGES)[:, :3]), r"has logits \[8, 3\], but they must be \[8, 5\]"),
    "other images": (lambda c: (IMAGES[:, :8], c(IMAGES)), "has images uint8"),
}


def normalised(classifier, mean, std):
    return classifier.module.apply(classifier.variables, (IMAGES / np.float32(255) - mean) / np.float32(std))[0]


@pytest.mark.parametrize("what", CHECKS)
def test_recorded_logits_prove_a_file_or_name_the_difference(what, tmp_path, reference, caplog):
    record, said = CHECKS[what]
    images, logits = record(reference)
    np.savez(tmp_path / "example.npz", images=images, logits=logits)
    arguments = {"image_shape": SHAPE, "check": tmp_path / "example.npz"}
    with caplog.at_level(logging.INFO, "ispf_jax"):
        if said:
            with pytest.raises(ArgumentError, match=said) as refused:
                files.load(FIXTURES / "resnet18.pt", **arguments)
            assert refused.value.argument == "check"
        else:
            files.load(FIXTURES / "resnet18.pt", **arguments)
            assert "proved" in caplog.text
