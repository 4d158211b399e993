"""Layouts read from tensors: logits against PyTorch and NumPy, names in and out, what is refused, unlearning."""

import re
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ispf_jax
from ispf_jax import files
from ispf_jax.classifier import Classifier
from ispf_jax.distill import generator_step, student_step, synthesise, unlearning
from ispf_jax.errors import ArgumentError
from ispf_jax.files import torch_zip
from ispf_jax.methods import METHODS
from ispf_jax.models import CLASSIFIERS, build_classifier, from_layout, layout_of, title
from ispf_jax.runtime.loop import RunOptions
from ispf_jax.unlearning import UnlearningRun
from tests.models import torch_networks
from tests.models.numpy_networks import MADE, RNG, conv, linear, relu, tensors_of, vit_of_hugging_face


def write(path, tensors):
    path.write_bytes(torch_zip.write(tensors, {}))
    return path


@pytest.mark.parametrize("name", MADE)
def test_logits_are_those_of_numpy_and_the_tensors_come_back(name, tmp_path):
    tensors, forward, shape, called = MADE[name]()
    found = files.load(write(tmp_path / "net.pt", tensors), image_shape=shape)
    x = RNG.standard_normal((3, *shape)).astype(np.float32)
    want = forward(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found.module.apply(found.variables, x)[0], want, rtol=1e-4, atol=1e-4 * abs(want).max())
    assert want.std(0).min() > 1e-3 and found.network.title == called
    back = files.read_weights(found.save(tmp_path / "back.pt")).tensors
    assert list(back) == list(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(back[key], value, key)


def hugging_face(kind, **settings):
    """A network of transformers with random weights; skips without it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return getattr(transformers, f"{kind}ForImageClassification")(
        getattr(transformers, f"{kind}Config")(num_labels=7, **settings)
    )


TORCH = {
    "Hugging Face's ViT": (
        lambda *_: hugging_face("ViT", hidden_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=32),
        32,
    ),
    "Hugging Face's ResNet": (
        lambda *_: hugging_face("ResNet", hidden_sizes=[64, 128], depths=[2, 1], embedding_size=32),
        64,
    ),
    "torchvision's ResNet18": (lambda tv, timm: tv.resnet18(num_classes=7), 64),
    "torchvision's ResNet50": (lambda tv, timm: tv.resnet50(num_classes=7), 64),
    "timm's ResNet18": (lambda tv, timm: timm.create_model("resnet18", num_classes=7), 64),
    "torchvision's VGG11 on small images": (lambda tv, timm: tv.vgg11(num_classes=7), 32),
    "torchvision's VGG13 with batch norm": (lambda tv, timm: tv.vgg13_bn(num_classes=7), 224),
    "torchvision's ViT": (lambda tv, timm: tv.vit_b_16(num_classes=7, image_size=32), 32),
    "timm's ViT": (lambda tv, timm: timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64), 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_logits_are_pytorchs_and_the_tensors_come_back(name, tmp_path):
    torch, tv, timm, _ = torch_networks.modules()
    make, size = TORCH[name]
    net = torch_networks.general_position(torch, make(tv, timm))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = RNG.standard_normal((2, size, size, 3)).astype(np.float32)
    found, want = files.load(tmp_path / "net.pt", image_shape=x.shape[1:]), torch_networks.logits(torch, net, x)
    got = jax.jit(found.module.apply)(found.variables, x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * abs(want).max())
    back = files.read_weights(found.save(tmp_path / "back.pt")).tensors
    assert list(back) == list(net.state_dict())
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(back[key], value.numpy(), key)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_network_by_name_is_written_and_found_again(name, tmp_path, caplog):
    module = build_classifier(name, 7, 0.07)
    made = Classifier(module, {}, image_shape=(32, 32, 3), class_names="abcdefg")
    draw = lambda s: RNG.uniform(0.1, 2, s.shape).astype(np.float32)
    made = made.replace(variables=jax.tree.map(draw, made.network.shapes()))
    for path, settings in ((tmp_path / "net.pt", {"image_shape": (32, 32, 3)}), (tmp_path / "net.safetensors", {})):
        found = files.load(made.save(path), **settings)
        assert found.module == module and not caplog.text
        jax.tree.map(np.testing.assert_array_equal, found.variables, made.variables)
    assert from_layout(layout_of(module)) == module


@pytest.mark.parametrize(
    "name, known",
    [
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("resnet34", 21_282_122),
        ("wrn-28-10", 36_479_194),
        ("vgg16", 14_728_266 - 4_224),
    ],
)
def test_known_numbers_of_parameters(name, known):
    """The first two of the widely used program with option A (0.27 M, 0.85 M), WRN's of its paper (36.5 M); VGG16's of
    the widely used one for CIFAR, which has 4,224 biases before batch norms."""
    shapes = jax.eval_shape(build_classifier(name, 10).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == known


def test_a_query_without_its_key_is_no_attention(tmp_path):
    tensors = {
        name: value for name, value in vit_of_hugging_face()[0].items() if "layer.1.attention.attention.key" not in name
    }
    with pytest.raises(ArgumentError, match="there are 2 of the 3 tensors that make params/block2/qkv"):
        files.load(write(tmp_path / "net.pt", tensors), image_shape=(8, 8, 3))


def test_what_cannot_be_seen_is_said_and_can_be_given(tmp_path, caplog):
    t = tensors_of({"conv1.weight": (4, 1, 3, 3), "conv2.weight": (6, 4, 3, 3), "fc.weight": (3, 6), "fc.bias": (3,)})
    path = write(tmp_path / "net.pt", t)
    found = files.load(path, image_shape=(8, 8, 1))
    assert re.search(r"cannot be seen.*strides \(1, 1\), max-pooling \(2, 2\).*give layout", caplog.text)
    caplog.clear()
    layout = {"strides": [1, 2], "pool": 0, "padding": 0}
    given = files.load(path, image_shape=(8, 8, 1), layout=layout)
    assert not caplog.text and given.module.strides == (1, 2) and found.module.pool == (2, 2)
    x = RNG.standard_normal((2, 8, 8, 1)).astype(np.float32)
    h = relu(conv(x.transpose(0, 3, 1, 2), t["conv1.weight"], padding=0))
    want = linear(t, "fc", relu(conv(h, t["conv2.weight"], stride=2, padding=0)).mean((2, 3)))
    np.testing.assert_allclose(given.module.apply(given.variables, x)[0], want, rtol=1e-4, atol=1e-5)
    again = files.load(given.save(tmp_path / "net.safetensors"))  # whose header has it
    assert again.module == given.module and not caplog.text
    with pytest.raises(ArgumentError, match=r"layout has stride, which ConvNet does not; it has activation, .*strides"):
        files.load(path, image_shape=(8, 8, 1), layout={"stride": 1})


def test_the_sentence_for_an_unknown_network_has_the_first_difference(tmp_path):
    t = MADE["vgg"]()[0]
    path = write(tmp_path / "net.pt", t | {"features.3.weight": np.ones((4, 1, 3, 3), np.float32)})
    words = "nearest network is ConvNet: features.3.weight is 4x1x3x3 and should be anyx4x3x3; docs/extending.md"
    with pytest.raises(ArgumentError, match=words):
        files.load(path, image_shape=(8, 8, 3))
    path = write(tmp_path / "net.pt", MADE["lenet_same"]()[0])
    with pytest.raises(ArgumentError, match=r"fc1.weight takes 100 numbers, which no usual .* of 9x13 images"):
        files.load(path, image_shape=(9, 13, 2))


TINY = ispf_jax.Distill(epochs=1, warmup_epochs=0, loops=1, student_steps=1, batch_size=4, generator_width=0.04)


@cache
def teacher(name):
    made = Classifier(build_classifier(name, 3, 0.04), {}, image_shape=(12, 12, 1))
    return made.replace(variables=made.network.init(jax.random.key(0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "wrn-16-4", "vgg11", "lenet", "vit-tiny"])
def test_an_epoch_of_unlearning_of_every_family(name):
    out = ispf_jax.unlearn(teacher(name), [1], "gkt", config=TINY, devices=1, progress=False)
    assert np.isfinite(out.classifier(np.zeros((2, 12, 12, 1), np.uint8))).all()
    assert np.isfinite(out.history[-1]["generator/total"]) and out.classifier.module == teacher(name).module


def test_the_student_is_another_network_and_the_teacher_a_function(tmp_path):
    weights = np.asarray(RNG.standard_normal((144, 3)), np.float32)

    def function(images):
        return jnp.tanh(images.reshape(len(images), -1)) @ weights

    made = Classifier.from_function(function, (12, 12, 1), ["a", "b", "c"])
    images = RNG.integers(0, 256, (5, 12, 12, 1), np.uint8)
    np.testing.assert_allclose(made(images), np.tanh(images.reshape(5, -1) / 255) @ weights, rtol=1e-4, atol=1e-5)
    student = build_classifier("lenet", 3, 0.04)
    out = ispf_jax.unlearn(made, ["b"], "gkt", config=TINY, student=student, devices=1, progress=False)
    assert out.classifier.module == student and out.history[-1]["generator/bn"] == 0
    assert out.classifier.class_names == ("a", "b", "c") and out.classifier.mean == (0.0,)
    tensors = files.read_weights(out.classifier.save(tmp_path / "net.pt")).tensors
    assert "features.0.weight" in tensors  # the student's own names
    with pytest.raises(ArgumentError, match="student=Function has no weights to train; name a network"):
        ispf_jax.unlearn(made, [1], config=TINY, devices=1, progress=False)
    with pytest.raises(ArgumentError, match=r"must return logits \[N, 4\], not \[2, 3\]"):
        Classifier.from_function(function, (12, 12, 1), 4)
    with pytest.raises(ArgumentError, match="student has 5 classes"):
        ispf_jax.unlearn(made, [1], student=build_classifier("lenet", 5), config=TINY, devices=1)


def test_titles():
    titles = [title(build_classifier(name, 10)) for name in CLASSIFIERS]
    assert titles[:8] == ["AllCNN", *(f"ResNet{n}" for n in (18, 34, 50, 20, 32, 56)), "WRN-16-4"]


@pytest.mark.slow
def test_rematerialisation_keeps_less_and_changes_no_gradient():
    """What a backward pass through generator and teacher is given of 256 images, and one step of both networks."""
    kept, states, noise = [], [], jnp.asarray(RNG.standard_normal((4, 256)), jnp.float32)
    for remat in (False, True):
        of, config = teacher("resnet20"), replace(TINY, remat=remat)
        run = UnlearningRun(of, [1], "ispf", "dfq", 0, config, RunOptions(devices=1))
        setup, state, request = run.setup, run.fresh_state(), unlearning(METHODS["ispf"], [1], 3, 0.9)

        def backward(params, z, setup=setup, state=state):
            def logits(params):
                images, _ = synthesise(setup, {**state.generator.variables, "params": params}, z, train=True)
                return setup.apply(setup.network.module, of.variables, images)[0]

            return jax.vjp(logits, params)[1]

        shapes = jax.eval_shape(backward, state.generator.params, jax.ShapeDtypeStruct((256, 256), jnp.float32))
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(shapes)))
        for step in (generator_step, student_step):
            state, _ = jax.jit(partial(step, setup))(state, of.variables, request, noise)
        states.append((state.student, state.generator))
    assert kept[1] < 0.5 * kept[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states)
