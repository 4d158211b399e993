"""The hyper-parameters of unlearning: every key of `distill`, and the bases of data-free distillation."""

import math
from dataclasses import dataclass, fields, replace

from ispf_jax.errors import ArgumentError
from ispf_jax.settings import Settings, key

BASES: dict[str, dict[str, float]] = {
    "dfq": {},
    "zskt": {"weight_adv": 1.0, "weight_bn": 0.0, "weight_oh": 0.0, "weight_balance": 0.0, "weight_act": 0.0},
    "remix": {"replay": 0.5, "mixup": 1.0, "weight_logits": 1.0},
}
"""Bases of data-free distillation, and what each sets: dfq nothing, so all generator losses count (Choi et al., 2020);
zskt the adversarial loss alone (Micaelli and Storkey, 2019); remix adds replay, mixup and an L1 loss of logits to dfq
(docs/beyond.md)."""

_KEPT, _KEPT_BYTES = 32768, 2**30

MOST_STEPS = 10**6
"""Steps of an epoch, in which a run can neither be stopped nor saved."""


@dataclass(frozen=True)
class Distill(Settings):
    """Hyper-parameters of unlearning: a generator and a fresh student, without data. The defaults are those for
    CIFAR-10.

    Attributes:
      epochs: epochs of `loops` loops.
      loops: loops per epoch: generator_steps updates of the generator, then student_steps of the student [paper].
      generator_steps: updates of the generator per loop [paper].
      student_steps: updates of the student per loop [paper].
      warmup_epochs: epochs before these, for the generator alone [program; not in the paper].
      batch_size: synthetic images per step [paper].
      lr: learning rate of the student, SGD; decays by a cosine.
      lr_final: end of the cosine, at most lr [program; not in the paper].
      cosine_epochs: its length; the program has 200 even where only 100 epochs are run; 0: as many as epochs.
      momentum: of the student's SGD [program].
      weight_decay: of the student's SGD [program].
      generator_lr: learning rate of the generator, Adam [paper].
      generator_b1: Adam's first beta [program].
      generator_b2: Adam's second beta.
      generator_width: factor on the generator's number of filters.
      latent_dim: length of the noise vectors [program].
      threshold: PreFilter's limit on a forgotten class's probability; 0: 0.1 / classes (0.01 for ten, 0.001 for a
        hundred [paper]).
      thresholded_post_filter: False: PostFilter moves every forgotten logit [paper, Eq. 8-9]; True: only those above
        the threshold [program].
      weight_adv: weight of the generator's adversarial loss [program]; the base zskt has this term alone.
      weight_bn: weight of batch-norm matching.
      weight_oh: weight of the one-hot loss.
      weight_balance: weight of class balance.
      weight_act: weight of the activation loss.
      balance_retained: class balance over the retained classes alone.
      replay: share of the student's images that are earlier ones, moved and mirrored.
      mixup: share of the earlier images that are mixtures of two (Zhang et al., 2018), labelled by the teacher.
      memory: how many earlier images are kept, 8 bits a number; 0: 32,768, or fewer where these take more than 1 GiB.
      temperature: of the student's distillation.
      weight_logits: weight of the mean absolute difference of centred logits, added to the student's loss (as in Fang
        et al., 2019).
      rollbacks: how often an epoch in which the generator collapses is undone, each time with half the generator's
        learning rate from then on; 0: never [program].
      select: which student is the result: that of the last epoch [paper], or that of the epoch with the highest
        agreement with the teacher on synthetic images (docs/choosing.md).
      patience: with select=agreement, epochs without a higher agreement after which the run ends; 0: never.
      remat: compute the outputs of layers again for gradients and keep only those between blocks: less memory, slower;
        no use on a CPU, where XLA undoes it.
    """

    epochs: int = key(200, above=0, below=10**6)
    loops: int = key(5, above=0, below=10**5)
    generator_steps: int = key(1, above=0, below=10**5)
    student_steps: int = key(10, above=0, below=10**5)
    warmup_epochs: int = key(2, least=0, below=10**6)
    batch_size: int = key(256, above=0, below=2**20)
    lr: float = key(0.05, above=0)
    lr_final: float = key(0.0002, least=0)
    cosine_epochs: int = key(200, least=0, below=10**6)
    momentum: float = key(0.9, least=0, below=1)
    weight_decay: float = key(0.0001, least=0)
    generator_lr: float = key(0.001, above=0)
    generator_b1: float = key(0.5, least=0, below=1)
    generator_b2: float = key(0.999, least=0, below=1)
    generator_width: float = key(1.0, above=0, below=64, at="generator.width")
    latent_dim: int = key(256, above=0, below=2**16, at="generator.latent_dim")
    threshold: float = key(0.0, least=0, below=1)
    thresholded_post_filter: bool = key(False)
    weight_adv: float = key(1.0, least=0)
    weight_bn: float = key(1.0, least=0)
    weight_oh: float = key(1.0, least=0)
    weight_balance: float = key(1.0, least=0)
    weight_act: float = key(0.0, least=0)
    balance_retained: bool = key(False)
    replay: float = key(0.0, least=0, below=1)
    mixup: float = key(0.0, least=0, most=1)
    memory: int = key(0, least=0, below=2**24)
    temperature: float = key(1.0, above=0)
    weight_logits: float = key(0.0, least=0)
    rollbacks: int = key(0, least=0, most=100)
    select: str = key("last", among=("last", "agreement"))
    patience: int = key(0, least=0, below=10**6)
    remat: bool = key(False)

    def on(self, base: str) -> "Distill":
        """These hyper-parameters on a base, with what it sets.

        Raises:
          ArgumentError: there is no such base, or a field contradicts it.
        """
        if base not in BASES:
            raise ArgumentError("base", f"={base!r} is unknown; allowed are {', '.join(BASES)}.")
        defaults = {field.name: field.default for field in fields(self)}
        for name, value in BASES[base].items():
            if getattr(self, name) not in (value, defaults[name]):
                text = f"={getattr(self, name)} contradicts the base {base}, which sets it to {value}; leave it at"
                raise ArgumentError(name, f"{text} {defaults[name]}, or set it on the base dfq.")
        config = replace(self, **BASES[base])
        if config.mixup and not config.replay:
            raise ArgumentError("mixup", f"={config.mixup} mixes earlier images, but replay=0 takes none; set replay.")
        return config

    def kept_images(self, image_shape) -> int:
        """How many earlier images are kept for replay; 0 without."""
        most = min(_KEPT, _KEPT_BYTES // math.prod(image_shape))
        return (self.memory or most) if round(self.replay * self.batch_size) else 0

    def check(self):
        steps = self.loops * (self.generator_steps + self.student_steps)
        if steps > MOST_STEPS:
            rule = f"which makes epochs of {steps:,} steps; at most {MOST_STEPS:,} are possible: take more epochs."
            raise ArgumentError("loops", f"={self.loops}, {rule}")
        if self.patience and self.select == "last":
            raise ArgumentError("patience", f"={self.patience} needs select='agreement'.")
        if round(self.replay * self.batch_size) == self.batch_size:
            raise ArgumentError("replay", f"={self.replay} leaves no new image in a batch of {self.batch_size}.")
        if self.lr_final > self.lr:
            raise ArgumentError(
                "lr_final",
                f"={self.lr_final} is greater than lr={self.lr}, which decays to it; set it to {self.lr} or less.",
            )
