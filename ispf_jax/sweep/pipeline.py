"""The story: original -> retrain -> unlearn -> evaluate -> report. What is finished is never done again.

A configuration becomes one experiment, or one per part; an experiment becomes jobs (`jobs.py`), which workers (`worker.py`) take from a
board (`sweep.py`); the report reads what they left.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np

from ispf_jax import data as data_room
from ispf_jax.config import Experiment, changed_keys, flatten, make_experiments
from ispf_jax.data import cache
from ispf_jax.devices import Devices, chosen_devices
from ispf_jax.errors import UserError, keyed
from ispf_jax.forget import forget_sets, named
from ispf_jax.ops import convolutions, describe
from ispf_jax.report import write_combined, write_report
from ispf_jax.runtime.atomic import atomic_write_json, ensure_writable
from ispf_jax.runtime.lock import locked
from ispf_jax.runtime.telemetry import format_duration
from ispf_jax.state import split_seed
from ispf_jax.sweep import board as sweep
from ispf_jax.sweep.estimate import costs, device_seconds
from ispf_jax.sweep.export import export, wanted
from ispf_jax.sweep.given import check_classifier
from ispf_jax.sweep.jobs import Job, finished, jobs
from ispf_jax.sweep.plan import plan, table
from ispf_jax.sweep.worker import Worker

TELL_SECONDS = 900  # a CPU run expected to take longer is announced
TOLD = 10  # so many forget sets are told by their names


def default_workdir(config_file: str) -> str:
    """runs/<name of the configuration file>, with the words after a colon."""
    return str(Path("runs") / Path(config_file).name.replace(".py", "").replace(":", "_").replace(",", "_"))


def run(config, workdir: str) -> str:
    """Run all jobs of a ConfigDict in a work directory; returns the tables that were printed.

    Raises:
      UserError: the configuration or the work directory is not right, or jobs failed; all others are done then.
      interruption.Interrupted: a signal asked to stop; everything is saved.
    """
    experiments = make_experiments(config)
    first = next(iter(experiments.values()))
    _prepare_jax(first)
    with keyed("config."):
        chosen = convolutions(first.convolutions)
    with chosen:
        return _run(experiments, first, workdir)


def _run(experiments, first, workdir):
    if first.dry_run:
        return _print("\n\n".join(_plan(name, e, Path(workdir) / name) for name, e in experiments.items()))
    began, tables, failed, total = time.perf_counter(), [], {}, 0
    with locked(workdir, shared=first.spread == "jobs") if jax.process_index() == 0 else nullcontext():
        for name, e in experiments.items():
            run_ = Run(e, ensure_writable(Path(workdir) / name))
            failures, count = run_.work()
            failed |= {f"{name} {job}".strip(): error for job, error in failures.items()}
            total += count
            if "report" in e.stages and jax.process_index() == 0 and not 0 < count == len(failures):
                tables.append((f"{name}\n" if name else "") + write_report(run_.workdir, run_.provenance()))
            if wanted(e) and jax.process_index() == 0:
                run_.export()
        if "" not in experiments and tables:
            write_combined(workdir, list(experiments))
    _print("\n\n".join(tables))
    if failed:
        raise UserError(sweep.failure_text(failed, total))
    if jax.process_index() == 0:
        print(f"finished in {format_duration(time.perf_counter() - began)}; results are in {workdir}", file=sys.stderr)
    return "\n\n".join(tables)


class Run:
    """One experiment on loaded data, in a work directory that fits it.

    Raises:
      UserError: the work directory was started with another configuration or other data, or a job would train without one of its classes.
    """

    def __init__(self, experiment: Experiment, workdir: Path):
        self.e, self.workdir = experiment, workdir
        saved = _read_config(workdir)
        _refuse(workdir, changed_keys(saved, flatten(experiment)) if saved else [])
        self.devices = _devices(experiment)
        self.data = load_data(experiment)
        self.forget_sets = forget_sets(experiment.forget, self.data.class_names)
        self.jobs = jobs(experiment, self.forget_sets)
        self._fingerprint = _fingerprint(self.data)
        if saved and saved.get("data_fingerprint", self._fingerprint) != self._fingerprint:
            raise UserError(
                f"the images of data.name={experiment.data.name!r} are others than those that {workdir} was started with; "
                "use the same data or another --workdir."
            )
        self.devices[0].share(self._check_given)
        for job in self.jobs:
            if job.kind in ("original", "retrain") and not _is_given(job, experiment):
                _check_split(job, experiment, self.data)
        if "audit" in experiment.stages and not len(self.data.train):
            raise UserError(_NO_TRAINING_IMAGES.format("audit"))

    def worker(self, devices: Devices) -> Worker:
        """A worker for this experiment; it has the console for itself if it is the only one."""
        return Worker(self.e, self.workdir, self.data, self.forget_sets, devices, live=len(self.devices) == 1)

    def work(self) -> tuple[dict[Job, str], int]:
        """Do what is not finished; returns the failed jobs with their errors, and how many there were to do."""
        crew = self.devices[0]
        crew.share(self._keep_config)
        todo = crew.share(lambda: [job for job in self.jobs if not self._finished(job)])
        if not todo:
            return {}, 0
        if crew.leads:
            self.announce(todo)
        together, audits = todo, []
        if crew.crew:  # audits are many small pieces with files of their own: the first process does them alone
            together, audits = ([job for job in todo if (job.kind == "audit") == alone] for alone in (False, True))
        board = self.workdir / ".board" if self.e.spread == "jobs" else None
        failed = sweep.work(sweep.Board(together, board, self._finished), [self.worker(d) for d in self.devices])
        if audits and crew.leads:
            failed |= sweep.work(sweep.Board(audits), [self.worker(Devices(crew.local))])
        return failed, len(todo)

    def export(self):
        """Write the finished networks for other programs, as `config.export` asks for."""
        worker = self.worker(Devices(self.devices[0].local))
        everything = jobs(dataclasses.replace(self.e, stages=("original", "retrain", "unlearn")), self.forget_sets)
        written = export(worker, [job for job in everything if self._finished(job)])
        if written:
            more = f" and {len(written) - 1} more" if len(written) > 1 else ""
            print(f"weights for other programs: {written[-1]}{more}", file=sys.stderr, flush=True)

    def _check_given(self):
        if any(_is_given(job, self.e) and not self._finished(job) for job in self.jobs):
            check_classifier(self.e.model, self.data.num_classes, self.data.image_shape)

    def _finished(self, job):
        return finished(job, self.workdir, self.forget_sets)

    def announce(self, todo: list[Job]):
        """Say what the forgotten classes are called and, on a CPU before a long run, about how long it will take."""
        if names := _names(self.forget_sets, self.data):
            print(names, file=sys.stderr, flush=True)
        if self.devices[0].devices[0].platform != "cpu":
            return
        cost = costs(self.e, self.data)
        seconds = device_seconds(sum(map(cost.flops, todo)))
        if seconds > TELL_SECONDS:
            print(
                f"On this CPU the whole configuration will take about {seconds / 3600:.1f} hours. Small ones are "
                "configs/digits_ispf.py (minutes) and every configuration with :smoke (under a minute), for example "
                "--config=configs/svhn_ispf.py:smoke. It can be stopped at any time; the same command continues.",
                file=sys.stderr,
                flush=True,
            )

    def provenance(self) -> dict:
        """What a reader needs to get the same numbers."""
        packages = ("ispf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
        return {
            "command": " ".join(["python", *sys.argv]),
            "config": flatten(self.e),
            "data": {"note": self.data.note, "train": len(self.data.train), "test": len(self.data.test)},
            "devices": [d.device_kind for devices in self.devices for d in devices.devices],
            "convolutions": describe(),
            "processes": jax.process_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        }

    def _keep_config(self):
        content = {
            "config": flatten(self.e),
            "data_fingerprint": self._fingerprint,
            "class_names": list(self.data.class_names),
        }
        atomic_write_json(self.workdir / "config.json", content)


def load_data(e: Experiment) -> data_room.ImageData:
    """The images an experiment names; UserError if they do not fit its keys."""
    d = e.data
    data = data_room.load(
        d.name,
        path=d.path,
        data_dir=d.data_dir,
        manual_dir=d.manual_dir,
        download=d.download,
        image_size=d.image_size,
        resize=d.resize,
        channels=d.channels,
        max_train=d.max_train,
        max_test=d.max_test,
        cache_dir=d.cache_dir,
        num_classes=d.classes,
    )
    channels = data.image_shape[2]
    for key, values in (("mean", d.mean), ("std", d.std)):
        if len(values) not in (1, channels):
            raise UserError(
                f"config.data.{key} has {len(values)} numbers, but the images have {channels} channel(s); give one or {channels}."
            )
    return data


_NO_TRAINING_IMAGES = (
    "config.data holds no training images, which the stage {} needs: leave it out (with a classifier of your own: "
    "--config.model.checkpoint=<file> --config.stages=original,unlearn,report), or add the split train."
)


def _is_given(job: Job, e: Experiment) -> bool:
    return job.kind == "original" and bool(e.model.checkpoint)


def _check_split(job: Job, e: Experiment, data: data_room.ImageData):
    """Refused before anything is trained: no images at all, or a class whose images are all held out for validation."""
    labels = data.train.labels
    if not len(labels):
        raise UserError(_NO_TRAINING_IMAGES.format(job.kind))
    train, _ = data_room.train_val_split(
        ~np.isin(labels, job.forget), e.data.val_fraction, split_seed(job.seed, job.stream)
    )
    data_room.check_classes(labels, train, data.class_names, job.forget, str(job))


def _devices(e: Experiment) -> tuple[Devices, ...]:
    """Checked against the batch sizes that are spread over them."""
    found = chosen_devices(e.devices, e.spread)
    for devices in found:
        devices.check_batch("config.train.batch_size", e.train.batch_size)
        devices.check_batch("config.distill.batch_size", e.distill.batch_size)
    return found


def _prepare_jax(e: Experiment):
    """Settings that are wanted before anything is compiled."""
    if e.compilation_cache != "off":
        auto = e.compilation_cache in ("auto", "")
        directory = cache.directory("") / "compiled" if auto else Path(e.compilation_cache).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if e.deterministic:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"


def _plan(name, e, workdir):
    """What a start would do, after all that it would check."""
    run = Run(e, workdir)
    told = table(plan(run.jobs, workdir, run.forget_sets, costs(e, run.data)), len(run.devices))
    return "\n".join(filter(None, (name, _names(run.forget_sets, run.data), told)))


def _names(sets, data):
    """What forget sets are called, which jobs tell by number; empty where classes have no other names."""
    numbers, names = ([named(s, known) for s in sets[:TOLD]] for known in ((), data.class_names))
    rest = f"; and {len(sets) - TOLD} more" if len(sets) > TOLD else ""
    return f"to forget: {'; '.join(names)}{rest}" if names != numbers else ""


def _print(text):
    if text and jax.process_index() == 0:
        print(text)
    return text


def _read_config(workdir: Path) -> dict | None:
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        # Directories of versions without the key were made without it.
        return {"model.checkpoint": ""} | content["config"] | {"data_fingerprint": content["data_fingerprint"]}
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
