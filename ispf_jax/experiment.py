"""An experiment: every key of a configuration, checked. Nothing here or below knows ml_collections.

Every key is a field of a settings class, which holds its default, range and meaning: `Experiment` and the groups
`data`, `model`, `distill`, `train`, `evaluate`, `audit`, `ray`. Lists may be written as text ("gkt,ispf").
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ispf_jax import files, models, ops
from ispf_jax.data.dataset import DataRequest
from ispf_jax.errors import ArgumentError, short_repr
from ispf_jax.evaluate.settings import Audit
from ispf_jax.hyperparameters import BASES, Distill
from ispf_jax.methods import METHODS
from ispf_jax.settings import Settings, joined, key, meanings
from ispf_jax.training import Train

STAGES = ("original", "retrain", "unlearn", "audit", "report")
SPREADS = ("batch", "jobs", "ray")


@dataclass(frozen=True)
class Model(Settings):
    """The classifier that is the teacher, and the student where that is another.

    Attributes:
      name: a network, such as allcnn, resnet18 or vit-tiny; of a checkpoint its family is enough; auto: what its
        tensors are, or allcnn without one.
      width: factor on the number of filters; of a checkpoint they are read from its tensors.
      layout: fields of the network that tensors do not show, as JSON, such as {"strides": [1, 2, 2], "pool": 0}.
      student: another network for the student; same: the teacher's.
      student_width: factor on its number of filters.
      checkpoint: a classifier that was trained elsewhere, to be the original of every trial: a file of PyTorch,
        safetensors or Flax, or a directory of Orbax or Hugging Face; see docs/checkpoints.md; empty: the original is
        trained here.
      weights: which of several networks in the checkpoint, by the path of its keys, such as "ema".
      example: an .npz with images and logits of the checkpoint's own program, which must be computed here too.
      dtype: of activations: float32 or bfloat16; parameters, statistics and losses are float32.
      mean: normalisation, one number or one per channel, for images in [0, 1] [program: 0.5 for SVHN].
      std: the same for the standard deviation.
    """

    name: str = key("allcnn", among=lambda: ("auto", *models.CLASSIFIERS))
    width: float = key(1.0, above=0, below=64)
    layout: str = key("")
    student: str = key("same", among=lambda: ("same", *models.CLASSIFIERS))
    student_width: float = key(1.0, above=0, below=64)
    checkpoint: str = key("", path=True)
    weights: str = key("")
    example: str = key("", at="model.check", path=True, free=True)
    dtype: str = key("float32", among=("float32", "bfloat16"))
    mean: tuple[float, ...] = key("0.5", at="data.mean")
    std: tuple[float, ...] = key("0.5", at="data.std")

    def check(self):
        self.fields()

    def fields(self) -> dict[str, Any]:
        """The layout."""
        try:
            found = json.loads(self.layout or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ArgumentError(
                "layout", f'={short_repr(self.layout)} must be JSON like {{"strides": [1, 2], "pool": 0}}.'
            )
        return found

    def made(self, classes: int, dtype: str | None = None):
        """The module, of a network that is trained here."""
        name = "allcnn" if self.name == "auto" else self.name
        return models.build_classifier(name, classes, self.width, dtype or self.dtype, self.fields())

    def student_module(self, classes: int):
        """The student's module; None: the teacher's."""
        if self.student == "same":
            return None
        return models.build_classifier(self.student, classes, self.student_width, self.dtype)


@dataclass(frozen=True)
class Evaluate(Settings):
    """Evaluation on test images; it selects nothing that is reported as the headline ("last").

    Attributes:
      every: epochs of distillation between two looks at the test images; 0: only at the end. The epoch that is best on
        test images, which the program reports, becomes a separate row.
      batch_size: images per forward pass; all there are, if these are fewer.
    """

    every: int = key(1, least=0, below=10**6)
    batch_size: int = key(500, above=0, below=2**20, free=True)


@dataclass(frozen=True)
class Ray(Settings):
    """Whole runs over a Ray cluster (spread=ray): this machine, or the cluster that RAY_ADDRESS names.

    Attributes:
      gpus: GPUs per job; -1: one if the cluster has any.
      cpus: processor cores that a job counts for; 0: one next to a GPU, else two if a machine has them.
      retries: how often a job is tried again after its process was lost or it failed for an unforeseen reason.
    """

    gpus: int = key(-1, least=-1, below=10**4)
    cpus: int = key(0, least=0, below=10**4)
    retries: int = key(2, least=0, below=10**4)


@dataclass(frozen=True)
class Experiment(Settings):
    """A checked configuration. `forget` is kept as written: classes are resolved once the data is known.

    Attributes:
      stages: of original, retrain, unlearn, audit, report; retrain may be left out by those without time for it.
      methods: of dfkd, blockf, gkt, is, pf, ispf, pd, pd_is; original, retrain and masked_head are always in the table.
      base: base of the data-free distillation: dfq, zskt or remix, or several as "dfq,remix".
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
      export: write finished networks for other programs: any of "pt" (PyTorch), "safetensors", "msgpack" (Flax),
        "orbax", "huggingface" (a folder) and "jax" (jax.export, for CPU and CUDA); "auto": in the format of
        model.checkpoint, if there is one; empty: no.
      export_floor: agreement with the original on synthetic images, in percent, below which a student is not exported
        and the program ends with code 3; as when less than half of the retained classes are covered; 0: none.
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
    audit: Audit = key(Audit(), free=True)
    ray: Ray = key(Ray(), free=True)
    export: tuple[str, ...] = key("auto", among=("auto", *files.FORMATS))
    export_floor: float = key(50.0, least=0, most=100)
    checkpoint_seconds: float = key(60.0, least=0)
    progress_seconds: float = key(10.0, least=0)
    tensorboard: bool = key(True)
    compilation_cache: str = key("auto", path=True)

    def check(self):
        if not self.base:
            raise ArgumentError("base", f" is empty; allowed are {', '.join(BASES)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ArgumentError("seeds", f"={short_repr(joined(self.seeds))} must be one or more different numbers.")
        for name, values in (("mean", self.model.mean), ("std", self.model.std)):
            if len(values) not in (1, 3) or not all(0 <= v <= 1 for v in values) or (name == "std" and 0 in values):
                text = f"={short_repr(joined(values))} must be one number, or three for colour, from 0 to 1"
                raise ArgumentError(
                    f"data.{name}", f"{text}: it is for pixels in [0, 1]; divide one for 0 to 255 by 255."
                )
        for name in self.methods:
            try:
                METHODS[name].rules()
            except ArgumentError as error:
                raise ArgumentError("methods", f": {name!r} has {error}") from error


def keys() -> Iterator[tuple[str, str, dataclasses.Field, str]]:
    """(path, group or "", field, meaning) of every configuration key, in the order of the classes."""
    for field in dataclasses.fields(Experiment):
        if dataclasses.is_dataclass(field.type):
            texts = meanings(field.type)
            for inner in dataclasses.fields(field.type):
                if inner.metadata:
                    yield inner.metadata["at"] or f"{field.name}.{inner.name}", field.name, inner, texts[inner.name]
        else:
            yield field.name, "", field, meanings(Experiment)[field.name]


@contextmanager
def keys_of(group: str, **others: str) -> Iterator[None]:
    """Within the block, arguments in errors get the paths of the keys of a group, or of `others`."""
    paths = {field.name: path for path, place, field, _ in keys() if place == group} | others
    try:
        yield
    except ArgumentError as error:
        name, bracket, index = error.argument.partition("[")
        path = name if name.startswith("config.") else f"config.{paths.get(name, name)}"
        raise ArgumentError(f"{path}{bracket}{index}", error.text) from error


def flatten(experiment: Experiment) -> dict[str, Any]:
    """{"data.name": ..., ...} with tuples as lists: what is written to disk and compared at the next start."""
    flat = {}
    for path, group, field, _ in keys():
        value = getattr(getattr(experiment, group) if group else experiment, field.name)
        flat[path] = list(value) if isinstance(value, tuple) else value
    return flat


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys of two flat configurations that differ and are not free to differ, as those without a group are.

    A key that the old one lacks came later, with a default under which nothing changed.
    """
    old = flatten(Experiment()) | old
    groups = {field.name for field in dataclasses.fields(Experiment) if field.metadata.get("free")}
    free = {path for path, group, field, _ in keys() if not group or field.metadata["free"]}
    changed = sorted(path for path in {*old, *new} - free if old.get(path) != new.get(path))
    return [path for path in changed if path.partition(".")[0] not in groups]
