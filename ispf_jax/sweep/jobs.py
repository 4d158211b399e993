"""The jobs of an experiment: what there is to do, in which order, where its results go, and what is finished.

Layout of a work directory::

    config.json                                   the configuration and a fingerprint of the data
    original/seed0/{checkpoints,metrics.jsonl,split.npz,rows/3/result.json}
    retrain/3/seed0/{...,result.json}
    unlearn/dfq/ispf/3/seed0/{...,samples.png,result.json}
    .../weights.pt, weights.safetensors           networks for other programs, in the same directories
    shadows/mia2/shadow0/                         shadow models of the audit's attacks
    audit/3/seed0/{original.json,...,audit.json}  what is left of the forgotten classes
    report/ results.json results.csv ...          written by the report
"""

from dataclasses import dataclass
from pathlib import Path

from ispf_jax.experiment import Experiment
from ispf_jax.forget import ForgetSet, joined
from ispf_jax.runtime.rows import complete_rows


@dataclass(frozen=True)
class Job:
    """One piece of work with results that stand for themselves.

    Attributes:
      kind: original, retrain, unlearn, shadow or audit.
      seed: the trial; of a shadow model its number.
      forget: the forget set; empty for original and shadow models, which all forget sets share.
      base, method: of unlearning; of a shadow model `method` is the attack it serves.
    """

    kind: str
    seed: int
    forget: ForgetSet = ()
    base: str = ""
    method: str = ""

    def __str__(self) -> str:
        if self.kind == "shadow":
            return f"shadow model {self.seed + 1} ({self.method})"
        words = {
            "retrain": "retrain without {}",
            "unlearn": f"unlearn {self.method} ({self.base}) forget {{}}",
            "audit": "audit {}",
        }
        return words.get(self.kind, self.kind).format(joined(self.forget, ",")) + f" seed {self.seed}"

    @property
    def place(self) -> Path:
        """Its directory below the work directory."""
        if self.kind == "shadow":
            return Path("shadows") / self.method / f"shadow{self.seed}"
        parts = [self.base, self.method] if self.kind == "unlearn" else []
        return Path(self.kind, *parts, *([joined(self.forget)] if self.forget else []), f"seed{self.seed}")

    def result(self, forget: ForgetSet) -> Path:
        """Its rows, below the work directory; those of an original are kept for every forget set."""
        place = self.place / "rows" / joined(forget) if self.kind == "original" else self.place
        return place / "result.json"

    def needs(self, other: "Job") -> bool:
        """Whether `other`, if it is to be done at all, has to be done first."""
        if self.kind == "audit":
            mine = other.kind in ("retrain", "unlearn") and (other.seed, other.forget) == (self.seed, self.forget)
            return mine or other.kind == "shadow" or other == Job("original", self.seed)
        return self.kind == "unlearn" and other == Job("original", self.seed)


def jobs(e: Experiment, forget_sets: tuple[ForgetSet, ...]) -> list[Job]:
    """All jobs of an experiment, each after those it needs."""
    counts = {"mia2": e.audit.shadows, "lira": e.audit.lira_shadows} if "audit" in e.stages else {}
    attacks = [(attack, count) for attack, count in counts.items() if attack in e.audit.metrics]
    shadows = [Job("shadow", k, method=attack) for attack, count in attacks for k in range(count)]
    found = []
    for seed in e.seeds:
        found += [Job("original", seed)] if "original" in e.stages else []
        for forget in forget_sets:
            found += [Job("retrain", seed, forget)] if "retrain" in e.stages else []
            if "unlearn" in e.stages:
                found += [Job("unlearn", seed, forget, base, method) for base in e.base for method in e.methods]
            if "audit" in e.stages:
                found += [*shadows, Job("audit", seed, forget)]
                shadows = []  # the first audit needs them, the others find them
    return found


def finished(job: Job, workdir: Path, forget_sets: tuple[ForgetSet, ...]) -> bool:
    """Whether its results are there and whole; a damaged result is set aside, so that it is made again.

    Shadow models and audits decide for themselves what is left to do, which may be nothing.
    """
    if job.kind not in ("original", "retrain", "unlearn"):
        return False
    sets = forget_sets if job.kind == "original" else (job.forget,)
    return all(complete_rows(workdir / job.result(forget)) for forget in sets)
