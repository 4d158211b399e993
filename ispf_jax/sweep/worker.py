"""Does the jobs of one experiment on its devices: models, data and compiled programs are made once and used by all of them."""

import sys
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ispf_jax.config import BASES, Experiment
from ispf_jax.data import ImageData
from ispf_jax.devices import Devices
from ispf_jax.errors import UserError
from ispf_jax.evaluate import agreement
from ispf_jax.evaluate.accuracy import Evaluator, accuracies
from ispf_jax.files import Given
from ispf_jax.forget import named
from ispf_jax.models import build_classifier, init_variables
from ispf_jax.ops import convolutions
from ispf_jax.runtime import interruption
from ispf_jax.runtime.atomic import atomic_write_json, ensure_writable
from ispf_jax.runtime.loop import Keeping
from ispf_jax.runtime.provenance import journalled, weights_digest
from ispf_jax.runtime.rows import complete_rows, read_rows
from ispf_jax.runtime.store import Saved, Store
from ispf_jax.sweep.given import check_classifier, given_original
from ispf_jax.sweep.jobs import ForgetSets, Job, rows_directory, shown
from ispf_jax.training import SupervisedStage
from ispf_jax.unlearning import UnlearnStage

_ACCESS = {"given": "a file", "original": "training data", "masked_head": "weights only", "retrain": "training data"}


class Worker:
    """One set of devices with everything that jobs on it share; two workers share nothing but files.

    Args:
      live: whether this worker has the console for itself.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        data: ImageData,
        sets: ForgetSets,
        devices: Devices,
        live: bool = True,
    ):
        self.e, self.workdir, self.data, self.forget_sets, self.devices = experiment, workdir, data, sets, devices
        with jax.default_device(devices.local[0]):
            self._build(
                Keeping(experiment.checkpoint_seconds, experiment.progress_seconds, experiment.tensorboard, live)
            )

    def _build(self, keeping):
        e, data = self.e, self.data
        self.classifier = build_classifier(e.model.name, data.num_classes, e.model.width, e.model.dtype)
        self._teachers: dict[int, dict] = {}
        self.images, self.labels = self.devices.replicate((data.train.images, data.train.labels))
        self.test_images, self.test_labels = self.devices.replicate((data.test.images, data.test.labels))
        self.evaluator = Evaluator(
            self.classifier, e.data.mean, e.data.std, min(e.evaluate.batch_size, max(1, len(data.test)))
        )
        self.supervised = SupervisedStage(e, self.classifier, self.devices, self.images, self.labels, keeping)
        self.unlearners = {
            base: UnlearnStage(e, base, self.classifier, data.image_shape, self.devices, keeping) for base in BASES
        }

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.devices.leads

    def must_stop(self) -> bool:
        """Whether a stop was requested, of this process or of another that works on the same run."""
        stop = self.devices.any(interruption.requested())
        if stop and self.devices.crew:  # this process may not be the one that was asked
            interruption.request()
        return stop

    def do(self, job: Job):
        """Do one job, from its last checkpoint if there is one, and leave its results in `job.place`."""
        kinds = [d.device_kind for d in self.devices.devices]
        journal = journalled(self.workdir, job.kind, str(job), kinds) if self.leads else nullcontext()
        with jax.default_device(self.devices.local[0]), journal:
            getattr(self, job.kind)(job)

    def batch_of(self, job: Job) -> str:
        """The keys, with their values, that decide how much memory a job needs."""
        keys = {
            "unlearn": ("distill.batch_size", "evaluate.batch_size"),
            "audit": ("evaluate.batch_size", "audit.relearn_batch"),
        }
        values = {
            "distill.batch_size": self.e.distill.batch_size,
            "evaluate.batch_size": self.e.evaluate.batch_size,
            "train.batch_size": self.e.train.batch_size,
            "audit.relearn_batch": self.e.audit.relearn_batch,
        }
        return " and ".join(
            f"config.{key}={values[key]}" for key in keys.get(job.kind, ("train.batch_size", "evaluate.batch_size"))
        )

    def original(self, job: Job):
        """The original of a trial, with rows for it and its masked head for every forget set."""
        directory, saved = self.workdir / job.place, self._original(job.seed)
        selection = "given" if self.e.model.checkpoint else "best_validation"
        self._warn_of_chance(job, saved.best)
        for forget in self.forget_sets:
            if self.devices.share(lambda: complete_rows(rows_directory(directory, forget) / "result.json")):
                continue  # of an earlier start with fewer forget sets
            rows = []
            for method in ("original", "masked_head"):
                hidden = self._mask(forget) if method == "masked_head" else None
                rows.append(self._row(method, "", forget, job.seed, selection, saved.best, saved, hidden=hidden))
            self._keep_rows(rows_directory(directory, forget), rows)

    def _warn_of_chance(self, job, variables):
        """On a class that the original never learned every method looks perfect: say so."""
        confusion, chance = (
            self.evaluator.confusion(variables, self.test_images, self.test_labels),
            100 / self.data.num_classes,
        )
        forgotten = sorted({c for forget in self.forget_sets for c in forget})
        weak = [c for c in forgotten if accuracies(confusion, (c,)).forget <= chance]
        advice = (
            "compare config.data.mean, config.data.std, the size of images and the order of classes with those it was trained with"
            if self.e.model.checkpoint
            else "train longer (config.train.epochs) or with more images"
        )
        if weak and self.leads:
            print(
                f"warning: {job}: test images of the forgotten {named(weak, self.data.class_names)} are recognised no better than by guessing "
                f"({chance:.3g} %); what was not learned cannot be unlearned: {advice}",
                file=sys.stderr,
                flush=True,
            )

    def retrain(self, job: Job):
        """The reference of a trial: trained from scratch without the images of forgotten classes."""
        retained = ~np.isin(self.data.train.labels, job.forget)
        directory = self.workdir / job.place
        saved = self.supervised.run(str(job), directory, job.seed, job.stream, retained)
        self._keep_rows(
            directory, [self._row("retrain", "", job.forget, job.seed, "best_validation", saved.best, saved)]
        )

    def unlearn(self, job: Job):
        """One unlearned student, with a row for its last epoch and one for its best epoch on test images."""
        from ispf_jax.runtime.pictures import image_grid

        directory, stage, forget = self.workdir / job.place, self.unlearners[job.base], job.forget
        teacher = self.devices.replicate(self.teacher(job.seed))
        observe = self._observer(stage, job.method, forget) if self.e.evaluate.every and len(self.data.test) else None
        saved = stage.run(str(job), directory, job.seed, job.method, forget, teacher, observe)
        rows = [self._row(job.method, job.base, forget, job.seed, "last", saved.last, saved, stage)]
        if saved.meta["best_score"] is not None:
            rows.append(self._row(job.method, job.base, forget, job.seed, "best_test_retain", saved.best, saved, stage))
        if not len(self.data.test):
            synthetic = stage.sample_images(saved.state, job.seed, agreement.IMAGES)
            rows[0] |= agreement.agreement(self.evaluator, saved.last, self.teacher(job.seed), synthetic, forget)
        images = stage.sample_images(saved.state, job.seed)
        self.devices.share(lambda: image_grid(images, directory / "samples.png"))
        self._keep_rows(directory, rows)

    def shadow(self, job: Job):
        """One shadow model of the audit's attacks."""
        from ispf_jax.evaluate.shadow_models import train_shadow

        train_shadow(
            self.workdir / "shadows", self.supervised, self.e.audit, len(self.data.train), job.method, job.seed
        )

    def audit(self, job: Job):
        """Measure everything there is for a trial and forget set: references, baselines and all finished students."""
        from ispf_jax.evaluate.audit import audit
        from ispf_jax.evaluate.subjects import collect

        header = {
            "forget": shown(job.forget),
            "forget_names": [self.data.class_names[c] for c in job.forget],
            "seed": job.seed,
            "dataset": self.e.data.name,
            "arch": self.e.model.name,
            "class_names": list(self.data.class_names),
        }
        audit(self.audit_directory(job.seed, job.forget), *collect(self, job.seed, job.forget), header)

    def original_directory(self, seed: int) -> Path:
        return self.workdir / Job("original", seed).place

    def retrain_directory(self, seed: int, forget: tuple[int, ...]) -> Path:
        return self.workdir / Job("retrain", seed, forget).place

    def unlearn_directory(self, seed: int, forget: tuple[int, ...], base: str, method: str) -> Path:
        return self.workdir / Job("unlearn", seed, forget, base, method).place

    def audit_directory(self, seed: int, forget: tuple[int, ...]) -> Path:
        return self.workdir / Job("audit", seed, forget).place

    def teacher(self, seed: int) -> dict:
        """Variables of the selected original of a trial; UserError if it is neither there nor among the stages."""
        if seed not in self._teachers:
            self._teachers = {seed: self._read_teacher(seed)}  # one is enough: the jobs of a seed follow one another
        return self._teachers[seed]

    def _read_teacher(self, seed):
        if "original" in self.e.stages:  # there already, unless its checkpoints were removed or damaged
            return self._original(seed).best
        variables, meta = self.devices.share(lambda: self.load(self.original_directory(seed), "best"))
        if meta["epoch"] < self.e.train.epochs:
            raise UserError(f"the original of seed {seed} is not finished; add original to config.stages.")
        self.devices.share(lambda: self._refuse_other_originals(seed, variables))
        return variables

    def load(self, directory: Path, which: str) -> tuple[dict, dict]:
        """(classifier variables `last` or `best`, meta) of a stage's directory."""
        if not (directory / "checkpoints").is_dir():  # a store would make it
            raise UserError(
                f"there is no checkpoint in {directory / 'checkpoints'}; run the stage that writes it first."
            )
        with Store(directory / "checkpoints") as store:
            return store.variables(which, self._template)

    @cached_property
    def _template(self):
        """Variables of the classifier's shapes."""
        shapes = jax.eval_shape(
            partial(init_variables, self.classifier, example_shape=(1, *self.data.image_shape)), jax.random.key(0)
        )
        return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

    def given(self) -> Given:
        """The classifier of `config.model.checkpoint`."""
        return check_classifier(self.e.model, self.data.num_classes, self.data.image_shape)

    def _original(self, seed):
        directory, images, epochs = self.original_directory(seed), len(self.data.train), self.e.train.epochs
        if self.e.model.checkpoint:
            saved = self.devices.share(lambda: given_original(directory, self.given, self._template, epochs, images))
        else:
            job = Job("original", seed)
            saved = self.supervised.run(str(job), directory, seed, job.stream, np.ones(images, bool))
        self.devices.share(lambda: self._refuse_other_originals(seed, saved.best))
        return saved

    def _refuse_other_originals(self, seed, variables):
        """Where an original was made again, perhaps elsewhere, and is not the same: students of the old one must not be compared with it."""
        weights = weights_digest(variables)
        for row in read_rows(self.workdir):
            made_from = row.weights if row.method == "original" else row.teacher
            if row.seed == seed and made_from and made_from != weights:
                raise UserError(
                    f"{self.workdir} has a result of {row.method} (forget {row.forget}, seed {seed}) with the original {made_from}, but "
                    f"{self.original_directory(seed) / 'checkpoints'} now holds {weights}: put the old checkpoints back, remove the results "
                    "that were made with the old one, or use another --workdir."
                )

    def _observer(self, stage, method, forget):
        every = self.e.evaluate.every

        def observe(variables, epoch):
            after_warmup = epoch - stage.setup.warmup_epochs
            if after_warmup < 1 or (after_warmup % every and epoch != stage.epochs):
                return {}, None
            a = accuracies(self.evaluator.confusion(variables, self.test_images, self.test_labels), forget)
            measured = {"test/acc_forget": a.forget, "test/acc_retain": a.retain, "test/acc_overall": a.overall}
            return measured, a.overall if method == "dfkd" else a.retain  # as the authors' program selects

        return observe

    def _row(self, method, base, forget, seed, selection, variables, saved: Saved, stage=None, hidden=None) -> dict:
        a = accuracies(self.evaluator.confusion(variables, self.test_images, self.test_labels, hidden=hidden), forget)
        measured = {f"acc_{part}": None if np.isnan(value) else value for part, value in vars(a).items()}
        epoch = saved.meta["epoch"] if selection == "last" else saved.meta["best_epoch"]
        student_steps, generator_steps = stage.steps(epoch) if stage else (0, 0)
        return {
            "method": method,
            "base": base,
            "dataset": self.e.data.name,
            "arch": self.e.model.name,
            "forget": shown(forget),
            "seed": seed,
            "selection": selection,
            **measured,
            "train_seconds": 0.0 if method == "masked_head" else saved.meta["seconds"],
            "student_steps": student_steps,
            "generator_steps": generator_steps,
            "images_synthesised": (student_steps + generator_steps) * (stage.setup.batch_size if stage else 0),
            "weights": "" if method == "masked_head" else weights_digest(variables),
            "teacher": weights_digest(self.teacher(seed) if stage else variables)
            if stage or method == "masked_head"
            else "",
            "computed": f"{self.devices.count} x {self.devices.devices[0].device_kind}, {convolutions()}",
            "epoch": epoch,
            "access": _ACCESS.get(
                selection if method == "original" and selection == "given" else method,
                "weights only" if selection == "last" else "test images",
            ),
        }

    def _mask(self, forget):
        return jnp.zeros(self.data.num_classes).at[jnp.array(forget)].set(1.0)

    def _keep_rows(self, directory, rows):
        self.devices.share(lambda: atomic_write_json(ensure_writable(directory) / "result.json", rows))
