"""Vision transformers with pre-norm blocks (Dosovitskiy et al. 2021); names of timm, torchvision and Hugging Face.

Tensors do not show the number of heads: 64 numbers of the width make one, unless it is given. GELU is exact, epsilon is
1e-6, and there is no dropout.
"""

import re

import flax.linen as nn
import jax.numpy as jnp

from ispf_jax.models.layers import Call, at_least_single, boundary, torch_uniform
from ispf_jax.models.tensors import Found, Given, Layer, Unlike, head_of, of_kind, refuse_more

_TIMM = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "out",
    "norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}
_TORCHVISION = {
    **{"ln_1": "norm1", "self_attention.in_proj_weight": "qkv/kernel", "self_attention.in_proj_bias": "qkv/bias"},
    **{"self_attention.out_proj": "out", "ln_2": "norm2", "mlp.0": "mlp1", "mlp.3": "mlp2"},
}
_HUGGING_FACE = {
    **{f"attention.attention.{name}": f"qkv:{i}" for i, name in enumerate(("query", "key", "value"))},
    **{f"attention.{name}_proj": f"qkv:{i}" for i, name in enumerate("qkv")},
    **{"attention.output.dense": "out", "attention.o_proj": "out"},
    **{"layernorm_before": "norm1", "layernorm_after": "norm2", "intermediate.dense": "mlp1", "output.dense": "mlp2"},
}
_OUTSIDE = {
    **{"position_embeddings": "positions", "patch_embeddings.projection": "patches", "layernorm": "norm"},
    **{
        "cls_token": "token",
        "pos_embed": "positions",
        "patch_embed.proj": "patches",
        "norm": "norm",
        "fc_norm": "norm",
    },
    **{"class_token": "token", "encoder.pos_embedding": "positions", "conv_proj": "patches", "encoder.ln": "norm"},
}


class ViT(nn.Module):
    """Called with normalised images [N, H, W, C], returns (logits [N, num_classes], features [N, dim]), both float32.

    Attributes:
      mlp: size of the hidden layer of a block.
      heads: 0: one for every 64 numbers of `dim`, as far as that divides it.
      token: whether a class token gives the features; else the mean over all patches.
      hidden: sizes of dense layers before the last one.
    """

    num_classes: int
    patch: int
    dim: int
    depth: int
    mlp: int
    heads: int = 0
    token: bool = True
    hidden: tuple[int, ...] = ()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask=None, axis=None):
        initial, patch = nn.initializers.normal(0.02), (self.patch, self.patch)
        x = nn.Conv(self.dim, patch, patch, "VALID", dtype=self.dtype, kernel_init=initial, name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.dim)
        if self.token:
            token = self.param("token", nn.initializers.zeros, (1, 1, self.dim))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.dim)).astype(x.dtype), x], axis=1)
        x = x + self.param("positions", initial, (1, *x.shape[1:])).astype(x.dtype)
        for n in range(1, self.depth + 1):
            heads = self.heads or next(h for h in range(max(1, self.dim // 64), 0, -1) if self.dim % h == 0)
            x = boundary(Encoder(self.mlp, heads, self.dtype, name=f"block{n}")(x))
        if not self.token:
            x = x.mean(axis=1, keepdims=True)
        x = nn.LayerNorm(1e-6, dtype=self.dtype, name="norm")(x)[:, 0]
        return Call(self.dtype, train, mask, axis).head(at_least_single(x), self.hidden, self.num_classes)

    @property
    def title(self) -> str:
        return "ViT"


class Encoder(nn.Module):
    """Attention and two dense layers, each behind a layer norm and added to its input [N, tokens, dim]."""

    mlp: int
    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        dim = x.shape[-1]

        def dense(h, size, name):
            init = torch_uniform(h.shape[-1])
            return nn.Dense(size, dtype=self.dtype, kernel_init=init, bias_init=init, name=name)(h)

        qkv = dense(nn.LayerNorm(1e-6, dtype=self.dtype, name="norm1")(x), 3 * dim, "qkv")
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, dim // self.heads), 2, 0)
        weights = nn.softmax(at_least_single(jnp.einsum("nqhd,nkhd->nhqk", q, k)) * (dim // self.heads) ** -0.5)
        x = x + dense(jnp.einsum("nhqk,nkhd->nqhd", weights.astype(v.dtype), v).reshape(x.shape), dim, "out")
        h = nn.gelu(dense(nn.LayerNorm(1e-6, dtype=self.dtype, name="norm2")(x), self.mlp, "mlp1"), approximate=False)
        return x + dense(h, dim, "mlp2")


def vit(dim: int, depth: int, patch: int = 4):
    """A function (classes, width, type) -> vision transformer for small images."""

    def build(num_classes: int, width: float, dtype) -> ViT:
        size = max(8, 8 * round(dim * width / 8))
        return ViT(num_classes, patch, size, depth, 4 * size, dtype=dtype)

    return build


def read(layers: list[Layer], image_shape, given: Given) -> Found:
    """The network of a file's layers; Unlike if they are no vision transformer."""
    places, left, found = {}, [], {}
    for layer in layers:
        block = re.search(r"(?:blocks\.|encoder_layer_|layers?\.)(\d+)\.(.+)", layer.name)
        ours = (_TIMM | _TORCHVISION | _HUGGING_FACE).get(block[2]) if block else None
        outside = next(
            (o for theirs, o in _OUTSIDE.items() if re.fullmatch(rf"(.*\.)?{re.escape(theirs)}", layer.name)), ""
        )
        path = f"block{int(block[1]) + 1}/{ours}" if block and ours else outside
        if path:
            places[layer.name] = f"params/{path}" if layer.name in layer.shapes else path
            found[re.sub("/kernel|:.", "", path)] = layer
        else:
            left.append(layer)
    linears = of_kind(left, "linear")
    if "patches" not in found or "block1/qkv" not in found:
        raise Unlike("there are no blocks of attention", len(layers))
    refuse_more(layer for layer in left if layer not in linears)
    if missing := {"positions", "norm", "block1/mlp1"} - found.keys():
        raise Unlike(f"there is nothing that could be {min(missing)}", len(missing))
    dim, _, patch, _ = found["patches"].require(None, None, None, None, bias=True).shape
    hidden, classes, head = head_of(linears, dim)
    depth = sum(path.endswith("/qkv") for path in found)
    network = ViT(classes, patch, dim, depth, found["block1/mlp1"].shape[0], token="token" in found, hidden=hidden)
    return given(network), places | head, ""


def names(network: ViT) -> dict[str, str]:
    """timm's names, {name of a module, or of a tensor, in a file: path here}."""
    first = {"cls_token": "params/token"} if network.token else {}
    first |= {"pos_embed": "params/positions", "patch_embed.proj": "patches"}
    blocks = {f"blocks.{n}.{k}": f"block{n + 1}/{v}" for n in range(network.depth) for k, v in _TIMM.items()}
    hidden = {f"head.{n}": f"dense{n + 1}" for n in range(len(network.hidden))}
    last = {f"head.{len(hidden)}" if hidden else "head": "classifier"}
    return first | blocks | {"norm" if network.token else "fc_norm": "norm"} | hidden | last
