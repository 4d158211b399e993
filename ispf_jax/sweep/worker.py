"""Does the jobs of one experiment on its devices, through the same functions that the library offers."""

import dataclasses
import logging
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path

import jax
import numpy as np

from ispf_jax import ops
from ispf_jax.classifier import Classifier
from ispf_jax.data import ImageData
from ispf_jax.devices import Devices
from ispf_jax.errors import UserError, keyed
from ispf_jax.evaluate import agreement
from ispf_jax.evaluate.accuracy import accuracies, confusion
from ispf_jax.evaluate.audit import audit
from ispf_jax.experiment import Experiment, keys_of
from ispf_jax.forget import ForgetSet, joined, named
from ispf_jax.hyperparameters import BASES
from ispf_jax.methods import METHODS
from ispf_jax.models import named as network_name
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_json, ensure_writable
from ispf_jax.runtime.layout import CHECKPOINTS, SAMPLES, Job
from ispf_jax.runtime.loop import RunOptions
from ispf_jax.runtime.pictures import image_grid
from ispf_jax.runtime.provenance import journalled, weights_digest
from ispf_jax.runtime.rows import BEST_TEST, read_rows, rows_of
from ispf_jax.runtime.store import Store, identity
from ispf_jax.sweep.given import given_module, given_original
from ispf_jax.training import Split, fit, split_of, stream_name
from ispf_jax.unlearning import Unlearned, restore, unlearn

log = logging.getLogger(__name__)

_ACCESS = {
    "given": "a file",
    "best_validation": "training data",
    "masked_head": "weights only",
    "retrain": "training data",
}
_SHADOW_SEED = 0


class Worker:
    """One set of devices with what jobs on it share; two workers share nothing but files.

    Args:
      live: whether this worker has the console for itself.
    """

    def __init__(self, e: Experiment, workdir: Path, data: ImageData, sets: tuple, devices: Devices, live: bool = True):
        self.e, self.workdir, self.data, self.forget_sets = e, workdir, data, sets
        self.devices, self.live = devices, live
        with keys_of("model"):
            module = given_module(e.model, workdir, data) or e.model.made(data.num_classes)
            student = e.model.student_module(data.num_classes)
        with keyed("config.data."):
            of = {"image_shape": data.image_shape, "mean": e.model.mean, "std": e.model.std}
            self.network = Classifier(module, {}, **of).network
            self.student = Classifier(student, {}, **of).network if student else self.network
        self._teachers: dict[int, Classifier] = {}
        self._test = None

    def must_stop(self) -> bool:
        """Whether a stop was requested, of this process or of another that works on the same run."""
        stop = self.devices.any(interruption.requested())
        if stop and self.devices.crew:  # this process may not be the one that was asked
            interruption.request()
        return stop

    def do(self, job: Job):
        """Do one job, from its last checkpoint if there is one, and leave its results in `job.place`."""
        kinds = [d.device_kind for d in self.devices.devices]
        journal = journalled(self.workdir, job.kind, str(job), kinds) if self.devices.leads else nullcontext()
        with jax.default_device(self.devices.local[0]), ops.convolutions(self.e.convolutions), journal:
            getattr(self, job.kind)(job)

    def memory_keys(self, job: Job) -> str:
        """The keys, with their values, that decide how much memory a job needs."""
        e = self.e
        values = {
            "unlearn": ("distill.batch_size", e.distill.batch_size),
            "audit": ("audit.relearn_batch", e.audit.relearn_batch),
        }
        key, value = values.get(job.kind, ("train.batch_size", e.train.batch_size))
        return f"config.{key}={value} and config.evaluate.batch_size={e.evaluate.batch_size}"

    def original(self, job: Job):
        """The original of a trial, with rows for it and its masked head for every forget set."""
        original = self.teacher(job.seed)
        selection = "given" if self.e.model.checkpoint else "best_validation"
        self._warn_of_chance(job, original)
        for forget in self.forget_sets:
            path = self.workdir / job.result(forget)
            if self.devices.share(lambda: bool(rows_of(job, path))):
                continue  # of an earlier start with fewer forget sets
            hidden = np.isin(np.arange(self.data.num_classes), forget).astype(np.float32)
            common = {"forget": joined(forget, ","), "selection": selection}
            first = self._row(job, "original", original, forget) | common | {"access": _ACCESS[selection]}
            masked = self._row(job, "masked_head", original, forget, hidden) | common
            masked |= {"train_seconds": 0.0, "weights": "", "teacher": first["weights"]}
            self._keep_rows(path, [first, masked])

    def retrain(self, job: Job):
        """The reference of a trial: trained from scratch without the images of forgotten classes."""
        retained = ~np.isin(self.data.train.labels, job.forget)
        model = fit(self.data, self.network, retained, job.forget, job.seed, self.e.train, self._options(job))
        row = self._row(job, "retrain", model, job.forget) | {"selection": "best_validation"}
        self._keep_rows(self.workdir / job.result(job.forget), [row])

    def unlearn(self, job: Job):
        """One unlearned student, with a row for its last epoch and one for its best epoch on test images."""
        teacher = self.teacher(job.seed)
        observe = partial(self._observe, job) if self.e.evaluate.every and len(self.data.test) else None
        settings = {"base": job.base, "seed": job.seed, "config": self.e.distill, "student": self.student}
        out = unlearn(teacher, job.forget, job.method, **settings, **vars(self._options(job, observe)))
        rows = [self._student_row(job, teacher, out, self.e.distill.select)]
        if out.best:
            rows.append(self._student_row(job, teacher, out, BEST_TEST))
        synthetic = out.sample(agreement.IMAGES, job.seed)
        rows[0] |= agreement.agreement(out.classifier, teacher, synthetic, job.forget)
        images = out.sample(64, job.seed)
        self.devices.share(lambda: image_grid(images, self.workdir / job.place / SAMPLES))
        self._keep_rows(self.workdir / job.result(job.forget), rows)

    def shadow(self, job: Job):
        """One shadow model of the audit's attacks."""
        from ispf_jax.evaluate.attacks import members

        member = members(self.e.audit, len(self.data.train), job.method)[job.seed]
        self._shadow(f"{job.method} {job.seed}", member, job)

    def audit(self, job: Job):
        """Measure everything there is for a trial and forget set: references, baselines and all finished students."""
        retrain = Job("retrain", job.seed, job.forget)
        audit(
            self._students(job),
            dataclasses.replace(self.data, name=self.e.data.name),  # as in the rows
            job.forget,
            original=self.teacher(job.seed),
            retrained=self.read(retrain, "best")
            if rows_of(retrain, self.workdir / retrain.result(job.forget))
            else None,
            config=self.e.audit,
            seed=job.seed,
            directory=self.workdir / job.place,
            fit=self._shadow if len(self.data.train) else None,
            augmentation=self.e.train.augment,
            batch_size=self.e.evaluate.batch_size,
        )

    def _students(self, job) -> dict[str, Unlearned]:
        """The finished students of a trial and forget set."""
        found = {}
        for base, method in product(BASES, METHODS):
            student = Job("unlearn", job.seed, job.forget, base, method)
            if rows_of(student, self.workdir / student.result(job.forget)):
                settings = {"base": base, "seed": job.seed, "config": self.e.distill, "student": self.student}
                options = vars(self._options(student))
                found[f"{method}/{base}"] = restore(self.teacher(job.seed), job.forget, method, **settings, **options)
        return found

    def teacher(self, seed: int) -> Classifier:
        """The selected original of a trial; UserError if it is neither there nor among the stages."""
        if seed not in self._teachers:
            self._teachers = {seed: self._teacher(seed)}  # one is enough: the jobs of a seed follow one another
        return self._teachers[seed]

    def _teacher(self, seed):
        job, images = Job("original", seed), len(self.data.train)
        if "original" not in self.e.stages:
            original = self.devices.share(lambda: self.read(job, "best"))
            if original.origin["meta"]["epoch"] < self.e.train.epochs:
                raise UserError(f"the original of seed {seed} is not finished; add original to config.stages.")
        elif self.e.model.checkpoint:
            original = self.devices.share(lambda: given_original(self, job))
        else:  # there already, unless its checkpoints were removed or damaged
            original = fit(self.data, self.network, np.ones(images, bool), (), seed, self.e.train, self._options(job))
        variables = self.devices.replicate(original.variables)
        original = original.replace(class_names=self.data.class_names, variables=variables)
        self.devices.share(lambda: self._refuse_other_originals(seed, original.variables))
        return original

    def read(self, job: Job, which: str) -> Classifier:
        """The classifier of a finished job: `last` or `best`."""
        directory = self.workdir / job.place
        checkpoints = directory / CHECKPOINTS
        if not checkpoints.is_dir():  # a store would make it
            raise UserError(f"there is no checkpoint in {checkpoints}; run the stage that writes it first.")
        unlearned = job.kind == "unlearn"
        run = f"unlearn {job.method} ({job.base}) forget {job.forgets}" if unlearned else stream_name(job.forget)
        network = self.student if unlearned else self.network
        with Store(checkpoints, identity(run, job.seed, network)) as store:
            variables, meta = store.variables(which, network.zeros())
        origin = {"meta": meta} | ({} if unlearned else {"split": self.split(job)})
        return Classifier.of(network, variables, self.data.class_names, origin)

    def split(self, job: Job) -> Split:
        """The split of an original or retrained model; a given one may have seen all training images."""
        labels = self.data.train.labels
        if kept := Split.load(self.workdir / job.place, len(labels)):
            return kept
        if job.kind == "original" and self.e.model.checkpoint:
            return Split(np.ones(len(labels), bool), np.zeros(len(labels), bool))
        return split_of(self.data, ~np.isin(labels, job.forget), job.forget, job.seed, self.e.train)

    def _refuse_other_originals(self, seed, variables):
        """Where an original was made again and is not the same: its students cannot be compared."""
        weights = weights_digest(variables)
        for row in read_rows(self.workdir):
            made_from = row.weights if row.method == "original" else row.teacher
            if row.seed == seed and made_from and made_from != weights:
                checkpoints = self.workdir / Job("original", seed).place / CHECKPOINTS
                result = f"result of {row.method} (forget {row.forget}, seed {seed})"
                raise UserError(
                    f"{self.workdir} has a {result} with the original {made_from}, but {checkpoints} now holds "
                    f"{weights}: put the old checkpoints back, remove the results that were made with the old one, or "
                    "use another --workdir."
                )

    def _warn_of_chance(self, job, original):
        """On a class that the original never learned every method looks perfect: say so."""
        counts, chance = self._confusion(original), 100 / self.data.num_classes
        forgotten = sorted({c for forget in self.forget_sets for c in forget})
        weak = [c for c in forgotten if accuracies(counts, (c,)).forget <= chance]
        if not weak or not self.devices.leads:
            return
        advice = "train longer (config.train.epochs) or with more images"
        if self.e.model.checkpoint:
            advice = (
                "compare config.data.mean, config.data.std, the image size and the order of classes with its training"
            )
        what = f"test images of the forgotten {named(weak, self.data.class_names)} are recognised no better than"
        log.warning(
            "%s: %s by chance (%.3g %%); what was not learned cannot be unlearned: %s", job, what, chance, advice
        )

    def _observe(self, job, student, record):
        """The student's accuracies on test images, every so many epochs."""
        done, last = record["student_steps"] > 0, record["epoch"] == record["epochs"]
        after_warmup = record["epoch"] - self.e.distill.warmup_epochs
        if not done or (after_warmup % self.e.evaluate.every and not last):
            return None
        a = accuracies(self._confusion(student), job.forget)
        measured = {"test/acc_forget": a.forget, "test/acc_retain": a.retain, "test/acc_overall": a.overall}
        measured = {name: value for name, value in measured.items() if not np.isnan(value)}  # of a class without images
        return measured | {"score": a.overall if job.method == "dfkd" else a.retain}  # as the authors' program selects

    def _confusion(self, classifier, hidden=None):
        if self._test is None:
            self._test = self.devices.replicate((self.data.test.images, self.data.test.labels))
        batch = self.e.evaluate.batch_size
        return confusion(classifier.network, classifier.variables, *self._test, batch_size=batch, hidden=hidden)

    def _shadow(self, name: str, member: np.ndarray, job: Job | None = None) -> Classifier:
        """Train (or restore) a shadow model, named "mia2 0", on the images of `member`."""
        attack, number = name.split()
        job = job or Job("shadow", int(number), method=attack)
        place = self.workdir / job.place
        if split := Split.load(
            place, len(member)
        ):  # begun, perhaps with a half that was drawn in another way: keep that
            member = split.train | split.validation
        settings = (_SHADOW_SEED, self.e.train, self._options(job), f"shadow {name}")
        return fit(self.data, self.network, member, (), *settings)

    def _options(self, job: Job, callback=None) -> RunOptions:
        e = self.e
        return RunOptions(
            self.devices,
            self.workdir / job.place,
            callback,
            True if self.live else "lines",
            e.checkpoint_seconds,
            e.progress_seconds,
            e.tensorboard,
            e.evaluate.batch_size,
            str(job),
        )

    def _row(self, job: Job, method: str, model: Classifier, forget: ForgetSet, hidden=None) -> dict:
        """The row of a network in the results."""
        meta = model.origin["meta"]
        found = vars(accuracies(self._confusion(model, hidden), forget))
        return {
            "method": method,
            "base": job.base,
            "dataset": self.e.data.name,
            "arch": self._arch(model),
            "forget": joined(forget, ","),
            "seed": job.seed,
            **{f"acc_{part}": None if np.isnan(value) else value for part, value in found.items()},
            "train_seconds": meta["seconds"],
            "student_steps": 0,
            "generator_steps": 0,
            "images_synthesised": 0,
            "weights": weights_digest(model.variables),
            "teacher": "",
            "computed": f"{self.devices}, {ops.describe()}",
            "epoch": meta["best_epoch"],
            "access": _ACCESS.get(method, ""),
        }

    def _arch(self, model: Classifier) -> str:
        """The name of a network in results: as in the configuration, or as it was found in a file."""
        named = self.e.model.name if model.network == self.network else self.e.model.student
        return network_name(model.module) if named == "auto" else named

    def _student_row(self, job: Job, teacher: Classifier, out: Unlearned, selection: str) -> dict:
        """The row of a student that is the result, or of the best one on test images."""
        last = selection != BEST_TEST
        epoch = out.meta["epoch" if last else "best_epoch"]
        student_steps, generator_steps = out.steps(epoch)
        model = (out.classifier if last else out.best).replace(origin={"meta": out.meta})
        return self._row(job, job.method, model, job.forget) | {
            "selection": selection,
            "epoch": epoch,
            "teacher": weights_digest(teacher.variables),
            "student_steps": student_steps,
            "generator_steps": generator_steps,
            "images_synthesised": out.images(epoch),
            "access": "weights only" if last else "test images",
        }

    def _keep_rows(self, path: Path, rows: list[dict]):
        self.devices.share(lambda: atomic_write_json(ensure_writable(path.parent) / path.name, rows))
