"""What an epoch's metrics say without test images: whether the student follows the teacher, and the generator works."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ALIKE = 1e-3
"""Standard deviation of a pixel over a batch, of a range of 1, below which images count as alike; 8-bit steps are
0.004."""

ONE_CLASS = 0.99
"""Share of one class among an epoch's synthetic images above which the generator counts as collapsed to it."""

SMOOTHING = 0.8
"""Of the agreement over epochs: the share of the earlier ones in the mean."""

COVERED = 20
"""Images of a class in an epoch with which the class counts as covered."""

SETTLED = 10
"""Generator steps before which nothing counts as a collapse."""


def agreement(record: Mapping[str, Any], forget: Sequence[int]) -> float:
    """How far the student gives an epoch's new images the teacher's labels, before it learned from them.

    Args:
      record: of an epoch with steps of the student; `new_counts` and `agreed_counts` are [C].

    Returns:
      Percentage, mean over the retained classes; a class with fewer than `COVERED` images counts 0.
    """
    images, agreed = (np.delete(record[name], forget) for name in ("new_counts", "agreed_counts"))
    return float(100 * np.mean(np.where(images >= COVERED, agreed / np.maximum(images, 1), 0.0)))


def smoothed(earlier: float, found: float) -> float:
    """The agreement over epochs, from that of the epochs before and that of the last one."""
    return SMOOTHING * earlier + (1 - SMOOTHING) * found


def collapse(record: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, str]:
    """Signs that the generator has collapsed: {"alike" or "class": sentence with the number}."""
    signs, counts = {}, record["class_counts"]
    if record["generator_step"] < SETTLED:
        return signs
    if record["generator/spread"] < ALIKE:
        spread = f"standard deviation over a batch {record['generator/spread']:.2g} of 1"
        signs["alike"] = f"all synthetic images are alike ({spread})"
    if counts.max() > ONE_CLASS * counts.sum():
        share, name = 100 * counts.max() / counts.sum(), class_names[int(counts.argmax())]
        signs["class"] = f"the teacher assigns {share:.1f} % of the synthetic images to one class, {name}"
    return signs


def warnings(record: Mapping[str, Any], class_names: Sequence[str], steps: int, rollbacks: int) -> dict[str, str]:
    """What the user should know of an epoch, by kind; see `loop.Task.warn`.

    Args:
      steps: of the student in an epoch.
      rollbacks: how many are allowed in the run.
    """
    signs = collapse(record, class_names)
    if record["undone"]:
        count, what = record["rollbacks"], "the epoch is undone and the generator's learning rate halved"
        return {f"rollback {count}": f"{'; '.join(signs.values())}; {what} (rollback {count} of at most {rollbacks})"}
    if record.get("skipped_steps"):
        skipped = f"{record['skipped_steps']:.0f} of {steps} steps"
        signs["filtered"] = f"{skipped} had every image filtered out: the student learned nothing in them"
    return signs
