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

RNG = np.random.default_rng(0)


def write(path, tensors):
    path.write_bytes(torch_zip.write(tensors, {}))
    return path


def tensors_of(shapes: dict) -> dict[str, np.ndarray]:
    """Random numbers under which no layer is the identity, and the counters of batch norms."""
    found = {}
    for name, shape in shapes.items():
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            found[name] = RNG.uniform(0.5, 1.5, shape).astype(np.float32)
        elif name.endswith("num_batches_tracked"):
            found[name] = np.asarray(17)
        else:
            scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.3
            found[name] = (scale * RNG.standard_normal(shape)).astype(np.float32)
    return found


def norm_shapes(name, n):
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{leaf}": (n,) for leaf in leaves} | {f"{name}.num_batches_tracked": ()}


def conv(x, w, b=None, stride=1, padding=1):
    """PyTorch's convolution of x [N, C, H, W], float64."""
    x = np.pad(np.float64(x), [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2])
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nihwab,oiab->nohw", windows, w) + (0 if b is None else b[:, None, None])


def norm(t, name, x):
    weight, bias, mean, var = (
        t[f"{name}.{k}"][:, None, None] for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def relu(x):
    return np.maximum(x, 0)


def pool(x):
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def linear(t, name, x):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def resnet_padded():
    """CIFAR's ResNet with option A: two stages of one block, names of the usual program."""
    shapes = {"conv1.weight": (3, 3, 3, 3)} | norm_shapes("bn1", 3)
    for stage, (inputs, n) in enumerate(((3, 3), (3, 8)), start=1):
        for i, from_ in ((1, inputs), (2, n)):
            shapes |= {f"layer{stage}.0.conv{i}.weight": (n, from_, 3, 3)} | norm_shapes(f"layer{stage}.0.bn{i}", n)
    t = tensors_of(shapes | {"linear.weight": (4, 8), "linear.bias": (4,)})

    def forward(x):
        x = relu(norm(t, "bn1", conv(x, t["conv1.weight"])))
        for stage in (1, 2):
            at = f"layer{stage}.0"
            h = relu(norm(t, f"{at}.bn1", conv(x, t[f"{at}.conv1.weight"], stride=stage)))
            h = norm(t, f"{at}.bn2", conv(h, t[f"{at}.conv2.weight"]))
            x = np.pad(x[:, :, ::2, ::2], [(0, 0), (2, 3), (0, 0), (0, 0)]) if stage == 2 else x
            x = relu(h + x)
        return linear(t, "linear", x.mean((2, 3)))

    return t, forward, (9, 9, 3), "ResNet6"


def resnet_wide():
    """Pre-activation, three stages of one block, names of the wide ResNet's program, the head in a Sequential."""
    shapes, sizes = {"conv1.weight": (4, 1, 3, 3)}, (4, 6, 6, 8)
    for s in (1, 2, 3):
        at, (inputs, n) = f"module.block{s}.layer.0", sizes[s - 1 : s + 1]
        shapes |= norm_shapes(f"{at}.bn1", inputs) | {f"{at}.conv1.weight": (n, inputs, 3, 3)}
        shapes |= norm_shapes(f"{at}.bn2", n) | {f"{at}.conv2.weight": (n, n, 3, 3)}
        shapes |= {f"{at}.convShortcut.weight": (n, inputs, 1, 1)} if s > 1 else {}
    shapes = {"module.conv1.weight": shapes.pop("conv1.weight")} | shapes
    shapes |= norm_shapes("module.bn1", 8) | {"module.fc.1.weight": (3, 8), "module.fc.1.bias": (3,)}
    shapes["module.block1.layer.0.conv1.weight"] = (6, 4, 3, 3)
    shapes["module.block1.layer.0.convShortcut.weight"] = (6, 4, 1, 1)
    t = tensors_of(shapes)

    def forward(x):
        x = conv(x, t["module.conv1.weight"])
        for s in (1, 2, 3):
            at, stride = f"module.block{s}.layer.0", 1 if s == 1 else 2
            first = relu(norm(t, f"{at}.bn1", x))
            h = relu(norm(t, f"{at}.bn2", conv(first, t[f"{at}.conv1.weight"], stride=stride)))
            h = conv(h, t[f"{at}.conv2.weight"])
            x = h + conv(first, t[f"{at}.convShortcut.weight"], stride=stride, padding=0)
        return linear(t, "module.fc.1", relu(norm(t, "module.bn1", x)).mean((2, 3)))

    return t, forward, (8, 8, 1), "WRN-10-0.375"


def lenet(padding):
    """Two convolutions with pooling, hidden dense layers behind an image that is flattened channels first."""
    side = 5 if padding else 2
    shapes = {"conv1.weight": (3, 2, 5, 5), "conv1.bias": (3,), "conv2.weight": (4, 3, 5, 5), "conv2.bias": (4,)}
    for name, (outputs, inputs) in {"fc1": (7, 4 * side**2), "fc2": (6, 7), "fc3": (5, 6)}.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    t = tensors_of(shapes)

    def forward(x):
        for name in ("conv1", "conv2"):
            x = pool(relu(conv(x, t[f"{name}.weight"], t[f"{name}.bias"], padding=padding)))
        x = x.reshape(len(x), -1)
        return linear(t, "fc3", relu(linear(t, "fc2", relu(linear(t, "fc1", x)))))

    return t, forward, (20, 20, 2), "ConvNet"


def vgg():
    """`features.N` with gaps where it pools: convolutions at 0, 3, 7 of which the second and third pool."""
    shapes, at = {}, ((0, 3, 4), (3, 4, 4), (7, 4, 6))
    for n, inputs, outputs in at:
        shapes |= {f"features.{n}.weight": (outputs, inputs, 3, 3), f"features.{n}.bias": (outputs,)}
        shapes |= norm_shapes(f"features.{n + 1}", outputs)
    shapes |= {"classifier.1.weight": (5, 24), "classifier.1.bias": (5,), "classifier.4.weight": (3, 5)}
    t = tensors_of(shapes | {"classifier.4.bias": (3,)})

    def forward(x):
        for n, *_ in at:
            x = norm(t, f"features.{n + 1}", conv(x, t[f"features.{n}.weight"], t[f"features.{n}.bias"]))
            x = pool(relu(x)) if n else relu(x)
        return linear(t, "classifier.4", relu(linear(t, "classifier.1", x.reshape(len(x), -1))))

    return t, forward, (8, 8, 3), "ConvNet"


def vit():
    """timm's names: two blocks of width 128, which is two heads, without a class token, patches of 4."""
    d, shapes = 128, {"pos_embed": (1, 4, 128), "patch_embed.proj.weight": (128, 3, 4, 4)}
    shapes["patch_embed.proj.bias"] = (d,)
    for n in (0, 1):
        sizes = {"norm1": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "norm2": (d,)}
        for name, size in (sizes | {"mlp.fc1": (96, d), "mlp.fc2": (d, 96)}).items():
            shapes |= {f"blocks.{n}.{name}.weight": size, f"blocks.{n}.{name}.bias": size[:1]}
    shapes |= {"fc_norm.weight": (d,), "fc_norm.bias": (d,), "head.weight": (3, d), "head.bias": (3,)}
    t = tensors_of(shapes)

    def layer_norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    def forward(x):
        gelu = lambda x: np.asarray(jax.nn.gelu(x, approximate=False))
        x = conv(x, t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], 4, 0)
        x = x.reshape(len(x), d, -1).swapaxes(1, 2) + t["pos_embed"]
        for at in ("blocks.0", "blocks.1"):
            qkv = linear(t, f"{at}.attn.qkv", layer_norm(f"{at}.norm1", x))
            mixed = []
            for head in (slice(0, 64), slice(64, 128)):
                q, k, v = (qkv[..., n * d : (n + 1) * d][..., head] for n in range(3))
                scores = np.exp(q @ k.swapaxes(1, 2) / 8)
                mixed.append(scores / scores.sum(-1, keepdims=True) @ v)
            x = x + linear(t, f"{at}.attn.proj", np.concatenate(mixed, -1))
            x = x + linear(t, f"{at}.mlp.fc2", gelu(linear(t, f"{at}.mlp.fc1", layer_norm(f"{at}.norm2", x))))
        return linear(t, "head", layer_norm("fc_norm", x.mean(1)))

    return t, forward, (8, 8, 3), "ViT"


def vit_of_hugging_face():
    """The same network under the names of transformers, where query, key and value are three layers."""
    tensors, forward, *rest = vit()
    inside = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense"}
    inside |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    named = {"pos_embed": "vit.embeddings.position_embeddings", "fc_norm": "vit.layernorm", "head": "classifier"}
    named |= {"patch_embed.proj": "vit.embeddings.patch_embeddings.projection"}
    named |= {f"blocks.{n}.{k}": f"vit.encoder.layer.{n}.{v}" for n in (0, 1) for k, v in inside.items()}
    renamed = {}
    for key, value in tensors.items():
        module, _, leaf = key.rpartition(".")
        if "qkv" in key:
            at = f"vit.encoder.layer.{key.split('.')[1]}.attention.attention"
            thirds = zip(("value", "query", "key"), (value[256:], value[:128], value[128:256]))
            renamed |= {f"{at}.{name}.{leaf}": third for name, third in thirds}
        else:
            renamed[named.get(key) or f"{named[module]}.{leaf}"] = value
    return renamed, forward, *rest


MADE = {f.__name__: f for f in (resnet_padded, resnet_wide, vgg, vit, vit_of_hugging_face)}
MADE |= {"lenet_same": partial(lenet, 2), "lenet_valid": partial(lenet, 0)}


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
