"""Networks written out in NumPy, float64: tensors as a file has them, and the logits; for `test_families.py`."""

from functools import partial

import jax
import numpy as np

RNG = np.random.default_rng(0)


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
