"""The story: original -> retrain -> unlearn -> evaluate -> report. What is finished is never done again.

Layout of a work directory::

    config.json                                   the configuration and a fingerprint of the data
    original/seed0/{checkpoints,metrics.jsonl,split.npz,rows/3/result.json}
    retrain/3/seed0/{...,result.json}
    unlearn/dfq/ispf/3/seed0/{...,samples.png,result.json}
    audit/3/seed0/{original.json,...,audit.json}   what is left of the forgotten classes
    shadows/                                      shadow models of the audit's attacks
    report/ results.json results.csv ...          written by the report
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax import data as data_room
from ispf_jax.checkpoint import Saved, Store
from ispf_jax.config import Experiment, changed_keys, flatten, forget_sets, make_experiment
from ispf_jax.errors import UserError
from ispf_jax.estimate import cpu_seconds, total_flops
from ispf_jax.evaluate.accuracy import Evaluator, accuracies
from ispf_jax.files import atomic_write_json, ensure_writable
from ispf_jax.models import build_classifier, init_variables
from ispf_jax.parallel import local_devices
from ispf_jax.provenance import journalled, weights_digest
from ispf_jax.report import write_report
from ispf_jax.stages.supervised import SupervisedStage
from ispf_jax.stages.unlearn import UnlearnStage
from ispf_jax.telemetry import format_duration
from ispf_jax.training import Keeping

TELL_SECONDS = 900  # a CPU run expected to take longer is announced


def default_workdir(config_file: str) -> str:
    """runs/<name of the configuration file>, with the words after a colon."""
    return str(Path("runs") / Path(config_file).name.replace(".py", "").replace(":", "_").replace(",", "_"))


def run(config, workdir: str) -> str:
    """Run all stages of a ConfigDict in a work directory; returns the table that was printed. Raises UserError."""
    experiment = make_experiment(config)
    if experiment.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(experiment.compilation_cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    workdir = ensure_writable(workdir)
    saved = _read_config(workdir)
    _refuse(workdir, changed_keys(saved, flatten(experiment)) if saved else [])
    pipeline = Pipeline(experiment, workdir, saved)
    pipeline.announce()
    began = time.perf_counter()
    pipeline.run()
    if "report" in experiment.stages:
        table = write_report(workdir, pipeline.provenance())
        print(table)
    else:
        table = ""
    print(f"finished in {format_duration(time.perf_counter() - began)}; results are in {workdir}", file=sys.stderr)
    return table


class Pipeline:
    """One experiment on loaded data. Jobs are independent given the original of their seed."""

    def __init__(self, experiment: Experiment, workdir: Path, saved_config: dict | None = None):
        self.e, self.workdir = experiment, workdir
        self.devices = local_devices(experiment.devices)
        self.devices.check_batch("config.train.batch_size", experiment.train.batch_size)
        self.devices.check_batch("config.distill.batch_size", experiment.distill.batch_size)
        self.data = _load(experiment)
        self.forget_sets = forget_sets(experiment.forget, self.data.class_names)
        self._keep_config(saved_config)

        m = experiment.model
        self.classifier = build_classifier(m.name, self.data.num_classes, m.width, m.dtype)
        self._teachers: dict[int, dict] = {}
        self.images, self.labels = self.devices.replicate((self.data.train.images, self.data.train.labels))
        self.test_images, self.test_labels = self.devices.replicate((self.data.test.images, self.data.test.labels))
        self.evaluator = Evaluator(
            self.classifier, experiment.data.mean, experiment.data.std,
            min(experiment.evaluate.batch_size, len(self.data.test)),
        )  # fmt: skip
        keeping = Keeping(experiment.checkpoint_seconds, experiment.progress_seconds, experiment.tensorboard)
        self.supervised = SupervisedStage(experiment, self.classifier, self.devices, self.images, self.labels, keeping)
        self.unlearners = {
            base: UnlearnStage(experiment, base, self.classifier, self.data.image_shape, self.devices, keeping)
            for base in experiment.base
        }

    def run(self):
        """All stages the experiment asks for, job by job."""
        for seed in self.e.seeds:
            if "original" in self.e.stages:
                self.original(seed)
            for forget in self.forget_sets:
                if "retrain" in self.e.stages:
                    self.retrain(seed, forget)
                if "unlearn" in self.e.stages:
                    for base in self.e.base:
                        for method in self.e.methods:
                            self.unlearn(seed, forget, base, method)
                if "audit" in self.e.stages:
                    self.audit(seed, forget)

    @journalled("original")
    def original(self, seed: int):
        """The original of a trial, with rows for it and its masked head for every forget set."""
        directory = self.original_directory(seed)
        missing = [f for f in self.forget_sets if not (directory / "rows" / _joined(f) / "result.json").exists()]
        if not missing:
            return
        saved = self._trained_original(seed)
        for forget in missing:
            rows = []
            for method in ("original", "masked_head"):
                hidden = self._mask(forget) if method == "masked_head" else None
                rows.append(self._row(method, "", forget, seed, "best_validation", saved.best, saved, hidden=hidden))
            atomic_write_json(ensure_writable(directory / "rows" / _joined(forget)) / "result.json", rows)

    @journalled("retrain")
    def retrain(self, seed: int, forget: tuple[int, ...]):
        """The reference of a trial: trained from scratch without the images of forgotten classes."""
        directory = self.retrain_directory(seed, forget)
        if (directory / "result.json").exists():
            return
        retained = ~np.isin(self.data.train.labels, forget)
        title = f"retrain without {_shown(forget)} seed {seed}"
        saved = self.supervised.run(title, directory, seed, f"retrain {_joined(forget)}", retained)
        row = self._row("retrain", "", forget, seed, "best_validation", saved.best, saved)
        atomic_write_json(directory / "result.json", [row])

    @journalled("unlearn")
    def unlearn(self, seed: int, forget: tuple[int, ...], base: str, method: str):
        """One unlearned student, with a row for its last epoch and one for its best epoch on test images."""
        from ispf_jax.report.figures import image_grid

        directory = self.unlearn_directory(seed, forget, base, method)
        if (directory / "result.json").exists():
            return
        stage, teacher = self.unlearners[base], self.devices.replicate(self.teacher(seed))
        title = f"unlearn {method} ({base}) forget {_shown(forget)} seed {seed}"
        observe = self._observer(stage, method, forget) if self.e.evaluate.every else None
        saved = stage.run(title, directory, seed, method, forget, teacher, observe)
        rows = [self._row(method, base, forget, seed, "last", saved.last, saved, stage)]
        if saved.meta["best_score"] is not None:
            rows.append(self._row(method, base, forget, seed, "best_test_retain", saved.best, saved, stage))
        image_grid(stage.sample_images(saved.state, seed), directory / "samples.png")
        atomic_write_json(directory / "result.json", rows)

    @journalled("audit")
    def audit(self, seed: int, forget: tuple[int, ...]):
        """Measure everything there is for a trial and forget set: references, baselines and all finished students."""
        from ispf_jax.stages.audit import audit
        from ispf_jax.stages.audit_subjects import collect

        header = {
            "forget": _shown(forget), "forget_names": [self.data.class_names[c] for c in forget], "seed": seed,
            "dataset": self.e.data.name, "arch": self.e.model.name, "class_names": list(self.data.class_names),
        }  # fmt: skip
        audit(self.workdir / "audit" / _joined(forget) / f"seed{seed}", *collect(self, seed, forget), header)

    def original_directory(self, seed: int) -> Path:
        return self.workdir / "original" / f"seed{seed}"

    def retrain_directory(self, seed: int, forget: tuple[int, ...]) -> Path:
        return self.workdir / "retrain" / _joined(forget) / f"seed{seed}"

    def unlearn_directory(self, seed: int, forget: tuple[int, ...], base: str, method: str) -> Path:
        return self.workdir / "unlearn" / base / method / _joined(forget) / f"seed{seed}"

    def teacher(self, seed: int) -> dict:
        """Variables of the selected original of a trial; UserError if it is neither there nor among the stages."""
        if seed not in self._teachers:
            self._teachers = {seed: self._read_teacher(seed)}  # one is enough: the jobs of a seed follow one another
        return self._teachers[seed]

    def _read_teacher(self, seed):
        if "original" in self.e.stages:  # there already, unless its checkpoints were removed or damaged
            return self._trained_original(seed).best
        variables, meta = self.load(self.original_directory(seed), "best")
        if meta["epoch"] < self.e.train.epochs:
            raise UserError(f"the original of seed {seed} is not finished; add original to config.stages.")
        return variables

    def load(self, directory: Path, which: str) -> tuple[dict, dict]:
        """(classifier variables `last` or `best`, meta) of a stage's directory."""
        shapes = jax.eval_shape(partial(init_variables, self.classifier, example_shape=(1, *self.data.image_shape)), jax.random.key(0))
        template = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        with Store(directory / "checkpoints") as store:
            return store.variables(which, template)

    def _trained_original(self, seed):
        everything = np.ones(len(self.data.train), bool)
        return self.supervised.run(f"original seed {seed}", self.original_directory(seed), seed, "original", everything)

    def announce(self):
        """On a CPU, say before a long run about how long it will take."""
        if self.devices.devices[0].platform != "cpu":
            return
        flops = total_flops(self.e, self.classifier, self.data.image_shape, len(self.data.train), len(self.forget_sets))
        seconds = cpu_seconds(flops)
        if seconds > TELL_SECONDS:
            print(
                f"On this CPU the whole configuration will take about {seconds / 3600:.1f} hours. Small ones are "
                "configs/digits_ispf.py (minutes) and every configuration with :smoke (under a minute), for example "
                "--config=configs/svhn_ispf.py:smoke. It can be stopped at any time; the same command continues.",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    def provenance(self) -> dict:
        """What a reader needs to get the same numbers."""
        packages = ("ispf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
        return {
            "command": " ".join(["python", *sys.argv]),
            "config": flatten(self.e),
            "data": {"note": self.data.note, "train": len(self.data.train), "test": len(self.data.test)},
            "devices": [d.device_kind for d in self.devices.devices],
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        }

    def _observer(self, stage, method, forget):
        every = self.e.evaluate.every

        def observe(variables, epoch):
            after_warmup = epoch - stage.setup.warmup_epochs
            if after_warmup < 1 or after_warmup % every and epoch != stage.epochs:
                return {}, None
            a = accuracies(self.evaluator.confusion(variables, self.test_images, self.test_labels), forget)
            measured = {"test/acc_forget": a.forget, "test/acc_retain": a.retain, "test/acc_overall": a.overall}
            return measured, a.overall if method == "dfkd" else a.retain  # as the authors' program selects

        return observe

    def _row(self, method, base, forget, seed, selection, variables, saved: Saved, stage=None, hidden=None) -> dict:
        a = accuracies(self.evaluator.confusion(variables, self.test_images, self.test_labels, hidden=hidden), forget)
        epoch = saved.meta["epoch"] if selection == "last" else saved.meta["best_epoch"]
        student_steps, generator_steps = stage.steps(epoch) if stage else (0, 0)
        return {
            "method": method, "base": base, "dataset": self.e.data.name, "arch": self.e.model.name, "forget": _shown(forget),
            "seed": seed, "selection": selection, "acc_forget": a.forget, "acc_retain": a.retain, "acc_overall": a.overall,
            "train_seconds": 0.0 if method == "masked_head" else saved.meta["seconds"],
            "student_steps": student_steps, "generator_steps": generator_steps,
            "images_synthesised": (student_steps + generator_steps) * (stage.setup.batch_size if stage else 0),
            "weights": "" if method == "masked_head" else weights_digest(variables),
            "teacher": weights_digest(self.teacher(seed) if stage else variables) if stage or method == "masked_head" else "",
            "epoch": epoch, "access": _ACCESS.get(method, "weights only" if selection == "last" else "test images"),
        }  # fmt: skip

    def _mask(self, forget):
        return jnp.zeros(self.data.num_classes).at[jnp.array(forget)].set(1.0)

    def _keep_config(self, saved):
        fingerprint = _fingerprint(self.data)
        if saved and saved.get("data_fingerprint", fingerprint) != fingerprint:
            raise UserError(
                f"the images of data.name={self.e.data.name!r} are others than those that {self.workdir} was started with; "
                "use the same data or another --workdir."
            )
        content = {"config": flatten(self.e), "data_fingerprint": fingerprint, "class_names": list(self.data.class_names)}
        atomic_write_json(self.workdir / "config.json", content)


_ACCESS = {"original": "training data", "masked_head": "weights only", "retrain": "training data"}


def _load(e: Experiment) -> data_room.ImageData:
    d = e.data
    data = data_room.load(
        d.name, path=d.path, data_dir=d.data_dir, manual_dir=d.manual_dir, download=d.download, image_size=d.image_size,
        resize=d.resize, channels=d.channels, max_train=d.max_train, max_test=d.max_test, cache_dir=d.cache_dir,
        num_classes=d.classes,
    )  # fmt: skip
    channels = data.image_shape[2]
    for key, values in (("mean", d.mean), ("std", d.std)):
        if len(values) not in (1, channels):
            raise UserError(f"config.data.{key} has {len(values)} numbers, but the images have {channels} channel(s); give one or {channels}.")
    return data


def _read_config(workdir: Path) -> dict | None:
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return content["config"] | {"data_fingerprint": content["data_fingerprint"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or use another --workdir.") from error


def _refuse(workdir, keys):
    keys = [key for key in keys if key != "data_fingerprint"]
    if keys:
        raise UserError(
            f"{workdir} was started with another configuration: {', '.join(keys)} differ(s); "
            "restore the old value(s) (they are in config.json there) or use another --workdir."
        )


def _fingerprint(data) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in (data.train.images, data.train.labels, data.test.images, data.test.labels):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _joined(forget):
    return "-".join(map(str, forget))


def _shown(forget):
    return ",".join(map(str, forget))
