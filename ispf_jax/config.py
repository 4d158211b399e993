"""The door for configurations: from a ConfigDict of text and numbers to checked values; nothing below imports
ml_collections.

Every key is a field of a settings class, which holds its default, range and meaning: `Experiment` and the groups
`data`, `model`, `distill`, `train`, `evaluate`, `audit`, `ray`. Lists may be written as text ("gkt,ispf").
"""

import dataclasses
import difflib
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ispf_jax import files, models, ops
from ispf_jax.data.dataset import DataRequest
from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.evaluate.settings import Audit
from ispf_jax.methods import METHODS
from ispf_jax.settings import Settings, key, meanings
from ispf_jax.training import Train
from ispf_jax.unlearning import BASES, Distill

STAGES = ("original", "retrain", "unlearn", "audit", "report")
SPREADS = ("batch", "jobs", "ray")
WITH_AUDIT = "original,retrain,unlearn,audit,report"
ALL_METHODS = "dfkd,blockf,gkt,is,pf,ispf,pd,pd_is"


@dataclass(frozen=True)
class Model(Settings):
    """The classifier, teacher and student alike.

    Attributes:
      name: allcnn or resnet18.
      width: factor on the number of filters.
      checkpoint: a classifier that was trained elsewhere, to be the original of every trial: a state_dict (.pt of
        PyTorch, or .safetensors); see docs/checkpoints.md; empty: the original is trained here.
      dtype: of activations: float32 or bfloat16; parameters, statistics and losses are float32.
      mean: normalisation, one number or one per channel, for images in [0, 1] [program: 0.5 for SVHN].
      std: the same for the standard deviation.
    """

    name: str = key("allcnn", among=lambda: models.CLASSIFIERS)
    width: float = key(1.0, above=0, below=64)
    checkpoint: str = key("")
    dtype: str = key("float32", among=("float32", "bfloat16"))
    mean: tuple[float, ...] = key("0.5", at="data.mean")
    std: tuple[float, ...] = key("0.5", at="data.std")


@dataclass(frozen=True)
class Evaluate(Settings):
    """Evaluation on test images; it selects nothing that is reported as the headline ("last").

    Attributes:
      every: epochs of distillation between two looks at the test images; 0: only at the end. The epoch that is best on
        test images, which the program reports, becomes a separate row.
      batch_size: images per forward pass.
    """

    every: int = key(1, least=0)
    batch_size: int = key(500, above=0)


@dataclass(frozen=True)
class Ray(Settings):
    """Whole runs over a Ray cluster (spread=ray): this machine, or the cluster that RAY_ADDRESS names.

    Attributes:
      gpus: GPUs per job; -1: one if the cluster has any.
      cpus: processor cores that a job counts for; 0: one next to a GPU, else two if a machine has them.
      retries: how often a job is tried again after its process was lost or it failed for an unforeseen reason.
    """

    gpus: int = key(-1, least=-1)
    cpus: int = key(0, least=0)
    retries: int = key(2, least=0)


@dataclass(frozen=True)
class Experiment(Settings):
    """A checked configuration. `forget` is kept as written: classes are resolved once the data is known.

    Attributes:
      stages: of original, retrain, unlearn, audit, report; retrain may be left out by those without time for it.
      methods: of dfkd, blockf, gkt, is, pf, ispf, pd, pd_is; original, retrain and masked_head are always in the table.
      base: base of the data-free distillation: dfq or zskt, or both as "dfq,zskt".
      forget: sets of classes to forget, ids or names (id:5, name:05 where one word could be both): "3"; "1,7" (one set
        of two); "0;1;2" (three sets); "each" (every class by itself).
      seeds: one trial per seed: own original, own retrained model, own student.
      devices: devices of this machine (of each machine, if there are several) to use; 0: all.
      spread: what is spread over them: "batch" (every run over all of them), "jobs" (every device takes whole runs) or
        "ray" (whole runs over the processes and machines of a Ray cluster).
      dry_run: only print the jobs, their steps and an estimate of the time.
      deterministic: the same bits from run to run on GPUs too, slower; CPUs always give them.
      convolutions: what computes them on a CPU: "auto": Winograd's for wide float32 layers, for others oneDNN's where
        it is installed (extra "onednn"; up to twice as fast as XLA's); "onednn" or "xla": these for all layers.
      export: write finished networks as files for other programs: "pt" (PyTorch), "safetensors", or both; "auto": in
        the format of model.checkpoint, if there is one; empty: no.
      checkpoint_seconds: time between two checkpoints of a running stage; every stage is saved at its end in any case.
      progress_seconds: time between two lines of progress where the output is no terminal.
      tensorboard: write event files if tensorboardX is installed (extra "tensorboard").
      compilation_cache: directory in which JAX keeps compiled programs for the next start; "auto": in
        ~/.cache/ispf_jax; "off": none.
    """

    stages: tuple[str, ...] = key("original,retrain,unlearn,report", among=STAGES)
    methods: tuple[str, ...] = key("gkt,ispf", among=lambda: METHODS)
    base: tuple[str, ...] = key("dfq", among=BASES)
    forget: str = key("3")
    seeds: tuple[int, ...] = key("0", least=0, below=2**32)
    devices: int = key(0, least=0)
    spread: str = key("batch", among=SPREADS)
    dry_run: bool = key(False)
    deterministic: bool = key(False)
    convolutions: str = key("auto", among=ops.IMPLEMENTATIONS)
    data: DataRequest = DataRequest()
    model: Model = Model()
    train: Train = Train()
    distill: Distill = Distill()
    evaluate: Evaluate = Evaluate()
    audit: Audit = Audit()
    ray: Ray = Ray()
    export: tuple[str, ...] = key("auto", among=("auto", *files.FORMATS))
    checkpoint_seconds: float = key(60.0, least=0)
    progress_seconds: float = key(10.0, least=0)
    tensorboard: bool = key(True)
    compilation_cache: str = key("auto")

    def check(self):
        if not self.base:
            raise ArgumentError("base", f" is empty; allowed are {', '.join(BASES)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError("seeds", f"={','.join(map(str, self.seeds))!r} must be one or more different numbers.")
        for name, values in (("mean", self.model.mean), ("std", self.model.std)):
            if len(values) not in (1, 3) or not all(0 <= v <= 1 for v in values) or (name == "std" and 0 in values):
                text = f"={','.join(f'{v:g}' for v in values)!r} must be one number, or three for colour, from 0 to 1"
                raise ArgumentError(
                    f"data.{name}", f"{text}: it is for pixels in [0, 1]; divide one for 0 to 255 by 255."
                )
        for name in self.methods:
            try:
                METHODS[name].rules()
            except ArgumentError as error:
                raise ArgumentError("methods", f": {name!r} has {error}") from error
        wanted = {"model.checkpoint": self.model.checkpoint, "export": ",".join(set(self.export) & set(files.FORMATS))}
        for path, value in wanted.items():
            if value and self.model.name not in files.CONVENTIONS:
                known = ", ".join(files.CONVENTIONS)
                text = f"={value!r} needs to know what files call the tensors of {self.model.name}; known are {known}"
                raise ArgumentError(path, f"{text} (docs/extending.md says how to add one).")


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
    "ray",
    "data.path",
    "data.data_dir",
    "data.manual_dir",
    "data.download",
    "data.cache_dir",
)
"""Keys that may change between two starts in one work directory; at most they affect rounding, and every result row
names them.
"""


def keys() -> Iterator[tuple[str, str, dataclasses.Field, str]]:
    """(path, group or "", field, meaning) of every configuration key, in the order of the classes."""
    for field in dataclasses.fields(Experiment):
        if dataclasses.is_dataclass(field.type):
            texts = meanings(field.type)
            for inner in dataclasses.fields(field.type):
                if inner.metadata:
                    yield _path(field.name, inner), field.name, inner, texts[inner.name]
        else:
            yield field.name, "", field, meanings(Experiment)[field.name]


def _path(group, field):
    return field.metadata["at"] or (f"{group}.{field.name}" if group else field.name)


def default_config(variant: str = "") -> ConfigDict:
    """Every key at its default. `variant`: words after a colon in `--config=file.py:word,word`; see `vary`."""
    c = ConfigDict()
    for path, _, field, _ in keys():
        group, _, name = path.rpartition(".")
        if group and group not in c:
            c[group] = ConfigDict()
        place: Any = c[group] if group else c
        place[name] = field.default
    c.parts = ConfigDict()  # sub-experiments {name: {keys that differ}}, each in its own directory; see `sweep`
    return vary(c, variant)


def presets() -> Path:
    """The directory of the configurations that come with the package."""
    packaged = Path(__file__).with_name("configs")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def preset(name: str, variant: str = "") -> ConfigDict:
    """A configuration that comes with the package: preset("svhn_ispf", "resnet18")."""
    return runpy.run_path(str(presets() / f"{name}.py"))["get_config"](variant)


def sweep(parts: dict[str, ConfigDict], variant: str = "", **common) -> ConfigDict:
    """One configuration out of several: what all `parts` share can be set once, what differs is set per part.

    Keys in which a part differs from the first are changed on the command line as `--config.parts.<name>.<key>`, all
    others as `--config.<key>`.

    Args:
      variant: as of the parts; `smoke` leaves one class and one trial of the sweep.
      common: keys to set in all parts, such as `methods` or `forget`.
    """
    if "smoke" in variant.split(","):
        common |= {"forget": "3", "seeds": "0"}
    for config in parts.values():
        config.update(common)
    c = next(iter(parts.values())).copy_and_resolve_references()
    c.parts = ConfigDict({name: _difference(config.to_dict(), c.to_dict()) for name, config in parts.items()})
    return c


def _difference(config: dict, base: dict) -> dict:
    """The nested keys of `config` whose values differ from those in `base`."""
    return {k: _difference(v, base[k]) if isinstance(v, dict) else v for k, v in config.items() if v != base[k]}


def vary(c: ConfigDict, variant: str) -> ConfigDict:
    """Apply the words of a config argument: a network's name, or `smoke`.

    `smoke` runs the whole pipeline in under a minute on two cores: synthetic images of the configuration's size, one
    sixteenth of the width, few steps, the first of the forget sets.
    """
    for word in filter(None, variant.split(",")):
        if word in models.CLASSIFIERS:
            c.model.name = word
        elif word == "smoke":
            _shrink(c)
        else:
            raise ValueError(f"unknown variant {word!r}; known are {', '.join(models.CLASSIFIERS)} and smoke")
    return c


def _shrink(c):
    c.forget = c.forget.split(";")[0]
    c.data.update(name="synthetic", path="", cache_dir="off")
    c.data.update(max_train=max(400, 4 * c.data.classes), max_test=max(100, 2 * c.data.classes))
    if not c.data.image_size:
        c.data.update(image_size=32, channels=3)
    c.model.width = c.generator.width = 0.0625
    c.train.update(epochs=2, batch_size=64, decay_epochs="1")
    c.distill.update(epochs=2, loops=1, student_steps=2, warmup_epochs=1, batch_size=32)
    c.audit.update(shadows=1, relearn_steps=2, relearn_batch=32, shots="1", layers=1, barrier_points=3)
    c.audit.update(barrier_images=50, synthetic_images=64, embedding_images=50)


def make_experiment(config: Any) -> Experiment:
    """Check a ConfigDict (or plain nested dict) and turn it into an `Experiment`.

    Raises:
      ArgumentError: a key is unknown, missing or has a wrong value; the message names it as "config.<key>".
    """
    raw = dict(_leaves({k: v for k, v in _plain(config).items() if k != "parts"}))
    known = {path: (group, field.name) for path, group, field, _ in keys()}
    for path in raw:
        if path not in known:
            raise ArgumentError(f"config.{path}", _unknown(path, known))
    values: dict[str, dict] = {}
    for path, (group, name) in known.items():
        if path not in raw:
            raise ArgumentError(f"config.{path}", " is missing; start from ispf_jax.config.default_config().")
        values.setdefault(group, {})[name] = raw[path]
    types = {field.name: field.type for field in dataclasses.fields(Experiment)}
    top = values.pop("")
    groups = {group: _named(group, types[group], fields) for group, fields in values.items()}
    return _named("", Experiment, top | groups)


def _named(group, cls, values):
    """An object of a settings class, with the keys' paths in its errors."""
    try:
        return cls(**values)
    except ArgumentError as error:
        name, bracket, index = error.argument.partition("[")
        paths = {field.name: _path(group, field) for field in dataclasses.fields(cls) if field.metadata}
        raise ArgumentError(f"config.{paths.get(name, name)}{bracket}{index}", error.text) from error


def make_experiments(config: Any) -> dict[str, Experiment]:
    """All experiments of a configuration by name: one named "", or one for each of its `parts`.

    A part holds only what it changes. Raises UserError naming the part and the key.
    """
    raw = _plain(config)
    parts = raw.get("parts") or {}
    if not isinstance(parts, dict) or not all(isinstance(changes, dict) for changes in parts.values()):
        raise ArgumentError("config.parts", f"={parts!r} must be {{name: {{keys that differ}}}}.")
    if not parts:
        return {"": make_experiment(raw)}
    experiments = {}
    for name, changes in parts.items():
        if not all(c.isalnum() or c in "_-" for c in str(name)):
            text = " is no name of a part; use letters, digits, '_' and '-': it becomes a directory."
            raise ArgumentError(f"config.parts.{name}", text)
        try:
            experiments[name] = make_experiment(_merged(raw, changes))
        except UserError as error:
            raise UserError(f"part {name!r}: {error}") from error
    return experiments


def override_problem(path: str, text: str) -> str:
    """What is wrong with `--config.<path>=<text>` by itself, in a sentence; "" if the key exists and the text has its
    type.
    """
    if path.startswith("parts."):  # the parser knows which parts there are
        path = path.split(".", 2)[2] if path.count(".") > 1 else ""
    known = {path: field.type for path, _, field, _ in keys()}
    groups = {p.partition(".")[0] for p in known if "." in p}
    if path in groups:
        inside = ", ".join(sorted(p.partition(".")[2] for p in known if p.startswith(path + ".")))
        return f"config.{path} is a group of keys; set config.{path}.<key>, where <key> is one of {inside}."
    if path and path not in known:
        return f"config.{path}{_unknown(path, known)}"
    kind = known.get(path)
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
    flat = {}
    for path, group, field, _ in keys():
        value = getattr(getattr(experiment, group) if group else experiment, field.name)
        flat[path] = list(value) if isinstance(value, tuple) else value
    return flat


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of two flat configurations that differ and are not free to differ."""
    free = {key for key in {*old, *new} if any(key == f or key.startswith(f + ".") for f in FREE_KEYS)}
    return [key for key in sorted({*old, *new} - free) if old.get(key) != new.get(key)]


def _plain(config) -> dict:
    return config.to_dict() if hasattr(config, "to_dict") else dict(config)


def _leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _merged(config, changes):
    """`config` with the nested `changes`."""
    both = {k: _merged(config.get(k, {}), v) if isinstance(v, dict) else v for k, v in changes.items()}
    return {**config, **both}


def _unknown(path, known):
    group, _, name = path.rpartition(".")
    near = [p for p in known if p.rpartition(".")[2] == name] or difflib.get_close_matches(path, known, 1, 0.8)
    inside = sorted(p for p in known if p.rpartition(".")[0] == group) or sorted(known)
    return (
        f" is no known key; did you mean config.{near[0]}?"
        if near
        else f" is no known key; allowed are {', '.join(inside)}."
    )
