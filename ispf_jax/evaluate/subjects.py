"""What an audit looks at: the references, the baselines that cost nothing, and every finished student of a trial."""

from itertools import product

import numpy as np

from ispf_jax.config import BASES
from ispf_jax.errors import UserError
from ispf_jax.evaluate import baseline, features, measure, plane
from ispf_jax.evaluate.audit import Subject, embedding, widened
from ispf_jax.evaluate.shadow_models import train_attackers
from ispf_jax.methods import METHODS, post_filter


def collect(worker, seed: int, forget: tuple[int, ...]):
    """(context, subjects, attackers, embeddings) of a trial and forget set, from what is finished in the work directory."""
    e, data = worker.e, worker.data
    config = widened(e.audit, worker.audit_directory(seed, forget))
    mask = np.isin(np.arange(data.num_classes), forget)
    original, member = worker.teacher(seed), _train_split(worker.original_directory(seed))
    several = np.count_nonzero(~mask) > 1  # a single retained class has no masked head
    heads = [Subject("masked_head", baseline.masked_head(original, mask), member)] if several else []
    references, retrained, students = {"original": original}, [], []
    retrain = worker.retrain_directory(seed, forget)
    if (retrain / "result.json").exists():
        references["retrain"] = worker.load(retrain, "best")[0]
        retrained = [Subject("retrain", references["retrain"], _train_split(retrain))]
    context = measure.Context(
        worker.classifier,
        worker.evaluator,
        e.train.augment,
        data.train,
        data.test,
        worker.images,
        worker.test_images,
        member,
        mask,
        references,
        config,
        seed,
    )

    embeddings = []
    for base, method in product(BASES, METHODS):
        directory = worker.unlearn_directory(seed, forget, base, method)
        if not (directory / "result.json").exists():
            continue
        stage = worker.unlearners[base]
        saved = stage.restore(directory, seed)
        if saved is None:
            raise UserError(
                f"{directory} has a result, but its checkpoints are gone: put them back, or remove that directory to make the student again."
            )
        images = stage.sample_images(saved.state, seed, config.synthetic_images)
        if not students:
            heads.append(Subject("retrained_head", _retrained_head(context, original, images), member))
        students.append(Subject(f"{method}/{base}", saved.last, member, images))
        if config.embedding_images:
            embeddings.append(_embedding(context, f"{method}/{base}", images, e.distill.threshold or 0.1 / mask.size))
    subjects = [Subject("original", original, member), *heads, *retrained, *students]
    return context, subjects, train_attackers(worker.workdir / "shadows", worker.supervised, context), embeddings


def _retrained_head(context, original, images):
    """The original with a new head, fitted to PostFilter's target on synthetic images: no data, nothing but the head changed."""
    pass_ = context.extract(original, images, (features.PENULTIMATE,))
    target = post_filter(pass_.logits, context.forget_mask.astype(np.float32))
    return baseline.retrained_head(original, pass_.layers[features.PENULTIMATE], np.asarray(target)).variables


def _embedding(context, title, images, threshold):
    count = context.config.embedding_images
    rows = plane.picture_rows(context.test.labels, context.forget_mask, count, context.seed)
    original = context.references["original"]

    def teacher_pass(images):
        out = context.extract(original, images, (features.PENULTIMATE,))
        return out.logits, out.layers[features.PENULTIMATE]

    real, labels = context.test.images[rows], context.test.labels[rows]
    return embedding(title, teacher_pass, real, labels, images[:count], context.forget, threshold, context.seed)


def _train_split(directory):
    with np.load(directory / "split.npz") as split:
        return split["train"]
