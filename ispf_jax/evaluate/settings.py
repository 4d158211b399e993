"""What an audit measures, and how closely."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Audit:
    """Settings of an audit.

    Attributes:
      metrics: families of metrics, see `metrics.FAMILIES`.
      mia1_protocol: which images MIA-I uses, see `mia1.PROTOCOLS`.
      shadows: shadow models of MIA-II; 0: no MIA-II.
      lira_shadows: shadow models of LiRA, an even number from 4; 0: no LiRA.
      relearn_steps: steps of every relearning curve; 0: ten epochs of the training split.
      relearn_batch: images per relearning step.
      relearn_alpha: relearned is (1 - alpha) times the original's accuracy (anamnesis index).
      shots: images per class of the few-shot measurements.
      layers: layers whose features are probed: the penultimate and earlier ones, evenly.
      train_images: training images, class-balanced, that probes and neighbours learn from.
      barrier_points: points on the line between a model and the original; 0: no barrier.
      barrier_images: test images on which the loss along it is taken.
      synthetic_images: images of a model's generator that are looked at.
      embedding_images: images in the pictures of features; 0: no pictures.
    """

    metrics: tuple[str, ...] = ("accuracy", "mia1", "mia2", "relearn", "features", "divergence", "lira")
    mia1_protocol: str = "salun"
    shadows: int = 5
    lira_shadows: int = 0
    relearn_steps: int = 0
    relearn_batch: int = 256
    relearn_alpha: float = 0.05
    shots: tuple[int, ...] = (1, 5, 20)
    layers: int = 3
    train_images: int = 5000
    barrier_points: int = 11
    barrier_images: int = 1000
    synthetic_images: int = 2048
    embedding_images: int = 400
