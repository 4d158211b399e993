"""Whether a network computes what the program computed that its weights come from, and where not, what may be wrong."""

import logging
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from ispf_jax.classifier import Classifier
from ispf_jax.errors import ArgumentError
from ispf_jax.runtime.guard import regular_file

TOLERANCE = 1e-4
NORMALISATIONS = {
    "0.5 and 0.5": (0.5, 0.5),
    "those of ImageNet, 0.485,0.456,0.406 and 0.229,0.224,0.225": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "those of CIFAR-10, 0.4914,0.4822,0.4465 and 0.247,0.2435,0.2616": (
        (0.4914, 0.4822, 0.4465),
        (0.247, 0.2435, 0.2616),
    ),
    "0 and 1, for pixels from 0 to 1": (0.0, 1.0),
    "0 and 1/255, for pixels from 0 to 255": (0.0, 1 / 255),
}
"""Usual (mean, std) of pixels in [0, 1], by what they are called."""

_LARGEST, _MOST = 1 << 30, 256
_log = logging.getLogger(__name__)


def compare(classifier: Classifier, path: str | Path):
    """Compares logits with recorded ones; logs the difference if it is small.

    Args:
      path: an .npz with `logits` [N, classes] and `images`: uint8 [N, H, W, C] before normalisation, or floating-point
        [N, C, H, W] as they were fed to the network. Of many the first 256 are used.

    Raises:
      ArgumentError: (check) the file does not fit, or the largest difference is more than 1e-4 of the largest logit;
        the text says what explains it, if anything does.
    """
    images, logits = _recorded(classifier, path)
    error = _difference(predict(classifier, images), logits)
    if error <= TOLERANCE:
        _log.info("proved: logits are those of %s, to %.1e of the largest", path, error)
        return
    reasons = [reason for reason, other in _others(classifier, images) if _difference(other, logits) <= TOLERANCE]
    found = predict(classifier, images)
    pairs = np.abs(found[:, :, None] - logits[:, None, :]).max(axis=0)
    order = linear_sum_assignment(pairs)[1]  # output here: output there
    if _difference(found, logits[:, order]) <= TOLERANCE:
        reasons += [f"the classes are in another order: outputs 0, 1, ... are {', '.join(map(str, order))} there"]
    text = f"={str(path)!r} has other logits: they differ by {error:.1e} of the largest (allowed is {TOLERANCE:g})"
    advice = "; ".join(reasons) or "neither a usual normalisation, the order of colours nor that of classes explains it"
    raise ArgumentError("check", f"{text}. {advice[0].upper()}{advice[1:]}.")


def predict(classifier: Classifier, images, mean=None, std=None) -> np.ndarray:
    """Logits of uint8 images with this normalisation or else the classifier's, or of floating-point images."""
    if images.dtype == np.uint8:
        mean, std = (own if other is None else other for own, other in ((classifier.mean, mean), (classifier.std, std)))
        images = (images.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    return np.asarray(_logits(classifier.module, classifier.variables, images))


@partial(jax.jit, static_argnames="module")
def _logits(module, variables, images):
    return module.apply(variables, jnp.asarray(images, jnp.float32))[0]


def normalisations(classifier: Classifier) -> Iterator[tuple[str, tuple]]:
    """The usual ones that fit the channels and are not the classifier's."""
    own = [np.broadcast_to(value, 3) for value in (classifier.mean, classifier.std)] if classifier.mean else []
    for name, pair in NORMALISATIONS.items():
        fits = classifier.image_shape[2] == 3 or np.size(pair[0]) == 1
        if fits and not all(np.allclose(a, b, atol=2e-3) for a, b in zip(own, pair)):
            yield name, pair


def _others(classifier, images) -> Iterator[tuple[str, np.ndarray]]:
    """What usual mistakes would give."""
    flips = [("", images)] + (
        [("the colours are in the order BGR", images[..., ::-1])] if images.shape[-1] == 3 else []
    )
    own = [("", (None, None))]
    for (flip, seen), (name, pair) in product(flips, [*own, *normalisations(classifier)]):
        if (flip or name) and (not name or images.dtype == np.uint8):
            said = f"mean and std are {name}" if name else ""
            yield " and ".join(filter(None, (flip, said))), predict(classifier, seen, *pair)


def _difference(found, logits) -> float:
    return float(np.abs(found - logits).max() / max(np.abs(logits).max(), 1e-12))


def _recorded(classifier, path):
    """(images [N, H, W, C], logits [N, classes]) of a file, checked."""
    try:
        with np.load(regular_file(path, _LARGEST), allow_pickle=False) as file:
            images, logits = (np.asarray(file[name][:_MOST]) for name in ("images", "logits"))
    except Exception as error:  # numpy and zipfile raise many kinds
        reason = str(error).strip("'\"") or type(error).__name__
        raise ArgumentError("check", f"={str(path)!r} must be an .npz with images and logits ({reason}).") from error
    if images.dtype.kind == "f" and images.ndim == 4:
        images = images.transpose(0, 2, 3, 1)
    wanted, classes = classifier.image_shape, classifier.num_classes
    if images.shape[1:] != wanted or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        text = f"must be uint8 [N, {', '.join(map(str, wanted))}], or floating-point [N, C, H, W]"
        raise ArgumentError("check", f"={str(path)!r} has images {images.dtype} {list(images.shape)}, but they {text}.")
    if logits.shape != (len(images), classes) or not len(images) or not np.all(np.isfinite(logits)):
        text = f"[{len(images)}, {classes}], finite, one or more"
        raise ArgumentError("check", f"={str(path)!r} has logits {list(logits.shape)}, but they must be {text}.")
    return images, logits.astype(np.float32)
