"""The story: original -> retrain -> unlearn -> evaluate -> report. What is finished is never done again.

A configuration becomes one experiment, or one per part; an experiment becomes jobs (`jobs.py`), which workers
(`worker.py`) do one after another (`board.py`); the report reads what they left.
"""

import dataclasses
import hashlib
import importlib.metadata
import logging
import os
import platform
import time
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ispf_jax import data as data_room
from ispf_jax import devices as device_room
from ispf_jax import ops
from ispf_jax.config import make_experiments
from ispf_jax.data import cache
from ispf_jax.devices import Devices
from ispf_jax.errors import ArgumentError, RejectedError, StorageError, UserError, keyed
from ispf_jax.experiment import Experiment, changed_keys, flatten
from ispf_jax.files.card import sha256
from ispf_jax.forget import check_again, forget_sets, named
from ispf_jax.report import write_combined, write_report
from ispf_jax.runtime import console, interruption
from ispf_jax.runtime.atomic import atomic_write_json, ensure_writable
from ispf_jax.runtime.layout import CONFIG
from ispf_jax.runtime.lock import locked
from ispf_jax.runtime.provenance import Started, made, read_started
from ispf_jax.runtime.telemetry import format_duration
from ispf_jax.sweep import board, cluster, plan
from ispf_jax.sweep.export import export, seal, wanted
from ispf_jax.sweep.given import check_classifier, check_order, checksums
from ispf_jax.sweep.jobs import Job, finished, jobs
from ispf_jax.sweep.worker import Worker
from ispf_jax.training import split_of

log = logging.getLogger(__name__)

_LONG = 900  # seconds: a CPU run expected to take longer is announced
_NAMED = 10  # so many forget sets are announced by their names


def default_workdir(config_file: str) -> str:
    """runs/<name of the configuration file>, with the words after a colon."""
    return str(Path("runs") / Path(config_file).name.replace(".py", "").replace(":", "_").replace(",", "_"))


def run(config, workdir: str) -> str:
    """Run all jobs of a ConfigDict in a work directory; returns the tables.

    Raises:
      UserError: the configuration or the work directory is not right, or jobs failed; all others are done then.
      RejectedError: everything is done, but students were too bad to be exported.
      interruption.Interrupted: a signal asked to stop; everything is saved.
    """
    experiments = make_experiments(config)
    common = next(iter(experiments.values()))
    _prepare_jax(common)
    if common.dry_run:
        return "\n\n".join(_planned(name, e, Path(workdir) / name) for name, e in experiments.items())
    began, tables, failed, rejected, total = time.perf_counter(), [], {}, {}, 0
    first = device_room.first_process()
    with locked(workdir) if first else nullcontext(), _executors(common):
        if first:
            console.attach(Path(workdir))
        for name, e in experiments.items() if len(experiments) > 1 else ():
            with _of_part(name):  # what is wrong with any of them is said before hours of the first
                Run(e, Path(workdir) / name)
        for name, e in experiments.items():
            one = Run(e, ensure_writable(Path(workdir) / name))
            failures, count = one.work()
            failed |= {f"{name} {job}".strip(): error for job, error in failures.items()}
            total += count
            if wanted(e) and first:
                rejected |= {f"{name} {job}".strip(): reason for job, reason in one.export().items()}
            if "report" in e.stages and first and not 0 < count == len(failures):
                tables.append((f"{name}\n" if name else "") + write_report(one.workdir, one.provenance()))
            if first and {"report", "unlearn"} & set(e.stages):
                seal(one.workdir)
        if "" not in experiments and tables:
            write_combined(workdir, list(experiments))
    if failed:
        log.info("\n\n".join(tables))
        raise UserError(board.failure_text(failed, total))
    if rejected:
        log.info("\n\n".join(tables))
        reasons = "; ".join(f"{job}: {reason}" for job, reason in list(rejected.items())[:3])
        raise RejectedError(
            f"not exported, too far from the original: {reasons}{', ...' if len(rejected) > 3 else ''}. Train longer "
            "(config.distill.epochs), or lower config.export_floor (0: export whatever came out)."
        )
    log.info("finished in %s; results are in %s", format_duration(time.perf_counter() - began), workdir)
    return "\n\n".join(tables)


class Run:
    """One experiment on loaded data, in a work directory that fits it.

    Raises:
      UserError: the work directory was started with another configuration or other data, or a job would train without
        one of its classes.
    """

    def __init__(self, experiment: Experiment, workdir: Path):
        self.e, self.workdir = experiment, workdir
        saved = read_started(workdir)
        _refuse(workdir, changed_keys(saved.config, flatten(experiment)) if saved else [])
        self.devices = _devices(experiment)
        with keyed("config.data."):
            self.data = data_room.load(experiment.data)
        with keyed("config."), self._naming_all():
            self.forget_sets = forget_sets(experiment.forget, self.data.class_names)
        self.workers = [self._worker(d) for d in self.devices]
        plan.check(experiment, self.data, self.devices[0], self.forget_sets, self.workers[0])
        images = bool(len(self.data.train))  # shadow models are trained on them
        self.jobs = [job for job in jobs(experiment, self.forget_sets) if job.kind != "shadow" or images]
        self._fingerprint = _fingerprint(self.data)
        if saved and saved.data_fingerprint != self._fingerprint:
            raise UserError(
                f"the images of data.name={experiment.data.name!r} differ from those that {workdir} was started with; "
                "use the same data or another --workdir."
            )
        self.devices[0].share(self._check_given)
        for job in self.jobs:
            self._check_training_images(job)

    @contextmanager
    def _naming_all(self):
        """An unknown class may be one whose test images, and with them its folder, were deleted: say how to name it."""
        try:
            yield
        except ArgumentError as error:
            if self.e.data.name != "image_folder" or self.e.data.class_names or len(self.data.train):
                raise
            advice = "a class without a folder is named in data.class_names, with all others in the classifier's order."
            raise ArgumentError(error.argument, f"{error.text} Or {advice}") from error

    def _worker(self, devices: Devices) -> Worker:
        return Worker(self.e, self.workdir, self.data, self.forget_sets, devices, live=len(self.devices) == 1)

    def work(self) -> tuple[dict[Job, str], int]:
        """Do what is not finished; returns the failed jobs with their errors, and how many there were to do."""
        crew = self.devices[0]
        crew.share(self._keep_config)
        if self.workdir.is_dir():  # of a process that sees it, if not the first
            console.attach(self.workdir)
        todo = crew.share(lambda: [job for job in self.jobs if not self._finished(job)])
        if not todo:
            return {}, 0
        if crew.leads:
            self._announce(todo)
        together, audits = todo, []
        if crew.crew:  # audits are many small pieces with files of their own: the first process does them alone
            together, audits = ([job for job in todo if (job.kind == "audit") == alone] for alone in (False, True))
        if self.e.spread == "ray":
            with interruption.finishing():  # the jobs save what they have
                return self._over_ray(todo), len(todo)
        failed = board.work(together, board.Local(self.workers))
        if audits and crew.leads:
            failed |= board.work(audits, board.Local([self._worker(Devices(crew.local))]))
        return failed, len(todo)

    def _over_ray(self, todo: list[Job]) -> dict[Job, str]:
        workdir, wanted = self.workdir.resolve(), self.e.ray
        executor = cluster.Cluster(partial(make_worker, self.e, workdir), workdir, wanted.gpus, wanted.cpus)
        return board.work(todo, executor, wanted.retries)

    def export(self) -> dict[Job, str]:
        """Write the finished networks for other programs, as `config.export` asks for; returns the rejected ones."""
        worker = self._worker(Devices(self.devices[0].local))
        everything = jobs(dataclasses.replace(self.e, stages=("original", "retrain", "unlearn")), self.forget_sets)
        written, rejected = export(worker, [job for job in everything if self._finished(job)])
        if written:
            more = f" and {len(written) - 1} more" if len(written) > 1 else ""
            log.info("weights for other programs: %s%s", written[-1], more)
        return rejected

    def provenance(self) -> dict:
        """What a reader needs to get the same numbers."""
        packages = ("ispf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
        with ops.convolutions(self.e.convolutions):
            convolutions = ops.describe()
        return {
            "made": made(),
            "sha256 of files": self._checksums(),
            "config": flatten(self.e),
            "data": {"note": self.data.note, "train": len(self.data.train), "test": len(self.data.test)},
            "devices": [d.device_kind for devices in self.devices for d in devices.devices],
            "convolutions": convolutions,
            "processes": self.devices[0].processes,
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        }

    def _checksums(self) -> dict[str, str]:
        """Of the weights that went in and that came out, as `sha256sum` prints them."""
        found = {f"in: {name}": digest for name, digest in checksums(self.workdir).items()}
        out = sorted(path for path in self.workdir.rglob("weights.*") if path.suffix != ".damaged" and path.is_file())
        return found | {f"out: {path.relative_to(self.workdir)}": sha256(path) for path in out}

    def _check_given(self):
        if any(self._is_given(job) and not self._finished(job) for job in self.jobs):
            given = check_classifier(self.e.model, self.data)
            for forget in self.forget_sets:
                with keyed("config."):
                    check_again(forget, given.origin["forgotten"], self.data.class_names)
            if len(self.data.test):
                check_order(given, self.data)

    def _is_given(self, job):
        return job.kind == "original" and bool(self.e.model.checkpoint)

    def _check_training_images(self, job: Job):
        """Refused before anything is trained: no images at all, or a class whose images are all held out for
        validation."""
        trained = job.kind in ("original", "retrain") and not self._is_given(job)
        labels = self.data.train.labels
        if not len(labels) and trained:
            raise UserError(
                f"config.data holds no training images, which the stage {job.kind} needs: leave it out (for a given "
                "classifier: --config.model.checkpoint=<file> --config.stages=original,unlearn,audit,report), or add "
                "the split train."
            )
        if trained:
            split_of(self.data, ~np.isin(labels, job.forget), job.forget, job.seed, self.e.train)

    def _finished(self, job):
        return finished(job, self.workdir, self.forget_sets)

    def _announce(self, todo: list[Job]):
        """Say what the forgotten classes are called and, on a CPU before a long run, about how long it will take."""
        if names := _names(self.forget_sets, self.data):
            log.info(names)
        if self.devices[0].devices[0].platform != "cpu":
            return
        seconds = plan.expected_seconds(self.e, self.data, todo, self.workdir)
        if seconds > _LONG:
            log.info(
                "On this CPU the whole configuration will take about %.1f hours. Small ones are digits_ispf.py "
                "(minutes) and every configuration with :smoke (under a minute). It can be stopped at any time; the "
                "same command continues.",
                seconds / 3600,
            )

    def _keep_config(self):
        started = Started(flatten(self.e), self._fingerprint, list(self.data.class_names))
        atomic_write_json(self.workdir / CONFIG, vars(started))


def make_worker(e: Experiment, workdir: Path) -> Worker:
    """The worker of a process that does whole jobs on all devices it sees; its progress is left to the process
    above."""
    _prepare_jax(e)
    return Run(dataclasses.replace(e, spread="batch", devices=0, progress_seconds=1e9), workdir).workers[0]


@contextmanager
def _executors(e: Experiment):
    """What jobs are done with besides this process; before it uses JAX, whose threads do not go with new processes."""
    with ExitStack() as stack:
        if e.spread == "ray" and e.stages != ("report",):
            with keyed("config."):
                stack.enter_context(cluster.connected())
        yield


def _devices(e: Experiment) -> tuple[Devices, ...]:
    """Checked against the batch sizes that are spread over them."""
    with keyed("config."):
        jobs_each = e.spread != "batch"
        found = (
            tuple(Devices((device,), e.deterministic) for device in device_room.local_devices(e.devices))
            if jobs_each
            else (device_room.choose(e.devices, e.deterministic),)
        )
    trains = "retrain" in e.stages or ("original" in e.stages and not e.model.checkpoint)
    used = {"train": trains or "audit" in e.stages, "distill": "unlearn" in e.stages}
    for group, batch in (("train", e.train.batch_size), ("distill", e.distill.batch_size)):
        with keyed(f"config.{group}."):
            if used[group]:
                found[0].check_batch(batch)
    return found


def _prepare_jax(e: Experiment):
    """Settings that are wanted before anything is compiled."""
    if e.compilation_cache != "off":
        home = cache.directory("")
        auto = str(home / "compiled") if home else None
        directory = auto if e.compilation_cache in ("auto", "") else os.path.expanduser(e.compilation_cache)
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    with keyed("config."), ops.convolutions(e.convolutions):
        pass  # refused here where it is not installed


@contextmanager
def _of_part(name: str):
    """Errors in the block name the part."""
    try:
        yield
    except UserError as error:
        if not name or isinstance(error, StorageError):
            raise
        raise UserError(f"part {name!r}: {error}") from error


def _planned(name, e, workdir):
    """What a start would do, after all that it would check."""
    with _of_part(name):
        one = Run(e, workdir)
    text = plan.table(plan.plan(one.e, one.data, one.jobs, workdir, one.forget_sets), len(one.devices))
    return "\n".join(filter(None, (name, _names(one.forget_sets, one.data), text)))


def _names(sets, data):
    """What forget sets are called, which jobs name by number; empty where classes have no other names."""
    numbers, names = ([named(s, known) for s in sets[:_NAMED]] for known in ((), data.class_names))
    rest = f"; and {len(sets) - _NAMED} more" if len(sets) > _NAMED else ""
    return f"to forget: {'; '.join(names)}{rest}" if names != numbers else ""


def _refuse(workdir, keys):
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
