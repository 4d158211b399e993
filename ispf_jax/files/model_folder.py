"""Folders of one model, as Hugging Face keeps them: weights, config.json, preprocessor_config.json and a card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ispf_jax.errors import UserError
from ispf_jax.files import safetensors_file
from ispf_jax.files.card import CARD, model_card, sha256
from ispf_jax.runtime.atomic import atomic_write_bytes, atomic_write_json, atomic_write_text, ensure_writable
from ispf_jax.runtime.guard import read_bounded, reading

SUFFIXES = (".huggingface",)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
_CONFIG, _PIXELS, _LARGEST = "config.json", "preprocessor_config.json", 16 << 20


def weights_in(path: Path) -> Path | None:
    """The file of weights in a folder; None if it is no such folder."""
    return next((path / name for name in _WEIGHTS if (path / name).exists()), None)


def settings_in(path: Path) -> dict[str, Any]:
    """The arguments of `load` that the configuration of a folder holds, of transformers or timm.

    Raises:
      UserError: a file is damaged, or holds another type than it should.
    """
    config, pixels = ({}, {})
    with reading(path / _CONFIG):
        config = _object(path / _CONFIG)
    with reading(path / _PIXELS):
        pixels = _object(path / _PIXELS)
    said: dict[str, Any] = {}
    with reading(path / _CONFIG):
        timm = config.get("pretrained_cfg") or {}
        names = config.get("id2label") or {}
        names = (
            [str(names[key]) for key in sorted(names, key=int)] or config.get("label_names") or timm.get("label_names")
        )
        said |= {"class_names": tuple(map(str, names))} if names else {}
        size, channels = config.get("image_size"), config.get("num_channels", 3)
        channels, *sides = timm.get("input_size", [channels, size, size])
        sides = size if isinstance(size, list) else sides
        said |= {"image_shape": tuple(map(int, (*sides, channels)))} if all(sides) else {}
        scaled = pixels.get("do_rescale", True)
        for name in ("mean", "std"):
            value = pixels.get(f"image_{name}", timm.get(name))
            value = {"mean": 0.0, "std": 1.0}[name] if pixels.get("do_normalize") is False else value
            if value is not None:
                said[name] = tuple((np.ravel(value).astype(float) / (1 if scaled else 255)).tolist())
    return said


def _object(path) -> dict[str, Any]:
    found = json.loads(read_bounded(path, _LARGEST)) if path.exists() else {}
    if not isinstance(found, dict):
        raise ValueError("it is no object of JSON")
    return found


def write(path: Path, tensors: Mapping[str, np.ndarray], header: Mapping[str, str]) -> Path:
    """A folder with weights, configuration and card.

    Raises:
      UserError: there is something else at `path`.
    """
    if path.exists() and not (path.is_dir() and (weights_in(path) or not any(path.iterdir()))):
        raise UserError(f"{path} is there and is no folder of a model; remove it, or use another name.")
    said = {name: json.loads(header[name]) for name in ("class_names", "mean", "std", "image_shape")}
    names, (height, width, channels) = said["class_names"], said["image_shape"]
    config = {
        "architectures": [header["model"]],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "image_size": height if height == width else [height, width],
        "num_channels": channels,
    }
    pixels = {"do_rescale": True, "do_normalize": True, "image_mean": said["mean"], "image_std": said["std"]}
    pixels |= {"do_resize": True, "size": {"height": height, "width": width}}
    ensure_writable(path)
    weights = atomic_write_bytes(path / _WEIGHTS[0], safetensors_file.write(tensors, header))
    atomic_write_json(path / _CONFIG, config)
    atomic_write_json(path / _PIXELS, pixels)
    facts = {name: ", ".join(map(str, np.ravel(value))) for name, value in said.items()}
    facts |= {name: header[name] for name in ("model", "width", "forgotten") if name in header}
    sentences = ["`files.load` of ispf_jax reads this folder; the names of the tensors are those of PyTorch."]
    card = model_card(f"{header['model']}, {len(names)} classes", sentences, facts, {weights.name: sha256(weights)})
    atomic_write_text(path / CARD, card)
    return path
