"""Settings of the audit."""

from dataclasses import dataclass

from ispf_jax.errors import ArgumentError
from ispf_jax.settings import Settings, key

FAMILIES = ("accuracy", "weights", "mia1", "mia2", "relearn", "features", "divergence", "leak", "lira")
NEED_SHADOWS = ("mia2", "lira")
MIA1_PROTOCOLS = ("salun", "unsc")


@dataclass(frozen=True)
class Audit(Settings):
    """The audit of what is left of the forgotten classes, see docs/audit.md. Like the stages it may change between
    starts.

    Attributes:
      metrics: families of measurements.
      mia1_protocol: which images MIA-I uses: salun or unsc; the paper does not say.
      mia1_draws: random draws of MIA-I's members, which its mean and spread are over.
      shadows: shadow models of MIA-II, each trained like the original on half of the data; 0: no MIA-II.
      lira_shadows: shadow models of the per-example attack LiRA, an even number from 4, 16 or more to be useful; 0:
        none.
      relearn_steps: steps of every relearning curve; 0: ten epochs of the training split.
      relearn_orders: random orders of the batches in which relearning on all classes is measured.
      relearn_batch: images per step of relearning.
      relearn_alpha: relearned is (1 - alpha) times the original's accuracy (anamnesis index).
      shots: images per class of the few-shot measurements.
      layers: layers whose features are probed: the penultimate and earlier ones, evenly.
      train_images: training images, class-balanced, that probes and neighbours learn from.
      barrier_points: points between model and original on the line of linear interpolation; 0: no barrier.
      barrier_images: test images on which the loss along it is taken.
      inverted_images: images per class that are inverted from every model; 0: none.
      inversion_steps: steps of gradient ascent for each.
      inverted_classes: classes at most that images are inverted for, the forgotten ones always.
      synthetic_images: synthetic images for the baseline that retrains the original's head, and among which duplicates
        are counted.
      embedding_images: images in the pictures of features, real and synthetic ones of every student, test images of
        every model; 0: no pictures.
      by: who computed the audit, as the page says it.
    """

    metrics: tuple[str, ...] = key(",".join(FAMILIES), among=FAMILIES)
    mia1_protocol: str = key("salun", among=MIA1_PROTOCOLS)
    mia1_draws: int = key(5, above=1, below=10**4)
    shadows: int = key(5, least=0, below=10**4)
    lira_shadows: int = key(0, least=0, below=10**4)
    relearn_steps: int = key(0, least=0, below=10**6)
    relearn_orders: int = key(3, above=1, below=10**3)
    relearn_batch: int = key(256, above=0, below=2**20)
    relearn_alpha: float = key(0.05, least=0, below=1)
    shots: tuple[int, ...] = key("1,5,20", above=0, below=10**6)
    layers: int = key(3, above=0, below=10**4)
    train_images: int = key(5000, above=0)
    barrier_points: int = key(11, least=0, below=10**4)
    barrier_images: int = key(1000, least=0)
    inverted_images: int = key(8, least=0, below=10**4)
    inversion_steps: int = key(64, above=0, below=10**6)
    inverted_classes: int = key(10, above=1, below=10**4)
    synthetic_images: int = key(2048, above=0, below=2**20)
    embedding_images: int = key(400, least=0, below=10**5)
    by: str = key("")

    def check(self):
        if self.lira_shadows % 2 or self.lira_shadows == 2:
            allowed = "must be 0 (no LiRA) or an even number, 4 or more; 16 or more are useful."
            raise ArgumentError("lira_shadows", f"={self.lira_shadows} {allowed}")
