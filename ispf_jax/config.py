"""From a ConfigDict to frozen dataclasses, with all validation; nothing below this file imports ml_collections.

The dataclasses mirror `configs/default.py`, where every key is explained. Lists that a user writes as text ("gkt,ispf") become
tuples here.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ispf_jax.errors import UserError
from ispf_jax.files import CONVENTIONS, FORMATS
from ispf_jax.methods import KEEP, METHODS, TARGETS
from ispf_jax.models import CLASSIFIERS
from ispf_jax.ops import IMPLEMENTATIONS

STAGES = ("original", "retrain", "unlearn", "audit", "report")
BASES = ("dfq", "zskt")
AUGMENTATIONS = ("none", "crop_flip")
AUDIT_METRICS = ("accuracy", "mia1", "mia2", "relearn", "features", "divergence", "lira")
MIA1_PROTOCOLS = ("salun", "unsc")
DTYPES = ("float32", "bfloat16")
SPREADS = ("batch", "jobs")
_WITHOUT_PATH = ("digits", "svhn", "cifar10", "cifar100", "synthetic", "none")


@dataclass(frozen=True)
class DataConfig:
    name: str
    path: str
    data_dir: str
    manual_dir: str
    download: bool
    cache_dir: str
    image_size: int
    resize: bool
    channels: int
    classes: int
    max_train: int
    max_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val_fraction: float


@dataclass(frozen=True)
class ModelConfig:
    name: str
    width: float
    checkpoint: str
    dtype: str


@dataclass(frozen=True)
class GeneratorConfig:
    latent_dim: int
    width: float


@dataclass(frozen=True)
class TrainConfig:
    epochs: int
    batch_size: int
    lr: float
    decay_epochs: tuple[int, ...]
    decay_factor: float
    momentum: float
    weight_decay: float
    augment: str
    augment_validation: bool


@dataclass(frozen=True)
class DistillConfig:
    epochs: int
    loops: int
    generator_steps: int
    student_steps: int
    warmup_epochs: int
    batch_size: int
    lr: float
    lr_final: float
    cosine_epochs: int
    momentum: float
    weight_decay: float
    generator_lr: float
    generator_b1: float
    generator_b2: float
    threshold: float
    thresholded_post_filter: bool
    weight_adv: float
    weight_bn: float
    weight_oh: float
    weight_balance: float
    weight_act: float


@dataclass(frozen=True)
class EvaluateConfig:
    every: int
    batch_size: int


@dataclass(frozen=True)
class AuditConfig:
    metrics: tuple[str, ...]
    mia1_protocol: str
    shadows: int
    lira_shadows: int
    relearn_steps: int
    relearn_batch: int
    relearn_alpha: float
    shots: tuple[int, ...]
    layers: int
    train_images: int
    barrier_points: int
    barrier_images: int
    synthetic_images: int
    embedding_images: int


@dataclass(frozen=True)
class Experiment:
    """A checked configuration. `forget` is kept as written: classes are resolved once the data is known (`forget.forget_sets`)."""

    stages: tuple[str, ...]
    methods: tuple[str, ...]
    base: tuple[str, ...]
    forget: str
    seeds: tuple[int, ...]
    devices: int
    spread: str
    dry_run: bool
    deterministic: bool
    convolutions: str
    data: DataConfig
    model: ModelConfig
    generator: GeneratorConfig
    train: TrainConfig
    distill: DistillConfig
    evaluate: EvaluateConfig
    audit: AuditConfig
    export: tuple[str, ...]
    checkpoint_seconds: float
    progress_seconds: float
    tensorboard: bool
    compilation_cache: str


FREE_KEYS = (
    "stages",
    "methods",
    "base",
    "forget",
    "seeds",
    "devices",
    "spread",
    "dry_run",
    "deterministic",
    "convolutions",
    "export",
    "checkpoint_seconds",
    "progress_seconds",
    "tensorboard",
    "compilation_cache",
    "evaluate.batch_size",
    "audit",
    "data.path",
    "data.data_dir",
    "data.manual_dir",
    "data.download",
    "data.cache_dir",
)
"""Keys that may differ between two starts in one work directory: they change what is run or kept; of what a run computes
the rounding at most, which `convolutions` and `devices` may change and every row of the results names."""


def make_experiment(config: Any) -> Experiment:
    """Check a ConfigDict (or plain nested dict) and turn it into an `Experiment`; raises UserError naming the key."""
    raw = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    experiment = _build(Experiment, {key: value for key, value in raw.items() if key != "parts"}, "")
    _validate(experiment)
    return experiment


def make_experiments(config: Any) -> dict[str, Experiment]:
    """All experiments of a configuration by name: one named "", or one for each of its `parts`.

    A part holds only what it changes. Raises UserError naming the part and the key.
    """
    raw = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    parts = raw.get("parts") or {}
    if not parts:
        return {"": make_experiment(raw)}
    for name in parts:
        if not all(c.isalnum() or c in "_-" for c in name):
            raise UserError(
                f"config.parts.{name} is no name of a part; use letters, digits, '_' and '-': it becomes a directory."
            )
    experiments = {}
    for name, changes in parts.items():
        try:
            experiments[name] = make_experiment(_merged(raw, changes))
        except UserError as error:
            raise UserError(f"part {name!r}: {error}") from error
    return experiments


def _merged(config, changes):
    """`config` with the nested `changes`."""
    both = {
        key: _merged(config.get(key, {}), value) if isinstance(value, dict) else value for key, value in changes.items()
    }
    return {**config, **both}


def override_problem(path: str, text: str) -> str:
    """What is wrong with `--config.<path>=<text>` by itself, in a sentence; "" if the key exists and the text has its type."""
    kind, prefix, names = Experiment, "", path.split(".")
    if names[0] == "parts":  # which parts there are, the parser knows
        names = names[2:]
    for name in names:
        fields = {f.name: f.type for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
        if name not in fields:
            return _unknown(prefix + name, fields)
        kind, prefix = fields[name], f"{prefix}{name}."
    if dataclasses.is_dataclass(kind):
        keys = ", ".join(sorted(f.name for f in dataclasses.fields(kind)))
        return f"config.{path} is a group of keys; set config.{path}.<key>, where <key> is one of {keys}."
    if kind in (int, float):
        try:
            kind(text)
        except ValueError:
            return f"config.{path}={text!r} must be {'a whole number' if kind is int else 'a number'}."
    if kind is bool and text.lower() not in ("true", "false", "t", "f", "1", "0"):
        return f"config.{path}={text!r} must be True or False."
    return ""


def flatten(experiment: Experiment) -> dict[str, Any]:
    """{"data.name": ..., ...} with tuples as lists: what is written to disk and compared at the next start."""

    def walk(value, prefix):
        for key, item in value.items():
            if isinstance(item, dict):
                yield from walk(item, f"{prefix}{key}.")
            else:
                yield prefix + key, list(item) if isinstance(item, tuple) else item

    return dict(walk(dataclasses.asdict(experiment), ""))


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of two flat configurations that differ and are not free to differ."""
    free = lambda key: any(key == f or key.startswith(f + ".") for f in FREE_KEYS)
    return [key for key in sorted({*old, *new}) if not free(key) and old.get(key) != new.get(key)]


def _build(cls, raw, prefix):
    fields = {f.name: f.type for f in dataclasses.fields(cls)}
    for key in raw:
        if key not in fields:
            raise UserError(_unknown(prefix + key, fields))
    for key in fields:
        if key not in raw:
            raise UserError(f"config.{prefix}{key} is missing; start from configs/default.py, which holds every key.")
    return cls(**{key: _convert(kind, raw[key], prefix + key) for key, kind in fields.items()})


def _unknown(key, fields):
    allowed = (
        f"allowed here are {', '.join(sorted(fields))}"
        if fields
        else f"config.{key.rpartition('.')[0]} has no keys below it"
    )
    return f"config.{key} is no known key; {allowed}."


def _convert(kind, value, key):
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"config.{key}={value!r} must be a group of keys, as in configs/default.py.")
        return _build(kind, value, key + ".")
    if (kind in (int, float) and isinstance(value, bool)) or (kind is int and not isinstance(value, int)):
        raise UserError(f"config.{key}={value!r} must be {'a whole number' if kind is int else 'a number'}.")
    if kind is float:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"config.{key}={value!r} must be a finite number.")
        return float(value)
    if kind is bool and not isinstance(value, bool):
        raise UserError(f"config.{key}={value!r} must be True or False.")
    if kind is str and not isinstance(value, str):
        raise UserError(f"config.{key}={value!r} must be text.")
    if kind in (int, bool, str):
        return value
    element = kind.__args__[0]
    words = [w.strip() for w in value.split(",") if w.strip()] if isinstance(value, str) else list(value)
    try:
        return tuple(element(word) for word in words)
    except (TypeError, ValueError):
        kinds = {int: "whole numbers", float: "numbers", str: "names"}[element]
        raise UserError(f"config.{key}={value!r} must be {kinds} separated by commas.") from None


def _validate(e: Experiment):
    for key, words, allowed in (
        ("stages", e.stages, STAGES),
        ("methods", e.methods, tuple(METHODS)),
        ("base", e.base, BASES),
        ("audit.metrics", e.audit.metrics, AUDIT_METRICS),
        ("export", e.export, ("auto", *FORMATS)),
    ):
        for word in words:
            if word not in allowed:
                raise UserError(f"config.{key}: {word!r} is unknown; allowed are {', '.join(allowed)}.")
        if len(set(words)) < len(words):
            raise UserError(f"config.{key}={','.join(words)!r} names one twice; name every one once.")
    for key, value, allowed in (
        ("model.name", e.model.name, tuple(CLASSIFIERS)),
        ("model.dtype", e.model.dtype, DTYPES),
        ("train.augment", e.train.augment, AUGMENTATIONS),
        ("data.channels", e.data.channels, (0, 1, 3)),
        ("audit.mia1_protocol", e.audit.mia1_protocol, MIA1_PROTOCOLS),
        ("spread", e.spread, SPREADS),
        ("convolutions", e.convolutions, IMPLEMENTATIONS),
    ):
        if value not in allowed:
            raise UserError(f"config.{key}={value!r} is unknown; allowed are {', '.join(map(str, allowed))}.")
    for key, value in (
        ("model.checkpoint", e.model.checkpoint),
        ("export", ",".join(f for f in e.export if f in FORMATS)),
    ):
        if value and e.model.name not in CONVENTIONS:
            raise UserError(
                f"config.{key}={value!r} needs to know what files call the tensors of {e.model.name}; allowed are the networks {', '.join(CONVENTIONS)} "
                "(docs/extending.md says how to add one)."
            )
    for name in e.methods:
        for field, value, table in (("keep", METHODS[name].keep, KEEP), ("target", METHODS[name].target, TARGETS)):
            if value not in table:
                raise UserError(
                    f"config.methods: {name!r} has {field}={value!r}, which is unknown; allowed are {', '.join(table)}."
                )
    if not e.seeds or len(set(e.seeds)) < len(e.seeds) or min(e.seeds) < 0 or max(e.seeds) >= 2**32:
        raise UserError(
            f"config.seeds={','.join(map(str, e.seeds))!r} must be one or more different whole numbers from 0 to 4294967295."
        )
    if not e.base:
        raise UserError(f"config.base is empty; allowed are {', '.join(BASES)}.")
    positive = {
        "model.width": e.model.width,
        "generator.width": e.generator.width,
        "generator.latent_dim": e.generator.latent_dim,
        "train.epochs": e.train.epochs,
        "train.batch_size": e.train.batch_size,
        "train.lr": e.train.lr,
        "train.decay_factor": e.train.decay_factor,
        **{f"train.decay_epochs[{i}]": n for i, n in enumerate(e.train.decay_epochs)},
        "distill.epochs": e.distill.epochs,
        "distill.loops": e.distill.loops,
        "distill.generator_steps": e.distill.generator_steps,
        "distill.student_steps": e.distill.student_steps,
        "distill.batch_size": e.distill.batch_size,
        "distill.lr": e.distill.lr,
        "distill.generator_lr": e.distill.generator_lr,
        "audit.relearn_batch": e.audit.relearn_batch,
        "audit.layers": e.audit.layers,
        "audit.train_images": e.audit.train_images,
        "audit.synthetic_images": e.audit.synthetic_images,
        **{f"audit.shots[{i}]": k for i, k in enumerate(e.audit.shots)},
        "evaluate.batch_size": e.evaluate.batch_size,
        "data.classes": e.data.classes,
        **{f"data.std[{i}]": s for i, s in enumerate(e.data.std)},
    }
    for key, value in positive.items():
        if value <= 0:
            raise UserError(f"config.{key}={value} must be greater than 0.")
    not_negative = {
        "data.max_train": e.data.max_train,
        "data.max_test": e.data.max_test,
        "data.image_size": e.data.image_size,
        "train.weight_decay": e.train.weight_decay,
        "distill.warmup_epochs": e.distill.warmup_epochs,
        "distill.cosine_epochs": e.distill.cosine_epochs,
        "distill.lr_final": e.distill.lr_final,
        "evaluate.every": e.evaluate.every,
        "audit.shadows": e.audit.shadows,
        "audit.lira_shadows": e.audit.lira_shadows,
        "audit.relearn_steps": e.audit.relearn_steps,
        "audit.barrier_points": e.audit.barrier_points,
        "audit.barrier_images": e.audit.barrier_images,
        "audit.embedding_images": e.audit.embedding_images,
        "checkpoint_seconds": e.checkpoint_seconds,
        "progress_seconds": e.progress_seconds,
        "devices": e.devices,
        **{
            f"distill.{field.name}": getattr(e.distill, field.name)
            for field in dataclasses.fields(e.distill)
            if field.name.startswith("weight_")
        },
    }
    for key, value in not_negative.items():
        if value < 0:
            raise UserError(f"config.{key}={value} must not be negative.")
    below_one = {
        "data.val_fraction": e.data.val_fraction,
        "train.momentum": e.train.momentum,
        "distill.momentum": e.distill.momentum,
        "distill.generator_b1": e.distill.generator_b1,
        "distill.generator_b2": e.distill.generator_b2,
        "distill.threshold": e.distill.threshold,
        "audit.relearn_alpha": e.audit.relearn_alpha,
    }
    for key, value in below_one.items():
        if not 0 <= value < 1:
            raise UserError(f"config.{key}={value} must be at least 0 and less than 1.")
    if e.data.val_fraction == 0:
        raise UserError(
            "config.data.val_fraction=0.0 leaves nothing to select the original's epoch by; use for example 0.2."
        )
    if e.data.name == "image_folder" and not e.data.path:
        raise UserError("config.data.path is empty; name a directory or tar archive that holds <split>/<class>/<file>.")
    if e.data.name in _WITHOUT_PATH and e.data.path:
        raise UserError(
            f"config.data.path={e.data.path!r} would not be read: config.data.name is {e.data.name!r} (with :smoke it is 'synthetic'); "
            "leave the path out, or set config.data.name=image_folder."
        )
    for key, values in (("mean", e.data.mean), ("std", e.data.std)):
        for i, value in enumerate(values):
            if not 0 <= value <= 1:
                raise UserError(
                    f"config.data.{key}[{i}]={value} must be from 0 to 1: it is for images in [0, 1]; divide one for 0 to 255 by 255."
                )
    if e.distill.lr_final > e.distill.lr:
        raise UserError(
            f"config.distill.lr_final={e.distill.lr_final} is greater than config.distill.lr={e.distill.lr}, which decays to it; set it to {e.distill.lr} or less."
        )
    if e.audit.lira_shadows % 2 or e.audit.lira_shadows == 2:
        raise UserError(
            f"config.audit.lira_shadows={e.audit.lira_shadows} must be 0 (no LiRA) or an even number, 4 or more; 16 or more are useful."
        )
    if len(e.data.mean) not in (1, 3) or len(e.data.std) not in (1, 3):
        raise UserError("config.data.mean and config.data.std take one number, or three for colour images.")
